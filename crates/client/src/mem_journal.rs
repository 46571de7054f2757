//! A journal in memory, for tests and the simulator: it outlives the clients of one process after another, not this process.

use crate::{AppendMark, Estate, GatherMark, Gathered, Journal, LockMark, Mark};
use pvfs_types::{Ino, LockOwner, limits};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Of a row of clients, each of which goes on where the last one ended.
pub struct MemJournal {
    client: [u8; 16],
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    runs: u64,
    incarnation: u64,
    marks: BTreeMap<u16, Mark>,
    locks: BTreeMap<(Ino, LockOwner), LockMark>,
    appends: BTreeMap<u64, AppendMark>,
    gathers: BTreeMap<u16, (GatherMark, Vec<u8>)>,
}

impl MemJournal {
    pub fn new(client: [u8; 16]) -> Arc<MemJournal> {
        Arc::new(MemJournal { client, notes: Mutex::default() })
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next client finds.
    pub fn estate(self: &Arc<Self>) -> Estate {
        let gathered = self.gathered();
        let mut notes = self.notes();
        notes.runs += 1;
        let mark = |slot| notes.marks.get(&slot).copied().unwrap_or_default();
        Estate {
            client: self.client,
            incarnation: notes.incarnation.max(1),
            connections_from: (notes.runs << 32) + 1,
            marks: (0..limits::SESSION_SLOTS).map(mark).collect(),
            locks: notes.locks.values().copied().collect(),
            appends: notes.appends.values().copied().collect(),
            gathered,
            inherited: notes.runs > 1,
            journal: Arc::<MemJournal>::clone(self),
        }
    }

    /// What was written and not sent.
    pub fn gathered(&self) -> Vec<Gathered> {
        let notes = self.notes();
        let all = notes.gathers.iter();
        all.map(|(&place, (mark, bytes))| Gathered { place, mark: *mark, bytes: bytes.clone().into() })
            .collect()
    }
}

impl Journal for MemJournal {
    fn incarnation(&self, incarnation: u64) {
        self.notes().incarnation = incarnation;
    }

    fn mark(&self, slot: u16, mark: Mark) {
        self.notes().marks.insert(slot, mark);
    }

    fn locked(&self, mark: LockMark) {
        self.notes().locks.insert((mark.ino, mark.owner), mark);
    }

    fn unlocked(&self, ino: Ino, owner: LockOwner) {
        self.notes().locks.remove(&(ino, owner));
    }

    fn appends(&self, mark: AppendMark) {
        self.notes().appends.insert(mark.call, mark);
    }

    fn append_over(&self, call: u64) {
        self.notes().appends.remove(&call);
    }

    fn gathers(&self, place: u16, mark: GatherMark, at: usize, bytes: &[u8]) -> bool {
        let mut notes = self.notes();
        let (noted, kept) = notes.gathers.entry(place).or_insert_with(|| (mark, Vec::new()));
        assert_eq!((*noted, kept.len()), (mark, at), "one behind the other");
        kept.extend_from_slice(bytes);
        true
    }

    fn gather_over(&self, place: u16) {
        self.notes().gathers.remove(&place);
    }
}
