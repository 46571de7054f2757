//! `touch_atimes`: what was read, and when: many inodes at once.

use crate::{MetaError, OpEnv, Result, inode};
use pvfs_kv::WriteTxn;
use pvfs_types::{limits::ATIMES_MAX, wants_relatime};
use pvfs_wire::msg::file::TouchAtimes;

/// Moves times of access forward, never back and never past now; without `req.strict` only where `relatime` has it. An inode
/// that is gone is passed over. Nothing else of an inode changes.
///
/// # Errors
/// `EINVAL` more inodes than one request may name.
pub fn touch_atimes(txn: &mut impl WriteTxn, req: &TouchAtimes, env: &OpEnv) -> Result<()> {
    if req.read.len() > ATIMES_MAX {
        return Err(MetaError::TooManyFiles { files: req.read.len() });
    }
    for read in &req.read {
        let Some(mut inode) = inode::find(txn, read.ino)? else { continue };
        let at = read.at.min(env.now);
        let is_wanted = req.strict || wants_relatime(inode.atime, inode.mtime, inode.ctime, at);
        if is_wanted && at > inode.atime {
            inode.atime = at;
            inode::put(txn, &inode)?;
        }
    }
    Ok(())
}
