//! Bytes: client to iod, and what a mgr asks of iods.

use super::{request, session::Done};
use crate::{Capability, Lease};
use minicbor::{Decode, Encode};
use pvfs_types::{ObjectId, ObjectOffset, Pattern, Slot, TargetId, Timestamp};

/// What an iod bears in every answer about data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Generations {
    /// Random, drawn at the start of the iod's process.
    #[n(0)]
    pub process: u64,
    /// From the machine's boot id.
    #[n(1)]
    pub boot: u64,
    /// Raised when the target may have lost acknowledged bytes.
    #[n(2)]
    pub store: u64,
}

/// The right to do it: a capability and the session's current lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Pass {
    #[n(0)]
    pub capability: Capability,
    #[n(1)]
    pub lease: Lease,
    /// The target's store generation that the client knows: under an older one it holds nothing any more. Under a newer
    /// one it is refused (`StoreRaised`), to send again first what it holds. `None`: it holds nothing of this target.
    #[n(2)]
    pub store: Option<u64>,
}

/// A run of bytes of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Run {
    #[n(0)]
    pub offset: ObjectOffset,
    /// In bytes, not 0.
    #[n(1)]
    pub len: u32,
}

/// Which bytes of a slot's object a request is about, in the order of its payload.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ranges {
    /// Listed; at most `limits::PIECES_MAX`.
    #[n(0)]
    List(#[n(0)] Vec<Run>),
    /// Described in the file's own offsets; the iod deals it with the capability's distribution and takes what falls
    /// to its slot, in file order.
    #[n(1)]
    Strided(#[n(0)] Pattern),
}

/// Reads. The payload of the reply holds, run by run, the bytes that lie below the object's end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Read {
    #[n(0)]
    pub target: TargetId,
    #[n(1)]
    pub pass: Pass,
    #[n(2)]
    pub slot: Slot,
    #[n(3)]
    pub ranges: Ranges,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReadDone {
    #[n(0)]
    pub generations: Generations,
    /// The object's length in bytes at that moment. Bytes of a run at or past it are not in the payload; whether they
    /// are a hole or past the end of the file, the client tells by the file's size.
    #[n(1)]
    pub object_len: u64,
    /// False: there is no such object (nothing was written in this slot, or this data generation is gone).
    #[n(2)]
    pub exists: bool,
}

/// How far a write was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Acked {
    /// Under which store generation: [`Generations::store`].
    #[n(0)]
    pub generation: u64,
    /// Which commit makes it durable: [`Durability::mark`].
    #[n(1)]
    pub mark: u64,
    /// Only its bytes below this object offset count: [`Durability::below`].
    #[n(2)]
    pub below: Option<u64>,
}

/// What an iod tells of commits. Marks rise over all restarts of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Durability {
    /// Of a write: it is durable once all up to this mark is committed; 0: it is already. Else of no meaning.
    #[n(0)]
    pub mark: u64,
    /// All that was acknowledged up to this mark, under the store generation beside it, is durable.
    #[n(1)]
    pub committed: u64,
    /// Of a write that was sent again: a cut had overtaken all but its bytes below this object offset.
    #[n(2)]
    pub below: Option<u64>,
}

/// Writes the payload. Done whole or, after an error, in part; sent again, it has the same effect.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Write {
    #[n(0)]
    pub target: TargetId,
    #[n(1)]
    pub pass: Pass,
    #[n(2)]
    pub slot: Slot,
    #[n(3)]
    pub ranges: Ranges,
    /// It was acknowledged so before, and may have been lost since. What a later cut or sync has overtaken is not
    /// written again.
    #[n(4)]
    pub again: Option<Acked>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Written {
    #[n(0)]
    pub generations: Generations,
    #[n(1)]
    pub durability: Option<Durability>,
}

/// What a range gets for which no bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FillWith {
    /// Zeros, as far as the object reaches; its blocks are given back where the disk can.
    #[n(0)]
    Zeros,
    /// Blocks, so that later writes find room. Changes no byte, and no length.
    #[n(1)]
    Room,
}

/// Fills a range of one object. Sent again, it has the same effect.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fill {
    #[n(0)]
    pub target: TargetId,
    #[n(1)]
    pub pass: Pass,
    #[n(2)]
    pub slot: Slot,
    #[n(3)]
    pub start: ObjectOffset,
    /// Behind the last byte; above `start`.
    #[n(4)]
    pub end: ObjectOffset,
    #[n(5)]
    pub with: FillWith,
    /// As [`Write::again`].
    #[n(6)]
    pub again: Option<Acked>,
}

