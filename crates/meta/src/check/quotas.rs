//! Quotas: what is counted is what there is; trees are whole; and only what is written is charged ahead.

use super::{Findings, content::Content};
use crate::record::{Inode, QuotaUsage};
use crate::{Result, inode, quota, superblock};
use pvfs_kv::WriteTxn;
use pvfs_types::{QuotaOwner, SessionId};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(content: &Content, findings: &mut Findings) {
    let right = right_usage(content);
    for owner in right.keys().chain(content.usage.keys()).collect::<BTreeSet<_>>() {
        let of = |sums: &BTreeMap<QuotaOwner, QuotaUsage>| sums.get(owner).copied().unwrap_or_default();
        let (counted, there) = (of(&content.usage), of(&right));
        let text = format!("counts {}, there are {}", show(counted), show(there));
        findings.expect(counted == there, format!("use of {owner}"), text);
    }
    findings.expect(content.limited.is_empty() || is_on(content), "limits of use", "nothing is counted");
    for inode in content.inodes.values() {
        let about = format!("inode {}", inode.ino);
        findings.expect(
            inode.allowed.is_none() || may_be_ahead(content, inode),
            &about,
            "is charged ahead, nobody writes it",
        );
        let top = inode.tree.and_then(|tree| content.inodes.get(&tree));
        let is_whole =
            inode.tree.is_none() || inode.nlink == 0 || top.is_some_and(|top| top.tree == Some(top.ino));
        findings.expect(is_whole, &about, "is of a tree that is gone");
    }
    for (dir, name, entry) in &content.dentries {
        let (Some(dir), Some(inode)) = (content.inodes.get(dir), content.inodes.get(&entry.ino)) else {
            continue;
        };
        let fits = inode.tree == dir.tree || (dir.tree.is_none() && inode.tree == Some(inode.ino));
        findings.expect(
            fits,
            format!("{name} in directory {}", dir.ino),
            "is of another tree than the directory",
        );
    }
}

fn show(usage: QuotaUsage) -> String {
    let QuotaUsage { inodes, bytes, ahead } = usage;
    format!("{inodes} inodes, {bytes} bytes and {ahead} ahead")
}

fn is_on(content: &Content) -> bool {
    content.superblock.as_ref().is_some_and(|block| block.format == superblock::FORMAT_COUNTED)
}

fn may_be_ahead(content: &Content, inode: &Inode) -> bool {
    let writer = content.writers.range((inode.ino, SessionId(0))..).next();
    writer.is_some_and(|(ino, _)| *ino == inode.ino)
        || content.intents.iter().any(|intent| intent.ino == inode.ino)
}

fn right_usage(content: &Content) -> BTreeMap<QuotaOwner, QuotaUsage> {
    let mut sums = BTreeMap::new();
    if is_on(content) {
        content.inodes.values().for_each(|inode| quota::add(&mut sums, inode));
    }
    sums
}

/// Makes the counts what there is. Gives how many records changed.
pub(super) fn mend(txn: &mut impl WriteTxn, content: &Content) -> Result<u64> {
    let mut changed = 0;
    for inode in content.inodes.values().filter(|inode| inode.allowed.is_some()) {
        if !may_be_ahead(content, inode)
            && let Some(mut mended) = inode::find(txn, inode.ino)?
        {
            mended.allowed = None;
            inode::put(txn, &mended)?;
            changed += 1;
        }
    }
    // As they are by now.
    let mut right = BTreeMap::new();
    if is_on(content) {
        for ino in content.inodes.keys() {
            inode::find(txn, *ino)?.iter().for_each(|inode| quota::add(&mut right, inode));
        }
    }
    let counted = content.usage.keys().copied().filter(|owner| !right.contains_key(owner));
    let gone: Vec<_> = counted.map(|owner| (owner, QuotaUsage::default())).collect();
    for (owner, usage) in right.into_iter().chain(gone) {
        if quota::usage(txn, owner)? != usage {
            quota::put_usage(txn, owner, usage);
            changed += 1;
        }
    }
    Ok(changed)
}
