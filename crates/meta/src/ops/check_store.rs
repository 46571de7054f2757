//! Holds all records against each other.

use crate::{Result, check, rollback};
use pvfs_kv::Read;
use pvfs_types::limits::FINDINGS_MAX;
use pvfs_wire::msg::fsck::{CheckStore, RolledBack, StoreChecked};

/// Reads everything, and holds every key in memory.
///
/// # Errors
/// `EPERM` the caller is neither root nor the root directory's owner.
pub fn check_store(txn: &(impl Read + ?Sized), req: &CheckStore) -> Result<StoreChecked> {
    super::may_check(txn, &req.cred)?;
    let (findings, counts) = check::check_and_count(txn)?;
    let rolled_back =
        rollback::find(txn)?.map(|found| RolledBack { stored_ms: found.stored_ms, heard_ms: found.heard_ms });
    Ok(StoreChecked {
        findings_total: findings.len() as u64,
        findings: findings
            .into_iter()
            .take(FINDINGS_MAX)
            .map(|finding| (finding.about, finding.text))
            .collect(),
        inodes: counts.inodes,
        sessions: counts.sessions,
        writers: counts.writers,
        orphans: counts.orphans,
        garbage: counts.garbage,
        intents: counts.intents,
        rolled_back,
    })
}
