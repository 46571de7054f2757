//! `list_writes`: which files a session counts as a writer of.

use crate::{Result, keys, scan};
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
            let mut parts = keys::Parts::of(key);
            let ino = parts.session().and_then(|_| parts.ino());
            inos.push(parts.whole(ino).ok_or_else(|| scan::bad_key(key))?);
            scan::MORE
        })?;
    }
    Ok(Writes { inos, end })
}
