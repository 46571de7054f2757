//! Who waits for whom, over all files: whether a wait would be for ever, and who may overtake.

use super::table::{Holder, Table};
use crate::record::{LockHeld, LockWait};
use crate::scan::{self, MORE};
use crate::{Result, keys, record};
use pvfs_kv::Read;
use pvfs_types::{Ino, LockKind};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// So many owners are looked at in search of a deadlock; a longer chain counts as none.
const OWNERS_MAX: usize = 1024;
/// So many locks of a session are looked at for those of one process.
const SESSION_LOCKS_MAX: usize = 256;

/// Whether those who stand in the way of `wait`, by what they hold, wait for its owner themselves, maybe over others.
/// Only for locks by `fcntl`: an flock's owner is an open file, and who waits behind it is not known.
pub fn is_deadlock(txn: &(impl Read + ?Sized), table: &Table, wait: &LockWait) -> Result<bool> {
    if wait.owner.kind != LockKind::Posix {
        return Ok(false);
    }
    let me = Holder::of(wait);
    let mut seen = BTreeSet::new();
    let mut open: Vec<Holder> = table.blockers(wait).collect();
    while let Some(holder) = open.pop() {
        if holder == me {
            return Ok(true);
        }
        if !seen.insert(holder) || seen.len() > OWNERS_MAX {
            continue;
        }
        for ino in files_of(txn, holder)? {
            let other;
            let table = if ino == table.ino {
                table
            } else {
                other = Table::load(txn, ino)?;
                &other
            };
            let waits = table.queue.iter().map(|(_, wait)| wait).filter(|wait| Holder::of(wait) == holder);
            open.extend(waits.flat_map(|wait| table.blockers(wait)));
        }
    }
    Ok(false)
}

/// The files that `holder` has to do with.
fn files_of(txn: &(impl Read + ?Sized), holder: Holder) -> Result<Vec<Ino>> {
    scan::collect(txn, &keys::owner_locks(holder.session, holder.owner), |mut key, _| {
        let ino = key.session().and_then(|_| key.lock_owner()).and_then(|_| key.ino());
        Ok(key.whole(ino))
    })
}

/// Whether the owner of `wait`, or its process by another owner, holds a lock of any file: then somebody may wait for it,
/// and to let it wait behind others who came first could be for ever. (In doubt it does.) Who may
/// append waits for nothing meanwhile: of appends only this file's lock counts.
pub fn holds_something(txn: &(impl Read + ?Sized), table: &Table, wait: &LockWait) -> Result<bool> {
    if wait.owner.kind == LockKind::Append {
        return Ok(table.holders.get(&Holder::of(wait)).is_some_and(|held| !held.ranges.is_empty()));
    }
    let (me, pid) = (Holder::of(wait), wait.range.pid);
    let is_mine = |holder: Holder, held: &LockHeld| {
        let by_pid = pid != 0 && held.ranges.ranges().iter().any(|range| range.pid == pid);
        holder.session == me.session && !held.ranges.is_empty() && (holder == me || by_pid)
    };
    if table.holders.iter().any(|(holder, held)| is_mine(*holder, held)) {
        return Ok(true);
    }
    let (mut found, mut looked) = (false, 0);
    scan::prefix(txn, &keys::session_locks(me.session), |key, _| {
        let mut parts = keys::Parts::of(key);
        let place = parts.session().and_then(|_| parts.lock_owner().zip(parts.ino()));
        let (owner, ino) = place.ok_or_else(|| scan::bad_key(key))?;
        let holder = Holder { session: me.session, owner };
        looked += 1;
        found = looked > SESSION_LOCKS_MAX;
        if !found && ino != table.ino {
            let held: Option<LockHeld> = record::find(txn, &keys::lock(ino, me.session, owner))?;
            found = held.is_some_and(|held| is_mine(holder, &held));
        }
        if found { Ok(ControlFlow::Break(())) } else { MORE }
    })?;
    Ok(found)
}
