//! PVFS as the kernel sees it: each operation of [`Filesystem`] over the client core.
//!
//! A node id is the inode's number, but for the mount's root, which the kernel calls 1. Inode numbers are never used
//! twice, so nothing has to be remembered of what the kernel knows.

mod atimes;
mod attr;
mod coherence;
mod dir;
mod locks;
mod maps;
mod xattr;

use crate::{
    Atimes, CacheMode,
    book::{Book, OpenRecord},
    creds,
    handles::{Handles, Opening},
    openfile::{OpenFile, Way},
    ops::{
        Attributes, Context, DirPage, DirRequest, Entry, Filesystem, Handle, Lock, Locked, NodeId, OpenFlags,
        Opened, RenameMode, Reply, StatFs, Writing,
    },
    pages::Pages,
    told::Told,
    trusted::Trusted,
    twins::Twins,
};
use atimes::Noted;
use attr::{node_attr, statfs};
use bytes::Bytes;
use dir::OpenDir;
use futures_util::future::{join, join3};
use pvfs_client::{
    Access, Client, ClientError, CreateOptions, File, KERNEL_VALID_MAX, OpenOptions, TmpFileOptions,
};
use pvfs_kfuse::Notifier;
use pvfs_types::{Attr, Cred, Errno, FileKind, Ino, LayoutHint, LockKind, Name, NewMode, SetAttr};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::SetOnce;

/// How long it counts which extended attributes an inode has not.
const EXTRAS_VALID: Duration = Duration::from_secs(1);

/// A mounted directory of a PVFS file system.
pub struct PvfsFs {
    client: Arc<Client>,
    /// What is mounted.
    root: Ino,
    cache: CacheMode,
    files: Handles<OpenFile>,
    dirs: Handles<OpenDir>,
    told: Told,
    pages: Pages,
    trusted: Trusted,
    twins: Twins,
    notifier: SetOnce<Notifier>,
    /// Where what is open is written down for the next worker, if there is to be one.
    book: Option<Arc<Book>>,
    atimes: Noted,
    /// Files that a former worker had opened for a request whose answer the kernel may not have got, by request.
    unanswered: Mutex<HashMap<u64, Handle>>,
}

impl PvfsFs {
    /// The directory `root` as the root of a mount.
    pub fn new(client: Arc<Client>, root: Ino, cache: CacheMode) -> PvfsFs {
        PvfsFs {
            client,
            root,
            cache,
            files: Handles::of_worker(0),
            dirs: Handles::of_worker(0),
            told: Told::new(EXTRAS_VALID.max(cache.valid())),
            pages: Pages::default(),
            trusted: Trusted::new(Duration::ZERO),
            twins: Twins::default(),
            notifier: SetOnce::new(),
            book: None,
            atimes: Noted::new(Atimes::No, false),
            unanswered: Mutex::default(),
        }
    }

    /// As [`PvfsFs::new`], in the place of a worker that had `open` open. At once after the client was made.
    pub fn inherited(
        client: Arc<Client>,
        root: Ino,
        cache: CacheMode,
        book: Arc<Book>,
        open: &[OpenRecord],
    ) -> PvfsFs {
        let workers = book.workers();
        let valid = EXTRAS_VALID.max(cache.valid());
        let told = if workers > 1 { Told::inherited(valid) } else { Told::new(valid) };
        let fs = PvfsFs {
            files: Handles::of_worker(workers),
            dirs: Handles::of_worker(workers),
            told,
            trusted: Trusted::new(if workers > 1 { KERNEL_VALID_MAX } else { Duration::ZERO }),
            book: Some(book),
            ..PvfsFs::new(client, root, cache)
        };
        let mut unanswered = HashMap::new();
        for record in open {
            let handle = Handle(record.handle);
            let Opening { read, write, way, .. } = Opening::of(handle);
            let held = fs.client.hold(Ino(record.ino), Access { read, write });
            fs.pages.inherited(Ino(record.ino), way == Way::Pages);
            if read && write {
                fs.twins.inherited(Ino(record.ino));
            }
            fs.files.put(handle, Arc::new(OpenFile::held(held, way)));
            unanswered.insert(record.request, handle);
        }
        fs.unanswered.lock().unwrap_or_else(PoisonError::into_inner).extend(unanswered);
        fs
    }

