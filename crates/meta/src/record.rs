//! What the values of the store are: a version byte, then the record's fields.
//!
//! A record evolves by `Option` fields at its end under the same version; a new version byte is for a change that
//! older builds must not read. Golden bytes in the tests pin every record.

use crate::{MetaError, Result};
use minicbor::{Decode, Encode};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{
    Acl, DataGen, Distribution, FileKind, FsId, Ino, LayoutHint, LockOwner, LockRange, Locked, SessionId,
    TargetId, TargetUuid, Timestamp,
};

/// A value of the store.
pub trait Record: Encode<()> + for<'b> Decode<'b, ()> {
    /// For messages about damage.
    const KIND: &'static str;
    /// The newest that this build reads.
    const VERSION_MAX: u8 = 1;

    /// What a build must know to read this one.
    fn version(&self) -> u8 {
        1
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(96);
        bytes.push(self.version());
        minicbor::encode(self, &mut bytes).expect("encoding into a Vec cannot fail");
        bytes
    }

    /// # Errors
    /// [`MetaError::Corrupt`] for bytes that are no such record.
    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let corrupt = |detail: String| MetaError::Corrupt { what: Self::KIND, detail };
        match bytes.split_first() {
            Some((&version, body)) if (1..=Self::VERSION_MAX).contains(&version) => {
                let mut decoder = minicbor::Decoder::new(body);
                let record = decoder.decode().map_err(|e| corrupt(e.to_string()))?;
                match body.len() - decoder.position() {
                    0 => Ok(record),
                    rest => Err(corrupt(format!("{rest} bytes after the record"))),
                }
            }
            Some((version, _)) => Err(corrupt(format!("version {version} is not known to this build"))),
            None => Err(corrupt("no bytes".to_owned())),
        }
    }
}

/// The record at `key`, if there is one.
pub(crate) fn find<T: Record>(txn: &(impl Read + ?Sized), key: &[u8]) -> Result<Option<T>> {
    txn.get(key)?.map(|bytes| T::from_bytes(&bytes)).transpose()
}

pub(crate) fn put<T: Record>(txn: &mut impl WriteTxn, key: &[u8], record: &T) {
    txn.put(key, record.to_bytes());
}

macro_rules! records {
    ($($name:ident $kind:literal;)*) => {
        $(impl Record for $name { const KIND: &'static str = $kind; })*
    };
}

records! {
    Superblock "superblock";
    MgrTime "mgr time";
    InodeNumbers "inode numbers";
    Counter "counter";
    RolledBack "rollback";
    Dentry "directory entry";
    Session "session";
    Client "client";
    Reply "reply";
    Writer "writer";
    OrphanEntry "orphan";
    Mark "mark";
    Intent "truncation intent";
    Target "target";
    TargetNumber "target number";
    IodtabEntry "iodtab";
    LockHeld "lock";
    LockWait "lock that is waited for";
    Xattr "extended attribute";
    Inline "bytes of a small file";
    QuotaLimits "limits of use";
    QuotaUsage "count of use";
}

impl Record for Inode {
    const KIND: &'static str = "inode";
    const VERSION_MAX: u8 = 2;

    /// Who does not know of bytes that are kept here must not take them for a hole.
    fn version(&self) -> u8 {
        if self.inline.is_some() { 2 } else { 1 }
    }
}

/// Of the file system as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Superblock {
    #[n(0)]
    pub fs: FsId,
    /// Of the key space: raised by a change that older builds must not touch.
    #[n(1)]
    pub format: u16,
    #[n(2)]
    pub created: Timestamp,
}

/// A time in milliseconds that no mgr has reached yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MgrTime {
    #[n(0)]
    pub high_water_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct InodeNumbers {
    /// The number of the next inode.
    #[n(0)]
    pub next: u64,
    /// How many inodes there are.
    #[n(1)]
    pub in_use: u64,
}

/// The last number dealt out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Counter {
    #[n(0)]
    pub last: u64,
}

/// The store is older than what was heard from it; see `rollback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RolledBack {
    /// The mgr's time that was stored, in milliseconds.
    #[n(0)]
    pub stored_ms: u64,
    /// The later one that a target follows.
    #[n(1)]
    pub heard_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Inode {
    #[n(0)]
    pub ino: Ino,
    #[n(1)]
    pub kind: FileKind,
    /// The low 12 bits of `st_mode`.
    #[n(2)]
    pub mode: u32,
    #[n(3)]
    pub uid: u32,
    #[n(4)]
    pub gid: u32,
    /// Names; of a directory 2 + its subdirectories; 0: an orphan.
    #[n(5)]
    pub nlink: u32,
    #[n(6)]
    pub size: u64,
    #[n(7)]
    pub size_epoch: u32,
    #[n(8)]
    pub atime: Timestamp,
    #[n(9)]
    pub mtime: Timestamp,
    #[n(10)]
    pub ctime: Timestamp,
    #[n(11)]
    pub btime: Timestamp,
    #[n(12)]
    pub rdev: (u32, u32),
    #[n(13)]
    pub change: u64,
    /// Regular files.
    #[n(14)]
    pub dist: Option<Distribution>,
    #[n(15)]
    pub data_gen: DataGen,
    /// Directories: what files made in it inherit.
    #[n(16)]
    pub layout: Option<LayoutHint>,
    /// Directories: where `..` leads.
    #[n(17)]
    pub parent: Option<Ino>,
    /// Symbolic links.
    #[cbor(n(18), with = "minicbor::bytes")]
    pub target: Option<Vec<u8>>,
    /// Its place in the list of orphans, if it is one.
    #[n(19)]
    pub orphan_seq: Option<u64>,
    /// The request whose truncation was finished last: run again, it finds nothing left to do.
    #[n(20)]
    pub truncated_by: Option<By>,
    /// The access ACL, where there is one that says more than the mode. What it says of owner, group class and others the
    /// mode says too.
    #[n(21)]
    pub acl: Option<Acl>,
    /// Directories: the ACL that new entries get.
    #[n(22)]
    pub default_acl: Option<Acl>,
    /// What its attributes come to, where it has any that have records of their own.
    #[n(23)]
    pub xattrs: Option<XattrTotals>,
    /// The tree it is charged to: the inode of that tree's top directory.
    #[n(24)]
    pub tree: Option<Ino>,
    /// Files that somebody writes whose use of bytes is limited: how far they may be written. What lies past `size` is
    /// charged already.
    #[n(25)]
    pub allowed: Option<u64>,
    /// Regular files: how many bytes the targets' disks hold, where that was told to be another number than the size.
    #[n(26)]
    pub allocated: Option<u64>,
    /// Regular files: its bytes are in a record of their own, and no target has any of them. Nobody has it open for writing.
    #[n(27)]
    pub inline: Option<bool>,
}

