//! Our [`Filesystem`] under a kernel session: each request becomes one call, each answer the kernel's bytes.
//!
//! Knows the kernel's conventions; knows nothing of PVFS. A call whose caller is interrupted is dropped.

mod answer;
mod convert;
mod locks;

use crate::{
    MountOptions, dirstream,
    ops::{self, Context, DirRequest, Entry, Filesystem, Handle, NodeId, OpenFlags, Opened, RenameMode},
};
use pvfs_env::{Counter, Metrics};
use pvfs_kfuse::{
    Notifier, Op, Reply, Request, Serve, Wanted,
    abi::{READ_LOCKOWNER, RELEASE_FLOCK_UNLOCK, init},
};
use pvfs_types::{Errno, FileKind};
use std::{future::Future, sync::Arc};
use tokio::sync::{SetOnce, mpsc};
use tracing::debug;

/// The longest write and read of one request, in bytes.
pub const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// As many bytes as a kernel asks for whose answers have no room for more.
const NARROW_COPY_BYTES_MAX: u64 = u32::MAX as u64 & !4095;
/// Threads that read requests.
pub const SESSION_THREADS: usize = 2;

/// What a mount with `options` wants of the kernel.
pub fn wanted(options: &MountOptions) -> Wanted {
    let locks = if options.local_locks { 0 } else { init::POSIX_LOCKS | init::FLOCK_LOCKS };
    let rings = if options.io_uring { init::OVER_IO_URING } else { 0 };
    Wanted { flags: WANTED.flags | locks | rings, ..WANTED }
}

const WANTED: Wanted = Wanted {
    flags: init::ATOMIC_O_TRUNC
        | init::PARALLEL_DIROPS
        | init::DO_READDIRPLUS
        | init::READDIRPLUS_AUTO
        | init::AUTO_INVAL_DATA
        | init::ASYNC_DIO
        | init::EXPORT_SUPPORT
        | init::DIRECT_IO_ALLOW_MMAP
        // The mgr decides whether the umask or a default ACL counts.
        | init::DONT_MASK
        | init::POSIX_ACL
        | init::HANDLE_KILLPRIV_V2,
    request_bytes_max: REQUEST_BYTES_MAX,
    read_ahead_bytes_max: REQUEST_BYTES_MAX,
    background_max: 32,
    background_congested: 24,
};

/// What the kernel's session calls.
pub struct Adapter<F> {
    /// Requests wait for it; a signal ends their wait.
    fs: Arc<SetOnce<Arc<F>>>,
    /// A clone is in each request at work: its receiver ends when all are done.
    alive: mpsc::Sender<()>,
    notifier: Notifier,
    /// As [`OPS`].
    requests: Vec<Counter>,
}

/// The operations that are counted, by the kernel's names for them.
const OPS: [&str; 37] = [
    "access",
    "copy_file_range",
    "create",
    "fallocate",
    "flush",
    "forget",
    "fsync",
    "fsyncdir",
    "getattr",
    "getlk",
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
    "setlk",
    "setxattr",
    "statfs",
    "statx",
    "symlink",
    "tmpfile",
    "unlink",
    "write",
];

impl<F: Filesystem> Adapter<F> {
    /// The receiver that comes with `alive` ends when the session and all its requests have ended.
    pub fn new(
        fs: Arc<SetOnce<Arc<F>>>,
        alive: mpsc::Sender<()>,
        notifier: Notifier,
        metrics: &Metrics,
    ) -> Adapter<F> {
        let counter = |op| metrics.counter("pvfs_fuse_requests_total", &[("op", op)]);
        let requests = OPS.into_iter().map(counter).collect();
        Adapter { fs, alive, notifier, requests }
    }

    fn count(&self, op: &str) {
        if let Some(at) = OPS.iter().position(|name| *name == op) {
            self.requests[at].inc();
        }
    }
}

/// The file system, once it is there, with what answering takes.
struct Answering<'a, F> {
    fs: &'a F,
    adapter: &'a Adapter<F>,
}

