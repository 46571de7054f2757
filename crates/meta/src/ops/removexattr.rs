//! `removexattr`: takes an extended attribute away, or an ACL.

use super::setxattr::set_acl;
use crate::{MetaError, OpEnv, Result, Stat, access, inode, xattr};
use pvfs_kv::WriteTxn;
use pvfs_types::XattrSpace;
use pvfs_wire::msg::xattr::RemoveXattr;

/// An ACL that is not there is no error.
///
/// # Errors
/// `ENODATA` there is none; else as of `setxattr`.
pub fn removexattr(txn: &mut impl WriteTxn, req: &RemoveXattr, env: &OpEnv) -> Result<Stat> {
    let mut inode = inode::load(txn, req.ino)?;
    let (space, cred) = (req.name.space()?, &req.by.cred);
    access::may_write_xattr(&inode, cred, space)?;
    match space {
        XattrSpace::Acl(kind) => set_acl(&mut inode, kind, None, cred)?,
        XattrSpace::User | XattrSpace::Trusted | XattrSpace::Security => {
            if !xattr::remove(txn, &mut inode, &req.name)? {
                return Err(MetaError::NoXattr { ino: req.ino, name: req.name.clone() });
            }
        }
    }
    inode.touch(env.now);
    inode::put(txn, &inode)?;
    inode::stat(txn, &inode, req.by.session)
}
