//! `listxattr`: the names of the attributes that the caller may know of.

use crate::{Result, access, inode, xattr};
use pvfs_kv::Read;
use pvfs_types::{AclKind, XattrName};
use pvfs_wire::msg::xattr::ListXattr;

/// Needs no permission on the inode.
///
/// # Errors
/// `ESTALE` the inode is gone.
pub fn listxattr(txn: &(impl Read + ?Sized), req: &ListXattr) -> Result<Vec<XattrName>> {
    let inode = inode::load(txn, req.ino)?;
    let mut names = xattr::names(txn, &inode)?;
    names.retain(|name| name.space().is_ok_and(|space| access::may_list_xattr(&req.caller.cred, space)));
    for (acl, kind) in [(&inode.acl, AclKind::Access), (&inode.default_acl, AclKind::Default)] {
        if acl.is_some() {
            names.push(XattrName::new(kind.name())?);
        }
    }
    Ok(names)
}
