//! What this client's owners hold locked, as far as it must be known here: whether a close has locks to give up, whose calls
//! come one after the other, who waits, and which handles have lost their locks. Sends nothing.
//!
//! The mgr knows what is locked. This table may think that more is held than is, never less: then a close says so in vain.

use crate::estate::{Journal, LockMark};
use pvfs_types::{Ino, LockKind, LockMode, LockOwner, LockRange, Locked, SessionId};
use pvfs_wire::msg::lock::LocksGranted;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::watch;

/// Whose locks of which file.
pub(crate) type Key = (Ino, LockOwner);

/// All owners of a client.
pub(crate) struct LockTable {
    state: Mutex<State>,
    /// How many handles are in [`State::lost`]: each read and write looks here.
    lost: AtomicUsize,
    journal: Option<Arc<dyn Journal>>,
}

struct State {
    owners: BTreeMap<Key, Owner>,
    waits: HashMap<u64, watch::Sender<News>>,
    is_polling: bool,
    /// The client ends: its session is not to be opened anew for the sake of locks.
    is_over: bool,
    /// What the mgr told last, for the next question: its process, and how much it had told.
    told: (u64, u64),
    /// Handles whose locks went with a session, and whose users were not told.
    lost: HashSet<u64>,
    last_id: u64,
}

/// An owner that holds something, or has a call under way.
#[derive(Default)]
struct Owner {
    ranges: Locked,
    /// By which it locked last.
    handle: u64,
    /// Closed when the owner's last call so far is over.
    last: Option<watch::Receiver<()>>,
    calls: usize,
}

/// What is heard of a lock that is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// The session in which it was granted.
    pub granted: Option<SessionId>,
    /// How often it is to be asked for again.
    pub asks: u64,
}