    fn ino(&self, node: NodeId) -> Ino {
        if node == NodeId::ROOT { self.root } else { Ino(node.0) }
    }

    fn node(&self, ino: Ino) -> NodeId {
        if ino == self.root { NodeId::ROOT } else { NodeId(ino.0) }
    }

    /// `attr` for the kernel, which is told it now.
    fn tell(&self, attr: &Attr) -> Attributes {
        self.told.tell(self.node(attr.ino), attr);
        Attributes { attr: node_attr(attr), valid: self.cache.valid() }
    }

    fn entry(&self, attr: &Attr) -> Entry {
        let Attributes { attr: shown, valid: attr_valid } = self.tell_by_name(attr, self.tell(attr));
        Entry { node: self.node(attr.ino), attr: shown, valid: self.cache.valid(), attr_valid }
    }

    /// A handle for what is open in `way`.
    fn opened(&self, ctx: &Context, open: OpenFile, flags: OpenFlags, ino: Ino) -> Opened {
        let opening = Opening { read: flags.read, write: flags.write, dir: false, way: open.way() };
        let direct = open.way() == Way::Direct;
        // To drop pages is to wait for reads of them, maybe for a dead iod, and no signal ends that. But of reads of pages that
        // are kept the kernel does not tell.
        let delegation = self.delegation(ino);
        let are_good = if direct {
            self.pages.are_good(ino, delegation)
        } else {
            self.pages.opened(ino, delegation, self.trusted.is_told(ino))
        };
        let keeps_pages = are_good && !self.atimes.are_kept();
        if flags.read && flags.write {
            self.twins.opened(ino);
        }
        if flags.truncate {
            self.twins.zeroed(ino, 0, u64::MAX);
        }
        let handle = self.files.add(opening, open.without_atime(flags.no_atime));
        if let Some(book) = &self.book {
            book.opened(OpenRecord { handle: handle.0, ino: ino.0, request: ctx.request });
        }
        self.forget_unanswered(ctx.request);
        Opened { handle, direct, keeps_pages, attributes_changed: false }
    }

    /// How `ino` is to be read and written where it is opened so.
    fn way(&self, ino: Ino, flags: OpenFlags, others_write: bool) -> Way {
        // Past the page cache what one call appends is one request; else it is cut where pages begin. And who only writes has no use
        // for pages, which cost a copy.
        let writes = flags.append || !flags.read && !self.pages.are_open(ino);
        let writes = flags.write && writes && self.cache.is_strict();
        if flags.direct || writes || self.cache.is_direct(others_write) { Way::Direct } else { Way::Pages }
    }

    /// The request came again, so the kernel knows nothing of what was opened for it the first time.
    fn forget_unanswered(&self, request: u64) {
        let Some(book) = &self.book else { return };
        let handle = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).remove(&request);
        if let Some(handle) = handle {
            let open = self.files.remove(handle);
            self.is_closed(handle, open.and_then(|open| open.ino()));
            book.closed(handle.0);
        }
    }

    /// The kernel has no such handle of `ino` any more.
    fn is_closed(&self, handle: Handle, ino: Option<Ino>) {
        let Opening { read, write, .. } = Opening::of(handle);
        if let Some(ino) = ino.filter(|_| read && write) {
            self.twins.closed(ino);
        }
    }

    async fn attr(&self, ctx: &Context, ino: Ino) -> Reply<Attr> {
        let ask = |cred: Cred| async move { self.client.getattr(&cred, ino).await.map_err(|e| of_inode(&e)) };
        creds::reading(ctx, ask).await
    }

    async fn open_file(&self, ctx: &Context, ino: Ino, flags: OpenFlags) -> Reply<File> {
        // What the kernel found was there when the call began; else it is to look again.
        let nameless = self.cache.is_strict();
        let options = OpenOptions { access: access(flags), truncate: flags.truncate, nameless };
        let open =
            |cred: Cred| async move { self.client.open(&cred, ino, options).await.map_err(|e| of_inode(&e)) };
        let opened = if flags.write || flags.truncate {
            open(creds::whole(ctx)).await
        } else {
            creds::reading(ctx, open).await
        };
        match opened {
            // To run a program one need not be allowed to read it.
            Err(Errno::EACCES) if flags.exec && !flags.write => {
                self.access(ctx, self.node(ino), pvfs_types::mode::X).await?;
                open(Cred::root()).await
            }
            opened => opened,
        }
    }
}

