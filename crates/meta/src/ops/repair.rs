//! Mends what a check found, where that is safe.

use super::judge_objects::judge;
use crate::record::{self, Mark};
use crate::{Result, check, inode, intent, keys, rollback, superblock, writer};
use pvfs_kv::WriteTxn;
use pvfs_types::{Ino, ObjectId, TargetId, Timestamp, limits};
use pvfs_wire::msg::fsck::{Fix, Repair, Repaired, Verdict};

/// Makes the fixes that still apply.
///
/// # Errors
/// `EPERM` as of `check_store`.
pub fn repair(txn: &mut impl WriteTxn, req: &Repair, now: Timestamp) -> Result<Repaired> {
    super::may_check(txn, &req.cred)?;
    let fixes = req.fixes.iter().take(limits::FSCK_PAGE_MAX);
    Ok(Repaired { changed: fixes.map(|&fix| make(txn, fix, now)).collect::<Result<_>>()? })
}

fn make(txn: &mut impl WriteTxn, fix: Fix, now: Timestamp) -> Result<u64> {
    match fix {
        Fix::Counts => check::mend_counts(txn, now),
        Fix::Remove(target, object) => remove(txn, target, object),
        Fix::Grow { ino, size_epoch, size } => grow(txn, ino, size_epoch, size, now),
        Fix::Pass(object) => pass(txn, object, now),
        Fix::Settle => rollback::settle(txn),
    }
}

fn remove(txn: &mut impl WriteTxn, target: TargetId, object: ObjectId) -> Result<u64> {
    if judge(txn, target, object)? != Verdict::Nobodys {
        return Ok(0);
    }
    record::put(txn, &keys::garbage(target, object), &Mark {});
    Ok(1)
}

fn grow(txn: &mut impl WriteTxn, ino: Ino, size_epoch: u32, size: u64, now: Timestamp) -> Result<u64> {
    let Some(mut inode) = inode::find(txn, ino)? else { return Ok(0) };
    let is_busy = !writer::list(txn, ino)?.is_empty() || intent::find(txn, ino)?.is_some();
    if is_busy || inode.size_epoch != size_epoch || inode.size >= size || size > limits::FILE_BYTES_MAX {
        return Ok(0);
    }
    inode.size = size;
    inode.touch_content(now);
    inode::put(txn, &inode)?;
    Ok(1)
}

/// The size of a file that takes a newer data generation is grown by a later fix.
fn pass(txn: &mut impl WriteTxn, object: ObjectId, now: Timestamp) -> Result<u64> {
    let mut changed = superblock::pass(txn, object.ino.0.saturating_add(1))?;
    if let Some(mut inode) = inode::find(txn, object.ino)?
        && inode.dist.is_some()
        && object.data_gen > inode.data_gen
    {
        inode.data_gen = object.data_gen;
        inode.size = 0;
        inode.next_epoch()?;
        inode.touch_content(now);
        inode::put(txn, &inode)?;
        changed += 1;
    }
    Ok(changed)
}
