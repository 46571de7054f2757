//! Answering the kernel: what each kind of reply makes of an operation's result.

use super::convert;
use crate::ops::{Attributes, DirEntry, Entry, Opened, Reply as Answer, StatFs};
use bytes::Bytes;
use pvfs_kfuse::{Reply, abi};
use pvfs_types::Errno;
use zerocopy::IntoBytes;

/// Answers with `out`, or the error.
fn one<T: IntoBytes + zerocopy::Immutable>(reply: Reply, answer: Answer<T>) {
    match answer {
        Ok(out) => {
            reply.ok(&[out.as_bytes()]);
        }
        Err(error) => reply.error(error.number()),
    }
}

/// Answers with nothing, or the error.
pub fn empty(reply: Reply, answer: Answer<()>) {
    one(reply, answer);
}

pub fn entry(reply: Reply, answer: Answer<Entry>) {
    one(reply, answer.map(|entry| convert::entry_out(&entry)));
}

pub fn attributes(reply: Reply, answer: Answer<Attributes>) {
    one(reply, answer.map(|Attributes { attr, valid }| convert::attr_out(&attr, valid)));
}

pub fn statx(reply: Reply, answer: Answer<Attributes>) {
    one(reply, answer.map(|Attributes { attr, valid }| convert::statx_out(&attr, valid)));
}

pub fn data(reply: Reply, answer: Result<&[u8], &Errno>) {
    match answer {
        Ok(bytes) => {
            reply.ok(&[bytes]);
        }
        Err(error) => reply.error(error.number()),
    }
}

/// Answers a write of `len` bytes.
pub fn written(reply: Reply, len: usize, answer: Answer<()>) {
    let size = u32::try_from(len).unwrap_or(u32::MAX);
    one(reply, answer.map(|()| abi::WriteOut { size, padding: 0 }));
}

/// Answers a copy; `is_wide`: there is room for any length.
pub fn copied(reply: Reply, is_wide: bool, answer: Answer<u64>) {
    if is_wide {
        return one(reply, answer.map(|bytes_copied| abi::CopyFileRangeOut { bytes_copied }));
    }
    let size = answer.and_then(|bytes| u32::try_from(bytes).map_err(|_| Errno::EOVERFLOW));
    one(reply, size.map(|size| abi::WriteOut { size, padding: 0 }));
}

pub fn position(reply: Reply, answer: Answer<u64>) {
    let signed = answer.and_then(|at| i64::try_from(at).map(|_| at).map_err(|_| Errno::EOVERFLOW));
    one(reply, signed.map(|offset| abi::LseekOut { offset }));
}

pub fn statfs(reply: Reply, answer: Answer<StatFs>) {
    one(
        reply,
        answer.map(|s| abi::KStatFs {
            blocks: s.blocks,
            bfree: s.blocks_free,
            bavail: s.blocks_available,
            files: s.files,
            ffree: s.files_free,
            bsize: s.block_bytes,
            namelen: s.name_bytes_max,
            frsize: s.block_bytes,
            ..abi::KStatFs::default()
        }),
    );
}

pub fn lock(reply: Reply, answer: Answer<abi::LkOut>) {
    one(reply, answer);
}

/// False: nobody took the handle.
pub fn opened(reply: Reply, opened: Opened) -> bool {
    reply.ok(&[convert::open_out(opened).as_bytes()])
}

/// False: nobody took the handle.
pub fn created(reply: Reply, entry: &Entry, opened: Opened) -> bool {
    reply.ok(&[convert::entry_out(entry).as_bytes(), convert::open_out(opened).as_bytes()])
}

/// An extended attribute's answer: its size where `room` is 0, else the bytes where they fit.
pub fn xattr(reply: Reply, room: u32, answer: Answer<Bytes>) {
    match answer {
        Ok(bytes) => match u32::try_from(bytes.len()) {
            Ok(size) if room == 0 => one(reply, Ok(abi::GetXattrOut { size, padding: 0 })),
            Ok(size) if size <= room => data(reply, Ok(&bytes)),
            _ => reply.error(Errno::ERANGE.number()),
        },
        Err(error) => reply.error(error.number()),
    }
}

/// Answers with as many of `entries`, from the front, as fit into `room` bytes.
pub fn directory(reply: Reply, entries: &[DirEntry], room: u32, plus: bool) {
    let bytes = listed(entries, usize::try_from(room).unwrap_or(usize::MAX), plus);
    reply.ok(&[&bytes]);
}

fn listed(entries: &[DirEntry], room: usize, plus: bool) -> Vec<u8> {
    // The kernel asks for at most what one read may bring, but the number is from outside.
    let mut bytes = Vec::with_capacity(room.min(256 << 10));
    for entry in entries {
        let head = if plus { size_of::<abi::DirentPlus>() } else { size_of::<abi::Dirent>() };
        let end = bytes.len() + (head + entry.name.len()).next_multiple_of(8);
        if end > room {
            break;
        }
        if plus {
            // Without attributes the kernel takes the name and the number alone.
            let shown = entry.entry.as_ref().map(convert::entry_out).unwrap_or_default();
            bytes.extend_from_slice(shown.as_bytes());
        }
        bytes.extend_from_slice(convert::dirent(entry).as_bytes());
        bytes.extend_from_slice(&entry.name);
        bytes.resize(end, 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs_types::FileKind;

    fn entries(lengths: &[usize]) -> Vec<DirEntry> {
        let entry = |(at, &len): (usize, &usize)| DirEntry {
            cookie: at as u64 + 1,
            ino: 7,
            kind: FileKind::File,
            name: vec![b'n'; len],
            entry: None,
        };
        lengths.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn a_listing_ends_before_its_room_does_and_never_amid_an_entry() {
        let check = |room, plus, bytes| {
            assert_eq!(listed(&entries(&[1, 8, 9]), room, plus).len(), bytes, "{room} {plus}");
        };
        check(0, false, 0);
        check(31, false, 0);
        check(32, false, 32);
        check(63, false, 32);
        check(64, false, 64);
        check(4096, false, 32 + 32 + 40);
        check(4096, true, 160 + 160 + 168);
        check(319, true, 160);
    }
}
