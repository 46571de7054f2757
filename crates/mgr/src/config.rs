//! What a mgr is started with.

use crate::sequencer;
use pvfs_env::{Clock, HostTransport, Metrics, SystemClock, Transport};
use pvfs_kv::Durability;
use pvfs_types::{FsId, limits::INLINE_BYTES_MAX};
use pvfs_wire::msg::hello::Secret;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// The port that mgrs listen on unless told otherwise.
pub const PORT: u16 = 7334;

/// How large the metadata store can grow: address space, not memory; the file grows as needed.
pub(crate) const MAP_BYTES: usize = 256 << 30;
const LEASE_MS: u64 = 30_000;
const KEEP_ALIVE_MS: u64 = 2_000;
const TARGET_SILENCE: Duration = Duration::from_secs(5);

/// A mgr's configuration. [`MgrConfig::new`] fills in what is usual.
#[derive(Clone)]
pub struct MgrConfig {
    /// `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Where the metadata store is.
    pub dir: PathBuf,
    pub fs: FsId,
    pub cluster_secret: Secret,
    pub daemon_secret: Secret,
    /// For people.
    pub label: String,
    /// Address space for the store, in bytes.
    pub map_bytes: usize,
    /// Whether a commit waits for the disk.
    pub durability: Durability,
    /// How long a session's lease lasts.
    pub lease_ms: u64,
    /// How often sessions are to send keep-alives.
    pub keep_alive_ms: u64,
    /// The mgr keeps the bytes of new files that are no longer; at most `limits::INLINE_BYTES_MAX`, 0: of none.
    pub inline_bytes_max: usize,
    /// How long a target may be silent before it counts as down.
    pub target_silence: Duration,
    /// Where to serve `/metrics`, if anywhere.
    pub metrics_addr: Option<String>,
    pub metrics: Metrics,
    pub transport: Arc<dyn Transport>,
    pub clock: Arc<dyn Clock>,
    /// Where the metadata changes.
    pub sequencer: sequencer::Home,
}

impl MgrConfig {
    /// A mgr on loopback over TCP, with the usual times and sizes.
    pub fn new(
        fs: FsId,
        dir: impl Into<PathBuf>,
        cluster_secret: Secret,
        daemon_secret: Secret,
    ) -> MgrConfig {
        MgrConfig {
            listen: format!("127.0.0.1:{PORT}"),
            dir: dir.into(),
            fs,
            cluster_secret,
            daemon_secret,
            label: "mgr".into(),
            map_bytes: MAP_BYTES,
            durability: Durability::Sync,
            lease_ms: LEASE_MS,
            keep_alive_ms: KEEP_ALIVE_MS,
            inline_bytes_max: INLINE_BYTES_MAX,
            target_silence: TARGET_SILENCE,
            metrics_addr: None,
            metrics: Metrics::new(),
            transport: Arc::new(HostTransport::default()),
            clock: Arc::new(SystemClock),
            sequencer: sequencer::Home::default(),
        }
    }
}
