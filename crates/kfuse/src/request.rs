//! Requests of the kernel, decoded: total, so that no bytes panic or cost more memory than they are long.

use crate::{abi, buffer::Buffer};
use bytes::Bytes;
use std::ops::Range;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A name in a directory, without its NUL.
pub type Name = Box<[u8]>;

/// Who asks for what of which inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// By which the answer finds it.
    pub unique: u64,
    pub node: u64,
    /// The caller's file system user and group, as `setfsuid(2)` has them.
    pub uid: u32,
    pub gid: u32,
    /// The calling thread; 0 where the kernel itself asks or another pid name space hides it.
    pub pid: u32,
    pub op: Op,
}

/// What is asked for. Names and numbers are as the kernel sent them, unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Init(Init),
    Destroy,
    Interrupt {
        unique: u64,
    },
    Forget {
        lookups: u64,
    },
    BatchForget(Vec<abi::ForgetOne>),
    NotifyReply,
    Lookup {
        name: Name,
    },
    GetAttr {
        handle: Option<u64>,
    },
    /// As [`Op::GetAttr`], with what `statx(2)` alone shows.
    Statx {
        handle: Option<u64>,
    },
    SetAttr(abi::SetAttrIn),
    ReadLink,
    SymLink {
        name: Name,
        target: Name,
    },
    MkNod {
        name: Name,
        mode: u32,
        umask: u32,
        rdev: u32,
    },
    MkDir {
        name: Name,
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: Name,
    },
    RmDir {
        name: Name,
    },
    Rename {
        name: Name,
        new_dir: u64,
        new_name: Name,
        flags: u32,
    },
    Link {
        node: u64,
        name: Name,
    },
    Open {
        flags: u32,
    },
    Create {
        name: Name,
        mode: u32,
        umask: u32,
        flags: u32,
    },
    /// As [`Op::Create`], without a name.
    TmpFile {
        mode: u32,
        umask: u32,
        flags: u32,
    },
    Read {
        handle: u64,
        offset: u64,
        len: u32,
        flags: u32,
    },
    Write {
        handle: u64,
        offset: u64,
        flags: u32,
        /// Of the open file, as open(2) has them, and what this one write asks for over them (`RWF_DSYNC`, `RWF_SYNC`).
        open_flags: u32,
        data: Bytes,
    },
    StatFs,
    Release {
        handle: u64,
        flags: u32,
        lock_owner: u64,
    },
    Flush {
        handle: u64,
        lock_owner: u64,
    },
    Fsync {
        handle: u64,
        data_only: bool,
    },
    SetXattr {
        name: Name,
        value: Bytes,
        flags: u32,
    },
    GetXattr {
        name: Name,
        room: u32,
    },
    ListXattr {
        room: u32,
    },
    RemoveXattr {
        name: Name,
    },
    OpenDir {
        flags: u32,
    },
    ReadDir {
        handle: u64,
        offset: u64,
        room: u32,
        plus: bool,
    },
    ReleaseDir {
        handle: u64,
    },
    FsyncDir {
        handle: u64,
        data_only: bool,
    },
    GetLock(Lock),
    SetLock {
        lock: Lock,
        wait: bool,
    },
    Access {
        mask: u32,
    },
    Fallocate {
        handle: u64,
        offset: u64,
        len: u64,
        mode: u32,
    },
    Lseek {
        handle: u64,
        offset: u64,
        whence: u32,
    },
    CopyFileRange {
        handle: u64,
        offset: u64,
        to_handle: u64,
        to_offset: u64,
        len: u64,
        flags: u64,
        /// The answer has room for any length ([`abi::CopyFileRangeOut`]), else it is that of a write.
        is_wide: bool,
    },
    /// One that is not served; its number.
    Other(u32),
}

/// What the kernel offers at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    pub major: u32,
    pub minor: u32,
    pub max_readahead: u32,
    /// Of [`abi::init`].
    pub flags: u64,
}

/// A lock that is asked for, or given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub handle: u64,
    pub owner: u64,
    pub lock: abi::FileLock,
    /// By flock(2), else by fcntl(2).
    pub flock: bool,
}

/// Why bytes are no request. Where `unique` is known, whoever asked can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub unique: Option<u64>,
    pub opcode: Option<u32>,
}

impl Request {
    /// The same for a request that comes again.
    pub fn number(&self) -> u64 {
        self.unique & !abi::UNIQUE_RESENT
    }

