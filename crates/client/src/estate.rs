//! What a process leaves to the one that goes on in its place: who it was, what it was changing, what it had open.
//!
//! Owns the words for it and the trait by which it is written down; knows not where. A client with an estate can be killed at
//! any moment: its successor takes up the same session, and a change that was under way is sent again under the same
//! number, so that it is done once.

use bytes::Bytes;
use pvfs_types::{Ino, LockOwner, SessionId};
use pvfs_wire::Access;
use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{Client, slots::Slot};

/// The last request of a session's slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub session: SessionId,
    /// Its sequence number; 0: there was none.
    pub seq: u64,
    /// Of which call of the application it is the change, and which operation; 0: of none, or that call was answered.
    pub origin: u64,
    pub op: u16,
}

/// An owner that may hold locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockMark {
    pub ino: Ino,
    pub owner: LockOwner,
    /// Of the open file by which it locked last, as whoever opened it numbers it.
    pub handle: u64,
}

/// An append under way: bytes may be written from `at` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendMark {
    pub ino: Ino,
    /// Of which call of the application.
    pub call: u64,
    pub at: u64,
    /// All bytes are written; the call may not have been answered.
    pub is_done: bool,
}

/// Bytes that were acknowledged and are not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherMark {
    pub ino: Ino,
    /// In which the client is alone with the file.
    pub session: SessionId,
    /// The order in which they were written, among all of the client's.
    pub number: u64,
    /// Where in the file the first one goes.
    pub start: u64,
}

/// Bytes that a predecessor has not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gathered {
    /// In the journal.
    pub place: u16,
    pub mark: GatherMark,
    pub bytes: Bytes,
}

/// Where a client writes down what its successor must know. A write has to be kept when it returns, whatever becomes of
/// this process; it need not outlive the machine.
pub trait Journal: Send + Sync {
    /// Before a session is opened under this incarnation.
    fn incarnation(&self, incarnation: u64);

    /// Before a request leaves in `slot`, and when its call was answered.
    fn mark(&self, slot: u16, mark: Mark);

    /// Before an owner that held nothing locks, and when it does so by another handle. There is one for each inode and owner.
    fn locked(&self, mark: LockMark);

    /// The owner holds nothing of the inode any more.
    fn unlocked(&self, ino: Ino, owner: LockOwner);

    /// Before the first byte of an append leaves, and when the last is written. There is one for each call.
    fn appends(&self, mark: AppendMark);

    /// The append was answered, or nobody waits for an answer and nothing of it is under way.
    fn append_over(&self, call: u64);

    /// Before a write is acknowledged that is not sent yet: `bytes` stand behind the first `at` of those in `place`, one of
    /// [`GATHERS_MAX`](crate::GATHERS_MAX) of [`GATHER_BYTES_MAX`](crate::GATHER_BYTES_MAX) bytes. False: they are not kept.
    fn gathers(&self, place: u16, mark: GatherMark, at: usize, bytes: &[u8]) -> bool;

    /// What is in `place` is sent, or lost.
    fn gather_over(&self, place: u16);
}

/// Everything a successor must know.
#[derive(Clone)]
pub struct Estate {
    pub client: [u8; 16],
    pub incarnation: u64,
    /// Connections are numbered from here on: above those of all predecessors.
    pub connections_from: u64,
    /// By slot.
    pub marks: Vec<Mark>,
    /// The owners that may hold locks.
    pub locks: Vec<LockMark>,
    /// What was being appended.
    pub appends: Vec<AppendMark>,
    /// What was written and not sent.
    pub gathered: Vec<Gathered>,
    /// A predecessor was there: what it left unsaid is settled.
    pub inherited: bool,
    pub journal: Arc<dyn Journal>,
}

impl fmt::Debug for Estate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Estate")
            .field("incarnation", &self.incarnation)
            .field("connections_from", &self.connections_from)
            .field("inherited", &self.inherited)
            .finish_non_exhaustive()
    }
}

/// A file that a predecessor had open, and that counts as open until this is dropped: unlinked, it stays.
pub struct Held {
    pub(crate) count: crate::inode::OpenCount,
    pub(crate) access: Access,
}

