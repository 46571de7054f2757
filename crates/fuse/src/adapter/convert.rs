//! Between our words and the kernel's. Pure.

use crate::ops::{DirEntry, Entry, Handle, Lock, NodeAttr, Opened, Writing};
use pvfs_kfuse::abi::{self, fattr, fopen};
use pvfs_types::{Errno, FileKind, LockKind, LockMode, NewMode, SetAttr, SetTime, Timestamp, mode};
use std::time::Duration;

pub fn entry_out(Entry { node, attr, valid, attr_valid }: &Entry) -> abi::EntryOut {
    abi::EntryOut {
        nodeid: node.0,
        generation: 0,
        entry_valid: valid.as_secs(),
        attr_valid: attr_valid.as_secs(),
        entry_valid_nsec: valid.subsec_nanos(),
        attr_valid_nsec: attr_valid.subsec_nanos(),
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

/// All that there is, whatever was asked for: it is at hand.
pub fn statx_out(attr: &NodeAttr, valid: Duration) -> abi::StatxOut {
    let time = |at: Timestamp| abi::SxTime { sec: at.secs, nsec: at.nanos, reserved: 0 };
    let stat = abi::Statx {
        mask: libc::STATX_BASIC_STATS | libc::STATX_BTIME,
        blksize: attr.block_bytes,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        // The type and twelve bits: 16 in all.
        mode: u16::try_from(type_bits(attr.kind) | attr.mode & mode::ALL).unwrap_or_default(),
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: time(attr.atime),
        btime: time(attr.btime),
        ctime: time(attr.ctime),
        mtime: time(attr.mtime),
        rdev_major: attr.rdev.0,
        rdev_minor: attr.rdev.1,
        ..abi::Statx::default()
    };
    abi::StatxOut {
        attr_valid: valid.as_secs(),
        attr_valid_nsec: valid.subsec_nanos(),
        stat,
        ..abi::StatxOut::default()
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

/// How to write, by the flags of the request and those of the open file.
pub fn writing(flags: u32, open_flags: u32) -> Writing {
    let has = |flag: i32| open_flags & flag.cast_unsigned() != 0;
    Writing {
        drops_privileges: flags & abi::WRITE_KILL_SUIDGID != 0,
        appends: has(libc::O_APPEND),
        durable: has(libc::O_DSYNC),
        direct: has(libc::O_DIRECT),
        from_pages: flags & abi::WRITE_CACHE != 0,
    }
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

/// The last byte that the kernel can name: its ranges to the end of all files end there.
const LOCK_END: u64 = i64::MAX.cast_unsigned();

/// A lock that is asked for. One to the end of all files reaches to the end of all numbers.
pub fn lock(asked: &pvfs_kfuse::Lock) -> Result<Lock, Errno> {
    let abi::FileLock { start, end, kind, pid } = asked.lock;
    let mode = match i32::try_from(kind) {
        Ok(libc::F_RDLCK) => Some(LockMode::Read),
        Ok(libc::F_WRLCK) => Some(LockMode::Write),
        Ok(libc::F_UNLCK) => None,
        _ => return Err(Errno::EINVAL),
    };
    if start > end {
        return Err(Errno::EINVAL);
    }
    let kind = if asked.flock { LockKind::Flock } else { LockKind::Posix };
    let end = if end >= LOCK_END { u64::MAX } else { end };
    Ok(Lock { kind, owner: asked.owner, start, end, mode, pid })
}

/// The answer to a question about `asked`: what stands in its way, or that nothing does.
pub fn lock_out(asked: &abi::FileLock, found: Option<&Lock>) -> abi::LkOut {
    let kind = |mode| match mode {
        Some(LockMode::Read) => libc::F_RDLCK,
        Some(LockMode::Write) => libc::F_WRLCK,
        None => libc::F_UNLCK,
    };
    let lk = match found {
        Some(lock) => abi::FileLock {
            start: lock.start.min(LOCK_END),
            end: lock.end.min(LOCK_END),
            kind: kind(lock.mode).unsigned_abs(),
            pid: lock.pid,
        },
        None => abi::FileLock { kind: libc::F_UNLCK.unsigned_abs(), ..*asked },
    };
    abi::LkOut { lk }
}

pub fn open_out(opened: Opened) -> abi::OpenOut {
    // Without KEEP_CACHE, what the page cache held before this open is dropped.
    let direct = if opened.direct { fopen::DIRECT_IO | fopen::PARALLEL_DIRECT_WRITES } else { 0 };
    let open_flags = direct | if opened.keeps_pages { fopen::KEEP_CACHE } else { 0 };
    abi::OpenOut { fh: opened.handle.0, open_flags, backing_id: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_ranges_to_the_end_of_files_reach_to_the_end_of_numbers_and_back() {
        let asked = |start, end, kind: i32| pvfs_kfuse::Lock {
            handle: 1,
            owner: 7,
            lock: abi::FileLock { start, end, kind: kind.unsigned_abs(), pid: 9 },
            flock: false,
        };
        let to_end = asked(5, i64::MAX.unsigned_abs(), libc::F_WRLCK);
        let found = lock(&to_end).expect("a lock");
        assert_eq!((found.start, found.end, found.mode), (5, u64::MAX, Some(LockMode::Write)));
        assert_eq!(lock_out(&to_end.lock, Some(&found)).lk, to_end.lock);
        let none = lock_out(&to_end.lock, None).lk;
        assert_eq!((none.start, none.kind), (5, libc::F_UNLCK.unsigned_abs()));
        assert_eq!(lock(&asked(0, 9, libc::F_UNLCK)).map(|lock| lock.mode), Ok(None));
        assert_eq!(lock(&asked(9, 8, libc::F_RDLCK)), Err(Errno::EINVAL));
        assert_eq!(lock(&asked(0, 9, 99)), Err(Errno::EINVAL));
    }

    #[test]
    fn a_write_is_done_as_the_flags_of_its_open_file_say() {
        let how = |flags: i32| writing(0, flags.cast_unsigned());
        assert_eq!(how(libc::O_RDWR), Writing::default());
        assert_eq!(how(libc::O_SYNC | libc::O_WRONLY), Writing { durable: true, ..Writing::default() });
        let both = Writing { durable: true, direct: true, ..Writing::default() };
        assert_eq!(how(libc::O_DIRECT | libc::O_DSYNC), both);
        assert!(how(libc::O_APPEND).appends && writing(abi::WRITE_KILL_SUIDGID, 0).drops_privileges);
    }

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
