//! What a file system under the kernel must answer: our own trait, so that the session layer under it can change.
//!
//! Owns the operations, their arguments and replies. Knows no FUSE library, no message and no server. Every
//! argument is owned or outlives the call, every reply is a value: a session layer can run each call as a task
//! of its own.

use bytes::Bytes;
use pvfs_types::{Errno, FileKind, LockKind, LockMode, NewMode, SetAttr, Timestamp};
use std::{future::Future, sync::Arc, time::Duration};

/// What an operation answers.
pub type Reply<T> = Result<T, Errno>;

/// The number by which the kernel knows an inode. The root of the mount is [`NodeId::ROOT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    pub const ROOT: NodeId = NodeId(1);
}

/// The number by which the kernel knows an open file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Of the request; the same when the kernel sends it again, to another process.
    pub request: u64,
    /// Another process had it before, and may have done it.
    pub resent: bool,
    /// The caller's file system user and group, as `setfsuid(2)` has them.
    pub uid: u32,
    pub gid: u32,
    /// The calling thread as the daemon sees it; 0 where the kernel itself asks or another pid name space hides it.
    pub pid: u32,
}

/// What the kernel keeps of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAttr {
    /// What `st_ino` shows.
    pub ino: u64,
    pub kind: FileKind,
    /// The low 12 bits of `st_mode`.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    /// When it was made.
    pub btime: Timestamp,
    /// As `(major, minor)`.
    pub rdev: (u32, u32),
    /// What `st_blksize` shows: a power of two, in bytes.
    pub block_bytes: u32,
}

/// The attributes of an inode and for how long the kernel may go by them.
#[derive(Clone, Debug)]
pub struct Attributes {
    pub attr: NodeAttr,
    pub valid: Duration,
}

/// A name's inode and for how long the kernel may go by the name, and by the attributes.
#[derive(Clone, Debug)]
pub struct Entry {
    pub node: NodeId,
    pub attr: NodeAttr,
    pub valid: Duration,
    pub attr_valid: Duration,
}

/// An open file or directory.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    pub handle: Handle,
    /// Reads and writes go past the page cache, and several may run at once.
    pub direct: bool,
    /// The pages that the kernel holds of it are good.
    pub keeps_pages: bool,
    /// What the kernel holds of the inode's attributes is old: it is to ask for them before it uses them.
    pub attributes_changed: bool,
}

/// One entry of a directory, to be shown in a `readdir`.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Where to go on after this entry; entries that share one are shown together.
    pub cookie: u64,
    pub ino: u64,
    pub kind: FileKind,
    pub name: Vec<u8>,
    /// With `readdirplus`; `None` all the same where attributes cannot be had at once. The dots never have any.
    pub entry: Option<Entry>,
}

/// What `readdir` asks for.
#[derive(Clone, Copy, Debug)]
pub struct DirRequest {
    /// 0 from the start, else the cookie of the last entry seen.
    pub cookie: u64,
    /// With attributes (`readdirplus`).
    pub plus: bool,
}

/// Entries of a directory, in order. The session layer takes as many from the front as its reply has room for, and
/// asks again from there.
#[derive(Clone, Debug)]
pub struct DirPage {
    entries: Arc<[DirEntry]>,
    from: usize,
}

impl DirPage {
    /// `entries` from index `from` on.
    pub fn new(entries: Arc<[DirEntry]>, from: usize) -> DirPage {
        DirPage { from: from.min(entries.len()), entries }
    }

    pub fn entries(&self) -> &[DirEntry] {
        &self.entries[self.from..]
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// The unit of the three next.
    pub block_bytes: u32,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_bytes_max: u32,
}

/// A lock as `fcntl(2)` or `flock(2)` asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub kind: LockKind,
    /// What the kernel calls the owner.
    pub owner: u64,
    pub start: u64,
    /// The last byte.
    pub end: u64,
    /// `None` unlocks.
    pub mode: Option<LockMode>,
    /// The process, as the daemon sees it.
    pub pid: u32,
}

/// A lock that was set.
#[derive(Default)]
pub struct Locked {
    /// What the kernel holds of the file's bytes may be old.
    pub data_changed: bool,
    /// What it holds of its attributes is.
    pub attributes_changed: bool,
    /// To be called when the caller has been told; dropped instead, the lock is taken back.
    pub keep: Option<Box<dyn FnOnce() + Send>>,
}

/// How `rename` treats a name that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

/// How a write is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the request")]
pub struct Writing {
    /// The writer may not keep what a program in the file may do (set-user-id and set-group-id bits, file capabilities).
    pub drops_privileges: bool,
    /// At the file's end, wherever the kernel takes that to be.
    pub appends: bool,
    /// Durable before it is answered.
    pub durable: bool,
    /// Past the page cache: the kernel sends no fsync after it, as it does otherwise.
    pub direct: bool,
    /// The kernel writes back pages that programs have changed in memory.
    pub from_pages: bool,
}

