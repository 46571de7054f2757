//! What the kernel's FUSE and its servers say to each other, byte by byte: protocol 7, minor versions 31 to 45.
//!
//! From the kernel's `include/uapi/linux/fuse.h`, without CUSE and DAX. All numbers are in the machine's own byte order;
//! names end with a NUL. Knows no session, no descriptor.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol's major version. A kernel of another one is not served.
pub const MAJOR: u32 = 7;
/// The newest minor version whose requests are understood.
pub const MINOR: u32 = 45;
/// The oldest minor version served (Linux 5.4).
pub const MINOR_MIN: u32 = 31;

/// The node id of the root.
pub const ROOT_ID: u64 = 1;
/// A read of the device needs room for this much at least.
pub const MIN_READ_BUFFER: usize = 8192;

/// Set in `unique` of an interrupt, over the `unique` of what it interrupts.
pub const UNIQUE_INTERRUPT: u64 = 1;
/// Set in `unique` of a request that was read once before and has had no answer ([`notify::RESEND`]).
pub const UNIQUE_RESENT: u64 = 1 << 63;

/// What a request asks for: [`InHeader::opcode`].
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2; // no reply
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36; // answered only to have it come again
    pub const BMAP: u32 = 37;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const POLL: u32 = 40;
    pub const NOTIFY_REPLY: u32 = 41; // no reply
    pub const BATCH_FORGET: u32 = 42; // no reply
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
    pub const COPY_FILE_RANGE_64: u32 = 53;
}

/// What a message of the server's own accord says: the code stands where a reply has its error.
pub mod notify {
    pub const POLL: i32 = 1;
    pub const INVAL_INODE: i32 = 2;
    pub const INVAL_ENTRY: i32 = 3;
    pub const STORE: i32 = 4;
    pub const RETRIEVE: i32 = 5;
    pub const DELETE: i32 = 6;
    pub const RESEND: i32 = 7;
    pub const INC_EPOCH: i32 = 8;
    pub const PRUNE: i32 = 9;
}

/// Capabilities: the kernel offers, the server takes. Bits from 32 on travel in `flags2`.
pub mod init {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const FILE_OPS: u64 = 1 << 2;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const EXPORT_SUPPORT: u64 = 1 << 4;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const SPLICE_WRITE: u64 = 1 << 7;
    pub const SPLICE_MOVE: u64 = 1 << 8;
    pub const SPLICE_READ: u64 = 1 << 9;
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    pub const HAS_IOCTL_DIR: u64 = 1 << 11;
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const WRITEBACK_CACHE: u64 = 1 << 16;
    pub const NO_OPEN_SUPPORT: u64 = 1 << 17;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const HANDLE_KILLPRIV: u64 = 1 << 19;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const ABORT_ERROR: u64 = 1 << 21;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub const SUBMOUNTS: u64 = 1 << 27;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const SECURITY_CTX: u64 = 1 << 32;
    pub const CREATE_SUPP_GROUP: u64 = 1 << 34;
    pub const HAS_EXPIRE_ONLY: u64 = 1 << 35;
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
    pub const PASSTHROUGH: u64 = 1 << 37;
    pub const NO_EXPORT_SUPPORT: u64 = 1 << 38;
    pub const HAS_RESEND: u64 = 1 << 39;
    pub const ALLOW_IDMAP: u64 = 1 << 40;
    pub const OVER_IO_URING: u64 = 1 << 41;
    pub const REQUEST_TIMEOUT: u64 = 1 << 42;
}

/// Which fields of a [`SetAttrIn`] count.
pub mod fattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const LOCKOWNER: u32 = 1 << 9;
    pub const CTIME: u32 = 1 << 10;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// How an open file is to be treated: [`OpenOut::open_flags`].
pub mod fopen {
    pub const DIRECT_IO: u32 = 1 << 0;
    pub const KEEP_CACHE: u32 = 1 << 1;
    pub const NONSEEKABLE: u32 = 1 << 2;
    pub const CACHE_DIR: u32 = 1 << 3;
    pub const STREAM: u32 = 1 << 4;
    pub const NOFLUSH: u32 = 1 << 5;
    pub const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
    pub const PASSTHROUGH: u32 = 1 << 7;
}

/// [`GetAttrIn::flags`]: `fh` counts.
pub const GETATTR_FH: u32 = 1 << 0;
/// [`LkIn::lk_flags`]: an flock(2), not an fcntl(2).
pub const LK_FLOCK: u32 = 1 << 0;
/// [`FsyncIn::flags`]: the data only.
pub const FSYNC_FDATASYNC: u32 = 1 << 0;
/// [`ReadIn::read_flags`]: by somebody who reads past the page cache; without it, the page cache itself reads.
pub const READ_LOCKOWNER: u32 = 1 << 1;
/// [`WriteIn::write_flags`]: from the page cache, on behalf of nobody in particular.
pub const WRITE_CACHE: u32 = 1 << 0;
/// [`WriteIn::write_flags`]: set-user-id and set-group-id bits are to fall.
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// [`ReleaseIn::release_flags`]: an flock of this open file ends with it.
pub const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
/// [`InvalEntryOut::flags`]: the name is to be looked up again, and stays until then.
pub const EXPIRE_ONLY: u32 = 1 << 0;

macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* } = $bytes:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
            #[repr(C)]
            pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }

            const _: () = assert!(size_of::<$name>() == $bytes);
        )*
    };
}

layouts! {
    /// Begins each request.
    InHeader {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        /// Of extensions at the end, in units of 8 bytes.
        total_extlen: u16, padding: u16,
    } = 40;
    /// Begins each reply (`error` is 0 or a negative errno) and each notification (`unique` is 0, `error` the code).
    OutHeader { len: u32, error: i32, unique: u64, } = 16;

    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32, } = 16;
    /// Follows [`InitIn`] where that has [`init::INIT_EXT`].
    InitInExt { flags2: u32, unused: [u32; 11], } = 48;
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        request_timeout: u16, unused: [u16; 11],
    } = 64;

    Attr {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32,
        ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    } = 88;
    EntryOut {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32,
        attr_valid_nsec: u32, attr: Attr,
    } = 128;
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr, } = 104;

    StatxIn { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32, } = 24;
    SxTime { sec: i64, nsec: u32, reserved: i32, } = 16;
    /// `mask` says which of it counts, as `stx_mask` does.
    Statx {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, spare0: u16, ino: u64,
        size: u64, blocks: u64, attributes_mask: u64, atime: SxTime, btime: SxTime, ctime: SxTime, mtime: SxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    } = 256;
    StatxOut { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: Statx, } = 288;

    ForgetIn { nlookup: u64, } = 8;
    BatchForgetIn { count: u32, dummy: u32, } = 8;
    ForgetOne { nodeid: u64, nlookup: u64, } = 16;
    GetAttrIn { flags: u32, dummy: u32, fh: u64, } = 16;
    SetAttrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    } = 88;
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32, } = 16;
    MkdirIn { mode: u32, umask: u32, } = 8;
    RenameIn { newdir: u64, } = 8;
    Rename2In { newdir: u64, flags: u32, padding: u32, } = 16;
    LinkIn { oldnodeid: u64, } = 8;
    AccessIn { mask: u32, padding: u32, } = 8;

    OpenIn { flags: u32, open_flags: u32, } = 8;
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32, } = 16;
    OpenOut { fh: u64, open_flags: u32, backing_id: i32, } = 16;
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64, } = 24;
    FlushIn { fh: u64, unused: u32, padding: u32, lock_owner: u64, } = 24;
    FsyncIn { fh: u64, flags: u32, padding: u32, } = 16;
    ReadIn {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    } = 40;
    WriteIn {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    } = 40;
    WriteOut { size: u32, padding: u32, } = 8;
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32, } = 32;
    LseekIn { fh: u64, offset: u64, whence: u32, padding: u32, } = 24;
    LseekOut { offset: u64, } = 8;
    CopyFileRangeIn {
        fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64,
    } = 56;

    CopyFileRangeOut { bytes_copied: u64, } = 8;

    SetXattrIn { size: u32, flags: u32, } = 8;
    GetXattrIn { size: u32, padding: u32, } = 8;
    GetXattrOut { size: u32, padding: u32, } = 8;

    /// `end` is the last byte of the range; `kind` as `l_type`.
    FileLock { start: u64, end: u64, kind: u32, pid: u32, } = 24;
    LkIn { fh: u64, owner: u64, lk: FileLock, lk_flags: u32, padding: u32, } = 48;
    LkOut { lk: FileLock, } = 24;

    KStatFs {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32,
        padding: u32, spare: [u32; 6],
    } = 80;

    InterruptIn { unique: u64, } = 8;

    /// Then the name, padded to 8 bytes.
    Dirent { ino: u64, off: u64, namelen: u32, kind: u32, } = 24;
    /// Then the name, padded to 8 bytes.
    DirentPlus { entry: EntryOut, dirent: Dirent, } = 152;

    InvalInodeOut { ino: u64, off: i64, len: i64, } = 24;
    InvalEntryOut { parent: u64, namelen: u32, flags: u32, } = 16;
    DeleteOut { parent: u64, child: u64, namelen: u32, padding: u32, } = 24;

    /// Of a request over a ring: by what its answer finds it, and how long the payload is.
    RingInOut { flags: u64, commit_id: u64, payload_sz: u32, padding: u32, reserved: u64, } = 32;
    /// What an entry of a ring has beside the payload. `in_out` begins with the [`InHeader`], or the answer's [`OutHeader`];
    /// `op_in` with what the operation has of fixed size.
    RingHead { in_out: [u64; 16], op_in: [u64; 16], ent: RingInOut, } = 288;
    /// The command to the kernel about an entry.
    RingCommand { flags: u64, commit_id: u64, qid: u16, padding: [u8; 6], } = 24;
}

/// Commands about an entry of a ring: it takes part from now on; its request is answered, and it takes the next one.
pub mod ring {
    pub const REGISTER: u32 = 1;
    pub const COMMIT_AND_FETCH: u32 = 2;
}

/// What stands before the bytes of a write.
pub const WRITE_HEAD_BYTES: usize = size_of::<InHeader>() + size_of::<WriteIn>();
