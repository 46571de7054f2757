//! Locks of files: what each owner holds, and who waits for what, in order. All of it is in the store, so that a mgr that
//! was killed knows of every lock that it granted, and of everybody's place.
//!
//! Each change looks at all locks of its one file (`table`), and grants in the same transaction what has become free.
//! Locks of a session that is gone stand until [`settle`]: its late writes must be refused first.

mod graph;
mod table;

pub use crate::record::{Grant, LockHeld, LockWait};
pub(crate) use graph::is_deadlock;
pub(crate) use table::{Holder, Table, wait_for};

use crate::record::Record;
use crate::scan::{self, MORE};
use crate::{Result, keys, session};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{Ino, LockOwner, SessionId};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// A lock was granted that `session` waits for under `id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    pub session: SessionId,
    pub id: u64,
}

/// What a change of locks means for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    pub granted: Vec<Granted>,
    /// The sessions whose locks, or places before it, the asked one stumbled over.
    pub in_the_way: Vec<SessionId>,
}

/// The files that `session` holds locks of or waits for, each with the owner.
pub fn list_of(txn: &(impl Read + ?Sized), session: SessionId) -> Result<Vec<(LockOwner, Ino)>> {
    scan::collect(txn, &keys::session_locks(session), |mut key, _| {
        let found = key.session().and_then(|_| key.lock_owner().zip(key.ino()));
        Ok(key.whole(found))
    })
}

/// Every session that holds a lock or waits for one, alive or not.
pub fn sessions(txn: &(impl Read + ?Sized)) -> Result<Vec<SessionId>> {
    let mut sessions = Vec::new();
    let end = keys::prefix_end(&keys::all(keys::space::SESSION_LOCK));
    let mut from = keys::all(keys::space::SESSION_LOCK);
    // Jumps from session to session: there are few, with maybe many locks each.
    loop {
        let mut found = None;
        scan::range(txn, &from, &end, |key, _| {
            found = Some(keys::Parts::of(key).session().ok_or_else(|| scan::bad_key(key))?);
            Ok(ControlFlow::Break(()))
        })?;
        let Some(session) = found else { return Ok(sessions) };
        sessions.push(session);
        from = keys::prefix_end(&keys::session_locks(session));
    }
}

/// The sessions that somebody waits for: they hold what he wants, or stand before him.
pub fn in_the_way(txn: &(impl Read + ?Sized)) -> Result<BTreeSet<SessionId>> {
    let mut files = BTreeSet::new();
    scan::prefix(txn, &keys::all(keys::space::LOCK_WAIT), |key, _| {
        files.insert(keys::Parts::of(key).ino().ok_or_else(|| scan::bad_key(key))?);
        MORE
    })?;
    let mut sessions = BTreeSet::new();
    for ino in files {
        sessions.extend(Table::load(txn, ino)?.sessions_waited_for());
    }
    Ok(sessions)
}

/// How many locks are waited for, counted up to `max`.
pub fn count_waits(txn: &(impl Read + ?Sized), max: usize) -> Result<usize> {
    let mut count = 0;
    scan::prefix(txn, &keys::all(keys::space::LOCK_WAIT), |_, value| {
        LockWait::from_bytes(value)?;
        count += 1;
        Ok(if count < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(count)
}

/// The session ends: with `holds` it gives up what it holds too, else only its places among those who wait.
pub(crate) fn end_session(txn: &mut impl WriteTxn, session: SessionId, holds: bool) -> Result<Vec<Granted>> {
    let files: BTreeSet<Ino> = list_of(txn, session)?.into_iter().map(|(_, ino)| ino).collect();
    let mut granted = Vec::new();
    for ino in files {
        let mut table = Table::load(txn, ino)?;
        table.queue.retain(|(_, wait)| wait.session != session);
        if holds {
            table.holders.retain(|holder, _| holder.session != session);
        }
        granted.extend(table.serve(txn)?);
        table.save(txn);
    }
    Ok(granted)
}

/// Frees what a session that is gone has left locked of `ino`: no target takes its writes any more. Nothing is done to a
/// session that is there.
pub fn settle(txn: &mut impl WriteTxn, ino: Ino, session: SessionId) -> Result<Vec<Granted>> {
    if session::find(txn, session)?.is_some() {
        return Ok(Vec::new());
    }
    let mut table = Table::load(txn, ino)?;
    table.queue.retain(|(_, wait)| wait.session != session);
    table.holders.retain(|holder, _| holder.session != session);
    let granted = table.serve(txn)?;
    table.save(txn);
    Ok(granted)
}

/// Grants what has become free by something else than an unlock.
pub(crate) fn serve(txn: &mut impl WriteTxn, ino: Ino) -> Result<Vec<Granted>> {
    let mut table = Table::load(txn, ino)?;
    if table.queue.is_empty() {
        return Ok(Vec::new());
    }
    let granted = table.serve(txn)?;
    table.save(txn);
    Ok(granted)
}

/// The inode goes, and with it all locks.
pub(crate) fn remove_all(txn: &mut impl WriteTxn, ino: Ino) -> Result<()> {
    let mut table = Table::load(txn, ino)?;
    if !table.is_empty() {
        table.queue.clear();
        table.holders.clear();
        table.save(txn);
    }
    Ok(())
}
