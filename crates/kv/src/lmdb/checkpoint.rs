//! What is committed but not in LMDB yet: the active changes, which grow, and the frozen ones, which a thread is
//! having LMDB take. Knows no journal but its record numbers.

use super::{
    locked,
    tree::{Tree, TreeSnapshot},
};
use crate::{KvError, WriteSet};
use rpds::RedBlackTreeMapSync;
use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};
use tracing::warn;

/// For each key its new value, `None` where it is deleted. Cloned at the cost of a pointer.
pub(super) type Pairs = RedBlackTreeMapSync<Arc<[u8]>, Option<Arc<[u8]>>>;

/// How long until LMDB is asked again to take what it failed to take.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Adds `set` to `pairs`.
fn extend(pairs: &mut Pairs, set: &WriteSet) {
    for (key, value) in set.iter() {
        pairs.insert_mut(Arc::from(key), value.map(Arc::from));
    }
}

pub(super) struct Checkpointer {
    pub tree: Tree,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    active: Pairs,
    /// What was committed since the last freeze, in bytes.
    active_bytes: usize,
    frozen: Option<Frozen>,
    /// Why LMDB did not take the frozen changes when it was asked last.
    failed: Option<KvError>,
    stopping: bool,
}

/// Changes on their way into LMDB.
#[derive(Clone)]
pub(super) struct Frozen {
    pub pairs: Pairs,
    /// The last record of the journal that they come from.
    pub through: u64,
}

impl Checkpointer {
    pub fn new(tree: Tree, active: Pairs, frozen: Option<Frozen>) -> Checkpointer {
        let state = State { active, active_bytes: 0, frozen, failed: None, stopping: false };
        Checkpointer { tree, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The state after the last commit: LMDB's, the frozen changes over it, the active ones over these.
    pub fn snapshot(&self) -> Result<(TreeSnapshot<'_>, Pairs, Pairs), KvError> {
        // LMDB may take the frozen changes at any time, which changes nothing; to take others, it needs this lock.
        let state = locked(&self.state);
        let tree = self.tree.snapshot()?;
        let frozen = state.frozen.as_ref().map(|frozen| frozen.pairs.clone()).unwrap_or_default();
        Ok((tree, frozen, state.active.clone()))
    }

    /// `set` is committed.
    pub fn add(&self, set: &WriteSet) {
        let mut state = locked(&self.state);
        extend(&mut state.active, set);
        state.active_bytes += set.byte_count();
    }

    /// About how many bytes the pairs take.
    pub fn used_bytes(&self) -> Result<u64, KvError> {
        Ok(self.tree.used_bytes()? + locked(&self.state).active_bytes as u64)
    }

    /// Waits until nothing is frozen.
    ///
    /// # Errors
    /// LMDB does not take it; it goes on being asked.
    pub fn wait(&self) -> Result<(), KvError> {
        let mut state = locked(&self.state);
        while state.frozen.is_some() {
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Freezes the active changes, the last of them record `through`; nothing may be frozen. False: there are none.
    pub fn freeze(&self, through: u64) -> bool {
        let mut state = locked(&self.state);
        debug_assert!(state.frozen.is_none(), "the frozen changes have not been taken yet");
        if state.active.is_empty() {
            return false;
        }
        let pairs = std::mem::take(&mut state.active);
        state.active_bytes = 0;
        state.frozen = Some(Frozen { pairs, through });
        self.changed.notify_all();
        true
    }

    /// Ends [`Checkpointer::work`], whatever is frozen.
    pub fn stop(&self) {
        locked(&self.state).stopping = true;
        self.changed.notify_all();
    }

    /// Has LMDB take what is frozen, until [`Checkpointer::stop`].
    pub fn work(&self) {
        while let Some(Frozen { pairs, through }) = self.next() {
            let changes = || pairs.iter().map(|(key, value)| (&**key, value.as_deref()));
            let done = self.tree.commit(changes, through);
            let mut state = locked(&self.state);
            match done {
                Ok(()) => {
                    state.frozen = None;
                    state.failed = None;
                    self.changed.notify_all();
                    drop(state);
                }
                Err(error) => {
                    warn!(%error, "LMDB does not take the journal, trying again");
                    state.failed = Some(error);
                    self.changed.notify_all();
                    let pause = self.changed.wait_timeout_while(state, RETRY_PAUSE, |state| !state.stopping);
                    drop(pause);
                }
            }
        }
    }

    /// Waits for frozen changes; `None`: to stop.
    fn next(&self) -> Option<Frozen> {
        let mut state = locked(&self.state);
        loop {
            if state.stopping {
                return None;
            }
            if let Some(frozen) = &state.frozen {
                return Some(frozen.clone());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
