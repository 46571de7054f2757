//! A workload that checks itself, on any directory, while daemons die: whether a program sees errors, pauses, lost,
//! wrong or doubled bytes and names.
//!
//! Each worker is the only one in a directory of its own, keeps descriptors open over every kill, and knows what each
//! answer must be. Knows no PVFS but the processes it is told to kill.

mod content;
mod kill;
mod model;
mod picture;
mod record;
mod report;
pub mod shared;
mod worker;

pub use kill::{Process, Role, Victims};
pub use picture::draw;
pub use record::{Fault, FaultKind, OpKind};
pub use report::{KillRow, OpRow, Report};

use kill::Killer;
use record::Recorder;
use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The directory to work in; a directory is made in it, and removed at the end.
    pub dir: PathBuf,
    pub workers: u32,
    pub time: Duration,
    /// What is random follows from it.
    pub seed: u64,
    /// About how long from kill to kill, where there are victims.
    pub kill_every: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum TortureError {
    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "what is made in {} does not show in {}: name the same directory through several mounts", one.display(),
        other.display()
    )]
    NotTheSame { one: PathBuf, other: PathBuf },
}

/// Runs `plan`, killing what `victims` finds (nothing without), until its time is over or `stop` turns true.
///
/// # Errors
/// What kept it from starting. What went wrong later is in the report.
pub fn run(plan: &Plan, victims: Option<&dyn Victims>, stop: &AtomicBool) -> Result<Report, TortureError> {
    let dir = plan.dir.join(format!("pvfs-torture-{}", std::process::id()));
    make_dir(&dir)?;
    let recorder = Recorder::new();
    let over = AtomicBool::new(false);
    let mut killer = Killer::new(fastrand::Rng::with_seed(plan.seed), plan.kill_every);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.workers)
            .map(|number| {
                let (dir, recorder, over) = (dir.join(format!("worker{number}")), &recorder, &over);
                let rng = fastrand::Rng::with_seed(plan.seed ^ (u64::from(number) + 1) << 32);
                scope.spawn(move || worker::Worker::new(&dir, rng, recorder).work(over))
            })
            .collect();
        let end = Instant::now() + plan.time;
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            killer.tick(victims, &recorder);
            std::thread::sleep(Duration::from_millis(5));
        }
        over.store(true, Ordering::Relaxed);
        for worker in workers {
            // A worker that panics has found a bug of its own: the panic goes on here.
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    remove(&dir, &recorder);
    Ok(report::report(recorder, plan))
}

fn make_dir(dir: &Path) -> Result<(), TortureError> {
    std::fs::create_dir(dir).map_err(|source| TortureError::Io {
        what: "cannot make",
        path: dir.to_owned(),
        source,
    })
}

/// Removing what is left is part of the test.
fn remove(dir: &Path, recorder: &Recorder) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        recorder.fault(OpKind::Remove, FaultKind::Error, &format!("{}: {error}", dir.display()));
    }
}

#[cfg(test)]
mod tests;
