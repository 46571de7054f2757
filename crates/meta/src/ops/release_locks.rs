//! `release_locks`: an owner gives up all that it has of a file.

use crate::Result;
use crate::lock::{Granted, Holder, Table};
use pvfs_kv::WriteTxn;
use pvfs_wire::msg::lock::ReleaseLocks;

/// Gives up all locks of an owner on a file, and its places among those who wait there. One that has none, or a file that
/// is gone, is as good.
pub fn release_locks(txn: &mut impl WriteTxn, req: &ReleaseLocks) -> Result<Vec<Granted>> {
    let mut table = Table::load(txn, req.ino)?;
    let me = Holder { session: req.by.session, owner: req.owner };
    table.holders.remove(&me);
    table.queue.retain(|(_, wait)| Holder::of(wait) != me);
    let granted = table.serve(txn)?;
    table.save(txn);
    Ok(granted)
}
