//! A store that is older than what others have heard from it: put back from a backup, say. How it is noted, and how it
//! goes on.
//!
//! The mgr's time tells: no mgr tells a time that is not below what is stored. A target that follows a later time has
//! heard it from a newer store.

pub use crate::record::RolledBack;

use crate::record::{self, Counter};
use crate::{Result, intent, keys, quota, session, superblock};
use pvfs_kv::{Read, WriteTxn};

/// Numbers that a newer store may have dealt out, of sessions, orphans and inodes each.
const SKIPPED: u64 = 1 << 32;

/// Set: nothing may be changed before [`settle`].
pub fn find(txn: &(impl Read + ?Sized)) -> Result<Option<RolledBack>> {
    record::find(txn, &keys::rolled_back())
}

/// Notes it, so that the next mgr on this store knows it too.
pub fn note(txn: &mut impl WriteTxn, found: RolledBack) {
    record::put(txn, &keys::rolled_back(), &found);
}

/// The store goes on as it is. All sessions end (what they had the newer store knew; clients open new ones), and so do
/// truncations under way: they were carried out since, and done again they would cut newer bytes. Numbers skip those
/// that may be in use.
///
/// Gives how many records changed; 0: there was nothing to settle.
pub fn settle(txn: &mut impl WriteTxn) -> Result<u64> {
    if find(txn)?.is_none() {
        return Ok(0);
    }
    let (sessions, intents) = (session::list(txn)?, intent::list(txn)?);
    let changed = (sessions.len() + intents.len()) as u64 + 4;
    for (id, _) in sessions {
        session::expel(txn, id)?;
    }
    for intent in intents {
        intent::remove(txn, intent.ino);
        quota::release(txn, intent.ino)?;
    }
    for key in [keys::session_numbers(), keys::orphan_numbers()] {
        let last = record::find::<Counter>(txn, &key)?.unwrap_or_default().last;
        record::put(txn, &key, &Counter { last: last.saturating_add(SKIPPED) });
    }
    let next = superblock::load_numbers(txn)?.next;
    superblock::pass(txn, next.saturating_add(SKIPPED))?;
    txn.delete(&keys::rolled_back());
    Ok(changed)
}
