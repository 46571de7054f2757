//! What the iod tells of itself.

use crate::{service::Iod, target::Target};
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
    // A disk that does not tell counts as full, so that nothing new is placed on it.
    let usage = target.store.usage().ok();
    TargetReport {
        uuid: target.store.uuid(),
        generations: target.generations(target.store.generation()),
        bytes_total: usage.map_or(0, |usage| usage.total),
        bytes_free: usage.map_or(0, |usage| usage.free),
        device: usage.map(|usage| usage.device),
    }
}

fn target_status(target: &Target) -> TargetStatus {
    let TargetReport { uuid, generations, bytes_total, bytes_free, .. } = report(target);
    let (id, dir) = (target.store.target_id(), target.store.dir().display().to_string());
    TargetStatus { id, uuid, dir, bytes_total, bytes_free, generations }
}
