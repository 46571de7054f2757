//! Iodtabs: ordered lists of targets. What a generation lists never changes.

use crate::record::{self, IodtabEntry, Record};
use crate::{MetaError, Result, keys, scan};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{Distribution, IodtabGen, Slot, TargetId};
use pvfs_wire::msg::session::Iodtab;

/// The newest one; `None`: no target has joined yet.
pub fn latest(txn: &(impl Read + ?Sized)) -> Result<Option<Iodtab>> {
    Ok(all(txn)?.pop())
}

/// # Errors
/// [`MetaError::Corrupt`]: generations are named only by what was made with them, and none is ever removed.
pub fn load(txn: &(impl Read + ?Sized), generation: IodtabGen) -> Result<Iodtab> {
    let entry: Option<IodtabEntry> = record::find(txn, &keys::iodtab(generation))?;
    entry.map(|entry| Iodtab { generation, targets: entry.targets }).ok_or_else(|| MetaError::Corrupt {
        what: "iodtab",
        detail: format!("{generation} is missing though a file names it"),
    })
}

/// All of them, oldest first.
pub fn all(txn: &(impl Read + ?Sized)) -> Result<Vec<Iodtab>> {
    scan::collect(txn, &keys::all(keys::space::IODTAB), |mut key, value| {
        let targets = IodtabEntry::from_bytes(value)?.targets;
        let generation = key.u32().map(IodtabGen);
        Ok(key.whole(generation.map(|generation| Iodtab { generation, targets })))
    })
}

/// The target that holds `slot` of a file with `dist`.
pub fn target_of(iodtab: &Iodtab, dist: Distribution, slot: Slot) -> Result<TargetId> {
    let len = iodtab.targets.len().max(1);
    iodtab.targets.get(dist.place(slot, len)).copied().ok_or_else(|| MetaError::Corrupt {
        what: "iodtab",
        detail: format!("{} lists no targets", iodtab.generation),
    })
}

pub(crate) fn add(txn: &mut impl WriteTxn, targets: Vec<TargetId>) -> Result<IodtabGen> {
    let last = latest(txn)?.map_or(0, |latest| latest.generation.0);
    let next = last.checked_add(1).ok_or(MetaError::NumbersUsedUp { what: "iodtab generations" })?;
    record::put(txn, &keys::iodtab(IodtabGen(next)), &IodtabEntry { targets });
    Ok(IodtabGen(next))
}
