//! `setxattr`: gives an inode an extended attribute, or an ACL.

use crate::{Inode, MetaError, OpEnv, Result, Stat, access, inode, xattr};
use pvfs_kv::WriteTxn;
use pvfs_types::{Acl, AclKind, Cred, XattrSpace, mode};
use pvfs_wire::msg::xattr::{SetXattr, XattrMode};

/// Sets the attribute. An access ACL that says no more than a mode changes only the mode; one without entries, and a
/// default one, is taken away.
///
/// # Errors
/// `EACCES` no write permission; `EPERM` what is the owner's or root's, or `user.` of what is neither file nor directory;
/// `EEXIST`, `ENODATA` as `req.mode` has it; `E2BIG` the value; `ENOSPC` the list of names, or the store; `EINVAL` an ACL
/// that is not valid, `EACCES` a default one of no directory, `EOPNOTSUPP` one of a symbolic link, or no such name space;
/// `ESTALE` the inode is gone.
pub fn setxattr(txn: &mut impl WriteTxn, req: &SetXattr, env: &OpEnv) -> Result<Stat> {
    let mut inode = inode::load(txn, req.ino)?;
    let (space, cred) = (req.name.space()?, &req.by.cred);
    access::may_write_xattr(&inode, cred, space)?;
    if env.is_short {
        return Err(MetaError::StoreShort);
    }
    match space {
        XattrSpace::Acl(kind) => set_acl(&mut inode, kind, Acl::from_xattr(&req.value)?, cred)?,
        XattrSpace::User | XattrSpace::Trusted | XattrSpace::Security => {
            check_mode(txn, &inode, req)?;
            xattr::put(txn, &mut inode, &req.name, &req.value)?;
        }
    }
    inode.touch(env.now);
    inode::put(txn, &inode)?;
    inode::stat(txn, &inode, req.by.session)
}

fn check_mode(txn: &impl WriteTxn, inode: &Inode, req: &SetXattr) -> Result<()> {
    let is_there = || Ok::<_, MetaError>(xattr::find(txn, inode, &req.name)?.is_some());
    match req.mode {
        XattrMode::Create if is_there()? => {
            Err(MetaError::XattrExists { ino: req.ino, name: req.name.clone() })
        }
        XattrMode::Replace if !is_there()? => {
            Err(MetaError::NoXattr { ino: req.ino, name: req.name.clone() })
        }
        XattrMode::Set | XattrMode::Create | XattrMode::Replace => Ok(()),
    }
}

/// Gives `inode` that ACL, or none, and the mode that goes with it.
pub(super) fn set_acl(inode: &mut Inode, kind: AclKind, acl: Option<Acl>, cred: &Cred) -> Result<()> {
    match (kind, acl) {
        (AclKind::Access, Some(acl)) => {
            let bits = inode.mode & !0o777 | acl.mode_bits();
            inode.mode = access::chmod(inode, bits & mode::ALL, cred);
            inode.acl = (!acl.is_mode_only()).then_some(acl);
        }
        // The mode stays: what the mask let through, the group now gets.
        (AclKind::Access, None) => inode.acl = None,
        (AclKind::Default, Some(_)) if !inode.is_dir() => {
            return Err(MetaError::DefaultAclOfNoDir { ino: inode.ino });
        }
        (AclKind::Default, acl) => inode.default_acl = acl,
    }
    xattr::check_list(inode)
}
