//! `tmpfile`: a regular file without a name, open from the start: an orphan that may be given a name.

use super::mode_asked;
use crate::{MetaError, OpEnv, Result, Stat, access, inode, inode::New, orphan, writer};
use pvfs_kv::WriteTxn;
use pvfs_types::FileKind;
use pvfs_wire::{Access, msg::namespace::TmpFile};

/// Makes a regular file as [`create`](super::create()) in `req.dir` would, without a name. It is listed as an orphan, so that it
/// goes once every live session has seen it there and none has it open. With write access the session is recorded as a writer.
///
/// # Errors
/// `EACCES` no permission on `dir`; `EINVAL` for nothing to do, and for a layout that cannot be had; `ENOSPC` no target
/// is up, or the store is full; `ENOTDIR`; `ESTALE` `dir` is gone.
pub fn tmpfile(txn: &mut impl WriteTxn, req: &TmpFile, env: &OpEnv) -> Result<Stat> {
    let dir = inode::load_dir(txn, req.dir)?;
    let cred = &req.by.cred;
    access::may_search(&dir, cred)?;
    access::may_change_entries(&dir, cred)?;
    if req.open == Access::default() {
        return Err(MetaError::NoAccessAsked);
    }
    if env.is_short {
        return Err(MetaError::StoreShort);
    }
    let dist = env.placement.choose(req.layout.or(dir.layout.unwrap_or_default()))?;
    let new = New { dist: Some(dist), ..New::of(FileKind::File, mode_asked(req.mode, req.unmasked)) };
    let mut file = inode::make(txn, &dir, new, cred, env.now)?;
    file.drop_link()?;
    orphan::list(txn, &mut file, req.linkable)?;
    if req.open.covers(Access::WRITE) {
        writer::add(txn, &mut file, req.by.session, None, env.now)?;
    }
    Ok(Stat { attr: file.attr(), has_writers: false, allowed: file.allowed })
}
