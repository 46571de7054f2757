//! Heartbeats, pings and status.

use super::{data::Generations, hello::Role, request, session::Done};
use minicbor::{Decode, Encode};
use pvfs_types::{TargetId, TargetUuid, Timestamp};

/// Is anybody there? Any authenticated peer may ask anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ping {}

/// An iod tells the mgr that it lives, where, and how its targets are. The first one of a new target joins it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Heartbeat {
    /// `host:port` where clients reach this iod.
    #[n(0)]
    pub addr: String,
    #[n(1)]
    pub targets: Vec<TargetReport>,
    /// The latest mgr time this iod follows, in milliseconds: leases that ended before it are refused here.
    #[n(2)]
    pub mgr_time_ms: u64,
    /// The iod is about to stop: count it as down at once.
    #[n(3)]
    pub stopping: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TargetReport {
    #[n(0)]
    pub uuid: TargetUuid,
    #[n(1)]
    pub generations: Generations,
    #[n(2)]
    pub bytes_total: u64,
    #[n(3)]
    pub bytes_free: u64,
    /// The file system below it, among those of its machine's run `generations.boot`: targets of one share its room.
    #[n(4)]
    pub device: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeartbeatAnswer {
    #[n(0)]
    pub mgr_time_ms: u64,
    /// The number of each reported target, in order; `None`: the mgr refuses it (it says why in its log).
    #[n(1)]
    pub targets: Vec<Option<TargetId>>,
    /// Capabilities to write that were granted at this time or before are too old: since then limits bind files that were
    /// free before. `None`: all are good.
    #[n(2)]
    pub writes_since_ms: Option<u64>,
}

/// Asks a daemon about itself. Any authenticated peer may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GetStatus {}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DaemonStatus {
    #[n(0)]
    pub role: Role,
    /// The package's version.
    #[n(1)]
    pub version: String,
    #[n(2)]
    pub pid: u32,
    #[n(3)]
    pub started: Timestamp,
    #[n(4)]
    pub uptime_ms: u64,
    #[n(5)]
    pub process: u64,
    /// Every counter, by its name in `docs/metrics.md`, in order.
    #[n(6)]
    pub counters: Vec<(String, u64)>,
    /// Iods: their targets.
    #[n(7)]
    pub targets: Vec<TargetStatus>,
    /// Mgr: live sessions.
    #[n(8)]
    pub sessions: Vec<SessionStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TargetStatus {
    /// `None`: not joined yet.
    #[n(0)]
    pub id: Option<TargetId>,
    #[n(1)]
    pub uuid: TargetUuid,
    #[n(2)]
    pub dir: String,
    #[n(3)]
    pub bytes_total: u64,
    #[n(4)]
    pub bytes_free: u64,
    #[n(5)]
    pub generations: Generations,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SessionStatus {
    #[n(0)]
    pub id: pvfs_types::SessionId,
    #[n(1)]
    pub label: String,
    #[n(2)]
    pub heard_ms_ago: u64,
    /// Milliseconds left of its lease; 0: run out.
    #[n(3)]
    pub lease_ms_left: u64,
}

request! {
    Ping => Ping, Done;
    Heartbeat => Heartbeat, HeartbeatAnswer;
    GetStatus => Status, DaemonStatus;
}