/// Copies a range from one object to another on the same target, at most `limits::COPY_BYTES_MAX`. Where the one has no data, or
/// ends before, the other gets zeros, as far as it reaches. Sent again it copies again: who asked has had no answer yet. The
/// copy is not held by any client: who wants it to outlive the machine syncs, and copies again where the generation has changed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Copy {
    #[n(0)]
    pub target: TargetId,
    /// To write `slot`. Its lease is that of `from` too.
    #[n(1)]
    pub pass: Pass,
    #[n(2)]
    pub slot: Slot,
    #[n(3)]
    pub start: ObjectOffset,
    /// Behind the last byte; above `start`.
    #[n(4)]
    pub end: ObjectOffset,
    /// To read `from_slot`.
    #[n(5)]
    pub from: Capability,
    #[n(6)]
    pub from_slot: Slot,
    /// Where the first byte comes from.
    #[n(7)]
    pub from_start: ObjectOffset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Copied {
    #[n(0)]
    pub generations: Generations,
    #[n(1)]
    pub durability: Option<Durability>,
    /// How long the source object was; 0 where there is none. Behind it the file may have a hole, or end.
    #[n(2)]
    pub source_len: u64,
}

/// Asks where an object has data, or none, next.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FindData {
    #[n(0)]
    pub target: TargetId,
    #[n(1)]
    pub pass: Pass,
    #[n(2)]
    pub slot: Slot,
    #[n(3)]
    pub from: ObjectOffset,
    /// Looks for a hole instead; behind an object's end all is one.
    #[n(4)]
    pub hole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DataFound {
    #[n(0)]
    pub generations: Generations,
    /// At `from` or behind it; `None`: no data follows.
    #[n(1)]
    pub at: Option<ObjectOffset>,
}

/// Asks for a descriptor of an object, for a client of the iod's machine to read it by itself. The iod remembers nothing of it.
/// Refused with `ENOENT` where there is no such object, with `EOPNOTSUPP` where there is no descriptor to have, or no way for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OpenObject {
    #[n(0)]
    pub target: TargetId,
    #[n(1)]
    pub pass: Pass,
    #[n(2)]
    pub slot: Slot,
    /// Under which it is passed, with that of the iod's board.
    #[n(3)]
    pub number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ObjectOpened {
    #[n(0)]
    pub generations: Generations,
    /// As long as the iod's board says so, and shows no cut and no end of the lease meanwhile, a read is as good as one that the
    /// iod has served.
    #[n(1)]
    pub epoch: u64,
}

/// Makes what was written to these slots of the capability's file durable, whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sync {
    #[n(0)]
    pub target: TargetId,
    #[n(1)]
    pub pass: Pass,
    #[n(2)]
    pub slots: Vec<Slot>,
}

/// Asks what is durable on a target. Any authenticated peer may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Commit {
    #[n(0)]
    pub target: TargetId,
    /// As [`Pass::store`].
    #[n(1)]
    pub store: Option<u64>,
    /// Makes durable first all that was written so far; else answers at once.
    #[n(2)]
    pub now: bool,
}

/// Asks how long objects are. Any authenticated peer may.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StatObjects {
    #[n(0)]
    pub target: TargetId,
    #[n(1)]
    pub objects: Vec<ObjectId>,
    /// As [`Pass::store`].
    #[n(2)]
    pub store: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ObjectStats {
    #[n(0)]
    pub generations: Generations,
    /// In the order asked; `None`: no such object.
    #[n(1)]
    pub objects: Vec<Option<ObjectStat>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ObjectStat {
    #[n(0)]
    pub len: u64,
    /// Bytes allocated on the target's disk.
    #[n(1)]
    pub allocated: u64,
    #[n(2)]
    pub mtime: Timestamp,
}

/// Removes objects; one that is not there counts as removed. Daemons only.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RemoveObjects {
    #[n(0)]
    pub target: TargetId,
    #[n(1)]
    pub objects: Vec<ObjectId>,
}

/// Cuts objects to a length, durably, before it answers. Never makes one longer; one that is not there stays so.
/// Daemons only.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TruncateObjects {
    #[n(0)]
    pub target: TargetId,
    #[n(1)]
    pub objects: Vec<(ObjectId, u64)>,
}

/// Makes an object that begins with these bytes, durably, before it answers; what one that is there holds behind them stays.
/// Daemons only.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PutObject {
    #[n(0)]
    pub target: TargetId,
    #[n(1)]
    pub object: ObjectId,
    /// At most `limits::INLINE_BYTES_MAX`.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub data: Vec<u8>,
}

request! {
    Read => Read, ReadDone;
    Write => Write, Written;
    Fill => Fill, Written;
    Copy => Copy, Copied;
    FindData => FindData, DataFound;
    OpenObject => OpenObject, ObjectOpened;
    Sync => Sync, Written;
    Commit => Commit, Written;
    StatObjects => StatObjects, ObjectStats;
    RemoveObjects => RemoveObjects, Done;
    TruncateObjects => TruncateObjects, Done;
    PutObject => PutObject, Done;
}