/// What the attributes of an inode come to (its ACLs not counted).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct XattrTotals {
    #[n(0)]
    pub count: u32,
    /// Of all names, each with a closing NUL, in bytes.
    #[n(1)]
    pub list_bytes: u32,
    /// `security.capability` is one of them.
    #[n(2)]
    pub file_caps: bool,
}

/// An extended attribute. Its key names it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Xattr {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

/// All bytes of a small file. Its key names it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Inline {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub data: Vec<u8>,
}

/// Which request: sent again, it is the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct By {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub slot: u16,
    #[n(2)]
    pub seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Dentry {
    #[n(0)]
    pub ino: Ino,
    #[n(1)]
    pub kind: FileKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Session {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub client: [u8; 16],
    #[n(1)]
    pub incarnation: u64,
    #[n(2)]
    pub label: String,
    #[n(3)]
    pub opened: Timestamp,
    /// It takes delegations.
    #[n(4)]
    pub delegations: Option<bool>,
}

/// The session that stands for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Client {
    #[n(0)]
    pub session: SessionId,
}

/// The last answer in a session's slot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reply {
    #[n(0)]
    pub seq: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub reply: Vec<u8>,
}

/// A session that has a file open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Writer {
    #[n(0)]
    pub since: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OrphanEntry {
    #[n(0)]
    pub ino: Ino,
    /// It never had a name, and may be given one.
    #[n(1)]
    pub linkable: Option<bool>,
}

/// Says by its key alone what there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Mark {}

/// What the targets have to do before a file can be changed, and have not done yet: cut their objects, or take its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Intent {
    #[n(0)]
    pub ino: Ino,
    #[n(1)]
    pub size: u64,
    #[n(2)]
    pub data_gen: DataGen,
    #[n(3)]
    pub dist: Distribution,
    #[n(4)]
    pub by: By,
    #[n(5)]
    pub since: Timestamp,
    /// It is no truncation: the target of the first strip takes the bytes that are kept here, `size` of them.
    #[n(6)]
    pub spills: Option<bool>,
}

impl Intent {
    pub fn spills(&self) -> bool {
        self.spills == Some(true)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Target {
    #[n(0)]
    pub uuid: TargetUuid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TargetNumber {
    #[n(0)]
    pub id: TargetId,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IodtabEntry {
    #[n(0)]
    pub targets: Vec<TargetId>,
}

/// What one owner holds of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct LockHeld {
    #[n(0)]
    pub ranges: Locked,
    /// The last locks that were granted, as far as their owner has changed nothing of them since: what it does not want after
    /// all is taken back.
    #[n(1)]
    pub granted: Vec<Grant>,
}

/// A lock that was granted, and what it took the place of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Grant {
    #[n(0)]
    pub id: u64,
    #[n(1)]
    pub before: Locked,
    /// What of it stands unchanged.
    #[n(2)]
    pub left: Locked,
}

/// A lock that somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LockWait {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub owner: LockOwner,
    #[n(2)]
    pub id: u64,
    #[n(3)]
    pub range: LockRange,
    #[n(4)]
    pub since: Timestamp,
}

/// What an owner may use; `None`: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct QuotaLimits {
    /// Of the sizes of files.
    #[n(0)]
    pub bytes: Option<u64>,
    #[n(1)]
    pub inodes: Option<u64>,
}

/// What an owner uses. One that uses nothing has no record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct QuotaUsage {
    #[n(0)]
    pub inodes: u64,
    /// The sizes of its regular files.
    #[cbor(n(1), with = "wide")]
    pub bytes: u128,
    /// What is charged for files that are being written beside their sizes.
    #[cbor(n(2), with = "wide")]
    pub ahead: u128,
}

/// Sums of sizes, as two numbers: the upper and the lower 64 bits.
mod wide {
    use minicbor::decode::{Decoder, Error as Misread};
    use minicbor::encode::{Encoder, Error as Unwritten, Write};

    pub fn encode<C, W: Write>(sum: &u128, e: &mut Encoder<W>, _: &mut C) -> Result<(), Unwritten<W::Error>> {
        let parts = [sum >> 64, sum & u128::from(u64::MAX)];
        let [upper, lower] = parts.map(|part| u64::try_from(part).unwrap_or(u64::MAX));
        e.array(2)?.u64(upper)?.u64(lower)?;
        Ok(())
    }

    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<u128, Misread> {
        match d.array()? {
            Some(2) => Ok(u128::from(d.u64()?) << 64 | u128::from(d.u64()?)),
            _ => Err(Misread::message("a sum of sizes has two parts")),
        }
    }
}
