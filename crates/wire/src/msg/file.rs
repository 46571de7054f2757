//! Operations on open files: client to mgr. `open` yields a signed capability; nobody remembers readers.

use super::{
    namespace::Entry,
    request,
    session::{Caller, Done, Mutator},
};
use crate::{Access, Capability};
use minicbor::{Decode, Encode};
use pvfs_types::{Ino, SessionId, Timestamp};

/// Opens a regular file. With write access the session is recorded as a writer; but of a file that the mgr keeps, as long as
/// `grow_to` is not said, it gets no more than the right to read. So who opens one for writing, and does not write, waits for no target.
///
/// Readers' opens record nothing, so they need no slot: `by.slot` and `by.seq` count only with `access.write` or
/// `truncate`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Open {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub ino: Ino,
    #[n(2)]
    pub access: Access,
    /// `O_TRUNC`.
    #[n(3)]
    pub truncate: bool,
    /// The client has the file open already and needs a fresh capability or writer record: no permission check, and
    /// an orphan may be opened.
    #[n(4)]
    pub again: bool,
    /// The client is about to write so far: where limits do not leave room for that, the open is refused.
    #[n(5)]
    pub grow_to: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Opened {
    #[n(0)]
    pub entry: Entry,
    #[n(1)]
    pub capability: Capability,
}

/// A writer tells what it wrote, at fsync and close.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReportSize {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub ino: Ino,
    /// The end of the last byte this client wrote or found. The record grows to it, never shrinks.
    #[n(2)]
    pub size: u64,
    /// The epoch `size` was learned under. Another one now: a truncation came between, `size` is not taken, the
    /// reply says so by its own epoch, and the client asks the targets and reports again.
    #[n(3)]
    pub size_epoch: u32,
    /// When it last wrote, in the mgr's time; `None`: no write since the last report.
    #[n(4)]
    pub mtime: Option<Timestamp>,
    /// Also ends this session's standing as a writer of the file.
    #[n(5)]
    pub close: bool,
    /// How many bytes the targets' disks hold, where that may be another number than the size.
    #[n(6)]
    pub allocated: Option<u64>,
}

/// A writer that is alone with a new file, and of which no target has had a byte, closes it: the mgr keeps what was written, all
/// of it. Ends this session's standing as a writer.
///
/// Where that cannot be (others write it, a truncation came between, it is too long), nothing at all changes, as the reply's
/// attributes say: the bytes go to the targets, and their end is told by [`ReportSize`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PutInline {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub ino: Ino,
    /// At most `limits::INLINE_BYTES_MAX`; not nothing.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub data: Vec<u8>,
    /// As [`ReportSize::size_epoch`].
    #[n(3)]
    pub size_epoch: u32,
    /// When it last wrote, in the mgr's time.
    #[n(4)]
    pub mtime: Option<Timestamp>,
}

/// Asks for the bytes of a file that the mgr keeps.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReadInline {
    #[n(0)]
    pub caller: Caller,
    #[n(1)]
    pub ino: Ino,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct InlineRead {
    #[n(0)]
    pub entry: Entry,
    /// All bytes of the file; `None`: it is not kept so, or not any more.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub data: Option<Vec<u8>>,
}

/// Ends this session's standing as a writer of files that it closed with nothing to report, many at once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EndWrites {
    #[n(0)]
    pub by: Mutator,
    /// At most `limits::END_WRITES_MAX`; one that is not written or not there is passed over.
    #[n(1)]
    pub inos: Vec<Ino>,
}

/// Asks which files the session counts as a writer of, by number. Who goes on in a dead process's place cannot know what that had
/// closed and not told of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListWrites {
    #[n(0)]
    pub session: SessionId,
    /// Those after this one.
    #[n(1)]
    pub after: Ino,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Writes {
    /// At most `limits::WRITES_PAGE_MAX`.
    #[n(0)]
    pub inos: Vec<Ino>,
    /// There are no more.
    #[n(1)]
    pub end: bool,
}

/// What was read, and when, in the mgr's time. Without `strict` times of access move only where `relatime` has it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TouchAtimes {
    #[n(0)]
    pub by: Mutator,
    /// At most `limits::ATIMES_MAX`; one that is not there is passed over.
    #[n(1)]
    pub read: Vec<ReadAt>,
    #[n(2)]
    pub strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReadAt {
    #[n(0)]
    pub ino: Ino,
    #[n(1)]
    pub at: Timestamp,
}

request! {
    Open => Open, Opened;
    ReportSize => ReportSize, Entry;
    EndWrites => EndWrites, Done;
    TouchAtimes => TouchAtimes, Done;
    PutInline => PutInline, Entry;
    ReadInline => ReadInline, InlineRead;
    ListWrites => ListWrites, Writes;
}
