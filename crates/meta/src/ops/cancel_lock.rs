//! `cancel_lock`: a lock is taken back by who does not want it any more, waited for or granted.

use crate::lock::{Grant, Granted, Holder, Table};
use crate::{MetaError, Result};
use pvfs_kv::WriteTxn;
use pvfs_types::{LockMode, LockRange};
use pvfs_wire::msg::lock::CancelLock;

/// Ends the wait for the lock `req.id`. If it was granted, its owner gets back what it held of the range before, as far as it
/// has changed nothing of it since; but what another one has locked since stays that one's. A lock that is not known (its
/// owner has changed all of it since, or never had it) leaves all as it is.
///
/// # Errors
/// `EINVAL` the range ends before it begins; `ENOLCK` what is left would be too many pieces.
pub fn cancel_lock(txn: &mut impl WriteTxn, req: &CancelLock) -> Result<Vec<Granted>> {
    let CancelLock { ref by, ino, owner, id, start, end } = *req;
    if start > end {
        return Err(MetaError::LockRange { start, end });
    }
    let mut table = Table::load(txn, ino)?;
    let me = Holder { session: by.session, owner };
    if let Some(place) = table.find_wait(me.session, id) {
        table.queue.remove(place);
    } else {
        let grant = table.holders.get_mut(&me).and_then(|held| {
            let at = held.granted.iter().position(|grant| grant.id == id)?;
            Some(held.granted.remove(at))
        });
        if let Some(Grant { before, left, .. }) = grant {
            for range in left.within(start, end).ranges() {
                table.unlock(me, range.start, range.end)?;
                for before in before.within(range.start, range.end).ranges() {
                    give_back(&mut table, me, *before);
                }
            }
        }
    }
    let granted = table.serve(txn)?;
    table.save(txn);
    Ok(granted)
}

/// Locks `range` again, as far as nobody is in the way.
fn give_back(table: &mut Table, me: Holder, range: LockRange) {
    let is_free = |mode| table.conflicts(me, range.start, range.end, mode).next().is_none();
    let mode = [range.mode, LockMode::Read].into_iter().find(|mode| is_free(*mode));
    if let (Some(mode), Some(held)) = (mode, table.holders.get_mut(&me)) {
        held.ranges.lock(LockRange { mode, ..range });
    }
}
