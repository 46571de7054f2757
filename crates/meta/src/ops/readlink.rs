//! `readlink`: where a symbolic link leads.

use crate::{MetaError, Result, inode};
use pvfs_kv::Read;
use pvfs_wire::msg::namespace::ReadLink;

/// # Errors
/// `EINVAL` not a symbolic link; `ESTALE` the inode is gone.
pub fn readlink(txn: &(impl Read + ?Sized), req: &ReadLink) -> Result<Vec<u8>> {
    let inode = inode::load(txn, req.ino)?;
    inode.target.ok_or(MetaError::WrongKind { ino: req.ino, wanted: "a symbolic link" })
}
