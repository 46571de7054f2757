//! Sessions, slots, keep-alives and the map of targets.

use super::request;
use crate::Lease;
use minicbor::{Decode, Encode};
use pvfs_types::{Cred, Ino, IodtabGen, SessionId, TargetId, TargetUuid, Timestamp};

/// Who asks a mgr to read something.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Caller {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub cred: Cred,
}

/// Who asks a mgr to change something, and under which number: the same (session, slot, seq) is done once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Mutator {
    #[n(0)]
    pub session: SessionId,
    /// Below the session's slot count. One request at a time uses a slot.
    #[n(1)]
    pub slot: u16,
    /// Starts at 1, one higher with each new request in the slot; the same when it is sent again.
    #[n(2)]
    pub seq: u64,
    #[n(3)]
    pub cred: Cred,
}

/// Opens a session; sent again with the same `client`, gives the same one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OpenSession {
    /// As in the hello.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub client: [u8; 16],
    /// Rises with each session that `client` had to open anew (its first is 1), so that a late copy finds its own.
    #[n(1)]
    pub incarnation: u64,
    /// For people: program, host, mount point.
    #[n(2)]
    pub label: String,
    /// It takes [delegations](super::delegation), and answers recalls.
    #[n(3)]
    pub delegations: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SessionOpened {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub slots: u16,
    #[n(2)]
    pub lease: Lease,
    /// How often to send a keep-alive, in milliseconds.
    #[n(3)]
    pub keep_alive_ms: u64,
    /// The mgr's time, in milliseconds; leases end in it.
    #[n(4)]
    pub mgr_time_ms: u64,
    /// The mgr's wall clock: the one authority for file times.
    #[n(5)]
    pub now: Timestamp,
    /// Orphans up to this number are of no concern to the new session.
    #[n(6)]
    pub orphans_seen: u64,
    /// The mgr keeps the bytes of new files that are no longer than this.
    #[n(7)]
    pub inline_bytes_max: Option<u32>,
}

/// Renews the lease; carries claims on unlinked files.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeepAlive {
    #[n(0)]
    pub session: SessionId,
    /// The client has held every orphan up to this number against its open files, and claims below what it has open.
    #[n(1)]
    pub orphans_seen: u64,
    /// Orphans this client has open (new ones since its last keep-alive).
    #[n(2)]
    pub claims: Vec<Ino>,
    /// Orphans it claimed before and has closed since.
    #[n(3)]
    pub releases: Vec<Ino>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeptAlive {
    #[n(0)]
    pub lease: Lease,
    #[n(1)]
    pub mgr_time_ms: u64,
    #[n(2)]
    pub now: Timestamp,
    /// Orphans after `orphans_seen`, in order: hold them against the open files, answer in the next keep-alive.
    #[n(3)]
    pub orphans: Vec<Orphan>,
    /// There are more orphans than fit: send the next keep-alive at once.
    #[n(4)]
    pub more: bool,
    /// Changed whenever the answer to [`GetTargets`] would.
    #[n(5)]
    pub targets_version: u64,
}

/// An inode that lost its last name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Orphan {
    #[n(0)]
    pub seq: u64,
    #[n(1)]
    pub ino: Ino,
}

/// Ends a session cleanly: its claims and open-for-write records go.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CloseSession {
    #[n(0)]
    pub session: SessionId,
}

/// Asks for all targets and iodtabs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GetTargets {}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Targets {
    #[n(0)]
    pub version: u64,
    #[n(1)]
    pub targets: Vec<TargetInfo>,
    #[n(2)]
    pub iodtabs: Vec<Iodtab>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TargetInfo {
    #[n(0)]
    pub id: TargetId,
    #[n(1)]
    pub uuid: TargetUuid,
    /// `host:port` of its iod; empty as long as it never reported.
    #[n(2)]
    pub addr: String,
    /// The mgr heard of it within the last seconds.
    #[n(3)]
    pub up: bool,
    #[n(4)]
    pub bytes_total: u64,
    #[n(5)]
    pub bytes_free: u64,
    /// Milliseconds since the mgr last heard of it; `None`: never since the mgr's start.
    #[n(6)]
    pub heard_ms_ago: Option<u64>,
}

/// An ordered list of targets. What a generation lists never changes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Iodtab {
    #[n(0)]
    pub generation: IodtabGen,
    #[n(1)]
    pub targets: Vec<TargetId>,
}

/// An answer without content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Done {}

request! {
    OpenSession => OpenSession, SessionOpened;
    KeepAlive => KeepAlive, KeptAlive;
    CloseSession => CloseSession, Done;
    GetTargets => GetTargets, Targets;
}
