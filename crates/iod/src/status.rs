//! What the iod tells of itself.

use crate::{service::Iod, target::Target};
use pvfs_store::Store;
use pvfs_wire::msg::{
    admin::{DaemonStatus, TargetReport, TargetStatus},
    hello::Role,
};

pub fn of(iod: &Iod) -> DaemonStatus {
    DaemonStatus {
        role: Role::Iod,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: iod.started,
        uptime_ms: u64::try_from(iod.started_at.elapsed().as_millis()).unwrap_or(u64::MAX),
        process: iod.process,
        counters: iod.counters.snapshot(),
        targets: iod.targets.iter().map(target_status).collect(),
        sessions: Vec::new(),
    }
}

/// What a heartbeat says of a target.
pub fn report(target: &Target) -> TargetReport {
    let (bytes_total, bytes_free) = capacity(&target.store);
    let generations = target.generations(target.store.generation());
    TargetReport { uuid: target.store.uuid(), generations, bytes_total, bytes_free }
}

fn target_status(target: &Target) -> TargetStatus {
    let TargetReport { uuid, generations, bytes_total, bytes_free } = report(target);
    let (id, dir) = (target.store.target_id(), target.store.dir().display().to_string());
    TargetStatus { id, uuid, dir, bytes_total, bytes_free, generations }
}

/// Total and free bytes; a disk that does not tell counts as full, so that nothing new is placed on it.
fn capacity(store: &Store) -> (u64, u64) {
    store.usage().map_or((0, 0), |usage| (usage.total, usage.free))
}
