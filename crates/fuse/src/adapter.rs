//! Our [`Filesystem`] under the crate `fuser`: each request becomes an owned job on the tokio runtime, which answers by
//! itself. So a request that waits for a dead server holds up no other, and no session thread.
//!
//! Knows the library and the kernel's conventions; knows nothing of PVFS. Another session layer can take its place.

mod answer;
mod convert;
mod plus;

use crate::{
    dirstream,
    ops::{Cancel, Context, DirRequest, Filesystem, Handle, OpenFlags, RenameMode, Reply},
};
use answer::{attributes, attributes_changed, data, empty, entry, opened, written, xattr};
use bytes::Bytes;
use convert::{errno, file_attr, node};
use fuser::{INodeNo, InitFlags, KernelConfig, Request};
use plus::readdir_plus;
use pvfs_env::{Counter, Metrics};
use pvfs_types::{Errno, FileKind, SetAttr};
use std::{
    collections::HashMap,
    ffi::OsStr,
    future::Future,
    io,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};
use tokio::{runtime::Handle as Runtime, sync::mpsc};
use tracing::debug;

/// The longest write and read of one request, in bytes.
pub const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Threads that read requests.
pub const SESSION_THREADS: usize = 2;
/// Read-ahead and other requests of the kernel itself that may be under way.
const BACKGROUND_MAX: u16 = 64;
const BACKGROUND_CONGESTED: u16 = 48;

/// What the library's session calls.
pub struct Adapter<F> {
    fs: Arc<F>,
    runtime: Runtime,
    /// Fires when the mount is given up.
    cancel: Cancel,
    /// A clone is in each job: its receiver ends when all are done.
    alive: mpsc::Sender<()>,
    notifier: Arc<OnceLock<fuser::Notifier>>,
    requests: HashMap<&'static str, Counter>,
}

/// The operations that are counted, by the kernel's names for them.
const OPS: [&str; 33] = [
    "access",
    "create",
    "fallocate",
    "flush",
    "forget",
    "fsync",
    "fsyncdir",
    "getattr",
    "getxattr",
    "link",
    "listxattr",
    "lookup",
    "lseek",
    "mkdir",
    "mknod",
    "open",
    "opendir",
    "read",
    "readdir",
    "readdirplus",
    "readlink",
    "release",
    "releasedir",
    "removexattr",
    "rename",
    "rmdir",
    "setattr",
    "setxattr",
    "statfs",
    "symlink",
    "unlink",
    "write",
    "copy_file_range",
];

impl<F: Filesystem> Adapter<F> {
    /// `notifier` is to be set before the session runs. The receiver that comes with `alive` ends when the session and
    /// all its jobs have ended.
    pub fn new(
        fs: Arc<F>,
        runtime: Runtime,
        cancel: Cancel,
        alive: mpsc::Sender<()>,
        notifier: Arc<OnceLock<fuser::Notifier>>,
        metrics: &Metrics,
    ) -> Adapter<F> {
        let counter = |op| (op, metrics.counter("pvfs_fuse_requests_total", &[("op", op)]));
        let requests = OPS.into_iter().map(counter).collect();
        Adapter { fs, runtime, cancel, alive, notifier, requests }
    }

    fn count(&self, op: &'static str) {
        if let Some(counter) = self.requests.get(op) {
            counter.inc();
        }
    }

    /// Runs `work` beside everything else, and `answer` with what it gave. An interrupted one is dropped half done.
    fn job<T, W, Fut>(
        &self,
        op: &'static str,
        req: &Request,
        work: W,
        answer: impl FnOnce(Reply<T>) + Send + 'static,
    ) where
        T: Send + 'static,
        W: FnOnce(Arc<F>, Context) -> Fut + Send + 'static,
        Fut: Future<Output = Reply<T>> + Send,
    {
        self.count(op);
        let ctx = Context { uid: req.uid(), gid: req.gid(), pid: req.pid(), cancel: self.cancel.clone() };
        let (fs, alive, cancel) = (self.fs.clone(), self.alive.clone(), self.cancel.clone());
        self.runtime.spawn(async move {
            answer(cancel.or_eintr(work(fs, ctx)).await);
            drop(alive);
        });
    }
}

