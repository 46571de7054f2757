//! Locks: client to mgr. What is granted is in the mgr's store; so are those who wait, each in its place.

use super::{
    namespace::Entry,
    request,
    session::{Caller, Done, Mutator},
};
use minicbor::{Decode, Encode};
use pvfs_types::{Ino, LockMode, LockOwner, LockRange, SessionId};

/// Asks for the first lock that stands in the way of the one described (`F_GETLK`).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TestLock {
    #[n(0)]
    pub caller: Caller,
    #[n(1)]
    pub ino: Ino,
    #[n(2)]
    pub owner: LockOwner,
    #[n(3)]
    pub start: u64,
    /// The last byte.
    #[n(4)]
    pub end: u64,
    #[n(5)]
    pub mode: LockMode,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LockTested {
    /// `None`: nothing stands in the way.
    #[n(0)]
    pub held: Option<HeldLock>,
}

/// A lock that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeldLock {
    #[n(0)]
    pub session: SessionId,
    /// Its pid is one of the machine of `session`.
    #[n(1)]
    pub range: LockRange,
}

/// Locks or unlocks a range for `owner`, in place of what that holds of it.
///
/// A lock is known by its `id`: asked for again with the same one, by whoever goes on for a client that died, it is the
/// same lock, in the same place among those who wait.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetLock {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub ino: Ino,
    #[n(2)]
    pub owner: LockOwner,
    /// Never used for another lock of the session.
    #[n(3)]
    pub id: u64,
    #[n(4)]
    pub start: u64,
    /// The last byte.
    #[n(5)]
    pub end: u64,
    /// `None` unlocks.
    #[n(6)]
    pub mode: Option<LockMode>,
    /// The process that asks, for people and for `F_GETLK`; 0: not known.
    #[n(7)]
    pub pid: u32,
    /// What cannot be had at once is waited for: [`AwaitLocks`] tells when it is granted.
    #[n(8)]
    pub wait: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum LockOutcome {
    /// Done: locked or unlocked.
    #[n(0)]
    Granted,
    /// It stands among those who wait.
    #[n(1)]
    Queued,
    /// Others hold it, and it was not to be waited for.
    #[n(2)]
    Held,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LockSet {
    #[n(0)]
    pub outcome: LockOutcome,
    /// With a granted lock: the file as it is now. What others have written under locks before is to be seen under it.
    #[n(1)]
    pub entry: Option<Entry>,
}

/// Answered when a lock is granted that this session waits for. One of a session is open at a time: a newer one ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AwaitLocks {
    #[n(0)]
    pub session: SessionId,
    /// The mgr process that told last, and how many grants it had told of then; 0 at first.
    #[n(1)]
    pub mgr: u64,
    #[n(2)]
    pub seen: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LocksGranted {
    /// To be given back in the next [`AwaitLocks`].
    #[n(0)]
    pub mgr: u64,
    #[n(1)]
    pub seen: u64,
    /// The ids of locks that were granted since.
    #[n(2)]
    pub ids: Vec<u64>,
    /// There may have been more, before this mgr's time: ask by [`SetLock`] for each lock that is still waited for.
    #[n(3)]
    pub ask_again: bool,
}

/// Takes a lock back, waited for or granted. After it, its owner holds of the range what it held before, but for what it has
/// changed of it since.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CancelLock {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub ino: Ino,
    #[n(2)]
    pub owner: LockOwner,
    #[n(3)]
    pub id: u64,
    #[n(4)]
    pub start: u64,
    /// The last byte.
    #[n(5)]
    pub end: u64,
}

/// Gives up all that `owner` holds of a file and waits for there.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReleaseLocks {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub ino: Ino,
    #[n(2)]
    pub owner: LockOwner,
}

request! {
    TestLock => TestLock, LockTested;
    SetLock => SetLock, LockSet;
    AwaitLocks => AwaitLocks, LocksGranted;
    CancelLock => CancelLock, Done;
    ReleaseLocks => ReleaseLocks, Done;
}
