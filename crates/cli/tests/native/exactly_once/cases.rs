//! Which operation is tried how.

use super::{data, locks, names, quotas, sessions, world::Cell, xattrs};
use pvfs_wire::Op;
use std::pin::Pin;

/// Whose messages are meddled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Mgr,
    Iod,
}

/// A step of a case; what it gives is compared.
pub type Step = fn(Cell) -> Pin<Box<dyn Future<Output = String> + Send>>;

/// One way to use an operation.
pub struct Case {
    pub name: &'static str,
    pub asked: Asked,
    /// The request names a slot of its session.
    pub in_slot: bool,
    /// Before the fault.
    pub prepare: Step,
    /// Sends the operation, first of its kind.
    pub act: Step,
    /// The opposite, by the same client; a late copy of the first must not undo it.
    pub undo: Step,
}

/// The cases of `op`; none where sending it twice changes nothing.
pub fn of(op: Op) -> &'static [Case] {
    match op {
        // They change nothing, but what is durable; a heartbeat tells a state; a repair holds each fix against the records when it makes it:
        // `fixes_are_made_once_and_only_where_they_still_apply`.
        Op::Hello
        | Op::Prove
        | Op::Ping
        | Op::Status
        | Op::Heartbeat
        | Op::GetTargets
        | Op::Lookup
        | Op::GetAttr
        | Op::ReadLink
        | Op::ReadDir
        | Op::StatFs
        | Op::Access
        | Op::GetXattr
        | Op::ListXattr
        | Op::ReadInline
        | Op::ListWrites
        | Op::GetQuotas
        | Op::Commit
        | Op::StatObjects
        | Op::FindData
        | Op::OpenObject
        | Op::ListObjects
        | Op::CheckStore
        | Op::ListFiles
        | Op::JudgeObjects
        | Op::TestLock
        | Op::AwaitLocks
        | Op::AwaitRecalls
        | Op::Recalled
        | Op::HoldDelegations
        | Op::Repair => &[],

        Op::OpenSession => sessions::OPEN_SESSION,
        Op::KeepAlive => sessions::KEEP_ALIVE,
        Op::CloseSession => sessions::CLOSE_SESSION,

        Op::SetAttr => names::SET_ATTR,
        Op::Create => names::CREATE,
        Op::TmpFile => names::TMP_FILE,
        Op::MkDir => names::MK_DIR,
        Op::MkNod => names::MK_NOD,
        Op::SymLink => names::SYM_LINK,
        Op::Link => names::LINK,
        Op::Unlink => names::UNLINK,
        Op::RmDir => names::RM_DIR,
        Op::Rename => names::RENAME,
        Op::SetLayout => names::SET_LAYOUT,
        Op::SetXattr => xattrs::SET_XATTR,
        Op::RemoveXattr => xattrs::REMOVE_XATTR,
        Op::SetQuota => quotas::SET_QUOTA,
        Op::Open => names::OPEN,
        Op::ReportSize => names::REPORT_SIZE,
        Op::EndWrites => names::END_WRITES,
        Op::PutInline => names::PUT_INLINE,
        Op::TouchAtimes => names::TOUCH_ATIMES,
        Op::SetLock => locks::SET_LOCK,
        Op::CancelLock => locks::CANCEL_LOCK,
        Op::ReleaseLocks => locks::RELEASE_LOCKS,

        Op::Read => data::READ,
        Op::Write => data::WRITE,
        Op::Fill => data::FILL,
        Op::Copy => data::COPY,
        Op::Sync => data::SYNC,
        Op::RemoveObjects => data::REMOVE_OBJECTS,
        Op::TruncateObjects => data::TRUNCATE_OBJECTS,
        Op::PutObject => data::PUT_OBJECT,
    }
}
