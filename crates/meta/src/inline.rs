//! Small files whose bytes are kept here, and not on targets: their only writer has closed them and told all of it. Whoever is
//! about to write one waits until a target has taken its bytes (an [`crate::Intent`]); then it is a file like any other.

use crate::record::{self, Inline};
use crate::{Inode, Result, inode, keys};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::Ino;

/// The bytes of `ino`, if they are kept here.
pub fn find(txn: &(impl Read + ?Sized), ino: Ino) -> Result<Option<Vec<u8>>> {
    Ok(record::find::<Inline>(txn, &keys::inline(ino))?.map(|inline| inline.data))
}

/// `data` is all of `file`, which is the caller's to put.
pub(crate) fn put(txn: &mut impl WriteTxn, file: &mut Inode, data: &[u8]) {
    record::put(txn, &keys::inline(file.ino), &Inline { data: data.to_vec() });
    file.inline = Some(true);
    file.size = data.len() as u64;
}

/// Nothing of `file`, which is the caller's to put, is kept here any more.
pub(crate) fn remove(txn: &mut impl WriteTxn, file: &mut Inode) {
    if file.inline.take().is_some() {
        txn.delete(&keys::inline(file.ino));
    }
}

/// A target has taken the bytes of `ino`: the file is as it was, but for where they are. That is no change of it: who takes them to be
/// here still asks here, and is told.
pub(crate) fn spilt(txn: &mut impl WriteTxn, ino: Ino) -> Result<()> {
    let mut file = inode::load_named(txn, ino)?;
    remove(txn, &mut file);
    inode::put(txn, &file)
}
