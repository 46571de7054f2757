//! What a client process leaves to the next one in its seat: a journal that outlives it, as a mount's book does, and what was
//! open.

use crate::process::Process;
use pvfs_client::{Access, AppendMark, Estate, GatherMark, Journal, LockMark, Mark, MemJournal};
use pvfs_types::{Ino, LockOwner, SessionId};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Of one seat.
pub struct Desk {
    journal: Arc<MemJournal>,
    /// What is open for writing, by handle.
    open: Mutex<BTreeMap<u64, (Ino, Access)>>,
}

/// The journal as one process writes to it, as long as it is alive.
struct Pen {
    journal: Arc<MemJournal>,
    process: Arc<Process>,
}

impl Desk {
    /// Of the client that is called so.
    pub fn new(name: &str) -> Arc<Desk> {
        let mut client = [0; 16];
        for (byte, of_name) in client.iter_mut().zip(name.bytes()) {
            *byte = of_name;
        }
        Arc::new(Desk { journal: MemJournal::new(client), open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, (Ino, Access)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `process`, the next one, finds; with what the last one had open, which nobody has open any more.
    pub fn take_over(&self, process: &Arc<Process>) -> (Estate, Vec<(Ino, Access)>) {
        let pen = Pen { journal: Arc::clone(&self.journal), process: Arc::clone(process) };
        let estate = Estate { journal: Arc::new(pen), ..self.journal.estate() };
        (estate, self.open().values().copied().collect())
    }

    pub fn opened(&self, handle: u64, ino: Ino, access: Access) {
        if access.write {
            self.open().insert(handle, (ino, access));
        }
    }

    /// The mgr knows.
    pub fn closed(&self, handle: u64) {
        self.open().remove(&handle);
    }

    /// Nothing of what `open` lists is open any more.
    pub fn all_closed(&self, open: &[(Ino, Access)]) {
        self.open().retain(|_, is| !open.contains(is));
    }

    /// The sessions in which bytes were gathered that are not sent.
    pub fn gathered_in(&self) -> Vec<SessionId> {
        self.journal.gathered().iter().map(|gathered| gathered.mark.session).collect()
    }
}

impl Pen {
    /// The journal, for one more note: the dead write none.
    fn writes(&self) -> Option<&MemJournal> {
        self.process.effect().then_some(&*self.journal)
    }
}

impl Journal for Pen {
    fn incarnation(&self, incarnation: u64) {
        self.writes().inspect(|journal| journal.incarnation(incarnation));
    }

    fn mark(&self, slot: u16, mark: Mark) {
        self.writes().inspect(|journal| journal.mark(slot, mark));
    }

    fn locked(&self, mark: LockMark) {
        self.writes().inspect(|journal| journal.locked(mark));
    }

    fn unlocked(&self, ino: Ino, owner: LockOwner) {
        self.writes().inspect(|journal| journal.unlocked(ino, owner));
    }

    fn appends(&self, mark: AppendMark) {
        self.writes().inspect(|journal| journal.appends(mark));
    }

    fn append_over(&self, call: u64) {
        self.writes().inspect(|journal| journal.append_over(call));
    }

    fn gathers(&self, place: u16, mark: GatherMark, at: usize, bytes: &[u8]) -> bool {
        self.writes().is_some_and(|journal| journal.gathers(place, mark, at, bytes))
    }

    fn gather_over(&self, place: u16) {
        self.writes().inspect(|journal| journal.gather_over(place));
    }
}
