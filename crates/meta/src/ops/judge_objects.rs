//! Tells whose objects these are.

use crate::record::{self, Mark};
use crate::{Result, inode, iodtab, keys, superblock};
use pvfs_kv::Read;
use pvfs_types::{ObjectId, TargetId, limits::FSCK_PAGE_MAX};
use pvfs_wire::msg::fsck::{JudgeObjects, Judged, Verdict};

/// # Errors
/// `EPERM` as of `check_store`.
pub fn judge_objects(txn: &(impl Read + ?Sized), req: &JudgeObjects) -> Result<Judged> {
    super::may_check(txn, &req.cred)?;
    let objects = req.objects.iter().take(FSCK_PAGE_MAX);
    Ok(Judged { verdicts: objects.map(|&object| judge(txn, req.target, object)).collect::<Result<_>>()? })
}

/// What `object` is, which `target` has.
pub(crate) fn judge(txn: &(impl Read + ?Sized), target: TargetId, object: ObjectId) -> Result<Verdict> {
    if record::find::<Mark>(txn, &keys::garbage(target, object))?.is_some() {
        return Ok(Verdict::Garbage);
    }
    let Some(inode) = inode::find(txn, object.ino)? else {
        let dealt_out = object.ino.0 < superblock::load_numbers(txn)?.next;
        return Ok(if dealt_out { Verdict::Nobodys } else { Verdict::Newer });
    };
    let Some(dist) = inode.dist.filter(|dist| object.slot.0 < dist.pcount) else {
        return Ok(Verdict::Nobodys);
    };
    if object.data_gen != inode.data_gen {
        let is_newer = object.data_gen > inode.data_gen;
        return Ok(if is_newer { Verdict::Newer } else { Verdict::Nobodys });
    }
    let here = iodtab::target_of(&iodtab::load(txn, dist.iodtab)?, dist, object.slot)? == target;
    Ok(if here { Verdict::Live } else { Verdict::Misplaced })
}
