//! `link`: one more name for an inode.

use super::{add_entry, load_dir_for_new};
use crate::{MetaError, OpEnv, Result, Stat, inode, orphan, quota};
use pvfs_kv::WriteTxn;
use pvfs_wire::msg::namespace::Link;

/// # Errors
/// `EPERM` a directory; `EEXIST`; `EACCES`; `EMLINK`; `EXDEV` `dir` is in another tree; `ESTALE` `dir` or the inode is gone, or
/// its last name is, and it is not one of [`tmpfile`](super::tmpfile()) that may have a first.
pub fn link(txn: &mut impl WriteTxn, req: &Link, env: &OpEnv) -> Result<Stat> {
    let mut inode = inode::load(txn, req.ino)?;
    let dir = load_dir_for_new(txn, req.dir, &req.name, &req.by.cred)?;
    if inode.is_dir() {
        return Err(MetaError::NotPermitted { ino: req.ino, why: "a directory has one name" });
    }
    if inode.nlink == 0 && !orphan::unlist_linkable(txn, &mut inode)? {
        return Err(MetaError::Unlinked { ino: req.ino });
    }
    quota::same_tree(&dir, &inode, inode.tree)?;
    inode.add_link()?;
    inode.touch(env.now);
    inode::put(txn, &inode)?;
    add_entry(txn, dir, &req.name, &inode, env)?;
    inode::stat(txn, &inode, req.by.session)
}
