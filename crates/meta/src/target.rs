//! Targets: their numbers by their identities.

pub use crate::record::Target;

use crate::record::{self, Record, TargetNumber};
use crate::{MetaError, Result, iodtab, keys, scan};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{IodtabGen, TargetId, TargetUuid, limits};

/// How a join ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The numbers, in the order asked.
    pub ids: Vec<TargetId>,
    /// The new iodtab, if a target was new.
    pub generation: Option<IodtabGen>,
}

/// Gives each target its number. Those that have none yet join, together, as one new generation of the iodtab.
///
/// # Errors
/// [`MetaError::TargetsMax`].
pub fn join(txn: &mut impl WriteTxn, uuids: &[TargetUuid]) -> Result<Joined> {
    let mut listed = iodtab::latest(txn)?.map_or_else(Vec::new, |latest| latest.targets);
    let before = listed.len();
    // The newest number is the highest: none is ever taken back.
    let mut last_id = list(txn)?.last().map_or(0, |(id, _)| id.0);
    let mut ids = Vec::with_capacity(uuids.len());
    for &uuid in uuids {
        if let Some(id) = find_id(txn, uuid)? {
            ids.push(id);
            continue;
        }
        if listed.len() >= limits::TARGETS_MAX {
            return Err(MetaError::TargetsMax { uuid });
        }
        last_id += 1;
        let id = TargetId(last_id);
        record::put(txn, &keys::target(id), &Target { uuid });
        record::put(txn, &keys::target_uuid(uuid), &TargetNumber { id });
        listed.push(id);
        ids.push(id);
    }
    let generation = if listed.len() > before { Some(iodtab::add(txn, listed)?) } else { None };
    Ok(Joined { ids, generation })
}

/// The number of a target that has joined.
pub fn find_id(txn: &(impl Read + ?Sized), uuid: TargetUuid) -> Result<Option<TargetId>> {
    Ok(record::find::<TargetNumber>(txn, &keys::target_uuid(uuid))?.map(|number| number.id))
}

/// All targets, by number.
pub fn list(txn: &(impl Read + ?Sized)) -> Result<Vec<(TargetId, TargetUuid)>> {
    scan::collect(txn, &keys::all(keys::space::TARGET), |mut key, value| {
        let target = Target::from_bytes(value)?;
        let id = key.u32();
        Ok(key.whole(id.map(|id| (TargetId(id), target.uuid))))
    })
}
