//! What the mgr tells of itself and of the file system as a whole.

use crate::{mgr::Mgr, quota_ops};
use pvfs_meta::{MetaError, garbage, lock, orphan, superblock};
use pvfs_types::Ino;
use pvfs_wire::{
    Refusal, Status,
    msg::{
        admin::{DaemonStatus, SessionStatus},
        hello::Role,
        namespace::FsUsage,
    },
};

/// Counting ends here: a look must stay short.
const COUNTED_MAX: usize = 100_000;

pub fn status(mgr: &Mgr) -> DaemonStatus {
    set_gauges(mgr);
    let now_ms = mgr.time.now_ms();
    let sessions = mgr.sessions.all().into_iter().map(|(id, standing)| SessionStatus {
        id,
        label: standing.label,
        heard_ms_ago: now_ms.saturating_sub(standing.heard_ms),
        lease_ms_left: standing.lease_until_ms.saturating_sub(now_ms),
    });
    DaemonStatus {
        role: Role::Mgr,
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        started: mgr.started,
        uptime_ms: u64::try_from(mgr.started_at.elapsed().as_millis()).unwrap_or(u64::MAX),
        process: mgr.process,
        counters: mgr.metrics.snapshot(),
        targets: Vec::new(),
        sessions: sessions.collect(),
    }
}

/// What is counted when somebody looks.
pub fn set_gauges(mgr: &Mgr) {
    let set = |name: &str, value: u64| mgr.metrics.gauge(name, &[]).set(value);
    set("pvfs_sessions", mgr.sessions.all().len() as u64);
    let garbage = mgr.read(|txn| {
        let targets = mgr.targets.ids().into_iter();
        targets
            .map(|target| Ok(garbage::list(txn, target, COUNTED_MAX)?.len() as u64))
            .sum::<Result<u64, MetaError>>()
    });
    if let Ok(count) = garbage {
        set("pvfs_garbage_objects", count);
    }
    if let Ok(orphans) = mgr.read(|txn| orphan::list_after(txn, 0, COUNTED_MAX)) {
        set("pvfs_orphans", orphans.len() as u64);
    }
    if let Ok(waits) = mgr.read(|txn| lock::count_waits(txn, COUNTED_MAX)) {
        set("pvfs_lock_waits", waits as u64);
    }
    if let Ok(bytes) = mgr.engine.used_bytes() {
        set("pvfs_metadata_bytes", bytes);
    }
}

/// What there is for who asks at `at`, if that is somewhere.
pub fn usage(mgr: &Mgr, at: Option<Ino>) -> Result<FsUsage, Refusal> {
    let inodes = mgr.read(|txn| superblock::inodes_in_use(txn)).map_err(|error| error.refusal())?;
    let usage = mgr.targets.usage(inodes).ok_or_else(|| {
        Refusal::new(Status::NotNow, "the mgr has just started: some targets have yet to report")
    })?;
    let Some(at) = at else { return Ok(usage) };
    mgr.read(|txn| quota_ops::within_tree(txn, at, usage)).map_err(|error| error.refusal())
}