    /// It was read once before, by a server that died with it.
    pub fn is_resent(&self) -> bool {
        self.unique & abi::UNIQUE_RESENT != 0
    }

    /// Decodes the request in the first `len` bytes of `buffer`. The bytes of a long write stay where they are: the
    /// buffer goes with them, and another takes its place.
    pub(crate) fn decode(buffer: &mut Buffer, len: usize) -> Result<Request, Malformed> {
        let bytes = buffer.get(..len).unwrap_or_default();
        let Ok((head, body)) = abi::InHeader::read_from_prefix(bytes) else {
            return Err(Malformed { unique: None, opcode: None });
        };
        let malformed = Malformed { unique: Some(head.unique), opcode: Some(head.opcode) };
        if usize::try_from(head.len) != Ok(len) {
            return Err(malformed);
        }
        let op = if head.opcode == abi::opcode::WRITE {
            let (args, data) = write_of(body).ok_or(malformed)?;
            let data = buffer.give(data);
            let abi::WriteIn { fh: handle, offset, write_flags: flags, flags: open_flags, .. } = args;
            Op::Write { handle, offset, flags, open_flags, data }
        } else {
            // Extensions stand at the end; none is asked for, and none is used.
            let extensions = usize::from(head.total_extlen) * 8;
            let end = body.len().checked_sub(extensions).ok_or(malformed)?;
            op_of(head.opcode, Fields(&body[..end])).ok_or(malformed)?
        };
        let abi::InHeader { unique, nodeid: node, uid, gid, pid, .. } = head;
        Ok(Request { unique, node, uid, gid, pid, op })
    }
}

/// A write's arguments, and where in the request its bytes are.
fn write_of(body: &[u8]) -> Option<(abi::WriteIn, Range<usize>)> {
    let (args, data) = abi::WriteIn::read_from_prefix(body).ok()?;
    let size = usize::try_from(args.size).ok()?;
    (size <= data.len()).then_some((args, abi::WRITE_HEAD_BYTES..abi::WRITE_HEAD_BYTES + size))
}

/// What is left of a request.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Option<T> {
        let (value, rest) = T::read_from_prefix(self.0).ok()?;
        self.0 = rest;
        Some(value)
    }

    fn name(&mut self) -> Option<Name> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let (name, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Some(name.into())
    }

    fn bytes(&mut self, len: u32) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }
}

fn op_of(opcode: u32, fields: Fields) -> Option<Op> {
    use abi::opcode as o;
    match opcode {
        o::LOOKUP..=o::LINK | o::RENAME2 | o::ACCESS | o::BATCH_FORGET | o::STATFS | o::STATX => {
            named(opcode, fields)
        }
        o::SETXATTR | o::GETXATTR | o::LISTXATTR | o::REMOVEXATTR => xattr(opcode, fields),
        o::GETLK | o::SETLK | o::SETLKW => lock(opcode, fields),
        o::INIT => init(fields),
        o::INTERRUPT => interrupt(fields),
        o::DESTROY => Some(Op::Destroy),
        o::NOTIFY_REPLY => Some(Op::NotifyReply),
        _ => opened(opcode, fields),
    }
}

