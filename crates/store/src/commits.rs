//! Marks and commits: which acknowledged writes are durable, without asking object by object.
//!
//! Every write bears the mark of the commit that will cover it. A commit closes its mark, syncs what was written under
//! it, and then all up to that mark is durable. Marks rise over all runs of the store: the number of the run, then the
//! number of the commit in it.

use crate::handle::Handle;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// The lower bits of a mark, which number the commits of one run.
const RUN_SHIFT: u32 = 40;
/// More objects than this are synced with the whole file system at once.
const SYNC_EACH_MAX: usize = 256;

pub(crate) struct Commits {
    /// What a write that ends now bears.
    mark: AtomicU64,
    /// Handles whose `dirty_in` is at least this are on the list.
    since: AtomicU64,
    committed: AtomicU64,
    /// Bytes written since the last commit began.
    bytes: AtomicU64,
    dirty: Mutex<Dirty>,
    /// Held by the commit that runs.
    turn: Mutex<()>,
}

/// What was written since the last commit began.
pub(crate) enum Dirty {
    /// These objects. Holding their handles keeps their descriptors, so that no write-back error goes untold.
    Few(Vec<Arc<Handle>>),
    /// Too many to list, or unknown.
    Many,
}

impl Commits {
    /// For the store's run number `run`; `clean`: what earlier runs wrote is durable.
    pub(crate) fn new(run: u64, clean: bool) -> Commits {
        let first = (run << RUN_SHIFT) + 1;
        Commits {
            mark: AtomicU64::new(first),
            since: AtomicU64::new(first),
            committed: AtomicU64::new(if clean { first - 1 } else { 0 }),
            bytes: AtomicU64::new(0),
            dirty: Mutex::new(if clean { Dirty::Few(Vec::new()) } else { Dirty::Many }),
            turn: Mutex::new(()),
        }
    }

    /// All up to this mark is durable, but for what was acknowledged under an older store generation. Read it before the
    /// generation that it is told with.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }

    /// `len` bytes were written to the object: gives the write's mark. The handle is shared with no cut meanwhile.
    pub(crate) fn written(&self, handle: &Arc<Handle>, len: u64) -> u64 {
        self.bytes.fetch_add(len, Ordering::Relaxed);
        // First that, then the mark: if a commit begins in between, it covers this write and the mark only claims less.
        if handle.dirty_in.load(Ordering::SeqCst) >= self.since.load(Ordering::SeqCst) {
            return self.mark.load(Ordering::SeqCst);
        }
        let mut dirty = self.lock();
        let mark = self.mark.load(Ordering::SeqCst);
        match &mut *dirty {
            Dirty::Few(handles) if handles.len() < SYNC_EACH_MAX => handles.push(Arc::clone(handle)),
            many => *many = Dirty::Many,
        }
        handle.dirty_in.store(mark, Ordering::SeqCst);
        mark
    }

    /// Closes the current mark: gives it, and whatever is written from now on bears a higher one.
    pub(crate) fn close_mark(&self) -> u64 {
        self.mark.fetch_add(1, Ordering::SeqCst)
    }

    /// What a write that ends now bears: what was written before is durable once this is committed.
    pub(crate) fn mark(&self) -> u64 {
        self.mark.load(Ordering::SeqCst)
    }

    /// One commit at a time.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit begins: gives its mark and what was written under it.
    pub(crate) fn begin(&self) -> (u64, Dirty) {
        let mut dirty = self.lock();
        self.bytes.store(0, Ordering::Relaxed);
        let mark = self.close_mark();
        self.since.store(mark + 1, Ordering::SeqCst);
        (mark, std::mem::replace(&mut *dirty, Dirty::Few(Vec::new())))
    }

    /// All up to `mark` was synced.
    pub(crate) fn end(&self, mark: u64) {
        self.committed.store(mark, Ordering::SeqCst);
    }

    /// A commit failed: what it took is to be synced by the next one.
    pub(crate) fn failed(&self) {
        *self.lock() = Dirty::Many;
    }

    /// Lets go of the list's handles, for their descriptors: the next commit syncs the whole file system.
    pub(crate) fn unlist(&self) {
        let mut dirty = self.lock();
        if matches!(&*dirty, Dirty::Few(handles) if !handles.is_empty()) {
            let listed = std::mem::replace(&mut *dirty, Dirty::Many);
            drop(dirty);
            drop(listed);
        }
    }

    /// Bytes written since the last commit began.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether a commit would have anything to do.
    pub(crate) fn is_dirty(&self) -> bool {
        !matches!(&*self.lock(), Dirty::Few(handles) if handles.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs_types::{DataGen, Ino, ObjectId, Slot};

    fn handle(ino: u64) -> Arc<Handle> {
        Arc::new(Handle::new(ObjectId { ino: Ino(ino), data_gen: DataGen(0), slot: Slot(0) }))
    }

    fn few(dirty: Dirty) -> Vec<u64> {
        match dirty {
            Dirty::Few(handles) => handles.iter().map(|handle| handle.id.ino.0).collect(),
            Dirty::Many => panic!("many"),
        }
    }

    #[test]
    fn a_commit_covers_what_was_written_before_it_and_nothing_else() {
        let commits = Commits::new(1, true);
        let (a, b) = (handle(1), handle(2));
        let first = commits.written(&a, 1);
        assert!(first > commits.committed(), "not durable yet");
        assert_eq!(commits.written(&a, 1), first);
        let (mark, dirty) = commits.begin();
        assert_eq!((mark, few(dirty)), (first, vec![1]));
        let second = commits.written(&b, 1);
        assert_eq!(commits.written(&a, 1), second, "written again while the commit runs");
        commits.end(mark);
        assert!(first <= commits.committed() && commits.committed() < second);
        assert_eq!(few(commits.begin().1), [2, 1]);
        assert!(!commits.is_dirty());
    }

    #[test]
    fn a_closed_mark_lies_between_what_was_written_before_and_after() {
        let commits = Commits::new(1, true);
        let object = handle(1);
        let before = commits.written(&object, 1);
        let mark = commits.close_mark();
        let after = commits.written(&object, 1);
        assert!(before <= mark && mark < after);
        assert_eq!(few(commits.begin().1), [1], "listed once");
    }

    #[test]
    fn marks_rise_over_runs_and_an_unclean_run_leaves_all_to_be_synced() {
        let last = Commits::new(7, true).written(&handle(1), 1);
        let next = Commits::new(8, false);
        assert!(next.written(&handle(1), 1) > last);
        assert!(next.committed() < last, "nobody knows yet");
        let (mark, dirty) = next.begin();
        assert!(matches!(dirty, Dirty::Many));
        next.end(mark);
        assert!(next.committed() >= last);
        assert!(Commits::new(8, true).committed() >= last, "a clean stop is a commit");
    }

    #[test]
    fn many_objects_are_not_listed() {
        let commits = Commits::new(1, true);
        let handles: Vec<_> = (0..=SYNC_EACH_MAX as u64).map(handle).collect();
        for handle in &handles {
            commits.written(handle, 1);
        }
        assert!(matches!(commits.begin().1, Dirty::Many));
        commits.written(&handles[0], 1);
        assert_eq!(few(commits.begin().1), [0]);
    }
}
