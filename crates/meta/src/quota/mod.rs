//! Quotas: what users, groups and trees use, and what they may.
//!
//! Use is counted where inode records change, whichever operation does it, in the same transaction. Bytes are the sizes of
//! regular files; and of a file that somebody writes, how far its writers may write (`Inode::allowed`), so that what is
//! written before the mgr hears of it is charged already. Nothing is counted before the first limit is set.

mod limits;
mod tree;

pub use crate::record::{QuotaLimits, QuotaUsage};
pub use limits::{allow, is_bound, may_have_size, may_make, may_own};
pub(crate) use tree::{adopt, same_tree};

use crate::record::{self, Inode, Record, Superblock};
use crate::{Result, inode, intent, keys, scan, superblock, writer};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{FileKind, Ino, QuotaOwner};
use std::collections::BTreeMap;

/// Whether use is counted.
pub fn is_on(txn: &(impl Read + ?Sized)) -> Result<bool> {
    Ok(superblock::find(txn)?.is_some_and(|superblock| superblock.format == superblock::FORMAT_COUNTED))
}

pub fn usage(txn: &(impl Read + ?Sized), owner: QuotaOwner) -> Result<QuotaUsage> {
    Ok(record::find(txn, &keys::quota_usage(owner))?.unwrap_or_default())
}

pub fn limits_of(txn: &(impl Read + ?Sized), owner: QuotaOwner) -> Result<QuotaLimits> {
    Ok(record::find(txn, &keys::quota_limits(owner))?.unwrap_or_default())
}

pub(crate) fn put_limits(txn: &mut impl WriteTxn, owner: QuotaOwner, limits: QuotaLimits) {
    let key = keys::quota_limits(owner);
    if limits == QuotaLimits::default() { txn.delete(&key) } else { record::put(txn, &key, &limits) }
}

/// Who is charged for `inode`.
pub(crate) fn owners(inode: &Inode) -> impl Iterator<Item = QuotaOwner> + use<> {
    let tree = inode.tree.map(QuotaOwner::Tree);
    [QuotaOwner::User(inode.uid), QuotaOwner::Group(inode.gid)].into_iter().chain(tree)
}

impl Inode {
    /// What it comes to for each of its owners.
    pub(crate) fn charge(&self) -> QuotaUsage {
        let bytes = if self.kind == FileKind::File { self.size } else { 0 };
        let ahead = self.allowed.map_or(0, |allowed| allowed.saturating_sub(self.size));
        QuotaUsage { inodes: 1, bytes: bytes.into(), ahead: ahead.into() }
    }

    /// How far it reaches, or may be written.
    pub(crate) fn reach(&self) -> u64 {
        self.size.max(self.allowed.unwrap_or(0))
    }
}

impl QuotaUsage {
    /// What is charged in bytes.
    pub fn charged(&self) -> u128 {
        self.bytes.saturating_add(self.ahead)
    }

    fn plus(self, share: QuotaUsage) -> QuotaUsage {
        QuotaUsage {
            inodes: self.inodes.saturating_add(share.inodes),
            bytes: self.bytes.saturating_add(share.bytes),
            ahead: self.ahead.saturating_add(share.ahead),
        }
    }

    /// Never below nothing: a count that was damaged is for `pvfs fsck`, and stops nobody.
    fn minus(self, share: QuotaUsage) -> QuotaUsage {
        QuotaUsage {
            inodes: self.inodes.saturating_sub(share.inodes),
            bytes: self.bytes.saturating_sub(share.bytes),
            ahead: self.ahead.saturating_sub(share.ahead),
        }
    }
}

/// Counts what changes for the owners of inode `ino` when its record becomes `new`; `None`: it goes. To be called before
/// that is put.
pub(crate) fn count(txn: &mut impl WriteTxn, ino: Ino, new: Option<&Inode>) -> Result<()> {
    if !is_on(txn)? {
        return Ok(());
    }
    let old = inode::find(txn, ino)?;
    let same = |old: &Inode, new: &Inode| {
        (old.uid, old.gid, old.tree, old.charge()) == (new.uid, new.gid, new.tree, new.charge())
    };
    if old.as_ref().zip(new).is_some_and(|(old, new)| same(old, new)) {
        return Ok(());
    }
    if let Some(old) = &old {
        for owner in owners(old) {
            let left = usage(txn, owner)?.minus(old.charge());
            put_usage(txn, owner, left);
        }
        if new.is_none() && old.tree == Some(ino) {
            put_limits(txn, QuotaOwner::Tree(ino), QuotaLimits::default());
        }
    }
    if let Some(new) = new {
        for owner in owners(new) {
            let more = usage(txn, owner)?.plus(new.charge());
            put_usage(txn, owner, more);
        }
    }
    Ok(())
}

pub(crate) fn put_usage(txn: &mut impl WriteTxn, owner: QuotaOwner, usage: QuotaUsage) {
    let key = keys::quota_usage(owner);
    if usage == QuotaUsage::default() { txn.delete(&key) } else { record::put(txn, &key, &usage) }
}

/// Counts all there is, once: from then on use is counted, and builds that do not count refuse the store.
pub(crate) fn turn_on(txn: &mut impl WriteTxn) -> Result<()> {
    let superblock = superblock::load(txn)?;
    if superblock.format == superblock::FORMAT_COUNTED {
        return Ok(());
    }
    let mut all = BTreeMap::new();
    scan::prefix(txn, &keys::all(keys::space::INODE), |_, value| {
        add(&mut all, &Inode::from_bytes(value)?);
        scan::MORE
    })?;
    for (owner, usage) in all {
        put_usage(txn, owner, usage);
    }
    let counted = Superblock { format: superblock::FORMAT_COUNTED, ..superblock };
    record::put(txn, &keys::superblock(), &counted);
    Ok(())
}

/// Charges the owners of `inode`, in sums that are made anew.
pub(crate) fn add(sums: &mut BTreeMap<QuotaOwner, QuotaUsage>, inode: &Inode) {
    for owner in owners(inode) {
        let sum = sums.entry(owner).or_default();
        *sum = sum.plus(inode.charge());
    }
}

/// A writer of `ino` is gone. With the last one nothing is charged ahead any more, but for a truncation under way.
pub(crate) fn release(txn: &mut impl WriteTxn, ino: Ino) -> Result<()> {
    if !is_on(txn)? {
        return Ok(());
    }
    let Some(mut inode) = inode::find(txn, ino)?.filter(|inode| inode.allowed.is_some()) else {
        return Ok(());
    };
    if !writer::list(txn, ino)?.is_empty() || intent::find(txn, ino)?.is_some() {
        return Ok(());
    }
    inode.allowed = None;
    inode::put(txn, &inode)
}
