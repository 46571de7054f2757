//! Delegations: the mgr's word that it asks a session before anything changes of an inode. As long as a session has it, what
//! it knows of the inode's attributes, names and bytes is so.
//!
//! An answer that bears [`Entry::delegated`](super::namespace::Entry::delegated) gives one. It ends with a recall, which the
//! session answers once it has forgotten what it knows, or with the session's lease.

use super::{namespace::Entry, request, session::Done};
use minicbor::{Decode, Encode};
use pvfs_types::{Ino, SessionId};

/// Answered when delegations are recalled. One of a session is open at a time: a newer one ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AwaitRecalls {
    #[n(0)]
    pub session: SessionId,
    /// The mgr process that told last; 0 at first.
    #[n(1)]
    pub mgr: u64,
    /// The highest number of a recall that is known.
    #[n(2)]
    pub after: u64,
}

/// One delegation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Recall {
    /// Rises over all recalls of a mgr process.
    #[n(0)]
    pub id: u64,
    #[n(1)]
    pub ino: Ino,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Recalls {
    /// To be given back in the next [`AwaitRecalls`].
    #[n(0)]
    pub mgr: u64,
    #[n(1)]
    pub recalls: Vec<Recall>,
    /// This mgr process does not know what the session holds: tell by [`HoldDelegations`]. Till then, what others want to
    /// change waits.
    #[n(2)]
    pub unknown: bool,
}

/// What these recalls were about is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Recalled {
    #[n(0)]
    pub session: SessionId,
    /// Who recalled; another mgr process has nothing to do with it.
    #[n(1)]
    pub mgr: u64,
    #[n(2)]
    pub ids: Vec<u64>,
}

/// Tells a new mgr process of delegations that an earlier one gave.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HoldDelegations {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub mgr: u64,
    #[n(2)]
    pub inos: Vec<Ino>,
    /// That was all.
    #[n(3)]
    pub last: bool,
}

/// How inodes are right after a change, and before any other: the payload of the change's first answer, where the session
/// takes delegations. An answer that is given once more has none.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Changed {
    /// Those that the change was about and that are still there; at most [`CHANGED_MAX`](pvfs_types::limits::CHANGED_MAX).
    /// What is new is delegated; what is not counts for who has its delegation since before the change.
    #[n(0)]
    pub inodes: Vec<Entry>,
}

request! {
    AwaitRecalls => AwaitRecalls, Recalls;
    Recalled => Recalled, Done;
    HoldDelegations => HoldDelegations, Done;
}