impl<F: Filesystem> Answering<'_, F> {
    fn count(&self, op: &str) {
        self.adapter.count(op);
    }

    async fn answer(&self, request: Request, reply: Reply) {
        let (number, resent) = (request.number(), request.is_resent());
        let ctx = &Context { request: number, resent, uid: request.uid, gid: request.gid, pid: request.pid };
        let Request { node, op, .. } = request;
        let node = NodeId(node);
        match op {
            Op::Open { .. } | Op::Create { .. } | Op::TmpFile { .. } | Op::OpenDir { .. } => {
                self.open(ctx, node, op, reply).await;
            }
            Op::Read { .. }
            | Op::Write { .. }
            | Op::Flush { .. }
            | Op::Release { .. }
            | Op::Fsync { .. }
            | Op::Fallocate { .. }
            | Op::CopyFileRange { .. }
            | Op::Lseek { .. } => self.use_file(ctx, op, reply).await,
            Op::ReadDir { .. } | Op::ReleaseDir { .. } | Op::FsyncDir { .. } => {
                self.use_dir(ctx, node, op, reply).await;
            }
            Op::SetXattr { .. } | Op::GetXattr { .. } | Op::ListXattr { .. } | Op::RemoveXattr { .. } => {
                self.xattr(ctx, node, op, reply).await;
            }
            Op::GetLock(_) | Op::SetLock { .. } => self.lock(ctx, node, op, reply).await,
            Op::Lookup { .. }
            | Op::SymLink { .. }
            | Op::MkNod { .. }
            | Op::MkDir { .. }
            | Op::Unlink { .. }
            | Op::RmDir { .. }
            | Op::Rename { .. }
            | Op::Link { .. } => self.name(ctx, node, op, reply).await,
            op => self.inode(ctx, node, op, reply).await,
        }
    }

    /// Operations on an inode.
    async fn inode(&self, ctx: &Context, node: NodeId, op: Op, reply: Reply) {
        match op {
            Op::GetAttr { handle } => {
                self.count("getattr");
                answer::attributes(reply, self.fs.getattr(ctx, node, handle.map(Handle)).await);
            }
            Op::Statx { handle } => {
                self.count("statx");
                answer::statx(reply, self.fs.getattr(ctx, node, handle.map(Handle)).await);
            }
            Op::SetAttr(args) => {
                self.count("setattr");
                let (handle, changes) = convert::changes(&args);
                answer::attributes(reply, self.fs.setattr(ctx, node, handle, changes).await);
            }
            Op::ReadLink => {
                self.count("readlink");
                answer::data(reply, self.fs.readlink(ctx, node).await.as_deref());
            }
            Op::Access { mask } => {
                self.count("access");
                answer::empty(reply, self.fs.access(ctx, node, mask).await);
            }
            Op::StatFs => {
                self.count("statfs");
                answer::statfs(reply, self.fs.statfs(ctx, node).await);
            }
            // The kernel does without, and asks no more.
            _ => reply.error(Errno::ENOSYS.number()),
        }
    }

    /// Operations on names in the directory `dir`.
    async fn name(&self, ctx: &Context, dir: NodeId, op: Op, reply: Reply) {
        let fs = self.fs;
        match op {
            Op::Lookup { name } => {
                self.count("lookup");
                answer::entry(reply, fs.lookup(ctx, dir, &name).await);
            }
            Op::SymLink { name, target } => {
                self.count("symlink");
                answer::entry(reply, fs.symlink(ctx, dir, &name, &target).await);
            }
            Op::MkNod { name, mode, umask, rdev } => {
                self.count("mknod");
                let Some(kind) = convert::kind_of_mode(mode) else {
                    return reply.error(Errno::EINVAL.number());
                };
                let rdev = match kind {
                    FileKind::CharDev | FileKind::BlockDev => convert::split_rdev(rdev),
                    _ => (0, 0),
                };
                let mode = convert::new_mode(mode, umask);
                answer::entry(reply, fs.mknod(ctx, dir, &name, kind, mode, rdev).await);
            }
            Op::MkDir { name, mode, umask } => {
                self.count("mkdir");
                answer::entry(reply, fs.mkdir(ctx, dir, &name, convert::new_mode(mode, umask)).await);
            }
            Op::Unlink { name } => {
                self.count("unlink");
                answer::empty(reply, fs.unlink(ctx, dir, &name).await);
            }
            Op::RmDir { name } => {
                self.count("rmdir");
                answer::empty(reply, fs.rmdir(ctx, dir, &name).await);
            }
            Op::Rename { name, new_dir, new_name, flags } => {
                self.count("rename");
                let mode = match flags {
                    0 => RenameMode::Replace,
                    libc::RENAME_NOREPLACE => RenameMode::NoReplace,
                    libc::RENAME_EXCHANGE => RenameMode::Exchange,
                    _ => return reply.error(Errno::EINVAL.number()),
                };
                let to = (NodeId(new_dir), &*new_name);
                answer::empty(reply, fs.rename(ctx, (dir, &name), to, mode).await);
            }
            Op::Link { node, name } => {
                self.count("link");
                answer::entry(reply, fs.link(ctx, NodeId(node), dir, &name).await);
            }
            _ => reply.error(Errno::ENOSYS.number()),
        }
    }

    /// Opens. An open whose caller is gone by the time it is done is closed again.
    async fn open(&self, ctx: &Context, node: NodeId, op: Op, reply: Reply) {
        match op {
            Op::Open { flags } => {
                self.count("open");
                match self.fs.open(ctx, node, OpenFlags::from_bits(flags.cast_signed())).await {
                    Ok(opened) => {
                        self.outdate(node, opened);
                        if !answer::opened(reply, opened) {
                            let _ = self.fs.release(ctx, opened.handle, None).await;
                        }
                    }
                    Err(error) => reply.error(error.number()),
                }
            }
            Op::Create { name, mode, umask, flags } => {
                self.count("create");
                let mode = convert::new_mode(mode, umask);
                let flags = OpenFlags::from_bits(flags.cast_signed());
                self.created(ctx, reply, self.fs.create(ctx, node, &name, mode, flags).await).await;
            }
            Op::TmpFile { mode, umask, flags } => {
                self.count("tmpfile");
                let mode = convert::new_mode(mode, umask);
                let flags = OpenFlags::from_bits(flags.cast_signed());
                self.created(ctx, reply, self.fs.tmpfile(ctx, node, mode, flags).await).await;
            }
            _ => {
                self.count("opendir");
                match self.fs.opendir(ctx, node).await {
                    Ok(opened) => {
                        if !answer::opened(reply, opened) {
                            let _ = self.fs.releasedir(ctx, opened.handle).await;
                        }
                    }
                    Err(error) => reply.error(error.number()),
                }
            }
        }
    }

    async fn created(&self, ctx: &Context, reply: Reply, made: ops::Reply<(Entry, Opened)>) {
        match made {
            Ok((entry, opened)) => {
                self.outdate(entry.node, opened);
                if !answer::created(reply, &entry, opened) {
                    let _ = self.fs.release(ctx, opened.handle, None).await;
                }
            }
            Err(error) => reply.error(error.number()),
        }
    }

    /// Makes the kernel ask for the inode's attributes before it uses them again.
    fn outdate(&self, node: NodeId, opened: Opened) {
        if opened.attributes_changed
            && let Err(error) = self.adapter.notifier.attributes_changed(node.0)
        {
            debug!(node = node.0, %error, "attributes not invalidated");
        }
    }

    /// Operations on an open file.
    async fn use_file(&self, ctx: &Context, op: Op, reply: Reply) {
        let fs = self.fs;
        match op {
            Op::Read { handle, offset, len, flags } => {
                self.count("read");
                let fills_pages = flags & READ_LOCKOWNER == 0;
                answer::data(reply, fs.read(ctx, Handle(handle), offset, len, fills_pages).await.as_deref());
            }
            Op::Write { handle, offset, data, flags, open_flags } => {
                self.count("write");
                let (len, how) = (data.len(), convert::writing(flags, open_flags));
                answer::written(reply, len, fs.write(ctx, Handle(handle), offset, data, how).await);
            }
            Op::Flush { handle, lock_owner } => {
                self.count("flush");
                answer::empty(reply, fs.flush(ctx, Handle(handle), lock_owner).await);
            }
            Op::Release { handle, flags, lock_owner } => {
                self.count("release");
                let flock = (flags & RELEASE_FLOCK_UNLOCK != 0).then_some(lock_owner);
                answer::empty(reply, fs.release(ctx, Handle(handle), flock).await);
            }
            Op::Fsync { handle, data_only } => {
                self.count("fsync");
                answer::empty(reply, fs.fsync(ctx, Handle(handle), data_only).await);
            }
            Op::Fallocate { handle, offset, len, mode } => {
                self.count("fallocate");
                let done = fs.fallocate(ctx, Handle(handle), offset, len, mode.cast_signed()).await;
                answer::empty(reply, done);
            }
            Op::CopyFileRange { handle, offset, to_handle, to_offset, len, flags, is_wide } => {
                self.count("copy_file_range");
                if flags != 0 {
                    return reply.error(Errno::EINVAL.number());
                }
                let len = if is_wide { len } else { len.min(NARROW_COPY_BYTES_MAX) };
                let (from, to) = ((Handle(handle), offset), (Handle(to_handle), to_offset));
                answer::copied(reply, is_wide, fs.copy(ctx, from, to, len).await);
            }
            Op::Lseek { handle, offset, whence } => {
                self.count("lseek");
                if i64::try_from(offset).is_err() {
                    return reply.error(Errno::ENXIO.number());
                }
                let found = fs.lseek(ctx, Handle(handle), offset, whence.cast_signed()).await;
                answer::position(reply, found);
            }
            _ => reply.error(Errno::ENOSYS.number()),
        }
    }

    /// Operations on an open directory.
    async fn use_dir(&self, ctx: &Context, node: NodeId, op: Op, reply: Reply) {
        match op {
            Op::ReadDir { handle, offset: cookie, room, plus } => {
                self.count(if plus { "readdirplus" } else { "readdir" });
                let request = DirRequest { cookie, plus };
                match self.fs.readdir(ctx, node, Handle(handle), request).await {
                    Ok(page) => answer::directory(reply, dirstream::one_reply(page.entries()), room, plus),
                    Err(error) => reply.error(error.number()),
                }
            }
            Op::ReleaseDir { handle } => {
                self.count("releasedir");
                answer::empty(reply, self.fs.releasedir(ctx, Handle(handle)).await);
            }
            Op::FsyncDir { handle, .. } => {
                self.count("fsyncdir");
                answer::empty(reply, self.fs.fsyncdir(ctx, Handle(handle)).await);
            }
            _ => reply.error(Errno::ENOSYS.number()),
        }
    }

    /// Extended attributes.
    async fn xattr(&self, ctx: &Context, node: NodeId, op: Op, reply: Reply) {
        match op {
            Op::SetXattr { name, value, flags } => {
                self.count("setxattr");
                let set = self.fs.setxattr(ctx, node, &name, value, flags.cast_signed()).await;
                answer::empty(reply, set);
            }
            Op::GetXattr { name, room } => {
                self.count("getxattr");
                answer::xattr(reply, room, self.fs.getxattr(ctx, node, &name, room).await);
            }
            Op::ListXattr { room } => {
                self.count("listxattr");
                answer::xattr(reply, room, self.fs.listxattr(ctx, node).await);
            }
            Op::RemoveXattr { name } => {
                self.count("removexattr");
                answer::empty(reply, self.fs.removexattr(ctx, node, &name).await);
            }
            _ => reply.error(Errno::ENOSYS.number()),
        }
    }
}

