//! The bounds of the system. Whatever comes from outside is held against them before memory is given to it.

/// The longest name of one directory entry, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest path and the longest symbolic link, in bytes, without a closing NUL.
pub const PATH_BYTES_MAX: usize = 4095;
/// The largest file size, in bytes: `i64::MAX`, as POSIX `off_t` has it.
pub const FILE_BYTES_MAX: u64 = i64::MAX.cast_unsigned();
/// Most names one inode can have.
pub const LINK_MAX: u32 = 1_000_000;

/// The longest name of an extended attribute, its name space included, in bytes.
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// The longest value of an extended attribute, in bytes.
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;
/// The longest list of one inode's attribute names, each with a closing NUL, in bytes.
pub const XATTR_LIST_BYTES_MAX: usize = 65_536;
/// Most entries of one ACL: as many as a page of the kernel's holds.
pub const ACL_ENTRIES_MAX: usize = 511;

/// Strip sizes are multiples of this (4 KiB) …
pub const STRIP_BYTES_MIN: u32 = 4096;
/// … and at most this (1 GiB).
pub const STRIP_BYTES_MAX: u32 = 1 << 30;
/// The strip size where nobody asks for another: 1 MiB, the size of the kernel's largest FUSE request.
pub const STRIP_BYTES_DEFAULT: u32 = 1 << 20;
/// Most targets one file can be dealt over.
pub const PCOUNT_MAX: u16 = 1024;
/// Most targets one file system can have.
pub const TARGETS_MAX: usize = 10_000;

/// Most bytes of a file that a mgr keeps itself (4 KiB): no more than one strip, so that one object can take them.
pub const INLINE_BYTES_MAX: usize = STRIP_BYTES_MIN as usize;

/// The longest body of a frame (headers and payload not counted), in bytes.
pub const BODY_BYTES_MAX: u32 = 1 << 20;
/// The longest payload of a frame, in bytes. Clients split larger requests.
pub const PAYLOAD_BYTES_MAX: u32 = 4 << 20;
/// Most bytes one request to an iod may copy. Clients split larger ones.
pub const COPY_BYTES_MAX: u64 = 8 << 20;
/// Most pieces one list request to an iod may carry.
pub const PIECES_MAX: usize = 16_384;
/// Most runs a strided request may describe over all targets together, after runs that touch are taken as one. What
/// falls to one slot is further held to [`PIECES_MAX`] and [`PAYLOAD_BYTES_MAX`].
pub const PATTERN_RUNS_MAX: u64 = 1 << 20;

/// Mutating requests a session may have in flight; each has a slot that keeps its last reply.
pub const SESSION_SLOTS: u16 = 64;
/// Most supplementary groups of a caller (Linux: `NGROUPS_MAX`).
pub const GROUPS_MAX: usize = 65_536;
/// Supplementary groups beyond this many are not sent: the first ones count.
pub const GROUPS_SENT_MAX: usize = 1024;
/// Most files one `end_writes` request may name.
pub const END_WRITES_MAX: usize = 1024;
/// Most files one answer to `list_writes` names.
pub const WRITES_PAGE_MAX: usize = 1024;
/// Most inodes that the answer to a change tells of.
pub const CHANGED_MAX: usize = 8;
/// Most inodes one `touch_atimes` request may name.
pub const ATIMES_MAX: usize = 1024;
/// Most ranges one owner may have locked in one file.
pub const LOCK_RANGES_MAX: usize = 4096;
/// Most owners that may hold locks in one file.
pub const LOCK_OWNERS_MAX: usize = 16_384;
/// Most locks of one file that may be waited for at once.
pub const LOCK_WAITS_MAX: usize = 16_384;
/// Most directory entries one readdir reply may carry.
pub const READDIR_ENTRIES_MAX: u32 = 4096;

/// Most inodes that are taken into a tree at once, as it gets its first limit, or let go of with its last.
pub const TREE_INODES_MAX: usize = 100_000;
/// Most quotas one reply may list.
pub const QUOTAS_PAGE_MAX: usize = 1024;

/// Entries of one page of a check of the file system: files, objects, fixes.
pub const FSCK_PAGE_MAX: usize = 4096;
/// Findings of a check of the metadata store that are told one by one.
pub const FINDINGS_MAX: usize = 1000;
