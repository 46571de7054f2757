//! What can go wrong with a target, said so that an operator knows what, where and what to do.

use crate::RecordError;
use pvfs_types::{Errno, FsId, ObjectId, TargetId, TargetUuid};
use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "target directory {dir} is missing: is its file system mounted? If the target is new, make it with `pvfs format`"
    )]
    MissingDir { dir: PathBuf },
    #[error("target path {dir} is not a directory: name a directory")]
    NotADir { dir: PathBuf },
    #[error(
        "{dir} holds no PVFS target (it has no file `identity`): is its file system mounted? If the target is new, \
         make it with `pvfs format`"
    )]
    NoIdentity { dir: PathBuf },
    #[error(
        "{dir} is not empty and holds no PVFS target (it contains `{found}`): format an empty directory, or move what \
         is there away"
    )]
    NotEmpty { dir: PathBuf, found: String },
    #[error(
        "the target in {dir} is damaged: its file `{file}` does not read ({source}). Restore that file from a copy; \
         if there is none, take the target out of the file system and format an empty directory in its place"
    )]
    Damaged { dir: PathBuf, file: &'static str, source: RecordError },
    #[error(
        "the target in {dir} has format version {found}, this build knows only {known}: run the version of pvfs that \
         wrote it"
    )]
    FormatVersion { dir: PathBuf, found: u32, known: u32 },
    #[error(
        "the target in {dir} belongs to the file system {found}, not to {wanted}: name that file system's own target \
         directory"
    )]
    OtherFs { dir: PathBuf, found: FsId, wanted: FsId },
    #[error(
        "the file `{file}` in {dir} belongs to the target {found}, not to {wanted}: put the directory's own file back"
    )]
    OtherTarget { dir: PathBuf, file: &'static str, found: TargetUuid, wanted: TargetUuid },
    #[error(
        "the target in {dir} is {found} to its file system, but the mgr calls it {told}: this mgr is not the one the \
         target joined. Start the iod with the right mgr"
    )]
    OtherTargetId { dir: PathBuf, found: TargetId, told: TargetId },
    #[error("the target in {dir} is used by another process: stop that iod first, or name another directory")]
    InUse { dir: PathBuf },
    #[error("the target in {dir} is not writable ({source}): give it to this user and mount it read-write")]
    NotWritable { dir: PathBuf, source: io::Error },
    #[error("{dir}: cannot {what}: {source}")]
    Io { dir: PathBuf, what: &'static str, source: io::Error },
    /// An operation on one object failed.
    #[error("{dir}: cannot {what} object {id}: {source}")]
    Object { dir: PathBuf, what: &'static str, id: ObjectId, source: io::Error },
    /// A late write to an object that the mgr had removed.
    #[error("object {id} was removed")]
    Removed { id: ObjectId },
    /// Nor was it to be made.
    #[error("object {id} is not there")]
    Absent { id: ObjectId },
}

impl StoreError {
    /// What an application gets to see of it.
    pub fn errno(&self) -> Errno {
        match self {
            StoreError::Io { source, .. }
            | StoreError::Object { source, .. }
            | StoreError::NotWritable { source, .. } => Errno::from(source),
            StoreError::Removed { .. } | StoreError::Absent { .. } => Errno::ESTALE,
            StoreError::InUse { .. } => Errno::EBUSY,
            StoreError::MissingDir { .. } | StoreError::NoIdentity { .. } => Errno::ENOENT,
            StoreError::NotADir { .. } => Errno::ENOTDIR,
            StoreError::NotEmpty { .. } => Errno::ENOTEMPTY,
            StoreError::Damaged { .. } => Errno::EIO,
            StoreError::FormatVersion { .. }
            | StoreError::OtherFs { .. }
            | StoreError::OtherTarget { .. }
            | StoreError::OtherTargetId { .. } => Errno::EINVAL,
        }
    }
}
