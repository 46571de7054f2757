//! `pvfs torture`: a workload that checks itself, while daemons are killed under it.

mod shared;

use crate::{args::Global, context::Context, error::CliError, family, out, row, runtime, show::table};
use pvfs_torture::{Plan, Process, Report, Role, Victims, shared::Part};
use std::{
    fmt::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Check that nothing is lost or wrong while daemons are killed
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Programs write, read, rename, link and remove in a directory of their own below DIR, keep descriptors open all the time, and \
know what each answer must be. With --kill, daemons of the `pvfs up` on this machine are killed (kill -9) meanwhile, each in its \
turn, and started again by it; else the killing is yours. Reported are the longest operations of each kind, the pause that \
each kill made, and every error, lost, wrong or doubled byte and name. The exit status is 0 only when there was none.

With --shared, the same directory through two or more mounts (of -o cache=coherent) is worked on: by two processes on each \
at once, which count under locks (fcntl, flock), append records (append), exclude each other by names (mutex), rename \
files over open ones (replace), write blocks side by side (stripes) and unlink what is open (unlink); and by models of one file (file) \
and of a tree of names (names), which hold what a call on one mount returned against what the next one on any other sees. With \
--kill mount, it is those mounts' workers that are killed.

Examples:
  pvfs torture /mnt/pvfs --kill mgr,iod,mount
  pvfs torture /mnt/pvfs --secs 600 --kill iod --svg torture.svg
  pvfs torture /mnt/pvfs --secs 0              until Ctrl-C; pull what plugs you like
  pvfs torture --json /tmp                     any file system will do
  pvfs torture --secs 600 --kill mgr,iod,mount --shared /mnt/a /mnt/b
  pvfs torture --only names --seed 7 --shared /mnt/a /mnt/b /mnt/c")]
pub struct Args {
    /// The directory to work in [default: the mount of `pvfs up`]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How long, in seconds; 0: until Ctrl-C
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    secs: u64,
    /// How many programs at once
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    workers: u32,
    /// Which daemons of the local `pvfs up` to kill: mgr, iod, mount
    #[arg(short, long, value_name = "ROLES", value_delimiter = ',', value_parser = parse_role)]
    kill: Vec<Role>,
    /// About how long from kill to kill, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.5, requires = "kill", value_parser = parse_secs)]
    every: f64,
    /// Repeats the random choices of another run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// As JSON, when all is done
    #[arg(long)]
    json: bool,
    /// Draw the run into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The same directory through several mounts: whether they agree
    #[arg(long, value_name = "DIR", num_args = 2.., conflicts_with_all = ["dir", "workers", "svg"])]
    shared: Vec<PathBuf>,
    /// Of --shared, only these
    #[arg(long, value_name = "PARTS", value_delimiter = ',', value_parser = shared::parse_part, requires = "shared")]
    only: Vec<Part>,
    /// Of --shared, not these
    #[arg(long, value_name = "PARTS", value_delimiter = ',', value_parser = shared::parse_part, requires = "shared")]
    skip: Vec<Part>,
    /// Of --shared: hold modification times too. They are not promised of files that are being written
    #[arg(long, requires = "shared")]
    times: bool,
    /// One of the processes of --shared
    #[arg(long, hide = true, exclusive = true)]
    shared_process: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TortureCmdError {
    #[error(transparent)]
    Torture(#[from] pvfs_torture::TortureError),
    #[error("no `pvfs up` of this user runs here, so there is nothing to {what}: {advice}")]
    NoUp { what: &'static str, advice: &'static str },
    #[error("--skip leaves nothing of --only")]
    NothingLeft,
}

/// The daemons below a running `pvfs up`.
struct Daemons {
    up: u32,
    roles: Vec<Role>,
}

impl Victims for Daemons {
    fn find(&self) -> Vec<Process> {
        let daemons = family::daemons(self.up).into_iter();
        daemons
            .filter_map(|(pid, name)| {
                let role = role_of(&name);
                self.roles.contains(&role).then_some(Process { pid, role, name })
            })
            .collect()
    }
}

fn role_of(name: &str) -> Role {
    match name {
        "mgr" => Role::Mgr,
        "mount" => Role::Mount,
        _ => Role::Iod,
    }
}

pub fn run(args: &Args, _: &Global) -> Result<(), CliError> {
    if args.shared_process {
        return shared::be_a_process();
    }
    let context = Context::load();
    let no_up = |what, advice| TortureCmdError::NoUp { what, advice };
    let daemons = match &context {
        _ if args.kill.is_empty() => None,
        // The mounts' own workers are found without.
        _ if !args.shared.is_empty() && args.kill == [Role::Mount] => None,
        Some(context) => Some(Daemons { up: context.pid, roles: args.kill.clone() }),
        None => return Err(no_up("kill", "start one, or leave --kill out and kill by hand").into()),
    };
    if !args.shared.is_empty() {
        return shared::run(args, daemons);
    }
    let mount = || context.as_ref().and_then(|context| context.mount.clone());
    let dir = args.dir.clone().or_else(mount);
    let dir = dir.ok_or_else(|| no_up("work on", "name a directory"))?;
    let plan = Plan {
        dir,
        workers: args.workers,
        time: time(args.secs),
        seed: seed(args),
        kill_every: Duration::from_secs_f64(args.every),
    };
    if !args.json {
        out::tell(format_args!(
            "Working in {} with seed {}; Ctrl-C ends it early.",
            plan.dir.display(),
            plan.seed
        ));
    }
    let report = run_stoppable(move |stop| {
        let victims = daemons.as_ref().map(|daemons| daemons as &dyn Victims);
        pvfs_torture::run(&plan, victims, &stop)
    })?;
    if let Some(file) = &args.svg {
        std::fs::write(file, pvfs_torture::draw(&report))
            .map_err(|source| CliError::Local { path: file.clone(), source })?;
    }
    tell(args.json, &report, overview, report.passed)
}

/// Prints the report; its verdict is the command's.
fn tell<R: serde::Serialize>(
    json: bool,
    report: &R,
    overview: fn(&R) -> String,
    passed: bool,
) -> Result<(), CliError> {
    let text = if json {
        let text = serde_json::to_string_pretty(report);
        text.map_err(|error| CliError::Output { source: std::io::Error::other(error) })? + "\n"
    } else {
        overview(report)
    };
    out::write(text)?;
    if passed { Ok(()) } else { Err(CliError::Told) }
}

fn time(secs: u64) -> Duration {
    if secs == 0 { Duration::from_hours(24 * 365) } else { Duration::from_secs(secs) }
}

fn seed(args: &Args) -> u64 {
    args.seed.unwrap_or_else(|| u64::from_ne_bytes(pvfs_env::random::bytes()))
}

/// Runs `work`; Ctrl-C ends the work, not the report.
fn run_stoppable<T: Send + 'static>(
    work: impl FnOnce(Arc<AtomicBool>) -> Result<T, pvfs_torture::TortureError> + Send + 'static,
) -> Result<T, CliError> {
    let stop = Arc::new(AtomicBool::new(false));
    runtime::block_on(1, async {
        let signal = runtime::stop_signal()?;
        let stopping = Arc::clone(&stop);
        tokio::spawn(async move {
            signal.await;
            stopping.store(true, Ordering::Relaxed);
        });
        let done = tokio::task::spawn_blocking(move || work(stop)).await;
        let done = done.map_err(|error| CliError::Runtime { source: std::io::Error::other(error) })?;
        Ok(done.map_err(TortureCmdError::from)?)
    })
}

fn overview(report: &Report) -> String {
    let ms = |ms: f64| format!("{ms:.1} ms");
    let mut out = String::new();
    let mut rows = vec![row!["OPERATION", "COUNT", "LONGEST", "FAULTS"]];
    rows.extend(report.ops.iter().map(|op| row![op.op.name(), op.count, ms(op.longest_ms), op.faults]));
    out += &table(&rows, &[1, 2, 3]);
    if !report.kills.is_empty() {
        let mut rows = vec![row!["KILLED", "TIMES", "MEDIAN PAUSE", "LONGEST PAUSE"]];
        rows.extend(
            report
                .kills
                .iter()
                .map(|kill| row![kill.name, kill.count, ms(kill.median_pause_ms), ms(kill.longest_pause_ms)]),
        );
        if let (Some(median), Some(longest)) = (report.median_pause_ms, report.longest_pause_ms) {
            rows.push(row!["all", report.pauses.len(), ms(median), ms(longest)]);
        }
        out += "\n";
        out += &table(&rows, &[1, 2, 3]);
    }
    out += "\n";
    for fault in &report.faults {
        // Writing to a String does not fail.
        let _ =
            writeln!(out, "{:9.3} s  {}: {:?}: {}", fault.at_secs, fault.op.name(), fault.kind, fault.text);
    }
    let verdict = if report.passed { "Passed" } else { "Failed" };
    let _ = writeln!(
        out,
        "{} after {:.0} s: {} errors; {} lost, {} wrong, {} doubled (seed {})",
        verdict, report.secs, report.errors, report.lost, report.wrong, report.doubled, report.seed
    );
    out
}

fn parse_role(text: &str) -> Result<Role, String> {
    let found = Role::ALL.into_iter().find(|role| role.name() == text);
    found.ok_or_else(|| "there is mgr, iod and mount".to_owned())
}

fn parse_secs(text: &str) -> Result<f64, String> {
    let secs: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if (0.05..=86_400.0).contains(&secs) { Ok(secs) } else { Err("from 0.05 to 86400 seconds".to_owned()) }
}
