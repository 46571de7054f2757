//! What can go wrong, and which errno an application sees of it.

use pvfs_env::BoxFuture;
use pvfs_types::{Errno, NameError, PatternError, XattrNameError, limits};
use pvfs_wire::{Op, Status};
use std::time::Duration;

/// The crate's results.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// What a call will be answered with; dropped, it gives up (see [`crate::Client`]). Boxed, so that the client is compiled once, and
/// not by all who use one.
pub type Answer<'a, T> = BoxFuture<'a, Result<T>>;

/// Why a call was not done. A server that is away is no error: calls wait for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The file system's own answer.
    #[error("{}: {errno}{}", .op.name(), colon(.text))]
    Refused { op: Op, errno: Errno, text: String },
    /// A daemon refuses in a way that no retry mends.
    #[error("{} cannot be done: {status:?}{}", .op.name(), colon(.text))]
    Rejected { op: Op, status: Status, text: String },
    #[error("not let in by {server}: {text}")]
    NotLetIn { server: String, text: String },
    #[error("no mgr answered at {servers} within {after:?}: {text}")]
    Unreachable { servers: String, after: Duration, text: String },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    XattrName(#[from] XattrNameError),
    #[error("an attribute has at most {} bytes, this one has {bytes}", limits::XATTR_VALUE_BYTES_MAX)]
    XattrTooBig { bytes: usize },
    #[error("a path has at most {} bytes, this one has {bytes}", limits::PATH_BYTES_MAX)]
    PathTooLong { bytes: usize },
    #[error("a path must not be empty")]
    PathEmpty,
    #[error("{path} is not a directory")]
    NotDirectory { path: String },
    #[error("{path} is a directory")]
    IsDirectory { path: String },
    #[error("{path} exists")]
    Exists { path: String },
    #[error("{path} leads over too many symbolic links")]
    SymlinkLoop { path: String },
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error("{len} bytes at offset {offset} end past the largest file size")]
    TooBig { offset: u64, len: u64 },
    #[error("offset {offset} is past the largest file size")]
    BadOffset { offset: u64 },
    #[error("no data at offset {offset} or behind it")]
    NoData { offset: u64 },
    #[error("a range of no bytes, at offset {offset}")]
    EmptyRange { offset: u64 },
    #[error("{len} bytes of one file cannot be copied from offset {from} to offset {at}: they overlap")]
    Overlap { from: u64, at: u64, len: u64 },
    #[error("the ranges have {ranges} bytes in all, the data {data}")]
    LengthMismatch { ranges: u64, data: u64 },
    #[error("no memory for {bytes} bytes")]
    NoMemory { bytes: u64 },
    #[error("the file is not open for {wanted}")]
    NotOpenFor { wanted: &'static str },
    #[error("opening for neither reading nor writing makes no sense")]
    NoAccess,
    /// The file's last name went and its bytes with it, while this client was cut off for long.
    #[error("the open file {ino} is gone")]
    Gone { ino: pvfs_types::Ino },
    /// A disk failed, or filled up, between a write's acknowledgement and its becoming durable.
    #[error("bytes that were written to {ino} are lost ({errno}); the log says why")]
    Lost { ino: pvfs_types::Ino, errno: Errno },
    /// The mgr has given up this client's session, and with it the locks of an open file.
    #[error("locks of {ino} are lost with the session, others may have them")]
    LocksLost { ino: pvfs_types::Ino },
    /// This client was silent for so long that others may have gone on behind what of it is there.
    #[error("what was being appended to {ino} may be there in part: the session is lost")]
    AppendCut { ino: pvfs_types::Ino },
    #[error("a lock's range must not end before it begins: {start}..={end}")]
    LockRange { start: u64, end: u64 },
    /// Only where the user set a bound. Whether it was done, or will be, is not known.
    #[error("{} is given up after {after:?}: its server does not answer (the option soft,timeo)", .op.name())]
    TimedOut { op: Op, after: Duration },
    #[error("the client was shut down")]
    ShutDown,
}

impl ClientError {
    /// What `errno` shall be for the application.
    pub fn errno(&self) -> Errno {
        match self {
            ClientError::Refused { errno, .. } | ClientError::Lost { errno, .. } => *errno,
            ClientError::Rejected { status, .. } => match status {
                Status::Unauthorized | Status::WrongFs => Errno::EACCES,
                Status::CapabilityRights => Errno::EPERM,
                Status::UnknownOp | Status::Version => Errno::EOPNOTSUPP,
                Status::Errno(errno) => *errno,
                Status::SessionUnknown
                | Status::SlotStale
                | Status::LeaseExpired
                | Status::CapabilityForged
                | Status::CapabilityOld
                | Status::WrongTarget
                | Status::NotNow
                | Status::PayloadDamaged
                | Status::StoreRaised(_)
                | Status::BadRequest => Errno::EIO,
            },
            ClientError::NoData { .. } => Errno::ENXIO,
            ClientError::NotLetIn { .. } => Errno::EACCES,
            ClientError::Unreachable { .. } => Errno::ETIMEDOUT,
            ClientError::Name(error) => error.errno(),
            ClientError::XattrName(error) => error.errno(),
            ClientError::XattrTooBig { .. } => Errno::E2BIG,
            ClientError::PathTooLong { .. } => Errno::ENAMETOOLONG,
            ClientError::PathEmpty => Errno::ENOENT,
            ClientError::NotDirectory { .. } => Errno::ENOTDIR,
            ClientError::IsDirectory { .. } => Errno::EISDIR,
            ClientError::Exists { .. } => Errno::EEXIST,
            ClientError::SymlinkLoop { .. } => Errno::ELOOP,
            ClientError::TooBig { .. } => Errno::EFBIG,
            ClientError::Pattern(_)
            | ClientError::BadOffset { .. }
            | ClientError::EmptyRange { .. }
            | ClientError::Overlap { .. }
            | ClientError::LengthMismatch { .. }
            | ClientError::LockRange { .. }
            | ClientError::NoAccess => Errno::EINVAL,
            ClientError::NoMemory { .. } => Errno::ENOMEM,
            ClientError::NotOpenFor { .. } => Errno::EBADF,
            ClientError::Gone { .. } => Errno::ESTALE,
            ClientError::LocksLost { .. }
            | ClientError::AppendCut { .. }
            | ClientError::TimedOut { .. }
            | ClientError::ShutDown => Errno::EIO,
        }
    }
}

fn colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}
