//! Everything that CI runs, step by step. All steps run, whatever failed before; the end says which.

use crate::{deps, leftovers, licences, real_programs, run, sim, suites, tidy};
use run::Outcome;
use std::time::Instant;

struct Report {
    steps: Vec<(&'static str, f64, Outcome)>,
    /// nextest's own summary lines.
    summary: Vec<String>,
}

impl Report {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Outcome) {
        println!("\n=== {name}");
        let start = Instant::now();
        let outcome = work();
        if let Err(text) = &outcome {
            println!("=== {name} FAILED: {text}");
        }
        self.steps.push((name, start.elapsed().as_secs_f64(), outcome));
    }
}

/// None that takes minutes; none may be missing.
const PROGRAMS: real_programs::Wanted<'_> = real_programs::Wanted { only: None, slow: false, complete: true };

pub fn run() -> Outcome {
    let start = Instant::now();
    let mut report = Report { steps: Vec::new(), summary: Vec::new() };
    leftovers::prepare()?;
    report.step("packages", || {
        deps::install_missing()?;
        deps::install_nextest()?;
        deps::install_programs(real_programs::needs(PROGRAMS))?;
        suites::install()
    });
    report.step("format", || run::run(&mut run::command("cargo fmt --all --check")));
    report.step("tidy", tidy::run);
    report.step("licences", licences::run);
    report.step("deny", deny);
    report.step("clippy", || {
        run::run(&mut run::command("cargo clippy --quiet --workspace --all-targets --locked -- -D warnings"))
    });
    let mut summary = Vec::new();
    report.step("tests", || tests(&mut summary));
    report.summary = summary;
    report.step("doc tests", || run::run(&mut run::command("cargo test --quiet --workspace --doc --locked")));
    report.step("docs", || {
        run::run(
            run::command("cargo doc --quiet --workspace --no-deps --document-private-items --locked")
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    });
    report.step("fuzz", || fuzz(5));
    report.step("simulator", sim::ci);
    report.step("real programs", || real_programs::build_and_run(PROGRAMS));
    report.step("nothing left behind", leftovers::check_and_clean);
    finish(&report, start)
}

fn finish(report: &Report, start: Instant) -> Outcome {
    println!("\n=== summary");
    for line in &report.summary {
        println!("{}", line.trim());
    }
    for (name, secs, outcome) in &report.steps {
        println!("{:>7.1} s  {}  {name}", secs, if outcome.is_ok() { "ok    " } else { "FAILED" });
    }
    println!("{:>7.1} s  altogether", start.elapsed().as_secs_f64());
    let failed: Vec<String> = report
        .steps
        .iter()
        .filter_map(|(name, _, outcome)| outcome.as_ref().err().map(|e| format!("{name}: {e}")))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("CI failed:\n{}", failed.join("\n"))) }
}

fn tests(summary: &mut Vec<String>) -> Outcome {
    let mut nextest = run::command("cargo nextest run --workspace --profile ci --locked --no-tests fail");
    nextest.env("TMPDIR", leftovers::temp_dir());
    let (outcome, lines) = run::run_keeping(&mut nextest, |line| line.contains("Summary ["));
    *summary = lines;
    outcome
}

fn deny() -> Outcome {
    if !run::is_installed("cargo-deny") {
        println!("cargo-deny is not installed: the step before has checked the licences");
        return Ok(());
    }
    run::run(&mut run::command("cargo deny --offline check licenses bans sources"))
}

/// Runs each fuzz target for `secs` seconds.
pub fn fuzz(secs: u64) -> Outcome {
    run::run(
        run::command("cargo test --quiet --package pvfs-fuzz --test short --locked -- --nocapture")
            .env("PVFS_FUZZ_SECS", secs.to_string()),
    )
}
