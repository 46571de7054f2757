//! Machines and the processes on them: who is alive, and at which of its effects on the world a process dies.

use crate::{
    random::Random,
    trace::{Trace, event},
};
use pvfs_env::task::{self, Turn};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use tokio::{sync::watch, task::AbortHandle};

/// A machine's number.
pub type MachineId = usize;

/// Tasks are swept when there are this many.
const SWEEP_AT: usize = 256;

/// A running process, or one that has run.
pub struct Process {
    pub name: String,
    pub machine: MachineId,
    alive: watch::Sender<bool>,
    tasks: Mutex<Vec<AbortHandle>>,
    /// Effects left before it dies; 0: it is in no danger.
    fuse: AtomicU64,
    random: Random,
    trace: Trace,
    /// Turns are given to other tasks first in one of that many cases.
    yield_one_in: u64,
}

impl Process {
    pub fn start(name: &str, machine: MachineId, random: &Random, trace: &Trace) -> Arc<Process> {
        Arc::new(Process {
            name: name.to_owned(),
            machine,
            alive: watch::channel(true).0,
            tasks: Mutex::default(),
            fuse: AtomicU64::new(0),
            random: random.clone(),
            trace: trace.clone(),
            yield_one_in: 12,
        })
    }

    pub fn is_alive(&self) -> bool {
        *self.alive.borrow()
    }

    /// Waits until it is dead.
    pub async fn died(&self) {
        // The sender lives as long as `self`.
        let _ = self.alive.subscribe().wait_for(|alive| !alive).await;
    }

    /// Kills it at this very moment: from now on it has no effect on anything.
    pub fn kill(&self) {
        if self.alive.send_replace(false) {
            event!(self.trace, self.name, "killed");
            for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                task.abort();
            }
        }
    }

    /// Has it die at its `effects`th effect from now on.
    pub fn light_fuse(&self, effects: u64) {
        self.fuse.store(effects, Ordering::Relaxed);
    }

    /// Something outside is about to change by its doing. False: it is dead, and nothing must.
    pub fn effect(&self) -> bool {
        let left = self.fuse.load(Ordering::Relaxed);
        if left > 0 {
            self.fuse.store(left - 1, Ordering::Relaxed);
            if left == 1 {
                self.kill();
            }
        }
        self.is_alive()
    }
}

impl task::Process for Process {
    fn adopt(&self, task: AbortHandle) {
        if !self.is_alive() {
            return task.abort();
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.len() >= SWEEP_AT && tasks.len().is_power_of_two() {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task);
    }

    fn turn(&self) -> Turn {
        if !self.is_alive() {
            Turn::Dead
        } else if self.random.one_in(self.yield_one_in) {
            Turn::Yield
        } else {
            Turn::Run
        }
    }
}
