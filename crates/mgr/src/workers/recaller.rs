//! Sees to it that changes wait for a silent session's delegations no longer than its lease.

use crate::mgr::Mgr;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use tracing::info;

/// The mgr's time is not this machine's: it is looked at this often.
const LOOK: Duration = Duration::from_millis(100);

pub async fn work(mgr: Arc<Mgr>) {
    loop {
        let awaited = mgr.delegations.awaited();
        if awaited.is_empty() {
            mgr.delegations.waits.notified().await;
            continue;
        }
        let now_ms = mgr.time.now_ms();
        for session in awaited {
            if mgr.sessions.find(session).is_none_or(|standing| standing.has_run_out(now_ms)) {
                info!(%session, "its delegations are over with its lease: others want to change something");
                mgr.delegations.lapse(session);
            }
        }
        sleep(LOOK).await;
    }
}