impl Held {
    pub fn ino(&self) -> Ino {
        self.count.inode.ino
    }

    pub fn access(&self) -> Access {
        self.access
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("ino", &self.ino()).field("access", &self.access).finish_non_exhaustive()
    }
}

tokio::task_local! {
    static CURRENT: Origin;
}

/// A call of the application that may come a second time, to another process: its change must be done once all the same.
///
/// The slot of its first change is not used again before the call is answered, so that the mgr still knows the answer.
#[derive(Clone)]
pub(crate) struct Origin(Arc<Call>);

struct Call {
    id: u64,
    changed: AtomicBool,
    slot: Mutex<Option<Slot>>,
    append: Mutex<Option<AppendRecord>>,
}

/// What stands in the journal of an append, as long as the call may come again or its bytes are under way.
pub(crate) struct AppendRecord {
    journal: Arc<dyn Journal>,
    mark: AppendMark,
}

impl AppendRecord {
    pub fn begin(journal: &Arc<dyn Journal>, mark: AppendMark) -> AppendRecord {
        journal.appends(mark);
        AppendRecord { journal: Arc::clone(journal), mark }
    }
}

impl Drop for AppendRecord {
    fn drop(&mut self) {
        self.journal.append_over(self.mark.call);
    }
}

impl Client {
    /// Runs `work`, all of it, the answer to whoever called included, as the call `id` (not 0); to be used again when the call
    /// comes again. At most one change of `work` may be such that doing it twice would be wrong, and it has to be the first.
    pub async fn once<F: Future>(&self, id: u64, work: F) -> F::Output {
        let done = CURRENT.scope(Origin::new(id, false), work).await;
        // What a predecessor had sent for it may have been done without being asked for again.
        self.core.session.standing().slots.forget_call(id);
        done
    }

    /// Of the calls that a predecessor was doing, no more will come again than `calls` and those that came and ended already.
    /// What it had sent for the others needs not be known any more.
    pub fn all_came_again(&self, calls: &[u64]) {
        self.core.session.standing().slots.forget_calls_but(calls);
    }
}

/// The number of the call that is being done; `None`: it has none.
pub(crate) fn call_id() -> Option<u64> {
    CURRENT.try_with(|origin| origin.0.id).ok().filter(|id| *id != 0)
}

/// Runs `work`, whose changes may be done twice, without making them the call's first.
pub(crate) fn apart<F: Future>(work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(Origin::new(0, true), work)
}

/// `work`, to be run elsewhere on behalf of the same call as this.
pub(crate) fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let origin = CURRENT.try_with(Clone::clone).ok();
    async move {
        match origin {
            Some(origin) => CURRENT.scope(origin, work).await,
            None => work.await,
        }
    }
}

impl Origin {
    fn new(id: u64, changed: bool) -> Origin {
        let changed = AtomicBool::new(changed);
        Origin(Arc::new(Call { id, changed, slot: Mutex::default(), append: Mutex::default() }))
    }

    /// The call that is being done, if it has a number. Whoever keeps it keeps the call from being over.
    pub fn current() -> Option<Origin> {
        CURRENT.try_with(Clone::clone).ok().filter(|origin| origin.0.id != 0)
    }

    /// The call appends: `record` stands until it is over.
    pub fn keep_append(&self, record: AppendRecord) {
        *self.0.append.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
    }

    /// Its bytes are written.
    pub fn append_is_done(&self) {
        if let Some(record) = &mut *self.0.append.lock().unwrap_or_else(PoisonError::into_inner) {
            record.mark.is_done = true;
            record.journal.appends(record.mark);
        }
    }

    /// The current call, if this is the first change it makes.
    pub fn of_first_change() -> Option<Origin> {
        CURRENT
            .try_with(|origin| (!origin.0.changed.swap(true, Ordering::Relaxed)).then(|| origin.clone()))
            .ok()?
    }

    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Keeps the slot until the call is answered; but not the last ones, for a call can wait for a dead iod after its change,
    /// and must not hold up others' changes. (Then only its process's death in that time could have the change done twice.)
    pub fn keep(&self, slot: Slot) {
        if slot.is_scarce() {
            return;
        }
        *self.0.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(slot);
    }
}
