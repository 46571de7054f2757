//! Attributes as the kernel wants them. Pure.

use crate::ops::{NodeAttr, StatFs};
use pvfs_client::FsUsage;
use pvfs_types::{Attr, limits::NAME_BYTES_MAX};

/// What `st_blksize` recommends: programs that go by it make few requests, and small files cost no large buffers.
const BLOCK_BYTES: u32 = 512 << 10;
/// The unit of `statfs`.
const STATFS_BLOCK_BYTES: u32 = 4096;
/// Inodes have no fixed number; as many are said to be free at any time.
const INODES_FREE: u64 = 1 << 32;

pub fn node_attr(attr: &Attr) -> NodeAttr {
    NodeAttr {
        ino: attr.ino.0,
        kind: attr.kind,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        size: attr.size,
        blocks: attr.allocated.unwrap_or(attr.size).div_ceil(512),
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        btime: attr.btime,
        rdev: attr.rdev,
        block_bytes: BLOCK_BYTES,
    }
}

pub fn statfs(usage: FsUsage) -> StatFs {
    let unit = u64::from(STATFS_BLOCK_BYTES);
    let free = usage.bytes_free / unit;
    let inodes_free = usage.inodes_max.map_or(INODES_FREE, |max| max.saturating_sub(usage.inodes));
    StatFs {
        block_bytes: STATFS_BLOCK_BYTES,
        blocks: usage.bytes_total / unit,
        blocks_free: free,
        blocks_available: free,
        files: usage.inodes.saturating_add(inodes_free),
        files_free: inodes_free,
        name_bytes_max: u32::try_from(NAME_BYTES_MAX).unwrap_or(255),
    }
}
