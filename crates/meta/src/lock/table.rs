//! All locks of one file, in memory for one transaction: loaded, changed, and written back as far as it changed.

use super::{Granted, graph};
use crate::record::{self, Counter, Grant, LockHeld, LockWait, Mark, Record};
use crate::{MetaError, Result, keys, scan, writer};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::limits::{LOCK_OWNERS_MAX, LOCK_RANGES_MAX, LOCK_WAITS_MAX};
use pvfs_types::{Ino, LockKind, LockMode, LockOwner, LockRange, Locked, SessionId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Who holds locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    pub session: SessionId,
    pub owner: LockOwner,
}

impl Holder {
    pub fn of(wait: &LockWait) -> Holder {
        Holder { session: wait.session, owner: wait.owner }
    }
}

pub(crate) struct Table {
    pub ino: Ino,
    pub holders: BTreeMap<Holder, LockHeld>,
    /// In the order in which they came, each with its number.
    pub queue: Vec<(u64, LockWait)>,
    loaded_holders: BTreeMap<Holder, LockHeld>,
    loaded_queue: Vec<(u64, LockWait)>,
}

impl Table {
    pub fn load(txn: &(impl Read + ?Sized), ino: Ino) -> Result<Table> {
        let holders = scan::collect(txn, &keys::locks(ino), |mut key, value| {
            let holder = key.ino().and_then(|_| key.session().zip(key.lock_owner()));
            let held = LockHeld::from_bytes(value)?;
            Ok(key.whole(holder.map(|(session, owner)| (Holder { session, owner }, held))))
        })?;
        let queue = scan::collect(txn, &keys::lock_waits(ino), |mut key, value| {
            let number = key.ino().and_then(|_| key.u64());
            let wait = LockWait::from_bytes(value)?;
            Ok(key.whole(number.map(|number| (number, wait))))
        })?;
        let holders: BTreeMap<_, _> = holders.into_iter().collect();
        Ok(Table { ino, loaded_holders: holders.clone(), loaded_queue: queue.clone(), holders, queue })
    }

