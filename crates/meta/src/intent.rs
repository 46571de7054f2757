//! What the targets have to carry out first, a truncation or the taking of a small file's bytes: noted durably, visible as done
//! only when they all have.

pub use crate::record::Intent;

use crate::record::{self, Record};
use crate::{Inode, Result, inline, inode, keys, quota, scan, writer};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{Ino, Timestamp};
use pvfs_wire::msg::session::Mutator;

pub fn find(txn: &(impl Read + ?Sized), ino: Ino) -> Result<Option<Intent>> {
    record::find(txn, &keys::intent(ino))
}

/// All of them: what a mgr goes on with after its start.
pub fn list(txn: &(impl Read + ?Sized)) -> Result<Vec<Intent>> {
    scan::collect(txn, &keys::all(keys::space::INTENT), |_, value| Intent::from_bytes(value).map(Some))
}

pub(crate) fn start(
    txn: &mut impl WriteTxn,
    inode: &Inode,
    size: u64,
    by: &Mutator,
    now: Timestamp,
) -> Result<Intent> {
    let intent = Intent {
        ino: inode.ino,
        size,
        data_gen: inode.data_gen,
        dist: inode.load_dist()?,
        by: by.into(),
        since: now,
        spills: None,
    };
    record::put(txn, &keys::intent(inode.ino), &intent);
    Ok(intent)
}

/// A target is to take the bytes of `inode`, which are kept here.
pub(crate) fn spill(txn: &mut impl WriteTxn, inode: &Inode, by: &Mutator, now: Timestamp) -> Result<Intent> {
    if let Some(standing) = find(txn, inode.ino)? {
        return Ok(standing);
    }
    let intent = Intent { spills: Some(true), ..start(txn, inode, inode.size, by, now)? };
    record::put(txn, &keys::intent(inode.ino), &intent);
    Ok(intent)
}

/// Every target has done its part: the file has its new size, or its bytes are there. The requests that waited are run again
/// after it. Without effect where the intent is gone (its file was reaped).
pub fn finish(txn: &mut impl WriteTxn, ino: Ino, now: Timestamp) -> Result<()> {
    let Some(intent) = find(txn, ino)? else { return Ok(()) };
    if intent.spills() {
        remove(txn, ino);
        return inline::spilt(txn, ino);
    }
    let mut inode = inode::load_named(txn, ino)?;
    inode.resize(intent.size);
    inode.next_epoch()?;
    inode.truncated_by = Some(intent.by);
    inode.touch_content(now);
    // Who asked for it is told anew how far it may write; others go by what they were told.
    if inode.allowed.is_some() && !writer::of(txn, ino, intent.by.session)?.foreign {
        inode.allowed = Some(intent.size);
    }
    inode::put(txn, &inode)?;
    remove(txn, ino);
    quota::release(txn, ino)
}

pub(crate) fn remove(txn: &mut impl WriteTxn, ino: Ino) {
    txn.delete(&keys::intent(ino));
}