/// Of names and inodes.
fn named(opcode: u32, mut f: Fields) -> Option<Op> {
    use abi::opcode as o;
    Some(match opcode {
        o::LOOKUP => Op::Lookup { name: f.name()? },
        o::FORGET => Op::Forget { lookups: f.take::<abi::ForgetIn>()?.nlookup },
        o::BATCH_FORGET => {
            let count = usize::try_from(f.take::<abi::BatchForgetIn>()?.count).ok()?;
            let each = f.0.chunks_exact(size_of::<abi::ForgetOne>()).take(count);
            let nodes: Vec<_> = each.filter_map(|one| abi::ForgetOne::read_from_bytes(one).ok()).collect();
            (nodes.len() == count).then_some(Op::BatchForget(nodes))?
        }
        o::GETATTR => {
            let args: abi::GetAttrIn = f.take()?;
            Op::GetAttr { handle: (args.flags & abi::GETATTR_FH != 0).then_some(args.fh) }
        }
        o::STATX => {
            let args: abi::StatxIn = f.take()?;
            Op::Statx { handle: (args.getattr_flags & abi::GETATTR_FH != 0).then_some(args.fh) }
        }
        o::SETATTR => Op::SetAttr(f.take()?),
        o::READLINK => Op::ReadLink,
        o::SYMLINK => Op::SymLink { name: f.name()?, target: f.name()? },
        o::MKNOD => {
            let abi::MknodIn { mode, rdev, umask, .. } = f.take()?;
            Op::MkNod { name: f.name()?, mode, umask, rdev }
        }
        o::MKDIR => {
            let abi::MkdirIn { mode, umask } = f.take()?;
            Op::MkDir { name: f.name()?, mode, umask }
        }
        o::UNLINK => Op::Unlink { name: f.name()? },
        o::RMDIR => Op::RmDir { name: f.name()? },
        o::RENAME => {
            let new_dir = f.take::<abi::RenameIn>()?.newdir;
            Op::Rename { name: f.name()?, new_dir, new_name: f.name()?, flags: 0 }
        }
        o::RENAME2 => {
            let abi::Rename2In { newdir: new_dir, flags, .. } = f.take()?;
            Op::Rename { name: f.name()?, new_dir, new_name: f.name()?, flags }
        }
        o::LINK => Op::Link { node: f.take::<abi::LinkIn>()?.oldnodeid, name: f.name()? },
        o::ACCESS => Op::Access { mask: f.take::<abi::AccessIn>()?.mask },
        o::STATFS => Op::StatFs,
        other => Op::Other(other),
    })
}

/// Of open files and directories.
fn opened(opcode: u32, mut f: Fields) -> Option<Op> {
    use abi::opcode as o;
    Some(match opcode {
        o::OPEN => Op::Open { flags: f.take::<abi::OpenIn>()?.flags },
        o::CREATE => {
            let abi::CreateIn { flags, mode, umask, .. } = f.take()?;
            Op::Create { name: f.name()?, mode, umask, flags }
        }
        o::TMPFILE => {
            // A name comes with it too, which stands for none.
            let abi::CreateIn { flags, mode, umask, .. } = f.take()?;
            Op::TmpFile { mode, umask, flags }
        }
        o::READ => {
            let abi::ReadIn { fh: handle, offset, size: len, read_flags: flags, .. } = f.take()?;
            Op::Read { handle, offset, len, flags }
        }
        o::RELEASE => {
            let abi::ReleaseIn { fh: handle, release_flags: flags, lock_owner, .. } = f.take()?;
            Op::Release { handle, flags, lock_owner }
        }
        o::FLUSH => {
            let abi::FlushIn { fh: handle, lock_owner, .. } = f.take()?;
            Op::Flush { handle, lock_owner }
        }
        o::FSYNC | o::FSYNCDIR => {
            let abi::FsyncIn { fh: handle, flags, .. } = f.take()?;
            let data_only = flags & abi::FSYNC_FDATASYNC != 0;
            if opcode == o::FSYNC {
                Op::Fsync { handle, data_only }
            } else {
                Op::FsyncDir { handle, data_only }
            }
        }
        o::OPENDIR => Op::OpenDir { flags: f.take::<abi::OpenIn>()?.flags },
        o::READDIR | o::READDIRPLUS => {
            let abi::ReadIn { fh: handle, offset, size: room, .. } = f.take()?;
            Op::ReadDir { handle, offset, room, plus: opcode == o::READDIRPLUS }
        }
        o::RELEASEDIR => Op::ReleaseDir { handle: f.take::<abi::ReleaseIn>()?.fh },
        o::FALLOCATE => {
            let abi::FallocateIn { fh: handle, offset, length: len, mode, .. } = f.take()?;
            Op::Fallocate { handle, offset, len, mode }
        }
        o::COPY_FILE_RANGE | o::COPY_FILE_RANGE_64 => {
            let args: abi::CopyFileRangeIn = f.take()?;
            Op::CopyFileRange {
                handle: args.fh_in,
                offset: args.off_in,
                to_handle: args.fh_out,
                to_offset: args.off_out,
                len: args.len,
                flags: args.flags,
                is_wide: opcode == o::COPY_FILE_RANGE_64,
            }
        }
        o::LSEEK => {
            let abi::LseekIn { fh: handle, offset, whence, .. } = f.take()?;
            Op::Lseek { handle, offset, whence }
        }
        other => Op::Other(other),
    })
}

