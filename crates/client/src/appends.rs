//! Which appends of this client are under way, as far as others are kept from appending meanwhile, and by what.
//!
//! One client at a time appends to a file. Where the file is delegated, nobody else does; else the client holds the file's
//! append lock meanwhile (`append_lock`). Sends nothing itself.

use crate::{
    client::{Core, Tasks},
    estate::{AppendMark, Journal},
    file::close_writer,
    inode::OpenCount,
};
use pvfs_types::Ino;
use pvfs_wire::Access;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedMutexGuard, watch};
use tracing::warn;

/// All appends of a client.
pub(crate) struct Appends {
    state: Mutex<State>,
    /// Rises whenever one is over.
    over: watch::Sender<u64>,
    pub journal: Option<Arc<dyn Journal>>,
}

#[derive(Default)]
struct State {
    /// How many are under way.
    count: usize,
    /// Those that go by the delegation of their file.
    by_delegation: BTreeMap<Ino, u32>,
    /// Begun by a predecessor, by call. One whose bytes are not all written keeps others out as its predecessor did.
    inherited: BTreeMap<u64, AppendMark>,
    /// The session in which those were begun is over.
    is_lost: bool,
}

/// What is known of an append that may have been begun by a predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    No,
    /// It is to be made again, at the same place.
    At(u64),
    /// All its bytes are written.
    Done(u64),
    /// Others may append since where it was begun.
    Lost,
}

/// An append that goes by the delegation of its file.
pub(crate) struct ByDelegation {
    core: Arc<Core>,
    ino: Ino,
}

/// An append's turn among those of this client to the file. When it is dropped, the file's lock is given up after those who
/// wait for theirs now.
pub(crate) struct AppendTurn {
    core: Arc<Core>,
    tasks: Arc<Tasks>,
    /// `None`: dropped.
    count: Option<OpenCount>,
    _turn: OwnedMutexGuard<()>,
}

impl Appends {
    /// `inherited`: what a predecessor was appending.
    pub fn new(journal: Option<Arc<dyn Journal>>, inherited: &[AppendMark]) -> Appends {
        let inherited = inherited.iter().map(|mark| (mark.call, *mark)).collect();
        let state = State { inherited, ..State::default() };
        Appends { state: Mutex::new(state), over: watch::channel(0).0, journal }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, act: impl FnOnce(&mut State)) {
        self.with(act);
        self.over.send_modify(|over| *over += 1);
    }

    /// Whether others are kept from appending to `ino` by its delegation alone.
    pub fn keep_out(&self, ino: Ino) -> bool {
        self.with(|state| state.keeps_out(ino))
    }

    /// All files of which that is so.
    pub fn keep_out_of(&self) -> BTreeSet<Ino> {
        self.with(|state| state.by_delegation.keys().copied().chain(state.inherited()).collect())
    }

    /// Waits until nobody is kept from `ino` so.
    pub async fn over(&self, ino: Ino) {
        self.wait_for(|state| !state.keeps_out(ino)).await;
    }

    /// Waits until none is under way.
    pub async fn all_over(&self) {
        self.wait_for(|state| state.count == 0).await;
    }

    async fn wait_for(&self, is_so: impl Fn(&State) -> bool) {
        let mut over = self.over.subscribe();
        // Its sender lives as long as `self`.
        let _ = over.wait_for(|_| self.with(|state| is_so(state))).await;
    }

    /// What a predecessor has done of the append `call`.
    pub fn begun(&self, call: u64) -> Begun {
        self.with(|state| match state.inherited.get(&call) {
            None => Begun::No,
            Some(mark) if mark.is_done => Begun::Done(mark.at),
            Some(_) if state.is_lost => Begun::Lost,
            Some(mark) => Begun::At(mark.at),
        })
    }

    /// The append `call` of a predecessor is made, or does not come again.
    pub fn forget_inherited(&self, call: u64) {
        self.change(|state| {
            state.inherited.remove(&call);
        });
    }

    /// Waits until a predecessor's appends to `ino` are made again, or known not to come.
    pub async fn inherited_over(&self, ino: Ino) {
        self.wait_for(|state| !state.has_inherited(ino)).await;
    }

