//! Disk space kept back for the store: a copy-on-write store needs new pages even to remove something.
//!
//! A file of zeros beside the store. When the disk is full, a commit takes a part of it. As soon as there is space again,
//! it is made whole.

use rustix::{
    fs::{FallocateFlags, fallocate, fsync, ftruncate},
    io::Errno,
};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

const FILE: &str = "pvfs.reserve";
/// All of it, in bytes: hundreds of commits, far more than removals need until their own pages come free.
pub(crate) const RESERVE_BYTES: u64 = 8 << 20;
/// What one full disk takes of it.
const PART_BYTES: u64 = 1 << 20;

pub(crate) struct Reserve {
    file: File,
    /// What is left; `None`: this disk cannot keep space back.
    left: Mutex<Option<u64>>,
}

impl Reserve {
    /// The reserve of the store in `dir`, made where it is missing and there is room.
    pub(crate) fn open(dir: &Path) -> io::Result<Reserve> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(FILE))?;
        // A copy of it may be as long and have no blocks.
        let meta = file.metadata()?;
        let left = meta.len().min(meta.blocks() * 512).min(RESERVE_BYTES);
        let reserve = Reserve { file, left: Mutex::new(Some(left)) };
        reserve.refill();
        Ok(reserve)
    }

    /// Gives a part back to the disk. False: nothing is left.
    pub(crate) fn take(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before @ 1..) = *left else { return false };
        let after = before.saturating_sub(PART_BYTES);
        // Some file systems hand out freed blocks only when their freeing is on the disk.
        let taken = ftruncate(&self.file, after).and_then(|()| fsync(&self.file)).is_ok();
        if taken {
            *left = Some(after);
        }
        taken
    }

    /// Whether all of it is there, after trying to make it so.
    pub(crate) fn refill(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.is_none_or(|left| left >= RESERVE_BYTES) {
            return true;
        }
        match fallocate(&self.file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
            Ok(()) => {
                *left = Some(RESERVE_BYTES);
                true
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                *left = None;
                true
            }
            Err(_) => {
                // A part may have been allocated past what was left: the disk gets that back.
                let _ = ftruncate(&self.file, left.unwrap_or(0));
                false
            }
        }
    }
}
