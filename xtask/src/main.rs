//! `cargo xtask`: what is done to this repository, in Rust, so that it is the same everywhere.
//!
//! Owns the steps of CI and their order. Knows the product only by its binary and its papers.

mod bench;
mod ci;
mod cluster;
mod deps;
mod leftovers;
mod licences;
mod links;
mod memory;
mod page;
mod peers;
mod real_programs;
mod rings;
mod rounds;
mod run;
mod sim;
mod suites;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  ci               everything that CI runs (about 20 minutes on 2 cores from a clean clone)
  tidy             the house rules: crate edges, file heads and lengths, links and test names in the papers
  licences         every dependency's licence is one that deny.toml allows
  deps             installs the Debian packages that the tests need (as root; else names them)
  fuzz [SECS]      runs each fuzz target for SECS seconds (default 60) on mutations of its seeds
  sim [--seeds N] [--start S] [--jobs J] [--twice]
                   runs seeds of the simulator (docs/simulator.md) over all cores
  sim --seed S     runs that one, with every event
  bench [--record] [DIR]
                   the recorded set of benchmarks on a fresh cluster below DIR (default /dev/shm), about 20 minutes; with
                   --record it becomes what docs/performance.md shows
  links [--record | COUNT…]
                   how far 1 to 32 iods, or COUNT, and as many clients fill links of 100 Mbit/s, in networks of their own (root; 8 minutes)
  peers [--record] [--install] [--secs SECONDS]
                   the set's lines through mounts, of ours and of GlusterFS and MooseFS, in turn, no phase longer than SECONDS
                   (default 10; root, 16 GiB of memory, 8 minutes); --install: their Debian packages too, starting no service
  real-programs [--all] [--only PART[,PART…]] [PVFS]
                   cp, tar, git, cargo, databases, stress tests, MPI-IO and others on a mount, contents compared; with a
                   binary that is there instead of a fresh release build. --all: the slow ones too (half an hour);
                   --only: those whose description holds a PART. What is not installed is said and passed over

A test's name, or a part of it, runs alone with `cargo nextest run NAME`.";

/// One of CI's steps by itself: leaves nothing behind either.
fn alone(step: impl FnOnce() -> run::Outcome) -> run::Outcome {
    let outcome = step();
    let left = leftovers::check_and_clean();
    outcome.and(left)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["ci"] => ci::run(),
        ["tidy"] => tidy::run(),
        ["licences"] => licences::run(),
        ["deps"] => deps::install_missing(),
        ["fuzz"] => ci::fuzz(60),
        ["fuzz", secs] => match secs.parse() {
            Ok(secs) => ci::fuzz(secs),
            Err(_) => Err(format!("`{secs}` is no number of seconds")),
        },
        ["bench", "--record"] => alone(|| bench::run(true, None)),
        ["bench", "--record", dir] => alone(|| bench::run(true, Some(dir))),
        ["bench"] => alone(|| bench::run(false, None)),
        ["bench", dir] => alone(|| bench::run(false, Some(dir))),
        ["links", ref args @ ..] => alone(|| links::run(args)),
        ["links-inside", ref args @ ..] => links::run_inside(args),
        ["peers", ref args @ ..] => alone(|| peers::run(args)),
        ["peers-inside", ref args @ ..] => peers::run_inside(args),
        ["sim", ref args @ ..] => sim::run(args),
        ["real-programs", ref args @ ..] => alone(|| real_programs::run(args)),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        _ => Err(format!("no such command: {}\n\n{HELP}", words.join(" "))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("xtask: {text}");
            ExitCode::FAILURE
        }
    }
}