/// The application's errno.
fn errno(error: &ClientError) -> Errno {
    error.errno()
}

/// Where an operation names an inode and no name in it, `ENOENT` means that the inode is gone: `ESTALE` makes the kernel
/// look the path up again instead of telling the application of a file that is there under a new number.
fn of_inode(error: &ClientError) -> Errno {
    match error.errno() {
        Errno::ENOENT => Errno::ESTALE,
        errno => errno,
    }
}

fn name(bytes: &[u8]) -> Reply<Name> {
    Name::new(bytes).map_err(pvfs_types::NameError::errno)
}

fn access(flags: OpenFlags) -> Access {
    Access { read: flags.read, write: flags.write }
}

impl Filesystem for PvfsFs {
    async fn once<W: Future<Output = ()> + Send>(&self, request: u64, work: W) {
        match self.book {
            Some(_) => self.client.once(request, work).await,
            None => work.await,
        }
    }

    fn all_came_again(&self, requests: &[u64]) {
        self.client.all_came_again(requests);
    }

    async fn lookup(&self, ctx: &Context, dir: NodeId, bytes: &[u8]) -> Reply<Entry> {
        let dir = self.ino(dir);
        let attr = match bytes {
            b"." => self.attr(ctx, dir).await?,
            b".." => self.parent(ctx, dir).await?,
            _ => {
                let name = &name(bytes)?;
                let look = |cred: Cred| async move {
                    self.client.step(&cred, dir, name).await.map_err(|e| errno(&e))
                };
                creds::reading(ctx, look).await?
            }
        };
        Ok(self.entry(&attr))
    }

    async fn waits_in_vain(&self, pid: u32) -> bool {
        self.client.waits_in_vain(pid).await
    }

    fn forget(&self, node: NodeId, lookups: u64) {
        self.trusted.forgotten(self.ino(node), lookups);
    }

    async fn getattr(&self, ctx: &Context, node: NodeId, handle: Option<Handle>) -> Reply<Attributes> {
        let ino = self.ino(node);
        let attr = match handle.and_then(|handle| self.files.load(handle).ok()) {
            Some(open) if open.loaded().is_some() || !self.is_known(ino) => {
                let file = open.load(&self.client, || creds::whole(ctx)).await.map_err(|e| of_inode(&e))?;
                file.attr().await.map_err(|e| of_inode(&e))?
            }
            _ => self.attr(ctx, ino).await?,
        };
        let told = self.tell(&attr);
        // Only the kernel's own questions name a handle: it asks before it goes by its pages.
        let reader = handle.map(|_| ctx.pid);
        Ok(if self.cache == CacheMode::Coherent { self.tell_delegated(&attr, told, reader) } else { told })
    }

    async fn setattr(
        &self,
        ctx: &Context,
        node: NodeId,
        handle: Option<Handle>,
        changes: SetAttr,
    ) -> Reply<Attributes> {
        let open = handle.and_then(|handle| self.files.load(handle).ok());
        let open = open.filter(|open| open.access().is_some_and(|access| access.write));
        let file = match &open {
            Some(open) => {
                Some(open.load(&self.client, || creds::whole(ctx)).await.map_err(|e| of_inode(&e))?)
            }
            None => None,
        };
        let (cred, size) = (creds::whole(ctx), changes.size);
        let set = self.client.setattr(&cred, self.ino(node), changes, file).await;
        if let Some(size) = size {
            self.twins.zeroed(self.ino(node), size, u64::MAX);
        }
        set.map(|attr| self.tell(&attr)).map_err(|e| of_inode(&e))
    }

