//! `test_lock`: which lock stands in the way.

use crate::lock::{Holder, Table};
use crate::{MetaError, Result, inode};
use pvfs_kv::Read;
use pvfs_wire::msg::lock::{HeldLock, TestLock};

/// The first lock, by where it begins, beside which the described one could not stand.
///
/// # Errors
/// `EINVAL` the range ends before it begins; `ESTALE` the inode is gone.
pub fn test_lock(txn: &(impl Read + ?Sized), req: &TestLock) -> Result<Option<HeldLock>> {
    let TestLock { ref caller, ino, owner, start, end, mode } = *req;
    if start > end {
        return Err(MetaError::LockRange { start, end });
    }
    inode::load(txn, ino)?;
    let by = Holder { session: caller.session, owner };
    let table = Table::load(txn, ino)?;
    let first = table.conflicts(by, start, end, mode).min_by_key(|(_, range)| range.start);
    Ok(first.map(|(holder, range)| HeldLock { session: holder.session, range }))
}
