//! `list_writes`: which files a session counts as a writer of.

use crate::{Result, keys, scan, writer};
use pvfs_kv::Read;
use pvfs_types::{Ino, limits::WRITES_PAGE_MAX};
use pvfs_wire::msg::file::{ListWrites, Writes};
use std::ops::ControlFlow;

/// A page of them, by number.
pub fn list_writes(txn: &(impl Read + ?Sized), req: &ListWrites) -> Result<Writes> {
    let (mut inos, mut end) = (Vec::new(), true);
    if let Some(from) = req.after.0.checked_add(1) {
        let from = keys::session_writer(req.session, Ino(from));
        let to = keys::prefix_end(&keys::session_writers(req.session));
        scan::range(txn, &from, &to, |key, _| {
            if inos.len() == WRITES_PAGE_MAX {
                end = false;
                return Ok(ControlFlow::Break(()));
            }
            inos.push(writer::file_of(keys::Parts::of(key)).ok_or_else(|| scan::bad_key(key))?);
            scan::MORE
        })?;
    }
    Ok(Writes { inos, end })
}
