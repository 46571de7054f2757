//! Kills daemons, one after the other, each role in turn.

use crate::record::Recorder;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use std::time::{Duration, Instant};

/// What a process does in the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Mgr,
    Iod,
    Mount,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Mgr, Role::Iod, Role::Mount];

    pub fn name(self) -> &'static str {
        match self {
            Role::Mgr => "mgr",
            Role::Iod => "iod",
            Role::Mount => "mount",
        }
    }
}

/// A process that may be killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub role: Role,
    /// As its cluster calls it: `iod0`.
    pub name: String,
}

/// Finds the processes that may be killed now.
pub trait Victims: Sync {
    fn find(&self) -> Vec<Process>;
}

pub(crate) struct Killer {
    rng: fastrand::Rng,
    every: Duration,
    next: Instant,
    /// How often each was killed, by name: who was spared longest comes next.
    turns: std::collections::BTreeMap<String, u32>,
}

impl Killer {
    pub fn new(rng: fastrand::Rng, every: Duration) -> Killer {
        Killer { rng, every, next: Instant::now() + every, turns: std::collections::BTreeMap::new() }
    }

    /// Kills one, if it is time.
    pub fn tick(&mut self, victims: Option<&dyn Victims>, recorder: &Recorder) {
        let Some(victims) = victims.filter(|_| Instant::now() >= self.next) else { return };
        // Half of it to one and a half: no rhythm that a timer of theirs could follow.
        self.next = Instant::now() + self.every.mul_f64(0.5 + self.rng.f64());
        let found = victims.find();
        let least = found.iter().map(|process| self.turns_of(process)).min();
        let due: Vec<&Process> =
            found.iter().filter(|process| Some(self.turns_of(process)) == least).collect();
        let Some(process) = due.get(self.rng.usize(..due.len().max(1))) else { return };
        let Some(pid) = Pid::from_raw(process.pid) else { return };
        recorder.killed(process.role, &process.name);
        // One that died just now needs no killing.
        let _ = kill_process(pid, Signal::KILL);
        *self.turns.entry(process.name.clone()).or_default() += 1;
    }

    fn turns_of(&self, process: &Process) -> u32 {
        self.turns.get(&process.name).copied().unwrap_or_default()
    }
}
