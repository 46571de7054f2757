//! Extended attributes that have records of their own: all but the ACLs, which stand in the inode.
//!
//! The inode keeps what they come to, so that whoever asks for one of an inode without any needs no other read. Knows no
//! permissions.

use crate::record::{self, Inode, Xattr, XattrTotals};
use crate::{MetaError, Result, keys, scan};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{AclKind, Ino, XattrName, limits, xattr::FILE_CAPS};

/// The value of the attribute `name`, if `inode` has it.
pub fn find(txn: &(impl Read + ?Sized), inode: &Inode, name: &XattrName) -> Result<Option<Vec<u8>>> {
    if inode.xattrs.is_none() {
        return Ok(None);
    }
    Ok(record::find::<Xattr>(txn, &keys::xattr(inode.ino, name))?.map(|xattr| xattr.value))
}

/// The names of the attributes that have records of their own, in their bytes' order.
pub fn names(txn: &(impl Read + ?Sized), inode: &Inode) -> Result<Vec<XattrName>> {
    if inode.xattrs.is_none() {
        return Ok(Vec::new());
    }
    scan::collect(txn, &keys::xattrs(inode.ino), |mut key, _| {
        let name = key.ino().and_then(|_| key.xattr_name());
        Ok(key.whole(name))
    })
}

/// Gives `inode` the attribute, or another value of it. The caller puts the inode.
///
/// # Errors
/// [`MetaError::XattrTooBig`], [`MetaError::XattrsFull`].
pub(crate) fn put(txn: &mut impl WriteTxn, inode: &mut Inode, name: &XattrName, value: &[u8]) -> Result<()> {
    if value.len() > limits::XATTR_VALUE_BYTES_MAX {
        return Err(MetaError::XattrTooBig { bytes: value.len() });
    }
    if find(txn, inode, name)?.is_none() {
        let mut totals = inode.xattrs.unwrap_or_default();
        totals.add(name);
        inode.xattrs = Some(totals);
        check_list(inode)?;
    }
    record::put(txn, &keys::xattr(inode.ino, name), &Xattr { value: value.to_vec() });
    Ok(())
}

/// Takes the attribute away, if it is there: tells whether it was. The caller puts the inode.
pub(crate) fn remove(txn: &mut impl WriteTxn, inode: &mut Inode, name: &XattrName) -> Result<bool> {
    if find(txn, inode, name)?.is_none() {
        return Ok(false);
    }
    txn.delete(&keys::xattr(inode.ino, name));
    inode.xattrs = inode.xattrs.and_then(|totals| totals.without(name));
    Ok(true)
}

/// A file that is written, cut or given away keeps no right of its program's. The caller puts the inode.
pub(crate) fn drop_file_caps(txn: &mut impl WriteTxn, inode: &mut Inode) -> Result<()> {
    if inode.xattrs.is_some_and(|totals| totals.file_caps) {
        remove(txn, inode, &XattrName::new(FILE_CAPS)?)?;
    }
    Ok(())
}

/// Takes all of them away; the inode is the caller's to put or remove.
pub(crate) fn remove_all(txn: &mut impl WriteTxn, ino: Ino) -> Result<()> {
    let all = scan::collect(txn, &keys::xattrs(ino), |mut key, _| {
        let name = key.ino().and_then(|_| key.xattr_name());
        Ok(key.whole(name))
    })?;
    for name in all {
        txn.delete(&keys::xattr(ino, &name));
    }
    Ok(())
}

/// Whether the list of all names, those of the ACLs too, can still be told.
///
/// # Errors
/// [`MetaError::XattrsFull`].
pub(crate) fn check_list(inode: &Inode) -> Result<()> {
    let acls = [(&inode.acl, AclKind::Access), (&inode.default_acl, AclKind::Default)];
    let acls = acls.iter().filter(|(acl, _)| acl.is_some()).map(|(_, kind)| kind.name().len() + 1);
    let records = inode.xattrs.unwrap_or_default().list_bytes as usize;
    if records + acls.sum::<usize>() > limits::XATTR_LIST_BYTES_MAX {
        return Err(MetaError::XattrsFull { ino: inode.ino });
    }
    Ok(())
}

impl XattrTotals {
    pub(crate) fn add(&mut self, name: &XattrName) {
        self.count += 1;
        self.list_bytes = self.list_bytes.saturating_add(list_bytes(name));
        self.file_caps |= name.is_file_caps();
    }

    /// `None`: nothing is left.
    fn without(self, name: &XattrName) -> Option<XattrTotals> {
        let left = XattrTotals {
            count: self.count.saturating_sub(1),
            list_bytes: self.list_bytes.saturating_sub(list_bytes(name)),
            file_caps: self.file_caps && !name.is_file_caps(),
        };
        (left.count > 0).then_some(left)
    }
}

fn list_bytes(name: &XattrName) -> u32 {
    u32::try_from(name.list_bytes()).unwrap_or(u32::MAX)
}
