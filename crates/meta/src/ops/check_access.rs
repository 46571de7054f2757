//! `access`: whether the caller may, without doing it.

use crate::{MetaError, Result, access, inode};
use pvfs_kv::Read;
use pvfs_wire::msg::namespace::CheckAccess;

/// # Errors
/// `EACCES` some bit of the mask is refused; `ESTALE` the inode is gone.
pub fn check_access(txn: &(impl Read + ?Sized), req: &CheckAccess) -> Result<()> {
    let inode = inode::load(txn, req.ino)?;
    if access::allows(&inode, &req.caller.cred, req.mask & 0o7) {
        Ok(())
    } else {
        Err(MetaError::Denied { ino: req.ino, needs: "all of the permissions asked about" })
    }
}
