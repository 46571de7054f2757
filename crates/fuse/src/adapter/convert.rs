//! Between our words and the library's. Pure.

use crate::ops::{NodeAttr, NodeId, Opened};
use fuser::{FileAttr, FileType, FopenFlags, INodeNo, TimeOrNow};
use pvfs_types::{Errno, FileKind, SetTime, Timestamp, mode};
use std::time::{SystemTime, UNIX_EPOCH};

pub fn errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.number())
}

pub fn node(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

/// Attributes under the number `node`, which the library takes for the entry's node id too.
pub fn file_attr(node: NodeId, attr: &NodeAttr) -> FileAttr {
    FileAttr {
        ino: INodeNo(node.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.to_system(),
        mtime: attr.mtime.to_system(),
        ctime: attr.ctime.to_system(),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: u16::try_from(attr.mode & mode::ALL).unwrap_or(0),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: join_rdev(attr.rdev),
        blksize: attr.block_bytes,
        flags: 0,
    }
}

/// A number and a kind, nothing else.
pub fn bare_attr(ino: u64, kind: FileKind) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: file_type(kind),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

pub fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Dir => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDev => FileType::CharDevice,
        FileKind::BlockDev => FileType::BlockDevice,
    }
}

/// What `mknod(2)` is to make; `None` for what it cannot.
pub fn kind_of_mode(mode: u32) -> Option<FileKind> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(FileKind::File),
        libc::S_IFIFO => Some(FileKind::Fifo),
        libc::S_IFSOCK => Some(FileKind::Socket),
        libc::S_IFCHR => Some(FileKind::CharDev),
        libc::S_IFBLK => Some(FileKind::BlockDev),
        _ => None,
    }
}

/// The permission bits of `mode` without those of `umask`.
pub fn masked(mode: u32, umask: u32) -> u32 {
    mode & mode::ALL & !(umask & 0o777)
}

/// The kernel's 32-bit device number, as `new_encode_dev` makes it: 12 bits of major among 20 of minor.
pub fn split_rdev(rdev: u32) -> (u32, u32) {
    ((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00))
}

fn join_rdev((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

pub fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(timestamp(time)),
    }
}

/// The library counts the nanoseconds of a time before 1970 backwards (`fuser` 0.18, `system_time_from_time`): what
/// was (-s, n) arrives as the epoch less s + n. Undone here.
fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(_) => Timestamp::from_system(time),
        Err(before) => {
            let d = before.duration();
            Timestamp { secs: d.as_secs().cast_signed().wrapping_neg(), nanos: d.subsec_nanos() }
        }
    }
}

pub fn open_reply(opened: Opened) -> FopenFlags {
    // Without FOPEN_KEEP_CACHE: what the page cache held before this open is dropped.
    if opened.direct {
        FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
    } else {
        FopenFlags::empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn device_numbers_survive_the_way_there_and_back() {
        for pair in [(0, 0), (1, 3), (8, 17), (0xfff, 0xf_ffff), (259, 0x1_2345)] {
            assert_eq!(split_rdev(join_rdev(pair)), pair);
        }
        assert_eq!(split_rdev(0x0801), (8, 1));
    }

    #[test]
    fn times_before_1970_are_what_the_kernel_sent() {
        // The kernel sent secs = -2, nanos = 300_000_000 (1.7 s before the epoch).
        let from_library = UNIX_EPOCH - Duration::new(2, 300_000_000);
        assert_eq!(timestamp(from_library), Timestamp { secs: -2, nanos: 300_000_000 });
        let after = UNIX_EPOCH + Duration::new(5, 1);
        assert_eq!(timestamp(after), Timestamp { secs: 5, nanos: 1 });
    }

    #[test]
    fn the_umask_takes_permission_bits_only() {
        assert_eq!(masked(libc::S_IFREG | 0o7777, 0o022), 0o7755);
        assert_eq!(masked(0o666, 0o7077), 0o600);
    }

    #[test]
    fn mknod_makes_no_directories_and_no_links() {
        assert_eq!(kind_of_mode(libc::S_IFIFO | 0o600), Some(FileKind::Fifo));
        assert_eq!(kind_of_mode(0o600), Some(FileKind::File));
        assert_eq!(kind_of_mode(libc::S_IFDIR), None);
        assert_eq!(kind_of_mode(libc::S_IFLNK), None);
    }
}