    pub fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.queue.is_empty()
    }

    /// The holders beside whose locks one of `mode` on `start..=end` cannot stand, each with its first range.
    pub fn conflicts(
        &self,
        by: Holder,
        start: u64,
        end: u64,
        mode: LockMode,
    ) -> impl Iterator<Item = (Holder, LockRange)> {
        let others = self
            .holders
            .iter()
            .filter(move |(holder, _)| holder.owner.kind == by.owner.kind && **holder != by);
        others.filter_map(move |(holder, held)| Some((*holder, held.ranges.conflict(start, end, mode)?)))
    }

    pub fn blockers(&self, wait: &LockWait) -> impl Iterator<Item = Holder> {
        let LockRange { start, end, mode, .. } = wait.range;
        self.conflicts(Holder::of(wait), start, end, mode).map(|(holder, _)| holder)
    }

    /// The waits among the first `place` that `wait` would overtake.
    fn before(&self, wait: &LockWait, place: usize) -> impl Iterator<Item = &LockWait> {
        let LockRange { start, end, mode, .. } = wait.range;
        let (by, kind) = (Holder::of(wait), wait.owner.kind);
        self.queue.iter().take(place).map(|(_, wait)| wait).filter(move |earlier| {
            earlier.owner.kind == kind
                && Holder::of(earlier) != by
                && earlier.range.conflicts(start, end, mode)
        })
    }

    /// Whether `wait`, at `place` in the queue, can be granted now. One that holds nothing waits behind those who came
    /// before; one that does might be whom they wait for. Nobody appends before a writer that is gone is settled: bytes of its
    /// own appends may be under way.
    pub fn is_free(&self, txn: &(impl Read + ?Sized), wait: &LockWait, place: usize) -> Result<bool> {
        if self.blockers(wait).next().is_some() {
            return Ok(false);
        }
        if wait.owner.kind == LockKind::Append && writer::has_dead(txn, self.ino)? {
            return Ok(false);
        }
        Ok(self.before(wait, place).next().is_none() || graph::holds_something(txn, self, wait)?)
    }

    /// The sessions that anybody in the queue waits for.
    pub fn sessions_waited_for(&self) -> BTreeSet<SessionId> {
        let mut sessions = BTreeSet::new();
        for (place, (_, wait)) in self.queue.iter().enumerate() {
            sessions.extend(self.blockers(wait).map(|holder| holder.session));
            sessions.extend(self.before(wait, place).map(|earlier| earlier.session));
        }
        sessions
    }

    /// Locks `range` for `holder`; it is known by `id` until its owner changes all of it.
    ///
    /// # Errors
    /// `ENOLCK` there would be too many.
    pub fn grant(&mut self, holder: Holder, id: u64, range: LockRange) -> Result<()> {
        let ino = self.ino;
        if !self.holders.contains_key(&holder) && self.holders.len() >= LOCK_OWNERS_MAX {
            return Err(MetaError::LocksMax { ino, what: "owners of locks" });
        }
        let held = self.holders.get(&holder).cloned().unwrap_or_default();
        let before = held.ranges.within(range.start, range.end);
        let mut after = held;
        let count = after.ranges.ranges().len();
        after.ranges.lock(range);
        check_count(ino, &after, count)?;
        forget_grants(&mut after, range.start, range.end);
        let mut left = Locked::default();
        left.lock(range);
        after.granted.push(Grant { id, before, left });
        if after.granted.len() > GRANTS_MAX {
            after.granted.remove(0);
        }
        self.holders.insert(holder, after);
        Ok(())
    }

    /// Gives up `start..=end` of what `holder` has.
    ///
    /// # Errors
    /// `ENOLCK` what is left would be too many pieces.
    pub fn unlock(&mut self, holder: Holder, start: u64, end: u64) -> Result<()> {
        let Some(held) = self.holders.get_mut(&holder) else { return Ok(()) };
        let count = held.ranges.ranges().len();
        held.ranges.unlock(start, end);
        forget_grants(held, start, end);
        check_count(self.ino, held, count)
    }

    /// Puts a wait at the end of the queue.
    ///
    /// # Errors
    /// `ENOLCK` it is too long.
    pub fn enqueue(&mut self, txn: &mut impl WriteTxn, wait: LockWait) -> Result<()> {
        if self.queue.len() >= LOCK_WAITS_MAX {
            return Err(MetaError::LocksMax { ino: self.ino, what: "locks that are waited for" });
        }
        let counter: Counter = record::find(txn, &keys::lock_waits_numbers())?.unwrap_or_default();
        let last = counter.last.checked_add(1).ok_or(MetaError::NumbersUsedUp { what: "waits for locks" })?;
        record::put(txn, &keys::lock_waits_numbers(), &Counter { last });
        self.queue.push((last, wait));
        Ok(())
    }

    /// Grants whatever has become free, in order.
    pub fn serve(&mut self, txn: &(impl Read + ?Sized)) -> Result<Vec<Granted>> {
        let mut granted = Vec::new();
        // A lock that is granted can free another one: what was locked for writing is now so for reading only.
        loop {
            let before = granted.len();
            let mut place = 0;
            while let Some((_, wait)) = self.queue.get(place) {
                let wait = wait.clone();
                let has_room = self.is_free(txn, &wait, place)?
                    && self.grant(Holder::of(&wait), wait.id, wait.range).is_ok();
                if has_room {
                    self.queue.remove(place);
                    granted.push(Granted { session: wait.session, id: wait.id });
                } else {
                    place += 1;
                }
            }
            if granted.len() == before {
                return Ok(granted);
            }
        }
    }

    /// Writes what has changed.
    pub fn save(mut self, txn: &mut impl WriteTxn) {
        self.holders.retain(|_, held| !held.ranges.is_empty());
        let (ino, loaded) = (self.ino, &self.loaded_holders);
        for (holder, held) in self.holders.iter().filter(|(holder, held)| loaded.get(holder) != Some(held)) {
            record::put(txn, &keys::lock(ino, holder.session, holder.owner), held);
        }
        for holder in loaded.keys().filter(|holder| !self.holders.contains_key(holder)) {
            txn.delete(&keys::lock(ino, holder.session, holder.owner));
        }
        let numbers = |queue: &[(u64, LockWait)]| queue.iter().map(|(number, _)| *number).collect();
        let (had, has): (BTreeSet<u64>, BTreeSet<u64>) = (numbers(&self.loaded_queue), numbers(&self.queue));
        for (number, wait) in self.queue.iter().filter(|(number, _)| !had.contains(number)) {
            record::put(txn, &keys::lock_wait(ino, *number), wait);
        }
        for number in had.difference(&has) {
            txn.delete(&keys::lock_wait(ino, *number));
        }
        let listed = |holders: &BTreeMap<Holder, LockHeld>, queue: &[(u64, LockWait)]| -> BTreeSet<Holder> {
            holders.keys().copied().chain(queue.iter().map(|(_, wait)| Holder::of(wait))).collect()
        };
        let (had, has) = (listed(loaded, &self.loaded_queue), listed(&self.holders, &self.queue));
        for holder in has.difference(&had) {
            record::put(txn, &keys::session_lock(holder.session, holder.owner, ino), &Mark {});
        }
        for holder in had.difference(&has) {
            txn.delete(&keys::session_lock(holder.session, holder.owner, ino));
        }
    }

    /// Where the wait stands that `session` knows by `id`.
    pub fn find_wait(&self, session: SessionId, id: u64) -> Option<usize> {
        self.queue.iter().position(|(_, wait)| wait.session == session && wait.id == id)
    }
}

/// Locks of one owner and file that can be taken back.
const GRANTS_MAX: usize = 8;

/// The owner changes `start..=end`.
fn forget_grants(held: &mut LockHeld, start: u64, end: u64) {
    held.granted.retain_mut(|grant| {
        grant.left.unlock(start, end);
        !grant.left.is_empty()
    });
}

/// Fewer ranges than before are always let through.
fn check_count(ino: Ino, held: &LockHeld, before: usize) -> Result<()> {
    let count = held.ranges.ranges().len();
    if count > LOCK_RANGES_MAX && count > before {
        return Err(MetaError::LocksMax { ino, what: "locked ranges of one owner" });
    }
    Ok(())
}

/// A wait as it is asked for.
pub(crate) fn wait_for(holder: Holder, id: u64, range: LockRange, since: Timestamp) -> LockWait {
    LockWait { session: holder.session, owner: holder.owner, id, range, since }
}
