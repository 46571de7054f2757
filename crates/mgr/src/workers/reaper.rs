//! Reaps orphans: removes inodes that have no name left and that no session has open, and leaves their objects to
//! the garbage worker.

use super::expel::expel;
use crate::mgr::Mgr;
use pvfs_meta::{MetaError, orphan};
use pvfs_types::SessionId;
use pvfs_wire::msg::session::Orphan;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use tracing::{debug, warn};

/// Orphans looked at, and reaped in one job, at a time.
const ORPHANS_MAX: usize = 256;
/// However often it is woken: many sessions check in at about the same time.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
const RETRY_PAUSE: Duration = Duration::from_secs(1);

pub async fn work(mgr: Arc<Mgr>) {
    loop {
        match reap(&mgr).await {
            Ok(0) => {}
            Ok(reaped) => {
                debug!(reaped, "orphans reaped");
                mgr.wakes.garbage.all();
            }
            Err(error) => {
                warn!(error, "orphans cannot be reaped now");
                sleep(RETRY_PAUSE).await;
                continue;
            }
        }
        sleep(BETWEEN_LOOKS).await;
        mgr.wakes.reaper.notified().await;
    }
}

/// Reaps all that can be reaped now, and gives how many that were.
async fn reap(mgr: &Mgr) -> Result<u64, String> {
    let head = mgr.read(|txn| orphan::head(txn)).map_err(|e| e.to_string())?;
    let (mut after, mut reaped) = (0, 0);
    loop {
        let orphans =
            mgr.read(|txn| orphan::list_after(txn, after, ORPHANS_MAX)).map_err(|e| e.to_string())?;
        let Some(last) = orphans.last() else { return Ok(reaped) };
        let seen_by_all = seen_by_all(mgr, head.min(last.seq)).await;
        let ready: Vec<Orphan> = orphans.iter().copied().filter(|orphan| orphan.seq <= seen_by_all).collect();
        after = last.seq;
        let is_end = ready.len() < orphans.len();
        if !ready.is_empty() {
            drop_dead_claims(mgr, &ready).await.map_err(|e| e.to_string())?;
            reaped += mgr
                .sequencer
                .run(move |txn, _| {
                    let mut reaped = 0;
                    for orphan in &ready {
                        reaped += u64::from(orphan::reap(txn, orphan.seq, orphan.ino)?);
                    }
                    Ok(reaped)
                })
                .await
                .map_err(|e| e.to_string())?;
        }
        if is_end {
            return Ok(reaped);
        }
    }
}

/// Up to which orphan number, at most `wanted`, every session has checked in. Expels those that have not and whose
/// lease has run out.
async fn seen_by_all(mgr: &Mgr, wanted: u64) -> u64 {
    for session in mgr.sessions.run_out_behind(wanted, mgr.time.now_ms()) {
        expel(mgr, session, "an orphan waits for it").await;
    }
    mgr.sessions.seen_by_all().min(wanted)
}

/// Expels the sessions that claim any of `orphans` and whose lease has run out.
async fn drop_dead_claims(mgr: &Mgr, orphans: &[Orphan]) -> Result<(), MetaError> {
    let claimants: Vec<SessionId> = mgr.read(|txn| {
        let mut claimants = Vec::new();
        for orphan in orphans {
            claimants.extend(orphan::claims(txn, orphan.ino)?);
        }
        Ok(claimants)
    })?;
    let now_ms = mgr.time.now_ms();
    for session in claimants {
        if mgr.sessions.find(session).is_some_and(|standing| standing.has_run_out(now_ms)) {
            expel(mgr, session, "it claims an orphan").await;
        }
    }
    Ok(())
}
