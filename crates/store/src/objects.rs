//! What an object is to the store's user, and the name of its file. Pure.

use crate::Acked;
use bytes::Bytes;
use pvfs_types::{ObjectId, ObjectOffset, Timestamp};
use std::ops::Range;

/// The directory of the objects, within the target directory.
pub(crate) const OBJECTS_DIR: &str = "objects";
/// How many directories the objects are dealt to.
pub(crate) const SHARDS: usize = 4096;

/// A run of bytes of one object. `offset + len` is at most `i64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRun {
    pub offset: ObjectOffset,
    /// In bytes, not 0.
    pub len: usize,
}

/// What [`crate::Store::write`] is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// Where the bytes go.
    pub runs: &'a [ObjectRun],
    /// Who writes: what tells one session from others.
    pub writer: u64,
    /// It was acknowledged so before, and is sent again because it may have been lost.
    pub again: Option<Acked>,
    /// Makes the object where it is missing.
    pub makes: bool,
}

/// What a range gets for which there are no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillWith {
    /// Zeros, as far as the object reaches, without space for them where the disk can.
    Zeros,
    /// Space; changes no byte and no length.
    Room,
}

/// What [`crate::Store::fill`] is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// In bytes, not empty. Its end is at most `i64::MAX`.
    pub range: Range<u64>,
    pub with: FillWith,
    /// As in [`Write`].
    pub writer: u64,
    pub again: Option<Acked>,
    pub makes: bool,
}

/// What [`crate::Store::copy`] is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Of the source, in bytes. Its end is at most `i64::MAX`.
    pub range: Range<u64>,
    /// Where its first byte goes.
    pub to: u64,
    /// As in [`Write`].
    pub writer: u64,
    pub makes: bool,
}

/// What a copy did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    pub acked: Acked,
    /// How long the source was; 0 where there is none.
    pub source_len: u64,
}

/// What a read found. All of it holds at one moment: of each run `bytes` has exactly what lies below `object_len`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRead {
    pub bytes: Bytes,
    pub object_len: u64,
    pub exists: bool,
}

/// What [`crate::Store::read_to`] found. All of it holds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectFilled {
    /// How many bytes there were, over all runs.
    pub filled: usize,
    pub object_len: u64,
    pub exists: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectStat {
    /// In bytes.
    pub len: u64,
    /// Bytes allocated on the disk.
    pub allocated: u64,
    pub mtime: Timestamp,
}

/// Which directory an object lies in: 256 inode numbers in a row share one, so that files made together are synced and
/// removed together, and few files make few directories.
pub(crate) fn shard(id: ObjectId) -> usize {
    usize::try_from((id.ino.0 >> 8) % SHARDS as u64).expect("below SHARDS")
}

pub(crate) fn shard_dir(shard: usize) -> String {
    format!("{OBJECTS_DIR}/{shard:03x}")
}

pub(crate) fn file_name(id: ObjectId) -> String {
    let dir = shard_dir(shard(id));
    format!("{dir}/{:016x}.{:08x}.{:04x}", id.ino.0, id.data_gen.0, id.slot.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs_types::{DataGen, Ino, Slot};

    #[test]
    fn golden_file_names() {
        let name = |ino, data_gen, slot| {
            file_name(ObjectId { ino: Ino(ino), data_gen: DataGen(data_gen), slot: Slot(slot) })
        };
        assert_eq!(name(2, 0, 0), "objects/000/0000000000000002.00000000.0000");
        assert_eq!(name(0x12_3456, 0xab, 3), "objects/234/0000000000123456.000000ab.0003");
        assert_eq!(name(u64::MAX, u32::MAX, u16::MAX), "objects/fff/ffffffffffffffff.ffffffff.ffff");
    }
}
