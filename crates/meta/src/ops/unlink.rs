//! `unlink`: a name goes; with the last one the inode, once nobody has it open.

use super::load_named;
use crate::{Inode, MetaError, OpEnv, Result, access, dentry, inode, orphan};
use pvfs_kv::WriteTxn;
use pvfs_types::Timestamp;
use pvfs_wire::msg::{namespace::Unlink, session::Orphan};

/// # Errors
/// `ENOENT`; `EACCES`; `EPERM` a sticky directory; `EISDIR`; `ESTALE` `dir` is gone.
pub fn unlink(txn: &mut impl WriteTxn, req: &Unlink, env: &OpEnv) -> Result<Option<Orphan>> {
    let cred = &req.by.cred;
    let (mut dir, victim) = load_named(txn, req.dir, &req.name, cred)?;
    access::may_take_name(&dir, &req.name, &victim, cred)?;
    if victim.is_dir() {
        return Err(MetaError::IsDir { ino: victim.ino });
    }
    dentry::delete(txn, req.dir, &req.name);
    dir.touch_content(env.now);
    inode::put(txn, &dir)?;
    drop_name(txn, victim, env.now)
}

/// `inode`, not a directory, has one name less.
pub(super) fn drop_name(txn: &mut impl WriteTxn, mut inode: Inode, now: Timestamp) -> Result<Option<Orphan>> {
    inode.drop_link()?;
    inode.touch(now);
    if inode.nlink == 0 {
        return orphan::last_name_gone(txn, &mut inode);
    }
    inode::put(txn, &inode)?;
    Ok(None)
}
