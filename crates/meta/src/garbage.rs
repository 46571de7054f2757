//! Objects that no file has any more, by the target that is to remove them.

use crate::record::{self, Mark};
use crate::{Result, iodtab, keys, scan};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{DataGen, Distribution, Ino, ObjectId, TargetId};
use std::ops::ControlFlow;

/// Up to `max` objects that `target` is to remove.
pub fn list(txn: &(impl Read + ?Sized), target: TargetId, max: usize) -> Result<Vec<ObjectId>> {
    let mut objects = Vec::new();
    scan::prefix(txn, &keys::garbage_of(target), |key, _| {
        if objects.len() >= max {
            return Ok(ControlFlow::Break(()));
        }
        objects.push(parse(key)?.1);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(objects)
}

/// `target` has removed `objects`.
pub fn clear(txn: &mut impl WriteTxn, target: TargetId, objects: &[ObjectId]) {
    for &object in objects {
        txn.delete(&keys::garbage(target, object));
    }
}

/// Puts all objects of one data generation of a file on the lists of their targets, whether or not they were ever
/// written.
pub(crate) fn add_all(
    txn: &mut impl WriteTxn,
    ino: Ino,
    data_gen: DataGen,
    dist: Distribution,
) -> Result<()> {
    let iodtab = iodtab::load(txn, dist.iodtab)?;
    for slot in dist.slots() {
        let target = iodtab::target_of(&iodtab, dist, slot)?;
        record::put(txn, &keys::garbage(target, ObjectId { ino, data_gen, slot }), &Mark {});
    }
    Ok(())
}

pub(crate) fn parse(key: &[u8]) -> Result<(TargetId, ObjectId)> {
    let mut parts = keys::Parts::of(key);
    let parsed = (|| Some((TargetId(parts.u32()?), parts.object()?)))();
    parts.whole(parsed).ok_or_else(|| scan::bad_key(key))
}
