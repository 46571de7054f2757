//! Why a mgr does not start, or had to stop.

use pvfs_kv::KvError;
use pvfs_meta::MetaError;
use pvfs_net::NetError;
use pvfs_types::FsId;
use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum MgrError {
    #[error(transparent)]
    Store(#[from] KvError),
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error("there is no metadata store in {}: make one with `pvfs format`", dir.display())]
    NotFormatted { dir: PathBuf },
    #[error("{} holds a metadata store already; nothing was changed", dir.display())]
    FormattedAlready { dir: PathBuf },
    #[error(
        "the metadata store in {} is of file system {found}, the configuration names {wanted}: check the directory \
         and the configuration file",
        dir.display()
    )]
    OtherFs { dir: PathBuf, found: FsId, wanted: FsId },
    #[error(
        "the metadata store in {} has format version {found}, this build works with {wanted}: use the build that fits",
        dir.display()
    )]
    OtherFormat { dir: PathBuf, found: u16, wanted: u16 },
    #[error("the metadata store does not take the mgr's time: {text}")]
    Time { text: String },
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("cannot serve metrics on {addr}: {source}")]
    Metrics { addr: String, source: io::Error },
    /// A bug of ours; nothing that was answered is lost.
    #[error("{part} died; the mgr stops, so that it can be started anew")]
    PartDied { part: &'static str },
    #[error("cannot start the sequencer's thread: {source}")]
    Thread { source: io::Error },
}
