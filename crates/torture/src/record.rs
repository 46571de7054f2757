//! What happened, gathered from all workers: how long each operation took, what was wrong, who was killed when.

use crate::kill::Role;
use serde::Serialize;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The operations, as the tables name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OpKind {
    Create,
    Open,
    Write,
    Read,
    Append,
    Truncate,
    Sync,
    Close,
    Stat,
    Readdir,
    Mkdir,
    Rmdir,
    Symlink,
    Link,
    Rename,
    Unlink,
    Remove,
}

impl OpKind {
    pub const ALL: [OpKind; 17] = [
        OpKind::Create,
        OpKind::Open,
        OpKind::Write,
        OpKind::Read,
        OpKind::Append,
        OpKind::Truncate,
        OpKind::Sync,
        OpKind::Close,
        OpKind::Stat,
        OpKind::Readdir,
        OpKind::Mkdir,
        OpKind::Rmdir,
        OpKind::Symlink,
        OpKind::Link,
        OpKind::Rename,
        OpKind::Unlink,
        OpKind::Remove,
    ];

    pub fn name(self) -> &'static str {
        match self {
            OpKind::Create => "create",
            OpKind::Open => "open",
            OpKind::Write => "write",
            OpKind::Read => "read",
            OpKind::Append => "append",
            OpKind::Truncate => "truncate",
            OpKind::Sync => "fsync",
            OpKind::Close => "close",
            OpKind::Stat => "stat",
            OpKind::Readdir => "readdir",
            OpKind::Mkdir => "mkdir",
            OpKind::Rmdir => "rmdir",
            OpKind::Symlink => "symlink",
            OpKind::Link => "link",
            OpKind::Rename => "rename",
            OpKind::Unlink => "unlink",
            OpKind::Remove => "remove all",
        }
    }
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    /// An operation failed that must not.
    Error,
    /// Bytes or names that were acknowledged are not there.
    Lost,
    /// Bytes, names or attributes are there that nobody made so.
    Wrong,
    /// Something was done, or is seen, twice.
    Doubled,
}

impl FaultKind {
    pub const ALL: [FaultKind; 4] = [FaultKind::Error, FaultKind::Lost, FaultKind::Wrong, FaultKind::Doubled];

    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Error => "error",
            FaultKind::Lost => "lost",
            FaultKind::Wrong => "wrong",
            FaultKind::Doubled => "doubled",
        }
    }

    pub(crate) fn find(name: &str) -> Option<FaultKind> {
        FaultKind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Something that was wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    pub at_secs: f64,
    pub op: OpKind,
    pub kind: FaultKind,
    pub text: String,
}

/// An operation's place in time, in seconds from the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub op: OpKind,
    pub begin: f64,
    pub end: f64,
}

#[derive(Clone, Debug)]
pub(crate) struct Kill {
    pub at: f64,
    pub role: Role,
    pub name: String,
}

/// So many operations are remembered one by one: the longest of each slice of time.
const SLICE_SECS: f64 = 0.02;

#[derive(Default)]
pub(crate) struct State {
    pub counts: Vec<(u64, f64)>,
    /// By slice of time in which they ended: the longest operation.
    pub longest: Vec<Option<Span>>,
    pub kills: Vec<Kill>,
    pub faults: Vec<Fault>,
    pub fault_count: u64,
}

pub(crate) struct Recorder {
    start: Instant,
    state: Mutex<State>,
}

/// Faults that are kept with their text.
const FAULTS_KEPT: usize = 200;

impl Recorder {
    pub fn new() -> Recorder {
        let state = State { counts: vec![(0, 0.0); OpKind::ALL.len()], ..State::default() };
        Recorder { start: Instant::now(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Runs `work`, an operation of the kind `op`, and takes its time.
    pub fn timed<T>(&self, op: OpKind, work: impl FnOnce() -> T) -> T {
        let begin = self.now();
        let result = work();
        self.done(Span { op, begin, end: self.now() });
        result
    }

    fn done(&self, span: Span) {
        let took = span.end - span.begin;
        let mut state = self.state();
        let index = OpKind::ALL.iter().position(|&op| op == span.op).unwrap_or_default();
        let (count, longest) = &mut state.counts[index];
        *count += 1;
        *longest = longest.max(took);
        // At least 0, and no run is so long that this does not fit.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
        let slice = (span.end / SLICE_SECS) as usize;
        if state.longest.len() <= slice {
            state.longest.resize(slice + 1, None);
        }
        let there = &mut state.longest[slice];
        if there.is_none_or(|there| there.end - there.begin < took) {
            *there = Some(span);
        }
    }

    pub fn fault(&self, op: OpKind, kind: FaultKind, text: &str) {
        let fault = Fault { at_secs: self.now(), op, kind, text: text.to_owned() };
        let mut state = self.state();
        state.fault_count += 1;
        if state.faults.len() < FAULTS_KEPT {
            state.faults.push(fault);
        }
    }

    pub fn killed(&self, role: Role, name: &str) {
        let kill = Kill { at: self.now(), role, name: name.to_owned() };
        self.state().kills.push(kill);
    }

    /// All of it, and for how long it was gathered.
    pub fn into_state(self) -> (State, Duration) {
        let took = self.start.elapsed();
        (self.state.into_inner().unwrap_or_else(PoisonError::into_inner), took)
    }
}
