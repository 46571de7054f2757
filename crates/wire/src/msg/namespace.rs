//! Operations on names and inodes: client to mgr.

use super::{
    request,
    session::{Caller, Done, Mutator},
};
use crate::{Access, Capability};
use minicbor::{Decode, Encode};
use pvfs_types::{Attr, FileKind, Ino, LayoutHint, Name, SetAttr as Changes};

/// What `stat` needs, and whether it is the whole truth about the size.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    #[n(0)]
    pub attr: Attr,
    /// A session other than the asking one has the file open for writing: who needs the size asks the targets too
    /// and takes the larger.
    #[n(1)]
    pub has_writers: bool,
    /// The asking session has the [delegation](super::delegation) of the inode.
    #[n(2)]
    pub delegated: Option<bool>,
}

/// Looks `name` up in `dir`. Needs search permission on `dir`. `..` is asked with `parent`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Lookup {
    #[n(0)]
    pub caller: Caller,
    #[n(1)]
    pub dir: Ino,
    /// `None` asks for the parent of `dir`.
    #[n(2)]
    pub name: Option<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GetAttr {
    #[n(0)]
    pub caller: Caller,
    #[n(1)]
    pub ino: Ino,
}

/// Checks permission only, as `access(2)`: `mask` of `R`, `W`, `X` bits (4, 2, 1).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CheckAccess {
    #[n(0)]
    pub caller: Caller,
    #[n(1)]
    pub ino: Ino,
    #[n(2)]
    pub mask: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReadLink {
    #[n(0)]
    pub caller: Caller,
    #[n(1)]
    pub ino: Ino,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LinkTarget {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub target: Vec<u8>,
}

/// Lists `dir` from `cookie` on. Needs read permission on `dir`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReadDir {
    #[n(0)]
    pub caller: Caller,
    #[n(1)]
    pub dir: Ino,
    /// 0 from the start; else the `cookie` of the last entry seen.
    #[n(2)]
    pub cookie: u64,
    #[n(3)]
    pub entries_max: u32,
    /// With attributes.
    #[n(4)]
    pub plus: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DirEntries {
    /// Without `.` and `..`. Entries that share a cookie come in one reply.
    #[n(0)]
    pub entries: Vec<DirEntry>,
    #[n(1)]
    pub end: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DirEntry {
    #[n(0)]
    pub name: Name,
    #[n(1)]
    pub ino: Ino,
    #[n(2)]
    pub kind: FileKind,
    /// From 3 to `i64::MAX`: from the hash of the name, so that it stays while other names come and go.
    #[n(3)]
    pub cookie: u64,
    /// With `plus`.
    #[n(4)]
    pub entry: Option<Entry>,
}

/// Asks how much room there is, in all; where `at` is in a tree with limits, of those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct StatFs {
    #[n(0)]
    pub at: Option<Ino>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FsUsage {
    /// Of all disks with targets; one with several targets counts once.
    #[n(0)]
    pub bytes_total: u64,
    #[n(1)]
    pub bytes_free: u64,
    /// Inodes in use, about.
    #[n(2)]
    pub inodes: u64,
    /// How many there may be, where that is limited.
    #[n(3)]
    pub inodes_max: Option<u64>,
}

/// Changes attributes; a change of size truncates.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetAttr {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub ino: Ino,
    #[n(2)]
    pub changes: Changes,
    /// The caller holds the file open for writing: no permission check for the size (`ftruncate`).
    #[n(3)]
    pub by_handle: bool,
    /// A capability to give back with the answer (a truncation may void the old one).
    #[n(4)]
    pub want: Option<Access>,
    /// `Some(true)`: the caller, who has the file open for writing, is about to write it without the right to keep what a
    /// program in it may do: set-user-id, set-group-id and file capabilities fall.
    #[n(5)]
    pub drop_privileges: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AttrSet {
    #[n(0)]
    pub entry: Entry,
    #[n(1)]
    pub capability: Option<Capability>,
}

/// Creates a regular file and opens it, in one message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Create {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub dir: Ino,
    #[n(2)]
    pub name: Name,
    /// The umask is applied already.
    #[n(3)]
    pub mode: u32,
    /// `O_EXCL`: an existing name is an error. Else it is opened, as `open` would.
    #[n(4)]
    pub exclusive: bool,
    /// Open the file too, for this (`None`: create only). A write access is recorded.
    #[n(5)]
    pub open: Option<Access>,
    /// `O_TRUNC`, where the file was there.
    #[n(6)]
    pub truncate: bool,
    /// Where it shall lie; what this leaves open comes from `dir`, then from the system.
    #[n(7)]
    pub layout: LayoutHint,
    /// The mode before the umask: counts instead of `mode` where `dir` has a default ACL. `None`: as `mode`.
    #[n(8)]
    pub unmasked: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Created {
    #[n(0)]
    pub entry: Entry,
    /// Where `open` was asked.
    #[n(1)]
    pub capability: Option<Capability>,
    /// False: the name was there.
    #[n(2)]
    pub created: bool,
}

/// Creates a regular file without a name, as if in `dir`, and opens it: `O_TMPFILE`. Answered by [`Created`]. It lives as an
/// unlinked file that is open does; a [`Link`] gives it a name, where it may have one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TmpFile {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub dir: Ino,
    #[n(2)]
    pub mode: u32,
    /// As in [`Create`].
    #[n(3)]
    pub unmasked: Option<u32>,
    #[n(4)]
    pub open: Access,
    /// Without `O_EXCL`.
    #[n(5)]
    pub linkable: bool,
    #[n(6)]
    pub layout: LayoutHint,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MkDir {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub dir: Ino,
    #[n(2)]
    pub name: Name,
    #[n(3)]
    pub mode: u32,
    /// As in [`Create`].
    #[n(4)]
    pub unmasked: Option<u32>,
}

/// Creates a FIFO, socket, device node or an (unopened) regular file.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MkNod {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub dir: Ino,
    #[n(2)]
    pub name: Name,
    #[n(3)]
    pub mode: u32,
    /// Not a directory, not a symbolic link.
    #[n(4)]
    pub kind: FileKind,
    #[n(5)]
    pub rdev: (u32, u32),
    /// As in [`Create`].
    #[n(6)]
    pub unmasked: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SymLink {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub dir: Ino,
    #[n(2)]
    pub name: Name,
    /// 1 to 4,095 bytes.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub target: Vec<u8>,
}

/// Gives `ino` one more name; a file of [`TmpFile`] its first.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Link {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub ino: Ino,
    #[n(2)]
    pub dir: Ino,
    #[n(3)]
    pub name: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Unlink {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub dir: Ino,
    #[n(2)]
    pub name: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Unlinked {
    /// The last name went: a number from which on a keep-alive tells of the orphan; the client may send one soon.
    #[n(0)]
    pub orphan: Option<super::session::Orphan>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RmDir {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub dir: Ino,
    #[n(2)]
    pub name: Name,
}

/// How `rename` treats a name that is there: as `renameat2(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RenameMode {
    #[n(0)]
    Replace,
    #[n(1)]
    NoReplace,
    #[n(2)]
    Exchange,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Rename {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub dir: Ino,
    #[n(2)]
    pub name: Name,
    #[n(3)]
    pub new_dir: Ino,
    #[n(4)]
    pub new_name: Name,
    #[n(5)]
    pub mode: RenameMode,
}

/// Sets what files made in directory `ino` inherit; `None` fields go back to the system's choice.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetLayout {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub ino: Ino,
    #[n(2)]
    pub layout: LayoutHint,
}

request! {
    Lookup => Lookup, Entry;
    GetAttr => GetAttr, Entry;
    CheckAccess => Access, Done;
    ReadLink => ReadLink, LinkTarget;
    ReadDir => ReadDir, DirEntries;
    StatFs => StatFs, FsUsage;
    SetAttr => SetAttr, AttrSet;
    Create => Create, Created;
    TmpFile => TmpFile, Created;
    MkDir => MkDir, Entry;
    MkNod => MkNod, Entry;
    SymLink => SymLink, Entry;
    Link => Link, Entry;
    Unlink => Unlink, Unlinked;
    RmDir => RmDir, Done;
    Rename => Rename, Unlinked;
    SetLayout => SetLayout, Entry;
}
