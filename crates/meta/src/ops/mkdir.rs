//! `mkdir`: a new, empty directory.

use super::{add_entry, load_dir_for_new};
use crate::{OpEnv, Result, Stat, inode, inode::New};
use pvfs_kv::WriteTxn;
use pvfs_types::FileKind;
use pvfs_wire::msg::namespace::MkDir;

/// # Errors
/// `EEXIST`; `EACCES`; `EMLINK` `dir` has as many subdirectories as it can have; `ESTALE` `dir` is gone.
pub fn mkdir(txn: &mut impl WriteTxn, req: &MkDir, env: &OpEnv) -> Result<Stat> {
    let cred = &req.by.cred;
    let parent = load_dir_for_new(txn, req.dir, &req.name, cred)?;
    let new = inode::make(
        txn,
        &parent,
        New::of(FileKind::Dir, super::mode_asked(req.mode, req.unmasked)),
        cred,
        env.now,
    )?;
    add_entry(txn, parent, &req.name, &new, env)?;
    inode::stat(txn, &new, req.by.session)
}
