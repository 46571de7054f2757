//! `report_size`: a writer tells how far it wrote, at fsync and close.

use crate::{MetaError, OpEnv, Outcome, Result, Stat, inode, intent, writer, xattr};
use pvfs_kv::WriteTxn;
use pvfs_types::{FileKind, limits};
use pvfs_wire::msg::file::ReportSize;

/// Takes the size, if it was learned under the file's present epoch; else nothing at all changes, and the answer
/// tells the present epoch: the client asks the targets and reports again. While a truncation is under way, a report
/// that says something new waits for its end (the write may have missed it), and then finds another epoch.
///
/// # Errors
/// `EINVAL` not a regular file, or no time; `EFBIG`; `ESTALE` the inode is gone.
pub fn report_size(txn: &mut impl WriteTxn, req: &ReportSize, env: &OpEnv) -> Result<Outcome<Stat>> {
    let mut inode = inode::load(txn, req.ino)?;
    if inode.kind != FileKind::File {
        return Err(MetaError::WrongKind { ino: req.ino, wanted: "a regular file" });
    }
    if req.size > limits::FILE_BYTES_MAX {
        return Err(MetaError::SizeTooBig { size: req.size });
    }
    if let Some(mtime) = req.mtime
        && mtime.nanos >= 1_000_000_000
    {
        return Err(MetaError::BadTime { nanos: mtime.nanos });
    }
    let says_something = req.size > inode.size || req.mtime.is_some();
    if says_something && let Some(intent) = intent::find(txn, req.ino)? {
        return Ok(Outcome::Pending(intent));
    }
    if req.size_epoch == inode.size_epoch {
        if says_something {
            inode.size = inode.size.max(req.size);
            inode.touch(env.now);
            if let Some(mtime) = req.mtime {
                inode.mtime = mtime;
                xattr::drop_file_caps(txn, &mut inode)?;
                if !req.by.cred.is_root() {
                    inode.drop_privileges();
                }
            }
        }
        if let Some(bytes) = req.allocated {
            inode.set_allocated(bytes);
        }
        if says_something || req.allocated.is_some() {
            inode::put(txn, &inode)?;
        }
        if req.close {
            writer::remove(txn, req.ino, req.by.session)?;
        }
    }
    Ok(Outcome::Done(inode::stat(txn, &inode, req.by.session)?))
}
