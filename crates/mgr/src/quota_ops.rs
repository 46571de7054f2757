//! Quotas: set and told of; and since when limits bind, so that targets refuse what was granted before.

use crate::{
    mgr::Mgr,
    service::{Reply, change, not_here, read},
};
use pvfs_kv::Read;
use pvfs_meta::{MetaError, inode, ops, quota};
use pvfs_net::Incoming;
use pvfs_types::{Ino, QuotaOwner};
use pvfs_wire::{
    Op,
    msg::{
        namespace::FsUsage,
        quota::{GetQuotas, LimitChange, SetQuota},
    },
};
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::info;

/// Since when limits bind: a time of the mgr's; 0: none was ever set. In memory alone: a mgr that starts on a store with
/// limits takes its own start.
#[derive(Debug)]
pub struct WritesSince(AtomicU64);

impl WritesSince {
    pub fn start(counted: bool, start_ms: u64) -> WritesSince {
        WritesSince(AtomicU64::new(if counted { start_ms } else { 0 }))
    }

    /// Capabilities to write that were granted up to now may know nothing of a limit.
    pub fn raise(&self, now_ms: u64) {
        self.0.fetch_max(now_ms, Ordering::SeqCst);
    }

    /// What targets are told.
    pub fn told(&self) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst)).filter(|since| *since > 0)
    }
}

pub async fn handle(mgr: &Mgr, request: &Incoming) -> Reply {
    match request.op {
        Op::GetQuotas => {
            let req: GetQuotas = request.decode()?;
            read(mgr, &req.caller, |txn| ops::get_quotas(txn, &req))
        }
        Op::SetQuota => set(mgr, request.decode()?).await,
        op => Err(not_here(op)),
    }
}

async fn set(mgr: &Mgr, req: SetQuota) -> Reply {
    let (owner, bytes, inodes) = (req.owner, req.bytes, req.inodes);
    let reply = change(mgr, req.by.clone(), move |txn, _| ops::set_quota(txn, &req)).await?;
    if matches!(bytes, LimitChange::Set(_)) {
        // Whoever was granted something later has seen the limit.
        mgr.writes_since.raise(mgr.time.now_ms());
    }
    info!(%owner, ?bytes, ?inodes, "limits set");
    Ok(reply)
}

/// What a tree with limits leaves of `usage` for who asks at `at`.
pub fn within_tree(txn: &dyn Read, at: Ino, mut usage: FsUsage) -> Result<FsUsage, MetaError> {
    let Some(tree) = inode::find(txn, at)?.and_then(|inode| inode.tree) else { return Ok(usage) };
    let owner = QuotaOwner::Tree(tree);
    let (used, limits) = (quota::usage(txn, owner)?, quota::limits_of(txn, owner)?);
    if let Some(limit) = limits.bytes {
        let left = u128::from(limit).saturating_sub(used.charged());
        usage.bytes_total = usage.bytes_total.min(limit);
        usage.bytes_free = usage.bytes_free.min(u64::try_from(left).unwrap_or(u64::MAX));
    }
    if limits.inodes.is_some() {
        usage.inodes = used.inodes;
        usage.inodes_max = limits.inodes;
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_bind_since_the_last_one_was_set_or_the_mgr_started() {
        let since = WritesSince::start(false, 100);
        assert_eq!(since.told(), None, "no limit was ever set");
        since.raise(200);
        since.raise(150);
        assert_eq!(since.told(), Some(200));
        assert_eq!(WritesSince::start(true, 100).told(), Some(100));
    }
}
