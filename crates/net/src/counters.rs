//! Counts every message sent and received, by kind, operation and the other side's role.

use pvfs_env::{Counter, Metrics};
use pvfs_wire::{FrameKind, Op, msg::hello::Role};
use std::sync::{Arc, OnceLock};

#[derive(Clone, Copy)]
pub enum Direction {
    Sent,
    Received,
}

/// The message counters of connections to one role.
#[derive(Clone)]
pub struct MessageCounters {
    metrics: Metrics,
    peer: &'static str,
    series: Arc<[OnceLock<Counter>]>,
    payload_sent: Counter,
    payload_received: Counter,
}

pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Mgr => "mgr",
        Role::Iod => "iod",
    }
}

impl MessageCounters {
    pub fn new(metrics: &Metrics, role: Role) -> MessageCounters {
        let peer = role_name(role);
        let payload = |dir| metrics.counter("pvfs_payload_bytes_total", &[("dir", dir), ("peer", peer)]);
        MessageCounters {
            peer,
            // One place more, for operations this build does not know.
            series: (0..(Op::ALL.len() + 1) * 6).map(|_| OnceLock::new()).collect(),
            payload_sent: payload("sent"),
            payload_received: payload("received"),
            metrics: metrics.clone(),
        }
    }

    pub fn count(&self, direction: Direction, kind: FrameKind, op: u16, payload_bytes: usize) {
        let op = Op::from_number(op);
        let op_index = op.and_then(|op| Op::ALL.iter().position(|o| *o == op)).unwrap_or(Op::ALL.len());
        let (kind_index, kind_name) = match kind {
            FrameKind::Request => (0, "request"),
            FrameKind::Reply => (1, "reply"),
            FrameKind::Refusal => (2, "refusal"),
        };
        let (direction_index, direction_name, payload) = match direction {
            Direction::Sent => (0, "sent", &self.payload_sent),
            Direction::Received => (1, "received", &self.payload_received),
        };
        let counter = self.series[(op_index * 3 + kind_index) * 2 + direction_index].get_or_init(|| {
            let op_name = op.map_or("unknown", Op::name);
            let labels = [("dir", direction_name), ("kind", kind_name), ("op", op_name), ("peer", self.peer)];
            self.metrics.counter("pvfs_messages_total", &labels)
        });
        counter.inc();
        payload.add(u64::try_from(payload_bytes).unwrap_or(0));
    }
}
