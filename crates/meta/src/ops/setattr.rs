//! `setattr`: chmod, chown, truncate, utimens, all at once or one of them.

use crate::{Inode, OpEnv, Outcome, Result, Stat, access, inode, quota, truncate, writer, xattr};
use pvfs_kv::WriteTxn;
use pvfs_types::{SetTime, Timestamp};
use pvfs_wire::msg::namespace::SetAttr;

/// Makes all of `req.changes`, or none.
///
/// # Errors
/// `EPERM` what is the owner's or root's; `EACCES` no write permission; `EISDIR`, `EINVAL` the size of what is no
/// regular file; `EFBIG`; `EDQUOT` an owner may not have so much; `ESTALE` the inode is gone.
pub fn setattr(txn: &mut impl WriteTxn, req: &SetAttr, env: &OpEnv) -> Result<Outcome<Stat>> {
    let mut inode = inode::load(txn, req.ino)?;
    access::may_set(&inode, &req.by.cred, &req.changes, req.by_handle)?;
    if let Some(size) = req.changes.size
        && let Some(intent) = truncate::truncate(txn, &mut inode, size, &req.by, env)?
    {
        return Ok(Outcome::Pending(intent));
    }
    let drops = req.by_handle && req.drop_privileges == Some(true);
    if drops || req.changes.uid.is_some() || req.changes.gid.is_some() {
        xattr::drop_file_caps(txn, &mut inode)?;
    }
    if drops {
        inode.drop_privileges();
    }
    if drops || req.changes != pvfs_types::SetAttr::default() {
        let before = inode.clone();
        apply(&mut inode, req, env.now);
        quota::may_own(txn, &before, &inode, &req.by.cred)?;
        inode::put(txn, &inode)?;
        if (before.uid, before.gid) != (inode.uid, inode.gid) && !writer::list(txn, inode.ino)?.is_empty() {
            quota::allow(txn, &mut inode, None)?;
        }
    }
    Ok(Outcome::Done(inode::stat(txn, &inode, req.by.session)?))
}

fn apply(inode: &mut Inode, req: &SetAttr, now: Timestamp) {
    let changes = &req.changes;
    if changes.uid.is_some() || changes.gid.is_some() {
        inode.uid = changes.uid.unwrap_or(inode.uid);
        inode.gid = changes.gid.unwrap_or(inode.gid);
        // Another owner's program must not run with the old one's trust in it; for root too.
        if !inode.is_dir() {
            inode.drop_privileges();
        }
    }
    if let Some(mode) = changes.mode {
        inode.mode = access::chmod(inode, mode, &req.by.cred);
        if let Some(acl) = &mut inode.acl {
            acl.chmod(inode.mode);
        }
    }
    let at = |time| match time {
        SetTime::Now => now,
        SetTime::At(at) => at,
    };
    inode.atime = changes.atime.map_or(inode.atime, at);
    inode.mtime = changes.mtime.map_or(inode.mtime, at);
    inode.touch(now);
}