    async fn access(&self, ctx: &Context, node: NodeId, mask: u32) -> Reply<()> {
        let ino = self.ino(node);
        let ask =
            |cred: Cred| async move { self.client.access(&cred, ino, mask).await.map_err(|e| of_inode(&e)) };
        creds::reading(ctx, ask).await
    }

    async fn readlink(&self, ctx: &Context, node: NodeId) -> Reply<Vec<u8>> {
        let ino = self.ino(node);
        let read =
            |cred: Cred| async move { self.client.readlink(&cred, ino).await.map_err(|e| of_inode(&e)) };
        let target = creds::reading(ctx, read).await?;
        self.was_looked_at(ino, false);
        Ok(target)
    }

    async fn mknod(
        &self,
        ctx: &Context,
        dir: NodeId,
        bytes: &[u8],
        kind: FileKind,
        mode: NewMode,
        rdev: (u32, u32),
    ) -> Reply<Entry> {
        let (dir, name) = (self.ino(dir), name(bytes)?);
        let made = self.client.mknod(&creds::whole(ctx), dir, &name, kind, mode, rdev).await;
        made.map(|attr| self.entry(&attr)).map_err(|e| errno(&e))
    }

    async fn mkdir(&self, ctx: &Context, dir: NodeId, bytes: &[u8], mode: NewMode) -> Reply<Entry> {
        let (dir, name) = (self.ino(dir), name(bytes)?);
        let made = self.client.mkdir(&creds::whole(ctx), dir, &name, mode).await;
        made.map(|attr| self.entry(&attr)).map_err(|e| errno(&e))
    }

    async fn symlink(&self, ctx: &Context, dir: NodeId, bytes: &[u8], target: &[u8]) -> Reply<Entry> {
        let (dir, name) = (self.ino(dir), name(bytes)?);
        let made = self.client.symlink(&creds::whole(ctx), dir, &name, target).await;
        made.map(|attr| self.entry(&attr)).map_err(|e| errno(&e))
    }

    async fn link(&self, ctx: &Context, node: NodeId, dir: NodeId, bytes: &[u8]) -> Reply<Entry> {
        let (ino, dir, name) = (self.ino(node), self.ino(dir), name(bytes)?);
        let made = self.client.link(&creds::whole(ctx), ino, dir, &name).await;
        made.map(|attr| self.entry(&attr)).map_err(|e| errno(&e))
    }

    async fn unlink(&self, ctx: &Context, dir: NodeId, bytes: &[u8]) -> Reply<()> {
        let (dir, name) = (self.ino(dir), name(bytes)?);
        self.client.unlink(&creds::whole(ctx), dir, &name).await.map_err(|e| errno(&e))
    }

    async fn rmdir(&self, ctx: &Context, dir: NodeId, bytes: &[u8]) -> Reply<()> {
        let (dir, name) = (self.ino(dir), name(bytes)?);
        self.client.rmdir(&creds::whole(ctx), dir, &name).await.map_err(|e| errno(&e))
    }

    async fn rename(
        &self,
        ctx: &Context,
        (dir, from): (NodeId, &[u8]),
        (new_dir, to): (NodeId, &[u8]),
        mode: RenameMode,
    ) -> Reply<()> {
        let (from, to) = (name(from)?, name(to)?);
        let (from, to) = ((self.ino(dir), &from), (self.ino(new_dir), &to));
        let mode = match mode {
            RenameMode::Replace => pvfs_client::RenameMode::Replace,
            RenameMode::NoReplace => pvfs_client::RenameMode::NoReplace,
            RenameMode::Exchange => pvfs_client::RenameMode::Exchange,
        };
        self.client.rename(&creds::whole(ctx), from, to, mode).await.map_err(|e| errno(&e))
    }

