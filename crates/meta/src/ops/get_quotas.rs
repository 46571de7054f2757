//! `get_quotas`: what owners use and may use.

use crate::{MetaError, record::Inode};
use crate::{Result, access, dentry, inode, keys, quota, scan};
use pvfs_kv::Read;
use pvfs_types::{Cred, Ino, QuotaOwner, limits::QUOTAS_PAGE_MAX};
use pvfs_wire::msg::quota::{GetQuotas, Quota, Quotas};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// # Errors
/// `EPERM` what `req.owner` uses is not for the caller to know. In a list such owners are passed over.
pub fn get_quotas(txn: &(impl Read + ?Sized), req: &GetQuotas) -> Result<Quotas> {
    let cred = &req.caller.cred;
    let counted = quota::is_on(txn)?;
    if let Some(owner) = req.owner {
        if !may_know(txn, owner, cred)? {
            return Err(MetaError::NotPermitted { ino: Ino::ROOT, why: "that quota is somebody else's" });
        }
        return Ok(Quotas { counted, quotas: vec![quota_of(txn, owner)?], end: true });
    }
    let max = usize::try_from(req.max).unwrap_or(QUOTAS_PAGE_MAX).clamp(1, QUOTAS_PAGE_MAX);
    let (mut quotas, mut after) = (Vec::new(), req.after);
    loop {
        let page = owners_after(txn, after, max)?;
        for &owner in &page {
            if quotas.len() == max {
                return Ok(Quotas { counted, quotas, end: false });
            }
            if may_know(txn, owner, cred)? {
                quotas.push(quota_of(txn, owner)?);
            }
        }
        match page.last() {
            Some(last) => after = Some(*last),
            None => return Ok(Quotas { counted, quotas, end: true }),
        }
    }
}

/// At most `max` owners behind `after`, in order, that use something or have limits.
fn owners_after(
    txn: &(impl Read + ?Sized),
    after: Option<QuotaOwner>,
    max: usize,
) -> Result<Vec<QuotaOwner>> {
    let mut owners = BTreeSet::new();
    for (space, key) in [
        (keys::space::QUOTA_USAGE, keys::quota_usage as fn(QuotaOwner) -> Vec<u8>),
        (keys::space::QUOTA_LIMITS, keys::quota_limits),
    ] {
        let mut from = after.map_or_else(|| keys::all(space), key);
        if after.is_some() {
            from.push(0);
        }
        let mut left = max;
        scan::range(txn, &from, &keys::prefix_end(&keys::all(space)), |key, _| {
            let owner = keys::Parts::of(key).quota_owner();
            owners.insert(owner.ok_or_else(|| scan::bad_key(key))?);
            left -= 1;
            Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
    }
    Ok(owners.into_iter().take(max).collect())
}

fn may_know(txn: &(impl Read + ?Sized), owner: QuotaOwner, cred: &Cred) -> Result<bool> {
    if super::may_check(txn, cred).is_ok() {
        return Ok(true);
    }
    Ok(match owner {
        QuotaOwner::User(uid) => uid == cred.uid,
        QuotaOwner::Group(gid) => cred.in_group(gid),
        QuotaOwner::Tree(top) => {
            inode::find(txn, top)?.is_some_and(|top| access::may_read(&top, cred).is_ok())
        }
    })
}

pub(super) fn quota_of(txn: &(impl Read + ?Sized), owner: QuotaOwner) -> Result<Quota> {
    let (usage, limits) = (quota::usage(txn, owner)?, quota::limits_of(txn, owner)?);
    let path = match owner {
        QuotaOwner::Tree(top) => path_of(txn, top)?,
        QuotaOwner::User(_) | QuotaOwner::Group(_) => None,
    };
    let told = |sum: u128| u64::try_from(sum).unwrap_or(u64::MAX);
    Ok(Quota {
        owner,
        bytes: told(usage.bytes),
        bytes_ahead: told(usage.ahead),
        bytes_limit: limits.bytes,
        inodes: usage.inodes,
        inodes_limit: limits.inodes,
        path,
    })
}

/// Where directory `top` is. `None`: it is gone.
fn path_of(txn: &(impl Read + ?Sized), top: Ino) -> Result<Option<Vec<u8>>> {
    let mut names = Vec::new();
    let Some(mut at) = inode::find(txn, top)?.filter(Inode::is_dir) else { return Ok(None) };
    while at.ino != Ino::ROOT {
        let Some(parent) = at.parent else { return Ok(None) };
        let mut name = None;
        dentry::each_after(txn, parent, 0, |_, of, entry| {
            if entry.ino != at.ino {
                return scan::MORE;
            }
            name = Some(of);
            Ok(ControlFlow::Break(()))
        })?;
        let Some(name) = name else { return Ok(None) };
        names.push(name);
        at = inode::load_named(txn, parent)?;
    }
    let path: Vec<u8> = names.iter().rev().flat_map(|name| [b"/", name.as_bytes()].concat()).collect();
    Ok(Some(if path.is_empty() { b"/".to_vec() } else { path }))
}
