//! Gives the locks of dead clients to those who want them: expels a session that is in somebody's way and whose lease has
//! run out, and frees its locks of a file once every target of that file refuses its late writes.

use super::expel::expel;
use crate::mgr::Mgr;
use pvfs_meta::{MetaError, inode, lock, session};
use pvfs_types::{Ino, SessionId};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::sleep;
use tracing::{debug, info, warn};

const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// However often it is woken: every heartbeat does.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

pub async fn work(mgr: Arc<Mgr>) {
    loop {
        if let Err(error) = look(&mgr).await {
            warn!(%error, "locks of dead clients cannot be given up now");
            sleep(RETRY_PAUSE).await;
            continue;
        }
        sleep(BETWEEN_LOOKS).await;
        mgr.wakes.locks.notified().await;
    }
}

async fn look(mgr: &Mgr) -> Result<(), MetaError> {
    let holders = mgr.read(|txn| lock::sessions(txn))?;
    let now_ms = mgr.time.now_ms();
    let is_silent = |session| mgr.sessions.find(session).is_none_or(|standing| standing.has_run_out(now_ms));
    let silent: Vec<SessionId> = holders.into_iter().filter(|session| is_silent(*session)).collect();
    if silent.is_empty() {
        return Ok(());
    }
    let mut wanted = mgr.locks.take_wanted();
    wanted.extend(mgr.read(|txn| lock::in_the_way(txn))?);
    for session in silent {
        if wanted.contains(&session) && mgr.sessions.is_known(session) {
            expel(mgr, session, "others wait for its locks").await;
        }
        if mgr.read(|txn| session::find(txn, session))?.is_none() {
            settle(mgr, session).await?;
        }
    }
    Ok(())
}

/// Frees what a session that is gone has left, as far as its late writes are refused.
async fn settle(mgr: &Mgr, session: SessionId) -> Result<(), MetaError> {
    let files: BTreeSet<Ino> =
        mgr.read(|txn| lock::list_of(txn, session))?.into_iter().map(|(_, ino)| ino).collect();
    for ino in files {
        if !refuses_late_writes(mgr, ino)? {
            debug!(%ino, %session, "locks of a dead client stand until its late writes are refused");
            continue;
        }
        match mgr.sequencer.run(move |txn, _| lock::settle(txn, ino, session)).await {
            Ok(granted) => {
                info!(%ino, %session, granted = granted.len(), "locks of a dead client given up");
                mgr.locks.granted(&granted);
            }
            Err(error) => warn!(%ino, %session, %error, "locks of a dead client not given up"),
        }
    }
    Ok(())
}

/// Whether every target of the file is there and follows the mgr's time past all leases of sessions that were expelled.
fn refuses_late_writes(mgr: &Mgr, ino: Ino) -> Result<bool, MetaError> {
    let Some(dist) = mgr.read(|txn| inode::find(txn, ino))?.and_then(|inode| inode.dist) else {
        return Ok(true);
    };
    let until_ms = mgr.sessions.expelled_until_ms();
    let places = mgr.targets.places(&dist);
    Ok(places.is_some_and(|places| {
        places.iter().all(|place| mgr.targets.refuses_leases_until(place.target, until_ms))
    }))
}
