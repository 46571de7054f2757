//! One tree through several mounts at once: whether programs on different mounts can tell that it is not one local file system.
//!
//! Two halves. Processes, several on each mount, use the same files at once, as programs do that know of each other: under
//! locks, by appending, by names that only one can make. And models: one process goes through all mounts in turn, and what a
//! call returned on one must be what the next call on any other sees.

mod append;
mod counter;
mod crowd;
mod file_model;
mod history;
mod mutex;
mod names;
mod names_model;
mod part;
mod process;
mod replace;
mod stamp;
mod stripes;
mod unlink;

pub use part::Part;
pub use process::work;

use crate::{FaultKind, Role, TortureError, Victims, kill::Killer, make_dir, record::Recorder};
use part::Wrong;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Of one part; the rest is only counted.
const FAULTS_KEPT: u64 = 20;
/// A mount shows what another one made within this, or it shows another tree.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Clone, Debug)]
pub struct SharedPlan {
    /// The same directory through each mount, at least two; a directory is made in it, and removed at the end.
    pub dirs: Vec<PathBuf>,
    pub parts: Vec<Part>,
    /// The models hold modification times too: they stay as they were set or once told until the next change.
    pub times: bool,
    pub time: Duration,
    /// What is random follows from it.
    pub seed: u64,
    /// About how long from kill to kill, where there are victims.
    pub kill_every: Duration,
}

/// The outcome of a run.
#[derive(Clone, Debug, Serialize)]
pub struct SharedReport {
    pub seed: u64,
    pub secs: f64,
    pub mounts: usize,
    /// No fault at all.
    pub passed: bool,
    pub parts: Vec<PartRow>,
    pub kills: Vec<KillCount>,
    /// The first ones of each part.
    pub faults: Vec<SharedFault>,
}

