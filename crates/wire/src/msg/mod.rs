//! The messages, by what they are about, and the list of all operations.

pub mod admin;
pub mod data;
pub mod delegation;
pub mod file;
pub mod fsck;
pub mod hello;
pub mod lock;
pub mod namespace;
pub mod quota;
pub mod session;
pub mod xattr;

use minicbor::{Decode, Encode};

/// A request: which operation it is and what answers it.
pub trait Request: Encode<()> + for<'b> Decode<'b, ()> + Send + Sync + 'static {
    const OP: Op;
    type Reply: Encode<()> + for<'b> Decode<'b, ()> + Send + 'static;
}

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Every operation, with its number on the wire. A number never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Op { $($(#[$doc])* $name = $number,)* }

        impl Op {
            pub const ALL: &[Op] = &[$(Op::$name,)*];

            pub fn number(self) -> u16 {
                self as u16
            }

            pub fn from_number(number: u16) -> Option<Op> {
                match number {
                    $($number => Some(Op::$name),)*
                    _ => None,
                }
            }

            /// Answered when somebody else does something, maybe never: a server that has not answered it is well.
            pub fn is_patient(self) -> bool {
                matches!(self, Op::AwaitLocks | Op::AwaitRecalls)
            }

            /// The name that counters, logs and traces show.
            pub fn name(self) -> &'static str {
                match self { $(Op::$name => $text,)* }
            }
        }
    };
}

ops! {
    // Any two peers.
    Hello = 0x001, "hello";
    Prove = 0x002, "prove";
    Ping = 0x003, "ping";
    Status = 0x004, "status";

    // Client to mgr: sessions and the map.
    OpenSession = 0x101, "open_session";
    KeepAlive = 0x102, "keep_alive";
    CloseSession = 0x103, "close_session";
    GetTargets = 0x104, "get_targets";

    // Client to mgr: reading the name space.
    Lookup = 0x201, "lookup";
    GetAttr = 0x202, "getattr";
    ReadLink = 0x203, "readlink";
    ReadDir = 0x204, "readdir";
    StatFs = 0x205, "statfs";
    Access = 0x206, "access";
    GetXattr = 0x207, "getxattr";
    ListXattr = 0x208, "listxattr";
    GetQuotas = 0x220, "get_quotas";

    // Client to mgr: changing the name space.
    SetAttr = 0x301, "setattr";
    Create = 0x302, "create";
    MkDir = 0x303, "mkdir";
    MkNod = 0x304, "mknod";
    SymLink = 0x305, "symlink";
    Link = 0x306, "link";
    Unlink = 0x307, "unlink";
    RmDir = 0x308, "rmdir";
    Rename = 0x309, "rename";
    SetLayout = 0x30a, "set_layout";
    SetXattr = 0x30b, "setxattr";
    RemoveXattr = 0x30c, "removexattr";
    TmpFile = 0x30d, "tmpfile";
    SetQuota = 0x320, "set_quota";

    // Client to mgr: open files.
    Open = 0x401, "open";
    ReportSize = 0x402, "report_size";
    EndWrites = 0x403, "end_writes";
    TouchAtimes = 0x404, "touch_atimes";
    PutInline = 0x405, "put_inline";
    ReadInline = 0x406, "read_inline";
    ListWrites = 0x407, "list_writes";

    // Client to mgr: locks.
    TestLock = 0x40e, "test_lock";
    SetLock = 0x40f, "set_lock";
    AwaitLocks = 0x410, "await_locks";
    CancelLock = 0x411, "cancel_lock";
    ReleaseLocks = 0x412, "release_locks";

    // Client to mgr: delegations.
    AwaitRecalls = 0x413, "await_recalls";
    Recalled = 0x414, "recalled";
    HoldDelegations = 0x415, "hold_delegations";

    // Client to iod.
    Read = 0x501, "read";
    Write = 0x502, "write";
    Sync = 0x503, "sync";
    StatObjects = 0x504, "stat_objects";
    Commit = 0x505, "commit";
    Fill = 0x507, "fill";
    FindData = 0x508, "find_data";
    Copy = 0x509, "copy";
    OpenObject = 0x50a, "open_object";

    // The check of a whole file system: client to iod, then client to mgr.
    ListObjects = 0x506, "list_objects";
    CheckStore = 0x801, "check_store";
    ListFiles = 0x802, "list_files";
    JudgeObjects = 0x803, "judge_objects";
    Repair = 0x804, "repair";

    // Mgr to iod.
    RemoveObjects = 0x601, "remove_objects";
    TruncateObjects = 0x602, "truncate_objects";
    PutObject = 0x603, "put_object";

    // Iod to mgr.
    Heartbeat = 0x701, "heartbeat";
}

/// Binds requests to their operations and replies.
macro_rules! request {
    ($($request:ty => $op:ident, $reply:ty;)*) => {
        $(impl crate::msg::Request for $request {
            const OP: crate::msg::Op = crate::msg::Op::$op;
            type Reply = $reply;
        })*
    };
}
pub(crate) use request;