fn xattr(opcode: u32, mut f: Fields) -> Option<Op> {
    use abi::opcode as o;
    Some(match opcode {
        o::SETXATTR => {
            let abi::SetXattrIn { size, flags } = f.take()?;
            Op::SetXattr { name: f.name()?, value: Bytes::copy_from_slice(f.bytes(size)?), flags }
        }
        o::GETXATTR => {
            let room = f.take::<abi::GetXattrIn>()?.size;
            Op::GetXattr { name: f.name()?, room }
        }
        o::LISTXATTR => Op::ListXattr { room: f.take::<abi::GetXattrIn>()?.size },
        _ => Op::RemoveXattr { name: f.name()? },
    })
}

fn lock(opcode: u32, mut f: Fields) -> Option<Op> {
    let args: abi::LkIn = f.take()?;
    let flock = args.lk_flags & abi::LK_FLOCK != 0;
    let lock = Lock { handle: args.fh, owner: args.owner, lock: args.lk, flock };
    Some(match opcode {
        abi::opcode::GETLK => Op::GetLock(lock),
        _ => Op::SetLock { lock, wait: opcode == abi::opcode::SETLKW },
    })
}

fn init(mut f: Fields) -> Option<Op> {
    let abi::InitIn { major, minor, max_readahead, flags } = f.take()?;
    let mut flags = u64::from(flags);
    if flags & abi::init::INIT_EXT != 0 {
        flags |= u64::from(f.take::<abi::InitInExt>()?.flags2) << 32;
    }
    Some(Op::Init(Init { major, minor, max_readahead, flags }))
}

fn interrupt(mut f: Fields) -> Option<Op> {
    Some(Op::Interrupt { unique: f.take::<abi::InterruptIn>()?.unique })
}

/// A request's bytes, as the kernel would write them; for tests and fuzzing.
pub fn encode(head: abi::InHeader, parts: &[&[u8]]) -> Vec<u8> {
    let len = size_of::<abi::InHeader>() + parts.iter().map(|part| part.len()).sum::<usize>();
    let head = abi::InHeader { len: u32::try_from(len).unwrap_or(u32::MAX), ..head };
    [head.as_bytes()].iter().chain(parts).copied().flatten().copied().collect()
}

