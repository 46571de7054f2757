//! `set_quota`: what a user, a group or a tree may use.

use super::get_quotas::quota_of;
use crate::{MetaError, inode};
use crate::{Result, quota};
use pvfs_kv::WriteTxn;
use pvfs_types::QuotaOwner;
use pvfs_wire::msg::quota::{LimitChange, Quota, SetQuota};

/// Limits below what is used are taken: then nothing grows. The first one in a file system has all there is counted; a
/// tree's first one has all below its top directory be of it, and its last one be of none.
///
/// # Errors
/// `EPERM` as of `check_store`; `EINVAL` root, or a tree in a tree; `ENOTDIR`; `E2BIG` a tree too large to be taken at once;
/// `EXDEV` a tree with hard links to somewhere else; `ESTALE` the directory is gone.
pub fn set_quota(txn: &mut impl WriteTxn, req: &SetQuota) -> Result<Quota> {
    super::may_check(txn, &req.by.cred)?;
    if req.owner.is_root() {
        return Err(MetaError::QuotaOfRoot);
    }
    let before = quota::limits_of(txn, req.owner)?;
    let after = quota::QuotaLimits {
        bytes: changed(before.bytes, req.bytes),
        inodes: changed(before.inodes, req.inodes),
    };
    let is_free = after == quota::QuotaLimits::default();
    if !is_free {
        quota::turn_on(txn)?;
    }
    if let QuotaOwner::Tree(top) = req.owner {
        inode::load_dir(txn, top)?;
        if quota::is_on(txn)? {
            quota::adopt(txn, top, (!is_free).then_some(top))?;
        }
    }
    quota::put_limits(txn, req.owner, after);
    quota_of(txn, req.owner)
}

fn changed(limit: Option<u64>, change: LimitChange) -> Option<u64> {
    match change {
        LimitChange::Keep => limit,
        LimitChange::Set(limit) => Some(limit),
        LimitChange::Clear => None,
    }
}
