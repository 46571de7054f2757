//! What `pvfs fsck` asks: of the mgr, whether its records fit together, which files there are and whose objects these
//! are; of an iod, which objects it has. All but `repair` change nothing.
//!
//! The mgr answers root and the owner of the root directory only.

use super::request;
use minicbor::{Decode, Encode};
use pvfs_types::{Cred, DataGen, Distribution, Ino, ObjectId, TargetId};

/// Holds all of the mgr's records against each other, as they are at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CheckStore {
    #[n(0)]
    pub cred: Cred,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StoreChecked {
    /// What does not fit: what it is about, and how. At most `limits::FINDINGS_MAX`.
    #[n(0)]
    pub findings: Vec<(String, String)>,
    /// How many there are in all.
    #[n(1)]
    pub findings_total: u64,
    #[n(2)]
    pub inodes: u64,
    #[n(3)]
    pub sessions: u64,
    #[n(4)]
    pub writers: u64,
    #[n(5)]
    pub orphans: u64,
    #[n(6)]
    pub garbage: u64,
    #[n(7)]
    pub intents: u64,
    /// The store is older than what targets have heard from it: it was put back from a backup, say.
    #[n(8)]
    pub rolled_back: Option<RolledBack>,
}

/// How a mgr knows that its store is an old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RolledBack {
    /// The last mgr time that the store could have told, in milliseconds.
    #[n(0)]
    pub stored_ms: u64,
    /// The mgr time that a target follows: a later one.
    #[n(1)]
    pub heard_ms: u64,
}

/// Lists regular files by number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListFiles {
    #[n(0)]
    pub cred: Cred,
    /// Those with higher numbers.
    #[n(1)]
    pub after: Ino,
    /// At most so many (and at most `limits::FSCK_PAGE_MAX`).
    #[n(2)]
    pub max: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Files {
    #[n(0)]
    pub files: Vec<FileInfo>,
    #[n(1)]
    pub end: bool,
}

/// What a file's objects are held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FileInfo {
    #[n(0)]
    pub ino: Ino,
    #[n(1)]
    pub dist: Distribution,
    #[n(2)]
    pub data_gen: DataGen,
    #[n(3)]
    pub size: u64,
    #[n(4)]
    pub size_epoch: u32,
    /// It has writers or a truncation under way: its size may be another at the targets.
    #[n(5)]
    pub busy: bool,
    /// It has no name any more.
    #[n(6)]
    pub orphan: bool,
    /// It has holes: so many bytes were held of it by the targets' disks when its last writer closed it.
    #[n(7)]
    pub allocated: Option<u64>,
    /// The mgr keeps its bytes: no target has any.
    #[n(8)]
    pub inline: Option<bool>,
}

/// Asks whose objects these are that `target` has. To be asked after the target listed them: what a file had then, it
/// has now, or it is garbage, or it is gone from the target.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JudgeObjects {
    #[n(0)]
    pub cred: Cred,
    #[n(1)]
    pub target: TargetId,
    /// At most `limits::FSCK_PAGE_MAX`.
    #[n(2)]
    pub objects: Vec<ObjectId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Judged {
    /// In the order asked.
    #[n(0)]
    pub verdicts: Vec<Verdict>,
}

/// What an object is to the mgr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Verdict {
    /// A file has it, on this target.
    #[n(0)]
    Live,
    /// It is on the list of what this target is to remove.
    #[n(1)]
    Garbage,
    /// No file has it, and none will: numbers are not used twice.
    #[n(2)]
    Nobodys,
    /// Its file, or its file's data generation, has a number that the mgr has not dealt out yet.
    #[n(3)]
    Newer,
    /// A file has it, but on another target.
    #[n(4)]
    Misplaced,
}

/// Mends what can be mended without a doubt. Each fix is held against the records anew when it is made, so one that is
/// sent twice, or too late, changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Repair {
    #[n(0)]
    pub cred: Cred,
    /// At most `limits::FSCK_PAGE_MAX`.
    #[n(1)]
    pub fixes: Vec<Fix>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Fix {
    /// Link counts, and the count of inodes, become what the names say.
    #[n(0)]
    Counts,
    /// That target is to remove an object that is nobody's.
    #[n(1)]
    Remove(#[n(0)] TargetId, #[n(1)] ObjectId),
    /// A file reaches as far as its objects do, unless it was truncated since, or is written.
    #[n(2)]
    Grow {
        #[n(0)]
        ino: Ino,
        #[n(1)]
        size_epoch: u32,
        #[n(2)]
        size: u64,
    },
    /// Numbers up to this object's are dealt out no more; a file of which it is a newer data generation takes that,
    /// with the size that its objects then say.
    #[n(3)]
    Pass(#[n(0)] ObjectId),
    /// The store goes on as it is, though it is an old one. Numbers of sessions and orphans skip those that a newer
    /// store may have dealt out.
    #[n(4)]
    Settle,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Repaired {
    /// Of each fix, in order: how many records it changed.
    #[n(0)]
    pub changed: Vec<u64>,
}

/// Lists the objects of a target, in an order of its own. Any authenticated peer may ask.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListObjects {
    #[n(0)]
    pub target: TargetId,
    /// Those behind this one; `None`: from the start.
    #[n(1)]
    pub after: Option<ObjectId>,
    /// About so many (at most `limits::FSCK_PAGE_MAX`).
    #[n(2)]
    pub max: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Objects {
    #[n(0)]
    pub objects: Vec<ObjectId>,
    /// Files that are no objects, seen on the way; at most `limits::FSCK_PAGE_MAX`.
    #[n(1)]
    pub strangers: Vec<String>,
    #[n(2)]
    pub end: bool,
}

request! {
    CheckStore => CheckStore, StoreChecked;
    ListFiles => ListFiles, Files;
    JudgeObjects => JudgeObjects, Judged;
    Repair => Repair, Repaired;
    ListObjects => ListObjects, Objects;
}
