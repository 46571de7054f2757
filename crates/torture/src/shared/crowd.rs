//! Starts the processes that use the same files at once, hears what they tell, and looks at everything in the end through
//! each mount.

use super::{
    Outcome,
    part::{Part, Wrong},
    process::{self, Line, Spec, Tally},
};
use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// A process that was told to stop must have ended by then: no call waits longer.
const END_TIMEOUT: Duration = Duration::from_mins(2);
/// Of each mount.
pub(crate) const PROCESSES: u32 = 2;

/// The numbers of one process, by part; and whether it came to its end.
#[derive(Default)]
struct Told {
    tallies: BTreeMap<Part, Tally>,
    done: bool,
}

struct Member {
    child: Child,
    /// Closing it says: stop.
    input: Option<ChildStdin>,
}

/// Has processes work on `roots`, the same directory through each mount, until `over`. `command` starts one: it must come to
/// [`process::work`] with its own input and output.
pub(crate) fn run(
    roots: &[PathBuf],
    parts: &[Part],
    seed: u64,
    command: &(dyn Fn() -> Command + Sync),
    over: &AtomicBool,
    outcome: &Outcome,
) {
    let parts: Vec<Part> = parts.iter().copied().filter(|part| part.is_at_once()).collect();
    if parts.is_empty() {
        return;
    }
    let dirs: Vec<PathBuf> = roots.iter().map(|root| process::place(root)).collect();
    let made = std::fs::create_dir(&dirs[0])
        .and_then(|()| parts.iter().try_for_each(|&part| process::make(part, &dirs[0])));
    if let Err(error) = made {
        return outcome.fault(parts[0], &Wrong::from(error));
    }
    let of = PROCESSES * u32::try_from(roots.len()).unwrap_or(u32::MAX);
    let spec = |number: u32| Spec {
        number,
        of,
        seed,
        parts: parts.clone(),
        dir: dirs[number as usize % dirs.len()].clone(),
    };
    let told: Vec<Mutex<Told>> = (0..of).map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        let mut crowd = Vec::new();
        for (number, told) in (0..of).zip(&told) {
            match start(command(), &spec(number)) {
                Ok((member, output)) => {
                    crowd.push(member);
                    scope.spawn(move || hear(output, told, outcome));
                }
                Err(error) => outcome.fault(
                    parts[0],
                    &Wrong::new(crate::FaultKind::Error, format!("a process cannot be started: {error}")),
                ),
            }
        }
        while !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        end(crowd, parts[0], outcome);
    });
    let told = told.into_iter().map(|told| told.into_inner().unwrap_or_else(PoisonError::into_inner));
    judge(&dirs, &parts, &told.collect::<Vec<_>>(), outcome);
}

fn start(mut command: Command, spec: &Spec) -> io::Result<(Member, std::process::ChildStdout)> {
    // A group of its own: Ctrl-C ends it by the end of its input, when it can tell what it has done.
    let mut child = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let missing = || io::Error::other("no pipe to it");
    let mut input = input.ok_or_else(missing)?;
    input.write_all(&spec.encode())?;
    input.flush()?;
    Ok((Member { child, input: Some(input) }, output.ok_or_else(missing)?))
}

fn hear(output: impl io::Read, told: &Mutex<Told>, outcome: &Outcome) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        match Line::parse(&line) {
            Some(Line::Fault(part, wrong)) => outcome.fault(part, &wrong),
            Some(Line::Tally(part, key, number)) => told.tallies.entry(part).or_default().add(&key, number),
            Some(Line::Done) => told.done = true,
            None => {}
        }
    }
}

/// Tells all to stop, and waits for them.
fn end(mut crowd: Vec<Member>, part: Part, outcome: &Outcome) {
    for member in &mut crowd {
        drop(member.input.take());
    }
    let limit = Instant::now() + END_TIMEOUT;
    for member in &mut crowd {
        while matches!(member.child.try_wait(), Ok(None)) {
            if Instant::now() > limit {
                let text = format!("a process does not end within {} s", END_TIMEOUT.as_secs());
                outcome.fault(part, &Wrong::lost(text));
                let _ = member.child.kill();
                let _ = member.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn judge(dirs: &[PathBuf], parts: &[Part], told: &[Told], outcome: &Outcome) {
    let gone = told.iter().filter(|told| !told.done).count();
    if gone > 0 {
        outcome.fault(parts[0], &Wrong::lost(format!("{gone} processes died")));
        return;
    }
    for &part in parts {
        let tallies: Vec<Tally> =
            told.iter().map(|told| told.tallies.get(&part).cloned().unwrap_or_default()).collect();
        let turns = tallies.iter().map(|tally| tally.get(process::TURNS)).sum();
        let longest_us = tallies.iter().map(|tally| tally.get(process::LONGEST)).max();
        outcome.did(part, turns, Duration::from_micros(longest_us.unwrap_or_default()));
        outcome.repeated(part, tallies.iter().map(|tally| tally.get(process::STALE)).sum());
        // One that has found a fault has stopped in the middle of something: its numbers say nothing.
        if outcome.has_fault(part) {
            continue;
        }
        for (number, dir) in dirs.iter().enumerate() {
            if let Err(wrong) = process::check(part, dir, &tallies) {
                let text = format!("in the end, through mount {number}: {}", wrong.text);
                outcome.fault(part, &Wrong { text, ..wrong });
            }
        }
    }
}
