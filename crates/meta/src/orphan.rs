//! Orphans: files that lost their last name, or never had one, and may be open somewhere.
//!
//! They stand in a list with rising numbers. A session that has one open claims it; one that nobody claims, and that
//! every live session has seen, is reaped. Who has seen what, the mgr keeps in memory.

use crate::record::{self, Counter, Mark, OrphanEntry, Record};
use crate::{Inode, MetaError, Result, garbage, inode, intent, keys, scan, writer};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{FileKind, Ino, SessionId};
use pvfs_wire::msg::session::Orphan;
use std::ops::ControlFlow;

/// Up to `max` orphans with a number above `seq`, in order.
pub fn list_after(txn: &(impl Read + ?Sized), seq: u64, max: usize) -> Result<Vec<Orphan>> {
    let mut orphans = Vec::new();
    let Some(from) = seq.checked_add(1) else { return Ok(orphans) };
    let end = keys::prefix_end(&keys::all(keys::space::ORPHAN));
    scan::range(txn, &keys::orphan(from), &end, |key, value| {
        if orphans.len() >= max {
            return Ok(ControlFlow::Break(()));
        }
        let mut parts = keys::Parts::of(key);
        let seq = parts.u64();
        let seq = parts.whole(seq).ok_or_else(|| scan::bad_key(key))?;
        orphans.push(Orphan { seq, ino: OrphanEntry::from_bytes(value)?.ino });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(orphans)
}

/// The highest number given to an orphan so far; 0: none yet.
pub fn head(txn: &(impl Read + ?Sized)) -> Result<u64> {
    Ok(record::find::<Counter>(txn, &keys::orphan_numbers())?.unwrap_or_default().last)
}

/// `session` has `ino` open. Without effect where `ino` is not an orphan.
pub fn claim(txn: &mut impl WriteTxn, session: SessionId, ino: Ino) -> Result<()> {
    if inode::find(txn, ino)?.is_some_and(|inode| inode.orphan_seq.is_some()) {
        record::put(txn, &keys::claim(ino, session), &Mark {});
        record::put(txn, &keys::session_claim(session, ino), &Mark {});
    }
    Ok(())
}

/// `session` has closed `ino`.
pub fn release(txn: &mut impl WriteTxn, session: SessionId, ino: Ino) {
    txn.delete(&keys::claim(ino, session));
    txn.delete(&keys::session_claim(session, ino));
}

/// The sessions that have `ino` open.
pub fn claims(txn: &(impl Read + ?Sized), ino: Ino) -> Result<Vec<SessionId>> {
    scan::collect(txn, &keys::claims(ino), |mut key, _| {
        let session = key.ino().and_then(|_| key.session());
        Ok(key.whole(session))
    })
}

/// The orphans that `session` has open.
pub fn claims_of(txn: &(impl Read + ?Sized), session: SessionId) -> Result<Vec<Ino>> {
    scan::collect(txn, &keys::session_claims(session), |mut key, _| {
        let ino = key.session().and_then(|_| key.ino());
        Ok(key.whole(ino))
    })
}

/// Removes an orphan for good and puts its objects on the garbage list. That every live session has seen it is the
/// caller's to know. One that is gone stays so.
///
/// `false`: a session claims it, or a target is taking its bytes; nothing was done.
pub fn reap(txn: &mut impl WriteTxn, seq: u64, ino: Ino) -> Result<bool> {
    let entry: Option<OrphanEntry> = record::find(txn, &keys::orphan(seq))?;
    if entry.is_none_or(|entry| entry.ino != ino) {
        return Ok(true);
    }
    if !claims(txn, ino)?.is_empty() {
        return Ok(false);
    }
    if intent::find(txn, ino)?.is_some_and(|intent| intent.spills()) {
        // A target may be about to make the object.
        return Ok(false);
    }
    let orphan = inode::load_named(txn, ino)?;
    if orphan.inline.is_none() {
        garbage::add_all(txn, ino, orphan.data_gen, orphan.load_dist()?)?;
    }
    writer::remove_all(txn, ino)?;
    intent::remove(txn, ino);
    txn.delete(&keys::orphan(seq));
    inode::remove(txn, &orphan)?;
    Ok(true)
}

/// The last name of `inode` went: a file becomes an orphan, anything else has no objects and goes at once.
pub(crate) fn last_name_gone(txn: &mut impl WriteTxn, inode: &mut Inode) -> Result<Option<Orphan>> {
    if inode.kind != FileKind::File {
        inode::remove(txn, inode)?;
        return Ok(None);
    }
    list(txn, inode, false).map(Some)
}

/// Puts the file `inode`, which has no name, at the end of the list. `linkable`: it may be given one.
pub(crate) fn list(txn: &mut impl WriteTxn, inode: &mut Inode, linkable: bool) -> Result<Orphan> {
    let seq = head(txn)?.checked_add(1).ok_or(MetaError::NumbersUsedUp { what: "orphan numbers" })?;
    record::put(txn, &keys::orphan_numbers(), &Counter { last: seq });
    record::put(txn, &keys::orphan(seq), &OrphanEntry { ino: inode.ino, linkable: linkable.then_some(true) });
    inode.orphan_seq = Some(seq);
    inode::put(txn, inode)?;
    Ok(Orphan { seq, ino: inode.ino })
}

/// Takes the orphan `inode` off the list, with all claims on it, if it may be given a name. It is the caller's to put.
pub(crate) fn unlist_linkable(txn: &mut impl WriteTxn, inode: &mut Inode) -> Result<bool> {
    let Some(seq) = inode.orphan_seq else { return Ok(false) };
    let entry: Option<OrphanEntry> = record::find(txn, &keys::orphan(seq))?;
    if entry.is_none_or(|entry| entry.linkable != Some(true)) {
        return Ok(false);
    }
    for session in claims(txn, inode.ino)? {
        release(txn, session, inode.ino);
    }
    txn.delete(&keys::orphan(seq));
    inode.orphan_seq = None;
    Ok(true)
}
