//! `end_writes`: a session has closed files that it had open for writing, with nothing to report.

use crate::{MetaError, Result, writer};
use pvfs_kv::WriteTxn;
use pvfs_types::limits::END_WRITES_MAX;
use pvfs_wire::msg::file::EndWrites;

/// Removes the session's writer records of `req.inos`. A file without one, or that is gone, is passed over.
///
/// # Errors
/// `EINVAL` more files than one request may name.
pub fn end_writes(txn: &mut impl WriteTxn, req: &EndWrites) -> Result<()> {
    if req.inos.len() > END_WRITES_MAX {
        return Err(MetaError::TooManyFiles { files: req.inos.len() });
    }
    for &ino in &req.inos {
        writer::remove(txn, ino, req.by.session)?;
    }
    Ok(())
}
