//! Tells sessions which of the locks that they wait for were granted, and remembers whose locks others stumbled over.
//!
//! The locks themselves, and who waits for them, are in the store: all of this may be lost. A session that asks another
//! mgr process than the one that told it last is told to ask for each of its locks again.

use pvfs_meta::lock::{Effects, Granted};
use pvfs_types::SessionId;
use pvfs_wire::msg::lock::{AwaitLocks, LocksGranted};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Grants of one session that are kept for it to be told of; one that is further behind asks again for each lock.
const GRANTS_MAX: usize = 4096;

/// What the sessions are to be told.
pub struct Locks {
    /// This mgr process.
    process: u64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    sessions: BTreeMap<SessionId, Arc<News>>,
    wanted: BTreeSet<SessionId>,
}

/// What one session is to be told.
struct News {
    grants: Mutex<Grants>,
    /// How many grants there were; says that there is something to tell.
    count: watch::Sender<u64>,
    /// Counts those who have asked: the newest one is answered when there is news, the others at once.
    turn: watch::Sender<u64>,
}

/// The latest grants, and how many there were in all.
#[derive(Default)]
struct Grants {
    latest: VecDeque<u64>,
    count: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl News {
    fn new() -> News {
        News { grants: Mutex::default(), count: watch::channel(0).0, turn: watch::channel(0).0 }
    }

    /// Says so too where nothing can be told one by one: then `id` is `None`.
    fn add(&self, id: Option<u64>) {
        let count = {
            let mut grants = locked(&self.grants);
            grants.count += 1;
            match id {
                Some(id) => grants.latest.push_back(id),
                None => grants.latest.clear(),
            }
            if grants.latest.len() > GRANTS_MAX {
                grants.latest.pop_front();
            }
            grants.count
        };
        self.count.send_replace(count);
    }

    fn tell(&self, process: u64, req: &AwaitLocks) -> LocksGranted {
        let grants = locked(&self.grants);
        let known = if req.mgr == process { req.seen } else { 0 };
        let kept_from = grants.count - grants.latest.len() as u64;
        let skip = usize::try_from(known.saturating_sub(kept_from)).unwrap_or(usize::MAX);
        LocksGranted {
            mgr: process,
            seen: grants.count,
            ids: grants.latest.iter().skip(skip).copied().collect(),
            ask_again: req.mgr != process || known < kept_from,
        }
    }
}

impl Locks {
    pub fn new(process: u64) -> Locks {
        Locks { process, table: Mutex::default() }
    }

    fn news(&self, session: SessionId) -> Arc<News> {
        let mut table = locked(&self.table);
        Arc::clone(table.sessions.entry(session).or_insert_with(|| Arc::new(News::new())))
    }

    /// These locks are granted, durably.
    pub fn granted(&self, granted: &[Granted]) {
        for granted in granted {
            self.news(granted.session).add(Some(granted.id));
        }
    }

    /// A change of locks is durable; `is_silent` tells whether a session's lease has run out. Gives whether silent ones
    /// were in the way.
    pub fn changed(&self, effects: &Effects, is_silent: impl Fn(SessionId) -> bool) -> bool {
        self.granted(&effects.granted);
        let silent: Vec<_> =
            effects.in_the_way.iter().copied().filter(|&session| is_silent(session)).collect();
        locked(&self.table).wanted.extend(&silent);
        !silent.is_empty()
    }

    /// The silent sessions that were found in the way since this was asked last.
    pub fn take_wanted(&self) -> BTreeSet<SessionId> {
        std::mem::take(&mut locked(&self.table).wanted)
    }

    /// Locks were granted, it is not known which.
    pub fn ask_all_again(&self) {
        let sessions: Vec<_> = locked(&self.table).sessions.values().cloned().collect();
        for news in sessions {
            news.add(None);
        }
    }

    /// The session is over.
    pub fn forget(&self, session: SessionId) {
        let gone = locked(&self.table).sessions.remove(&session);
        if let Some(news) = gone {
            // Whoever still asks for it finds it unknown.
            news.add(None);
        }
    }

