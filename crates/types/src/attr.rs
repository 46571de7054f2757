//! Attributes of inodes, and who asks.

use crate::{DataGen, Distribution, Ino, LayoutHint, Timestamp};
use minicbor::{Decode, Encode};

/// What kind of thing an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum FileKind {
    #[n(0)]
    File,
    #[n(1)]
    Dir,
    #[n(2)]
    Symlink,
    #[n(3)]
    Fifo,
    #[n(4)]
    Socket,
    #[n(5)]
    CharDev,
    #[n(6)]
    BlockDev,
}

/// Bits of a mode, as `stat(2)` names them. Modes here carry the low 12 bits; the kind is apart.
pub mod mode {
    pub const SUID: u32 = 0o4000;
    pub const SGID: u32 = 0o2000;
    pub const STICKY: u32 = 0o1000;
    pub const ALL: u32 = 0o7777;
    pub const R: u32 = 4;
    pub const W: u32 = 2;
    pub const X: u32 = 1;
}

/// What `stat` tells of an inode, and where a file's bytes lie.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attr {
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
    #[n(5)]
    pub nlink: u32,
    /// The mgr's record of the size in bytes; see `has_writers` in the replies that carry this.
    #[n(6)]
    pub size: u64,
    /// Raised by every truncation. A size remembered under another epoch is void.
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
    /// Device number of device nodes as `(major, minor)`, else `(0, 0)`.
    #[n(12)]
    pub rdev: (u32, u32),
    /// Raised by every change of this inode, from [`Attr::CHANGE_FIRST`] on.
    #[n(13)]
    pub change: u64,
    /// Regular files only: how their bytes are dealt to targets.
    #[n(14)]
    pub dist: Option<Distribution>,
    /// Regular files only: which generation of objects is the live one.
    #[n(15)]
    pub data_gen: DataGen,
    /// Directories only: what files made in it shall inherit, where it was set.
    #[n(16)]
    pub layout: Option<LayoutHint>,
    /// Which extended attributes there are, if there are any.
    #[n(17)]
    pub extras: Option<Extras>,
    /// Regular files with holes, or with room taken beforehand: how many bytes the targets' disks held of it when its last
    /// writer closed it. `None`: as many as its size says.
    #[n(18)]
    pub allocated: Option<u64>,
    /// Regular files: the mgr keeps its bytes, and targets have none of them.
    #[n(19)]
    pub inline: Option<bool>,
}

impl Attr {
    /// The mgr keeps the file's bytes.
    pub fn is_inline(&self) -> bool {
        self.inline == Some(true)
    }
}

/// Whether an access at `now` moves the time of access, as mount(8) has `relatime`: once after each change, else once a day.
pub fn wants_relatime(atime: Timestamp, mtime: Timestamp, ctime: Timestamp, now: Timestamp) -> bool {
    const DAY_SECS: i64 = 24 * 60 * 60;
    atime <= mtime || atime <= ctime || now.secs.saturating_sub(atime.secs) >= DAY_SECS
}

/// Which extended attributes an inode has: what is not there need not be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[expect(clippy::struct_excessive_bools, reason = "each is an attribute that is there or not")]
pub struct Extras {
    #[n(0)]
    pub acl: bool,
    #[n(1)]
    pub default_acl: bool,
    /// `security.capability`.
    #[n(2)]
    pub file_caps: bool,
    /// Any others.
    #[n(3)]
    pub others: bool,
}

/// The permission bits for something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewMode {
    /// With the umask applied.
    pub mode: u32,
    /// As it was asked for: what counts in a directory with a default ACL, which takes the umask's place. `None`: there is no
    /// umask.
    pub unmasked: Option<u32>,
}

impl NewMode {
    /// `mode`, asked for by a caller with that umask.
    pub fn masked(mode: u32, umask: u32) -> NewMode {
        NewMode { mode: mode & !(umask & 0o777), unmasked: Some(mode) }
    }
}

impl From<u32> for NewMode {
    fn from(mode: u32) -> NewMode {
        NewMode { mode, unmasked: None }
    }
}

/// Who asks: the caller's file system ids, as the client's machine knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Cred {
    #[n(0)]
    pub uid: u32,
    #[n(1)]
    pub gid: u32,
    /// Supplementary groups.
    #[n(2)]
    pub groups: Vec<u32>,
}

impl Cred {
    pub const fn root() -> Cred {
        Cred { uid: 0, gid: 0, groups: Vec::new() }
    }

    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// A time in a [`SetAttr`]: the mgr's clock, or one the caller names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SetTime {
    #[n(0)]
    Now,
    #[n(1)]
    At(#[n(0)] Timestamp),
}

impl Attr {
    /// `change` of an inode that was made and not changed since. In such a directory there never was a name.
    pub const CHANGE_FIRST: u64 = 1;
}

/// What to change of an inode's attributes; `None` leaves as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SetAttr {
    #[n(0)]
    pub mode: Option<u32>,
    #[n(1)]
    pub uid: Option<u32>,
    #[n(2)]
    pub gid: Option<u32>,
    #[n(3)]
    pub size: Option<u64>,
    #[n(4)]
    pub atime: Option<SetTime>,
    #[n(5)]
    pub mtime: Option<SetTime>,
}