impl LockTable {
    /// `inherited`: the owners of a predecessor that may hold locks.
    pub fn new(journal: Option<Arc<dyn Journal>>, inherited: &[LockMark]) -> LockTable {
        let everything = LockRange { start: 0, end: u64::MAX, mode: LockMode::Write, pid: 0 };
        let owner = |mark: &LockMark| {
            let mut ranges = Locked::default();
            ranges.lock(everything);
            ((mark.ino, mark.owner), Owner { ranges, handle: mark.handle, last: None, calls: 0 })
        };
        let state = State {
            owners: inherited.iter().map(owner).collect(),
            waits: HashMap::new(),
            is_polling: false,
            is_over: false,
            told: (0, 0),
            lost: HashSet::new(),
            // Apart from the numbers of calls that come from elsewhere, and from those of a former process.
            last_id: pvfs_env::random::number() | 1 << 63,
        };
        LockTable { state: Mutex::new(state), lost: AtomicUsize::new(0), journal }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number for a lock, or a handle, that nobody else numbers.
    pub fn next_id(&self) -> u64 {
        self.with(|state| {
            state.last_id = state.last_id.wrapping_add(1) | 1 << 63;
            state.last_id
        })
    }

    /// Takes the next turn of an owner, which calls of it get in the order in which this is called. With a `handle` the owner
    /// is about to lock by that; without one, an owner that holds nothing gets none.
    pub fn turn(self: &Arc<Self>, key: Key, handle: Option<u64>) -> Option<Turn> {
        let (done, last) = watch::channel(());
        let before = self.with(|state| {
            let owner = self.begin_call(state, key, handle)?;
            Some(owner.last.replace(last))
        })?;
        Some(Turn { before, _done: done, _use: Use { table: Arc::clone(self), key } })
    }

    /// An owner is known, and its successor's too, while this is held: it locks by `handle`, or waits.
    pub fn begin_use(self: &Arc<Self>, key: Key, handle: u64) -> Use {
        self.with(|state| self.begin_call(state, key, Some(handle)).is_some());
        Use { table: Arc::clone(self), key }
    }

    fn begin_call<'a>(&self, state: &'a mut State, key: Key, handle: Option<u64>) -> Option<&'a mut Owner> {
        let known = state.owners.get(&key).map(|owner| owner.handle);
        let handle = handle.or(known)?;
        if known != Some(handle)
            && let Some(journal) = &self.journal
        {
            journal.locked(LockMark { ino: key.0, owner: key.1, handle });
        }
        let owner = state.owners.entry(key).or_default();
        owner.handle = handle;
        owner.calls += 1;
        Some(owner)
    }

    /// Whether `key` may hold something, or has a call under way.
    pub fn is_known(&self, key: Key) -> bool {
        self.with(|state| state.owners.contains_key(&key))
    }

    /// The files of which `owner` may hold something.
    pub fn files_of(&self, owner: LockOwner) -> Vec<Ino> {
        self.with(|state| state.owners.keys().filter(|(_, of)| *of == owner).map(|(ino, _)| *ino).collect())
    }

    /// Owners of locks of `ino` by `fcntl`, that locked by `handle` last.
    pub fn owners_by(&self, ino: Ino, handle: u64) -> Vec<LockOwner> {
        self.with(|state| {
            let of_ino = state.owners.range((ino, LockOwner::FIRST)..).take_while(|((of, _), _)| *of == ino);
            of_ino.filter(|(_, owner)| owner.handle == handle).map(|((_, owner), _)| *owner).collect()
        })
    }

    /// `range` is locked for `key`, if the session that granted it is the present one. Gives whether it is.
    pub fn locked(&self, key: Key, range: LockRange, is_present: impl FnOnce() -> bool) -> bool {
        self.with(|state| {
            // Under the lock: a session that is lost from now on takes this range with it.
            let Some(owner) = state.owners.get_mut(&key).filter(|_| is_present()) else { return false };
            owner.ranges.lock(range);
            true
        })
    }

    pub fn unlocked(&self, key: Key, start: u64, end: u64) {
        self.with(|state| {
            if let Some(owner) = state.owners.get_mut(&key) {
                owner.ranges.unlock(start, end);
            }
        });
    }

    /// Somebody waits for the lock `id` from now on, until [`LockTable::wait_over`].
    pub fn wait(&self, id: u64) -> watch::Receiver<News> {
        self.with(|state| {
            let news = state.waits.entry(id).or_insert_with(|| watch::channel(News::default()).0);
            news.subscribe()
        })
    }

    pub fn wait_over(&self, id: u64) {
        self.with(|state| state.waits.remove(&id));
    }

    /// Whether somebody has to begin to ask the mgr for news.
    pub fn begins_polling(&self) -> bool {
        self.with(|state| !std::mem::replace(&mut state.is_polling, true))
    }

    /// The session is about to be closed: nobody asks any more.
    pub fn end(&self) {
        self.with(|state| state.is_over = true);
    }

    /// What to ask the mgr next; `None`: nobody waits, and the asking is over.
    pub fn next_poll(&self) -> Option<(u64, u64)> {
        self.with(|state| {
            state.is_polling = !state.waits.is_empty() && !state.is_over;
            state.is_polling.then_some(state.told)
        })
    }

    /// What the mgr told `session`.
    pub fn told(&self, session: SessionId, told: &LocksGranted) {
        self.with(|state| {
            state.told = (told.mgr, told.seen);
            for id in &told.ids {
                if let Some(news) = state.waits.get(id) {
                    news.send_modify(|news| news.granted = Some(session));
                }
            }
            if told.ask_again {
                state.ask_again();
            }
        });
    }

    /// The session is gone, and all locks with it. Gives how many owners have lost some.
    pub fn session_lost(&self) -> usize {
        self.with(|state| {
            state.told = (0, 0);
            let mut owners = 0;
            for ((_, owner), held) in state.owners.iter_mut().filter(|(_, held)| !held.ranges.is_empty()) {
                held.ranges = Locked::default();
                // An append knows by itself.
                if owner.kind != LockKind::Append {
                    state.lost.insert(held.handle);
                    owners += 1;
                }
            }
            self.lost.store(state.lost.len(), Ordering::Release);
            state.ask_again();
            self.forget_idle(state);
            owners
        })
    }

    /// Whether locks taken by `handle` went with a session, and its user was not told. Tells once.
    pub fn take_loss(&self, handle: u64) -> bool {
        self.lost.load(Ordering::Acquire) > 0
            && self.with(|state| {
                let lost = state.lost.remove(&handle);
                self.lost.store(state.lost.len(), Ordering::Release);
                lost
            })
    }

    fn forget_idle(&self, state: &mut State) {
        state.owners.retain(|(ino, owner), found| {
            let keep = found.calls > 0 || !found.ranges.is_empty();
            if !keep && let Some(journal) = &self.journal {
                journal.unlocked(*ino, *owner);
            }
            keep
        });
    }

    fn use_over(&self, key: Key) {
        self.with(|state| {
            let Some(owner) = state.owners.get_mut(&key) else { return };
            owner.calls -= 1;
            if owner.calls == 0 && owner.ranges.is_empty() {
                state.owners.remove(&key);
                if let Some(journal) = &self.journal {
                    journal.unlocked(key.0, key.1);
                }
            }
        });
    }
}

