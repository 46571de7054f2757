//! What a daemon answers when it does not do what it was asked.

use minicbor::{Decode, Encode};
use pvfs_types::Errno;

/// Why a request was refused. The numbers never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Status {
    /// The file system's own answer: the application gets this errno.
    #[n(0)]
    Errno(#[n(0)] Errno),
    /// The mgr does not know the session (any more). Open a new one, re-assert what is open, send again.
    #[n(1)]
    SessionUnknown,
    /// The slot's sequence number is below the last one seen: a late copy of a request long answered.
    #[n(2)]
    SlotStale,
    /// The capability's lease has run out. Renew it at the mgr, send again.
    #[n(3)]
    LeaseExpired,
    /// The capability or lease is not one that this cluster's mgr signed, or not for this object.
    #[n(4)]
    CapabilityForged,
    /// The capability does not allow this (say, a write with a read-only one).
    #[n(5)]
    CapabilityRights,
    /// The daemon does not serve that target. Ask the mgr for the target's address, send again there.
    #[n(6)]
    WrongTarget,
    /// The daemon cannot serve right now (starting, stopping, not the leader). Send again a little later.
    #[n(7)]
    NotNow,
    /// The payload's checksum did not fit. Send again.
    #[n(8)]
    PayloadDamaged,
    /// The request makes no sense: a bug or a broken peer.
    #[n(9)]
    BadRequest,
    /// This build does not know the operation.
    #[n(10)]
    UnknownOp,
    /// No common protocol version.
    #[n(11)]
    Version,
    /// The peer belongs to another file system.
    #[n(12)]
    WrongFs,
    /// The peer does not know the secret, or may not do this in its role.
    #[n(13)]
    Unauthorized,
    /// The target's store generation is this, newer than what the client knows: acknowledged bytes may be lost. Send
    /// again what is held for the target, then this request.
    #[n(14)]
    StoreRaised(#[n(0)] u64),
    /// The write would make an object, and the capability was signed before this iod started, which therefore does not
    /// know whether the object was removed since. Open the file again for a fresh capability, send again.
    #[n(15)]
    CapabilityOld,
}

/// The body of a refusal frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[error("{status:?}: {text}")]
pub struct Refusal {
    #[n(0)]
    pub status: Status,
    /// For people: what happened, where, what to do. Maybe empty where `status` says it all.
    #[n(1)]
    pub text: String,
}

impl Refusal {
    pub fn new(status: Status, text: impl Into<String>) -> Refusal {
        Refusal { status, text: text.into() }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        Refusal { status: Status::Errno(errno), text: String::new() }
    }
}
