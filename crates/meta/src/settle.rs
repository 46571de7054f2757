//! Settling the size of a file whose writer died without a report: the targets were asked, their word is written.

use crate::lock::{self, Granted};
use crate::{Result, inode, intent, writer};
use pvfs_kv::WriteTxn;
use pvfs_types::{Ino, SessionId, Timestamp};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// With the locks that waited for it.
    Done(Vec<Granted>),
    /// A truncation came between: ask the targets again.
    AskAgain,
}

/// Writes the `size` that the targets told (learned while the file had `size_epoch`) and the time of their last write,
/// and removes the writer record of `session`. Whoever waited with an append for that may go on.
pub fn settle(
    txn: &mut impl WriteTxn,
    ino: Ino,
    session: SessionId,
    size: u64,
    size_epoch: u32,
    mtime: Option<Timestamp>,
) -> Result<Settled> {
    if let Some(mut inode) = inode::find(txn, ino)? {
        if inode.size_epoch != size_epoch || intent::find(txn, ino)?.is_some() {
            return Ok(Settled::AskAgain);
        }
        let mtime = mtime.filter(|mtime| *mtime > inode.mtime);
        if size > inode.size || mtime.is_some() {
            inode.size = inode.size.max(size);
            inode.mtime = mtime.unwrap_or(inode.mtime);
            let ctime = inode.ctime.max(inode.mtime);
            inode.touch(ctime);
            inode::put(txn, &inode)?;
        }
    }
    writer::remove(txn, ino, session)?;
    Ok(Settled::Done(lock::serve(txn, ino)?))
}
