//! What a run found, to be printed, as JSON, and as a verdict.

use crate::{
    Plan,
    kill::Role,
    record::{Fault, FaultKind, Kill, OpKind, Recorder, Span, State},
};
use serde::Serialize;

/// The outcome of a run. Times are in seconds from its start, durations in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub seed: u64,
    pub secs: f64,
    /// No fault at all.
    pub passed: bool,
    pub ops: Vec<OpRow>,
    pub kills: Vec<KillRow>,
    /// Over all kills.
    pub median_pause_ms: Option<f64>,
    pub longest_pause_ms: Option<f64>,
    pub errors: u64,
    pub lost: u64,
    pub wrong: u64,
    pub doubled: u64,
    /// The first ones.
    pub faults: Vec<Fault>,
    /// When each kill was, and the pause that it made.
    pub pauses: Vec<Pause>,
    /// The longest operation that ended in each slice of time: end, milliseconds, kind.
    pub longest_ops: Vec<(f64, f64, OpKind)>,
}

/// All operations of a kind.
#[derive(Clone, Debug, Serialize)]
pub struct OpRow {
    pub op: OpKind,
    pub count: u64,
    pub longest_ms: f64,
    pub faults: u64,
}

/// All kills of a daemon.
#[derive(Clone, Debug, Serialize)]
pub struct KillRow {
    pub name: String,
    pub role: Role,
    pub count: u64,
    pub median_pause_ms: f64,
    pub longest_pause_ms: f64,
}

/// One kill, and the longest operation that it may have held up.
#[derive(Clone, Debug, Serialize)]
pub struct Pause {
    pub at_secs: f64,
    pub role: Role,
    pub name: String,
    pub ms: f64,
}

pub(crate) fn report(recorder: Recorder, plan: &Plan) -> Report {
    let (state, took) = recorder.into_state();
    let pauses = pauses(&state);
    let count = |kind| state.faults.iter().filter(|fault| fault.kind == kind).count() as u64;
    let all: Vec<f64> = pauses.iter().map(|pause| pause.ms).collect();
    let kept = state.faults.len() as u64;
    Report {
        seed: plan.seed,
        secs: took.as_secs_f64(),
        passed: state.fault_count == 0,
        ops: op_rows(&state),
        kills: kill_rows(&pauses),
        median_pause_ms: median(all.clone()),
        longest_pause_ms: all.into_iter().reduce(f64::max),
        // Those of which no text was kept are counted here.
        errors: count(FaultKind::Error) + (state.fault_count - kept),
        lost: count(FaultKind::Lost),
        wrong: count(FaultKind::Wrong),
        doubled: count(FaultKind::Doubled),
        longest_ops: state.longest.iter().flatten().map(|span| (span.end, millis(span), span.op)).collect(),
        faults: state.faults,
        pauses,
    }
}

fn millis(span: &Span) -> f64 {
    (span.end - span.begin) * 1e3
}

fn op_rows(state: &State) -> Vec<OpRow> {
    let rows = OpKind::ALL.iter().zip(&state.counts);
    rows.filter(|(_, (count, _))| *count > 0)
        .map(|(&op, &(count, longest))| OpRow {
            op,
            count,
            longest_ms: longest * 1e3,
            faults: state.faults.iter().filter(|fault| fault.op == op).count() as u64,
        })
        .collect()
}

/// The longest operation that ran on after each kill and had begun before the next one.
fn pauses(state: &State) -> Vec<Pause> {
    let ends = state.kills.iter().skip(1).map(|kill| kill.at).chain([f64::INFINITY]);
    let pause = |(kill, next): (&Kill, f64)| {
        let held_up = state.longest.iter().flatten().filter(|span| span.end > kill.at && span.begin < next);
        Pause {
            at_secs: kill.at,
            role: kill.role,
            name: kill.name.clone(),
            ms: held_up.map(millis).fold(0.0, f64::max),
        }
    };
    state.kills.iter().zip(ends).map(pause).collect()
}

fn kill_rows(pauses: &[Pause]) -> Vec<KillRow> {
    let mut names: Vec<(Role, &str)> = pauses.iter().map(|pause| (pause.role, &*pause.name)).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|(role, name)| {
            let all: Vec<f64> =
                pauses.iter().filter(|pause| pause.name == name).map(|pause| pause.ms).collect();
            KillRow {
                name: name.to_owned(),
                role,
                count: all.len() as u64,
                longest_pause_ms: all.iter().copied().fold(0.0, f64::max),
                median_pause_ms: median(all).unwrap_or_default(),
            }
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(begin: f64, end: f64) -> Span {
        Span { op: OpKind::Read, begin, end }
    }

    fn kill(at: f64) -> Kill {
        Kill { at, role: Role::Mgr, name: "mgr".into() }
    }

    #[test]
    fn a_kill_is_charged_with_what_ran_when_it_came_and_with_what_began_before_the_next() {
        let state = State {
            longest: [(0.5, 0.9), (0.9, 1.2), (1.3, 1.8), (2.1, 2.2)]
                .map(|(begin, end)| Some(span(begin, end)))
                .to_vec(),
            kills: vec![kill(1.0), kill(2.0)],
            ..State::default()
        };
        let found: Vec<f64> = pauses(&state).iter().map(|pause| (pause.ms * 10.0).round() / 10.0).collect();
        assert_eq!(found, [500.0, 100.0]);
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(Vec::new()), None);
    }
}
