//! What the parts of a running mgr share.

use crate::{
    delegations::Delegations, locks::Locks, quota_ops::WritesSince, rollback::Rollback, sequencer::Sequencer,
    sessions::Sessions, targets::Targets, time::MgrTime, workers::Wakes,
};
use pvfs_env::{Clock, Metrics};
use pvfs_kv::{Engine, Read};
use pvfs_meta::MetaError;
use pvfs_types::{SessionId, Timestamp};
use pvfs_wire::{Lease, MacKey};
use std::{convert::Infallible, sync::Arc};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

pub struct Mgr {
    pub engine: Arc<dyn Engine>,
    pub sequencer: Sequencer,
    pub time: MgrTime,
    pub sessions: Sessions,
    pub locks: Locks,
    pub delegations: Arc<Delegations>,
    pub targets: Arc<Targets>,
    pub rollback: Rollback,
    pub writes_since: WritesSince,
    pub wakes: Wakes,
    pub clock: Arc<dyn Clock>,
    pub key: MacKey,
    pub metrics: Metrics,
    pub keep_alive_ms: u64,
    /// See [`crate::MgrConfig::inline_bytes_max`].
    pub inline_bytes_max: usize,
    pub process: u64,
    pub started: Timestamp,
    pub started_at: Instant,
    /// Turns true when the mgr stops.
    pub stopping: watch::Receiver<bool>,
    /// Closed when the last holder of the mgr is gone, and with it the engine.
    pub _alive: mpsc::Sender<Infallible>,
}

impl Mgr {
    /// Reads the name space as the last commit left it.
    pub fn read<T>(&self, read: impl FnOnce(&dyn Read) -> Result<T, MetaError>) -> Result<T, MetaError> {
        let snapshot = self.engine.snapshot()?;
        read(&*snapshot)
    }

    /// The mgr's wall clock.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_system(self.clock.wall())
    }

    pub fn lease(&self, session: SessionId, until_ms: u64) -> Lease {
        Lease::sign(session, until_ms, &self.key)
    }
}
