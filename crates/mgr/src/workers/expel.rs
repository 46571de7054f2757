//! Throws a session out whose lease ran out, because somebody needs what it holds. Its writer records stay until
//! they are settled.

use crate::mgr::Mgr;
use pvfs_types::SessionId;
use tracing::{info, warn};

/// Gives whether the session is out now. One whose lease is good stays; so does one that the store fails to forget.
pub async fn expel(mgr: &Mgr, session: SessionId, why: &str) -> bool {
    // Out of the live table first: a keep-alive that comes now finds it unknown, not renewed.
    let Some(standing) = mgr.sessions.expel(session, mgr.time.now_ms()) else {
        return !mgr.sessions.is_known(session);
    };
    mgr.delegations.forget(session);
    match mgr.sequencer.run(move |txn, _| pvfs_meta::session::expel(txn, session)).await {
        Ok(granted) => {
            mgr.locks.granted(&granted);
            mgr.locks.forget(session);
            mgr.wakes.locks.notify_one();
            info!(%session, label = standing.label, why, "session expelled: its lease had run out");
            true
        }
        Err(error) => {
            warn!(%session, %error, "session not expelled");
            mgr.sessions.take_back(session, standing);
            false
        }
    }
}