impl State {
    fn ask_again(&mut self) {
        for news in self.waits.values() {
            news.send_modify(|news| news.asks += 1);
        }
    }
}

/// A call's turn among those of its owner; the next one's comes when it is dropped.
pub(crate) struct Turn {
    before: Option<watch::Receiver<()>>,
    _done: watch::Sender<()>,
    _use: Use,
}

/// Keeps an owner in the table.
pub(crate) struct Use {
    table: Arc<LockTable>,
    key: Key,
}

impl Turn {
    /// Waits until it has come.
    pub async fn come(&mut self) {
        if let Some(before) = &mut self.before {
            // It says nothing, it closes.
            let _ = before.changed().await;
        }
        self.before = None;
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.table.use_over(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const KEY: Key = (Ino(5), LockOwner { kind: LockKind::Posix, id: 1 });
    const RANGE: LockRange = LockRange { start: 0, end: 9, mode: LockMode::Write, pid: 1 };
    const ONE: SessionId = SessionId(1);

    fn table() -> Arc<LockTable> {
        Arc::new(LockTable::new(None, &[]))
    }

    #[tokio::test]
    async fn an_owners_calls_come_in_the_order_in_which_they_began() {
        let table = table();
        assert!(table.turn(KEY, None).is_none(), "it has nothing to give up");
        let mut first = table.turn(KEY, Some(7)).expect("locks");
        let mut second = table.turn(KEY, None).expect("the first may get something");
        let mut third = table.turn(KEY, None).expect("so");
        assert!(first.come().now_or_never().is_some());
        assert!(second.come().now_or_never().is_none() && third.come().now_or_never().is_none());
        drop(first);
        assert!(second.come().now_or_never().is_some());
        assert!(third.come().now_or_never().is_none());
        drop(second);
        assert!(third.come().now_or_never().is_some());
        drop(third);
        assert!(table.turn(KEY, None).is_none(), "nothing was locked");
    }

    #[test]
    fn an_owner_is_known_as_long_as_it_holds_something() {
        let table = table();
        let turn = table.turn(KEY, Some(7)).expect("locks");
        assert!(table.locked(KEY, RANGE, || true));
        drop(turn);
        assert_eq!((table.owners_by(Ino(5), 7), table.owners_by(Ino(5), 8)), (vec![KEY.1], vec![]));
        let turn = table.turn(KEY, None).expect("it holds something");
        table.unlocked(KEY, 0, 9);
        drop(turn);
        assert!(table.turn(KEY, None).is_none());
    }

    #[test]
    fn a_lost_session_takes_all_locks_and_each_handle_is_told_once() {
        let table = table();
        let news = table.wait(50);
        let turn = table.turn(KEY, Some(7)).expect("locks");
        table.locked(KEY, RANGE, || true);
        drop(turn);
        assert!(!table.take_loss(7));
        assert_eq!(table.session_lost(), 1);
        assert_eq!(news.borrow().asks, 1, "who waits asks the new session");
        assert!(!table.take_loss(8) && table.take_loss(7) && !table.take_loss(7));
        assert_eq!(table.session_lost(), 0);
        let turn = table.turn(KEY, Some(7)).expect("locks");
        assert!(!table.locked(KEY, RANGE, || false), "granted by the session that is gone");
        drop(turn);
        assert_eq!(table.session_lost(), 0);
    }

    #[test]
    fn asking_goes_on_while_somebody_waits() {
        let table = table();
        let news = table.wait(50);
        assert!(table.begins_polling() && !table.begins_polling());
        assert_eq!(table.next_poll(), Some((0, 0)));
        table.told(ONE, &LocksGranted { mgr: 7, seen: 2, ids: vec![49, 50], ask_again: false });
        assert_eq!(*news.borrow(), News { granted: Some(ONE), asks: 0 });
        table.wait_over(50);
        assert_eq!(table.next_poll(), None);
        assert!(table.begins_polling());
        table.wait(51);
        assert_eq!(table.next_poll(), Some((7, 2)), "from where it was");
        table.end();
        assert_eq!(table.next_poll(), None, "the client ends");
    }
}
