//! Exactly once: each slot of a session keeps the answer of its last request, written with that request's effect.

use crate::record::{self, Reply};
use crate::{MetaError, Result, keys, scan, session};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{SessionId, limits};

/// What to do with a numbered request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Do it, and [`record()`] its answer in the same transaction.
    New,
    /// It was done: this was the answer.
    Repeat(Vec<u8>),
    /// A late copy of a request long answered, or one that is numbered 0.
    Stale,
}

/// A number may be skipped (a request that was given up before it left), never used again.
///
/// # Errors
/// [`MetaError::SessionUnknown`], [`MetaError::SlotRange`].
pub fn check(txn: &(impl Read + ?Sized), session: SessionId, slot: u16, seq: u64) -> Result<Check> {
    session::load(txn, session)?;
    if slot >= limits::SESSION_SLOTS {
        return Err(MetaError::SlotRange { slot });
    }
    let last: Option<Reply> = record::find(txn, &keys::reply(session, slot))?;
    Ok(match last {
        _ if seq == 0 => Check::Stale,
        Some(last) if seq == last.seq => Check::Repeat(last.reply),
        Some(last) if seq < last.seq => Check::Stale,
        Some(_) | None => Check::New,
    })
}

/// Keeps `reply` (the encoded answer, a refusal too) as the slot's last one.
pub fn record(txn: &mut impl WriteTxn, session: SessionId, slot: u16, seq: u64, reply: Vec<u8>) {
    record::put(txn, &keys::reply(session, slot), &Reply { seq, reply });
}

pub(crate) fn remove_all(txn: &mut impl WriteTxn, session: SessionId) -> Result<()> {
    let slots = scan::collect(txn, &keys::replies(session), |mut key, _| {
        let slot = key.session().and_then(|_| key.u16());
        Ok(key.whole(slot))
    })?;
    for slot in slots {
        txn.delete(&keys::reply(session, slot));
    }
    Ok(())
}
