//! What limits let somebody do. All is decided on the counts as they are in the transaction.

use super::{is_on, limits_of, owners, usage};
use crate::record::{Inode, QuotaUsage};
use crate::{MetaError, Result, inode, writer};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{Cred, Ino, QuotaOwner};

/// A file that is opened for writing may grow by about as much as it is long before its client asks again: at least by
/// this, in bytes …
const AHEAD_MIN: u64 = 1 << 20;
/// … and at most by this; …
const AHEAD_MAX: u64 = 256 << 20;
/// … but it takes no more than this part of what its owner has left.
const AHEAD_SHARE: u64 = 8;

/// The limit of bytes that binds a file most.
#[derive(Clone, Copy)]
struct Bound {
    owner: QuotaOwner,
    limit: u64,
    /// What its owner uses without the file.
    others: u128,
}

impl Bound {
    /// How far the file may reach.
    fn most(self) -> u64 {
        u64::try_from(u128::from(self.limit).saturating_sub(self.others)).unwrap_or(u64::MAX)
    }

    fn exceeded(self, reach: u64) -> MetaError {
        let used = self.others.saturating_add(reach.into());
        MetaError::QuotaExceeded { owner: self.owner, what: "bytes", used, limit: self.limit }
    }
}

fn bound(txn: &(impl Read + ?Sized), file: &Inode) -> Result<Option<Bound>> {
    let mut tightest: Option<Bound> = None;
    if !is_on(txn)? {
        return Ok(None);
    }
    let counted = inode::find(txn, file.ino)?;
    for owner in owners(file) {
        let Some(limit) = limits_of(txn, owner)?.bytes else { continue };
        let others = without(txn, owner, counted.as_ref())?.charged();
        let bound = Bound { owner, limit, others };
        if tightest.is_none_or(|tightest| bound.most() < tightest.most()) {
            tightest = Some(bound);
        }
    }
    Ok(tightest)
}

/// What `owner` uses beside `counted`, as that is counted.
fn without(txn: &(impl Read + ?Sized), owner: QuotaOwner, counted: Option<&Inode>) -> Result<QuotaUsage> {
    let usage = usage(txn, owner)?;
    let own = counted.filter(|inode| owners(inode).any(|of| of == owner));
    Ok(own.map_or(usage, |inode| usage.minus(inode.charge())))
}

/// Whether a limit of bytes binds the file `ino`.
pub fn is_bound(txn: &(impl Read + ?Sized), ino: Ino) -> Result<bool> {
    match inode::find(txn, ino)? {
        Some(inode) => Ok(bound(txn, &inode)?.is_some()),
        None => Ok(false),
    }
}

/// Says in `file`, and puts it, how far its writers may write. With `need` that is so far at least.
///
/// # Errors
/// `EDQUOT` no limit leaves room for `need`.
pub fn allow(txn: &mut impl WriteTxn, file: &mut Inode, need: Option<u64>) -> Result<()> {
    let allowed = match bound(txn, file)? {
        None => None,
        Some(bound) => Some(reach_allowed(bound, file, need)?),
    };
    if allowed != file.allowed {
        file.allowed = allowed;
        inode::put(txn, file)?;
    }
    Ok(())
}

fn reach_allowed(bound: Bound, file: &Inode, need: Option<u64>) -> Result<u64> {
    let (reach, most) = (file.reach(), bound.most());
    let needs_more = need.is_some_and(|need| need > reach);
    if need.is_some_and(|need| needs_more && need > most) {
        return Err(bound.exceeded(reach));
    }
    if !needs_more && file.allowed.is_some() {
        return Ok(reach);
    }
    let to = need.unwrap_or(0).max(reach);
    let ahead = to.clamp(AHEAD_MIN, AHEAD_MAX).min(most.saturating_sub(to) / AHEAD_SHARE);
    Ok(to.saturating_add(ahead))
}

/// Whether the file may be made `size` long, which is more than it is. While it has writers, that is charged at once.
///
/// # Errors
/// `EDQUOT`.
pub fn may_have_size(txn: &mut impl WriteTxn, file: &Inode, size: u64) -> Result<()> {
    let Some(bound) = bound(txn, file)? else { return Ok(()) };
    if size > file.reach() && size > bound.most() {
        return Err(bound.exceeded(file.reach()));
    }
    if writer::list(txn, file.ino)?.is_empty() {
        return Ok(());
    }
    if let Some(mut counted) = inode::find(txn, file.ino)? {
        counted.allowed = Some(counted.reach().max(size));
        inode::put(txn, &counted)?;
    }
    Ok(())
}

/// Root may exceed what users and groups may; not what a tree may.
fn binds(owner: QuotaOwner, cred: &Cred) -> bool {
    owner.is_tree() || !cred.is_root()
}

/// Whether `cred` may make `inode`.
///
/// # Errors
/// `EDQUOT`.
pub fn may_make(txn: &(impl Read + ?Sized), inode: &Inode, cred: &Cred) -> Result<()> {
    if !is_on(txn)? {
        return Ok(());
    }
    owners(inode).filter(|&owner| binds(owner, cred)).try_for_each(|owner| may_count(txn, owner))
}

fn may_count(txn: &(impl Read + ?Sized), owner: QuotaOwner) -> Result<()> {
    let used = usage(txn, owner)?.inodes;
    match limits_of(txn, owner)?.inodes {
        Some(limit) if used >= limit => {
            Err(MetaError::QuotaExceeded { owner, what: "inodes", used: used.into(), limit })
        }
        _ => Ok(()),
    }
}

/// Whether `cred` may charge `new`, which was `old`, to other owners.
///
/// # Errors
/// `EDQUOT`.
pub fn may_own(txn: &(impl Read + ?Sized), old: &Inode, new: &Inode, cred: &Cred) -> Result<()> {
    if !is_on(txn)? {
        return Ok(());
    }
    let is_new = |owner: &QuotaOwner| owners(old).all(|before| before != *owner);
    for owner in owners(new).filter(is_new).filter(|&owner| binds(owner, cred)) {
        may_count(txn, owner)?;
        let Some(limit) = limits_of(txn, owner)?.bytes else { continue };
        let used = usage(txn, owner)?.charged();
        let share = new.charge().charged();
        if share > 0 && used.saturating_add(share) > limit.into() {
            return Err(MetaError::QuotaExceeded { owner, what: "bytes", used, limit });
        }
    }
    Ok(())
}
