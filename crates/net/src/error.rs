//! What goes wrong on connections.

use pvfs_wire::{FrameError, Refusal};
use std::{io, time::Duration};

/// Why a connection could not be made or ended.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("cannot listen on {addr}: {source}{}", listen_hint(.source))]
    Listen { addr: String, source: io::Error },
    #[error("cannot reach {addr}: {source}")]
    Connect { addr: String, source: io::Error },
    #[error("no answer from {addr} within {after:?}")]
    TimedOut { addr: String, after: Duration },
    #[error("the connection to {peer} broke: {source}")]
    Broken { peer: String, source: io::Error },
    #[error("{peer} sent what is no PVFS message: {source}")]
    Frame { peer: String, source: FrameError },
    #[error("{peer} refused: {refusal}")]
    Refused { peer: String, refusal: Refusal },
    #[error(
        "{peer} could not prove that it knows the cluster's secret: it is not a daemon of this file system"
    )]
    Impostor { peer: String },
    #[error("no secret at hand for this role: {hint}")]
    NoSecret { hint: &'static str },
    #[error("no address is known for this server")]
    NoAddress,
}

fn listen_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another program has this port: stop it, or choose another port)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need root: choose a higher one)",
        io::ErrorKind::AddrNotAvailable => " (this machine has no such address)",
        _ => "",
    }
}

/// Why [`crate::Peer::call_once`] has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, or it broke before the answer. The request may have been done.
    #[error("{0}")]
    Unreachable(#[from] NetError),
    #[error("{0}")]
    Refused(Refusal),
    #[error("no answer within {after:?}")]
    TimedOut { after: Duration },
}
