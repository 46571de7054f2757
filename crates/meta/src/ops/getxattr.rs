//! `getxattr`: the value of one extended attribute, or of an ACL.

use crate::{Inode, MetaError, Result, access, inode, xattr};
use pvfs_kv::Read;
use pvfs_types::{Acl, AclKind, XattrSpace};
use pvfs_wire::msg::xattr::GetXattr;

/// # Errors
/// `ENODATA` there is none, or none that the caller may know of; `EACCES` no read permission; `EOPNOTSUPP`, `EINVAL` no such
/// name space, or a name that is nothing else; `ESTALE` the inode is gone.
pub fn getxattr(txn: &(impl Read + ?Sized), req: &GetXattr) -> Result<Vec<u8>> {
    let inode = inode::load(txn, req.ino)?;
    let space = req.name.space()?;
    access::may_read_xattr(&inode, &req.caller.cred, space, &req.name)?;
    let value = match space {
        XattrSpace::Acl(kind) => acl(&inode, kind).map(Acl::to_xattr),
        XattrSpace::User | XattrSpace::Trusted | XattrSpace::Security => xattr::find(txn, &inode, &req.name)?,
    };
    value.ok_or_else(|| MetaError::NoXattr { ino: req.ino, name: req.name.clone() })
}

fn acl(inode: &Inode, kind: AclKind) -> Option<&Acl> {
    match kind {
        AclKind::Access => inode.acl.as_ref(),
        AclKind::Default => inode.default_acl.as_ref(),
    }
}