/// All that was done of one part.
#[derive(Clone, Debug, Serialize)]
pub struct PartRow {
    pub part: Part,
    /// Steps, over all processes. A step is some calls.
    pub steps: u64,
    pub longest_ms: f64,
    /// Calls that gave `ESTALE` and were done when they were made once more: no fault, but more than a local file system asks for.
    pub stale: u64,
    pub faults: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct KillCount {
    pub name: String,
    pub role: Role,
    pub count: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct SharedFault {
    pub at_secs: f64,
    pub part: Part,
    pub kind: FaultKind,
    pub text: String,
}

/// What is gathered while it runs.
pub(crate) struct Outcome {
    start: Instant,
    state: Mutex<Gathered>,
}

/// Of one part.
#[derive(Clone, Copy, Default)]
struct Sums {
    steps: u64,
    longest: Duration,
    stale: u64,
    faults: u64,
}

#[derive(Default)]
struct Gathered {
    parts: BTreeMap<Part, Sums>,
    faults: Vec<SharedFault>,
}

impl Outcome {
    fn new() -> Outcome {
        Outcome { start: Instant::now(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, Gathered> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn fault(&self, part: Part, wrong: &Wrong) {
        let at_secs = self.start.elapsed().as_secs_f64();
        let mut state = self.state();
        let sums = state.parts.entry(part).or_default();
        sums.faults += 1;
        if sums.faults <= FAULTS_KEPT {
            state.faults.push(SharedFault { at_secs, part, kind: wrong.kind, text: wrong.text.clone() });
        }
    }

    pub fn has_fault(&self, part: Part) -> bool {
        self.state().parts.get(&part).is_some_and(|sums| sums.faults > 0)
    }

    pub fn did(&self, part: Part, steps: u64, longest: Duration) {
        let mut state = self.state();
        let sums = state.parts.entry(part).or_default();
        sums.steps += steps;
        sums.longest = sums.longest.max(longest);
    }

    pub fn repeated(&self, part: Part, stale: u64) {
        self.state().parts.entry(part).or_default().stale += stale;
    }
}

/// Runs `plan`, killing what `victims` finds (nothing without), until its time is over or `stop` turns true. `command` starts a
/// process that comes to [`work`] with its standard input and output.
///
/// # Errors
/// What kept it from starting. What went wrong later is in the report.
pub fn run(
    plan: &SharedPlan,
    victims: Option<&dyn Victims>,
    command: &(dyn Fn() -> Command + Sync),
    stop: &AtomicBool,
) -> Result<SharedReport, TortureError> {
    let name = format!("pvfs-shared-{}", std::process::id());
    let roots: Vec<PathBuf> = plan.dirs.iter().map(|dir| dir.join(&name)).collect();
    make_dir(&roots[0])?;
    if let Some(dir) = other_tree(&roots) {
        let _ = std::fs::remove_dir(&roots[0]);
        return Err(TortureError::NotTheSame { one: plan.dirs[0].clone(), other: plan.dirs[dir].clone() });
    }
    let (outcome, recorder, over) = (Outcome::new(), Recorder::new(), AtomicBool::new(false));
    let mut killer = Killer::new(fastrand::Rng::with_seed(plan.seed), plan.kill_every);
    std::thread::scope(|scope| {
        let (roots, outcome, over) = (&roots, &outcome, &over);
        scope.spawn(move || crowd::run(roots, &plan.parts, plan.seed, command, over, outcome));
        for &part in &plan.parts {
            let model = match part {
                Part::File => in_turn::<file_model::FileTurns>,
                Part::Names => in_turn::<names_model::NamesTurns>,
                _ => continue,
            };
            scope.spawn(move || model(plan, roots, over, outcome));
        }
        let end = Instant::now() + plan.time;
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            killer.tick(victims, &recorder);
            std::thread::sleep(Duration::from_millis(5));
        }
        over.store(true, Ordering::Relaxed);
    });
    if let Err(error) = std::fs::remove_dir_all(&roots[0]) {
        // Removing what is left is part of the test.
        let part = plan.parts.first().copied().unwrap_or(Part::Names);
        outcome.fault(part, &Wrong::new(FaultKind::Error, format!("cannot remove what is left: {error}")));
    }
    Ok(report(plan, outcome, recorder))
}

/// The place in `roots` of one that does not show what was just made in the first.
fn other_tree(roots: &[PathBuf]) -> Option<usize> {
    let limit = Instant::now() + SEEN_WITHIN;
    let is_missing = |root: &&PathBuf| !root.is_dir();
    while roots.iter().any(|root| is_missing(&root)) && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(5));
    }
    roots.iter().position(|root| is_missing(&root))
}

fn report(plan: &SharedPlan, outcome: Outcome, recorder: Recorder) -> SharedReport {
    let secs = outcome.start.elapsed().as_secs_f64();
    let gathered = outcome.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut kills: BTreeMap<String, KillCount> = BTreeMap::new();
    for kill in recorder.into_state().0.kills {
        let new = KillCount { name: kill.name.clone(), role: kill.role, count: 0 };
        kills.entry(kill.name).or_insert(new).count += 1;
    }
    let row = |&part: &Part| {
        let Sums { steps, longest, stale, faults } = gathered.parts.get(&part).copied().unwrap_or_default();
        PartRow { part, steps, longest_ms: longest.as_secs_f64() * 1e3, stale, faults }
    };
    let parts: Vec<PartRow> = plan.parts.iter().filter(|part| part.is_told()).map(row).collect();
    SharedReport {
        seed: plan.seed,
        secs,
        mounts: plan.dirs.len(),
        passed: parts.iter().all(|row| row.faults == 0),
        parts,
        kills: kills.into_values().collect(),
        faults: gathered.faults,
    }
}

/// A model that is driven through all mounts in turn.
trait InTurn: Sized {
    const PART: Part;

    /// In `roots`, an empty directory through each mount.
    fn new(roots: Vec<PathBuf>, seed: u64, plan: &SharedPlan) -> Self;

    /// One operation, held against the model.
    fn step(&mut self) -> part::Checked;

    /// The last operations, the latest last.
    fn history(&self) -> String;

    /// Calls that were repeated for `ESTALE`.
    fn stale(&self) -> u64 {
        0
    }
}

/// After a fault nobody knows what is there: the rest begins anew, in another directory. So often.
const BEGINNINGS_MAX: u64 = 5;

fn in_turn<T: InTurn>(plan: &SharedPlan, roots: &[PathBuf], over: &AtomicBool, outcome: &Outcome) {
    for beginning in 0..BEGINNINGS_MAX {
        let name = format!("{}-{beginning}", T::PART.name());
        let dirs: Vec<PathBuf> = roots.iter().map(|root| root.join(&name)).collect();
        if let Err(error) = std::fs::create_dir(&dirs[0]) {
            return outcome.fault(T::PART, &Wrong::from(error));
        }
        let seed = plan.seed.wrapping_add(beginning);
        let mut model = T::new(dirs, seed, plan);
        let mut steps = 0;
        let fault = loop {
            if over.load(Ordering::Relaxed) {
                break None;
            }
            let begin = Instant::now();
            let done = model.step();
            outcome.did(T::PART, 1, begin.elapsed());
            steps += 1;
            if let Err(wrong) = done {
                break Some(wrong);
            }
        };
        outcome.repeated(T::PART, model.stale());
        let Some(wrong) = fault else { return };
        let text = format!(
            "{}\n  at step {steps}; the last operations:\n{}  repeat with: {}",
            wrong.text,
            model.history(),
            again(plan, T::PART, seed)
        );
        outcome.fault(T::PART, &Wrong { text, ..wrong });
    }
}

fn again(plan: &SharedPlan, part: Part, seed: u64) -> String {
    let dirs: Vec<String> = plan.dirs.iter().map(|dir| dir.display().to_string()).collect();
    let skips: Vec<&str> =
        Part::ALL.iter().filter(|part| !plan.parts.contains(part)).map(|part| part.name()).collect();
    let skip = if skips.is_empty() { String::new() } else { format!(" --skip {}", skips.join(",")) };
    let times = if plan.times { " --times" } else { "" };
    format!("pvfs torture --only {}{skip}{times} --seed {seed} --shared {}", part.name(), dirs.join(" "))
}

#[cfg(test)]
mod tests;