/// What `bytes` mean: as [`Request`]s are decoded that come from the device.
pub fn decode(bytes: &[u8]) -> Result<Request, Malformed> {
    let mut buffer = crate::buffer::Pool::new(bytes.len(), None).take();
    buffer.copy_from_slice(bytes);
    Request::decode(&mut buffer, bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(opcode: u32) -> abi::InHeader {
        abi::InHeader { opcode, unique: 8, nodeid: 3, uid: 1, gid: 2, pid: 4, ..abi::InHeader::default() }
    }

    fn check(opcode: u32, parts: &[&[u8]], op: Op) {
        let expected = Request { unique: 8, node: 3, uid: 1, gid: 2, pid: 4, op };
        assert_eq!(decode(&encode(head(opcode), parts)), Ok(expected));
    }

    fn refused(opcode: u32, parts: &[&[u8]]) {
        let malformed = Malformed { unique: Some(8), opcode: Some(opcode) };
        assert_eq!(decode(&encode(head(opcode), parts)), Err(malformed));
    }

    #[test]
    fn names_end_at_their_nul() {
        use abi::opcode as o;
        check(o::LOOKUP, &[b"a\0"], Op::Lookup { name: b"a"[..].into() });
        let (name, target) = (b"n"[..].into(), b"to/x"[..].into());
        check(o::SYMLINK, &[b"n\0to/x\0"], Op::SymLink { name, target });
        let args = abi::Rename2In { newdir: 9, flags: 1, padding: 0 };
        let (name, new_name) = (b"old"[..].into(), b"new"[..].into());
        check(
            o::RENAME2,
            &[args.as_bytes(), b"old\0new\0"],
            Op::Rename { name, new_dir: 9, new_name, flags: 1 },
        );
        refused(o::LOOKUP, &[b"no end"]);
        refused(o::SYMLINK, &[b"one\0"]);
    }

    #[test]
    fn a_file_without_a_name_comes_with_one_that_stands_for_none() {
        let args = abi::CreateIn { flags: 2, mode: 0o100_600, umask: 0o22, open_flags: 0 };
        let op = Op::TmpFile { mode: 0o100_600, umask: 0o22, flags: 2 };
        check(abi::opcode::TMPFILE, &[args.as_bytes(), b"/\0"], op);
        refused(abi::opcode::TMPFILE, &[&args.as_bytes()[..15]]);
    }

    #[test]
    fn a_write_has_the_bytes_it_claims() {
        let args = abi::WriteIn { fh: 5, offset: 7, size: 3, ..abi::WriteIn::default() };
        let data = Bytes::from_static(b"abc");
        let op = Op::Write { handle: 5, offset: 7, flags: 0, open_flags: 0, data };
        check(abi::opcode::WRITE, &[args.as_bytes(), b"abc"], op);
        refused(abi::opcode::WRITE, &[args.as_bytes(), b"ab"]);
    }

    #[test]
    fn lists_that_claim_more_than_they_hold_are_refused() {
        let count = |count| abi::BatchForgetIn { count, dummy: 0 };
        let one = abi::ForgetOne { nodeid: 2, nlookup: 3 };
        check(abi::opcode::BATCH_FORGET, &[count(1).as_bytes(), one.as_bytes()], Op::BatchForget(vec![one]));
        refused(abi::opcode::BATCH_FORGET, &[count(u32::MAX).as_bytes(), one.as_bytes()]);
        let value = abi::SetXattrIn { size: u32::MAX, flags: 0 };
        refused(abi::opcode::SETXATTR, &[value.as_bytes(), b"user.x\0v"]);
    }

    #[test]
    fn a_copy_says_where_from_and_where_to() {
        let args = abi::CopyFileRangeIn {
            fh_in: 1,
            off_in: 2,
            nodeid_out: 3,
            fh_out: 4,
            off_out: 5,
            len: 6,
            flags: 7,
        };
        for (opcode, is_wide) in
            [(abi::opcode::COPY_FILE_RANGE, false), (abi::opcode::COPY_FILE_RANGE_64, true)]
        {
            let op = Op::CopyFileRange {
                handle: 1,
                offset: 2,
                to_handle: 4,
                to_offset: 5,
                len: 6,
                flags: 7,
                is_wide,
            };
            check(opcode, &[args.as_bytes()], op);
            refused(opcode, &[&args.as_bytes()[..55]]);
        }
    }

    #[test]
    fn flock_and_fcntl_are_told_apart() {
        for (lk_flags, flock) in [(0, false), (abi::LK_FLOCK, true)] {
            let args = abi::LkIn { fh: 1, owner: 2, lk_flags, ..abi::LkIn::default() };
            let lock = Lock { handle: 1, owner: 2, lock: args.lk, flock };
            check(abi::opcode::SETLKW, &[args.as_bytes()], Op::SetLock { lock, wait: true });
        }
    }

    #[test]
    fn capabilities_above_bit_31_come_in_the_second_word() {
        let offer = abi::InitIn { major: 7, minor: 40, max_readahead: 1, flags: 1 << 30 };
        let more = abi::InitInExt { flags2: 1 << 7, unused: [0; 11] };
        let op = Op::Init(Init {
            major: 7,
            minor: 40,
            max_readahead: 1,
            flags: abi::init::INIT_EXT | abi::init::HAS_RESEND,
        });
        check(abi::opcode::INIT, &[offer.as_bytes(), more.as_bytes()], op);
    }

    #[test]
    fn statx_is_a_getattr_by_handle_or_without() {
        let asked = |getattr_flags| abi::StatxIn { getattr_flags, fh: 9, ..abi::StatxIn::default() };
        check(abi::opcode::STATX, &[asked(abi::GETATTR_FH).as_bytes()], Op::Statx { handle: Some(9) });
        check(abi::opcode::STATX, &[asked(0).as_bytes()], Op::Statx { handle: None });
    }

    #[test]
    fn a_request_that_lies_about_its_length_is_refused() {
        let mut bytes = encode(head(abi::opcode::STATFS), &[]);
        bytes.push(0);
        assert!(decode(&bytes).is_err());
        assert_eq!(decode(&[1, 2, 3]), Err(Malformed { unique: None, opcode: None }));
        let extended = abi::InHeader { total_extlen: u16::MAX, ..head(abi::opcode::STATFS) };
        assert!(decode(&encode(extended, &[])).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(opcode in 0_u32..60, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&encode(head(opcode), &[&body]));
            let _ = decode(&body);
        }
    }
}
