//! `read_inline`: the bytes of a small file, where they are kept here.

use crate::{Result, inline, inode};
use pvfs_kv::Read;
use pvfs_wire::msg::file::{InlineRead, ReadInline};

/// Whether the caller may read it, it was asked when it opened the file.
///
/// # Errors
/// `ESTALE` the inode is gone.
pub fn read_inline(txn: &(impl Read + ?Sized), req: &ReadInline) -> Result<InlineRead> {
    let inode = inode::load(txn, req.ino)?;
    let data = if inode.inline.is_some() { inline::find(txn, req.ino)? } else { None };
    Ok(InlineRead { entry: inode::stat(txn, &inode, req.caller.session)?.into(), data })
}
