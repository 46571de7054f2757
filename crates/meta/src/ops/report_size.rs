//! `report_size`: a writer tells how far it wrote, at fsync and close.

use crate::{Inode, MetaError, OpEnv, Outcome, Result, Stat, inode, intent, writer, xattr};
use pvfs_kv::WriteTxn;
use pvfs_types::{Cred, FileKind, Timestamp, limits};
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
    check_time(req.mtime)?;
    let says_something = req.size > inode.size || req.mtime.is_some();
    if says_something && let Some(intent) = intent::find(txn, req.ino)? {
        return Ok(Outcome::Pending(intent));
    }
    if req.size_epoch == inode.size_epoch {
        if says_something {
            inode.size = inode.size.max(req.size);
            changed_by_writing(txn, &mut inode, req.mtime, &req.by.cred, env.now)?;
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

/// # Errors
/// `EINVAL` it is no time.
pub(super) fn check_time(time: Option<Timestamp>) -> Result<()> {
    match time {
        Some(time) if time.nanos >= 1_000_000_000 => Err(MetaError::BadTime { nanos: time.nanos }),
        _ => Ok(()),
    }
}

/// `file` was written, last at `mtime` if that is not told already, by `cred`. It is the caller's to put.
pub(super) fn changed_by_writing(
    txn: &mut impl WriteTxn,
    file: &mut Inode,
    mtime: Option<Timestamp>,
    cred: &Cred,
    now: Timestamp,
) -> Result<()> {
    file.touch(now);
    if let Some(mtime) = mtime {
        file.mtime = mtime;
        xattr::drop_file_caps(txn, file)?;
        if !cred.is_root() {
            file.drop_privileges();
        }
    }
    Ok(())
}
