//! Why an iod cannot run.

use pvfs_net::NetError;
use pvfs_store::StoreError;
use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum IodError {
    #[error("the iod has no target: name at least one target directory")]
    NoTarget,
    #[error("the target directory {dir} is named twice: name each once")]
    TwiceTheTarget { dir: PathBuf },
    #[error(
        "the iod listens on {listen}, which no client can dial: say with `advertise` at which address it is reached"
    )]
    NoAddress { listen: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("cannot serve metrics on {addr}: {source}")]
    Metrics { addr: String, source: io::Error },
    #[error("the iod stopped while requests were in work: its targets count as not cleanly closed")]
    Busy,
}
