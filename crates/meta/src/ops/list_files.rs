//! Lists regular files by number, with what their objects are held against.

use crate::record::{Inode, Record};
use crate::{Result, intent, keys, scan, writer};
use pvfs_kv::Read;
use pvfs_types::{Ino, limits::FSCK_PAGE_MAX};
use pvfs_wire::msg::fsck::{FileInfo, Files, ListFiles};
use std::ops::ControlFlow;

/// # Errors
/// `EPERM` as of `check_store`.
pub fn list_files(txn: &(impl Read + ?Sized), req: &ListFiles) -> Result<Files> {
    super::may_check(txn, &req.cred)?;
    let max = usize::try_from(req.max).unwrap_or(FSCK_PAGE_MAX).clamp(1, FSCK_PAGE_MAX);
    let mut inodes: Vec<Inode> = Vec::new();
    let mut end = true;
    if let Some(from) = req.after.0.checked_add(1) {
        let last = keys::prefix_end(&keys::all(keys::space::INODE));
        scan::range(txn, &keys::inode(Ino(from)), &last, |_, value| {
            let inode = Inode::from_bytes(value)?;
            if inode.dist.is_none() {
                return scan::MORE;
            }
            if inodes.len() == max {
                end = false;
                return Ok(ControlFlow::Break(()));
            }
            inodes.push(inode);
            scan::MORE
        })?;
    }
    let files = inodes.iter().filter_map(|inode| info(txn, inode).transpose()).collect::<Result<_>>()?;
    Ok(Files { files, end })
}

fn info(txn: &(impl Read + ?Sized), inode: &Inode) -> Result<Option<FileInfo>> {
    let Some(dist) = inode.dist else { return Ok(None) };
    let busy = !writer::list(txn, inode.ino)?.is_empty() || intent::find(txn, inode.ino)?.is_some();
    Ok(Some(FileInfo {
        ino: inode.ino,
        dist,
        data_gen: inode.data_gen,
        size: inode.size,
        size_epoch: inode.size_epoch,
        busy,
        orphan: inode.orphan_seq.is_some(),
        allocated: inode.allocated,
        inline: inode.inline,
    }))
}