impl<F: Filesystem> fuser::Filesystem for Adapter<F> {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_EXPORT_SUPPORT
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;
        let offered = config.capabilities();
        if !offered.contains(InitFlags::FUSE_MAX_PAGES) {
            debug!("this kernel splits requests at 128 KiB");
        }
        // Each of them is a help the mount can do without.
        let _ = config.add_capabilities(wanted & offered);
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        if let Err(most) = config.set_max_readahead(REQUEST_BYTES_MAX) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        let _ = config.set_congestion_threshold(BACKGROUND_CONGESTED);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEntry) {
        let (dir, name) = (node(parent), name.as_bytes().to_vec());
        self.job(
            "lookup",
            req,
            move |fs, ctx| async move { fs.lookup(&ctx, dir, &name).await },
            entry(reply),
        );
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.count("forget");
        self.fs.forget(node(ino), nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, fh: Option<fuser::FileHandle>, reply: fuser::ReplyAttr) {
        let handle = fh.map(|fh| Handle(fh.0));
        let work = move |fs: Arc<F>, ctx| async move { fs.getattr(&ctx, node(ino), handle).await };
        self.job("getattr", req, work, attributes(reply));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<fuser::TimeOrNow>,
        mtime: Option<fuser::TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<fuser::FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: fuser::ReplyAttr,
    ) {
        let changes = SetAttr {
            mode: mode.map(|mode| mode & pvfs_types::mode::ALL),
            uid,
            gid,
            size,
            atime: atime.map(convert::set_time),
            mtime: mtime.map(convert::set_time),
        };
        let handle = fh.map(|fh| Handle(fh.0));
        let work = move |fs: Arc<F>, ctx| async move { fs.setattr(&ctx, node(ino), handle, changes).await };
        self.job("setattr", req, work, attributes(reply));
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: fuser::ReplyData) {
        let work = move |fs: Arc<F>, ctx| async move { fs.readlink(&ctx, node(ino)).await.map(Bytes::from) };
        self.job("readlink", req, work, data(reply));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: fuser::ReplyEntry,
    ) {
        let (dir, name) = (node(parent), name.as_bytes().to_vec());
        let Some(kind) = convert::kind_of_mode(mode) else {
            return reply.error(errno(Errno::EINVAL));
        };
        let rdev = match kind {
            FileKind::CharDev | FileKind::BlockDev => convert::split_rdev(rdev),
            _ => (0, 0),
        };
        let bits = convert::masked(mode, umask);
        let work = move |fs: Arc<F>, ctx| async move { fs.mknod(&ctx, dir, &name, kind, bits, rdev).await };
        self.job("mknod", req, work, entry(reply));
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: fuser::ReplyEntry,
    ) {
        let (dir, name) = (node(parent), name.as_bytes().to_vec());
        let bits = convert::masked(mode, umask);
        let work = move |fs: Arc<F>, ctx| async move { fs.mkdir(&ctx, dir, &name, bits).await };
        self.job("mkdir", req, work, entry(reply));
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let (dir, name) = (node(parent), name.as_bytes().to_vec());
        self.job(
            "unlink",
            req,
            move |fs, ctx| async move { fs.unlink(&ctx, dir, &name).await },
            empty(reply),
        );
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let (dir, name) = (node(parent), name.as_bytes().to_vec());
        self.job("rmdir", req, move |fs, ctx| async move { fs.rmdir(&ctx, dir, &name).await }, empty(reply));
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: fuser::ReplyEntry,
    ) {
        let (dir, name) = (node(parent), link_name.as_bytes().to_vec());
        let target = target.as_os_str().as_bytes().to_vec();
        let work = move |fs: Arc<F>, ctx| async move { fs.symlink(&ctx, dir, &name, &target).await };
        self.job("symlink", req, work, entry(reply));
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: fuser::RenameFlags,
        reply: fuser::ReplyEmpty,
    ) {
        let mode = match flags {
            f if f.is_empty() => RenameMode::Replace,
            fuser::RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            fuser::RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return reply.error(errno(Errno::EINVAL)),
        };
        let (name, newname) = (name.as_bytes().to_vec(), newname.as_bytes().to_vec());
        let work = move |fs: Arc<F>, ctx| async move {
            fs.rename(&ctx, (node(parent), &name), (node(newparent), &newname), mode).await
        };
        self.job("rename", req, work, empty(reply));
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: fuser::ReplyEntry,
    ) {
        let name = newname.as_bytes().to_vec();
        let work =
            move |fs: Arc<F>, ctx| async move { fs.link(&ctx, node(ino), node(newparent), &name).await };
        self.job("link", req, work, entry(reply));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: fuser::OpenFlags, reply: fuser::ReplyOpen) {
        let flags = OpenFlags::from_bits(flags.0);
        let work = move |fs: Arc<F>, ctx| async move { fs.open(&ctx, node(ino), flags).await };
        self.job("open", req, work, opened(ino, self.notifier.clone(), reply));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: fuser::ReplyCreate,
    ) {
        let (dir, name) = (node(parent), name.as_bytes().to_vec());
        let (bits, flags) = (convert::masked(mode, umask), OpenFlags::from_bits(flags));
        let notifier = self.notifier.clone();
        let work = move |fs: Arc<F>, ctx| async move { fs.create(&ctx, dir, &name, bits, flags).await };
        self.job("create", req, work, move |answer| match answer {
            Ok((entry, opened)) => {
                if opened.attributes_changed {
                    attributes_changed(&notifier, INodeNo(entry.node.0));
                }
                let attr = file_attr(entry.node, &entry.attr);
                let handle = fuser::FileHandle(opened.handle.0);
                let how = convert::open_reply(opened);
                reply.created(&entry.valid, &attr, fuser::Generation(0), handle, how);
            }
            Err(e) => reply.error(errno(e)),
        });
    }

    fn read(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: fuser::FileHandle,
        offset: u64,
        size: u32,
        _flags: fuser::OpenFlags,
        _lock_owner: Option<fuser::LockOwner>,
        reply: fuser::ReplyData,
    ) {
        let work = move |fs: Arc<F>, ctx| async move { fs.read(&ctx, Handle(fh.0), offset, size).await };
        self.job("read", req, work, data(reply));
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: fuser::FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: fuser::WriteFlags,
        _flags: fuser::OpenFlags,
        _lock_owner: Option<fuser::LockOwner>,
        reply: fuser::ReplyWrite,
    ) {
        // The one copy: the session thread's buffer takes the next request.
        let data = Bytes::copy_from_slice(data);
        let len = data.len();
        let work = move |fs: Arc<F>, ctx| async move { fs.write(&ctx, Handle(fh.0), offset, data).await };
        self.job("write", req, work, written(len, reply));
    }

    fn flush(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: fuser::FileHandle,
        _lock_owner: fuser::LockOwner,
        reply: fuser::ReplyEmpty,
    ) {
        self.job(
            "flush",
            req,
            move |fs, ctx| async move { fs.flush(&ctx, Handle(fh.0)).await },
            empty(reply),
        );
    }

    fn release(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: fuser::FileHandle,
        _flags: fuser::OpenFlags,
        _lock_owner: Option<fuser::LockOwner>,
        _flush: bool,
        reply: fuser::ReplyEmpty,
    ) {
        self.job(
            "release",
            req,
            move |fs, ctx| async move { fs.release(&ctx, Handle(fh.0)).await },
            empty(reply),
        );
    }

    fn fsync(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: fuser::FileHandle,
        datasync: bool,
        reply: fuser::ReplyEmpty,
    ) {
        let work = move |fs: Arc<F>, ctx| async move { fs.fsync(&ctx, Handle(fh.0), datasync).await };
        self.job("fsync", req, work, empty(reply));
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: fuser::OpenFlags, reply: fuser::ReplyOpen) {
        let work = move |fs: Arc<F>, ctx| async move { fs.opendir(&ctx, node(ino)).await };
        self.job("opendir", req, work, opened(ino, self.notifier.clone(), reply));
    }

    fn readdir(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: fuser::FileHandle,
        offset: u64,
        mut reply: fuser::ReplyDirectory,
    ) {
        let request = DirRequest { cookie: offset, plus: false };
        let work =
            move |fs: Arc<F>, ctx| async move { fs.readdir(&ctx, node(ino), Handle(fh.0), request).await };
        self.job("readdir", req, work, move |answer| match answer {
            Ok(page) => {
                for e in dirstream::one_reply(page.entries()) {
                    let kind = convert::file_type(e.kind);
                    if reply.add(INodeNo(e.ino), e.cookie, kind, OsStr::from_bytes(&e.name)) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(e) => reply.error(errno(e)),
        });
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: fuser::FileHandle,
        offset: u64,
        mut reply: fuser::ReplyDirectoryPlus,
    ) {
        let work = move |fs: Arc<F>, ctx| async move {
            readdir_plus(&*fs, &ctx, node(ino), Handle(fh.0), offset).await
        };
        self.job("readdirplus", req, work, move |answer| match answer {
            Ok(entries) => {
                for e in &entries {
                    let (attr, valid) = match &e.entry {
                        Some(entry) => (file_attr(entry.node, &entry.attr), entry.valid),
                        // The dots: the kernel takes their numbers only.
                        None => (convert::bare_attr(e.ino, e.kind), Duration::ZERO),
                    };
                    let name = OsStr::from_bytes(&e.name);
                    if reply.add(attr.ino, e.cookie, name, &valid, &attr, fuser::Generation(0)) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(e) => reply.error(errno(e)),
        });
    }

    fn releasedir(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: fuser::FileHandle,
        _flags: fuser::OpenFlags,
        reply: fuser::ReplyEmpty,
    ) {
        let work = move |fs: Arc<F>, ctx| async move { fs.releasedir(&ctx, Handle(fh.0)).await };
        self.job("releasedir", req, work, empty(reply));
    }

    fn fsyncdir(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: fuser::FileHandle,
        _datasync: bool,
        reply: fuser::ReplyEmpty,
    ) {
        let work = move |fs: Arc<F>, ctx| async move { fs.fsyncdir(&ctx, Handle(fh.0)).await };
        self.job("fsyncdir", req, work, empty(reply));
    }

    fn statfs(&self, req: &Request, ino: INodeNo, reply: fuser::ReplyStatfs) {
        let work = move |fs: Arc<F>, ctx| async move { fs.statfs(&ctx, node(ino)).await };
        self.job("statfs", req, work, move |answer| match answer {
            Ok(s) => reply.statfs(
                s.blocks,
                s.blocks_free,
                s.blocks_available,
                s.files,
                s.files_free,
                s.block_bytes,
                s.name_bytes_max,
                s.block_bytes,
            ),
            Err(e) => reply.error(errno(e)),
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: fuser::ReplyEmpty,
    ) {
        let (name, value) = (name.as_bytes().to_vec(), Bytes::copy_from_slice(value));
        let work =
            move |fs: Arc<F>, ctx| async move { fs.setxattr(&ctx, node(ino), &name, value, flags).await };
        self.job("setxattr", req, work, empty(reply));
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: fuser::ReplyXattr) {
        let name = name.as_bytes().to_vec();
        let work = move |fs: Arc<F>, ctx| async move { fs.getxattr(&ctx, node(ino), &name).await };
        self.job("getxattr", req, work, xattr(size, reply));
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: fuser::ReplyXattr) {
        let work = move |fs: Arc<F>, ctx| async move { fs.listxattr(&ctx, node(ino)).await };
        self.job("listxattr", req, work, xattr(size, reply));
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        let work = move |fs: Arc<F>, ctx| async move { fs.removexattr(&ctx, node(ino), &name).await };
        self.job("removexattr", req, work, empty(reply));
    }

    fn access(&self, req: &Request, ino: INodeNo, mask: fuser::AccessFlags, reply: fuser::ReplyEmpty) {
        let mask = mask.bits().cast_unsigned();
        let work = move |fs: Arc<F>, ctx| async move { fs.access(&ctx, node(ino), mask).await };
        self.job("access", req, work, empty(reply));
    }

    fn fallocate(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: fuser::FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: fuser::ReplyEmpty,
    ) {
        let work = move |fs: Arc<F>, ctx| async move {
            fs.fallocate(&ctx, Handle(fh.0), offset, length, mode).await
        };
        self.job("fallocate", req, work, empty(reply));
    }

    fn lseek(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: fuser::FileHandle,
        offset: i64,
        whence: i32,
        reply: fuser::ReplyLseek,
    ) {
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(errno(Errno::ENXIO));
        };
        let work = move |fs: Arc<F>, ctx| async move { fs.lseek(&ctx, Handle(fh.0), offset, whence).await };
        self.job("lseek", req, work, move |answer| {
            match answer.and_then(|at| i64::try_from(at).map_err(|_| Errno::EOVERFLOW)) {
                Ok(at) => reply.offset(at),
                Err(e) => reply.error(errno(e)),
            }
        });
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: fuser::FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: fuser::FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: fuser::CopyFileRangeFlags,
        reply: fuser::ReplyWrite,
    ) {
        self.count("copy_file_range");
        // The kernel copies by reading and writing, and asks no more.
        reply.error(errno(Errno::ENOSYS));
    }
}
