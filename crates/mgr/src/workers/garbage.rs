//! Removes objects that no file needs any more from the targets, each target at its own time.

use crate::mgr::Mgr;
use pvfs_env::task;
use pvfs_meta::garbage;
use pvfs_types::TargetId;
use pvfs_wire::msg::data::RemoveObjects;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet, time::sleep};
use tracing::{debug, warn};

/// Objects removed by one request.
const OBJECTS_MAX: usize = 1000;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(20);
const REMOVE_DEADLINE: Duration = Duration::from_secs(30);

/// Which targets to look after.
#[derive(Default)]
pub struct Wake {
    due: Mutex<Due>,
    notify: Notify,
}

#[derive(Default)]
struct Due {
    all: bool,
    targets: BTreeSet<TargetId>,
}

impl Wake {
    /// There is new garbage, on whichever targets.
    pub fn all(&self) {
        self.note(|due| due.all = true);
    }

    /// The target reports: it may take a removal now that failed before.
    pub fn target(&self, target: TargetId) {
        self.note(|due| {
            due.targets.insert(target);
        });
    }

    fn note(&self, note: impl FnOnce(&mut Due)) {
        note(&mut self.due.lock().unwrap_or_else(PoisonError::into_inner));
        self.notify.notify_one();
    }

    async fn next(&self) -> Due {
        self.notify.notified().await;
        std::mem::take(&mut self.due.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One round per target at a time; a target that is woken in its round gets another.
pub async fn work(mgr: Arc<Mgr>) {
    let mut rounds: JoinSet<TargetId> = JoinSet::new();
    let (mut running, mut again) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let due = tokio::select! {
            biased;
            Some(ended) = rounds.join_next(), if !rounds.is_empty() => {
                let Ok(target) = ended else { continue };
                running.remove(&target);
                Due { all: false, targets: again.take(&target).into_iter().collect() }
            }
            due = mgr.wakes.garbage.next() => due,
        };
        let targets = if due.all { mgr.targets.ids() } else { due.targets.into_iter().collect() };
        for target in targets.into_iter().filter(|target| mgr.targets.is_up(*target)) {
            if running.insert(target) {
                task::spawn_in(&mut rounds, clear(Arc::clone(&mgr), target));
            } else {
                again.insert(target);
            }
        }
        // Many small removals become few large ones.
        sleep(BETWEEN_ROUNDS).await;
    }
}

/// Removes what there is on `target` until nothing is left or it does not answer; then its next heartbeat is another
/// chance.
async fn clear(mgr: Arc<Mgr>, target: TargetId) -> TargetId {
    let Some(peer) = mgr.targets.peer(target) else { return target };
    loop {
        // What an expelled session still sends must not make an object anew that was removed.
        if !mgr.targets.refuses_leases_until(target, mgr.sessions.expelled_until_ms()) {
            return target;
        }
        let objects = match mgr.read(|txn| garbage::list(txn, target, OBJECTS_MAX)) {
            Ok(objects) if objects.is_empty() => return target,
            Ok(objects) => objects,
            Err(error) => {
                warn!(%target, %error, "garbage cannot be read");
                return target;
            }
        };
        let request = RemoveObjects { target, objects: objects.clone() };
        if let Err(error) = peer.call_once(&request, REMOVE_DEADLINE).await {
            debug!(%target, %error, "garbage stays for now");
            return target;
        }
        let count = objects.len() as u64;
        let cleared = mgr
            .sequencer
            .run(move |txn, _| {
                garbage::clear(txn, target, &objects);
                Ok(())
            })
            .await;
        if let Err(error) = cleared {
            warn!(%target, %error, "removed garbage stays on the list");
            return target;
        }
        mgr.metrics.counter("pvfs_objects_removed_total", &[]).add(count);
    }
}
