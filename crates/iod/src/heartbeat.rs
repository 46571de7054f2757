//! Tells the mgr, each second, that this iod lives, and follows the mgr's time. A mgr that was started again is told at
//! once: until then it knows no address of any target.

use crate::{service::Iod, status};
use pvfs_net::{Backoff, CallError, Peer};
use pvfs_wire::msg::admin::{Heartbeat, HeartbeatAnswer};
use std::{sync::Arc, time::Duration};
use tracing::{info, warn};

/// How long to wait for an answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// The last one, when stopping.
const FAREWELL_DEADLINE: Duration = Duration::from_millis(500);

/// The heart of one iod.
pub struct Heart {
    pub iod: Arc<Iod>,
    pub mgr: Arc<Peer>,
    /// Where clients reach this iod.
    pub addr: String,
    pub period: Duration,
}

impl Heart {
    /// Beats for ever.
    pub async fn beat(&self) {
        let (mut backoff, mut heard) = (Backoff::default(), None);
        loop {
            let pause = match self.mgr.call_once(&self.report(false), DEADLINE).await {
                Ok(answer) => {
                    self.take(&answer);
                    backoff.reset();
                    if heard != Some(true) {
                        info!(iod = self.iod.label, mgr = ?self.mgr.addrs(), "mgr heard");
                    }
                    heard = Some(true);
                    self.period
                }
                Err(error) => {
                    if heard != Some(false) {
                        self.warn_silent(&error);
                    }
                    heard = Some(false);
                    backoff.fail(pvfs_env::random::number()).min(self.period)
                }
            };
            tokio::select! {
                biased;
                () = self.mgr.broken(), if heard == Some(true) => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Tells the mgr that this iod is about to stop. That it hears it is not needed.
    pub async fn farewell(&self) {
        let _ = self.mgr.call_once(&self.report(true), FAREWELL_DEADLINE).await;
    }

    fn report(&self, stopping: bool) -> Heartbeat {
        Heartbeat {
            addr: self.addr.clone(),
            targets: self.iod.targets.iter().map(status::report).collect(),
            mgr_time_ms: self.iod.time.confirmed_ms(),
            stopping,
        }
    }

    /// The time is written down before it is followed: a process that comes after this one must not fall behind what was
    /// confirmed. And before a target joins: see `Store::mgr_time_at_open`.
    fn take(&self, answer: &HeartbeatAnswer) {
        let targets = &self.iod.targets;
        self.iod.time.told(answer.mgr_time_ms);
        self.iod.time.told_writes_since(answer.writes_since_ms);
        if self.iod.time.now_ms().is_none_or(|now| answer.mgr_time_ms > now) {
            let written = targets.iter().map(|target| target.store.follow_mgr_time(answer.mgr_time_ms));
            match written.collect::<Result<Vec<()>, _>>() {
                Ok(_) => self.iod.follow(answer.mgr_time_ms),
                Err(error) => return warn!(%error, "the mgr's time is not followed"),
            }
        }
        if answer.targets.len() != targets.len() {
            return warn!(
                sent = targets.len(),
                answered = answer.targets.len(),
                "the mgr's answer does not fit the heartbeat"
            );
        }
        for (target, id) in targets.iter().zip(&answer.targets) {
            target.told(*id, self.iod.board.as_deref());
        }
    }

    fn warn_silent(&self, error: &CallError) {
        let hint = "open files stay usable; trying again";
        warn!(iod = self.iod.label, mgr = ?self.mgr.addrs(), %error, hint, "no mgr hears this iod");
    }
}