/// Whether doing it twice may differ from doing it once. (A write at its offset does not, nor does a copy.)
fn may_change(op: &Op) -> bool {
    if let Op::Write { flags, open_flags, .. } = *op {
        return convert::writing(flags, open_flags).appends;
    }
    !matches!(
        op,
        Op::Read { .. }
            | Op::Lookup { .. }
            | Op::GetAttr { .. }
            | Op::Statx { .. }
            | Op::ReadLink
            | Op::Access { .. }
            | Op::StatFs
            | Op::OpenDir { .. }
            | Op::ReadDir { .. }
            | Op::ReleaseDir { .. }
            | Op::FsyncDir { .. }
            | Op::Lseek { .. }
            | Op::CopyFileRange { .. }
            | Op::GetXattr { .. }
            | Op::ListXattr { .. }
            | Op::GetLock(_)
    )
}

impl<F: Filesystem> Serve for Adapter<F> {
    fn serve(self: &Arc<Self>, request: Request, reply: Reply) -> impl Future<Output = ()> + Send + 'static {
        let (this, alive) = (Arc::clone(self), self.alive.clone());
        pvfs_client::asked_by(request.pid, async move {
            let answering = Answering { fs: &**this.fs.wait().await, adapter: &this };
            if may_change(&request.op) {
                answering.fs.once(request.number(), answering.answer(request, reply)).await;
            } else {
                answering.answer(request, reply).await;
            }
            drop(alive);
        })
    }

    fn waits_in_vain(self: &Arc<Self>, pid: u32) -> impl Future<Output = bool> + Send + 'static {
        let this = Arc::clone(self);
        async move {
            match this.fs.get() {
                Some(fs) => fs.waits_in_vain(pid).await,
                // The client has not reached its servers yet.
                None => true,
            }
        }
    }

    fn forget(&self, node: u64, lookups: u64) {
        self.count("forget");
        if let Some(fs) = self.fs.get() {
            fs.forget(NodeId(node), lookups);
        }
    }

    fn all_came_again(self: &Arc<Self>, requests: Vec<u64>) {
        let this = Arc::clone(self);
        tokio::spawn(async move { this.fs.wait().await.all_came_again(&requests) });
    }
}
