//! `pvfs torture --shared`: one tree through several mounts.

use super::{Args, Daemons, TortureCmdError, run_stoppable};
use crate::{error::CliError, mounts, out, row, show::table};
use pvfs_torture::{
    Process, Role, Victims,
    shared::{self, Part, SharedPlan, SharedReport},
};
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The only mode under which the models can hold.
const COHERENT: &str = "coherent";

/// One of the processes that a shared run starts.
pub fn be_a_process() -> Result<(), CliError> {
    let done = shared::work(std::io::BufReader::new(std::io::stdin()), std::io::stdout());
    done.map_err(|source| CliError::Output { source })
}

/// The daemons of a local `up`, and the workers of the mounts that are used.
struct SharedDaemons {
    up: Option<Daemons>,
    dirs: Vec<PathBuf>,
    kills_mounts: bool,
}

impl Victims for SharedDaemons {
    fn find(&self) -> Vec<Process> {
        let up = self.up.iter().flat_map(Victims::find).filter(|process| process.role != Role::Mount);
        let workers = if self.kills_mounts { workers(&self.dirs) } else { Vec::new() };
        up.chain(workers).collect()
    }
}

/// The processes that serve the mounts in which `dirs` lie, as those tell themselves.
fn workers(dirs: &[PathBuf]) -> Vec<Process> {
    let mounts = mounts::all();
    let mut found = Vec::new();
    for (number, dir) in dirs.iter().enumerate() {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.clone());
        let around = mounts.iter().filter(|mount| dir.starts_with(&mount.dir));
        let Some(mount) = around.max_by_key(|mount| mount.dir.components().count()) else { continue };
        let pid = mount.told.as_ref().ok().and_then(|told| told["pid"].as_i64());
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
            found.push(Process { pid, role: Role::Mount, name: format!("mount{number}") });
        }
    }
    found
}

/// The mounts whose option `cache` is known to be another one than that under which they agree at once.
fn incoherent(dirs: &[PathBuf]) -> Vec<(usize, String)> {
    let other = |worker: Process| {
        let number = worker.name.trim_start_matches("mount").parse().ok()?;
        let cache = cache_of(&std::fs::read(format!("/proc/{}/cmdline", worker.pid)).ok()?);
        (cache != COHERENT && cache != "none").then_some((number, cache))
    };
    workers(dirs).into_iter().filter_map(other).collect()
}

fn cache_of(command_line: &[u8]) -> String {
    let args = command_line.split(|&byte| byte == 0).filter_map(|arg| str::from_utf8(arg).ok());
    let options: Vec<&str> = args.flat_map(|arg| arg.split(',')).collect();
    let mut latest_first = options.into_iter().rev();
    let cache = latest_first.find_map(|option| option.trim_start_matches("-o").strip_prefix("cache="));
    cache.unwrap_or(COHERENT).to_owned()
}

pub fn run(args: &Args, up: Option<Daemons>) -> Result<(), CliError> {
    let parts = Part::ALL
        .into_iter()
        .filter(|part| (args.only.is_empty() || args.only.contains(part)) && !args.skip.contains(part));
    let plan = SharedPlan {
        dirs: args.shared.clone(),
        parts: parts.collect(),
        times: args.times,
        time: super::time(args.secs),
        seed: super::seed(args),
        kill_every: Duration::from_secs_f64(args.every),
    };
    if plan.parts.is_empty() {
        return Err(TortureCmdError::NothingLeft.into());
    }
    let program = std::env::current_exe().map_err(|source| CliError::Output { source })?;
    if !args.json {
        let dirs: Vec<String> = plan.dirs.iter().map(|dir| dir.display().to_string()).collect();
        let text =
            format!("Working through {} with seed {}; Ctrl-C ends it early.", dirs.join(", "), plan.seed);
        out::tell(format_args!("{text}"));
        for (number, cache) in incoherent(&plan.dirs) {
            out::tell(format_args!(
                "{}: mounted with cache={cache}, under which mounts agree only after a while: faults are to be \
                 expected. Mount with -o cache=coherent.",
                plan.dirs[number].display()
            ));
        }
    }
    let kills_mounts = args.kill.contains(&Role::Mount);
    let dirs = plan.dirs.clone();
    let report = run_stoppable(move |stop| {
        let daemons = SharedDaemons { up, dirs, kills_mounts };
        let victims = (daemons.up.is_some() || kills_mounts).then_some(&daemons as &dyn Victims);
        shared::run(&plan, victims, &|| process(&program), &stop)
    })?;
    super::tell(args.json, &report, overview, report.passed)
}

fn process(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["torture", "--shared-process"]);
    command
}

fn overview(report: &SharedReport) -> String {
    let mut rows = vec![row!["PART", "STEPS", "LONGEST", "STALE", "FAULTS"]];
    rows.extend(report.parts.iter().map(|part| {
        row![part.part.name(), part.steps, format!("{:.1} ms", part.longest_ms), part.stale, part.faults]
    }));
    let mut out = table(&rows, &[1, 2, 3, 4]);
    if !report.kills.is_empty() {
        let mut rows = vec![row!["KILLED", "TIMES"]];
        rows.extend(report.kills.iter().map(|kill| row![kill.name, kill.count]));
        out += "\n";
        out += &table(&rows, &[1]);
    }
    out += "\n";
    for fault in &report.faults {
        let (at, part, kind) = (fault.at_secs, fault.part.name(), fault.kind.name());
        // Writing to a String does not fail.
        let _ = writeln!(out, "{at:9.3} s  {part}: {kind}: {}", fault.text);
    }
    let verdict = if report.passed { "Passed" } else { "Failed" };
    let faults: u64 = report.parts.iter().map(|part| part.faults).sum();
    let _ = writeln!(
        out,
        "{verdict} after {:.0} s on {} mounts: {faults} faults (seed {})",
        report.secs, report.mounts, report.seed
    );
    out
}

pub fn parse_part(text: &str) -> Result<Part, String> {
    let names: Vec<&str> = Part::ALL.iter().map(|part| part.name()).collect();
    Part::find(text).ok_or_else(|| format!("there is {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cache_option_of_a_command_line_counts() {
        for (line, cache) in [
            ("pvfs\0mount\0/\0/mnt\0", "coherent"),
            ("pvfs\0mount\0/\0/mnt\0-o\0cache=none,ro\0-o\0soft,cache=coherent\0", "coherent"),
            ("pvfs\0mount\0-ocache=private\0", "private"),
        ] {
            assert_eq!(cache_of(line.as_bytes()), cache);
        }
    }
}