    async fn create(
        &self,
        ctx: &Context,
        dir: NodeId,
        bytes: &[u8],
        NewMode { mode, unmasked }: NewMode,
        flags: OpenFlags,
    ) -> Reply<(Entry, Opened)> {
        let (dir, name) = (self.ino(dir), name(bytes)?);
        let options = CreateOptions {
            access: access(flags),
            mode,
            unmasked,
            exclusive: flags.exclusive,
            truncate: flags.truncate,
            layout: LayoutHint::default(),
        };
        let made = self.client.create(&creds::whole(ctx), dir, &name, options).await;
        let made = made.map_err(|e| errno(&e)).inspect_err(|_| self.forget_unanswered(ctx.request))?;
        // The entry that goes with the answer is what the kernel will hold.
        let entry = self.entry(&made.attr);
        let way = self.way(made.attr.ino, flags, made.file.at_open().has_writers);
        Ok((entry, self.opened(ctx, OpenFile::opened(made.file, way), flags, made.attr.ino)))
    }

    async fn tmpfile(
        &self,
        ctx: &Context,
        dir: NodeId,
        mode: NewMode,
        flags: OpenFlags,
    ) -> Reply<(Entry, Opened)> {
        let (access, linkable, layout) = (access(flags), !flags.exclusive, LayoutHint::default());
        let options = TmpFileOptions { access, mode, linkable, layout };
        let made = self.client.tmpfile(&creds::whole(ctx), self.ino(dir), options).await;
        let made = made.map_err(|e| errno(&e)).inspect_err(|_| self.forget_unanswered(ctx.request))?;
        let way = self.way(made.attr.ino, flags, false);
        Ok((self.entry(&made.attr), self.opened(ctx, OpenFile::opened(made.file, way), flags, made.attr.ino)))
    }

    async fn open(&self, ctx: &Context, node: NodeId, flags: OpenFlags) -> Reply<Opened> {
        let ino = self.ino(node);
        if let Some(open) = self.open_by_delegation(ctx, ino, flags) {
            return Ok(self.opened(ctx, open, flags, ino));
        }
        let opened = self.open_file(ctx, ino, flags).await;
        let file = opened.inspect_err(|_| self.forget_unanswered(ctx.request))?;
        let now = file.at_open();
        // A file that was truncated by this open is known to be empty.
        let attributes_changed = self.cache != CacheMode::Coherent
            && !flags.truncate
            && self.told.is_old(node, &now.attr, now.has_writers);
        let way = self.way(ino, flags, now.has_writers);
        Ok(Opened { attributes_changed, ..self.opened(ctx, OpenFile::opened(file, way), flags, ino) })
    }

    async fn read(
        &self,
        ctx: &Context,
        handle: Handle,
        offset: u64,
        len: u32,
        fills_pages: bool,
    ) -> Reply<Bytes> {
        let open = self.usable(handle)?;
        let file = open.load(&self.client, || creds::whole(ctx)).await.map_err(|e| errno(&e))?;
        let (ino, way) = (file.ino(), open.way());
        let delegation = self.delegation(ino);
        if self.cache.is_strict() && way == Way::Direct && delegation.is_none() {
            // Another mount may have cut the file, or replaced all of it.
            file.attr().await.map_err(|e| errno(&e))?;
        }
        let bytes = file.read_at(offset, u64::from(len)).await.map_err(|e| errno(&e))?;
        self.pages.filled(ino, delegation.filter(|_| delegation == self.delegation(ino)));
        if fills_pages {
            self.twins.filled(ino, offset, &bytes, len as usize);
        }
        if open.counts_reads() {
            self.was_read(file, open.is_first_read());
        }
        Ok(bytes)
    }

