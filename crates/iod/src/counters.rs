//! What an iod counts. Names are listed in `docs/metrics.md`.

use pvfs_env::{Counter, Metrics};
use pvfs_wire::{Op, Status};
use std::{collections::HashMap, time::Duration};

pub struct Counters {
    metrics: Metrics,
    pub bytes_read: Counter,
    pub bytes_written: Counter,
    pub bytes_copied: Counter,
    commit_microseconds: Counter,
    ops: HashMap<Op, Counter>,
}

impl Counters {
    pub fn new(metrics: Metrics) -> Counters {
        let bytes = |dir| metrics.counter("pvfs_iod_bytes_total", &[("dir", dir)]);
        let op = |op: Op| (op, metrics.counter("pvfs_iod_ops_total", &[("op", op.name())]));
        let ops = [
            Op::Read,
            Op::Write,
            Op::Fill,
            Op::Copy,
            Op::FindData,
            Op::OpenObject,
            Op::Sync,
            Op::Commit,
            Op::StatObjects,
            Op::RemoveObjects,
            Op::TruncateObjects,
            Op::PutObject,
        ]
        .map(op);
        Counters {
            bytes_read: bytes("read"),
            bytes_written: bytes("written"),
            bytes_copied: bytes("copied"),
            commit_microseconds: metrics.counter("pvfs_iod_commit_microseconds_total", &[]),
            ops: ops.into_iter().collect(),
            metrics,
        }
    }

    /// A request was done.
    pub fn done(&self, op: Op) {
        if let Some(counter) = self.ops.get(&op) {
            counter.inc();
        }
    }

    /// A request was refused.
    pub fn refused(&self, op: Op, status: Status) {
        let labels = [("op", op.name()), ("status", status_name(status))];
        self.metrics.counter("pvfs_iod_refusals_total", &labels).inc();
    }

    /// A target was committed, or could not be.
    pub fn committed(&self, took: Duration, done: bool) {
        let result = if done { "done" } else { "failed" };
        self.metrics.counter("pvfs_iod_commits_total", &[("result", result)]).inc();
        self.commit_microseconds.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Every counter of the daemon, in order.
    pub fn snapshot(&self) -> Vec<(String, u64)> {
        self.metrics.snapshot()
    }
}

fn status_name(status: Status) -> &'static str {
    match status {
        Status::Errno(errno) => errno.name(),
        Status::SessionUnknown => "session_unknown",
        Status::SlotStale => "slot_stale",
        Status::LeaseExpired => "lease_expired",
        Status::CapabilityForged => "capability_forged",
        Status::CapabilityRights => "capability_rights",
        Status::WrongTarget => "wrong_target",
        Status::NotNow => "not_now",
        Status::PayloadDamaged => "payload_damaged",
        Status::BadRequest => "bad_request",
        Status::UnknownOp => "unknown_op",
        Status::Version => "version",
        Status::WrongFs => "wrong_fs",
        Status::Unauthorized => "unauthorized",
        Status::StoreRaised(_) => "store_raised",
        Status::CapabilityOld => "capability_old",
    }
}
