//! What a client process leaves to the next one in its seat: a journal in memory that outlives it, as a mount's book does.

use crate::process::Process;
use pvfs_client::{Access, AppendMark, Estate, GatherMark, Gathered, Journal, LockMark, Mark};
use pvfs_types::{Ino, LockOwner, SessionId, limits};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Of one seat. A process writes to it as long as it is alive.
pub struct Desk {
    client: [u8; 16],
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    runs: u64,
    incarnation: u64,
    marks: BTreeMap<u16, Mark>,
    gathers: BTreeMap<u16, (GatherMark, Vec<u8>)>,
    /// What is open for writing, by handle.
    open: BTreeMap<u64, (Ino, Access)>,
}

/// The desk as one process writes to it.
struct Pen {
    desk: Arc<Desk>,
    process: Arc<Process>,
}

impl Desk {
    /// Of the client that is called so.
    pub fn new(name: &str) -> Arc<Desk> {
        let mut client = [0; 16];
        for (byte, of_name) in client.iter_mut().zip(name.bytes()) {
            *byte = of_name;
        }
        Arc::new(Desk { client, notes: Mutex::default() })
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `process`, the next one, finds; with what the last one had open, which nobody has open any more.
    pub fn take_over(self: &Arc<Desk>, process: &Arc<Process>) -> (Estate, Vec<(Ino, Access)>) {
        let mut notes = self.notes();
        notes.runs += 1;
        let mark = |slot| notes.marks.get(&slot).copied().unwrap_or_default();
        let gathered = |(&place, (mark, bytes)): (&u16, &(GatherMark, Vec<u8>))| Gathered {
            place,
            mark: *mark,
            bytes: bytes.clone().into(),
        };
        let estate = Estate {
            client: self.client,
            incarnation: notes.incarnation.max(1),
            connections_from: (notes.runs << 32) + 1,
            marks: (0..limits::SESSION_SLOTS).map(mark).collect(),
            locks: Vec::new(),
            appends: Vec::new(),
            gathered: notes.gathers.iter().map(gathered).collect(),
            inherited: notes.runs > 1,
            journal: Arc::new(Pen { desk: Arc::clone(self), process: Arc::clone(process) }),
        };
        (estate, notes.open.values().copied().collect())
    }

    pub fn opened(&self, handle: u64, ino: Ino, access: Access) {
        if access.write {
            self.notes().open.insert(handle, (ino, access));
        }
    }

    /// The mgr knows.
    pub fn closed(&self, handle: u64) {
        self.notes().open.remove(&handle);
    }

    /// Nothing of what `open` lists is open any more.
    pub fn all_closed(&self, open: &[(Ino, Access)]) {
        self.notes().open.retain(|_, is| !open.contains(is));
    }

    /// The sessions in which bytes were gathered that are not sent.
    pub fn gathered_in(&self) -> Vec<SessionId> {
        self.notes().gathers.values().map(|(mark, _)| mark.session).collect()
    }
}

impl Pen {
    /// Whether it was done: the dead write nothing.
    fn write(&self, what: impl FnOnce(&mut Notes)) -> bool {
        let is_alive = self.process.effect();
        if is_alive {
            what(&mut self.desk.notes());
        }
        is_alive
    }
}

impl Journal for Pen {
    fn incarnation(&self, incarnation: u64) {
        self.write(|notes| notes.incarnation = incarnation);
    }

    fn mark(&self, slot: u16, mark: Mark) {
        self.write(|notes| {
            notes.marks.insert(slot, mark);
        });
    }

    fn locked(&self, _: LockMark) {}

    fn unlocked(&self, _: Ino, _: LockOwner) {}

    fn appends(&self, _: AppendMark) {}

    fn append_over(&self, _: u64) {}

    fn gathers(&self, place: u16, mark: GatherMark, at: usize, bytes: &[u8]) -> bool {
        self.write(|notes| {
            let (noted, kept) = notes.gathers.entry(place).or_insert_with(|| (mark, Vec::new()));
            assert_eq!((*noted, kept.len()), (mark, at), "one behind the other");
            kept.extend_from_slice(bytes);
        })
    }

    fn gather_over(&self, place: u16) {
        self.write(|notes| drop(notes.gathers.remove(&place)));
    }
}
