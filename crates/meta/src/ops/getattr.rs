//! `getattr`: what `stat` tells. Needs no permission on the inode.

use crate::{Result, Stat, inode};
use pvfs_kv::Read;
use pvfs_wire::msg::namespace::GetAttr;

/// # Errors
/// `ESTALE` the inode is gone. An orphan is there still.
pub fn getattr(txn: &(impl Read + ?Sized), req: &GetAttr) -> Result<Stat> {
    inode::stat(txn, &inode::load(txn, req.ino)?, req.caller.session)
}
