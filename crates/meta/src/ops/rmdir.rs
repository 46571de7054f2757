//! `rmdir`: an empty directory goes, at once.

use super::load_named;
use crate::{MetaError, OpEnv, Result, access, dentry, inode};
use pvfs_kv::WriteTxn;
use pvfs_wire::msg::namespace::RmDir;

/// # Errors
/// `ENOENT`; `EACCES`; `EPERM` a sticky directory; `ENOTDIR`; `ENOTEMPTY`; `ESTALE` `dir` is gone.
pub fn rmdir(txn: &mut impl WriteTxn, req: &RmDir, env: &OpEnv) -> Result<()> {
    let cred = &req.by.cred;
    let (mut dir, victim) = load_named(txn, req.dir, &req.name, cred)?;
    access::may_take_name(&dir, &req.name, &victim, cred)?;
    if !victim.is_dir() {
        return Err(MetaError::NotDir { ino: victim.ino });
    }
    if !dentry::is_empty(txn, victim.ino)? {
        return Err(MetaError::NotEmpty { dir: victim.ino });
    }
    dentry::delete(txn, req.dir, &req.name);
    inode::remove(txn, &victim)?;
    dir.drop_link()?;
    dir.touch_content(env.now);
    inode::put(txn, &dir)?;
    Ok(())
}
