//! The mgr's time never goes back, not over a restart either: a time it has not reached yet is stored ahead of it.

use crate::record::{self, MgrTime};
use crate::{Result, keys};
use pvfs_kv::{Read, WriteTxn};

/// A time in milliseconds that no mgr of this file system has reached; 0 for a new one.
pub fn get(txn: &(impl Read + ?Sized)) -> Result<u64> {
    Ok(record::find::<MgrTime>(txn, &keys::mgr_time())?.map_or(0, |time| time.high_water_ms))
}

/// Never lowers it.
pub fn set(txn: &mut impl WriteTxn, high_water_ms: u64) -> Result<()> {
    let high_water_ms = high_water_ms.max(get(txn)?);
    record::put(txn, &keys::mgr_time(), &MgrTime { high_water_ms });
    Ok(())
}