    /// Appends to `ino` but `call` (all files: `None`) that a predecessor has begun.
    pub fn inherited(&self, ino: Option<Ino>, call: Option<u64>) -> Vec<AppendMark> {
        let is_meant = |mark: &&AppendMark| ino.is_none_or(|ino| mark.ino == ino) && Some(mark.call) != call;
        self.with(|state| state.inherited.values().filter(is_meant).copied().collect())
    }

    /// The session is over: nobody is kept out any more by what was held in it.
    pub fn session_lost(&self) {
        self.change(|state| state.is_lost = true);
    }
}

impl State {
    fn inherited(&self) -> impl Iterator<Item = Ino> {
        self.inherited.values().filter(|mark| !mark.is_done && !self.is_lost).map(|mark| mark.ino)
    }

    fn has_inherited(&self, ino: Ino) -> bool {
        self.inherited().any(|of| of == ino)
    }

    fn keeps_out(&self, ino: Ino) -> bool {
        self.by_delegation.contains_key(&ino) || self.has_inherited(ino)
    }
}

impl ByDelegation {
    /// Whoever asks for the delegation of `ino` from now on gets it with the file locked.
    pub fn begin(core: &Arc<Core>, ino: Ino) -> ByDelegation {
        core.appends.with(|state| *state.by_delegation.entry(ino).or_default() += 1);
        ByDelegation { core: Arc::clone(core), ino }
    }
}

impl Drop for ByDelegation {
    fn drop(&mut self) {
        self.core.appends.change(|state| {
            if let Some(count) = state.by_delegation.get_mut(&self.ino) {
                *count -= 1;
                if *count == 0 {
                    state.by_delegation.remove(&self.ino);
                }
            }
        });
    }
}

impl AppendTurn {
    /// Waits for the turn. The file counts as open for writing as long as it lasts.
    pub async fn come(core: &Arc<Core>, tasks: &Arc<Tasks>, ino: Ino) -> AppendTurn {
        // Who gives up here has nothing to close.
        let waiting = OpenCount::new(core, ino, Access::default());
        let turn = Arc::clone(&waiting.inode.appending).lock_owned().await;
        let count = OpenCount::new(core, ino, Access::WRITE);
        core.appends.with(|state| state.count += 1);
        AppendTurn { core: Arc::clone(core), tasks: Arc::clone(tasks), count: Some(count), _turn: turn }
    }
}

impl Drop for AppendTurn {
    fn drop(&mut self) {
        self.core.appends.change(|state| state.count -= 1);
        let Some(mut count) = self.count.take() else { return };
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        self.core.give_append_lock_up(&count.inode);
        count.stop_access();
        if count.inode.with(|state| state.writes_open == 0 && state.recorded.is_some()) {
            // Whoever closed it meanwhile has left that to this.
            let (core, tasks) = (Arc::clone(&self.core), Arc::clone(&self.tasks));
            pvfs_env::task::spawn(async move {
                let ino = count.inode.ino;
                if let Err(error) = close_writer(core, tasks, count).await {
                    warn!(%ino, %error, "the size after an append could not be told");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const F: Ino = Ino(5);

    fn mark(call: u64, is_done: bool) -> AppendMark {
        AppendMark { ino: F, call, at: call * 100, is_done }
    }

    #[test]
    fn what_a_predecessor_has_begun_keeps_others_out_until_it_is_made_again() {
        let appends = Appends::new(None, &[mark(1, false), mark(2, true)]);
        assert_eq!([1, 2, 3].map(|call| appends.begun(call)), [Begun::At(100), Begun::Done(200), Begun::No]);
        assert!(appends.keep_out(F) && !appends.keep_out(Ino(6)));
        assert!(appends.over(F).now_or_never().is_none());
        assert_eq!(appends.keep_out_of(), BTreeSet::from([F]));
        appends.forget_inherited(1);
        assert!(appends.over(F).now_or_never().is_some());
        assert_eq!(appends.begun(2), Begun::Done(200));
    }

    #[test]
    fn nobody_is_kept_out_by_a_session_that_is_over() {
        let appends = Appends::new(None, &[mark(1, false), mark(2, true)]);
        appends.session_lost();
        assert!(!appends.keep_out(F));
        assert_eq!([1, 2].map(|call| appends.begun(call)), [Begun::Lost, Begun::Done(200)]);
    }
}
