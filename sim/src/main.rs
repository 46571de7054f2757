//! `pvfs-sim`: runs seeds over all cores and says how to repeat what failed; or repeats one, telling every event.

use clap::Parser;
use pvfs_sim::Report;
use std::{
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
    let (failed, ops, simulated_secs) = run_all(&args);
    println!(
        "{} seeds, {ops} operations, {simulated_secs} simulated seconds in {:.1} s: {} failed",
        args.seeds,
        begin.elapsed().as_secs_f64(),
        failed.len()
    );
    for seed in &failed {
        println!("repeat with: cargo xtask sim --seed {seed}");
    }
    exit_code(failed.is_empty())
}

fn exit_code(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Gives the seeds that failed, the operations done, and how long it was for them.
fn run_all(args: &Args) -> (Vec<u64>, u64, u64) {
    let jobs = args.jobs.or_else(|| thread::available_parallelism().ok().map(NonZero::get)).unwrap_or(1);
    let (next, ops, secs) = (AtomicU64::new(args.start), AtomicU64::new(0), AtomicU64::new(0));
    let end = args.start.saturating_add(args.seeds);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let report = pvfs_sim::run(seed, false);
                    ops.fetch_add(report.ops, Ordering::Relaxed);
                    secs.fetch_add(report.took.as_secs(), Ordering::Relaxed);
                    if !report.failures.is_empty() {
                        show(&report);
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_unstable();
    (failed, ops.into_inner(), secs.into_inner())
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