    async fn write(
        &self,
        ctx: &Context,
        handle: Handle,
        offset: u64,
        data: Bytes,
        how: Writing,
    ) -> Reply<()> {
        let open = self.usable(handle)?;
        let file = open.load(&self.client, || creds::whole(ctx)).await.map_err(|e| errno(&e))?;
        if how.drops_privileges && file.is_privileged() {
            file.drop_privileges(&creds::whole(ctx)).await.map_err(|e| errno(&e))?;
        }
        let (ino, delegation) = (file.ino(), self.delegation(file.ino()));
        let len = data.len() as u64;
        let written = if how.from_pages {
            self.write_back(file, offset, data).await.map(|()| offset)
        } else if how.appends && self.cache.is_strict() {
            file.append(data).await
        } else {
            self.twins.wrote(ino, offset, &data);
            file.write_at(offset, data).await.map(|()| offset)
        };
        // Past the page cache, or elsewhere than the kernel takes it to be, what that holds is old.
        let is_there = written.as_ref().is_ok_and(|at| *at == offset);
        let same = open.way() == Way::Pages && is_there && delegation == self.delegation(ino);
        self.pages.filled(ino, delegation.filter(|_| same));
        let at = written.map_err(|e| errno(&e))?;
        if open.way() == Way::Direct && !how.from_pages && self.pages.are_open(ino) {
            self.forget_range(ino, at, len).await;
        }
        if how.durable && (how.direct || open.way() == Way::Direct) {
            file.sync().await.map_err(|e| errno(&e))?;
        }
        Ok(())
    }

    /// The locks go whether or not the rest succeeds, or is given up: their owner may be dead.
    async fn flush(&self, ctx: &Context, handle: Handle, owner: u64) -> Reply<()> {
        let open = self.files.load(handle)?;
        let (flushed, released) =
            join(self.flush_file(ctx, handle, &open), self.release_owner(&open, LockKind::Posix, owner))
                .await;
        flushed.and(released)
    }

    async fn release(&self, _ctx: &Context, handle: Handle, flock: Option<u64>) -> Reply<()> {
        let open = self.files.remove(handle).ok_or(Errno::EBADF)?;
        self.is_closed(handle, open.ino());
        if let Some(ino) = open.ino().filter(|_| open.way() == Way::Pages) {
            self.pages.closed(ino);
        }
        let released = async {
            match flock {
                Some(owner) => self.release_owner(&open, LockKind::Flock, owner).await,
                None => Ok(()),
            }
        };
        let (closed, released, left) =
            join3(open.close(&self.client), released, self.release_rest(&open, handle)).await;
        if let Some(book) = &self.book {
            book.closed(handle.0);
        }
        closed.map_err(|e| errno(&e)).and(released).and(left)
    }

    async fn getlk(&self, ctx: &Context, handle: Handle, lock: Lock) -> Reply<Option<Lock>> {
        self.test_lock(ctx, handle, lock).await
    }

    async fn setlk(&self, ctx: &Context, handle: Handle, lock: Lock, wait: bool) -> Reply<Locked> {
        self.set_lock(ctx, handle, lock, wait).await
    }

    async fn fsync(&self, ctx: &Context, handle: Handle, _data_only: bool) -> Reply<()> {
        let open = self.usable(handle)?;
        let file = open.load(&self.client, || creds::whole(ctx)).await.map_err(|e| errno(&e))?;
        file.sync().await.map_err(|e| errno(&e))
    }

    async fn copy(
        &self,
        ctx: &Context,
        (from, from_offset): (Handle, u64),
        (to, to_offset): (Handle, u64),
        len: u64,
    ) -> Reply<u64> {
        let (source, open) = (self.usable(from)?, self.usable(to)?);
        let source = source.load(&self.client, || creds::whole(ctx)).await.map_err(|e| errno(&e))?;
        let file = open.load(&self.client, || creds::whole(ctx)).await.map_err(|e| errno(&e))?;
        if ctx.uid != 0 && file.is_privileged() {
            file.drop_privileges(&creds::whole(ctx)).await.map_err(|e| errno(&e))?;
        }
        if self.cache.is_strict() && self.delegation(source.ino()).is_none() {
            source.attr().await.map_err(|e| errno(&e))?;
        }
        let copied = file.copy_from(to_offset, source, from_offset, len).await;
        // What the page cache holds of it is old.
        self.pages.filled(file.ino(), None);
        copied.map_err(|e| errno(&e))
    }

