//! `symlink`: a name that leads to a path.

use super::{add_entry, load_dir_for_new};
use crate::{MetaError, OpEnv, Result, Stat, inode, inode::New};
use pvfs_kv::WriteTxn;
use pvfs_types::{FileKind, limits};
use pvfs_wire::msg::namespace::SymLink;

/// # Errors
/// `EEXIST`; `EACCES`; `ENOENT` an empty target; `ENAMETOOLONG` a target of more than 4,095 bytes; `EINVAL` one with
/// NUL; `ESTALE` `dir` is gone.
pub fn symlink(txn: &mut impl WriteTxn, req: &SymLink, env: &OpEnv) -> Result<Stat> {
    check_target(&req.target)?;
    let cred = &req.by.cred;
    let dir = load_dir_for_new(txn, req.dir, &req.name, cred)?;
    let new = New { target: Some(req.target.clone()), ..New::of(FileKind::Symlink, 0o777.into()) };
    let link = inode::make(txn, &dir, new, cred, env.now)?;
    add_entry(txn, dir, &req.name, &link, env)?;
    inode::stat(txn, &link, req.by.session)
}

fn check_target(target: &[u8]) -> Result<()> {
    if target.is_empty() {
        return Err(MetaError::LinkTargetEmpty);
    }
    if target.len() > limits::PATH_BYTES_MAX {
        return Err(MetaError::LinkTargetTooLong { bytes: target.len() });
    }
    if target.contains(&0) {
        return Err(MetaError::LinkTargetNul);
    }
    Ok(())
}
