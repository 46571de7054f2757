//! `readdir`: the entries of a directory, from a cookie on, with attributes if asked.

use crate::{Result, access, dentry, inode};
use pvfs_kv::Read;
use pvfs_types::limits;
use pvfs_wire::msg::namespace::{DirEntries, DirEntry, Entry, ReadDir};
use std::ops::ControlFlow;

/// A reply ends after so many bytes, so that it fits a frame's body with room to spare.
const REPLY_BYTES_MAX: usize = limits::BODY_BYTES_MAX as usize / 2;
/// More than an entry takes besides its name, without and with attributes.
const ENTRY_BYTES: usize = 32;
const ATTR_BYTES: usize = 256;

/// Entries whose cookie is above `req.cookie`, in cookie order; those that share one come together.
///
/// # Errors
/// `EACCES` no read permission; `ENOTDIR`; `ESTALE` the directory is gone.
pub fn readdir(txn: &(impl Read + ?Sized), req: &ReadDir) -> Result<DirEntries> {
    let dir = inode::load_dir(txn, req.dir)?;
    access::may_read(&dir, &req.caller.cred)?;
    let entries_max = req.entries_max.clamp(1, limits::READDIR_ENTRIES_MAX) as usize;
    let mut entries: Vec<DirEntry> = Vec::new();
    let mut bytes = 0;
    let mut end = true;
    dentry::each_after(txn, req.dir, req.cookie, |cookie, name, found| {
        let full = entries.len() >= entries_max || bytes >= REPLY_BYTES_MAX;
        if full && entries.last().is_some_and(|last| last.cookie != cookie) {
            end = false;
            return Ok(ControlFlow::Break(()));
        }
        bytes += name.as_bytes().len() + ENTRY_BYTES + if req.plus { ATTR_BYTES } else { 0 };
        entries.push(DirEntry { name, ino: found.ino, kind: found.kind, cookie, entry: None });
        Ok(ControlFlow::Continue(()))
    })?;
    if req.plus {
        for entry in &mut entries {
            let inode = inode::load_named(txn, entry.ino)?;
            entry.entry = Some(Entry::from(inode::stat(txn, &inode, req.caller.session)?));
        }
    }
    Ok(DirEntries { entries, end })
}
