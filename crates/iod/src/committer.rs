//! Commits each target every few seconds, or when much was written: then clients need not keep it any longer, and a
//! machine's death costs little to send again. Runs beside the requests and holds up none of them.

use crate::{service::Iod, target::Target};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tracing::error;

/// Commits all targets for ever.
pub async fn commit_all(iod: &Arc<Iod>, period: Duration) {
    let mut targets = JoinSet::new();
    for index in 0..iod.targets.len() {
        pvfs_env::task::spawn_in(&mut targets, commit_one(Arc::clone(iod), index, period));
    }
    while let Some(ended) = targets.join_next().await {
        // They end with the runtime, or by a bug.
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

async fn commit_one(iod: Arc<Iod>, index: usize, period: Duration) {
    loop {
        let target: &Target = &iod.targets[index];
        // The time has come, or much was written.
        let _ = tokio::time::timeout(period, target.commit_soon.notified()).await;
        if !target.store.is_dirty() {
            continue;
        }
        if let Err(error) = pvfs_env::disk::blocking(|| iod.commit(target)) {
            error!(dir = %target.store.dir().display(), %error, "commit failed");
        }
    }
}
