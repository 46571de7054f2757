//! Between our words and the kernel's. Pure.

use crate::ops::{DirEntry, Entry, Handle, NodeAttr, Opened};
use pvfs_kfuse::abi::{self, fattr, fopen};
use pvfs_types::{FileKind, NewMode, SetAttr, SetTime, Timestamp, mode};
use std::time::Duration;

pub fn entry_out(Entry { node, attr, valid }: &Entry) -> abi::EntryOut {
    abi::EntryOut {
        nodeid: node.0,
        generation: 0,
        entry_valid: valid.as_secs(),
        attr_valid: valid.as_secs(),
        entry_valid_nsec: valid.subsec_nanos(),
        attr_valid_nsec: valid.subsec_nanos(),
        attr: attr_of(attr),
    }
}

pub fn attr_out(attr: &NodeAttr, valid: Duration) -> abi::AttrOut {
    abi::AttrOut {
        attr_valid: valid.as_secs(),
        attr_valid_nsec: valid.subsec_nanos(),
        dummy: 0,
        attr: attr_of(attr),
    }
}

fn attr_of(attr: &NodeAttr) -> abi::Attr {
    abi::Attr {
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        // Seconds are signed, though the kernel's word for them is not.
        atime: attr.atime.secs.cast_unsigned(),
        mtime: attr.mtime.secs.cast_unsigned(),
        ctime: attr.ctime.secs.cast_unsigned(),
        atimensec: attr.atime.nanos,
        mtimensec: attr.mtime.nanos,
        ctimensec: attr.ctime.nanos,
        mode: type_bits(attr.kind) | attr.mode & mode::ALL,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: join_rdev(attr.rdev),
        blksize: attr.block_bytes,
        flags: 0,
    }
}

/// The entry without its name, which follows.
pub fn dirent(entry: &DirEntry) -> abi::Dirent {
    abi::Dirent {
        ino: entry.ino,
        off: entry.cookie,
        namelen: u32::try_from(entry.name.len()).unwrap_or(u32::MAX),
        // As `d_type`: the upper bits of a mode's type.
        kind: type_bits(entry.kind) >> 12,
    }
}

fn type_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::File => libc::S_IFREG,
        FileKind::Dir => libc::S_IFDIR,
        FileKind::Symlink => libc::S_IFLNK,
        FileKind::Fifo => libc::S_IFIFO,
        FileKind::Socket => libc::S_IFSOCK,
        FileKind::CharDev => libc::S_IFCHR,
        FileKind::BlockDev => libc::S_IFBLK,
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

/// The permission bits of `mode`, asked for under that umask.
pub fn new_mode(mode: u32, umask: u32) -> NewMode {
    NewMode::masked(mode & mode::ALL, umask)
}

/// The kernel's 32-bit device number, as `new_encode_dev` makes it: 12 bits of major among 20 of minor.
pub fn split_rdev(rdev: u32) -> (u32, u32) {
    ((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00))
}

fn join_rdev((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

/// What a `setattr` is to change, and the open file it came by, if any.
pub fn changes(args: &abi::SetAttrIn) -> (Option<Handle>, SetAttr) {
    let has = |bit| args.valid & bit != 0;
    let time = |set, now, secs: u64, nanos| match (has(set), has(now)) {
        (_, true) => Some(SetTime::Now),
        (true, false) => Some(SetTime::At(Timestamp { secs: secs.cast_signed(), nanos })),
        (false, false) => None,
    };
    let changes = SetAttr {
        mode: has(fattr::MODE).then_some(args.mode & mode::ALL),
        uid: has(fattr::UID).then_some(args.uid),
        gid: has(fattr::GID).then_some(args.gid),
        size: has(fattr::SIZE).then_some(args.size),
        atime: time(fattr::ATIME, fattr::ATIME_NOW, args.atime, args.atimensec),
        mtime: time(fattr::MTIME, fattr::MTIME_NOW, args.mtime, args.mtimensec),
    };
    (has(fattr::FH).then_some(Handle(args.fh)), changes)
}

pub fn open_out(opened: Opened) -> abi::OpenOut {
    // Without KEEP_CACHE: what the page cache held before this open is dropped.
    let open_flags = if opened.direct { fopen::DIRECT_IO | fopen::PARALLEL_DIRECT_WRITES } else { 0 };
    abi::OpenOut { fh: opened.handle.0, open_flags, backing_id: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_the_way_there_and_back() {
        for pair in [(0, 0), (1, 3), (8, 17), (0xfff, 0xf_ffff), (259, 0x1_2345)] {
            assert_eq!(split_rdev(join_rdev(pair)), pair);
        }
        assert_eq!(split_rdev(0x0801), (8, 1));
    }

    #[test]
    fn only_what_is_marked_valid_is_changed_and_times_may_lie_before_1970() {
        let args = abi::SetAttrIn {
            valid: fattr::FH | fattr::SIZE | fattr::MTIME | fattr::ATIME | fattr::ATIME_NOW,
            fh: 9,
            size: 5,
            mtime: (-2_i64).cast_unsigned(),
            mtimensec: 300_000_000,
            mode: 0o777,
            ..abi::SetAttrIn::default()
        };
        let (handle, changes) = changes(&args);
        assert_eq!(handle, Some(Handle(9)));
        let mtime = Some(SetTime::At(Timestamp { secs: -2, nanos: 300_000_000 }));
        let expected = SetAttr { size: Some(5), mtime, atime: Some(SetTime::Now), ..SetAttr::default() };
        assert_eq!(changes, expected);
    }

    #[test]
    fn the_umask_takes_permission_bits_only() {
        let check = |mode, umask, masked, unmasked| {
            assert_eq!(new_mode(mode, umask), NewMode { mode: masked, unmasked: Some(unmasked) });
        };
        check(libc::S_IFREG | 0o7777, 0o022, 0o7755, 0o7777);
        check(0o666, 0o7077, 0o600, 0o666);
    }

    #[test]
    fn mknod_makes_no_directories_and_no_links() {
        assert_eq!(kind_of_mode(libc::S_IFIFO | 0o600), Some(FileKind::Fifo));
        assert_eq!(kind_of_mode(0o600), Some(FileKind::File));
        assert_eq!(kind_of_mode(libc::S_IFDIR), None);
        assert_eq!(kind_of_mode(libc::S_IFLNK), None);
    }
}
