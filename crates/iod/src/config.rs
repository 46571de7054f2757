//! What an iod is started with.

use pvfs_env::{Clock, HostTransport, Metrics, SystemClock, Transport};
use pvfs_types::FsId;
use pvfs_wire::msg::hello::Secret;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// An iod's configuration. [`IodConfig::new`] fills in what is usual.
#[derive(Clone)]
pub struct IodConfig {
    /// `host:port`; port 0 takes a free one.
    pub listen: String,
    /// `host:port` where clients reach this iod; `None`: where it listens.
    pub advertise: Option<String>,
    /// The directories of its targets, at least one.
    pub targets: Vec<PathBuf>,
    /// `host:port` of the mgrs.
    pub mgr: Vec<String>,
    pub fs: FsId,
    pub cluster_secret: Secret,
    pub daemon_secret: Secret,
    /// For people.
    pub label: String,
    /// Objects whose descriptors are kept open, over all targets; `None`: half of what the system lets it have, up to
    /// 16,384.
    pub open_objects_max: Option<usize>,
    /// How often the mgr is told that this iod lives.
    pub heartbeat: Duration,
    /// How often what was written is made durable.
    pub commit_period: Duration,
    /// With so many uncommitted bytes on a target, that is done at once.
    pub commit_bytes: u64,
    /// The file that tells the run of the machine; `None`: the kernel's.
    pub boot_id: Option<PathBuf>,
    /// Where to serve `/metrics`, if anywhere.
    pub metrics_addr: Option<String>,
    pub metrics: Metrics,
    pub transport: Arc<dyn Transport>,
    pub clock: Arc<dyn Clock>,
}

impl IodConfig {
    /// An iod on a free port of loopback over TCP.
    pub fn new(fs: FsId, cluster_secret: Secret, daemon_secret: Secret) -> IodConfig {
        IodConfig {
            listen: "127.0.0.1:0".into(),
            advertise: None,
            targets: Vec::new(),
            mgr: Vec::new(),
            fs,
            cluster_secret,
            daemon_secret,
            label: "iod".into(),
            open_objects_max: None,
            heartbeat: Duration::from_secs(1),
            commit_period: Duration::from_secs(5),
            commit_bytes: 256 << 20,
            boot_id: None,
            metrics_addr: None,
            metrics: Metrics::new(),
            transport: Arc::new(HostTransport::default()),
            clock: Arc::new(SystemClock),
        }
    }
}
