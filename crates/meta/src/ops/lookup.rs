//! `lookup`: what a name stands for.

use super::load_named;
use crate::{MetaError, Result, Stat, access, inode};
use pvfs_kv::Read;
use pvfs_wire::msg::namespace::Lookup;

/// The inode that `req.name` stands for in `req.dir`; without a name, the parent of `req.dir`.
///
/// # Errors
/// `ENOENT` no such name; `EACCES` no search permission; `ENOTDIR`; `ESTALE` `dir` is gone.
pub fn lookup(txn: &(impl Read + ?Sized), req: &Lookup) -> Result<Stat> {
    let found = if let Some(name) = &req.name {
        load_named(txn, req.dir, name, &req.caller.cred)?.1
    } else {
        let dir = inode::load_dir(txn, req.dir)?;
        access::may_search(&dir, &req.caller.cred)?;
        let parent = dir.parent.ok_or_else(|| MetaError::Corrupt {
            what: "inode",
            detail: format!("directory {} has no parent", dir.ino),
        })?;
        inode::load_named(txn, parent)?
    };
    inode::stat(txn, &found, req.caller.session)
}
