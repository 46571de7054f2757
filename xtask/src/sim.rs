//! The simulator: built apart from all else, for it alone needs a tokio whose every choice follows from a seed.

use crate::run::{self, Outcome};
use std::process::Command;

/// The first of the seeds that CI runs, and how many: clients that hold delegations begin at one million, those that die and
/// have successors at two, programs that mostly make small files at three.
const CI_SEEDS: [(&str, &str); 4] =
    [("1", "200"), ("1000001", "100"), ("2000001", "100"), ("3000001", "100")];

/// Runs `pvfs-sim` with `args`.
pub fn run(args: &[&str]) -> Outcome {
    run::run(cargo("cargo run --quiet --locked --package pvfs-sim --profile sim --").args(args))
}

/// The simulator's own tests, the seeds that found something among them, then some hundred seeds, each of them twice.
pub fn ci() -> Outcome {
    run::run(&mut cargo("cargo test --quiet --locked --package pvfs-sim --profile sim"))?;
    CI_SEEDS.iter().try_for_each(|(start, seeds)| run(&["--start", start, "--seeds", seeds, "--twice"]))
}

/// With a target directory of its own: another flag would have everything built again each time.
fn cargo(line: &str) -> Command {
    let mut command = run::command(line);
    command.env("RUSTFLAGS", "--cfg tokio_unstable");
    command.env("CARGO_TARGET_DIR", run::target_dir().join("sim-build"));
    command
}
