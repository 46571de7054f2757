//! Keeps the stored high-water of the mgr's time ahead of it, and tells the others when leases run out and targets
//! have gone silent.

use crate::mgr::Mgr;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

/// How long to wait after the store refused, or where the mgr's time stands still.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Stores the first high-water; the mgr's time runs from here on.
pub async fn store_high_water(mgr: &Mgr) -> Result<(), crate::sequencer::JobError> {
    let (high_water_ms, _) = mgr.time.next_high_water();
    mgr.sequencer.run(move |txn, _| pvfs_meta::mgr_time::set(txn, high_water_ms)).await?;
    mgr.time.stored(high_water_ms);
    Ok(())
}

/// Says that this process runs.
pub async fn beat(mgr: Arc<Mgr>) {
    loop {
        sleep(mgr.time.beat_pause()).await;
        mgr.time.beat();
    }
}

/// Stores each next high-water in time.
pub async fn keep_high_water(mgr: Arc<Mgr>) {
    loop {
        sleep_until(mgr.time.next_high_water().1).await;
        if let Err(error) = store_high_water(&mgr).await {
            warn!(%error, "the mgr's time cannot be stored; it will stand still");
            sleep(RETRY_PAUSE).await;
        }
    }
}

/// Wakes those who wait for sessions to run out.
pub async fn watch_leases(mgr: Arc<Mgr>) {
    let idle = Duration::from_millis(mgr.sessions.lease_ms());
    loop {
        match mgr.sessions.next_end_ms(mgr.time.now_ms()) {
            Some(end_ms) => sleep_until(mgr.time.instant(end_ms).max(Instant::now() + RETRY_PAUSE)).await,
            // One that is heard, or comes, meanwhile may have run out at the end of that.
            None => sleep(idle).await,
        }
        mgr.wakes.reaper.notify_one();
        mgr.wakes.settler.notify_one();
        mgr.wakes.locks.notify_one();
    }
}

/// Counts silent targets as down.
pub async fn watch_targets(mgr: Arc<Mgr>) {
    let mut changes = mgr.targets.watch();
    loop {
        changes.mark_unchanged();
        let next = mgr.targets.note_silence();
        let silence = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() { return },
            () = silence => {}
        }
    }
}
