//! What is known of sessions beyond their records in the store: how long their leases last, which orphans they have
//! seen, when they were last heard. All of it may be lost: after a restart every stored session gets a full lease
//! and checks in again. Knows no store and no messages; times are the mgr's, in milliseconds.

use pvfs_types::SessionId;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// One session's standing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The end of the last lease that it was given.
    pub lease_until_ms: u64,
    /// Until when it counts as alive: its lease, or as long after it was last heard.
    pub alive_until_ms: u64,
    /// It has held every orphan up to this number against its open files.
    pub orphans_seen: u64,
    pub heard_ms: u64,
    /// For people.
    pub label: String,
}

impl Standing {
    pub fn has_run_out(&self, now_ms: u64) -> bool {
        self.alive_until_ms <= now_ms
    }

    fn hear(&mut self, now_ms: u64, lease_ms: u64) {
        self.heard_ms = self.heard_ms.max(now_ms);
        self.alive_until_ms = self.alive_until_ms.max(now_ms + lease_ms);
    }
}

/// The sessions that may act. One that is not here is unknown to this mgr.
#[derive(Debug)]
pub struct Sessions {
    lease_ms: u64,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    standings: BTreeMap<SessionId, Standing>,
    expelled_until_ms: u64,
}

impl Sessions {
    /// `start_ms`: when this mgr started; sessions that an earlier one expelled had run out before it.
    pub fn new(lease_ms: u64, start_ms: u64) -> Sessions {
        Sessions {
            lease_ms,
            table: Mutex::new(Table { standings: BTreeMap::new(), expelled_until_ms: start_ms }),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn lease_ms(&self) -> u64 {
        self.lease_ms
    }

    /// A session was opened, or found in the store at the start: it gets a full lease, whose end this gives. One
    /// that is known keeps what it has seen.
    pub fn admit(&self, session: SessionId, label: &str, orphans_seen: u64, now_ms: u64) -> u64 {
        let lease_until_ms = now_ms + self.lease_ms;
        let mut table = self.table();
        let standing = table.standings.entry(session).or_insert_with(|| Standing {
            lease_until_ms,
            alive_until_ms: lease_until_ms,
            orphans_seen,
            heard_ms: now_ms,
            label: label.to_owned(),
        });
        standing.lease_until_ms = standing.lease_until_ms.max(lease_until_ms);
        standing.hear(now_ms, self.lease_ms);
        standing.lease_until_ms
    }

    /// Renews the lease and gives its new end; `None` where the session is unknown.
    pub fn renew(&self, session: SessionId, now_ms: u64) -> Option<u64> {
        let mut table = self.table();
        let standing = table.standings.get_mut(&session)?;
        standing.lease_until_ms = standing.lease_until_ms.max(now_ms + self.lease_ms);
        standing.hear(now_ms, self.lease_ms);
        Some(standing.lease_until_ms)
    }

    /// The session has seen all orphans up to `orphans_seen`, and its claims on them are stored. Gives whether that
    /// is news.
    pub fn check_in(&self, session: SessionId, orphans_seen: u64) -> bool {
        let mut table = self.table();
        let Some(standing) = table.standings.get_mut(&session) else { return false };
        let news = orphans_seen > standing.orphans_seen;
        standing.orphans_seen = standing.orphans_seen.max(orphans_seen);
        news
    }

    /// The session asked for something: it is not silent, even where its keep-alives are late. Gives whether it is
    /// known.
    pub fn hear(&self, session: SessionId, now_ms: u64) -> bool {
        let mut table = self.table();
        let standing = table.standings.get_mut(&session);
        standing.map(|standing| standing.hear(now_ms, self.lease_ms)).is_some()
    }

    pub fn is_known(&self, session: SessionId) -> bool {
        self.table().standings.contains_key(&session)
    }

    pub fn find(&self, session: SessionId) -> Option<Standing> {
        self.table().standings.get(&session).cloned()
    }

    /// The session was closed by its client.
    pub fn close(&self, session: SessionId) {
        self.table().standings.remove(&session);
    }

    /// The client opened another session in its place. What it sent with the lease of this one may still be under way.
    pub fn give_up(&self, session: SessionId) {
        let mut table = self.table();
        if let Some(standing) = table.standings.remove(&session) {
            table.expelled_until_ms = table.expelled_until_ms.max(standing.lease_until_ms);
        }
    }

    /// Throws the session out if its lease has run out: from now on it is unknown, and cannot come back. Gives its
    /// standing, for [`Sessions::take_back`] where the store then refuses to forget it.
    pub fn expel(&self, session: SessionId, now_ms: u64) -> Option<Standing> {
        let mut table = self.table();
        if !table.standings.get(&session)?.has_run_out(now_ms) {
            return None;
        }
        let standing = table.standings.remove(&session)?;
        table.expelled_until_ms = table.expelled_until_ms.max(standing.lease_until_ms);
        Some(standing)
    }

    pub fn take_back(&self, session: SessionId, standing: Standing) {
        self.table().standings.insert(session, standing);
    }

    /// The latest end of a lease of a session that was thrown out. A target that follows the mgr's time up to here
    /// takes no more writes from any of them.
    pub fn expelled_until_ms(&self) -> u64 {
        self.table().expelled_until_ms
    }

    pub fn all(&self) -> Vec<(SessionId, Standing)> {
        self.table().standings.iter().map(|(session, standing)| (*session, standing.clone())).collect()
    }

    /// Up to which number every session has seen the orphans; `u64::MAX` where there is no session.
    pub fn seen_by_all(&self) -> u64 {
        self.table().standings.values().map(|standing| standing.orphans_seen).min().unwrap_or(u64::MAX)
    }

    /// The sessions that have not seen the orphans up to `seq`, and whose lease has run out.
    pub fn run_out_behind(&self, seq: u64, now_ms: u64) -> Vec<SessionId> {
        let table = self.table();
        let run_out_behind =
            |standing: &Standing| standing.orphans_seen < seq && standing.has_run_out(now_ms);
        table.standings.iter().filter(|(_, standing)| run_out_behind(standing)).map(|(id, _)| *id).collect()
    }

    /// When the first of the sessions that are alive will have run out.
    pub fn next_end_ms(&self, now_ms: u64) -> Option<u64> {
        let table = self.table();
        table.standings.values().map(|s| s.alive_until_ms).filter(|&until_ms| until_ms > now_ms).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionId = SessionId(1);
    const TWO: SessionId = SessionId(2);

    #[test]
    fn a_session_is_not_expelled_before_its_lease_ran_out() {
        let sessions = Sessions::new(30, 100);
        assert_eq!(sessions.admit(ONE, "one", 5, 100), 130);
        assert_eq!(sessions.renew(ONE, 110), Some(140));
        assert_eq!(sessions.expel(ONE, 139), None);
        assert!(sessions.is_known(ONE));
        assert!(sessions.expel(ONE, 140).is_some());
        assert!(!sessions.is_known(ONE));
        assert_eq!(sessions.renew(ONE, 141), None, "it cannot come back");
        assert_eq!(sessions.expelled_until_ms(), 140);
    }

    #[test]
    fn a_session_whose_keep_alives_are_late_is_not_expelled_while_it_is_heard() {
        let sessions = Sessions::new(30, 0);
        sessions.admit(ONE, "one", 0, 0);
        assert!(sessions.hear(ONE, 20));
        assert_eq!(sessions.expel(ONE, 49), None);
        assert_eq!(sessions.find(ONE).map(|s| s.lease_until_ms), Some(30), "its lease is what it was told");
        assert!(sessions.expel(ONE, 50).is_some());
        assert!(!sessions.hear(ONE, 50));
    }

    #[test]
    fn a_session_that_nobody_needs_out_comes_back_after_its_lease_ran_out() {
        let sessions = Sessions::new(30, 0);
        sessions.admit(ONE, "one", 0, 0);
        assert_eq!(sessions.renew(ONE, 1000), Some(1030));
    }

    #[test]
    fn opening_again_keeps_what_the_session_has_seen() {
        let sessions = Sessions::new(30, 0);
        sessions.admit(ONE, "one", 5, 0);
        assert!(sessions.check_in(ONE, 7));
        assert!(!sessions.check_in(ONE, 6), "numbers do not go back");
        sessions.admit(ONE, "one", 5, 10);
        assert_eq!(sessions.find(ONE).map(|s| (s.orphans_seen, s.lease_until_ms)), Some((7, 40)));
    }

    #[test]
    fn an_orphan_waits_for_the_session_that_is_furthest_behind() {
        let sessions = Sessions::new(30, 0);
        assert_eq!(sessions.seen_by_all(), u64::MAX, "there is none");
        sessions.admit(ONE, "one", 5, 0);
        sessions.admit(TWO, "two", 3, 10);
        assert_eq!(sessions.seen_by_all(), 3);
        assert_eq!(sessions.run_out_behind(5, 35), [], "one has seen it, the other's lease is good");
        assert_eq!(sessions.run_out_behind(5, 40), [TWO]);
    }

    #[test]
    fn the_next_end_is_of_a_session_still_alive() {
        let sessions = Sessions::new(30, 0);
        sessions.admit(ONE, "one", 0, 0);
        sessions.admit(TWO, "two", 0, 10);
        assert_eq!(sessions.next_end_ms(5), Some(30));
        assert_eq!(sessions.next_end_ms(30), Some(40));
        assert_eq!(sessions.next_end_ms(40), None);
    }
}
