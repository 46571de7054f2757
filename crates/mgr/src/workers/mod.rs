//! What the mgr does on its own: each a loop that waits to be woken, does what there is to do, and waits again.

pub mod expel;
pub mod garbage;
pub mod lockkeeper;
pub mod reaper;
mod recaller;
pub mod settler;
pub mod timekeeper;
pub mod truncater;

use crate::mgr::Mgr;
use pvfs_env::task::spawn_in;
use std::sync::Arc;
use tokio::{sync::Notify, task::JoinSet};

/// How the workers are woken. A wake while one works makes it look once more.
pub struct Wakes {
    /// A session checked in, released a claim, was closed or ran out. An unlink alone makes nothing ripe: the
    /// unlinking session has yet to check in.
    pub reaper: Notify,
    /// A session ran out.
    pub settler: Notify,
    /// A session ran out or was expelled, somebody began to wait for a lock, or a target told how far it follows the
    /// mgr's time.
    pub locks: Notify,
    pub garbage: garbage::Wake,
    pub truncater: truncater::Queue,
}

/// Starts all workers; they end when the set is dropped.
pub fn start(mgr: &Arc<Mgr>, intents: truncater::Inbox) -> JoinSet<()> {
    let mut workers = JoinSet::new();
    spawn_in(&mut workers, timekeeper::beat(Arc::clone(mgr)));
    spawn_in(&mut workers, timekeeper::keep_high_water(Arc::clone(mgr)));
    spawn_in(&mut workers, timekeeper::watch_leases(Arc::clone(mgr)));
    spawn_in(&mut workers, timekeeper::watch_targets(Arc::clone(mgr)));
    spawn_in(&mut workers, reaper::work(Arc::clone(mgr)));
    spawn_in(&mut workers, garbage::work(Arc::clone(mgr)));
    spawn_in(&mut workers, settler::work(Arc::clone(mgr)));
    spawn_in(&mut workers, lockkeeper::work(Arc::clone(mgr)));
    spawn_in(&mut workers, recaller::work(Arc::clone(mgr)));
    spawn_in(&mut workers, truncater::work(Arc::clone(mgr), intents));
    workers
}