/// What `open` and `create` were given, as far as a file system cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of open(2)")]
pub struct OpenFlags {
    pub read: bool,
    pub write: bool,
    pub truncate: bool,
    pub exclusive: bool,
    pub direct: bool,
    pub append: bool,
    /// The kernel opens the file to run it: the right to execute is enough.
    pub exec: bool,
    /// `O_NOATIME`.
    pub no_atime: bool,
}

/// `__FMODE_EXEC`: the kernel's own flag among those of `open(2)`.
const FMODE_EXEC: i32 = 0x20;

impl OpenFlags {
    /// From the flags of `open(2)`.
    pub fn from_bits(bits: i32) -> OpenFlags {
        let access = bits & libc::O_ACCMODE;
        OpenFlags {
            read: access != libc::O_WRONLY,
            write: access != libc::O_RDONLY,
            truncate: bits & libc::O_TRUNC != 0,
            exclusive: bits & libc::O_EXCL != 0,
            direct: bits & libc::O_DIRECT != 0,
            append: bits & libc::O_APPEND != 0,
            exec: bits & FMODE_EXEC != 0,
            no_atime: bits & libc::O_NOATIME != 0,
        }
    }
}

/// A file system as the kernel sees it through FUSE.
///
/// A call that nobody waits for any more (its caller was sent a signal) is dropped where it stands.
///
/// Methods with an answer of `ENOSYS` here are the ones the kernel does without: it falls back, and asks no more.
pub trait Filesystem: Send + Sync + 'static {
    /// Runs all that is done for one request that may change something, its answer included. When the kernel sends it again to
    /// another process, `request` is the same.
    fn once<W: Future<Output = ()> + Send>(&self, _request: u64, work: W) -> impl Future<Output = ()> + Send {
        work
    }

    /// Of the requests that another process was doing, no more will come again than `requests` and those answered already.
    fn all_came_again(&self, _requests: &[u64]) {}

    /// Whether the call of the thread `pid` waits for what is not there.
    fn waits_in_vain(&self, pid: u32) -> impl Future<Output = bool> + Send;

    /// `name` may be `.` and `..` too.
    fn lookup(&self, ctx: &Context, dir: NodeId, name: &[u8]) -> impl Future<Output = Reply<Entry>> + Send;

    /// The kernel holds the inode that many lookups less. Has no answer.
    fn forget(&self, node: NodeId, lookups: u64);

    fn getattr(
        &self,
        ctx: &Context,
        node: NodeId,
        handle: Option<Handle>,
    ) -> impl Future<Output = Reply<Attributes>> + Send;

    /// `handle`: the caller changes an open file (`ftruncate`).
    fn setattr(
        &self,
        ctx: &Context,
        node: NodeId,
        handle: Option<Handle>,
        changes: SetAttr,
    ) -> impl Future<Output = Reply<Attributes>> + Send;

    fn access(&self, ctx: &Context, node: NodeId, mask: u32) -> impl Future<Output = Reply<()>> + Send;

    fn readlink(&self, ctx: &Context, node: NodeId) -> impl Future<Output = Reply<Vec<u8>>> + Send;

    fn mknod(
        &self,
        ctx: &Context,
        dir: NodeId,
        name: &[u8],
        kind: FileKind,
        mode: NewMode,
        rdev: (u32, u32),
    ) -> impl Future<Output = Reply<Entry>> + Send;

    fn mkdir(
        &self,
        ctx: &Context,
        dir: NodeId,
        name: &[u8],
        mode: NewMode,
    ) -> impl Future<Output = Reply<Entry>> + Send;

    fn symlink(
        &self,
        ctx: &Context,
        dir: NodeId,
        name: &[u8],
        target: &[u8],
    ) -> impl Future<Output = Reply<Entry>> + Send;

    fn link(
        &self,
        ctx: &Context,
        node: NodeId,
        dir: NodeId,
        name: &[u8],
    ) -> impl Future<Output = Reply<Entry>> + Send;

    fn unlink(&self, ctx: &Context, dir: NodeId, name: &[u8]) -> impl Future<Output = Reply<()>> + Send;

    fn rmdir(&self, ctx: &Context, dir: NodeId, name: &[u8]) -> impl Future<Output = Reply<()>> + Send;

    fn rename(
        &self,
        ctx: &Context,
        from: (NodeId, &[u8]),
        to: (NodeId, &[u8]),
        mode: RenameMode,
    ) -> impl Future<Output = Reply<()>> + Send;

    /// Creates a regular file where the name is free, and opens it.
    fn create(
        &self,
        ctx: &Context,
        dir: NodeId,
        name: &[u8],
        mode: NewMode,
        flags: OpenFlags,
    ) -> impl Future<Output = Reply<(Entry, Opened)>> + Send;

    /// Creates a regular file without a name, as if in `dir`, and opens it.
    fn tmpfile(
        &self,
        _ctx: &Context,
        _dir: NodeId,
        _mode: NewMode,
        _flags: OpenFlags,
    ) -> impl Future<Output = Reply<(Entry, Opened)>> + Send {
        async { Err(Errno::ENOSYS) }
    }

    fn open(
        &self,
        ctx: &Context,
        node: NodeId,
        flags: OpenFlags,
    ) -> impl Future<Output = Reply<Opened>> + Send;

    /// Fewer than `len` bytes mean the end of the file. `fills_pages`: they are for the kernel's page cache.
    fn read(
        &self,
        ctx: &Context,
        handle: Handle,
        offset: u64,
        len: u32,
        fills_pages: bool,
    ) -> impl Future<Output = Reply<Bytes>> + Send;

    /// All of `data` or an error.
    fn write(
        &self,
        ctx: &Context,
        handle: Handle,
        offset: u64,
        data: Bytes,
        how: Writing,
    ) -> impl Future<Output = Reply<()>> + Send;

    /// One descriptor of the open file is closed; there may be others. `owner` gives up its locks by `fcntl` of the file.
    fn flush(&self, ctx: &Context, handle: Handle, owner: u64) -> impl Future<Output = Reply<()>> + Send;

    /// The last descriptor of the open file is closed. `flock`: who may have one by it.
    fn release(
        &self,
        ctx: &Context,
        handle: Handle,
        flock: Option<u64>,
    ) -> impl Future<Output = Reply<()>> + Send;

    /// The lock that stands in the way of `lock`, if there is one.
    fn getlk(
        &self,
        _ctx: &Context,
        _handle: Handle,
        _lock: Lock,
    ) -> impl Future<Output = Reply<Option<Lock>>> + Send {
        async { Err(Errno::ENOSYS) }
    }

    /// Locks or unlocks; with `wait` the call lasts until the lock is free.
    fn setlk(
        &self,
        _ctx: &Context,
        _handle: Handle,
        _lock: Lock,
        _wait: bool,
    ) -> impl Future<Output = Reply<Locked>> + Send {
        async { Err(Errno::ENOSYS) }
    }

    fn fsync(&self, ctx: &Context, handle: Handle, data_only: bool)
    -> impl Future<Output = Reply<()>> + Send;

    fn opendir(&self, ctx: &Context, node: NodeId) -> impl Future<Output = Reply<Opened>> + Send;

    /// Entries after `request.cookie`; none: the end.
    fn readdir(
        &self,
        ctx: &Context,
        node: NodeId,
        handle: Handle,
        request: DirRequest,
    ) -> impl Future<Output = Reply<DirPage>> + Send;

    fn releasedir(&self, ctx: &Context, handle: Handle) -> impl Future<Output = Reply<()>> + Send;

    fn fsyncdir(&self, ctx: &Context, handle: Handle) -> impl Future<Output = Reply<()>> + Send;

    fn statfs(&self, ctx: &Context, node: NodeId) -> impl Future<Output = Reply<StatFs>> + Send;

    /// `SEEK_DATA` and `SEEK_HOLE`.
    fn lseek(
        &self,
        _ctx: &Context,
        _handle: Handle,
        _offset: u64,
        _whence: i32,
    ) -> impl Future<Output = Reply<u64>> + Send {
        async { Err(Errno::ENOSYS) }
    }

    /// Copies bytes from one open file and offset to another; gives how many. Fewer than `len` mean that the file ends, or that
    /// the next ones meet an error.
    fn copy(
        &self,
        _ctx: &Context,
        _from: (Handle, u64),
        _to: (Handle, u64),
        _len: u64,
    ) -> impl Future<Output = Reply<u64>> + Send {
        async { Err(Errno::ENOSYS) }
    }

    fn fallocate(
        &self,
        _ctx: &Context,
        _handle: Handle,
        _offset: u64,
        _len: u64,
        _mode: i32,
    ) -> impl Future<Output = Reply<()>> + Send {
        async { Err(Errno::ENOSYS) }
    }

    /// `room` for the answer, in bytes; 0: only its length is asked for.
    fn getxattr(
        &self,
        _ctx: &Context,
        _node: NodeId,
        _name: &[u8],
        _room: u32,
    ) -> impl Future<Output = Reply<Bytes>> + Send {
        async { Err(Errno::ENOSYS) }
    }

    fn setxattr(
        &self,
        _ctx: &Context,
        _node: NodeId,
        _name: &[u8],
        _value: Bytes,
        _flags: i32,
    ) -> impl Future<Output = Reply<()>> + Send {
        async { Err(Errno::ENOSYS) }
    }

    /// The names, each closed by a NUL.
    fn listxattr(&self, _ctx: &Context, _node: NodeId) -> impl Future<Output = Reply<Bytes>> + Send {
        async { Err(Errno::ENOSYS) }
    }

    fn removexattr(
        &self,
        _ctx: &Context,
        _node: NodeId,
        _name: &[u8],
    ) -> impl Future<Output = Reply<()>> + Send {
        async { Err(Errno::ENOSYS) }
    }
}
