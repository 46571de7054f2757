//! `put_inline`: the only writer of a new, small file closes it and tells its bytes, which are kept here.

use super::report_size::{changed_by_writing, check_time};
use crate::{Inode, MetaError, OpEnv, Result, Stat, inline, inode, intent, writer};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{FileKind, limits::INLINE_BYTES_MAX};
use pvfs_wire::msg::file::PutInline;

/// Keeps the bytes and ends the session's standing as a writer, if it is the only one and no target may have had a byte of the
/// file; else nothing at all changes, and the answer tells so.
///
/// # Errors
/// `EINVAL` not a regular file, or no time; `ESTALE` the inode is gone.
pub fn put_inline(txn: &mut impl WriteTxn, req: &PutInline, env: &OpEnv) -> Result<Stat> {
    let mut file = inode::load(txn, req.ino)?;
    if file.kind != FileKind::File {
        return Err(MetaError::WrongKind { ino: req.ino, wanted: "a regular file" });
    }
    check_time(req.mtime)?;
    if can_keep(txn, &file, req)? {
        inline::put(txn, &mut file, &req.data);
        changed_by_writing(txn, &mut file, req.mtime, &req.by.cred, env.now)?;
        inode::put(txn, &file)?;
        writer::remove(txn, req.ino, req.by.session)?;
    }
    inode::stat(txn, &inode::load(txn, req.ino)?, req.by.session)
}

fn can_keep(txn: &impl Read, file: &Inode, req: &PutInline) -> Result<bool> {
    let fits = (1..=INLINE_BYTES_MAX).contains(&req.data.len());
    let is_new = file.size == 0 && file.size_epoch == req.size_epoch && file.inline.is_none();
    let writers = writer::of(txn, req.ino, req.by.session)?;
    let is_alone = writers.own && !writers.foreign;
    Ok(fits && is_new && is_alone && intent::find(txn, req.ino)?.is_none())
}
