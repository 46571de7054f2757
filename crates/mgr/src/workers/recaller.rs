//! Sees to it that changes wait for a silent session's delegations no longer than its lease.

use super::expel::expel;
use crate::mgr::Mgr;
use pvfs_meta::writer;
use pvfs_types::SessionId;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use tracing::{info, warn};

/// The session goes by nothing any more. One that writes is thrown out: by what it held it may have begun to append where
/// others are about to, and of a session that is gone targets take no bytes.
async fn lapse(mgr: &Mgr, session: SessionId) {
    match mgr.read(|txn| writer::list_of(txn, session)) {
        Ok(written) if written.is_empty() || !mgr.sessions.is_known(session) => {
            info!(%session, "its delegations are over with its lease: others want to change something");
            mgr.delegations.lapse(session);
        }
        Ok(_) => {
            expel(mgr, session, "others want to change what was delegated to it").await;
        }
        Err(error) => warn!(%session, %error, "it cannot be told what the silent session writes"),
    }
}

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
                lapse(&mgr, session).await;
            }
        }
        sleep(LOOK).await;
    }
}
