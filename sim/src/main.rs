//! `pvfs-sim`: runs seeds over all cores and says how to repeat what failed; or repeats one, telling every event.

use clap::Parser;
use pvfs_sim::Report;
use std::{
    collections::BTreeSet,
    io::Write,
    num::NonZero,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

/// Runs the simulator: mgr, iods and clients in one process, with whatever can go wrong going wrong.
#[derive(Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Only this one, with every event and the daemons' logs on standard error.
    #[arg(long)]
    seed: Option<u64>,
    /// Each seed again at once: the same events in the same order, or it has failed.
    #[arg(long)]
    twice: bool,
    /// At once; as many as there are cores unless told otherwise.
    #[arg(long)]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        log_to_stderr();
        let report = pvfs_sim::run(seed, true);
        show(&report);
        return exit_code(report.failures.is_empty());
    }
    let begin = Instant::now();
    let all = run_all(&args);
    println!(
        "{} seeds, {} operations, {} simulated seconds in {:.1} s ({:016x}): {} failed",
        args.seeds,
        all.ops,
        all.simulated_secs,
        begin.elapsed().as_secs_f64(),
        all.hash,
        all.failed.len()
    );
    for seed in &all.failed {
        println!("repeat with: cargo xtask sim --seed {seed}");
    }
    exit_code(all.failed.is_empty())
}

fn exit_code(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What came of many runs.
#[derive(Default)]
struct All {
    failed: BTreeSet<u64>,
    ops: u64,
    simulated_secs: u64,
    /// Of all runs' events: two processes that run the same seeds have the same.
    hash: u64,
}

impl All {
    fn take(&mut self, report: &Report) {
        self.ops += report.ops;
        self.simulated_secs += report.took.as_secs();
        // In whatever order they ended.
        self.hash = self.hash.wrapping_add(report.hash);
        if !report.failures.is_empty() {
            show(report);
            self.failed.insert(report.seed);
        }
    }
}

fn run_all(args: &Args) -> All {
    let jobs = args.jobs.or_else(|| thread::available_parallelism().ok().map(NonZero::get)).unwrap_or(1);
    let next = AtomicU64::new(args.start);
    let end = args.start.saturating_add(args.seeds);
    let all = Mutex::new(All::default());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let report = if args.twice { run_twice(seed) } else { pvfs_sim::run(seed, false) };
                    all.lock().unwrap_or_else(PoisonError::into_inner).take(&report);
                }
            });
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A run that differs from the next one of the same seed has failed.
fn run_twice(seed: u64) -> Report {
    let (mut first, again) = (pvfs_sim::run(seed, false), pvfs_sim::run(seed, false));
    if first != again {
        first
            .failures
            .push(format!("another run than the first: {} events ({:016x})", again.events, again.hash));
    }
    first
}

fn show(report: &Report) {
    let mut out = std::io::stdout().lock();
    let Report { seed, events, hash, ops, took, troubles, failures } = report;
    let _ = writeln!(
        out,
        "seed {seed}: {ops} operations, {events} events ({hash:016x}), {took:?} simulated; {troubles}"
    );
    for failure in failures {
        let _ = writeln!(out, "  {failure}");
    }
}

/// The daemons' logs, without the wall clock's time, which says nothing here.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().without_time().with_writer(std::io::stderr).with_env_filter(filter).init();
}
