//! What who builds software does: git, cargo, the README's tour.

use super::{Cluster, PROGRAM_WITHIN};
use crate::run::{self, Outcome};
use std::process::Stdio;

pub fn git(c: &Cluster) -> Outcome {
    let clone = format!("git clone --quiet --no-local {} @/clone", run::root().display());
    c.run(&clone)?;
    c.run("git -C @/clone fsck --full --strict --no-progress --no-dangling")?;
    c.run("git -C @/clone diff --quiet HEAD")?;
    c.run("git -C @/clone gc --quiet")?;
    c.run("git -C @/clone fsck --full --strict --no-progress --no-dangling")
}

pub fn cargo(c: &Cluster) -> Outcome {
    let clone = c.mnt().join("clone");
    let mut build = c.command("cargo");
    build.args(["build", "--quiet", "--offline", "--locked", "--package", "pvfs-cli", "--bin", "pvfs"]);
    build.current_dir(&clone).env("CARGO_TARGET_DIR", clone.join("target"));
    run::run_within(&mut build, PROGRAM_WITHIN)?;
    let version = run::output(c.command(clone.join("target/debug/pvfs")).arg("--version"))?;
    if version.starts_with("pvfs ") { Ok(()) } else { Err(format!("the built binary says: {version}")) }
}

/// Every command of the README's tour, as it stands there, but for the first and the last: `up` and `down`.
pub fn tour(c: &Cluster) -> Outcome {
    let readme = run::root().join("README.md");
    let text = std::fs::read_to_string(&readme).map_err(|e| format!("{}: {e}", readme.display()))?;
    let commands = text
        .split_once("## A quick tour")
        .and_then(|(_, rest)| rest.split_once("```sh\n"))
        .and_then(|(_, block)| block.split_once("```"))
        .map(|(block, _)| block)
        .ok_or("the README has no tour")?;
    let is_elsewhere =
        |line: &&str| ["alias pvfs=", "pvfs up ", "pvfs down"].iter().any(|c| line.starts_with(c));
    let script: String = commands
        .lines()
        .filter(|line| !is_elsewhere(line))
        .map(|line| line.replace("/mnt/pvfs", &c.mnt().display().to_string()) + "\n")
        .collect();
    let mut shell = c.command("sh");
    shell.args(["-e", "-u", "-c"]).arg("pvfs() { \"$PVFS\" \"$@\"; }\n".to_owned() + &script);
    shell.current_dir(run::root()).env("PVFS", c.pvfs()).stdout(Stdio::null());
    run::run_within(&mut shell, PROGRAM_WITHIN)
}
