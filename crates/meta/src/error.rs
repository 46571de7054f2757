//! Why a metadata operation was not done.

use pvfs_kv::KvError;
use pvfs_types::{
    AclError, Errno, Ino, LayoutError, Name, QuotaOwner, SessionId, TargetUuid, XattrName, XattrNameError,
    limits,
};
use pvfs_wire::{Refusal, Status};

pub type Result<T> = std::result::Result<T, MetaError>;

#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// Mode bits do not let the caller in.
    #[error("permission denied on inode {ino}: needs {needs}")]
    Denied { ino: Ino, needs: &'static str },
    /// Only the owner or root may.
    #[error("not permitted on inode {ino}: {why}")]
    NotPermitted { ino: Ino, why: &'static str },
    #[error("{name} in directory {dir}: not permitted in a sticky directory but to the owner")]
    Sticky { dir: Ino, name: Name },
    #[error("no entry {name} in directory {dir}")]
    NoEntry { dir: Ino, name: Name },
    #[error("{name} in directory {dir} is there already")]
    Exists { dir: Ino, name: Name },
    /// The number was valid once: the inode has been removed. Who came by a path looks the path up again.
    #[error("inode {ino} is gone")]
    Gone { ino: Ino },
    #[error("inode {ino} has no name any more")]
    Unlinked { ino: Ino },
    #[error("inode {ino} is not a directory")]
    NotDir { ino: Ino },
    #[error("inode {ino} is a directory")]
    IsDir { ino: Ino },
    #[error("directory {dir} is not empty")]
    NotEmpty { dir: Ino },
    #[error("inode {ino} has as many links as it can have")]
    LinksMax { ino: Ino },
    #[error("directory {dir} cannot be moved into its own subtree")]
    IntoItself { dir: Ino },
    #[error("inode {ino} is not {wanted}")]
    WrongKind { ino: Ino, wanted: &'static str },
    #[error("inode {ino} is a FIFO, socket or device: no file of this file system's to open")]
    Special { ino: Ino },
    #[error("inode {ino} is a symbolic link")]
    IsSymlink { ino: Ino },
    #[error("a node of that kind cannot be made this way")]
    BadKind,
    #[error("making device nodes is for root")]
    DeviceNode,
    #[error("a symbolic link's target must not be empty")]
    LinkTargetEmpty,
    #[error("a symbolic link's target has at most {} bytes, this one has {bytes}", limits::PATH_BYTES_MAX)]
    LinkTargetTooLong { bytes: usize },
    #[error("a symbolic link's target must not contain NUL")]
    LinkTargetNul,
    #[error("a size of {size} bytes is past the largest, {}", limits::FILE_BYTES_MAX)]
    SizeTooBig { size: u64 },
    #[error(
        "a request may name at most {} files, this one names {files}",
        pvfs_types::limits::END_WRITES_MAX
    )]
    TooManyFiles { files: usize },
    #[error("a time has 0 to 999999999 nanoseconds, this one has {nanos}")]
    BadTime { nanos: u32 },
    #[error("a lock's range must not end before it begins: {start}..={end}")]
    LockRange { start: u64, end: u64 },
    /// Waiting for it would be for ever: whoever holds it waits for what the caller holds.
    #[error("inode {ino}: those who hold the lock wait for the caller's")]
    Deadlock { ino: Ino },
    #[error("inode {ino} has as many {what} as it can have")]
    LocksMax { ino: Ino, what: &'static str },
    #[error(transparent)]
    XattrName(#[from] XattrNameError),
    #[error("inode {ino} has no attribute {name}")]
    NoXattr { ino: Ino, name: XattrName },
    #[error("inode {ino} has an attribute {name} already")]
    XattrExists { ino: Ino, name: XattrName },
    #[error("an attribute has at most {} bytes, this one has {bytes}", limits::XATTR_VALUE_BYTES_MAX)]
    XattrTooBig { bytes: usize },
    #[error(
        "the names of inode {ino}'s attributes would take more than {} bytes",
        limits::XATTR_LIST_BYTES_MAX
    )]
    XattrsFull { ino: Ino },
    #[error(transparent)]
    Acl(#[from] AclError),
    #[error("inode {ino} is a symbolic link, which has no ACL")]
    AclOfSymlink { ino: Ino },
    #[error("inode {ino} is not a directory: only those have default ACLs")]
    DefaultAclOfNoDir { ino: Ino },
    #[error("an open asks for reading, writing or both")]
    NoAccessAsked,
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("no target is up that could hold a new file")]
    NoTargets,
    #[error("the metadata store is full, only removals go on: remove something, or give its disk more space")]
    StoreShort,
    /// `used`: with what is charged ahead for files that are being written.
    #[error("quota exceeded: {owner} may have {limit} {what}, and has {used}")]
    QuotaExceeded { owner: QuotaOwner, what: &'static str, used: u128, limit: u64 },
    #[error("root has no limits")]
    QuotaOfRoot,
    #[error("inode {ino} is in tree {tree}: trees do not lie in one another")]
    TreeInTree { ino: Ino, tree: Ino },
    #[error(
        "more than {} inodes lie below directory {top}: a tree gets its first limit, and loses its last, while it is smaller",
        limits::TREE_INODES_MAX
    )]
    TreeTooLarge { top: Ino },
    #[error("inode {ino} has names outside of the tree of directory {top}")]
    TreeHasLinksOutside { top: Ino, ino: Ino },
    /// As between two file systems.
    #[error("inode {ino} and directory {dir} are not in the same tree: copy it instead")]
    OtherTree { ino: Ino, dir: Ino },
    #[error("target {uuid} cannot join: a file system has at most {} targets", limits::TARGETS_MAX)]
    TargetsMax { uuid: TargetUuid },
    #[error("{session} is not known (any more)")]
    SessionUnknown { session: SessionId },
    #[error("slot {slot} is out of range: a session has {}", limits::SESSION_SLOTS)]
    SlotRange { slot: u16 },
    /// Numbers are used up: 2^64 inodes, or 2^32 truncations of one file.
    #[error("{what} are used up")]
    NumbersUsedUp { what: &'static str },
    #[error("the store is formatted already")]
    FormattedAlready,
    #[error("the store is not formatted: run `pvfs format`")]
    NotFormatted,
    /// A record that this build cannot read, or that is missing though another one names it.
    #[error("the metadata store is damaged: {what}: {detail}")]
    Corrupt { what: &'static str, detail: String },
    #[error(transparent)]
    Kv(#[from] KvError),
}

impl MetaError {
    /// What the peer is answered.
    pub fn status(&self) -> Status {
        Status::Errno(match self {
            MetaError::Denied { .. } | MetaError::DefaultAclOfNoDir { .. } => Errno::EACCES,
            MetaError::NotPermitted { .. } | MetaError::Sticky { .. } | MetaError::DeviceNode => Errno::EPERM,
            MetaError::NoEntry { .. } | MetaError::LinkTargetEmpty => Errno::ENOENT,
            MetaError::Exists { .. } | MetaError::XattrExists { .. } => Errno::EEXIST,
            MetaError::Gone { .. } | MetaError::Unlinked { .. } => Errno::ESTALE,
            MetaError::NotDir { .. } => Errno::ENOTDIR,
            MetaError::IsDir { .. } => Errno::EISDIR,
            MetaError::NotEmpty { .. } => Errno::ENOTEMPTY,
            MetaError::LinksMax { .. } => Errno::EMLINK,
            MetaError::IntoItself { .. }
            | MetaError::WrongKind { .. }
            | MetaError::BadKind
            | MetaError::LinkTargetNul
            | MetaError::BadTime { .. }
            | MetaError::TooManyFiles { .. }
            | MetaError::LockRange { .. }
            | MetaError::NoAccessAsked
            | MetaError::QuotaOfRoot
            | MetaError::TreeInTree { .. } => Errno::EINVAL,
            MetaError::QuotaExceeded { .. } => Errno::EDQUOT,
            MetaError::OtherTree { .. } | MetaError::TreeHasLinksOutside { .. } => Errno::EXDEV,
            MetaError::Deadlock { .. } => Errno::EDEADLK,
            MetaError::LocksMax { .. } => Errno::ENOLCK,
            MetaError::Layout(e) => e.errno(),
            MetaError::XattrName(e) => e.errno(),
            MetaError::NoXattr { .. } => Errno::ENODATA,
            MetaError::XattrTooBig { .. } | MetaError::TreeTooLarge { .. } => Errno::E2BIG,
            MetaError::Acl(e) => e.errno(),
            MetaError::AclOfSymlink { .. } => Errno::EOPNOTSUPP,
            MetaError::Special { .. } => Errno::ENXIO,
            MetaError::IsSymlink { .. } => Errno::ELOOP,
            MetaError::LinkTargetTooLong { .. } => Errno::ENAMETOOLONG,
            MetaError::SizeTooBig { .. } => Errno::EFBIG,
            MetaError::NoTargets
            | MetaError::StoreShort
            | MetaError::XattrsFull { .. }
            | MetaError::TargetsMax { .. }
            | MetaError::NumbersUsedUp { .. }
            | MetaError::Kv(KvError::Full { .. }) => Errno::ENOSPC,
            MetaError::FormattedAlready
            | MetaError::NotFormatted
            | MetaError::Corrupt { .. }
            | MetaError::Kv(
                KvError::InUse { .. }
                | KvError::Io { .. }
                | KvError::KeySize { .. }
                | KvError::ReservedKey
                | KvError::Corrupt { .. }
                | KvError::Engine { .. },
            ) => Errno::EIO,
            MetaError::SessionUnknown { .. } => return Status::SessionUnknown,
            MetaError::SlotRange { .. } => return Status::BadRequest,
        })
    }

    /// What the application gets; `EIO` where the answer is for the client, not for the application.
    pub fn errno(&self) -> Errno {
        match self.status() {
            Status::Errno(errno) => errno,
            Status::SessionUnknown
            | Status::SlotStale
            | Status::LeaseExpired
            | Status::CapabilityForged
            | Status::CapabilityRights
            | Status::WrongTarget
            | Status::NotNow
            | Status::PayloadDamaged
            | Status::BadRequest
            | Status::UnknownOp
            | Status::Version
            | Status::WrongFs
            | Status::Unauthorized
            | Status::StoreRaised(_)
            | Status::CapabilityOld => Errno::EIO,
        }
    }

    pub fn refusal(&self) -> Refusal {
        Refusal::new(self.status(), self.to_string())
    }
}
