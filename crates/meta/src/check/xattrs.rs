//! Extended attributes and ACLs: each has its inode, which counts it; and an ACL says of the mode's classes what the mode says.

use super::{Findings, content::Content};
use crate::record::Inode;
use crate::{Result, inode, xattr};
use pvfs_kv::WriteTxn;
use pvfs_types::{FileKind, Timestamp};

pub(super) fn check(content: &Content, findings: &mut Findings) {
    for (ino, found) in &content.xattrs {
        let about = format!("inode {ino}");
        match content.inodes.get(ino) {
            None => findings.add(&about, format!("has {} attributes, it is gone", found.count)),
            Some(inode) => findings.expect(
                inode.xattrs == Some(*found),
                &about,
                format!("counts other attributes than its {}", found.count),
            ),
        }
    }
    for inode in content.inodes.values() {
        let counted = inode.xattrs.is_none() || content.xattrs.contains_key(&inode.ino);
        findings.expect(counted, format!("inode {}", inode.ino), "counts attributes, has none");
        acls(inode, findings);
    }
}

fn acls(inode: &Inode, findings: &mut Findings) {
    let about = format!("inode {}", inode.ino);
    if let Some(acl) = &inode.acl {
        findings.expect(acl.mode_bits() == inode.mode & 0o777, &about, "its ACL and its mode differ");
        findings.expect(!acl.is_mode_only(), &about, "has an ACL that says no more than its mode");
        findings.expect(inode.kind != FileKind::Symlink, &about, "a symbolic link with an ACL");
    }
    findings.expect(inode.default_acl.is_none() || inode.is_dir(), &about, "a default ACL of no directory");
}

/// Gives how many records changed.
pub(super) fn mend(txn: &mut impl WriteTxn, content: &Content, now: Timestamp) -> Result<u64> {
    let mut changed = 0;
    for (&ino, found) in content.xattrs.iter().filter(|(ino, _)| !content.inodes.contains_key(ino)) {
        xattr::remove_all(txn, ino)?;
        changed += u64::from(found.count);
    }
    for ino in content.inodes.keys() {
        let found = content.xattrs.get(ino).copied();
        // As it is by now: its links may have been mended.
        let Some(mut mended) = inode::find(txn, *ino)?.filter(|inode| inode.xattrs != found) else {
            continue;
        };
        mended.xattrs = found;
        mended.touch(now);
        inode::put(txn, &mended)?;
        changed += 1;
    }
    Ok(changed)
}
