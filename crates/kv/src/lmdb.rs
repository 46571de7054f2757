//! The embedded default: LMDB with a journal in front of it.
//!
//! A commit is one record in the journal and one sync of a file whose blocks are there already. LMDB learns of it later,
//! with thousands of others in one transaction: its pages are all over its file, and to write and sync them for each
//! commit takes ten times as long. Until then reads find the change in memory, and a restart reads it from the journal.
//! Near the end of the space, where only LMDB can tell what still fits, commits go straight into it.
//!
//! A kill -9 or a power loss at any moment leaves the state of the last commit that returned (or of one that had not
//! yet, whole).

mod checkpoint;
mod journal;
mod tree;

pub use tree::Durability;

use crate::{Engine, KvError, Read, Visit, WriteSet, overlay::read_through};
use checkpoint::{Checkpointer, Pairs};
use journal::{Journal, Recovered};
use std::{
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};
use tree::{Tree, TreeSnapshot};

/// How much of the journal is read at a start, at most twice this; and how much LMDB takes in one transaction.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Space in LMDB and on its disk for each byte of journal, so that what the journal took also fits there: pages may be
/// half full, and those that a transaction changes are there twice.
const TREE_BYTES_PER_JOURNAL_BYTE: u64 = 8;

/// An LMDB environment and its journal. Readers block nobody and are blocked by nobody; one commit runs at a time.
///
/// On a full disk, commits go on out of a reserve (8 MiB), and [`Engine::is_short`] says so until it is whole again or the
/// store has as much free in its own file. A map that is used up has no reserve.
///
/// Downside: a snapshot held for long keeps freed pages from being used again, so the file grows meanwhile; it never
/// shrinks.
pub struct LmdbEngine {
    shared: Arc<Checkpointer>,
    journal: Mutex<Journal>,
    worker: Option<JoinHandle<()>>,
}

/// Room in LMDB and on its disk from which on commits go through the journal.
fn room_bytes_min(segment_bytes: u64) -> u64 {
    2 * segment_bytes * TREE_BYTES_PER_JOURNAL_BYTE
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LmdbEngine {
    /// Opens the store in `dir`, creating both where they are missing. It can grow to `map_bytes` (rounded up to a
    /// page); this much address space is taken, the file grows as needed.
    ///
    /// # Errors
    /// [`KvError::InUse`]: another process, or another engine in this one, has it open. [`KvError::Corrupt`]: the
    /// store is damaged, or its journal does not belong to it.
    pub fn open(dir: &Path, map_bytes: usize, durability: Durability) -> Result<LmdbEngine, KvError> {
        LmdbEngine::with_journal(dir, map_bytes, durability, SEGMENT_BYTES)
    }

    /// As [`LmdbEngine::open`], with two journal segments of that many bytes.
    pub fn with_journal(
        dir: &Path,
        map_bytes: usize,
        durability: Durability,
        segment_bytes: u64,
    ) -> Result<LmdbEngine, KvError> {
        let tree = Tree::open(dir, map_bytes, durability)?;
        let (journal, Recovered { frozen, active }) =
            Journal::open(dir, segment_bytes, durability, tree.applied()?)?;
        if tree.room_bytes() > room_bytes_min(segment_bytes) {
            journal.allocate()?;
        }
        let shared = Arc::new(Checkpointer::new(tree, active, frozen));
        let worker = Arc::clone(&shared);
        let worker = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || worker.work())
            .map_err(|source| KvError::Io { what: "cannot start the checkpoint thread".into(), source })?;
        Ok(LmdbEngine { shared, journal: Mutex::new(journal), worker: Some(worker) })
    }

    /// Whether everything in a full journal would fit into LMDB and onto its disk.
    fn is_roomy(&self, journal: &Journal) -> bool {
        self.shared.tree.room_bytes() > room_bytes_min(journal.segment_bytes())
    }

    /// Has LMDB take all that the journal holds, and then `set`.
    fn commit_to_tree(&self, journal: &mut Journal, set: &WriteSet) -> Result<(), KvError> {
        self.flush(journal)?;
        self.shared.tree.commit(|| set.iter(), journal.last())
    }

    /// Has LMDB take all that the journal holds.
    fn flush(&self, journal: &mut Journal) -> Result<(), KvError> {
        self.shared.wait()?;
        if self.shared.freeze(journal.last()) {
            journal.switch();
            self.shared.wait()?;
        }
        Ok(())
    }
}

impl Engine for LmdbEngine {
    fn snapshot(&self) -> Result<Box<dyn Read + Send + '_>, KvError> {
        let (tree, frozen, active) = self.shared.snapshot()?;
        Ok(Box::new(Snapshot { active, below: Frozen { pairs: frozen, tree } }))
    }

    fn commit(&self, set: &WriteSet) -> Result<(), KvError> {
        if set.is_empty() {
            return Ok(());
        }
        set.check_keys()?;
        let mut journal = locked(&self.journal);
        let record = journal.record(set)?;
        if !journal.takes(&record) || !self.is_roomy(&journal) {
            return self.commit_to_tree(&mut journal, set);
        }
        if !journal.has_space(&record) {
            self.shared.wait()?;
            self.shared.freeze(journal.last());
            journal.switch();
        }
        journal.append(record)?;
        self.shared.add(set);
        Ok(())
    }

    fn is_short(&self) -> bool {
        self.shared.tree.is_short()
    }

    fn used_bytes(&self) -> Result<u64, KvError> {
        self.shared.used_bytes()
    }
}

impl Drop for LmdbEngine {
    fn drop(&mut self) {
        let mut journal = locked(&self.journal);
        match self.flush(&mut journal) {
            Ok(()) => journal.empty(),
            Err(error) => tracing::warn!(%error, "the journal is kept for the next start"),
        }
        drop(journal);
        self.shared.stop();
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// The newest changes over those under way to LMDB over what LMDB has.
struct Snapshot<'a> {
    active: Pairs,
    below: Frozen<'a>,
}

struct Frozen<'a> {
    pairs: Pairs,
    tree: TreeSnapshot<'a>,
}

fn between<'a>(
    pairs: &'a Pairs,
    from: &'a [u8],
    to: &'a [u8],
) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
    let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(from), Bound::Excluded(to.max(from)));
    pairs.range::<[u8], _>(bounds).map(|(key, value)| (&**key, value.as_deref()))
}

impl Read for Snapshot<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        match self.active.get(key) {
            Some(value) => Ok(value.as_deref().map(<[u8]>::to_vec)),
            None => self.below.get(key),
        }
    }

    fn range(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        read_through(between(&self.active, from, to), &self.below, from, to, visit)
    }
}

impl Read for Frozen<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        match self.pairs.get(key) {
            Some(value) => Ok(value.as_deref().map(<[u8]>::to_vec)),
            None => self.tree.get(key),
        }
    }

    fn range(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        read_through(between(&self.pairs, from, to), &self.tree, from, to, visit)
    }
}

#[cfg(test)]
mod tests;