    async fn fallocate(&self, ctx: &Context, handle: Handle, offset: u64, len: u64, mode: i32) -> Reply<()> {
        const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
        const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
        const ZERO_KEEP: i32 = ZERO | KEEP;
        let open = self.usable(handle)?;
        let file = open.load(&self.client, || creds::whole(ctx)).await.map_err(|e| errno(&e))?;
        let done = match mode {
            0 => file.allocate(offset, len, true).await,
            KEEP => file.allocate(offset, len, false).await,
            PUNCH | ZERO_KEEP => file.punch(offset, len).await,
            ZERO => file.zero(offset, len).await,
            _ => return Err(Errno::EOPNOTSUPP),
        };
        if matches!(mode, PUNCH | ZERO | ZERO_KEEP) {
            self.twins.zeroed(file.ino(), offset, offset.saturating_add(len));
        }
        done.map_err(|e| errno(&e))
    }

    async fn lseek(&self, ctx: &Context, handle: Handle, offset: u64, whence: i32) -> Reply<u64> {
        let open = self.usable(handle)?;
        let file = open.load(&self.client, || creds::whole(ctx)).await.map_err(|e| errno(&e))?;
        let found = match whence {
            libc::SEEK_DATA => file.seek_data(offset).await,
            libc::SEEK_HOLE => file.seek_hole(offset).await,
            _ => return Err(Errno::EINVAL),
        };
        found.map_err(|e| errno(&e))
    }

    async fn opendir(&self, _ctx: &Context, _node: NodeId) -> Reply<Opened> {
        // The kernel has checked the right to read; the mgr does with each page.
        let opening = Opening { read: true, write: false, dir: true, way: Way::Pages };
        let handle = self.dirs.add(opening, OpenDir::default());
        Ok(Opened { handle, direct: false, keeps_pages: false, attributes_changed: false })
    }

    async fn readdir(
        &self,
        ctx: &Context,
        node: NodeId,
        handle: Handle,
        request: DirRequest,
    ) -> Reply<DirPage> {
        let dir = self.dirs.load(handle).unwrap_or_else(|_| {
            // Opened by a former worker.
            let dir = Arc::new(OpenDir::default());
            self.dirs.put(handle, Arc::clone(&dir));
            dir
        });
        self.list(ctx, self.ino(node), &dir, request).await
    }

    async fn releasedir(&self, _ctx: &Context, handle: Handle) -> Reply<()> {
        // One that is not there was opened by a former worker.
        self.dirs.remove(handle);
        Ok(())
    }

    /// Whatever the mgr answered is durable.
    async fn fsyncdir(&self, _ctx: &Context, _handle: Handle) -> Reply<()> {
        Ok(())
    }

    async fn statfs(&self, _ctx: &Context, node: NodeId) -> Reply<StatFs> {
        self.client.statfs(Some(self.ino(node))).await.map(statfs).map_err(|e| errno(&e))
    }

    async fn getxattr(&self, ctx: &Context, node: NodeId, name: &[u8], room: u32) -> Reply<Bytes> {
        self.read_xattr(ctx, node, name, room).await
    }

    async fn setxattr(
        &self,
        ctx: &Context,
        node: NodeId,
        name: &[u8],
        value: Bytes,
        flags: i32,
    ) -> Reply<()> {
        self.write_xattr(ctx, node, name, &value, flags).await
    }

    async fn listxattr(&self, ctx: &Context, node: NodeId) -> Reply<Bytes> {
        self.list_xattrs(ctx, node).await
    }

    async fn removexattr(&self, ctx: &Context, node: NodeId, name: &[u8]) -> Reply<()> {
        self.remove_xattr(ctx, node, name).await
    }
}