    /// Waits until there is something to tell the session that it has not seen, or it asks anew.
    pub async fn wait(&self, req: &AwaitLocks) -> LocksGranted {
        let news = self.news(req.session);
        let mut count = news.count.subscribe();
        let mut turn = news.turn.subscribe();
        news.turn.send_modify(|turn| *turn += 1);
        turn.mark_unchanged();
        let seen = req.seen;
        if req.mgr == self.process {
            tokio::select! {
                biased;
                // Neither sender goes before `news` does.
                _ = count.wait_for(|count| *count != seen) => {}
                _ = turn.changed() => {}
            }
        }
        news.tell(self.process, req)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const ONE: SessionId = SessionId(1);

    fn ask(mgr: u64, seen: u64) -> AwaitLocks {
        AwaitLocks { session: ONE, mgr, seen }
    }

    fn told(seen: u64, ids: &[u64], ask_again: bool) -> LocksGranted {
        LocksGranted { mgr: 7, seen, ids: ids.to_vec(), ask_again }
    }

    fn grant(locks: &Locks, id: u64) {
        locks.granted(&[Granted { session: ONE, id }]);
    }

    #[tokio::test]
    async fn each_grant_is_told_once_to_who_asks_in_turn() {
        let locks = Locks::new(7);
        assert_eq!(locks.wait(&ask(0, 0)).await, told(0, &[], true), "nothing is known of it");
        assert!(locks.wait(&ask(7, 0)).now_or_never().is_none(), "no news");
        grant(&locks, 50);
        grant(&locks, 51);
        assert_eq!(locks.wait(&ask(7, 0)).await, told(2, &[50, 51], false));
        assert_eq!(locks.wait(&ask(7, 1)).await, told(2, &[51], false), "asked again, its answer was lost");
        assert!(locks.wait(&ask(7, 2)).now_or_never().is_none());
        assert_eq!(locks.wait(&ask(6, 9)).await, told(2, &[50, 51], true), "told by another process");
    }

    #[tokio::test]
    async fn who_waits_is_answered_by_a_grant_a_newer_question_or_the_sessions_end() {
        let locks = Arc::new(Locks::new(7));
        let wait = |seen| {
            let locks = Arc::clone(&locks);
            tokio::spawn(async move { locks.wait(&ask(7, seen)).await })
        };
        let first = wait(0);
        tokio::task::yield_now().await;
        let second = wait(0);
        assert_eq!(first.await.unwrap(), told(0, &[], false), "the newer one waits in its place");
        grant(&locks, 50);
        assert_eq!(second.await.unwrap(), told(1, &[50], false));
        let last = wait(1);
        tokio::task::yield_now().await;
        locks.forget(ONE);
        assert!(last.await.unwrap().ask_again);
    }

    #[tokio::test]
    async fn who_is_far_behind_asks_again_and_memory_is_bounded() {
        let locks = Locks::new(7);
        let max = GRANTS_MAX as u64;
        for id in 0..=max {
            grant(&locks, id);
        }
        let answer = locks.wait(&ask(7, 0)).await;
        assert_eq!((answer.ids.len(), answer.ask_again), (GRANTS_MAX, true));
        assert_eq!(locks.wait(&ask(7, max)).await, told(max + 1, &[max], false));
        locks.ask_all_again();
        assert_eq!(locks.wait(&ask(7, max + 1)).await, told(max + 2, &[], true));
    }

    #[test]
    fn only_silent_sessions_in_the_way_are_wanted_and_once() {
        let locks = Locks::new(7);
        let effects = Effects { in_the_way: vec![ONE, SessionId(2)], granted: Vec::new() };
        assert!(!locks.changed(&effects, |_| false));
        assert!(locks.changed(&effects, |session| session == ONE));
        assert_eq!(locks.take_wanted(), BTreeSet::from([ONE]));
        assert_eq!(locks.take_wanted(), BTreeSet::new());
    }
}
