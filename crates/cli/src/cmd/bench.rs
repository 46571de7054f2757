//! `pvfs bench`: measures a file system, and beside it the machine's own limits.

use crate::{args::Global, error::CliError, remote, runtime, spec::Spec as Path, unit};
use pvfs_bench::{Files, Local, Native, Report, Row, Spec, Verify, Workload};
use std::path::PathBuf;

/// Measure how fast it is, beside the machine's own limits
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs the phases in order with RANKS concurrent callers, through the native client in PVFS directory PATH, or with --path
through any local directory, say a mount. With --limits DIR the same bytes then go over bare TCP and to that local directory,
in the same run: what this machine could do at best. CPU seconds are those of this process and of all pvfs processes on this
machine. Files named pvfs-bench-… are made and removed again.

Examples:
  pvfs bench
  pvfs bench --path /mnt/pvfs --limits /tmp
  pvfs bench --workloads write,read --ranks 4 --size 1G --shared
  pvfs bench --workloads create,stat,remove --ranks 16 --names 100000
  pvfs bench --json | jq '.rows[] | {workload, where, mib_per_s}'")]
pub struct Args {
    /// The directory in PVFS: /path, pvfs:/path or pvfs://host:port/path
    #[arg(value_name = "PATH", default_value = "/", value_parser = Path::arg())]
    dir: Path,
    /// Go through this local directory (a mount) instead
    #[arg(long, value_name = "DIR", conflicts_with = "dir")]
    path: Option<PathBuf>,
    /// The phases: write, read, strided-write, strided-read, create, stat, remove
    #[arg(short, long, value_delimiter = ',', value_parser = parse_workload)]
    workloads: Vec<Workload>,
    /// Concurrent callers
    #[arg(short, long, default_value_t = Spec::default().ranks)]
    ranks: u32,
    /// Bytes of one call
    #[arg(short, long, value_name = "BYTES", default_value = "1M", value_parser = unit::parse_bytes)]
    transfer: u64,
    /// Bytes that each rank moves in a phase
    #[arg(short, long, value_name = "BYTES", default_value = "512M", value_parser = unit::parse_bytes)]
    size: u64,
    /// Strided phases: how many pieces one transfer consists of
    #[arg(long, default_value_t = Spec::default().pieces)]
    pieces: u64,
    /// One file for all ranks, not one each
    #[arg(long)]
    shared: bool,
    /// fsync at the end of each write phase, within its time
    #[arg(long)]
    fsync: bool,
    /// Compare what is read: off, stamps (8 bytes of each 4 KiB) or full
    #[arg(long, default_value = "stamps", value_parser = parse_verify)]
    verify: Verify,
    /// Files of create, stat and remove, over all ranks
    #[arg(short, long, default_value_t = Spec::default().names)]
    names: u64,
    /// No phase goes on longer than this, in seconds; 0: until it is done
    #[arg(long, value_name = "SECONDS", default_value_t = Spec::default().secs_max)]
    secs_max: f64,
    /// Through a path: read what the kernel holds in its cache too
    #[arg(long)]
    keep_caches: bool,
    /// Measure the machine's own limits too, with files in this local directory
    #[arg(long, value_name = "DIR")]
    limits: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let spec = args.spec();
    spec.check()?;
    let pids = pvfs_bench::own_program_pids();
    let limits = args.limits.as_deref();
    let tell = |row: &Row| {
        if !args.json {
            println!("{}", row.line());
        }
    };
    if !args.json {
        println!("{}", Row::head());
    }
    let report = match &args.path {
        Some(dir) => runtime::run_tool(async {
            Ok(pvfs_bench::run(&spec, &Local::new(dir, "path"), limits, &pids, tell).await?)
        })?,
        None => remote::run(global, &[&args.dir], async |remote| {
            let dir =
                remote.attr(&args.dir.path, true).await.map_err(CliError::remote(args.dir.display()))?;
            let place = Native::new(remote.client, remote.cred, dir.ino);
            Ok(pvfs_bench::run(&spec, &place, limits, &pids, tell).await?)
        })?,
    };
    if args.json { print_json(&report) } else { Ok(()) }
}

fn print_json(report: &Report) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(report)
        .map_err(|error| CliError::Output { source: std::io::Error::other(error) })?;
    crate::cmd::ls::write_out(&(text + "\n"))
}

impl Args {
    fn spec(&self) -> Spec {
        let default = Spec::default();
        Spec {
            workloads: if self.workloads.is_empty() { default.workloads } else { self.workloads.clone() },
            ranks: self.ranks,
            transfer_bytes: self.transfer,
            rank_bytes: self.size,
            pieces: self.pieces,
            files: if self.shared { Files::Shared } else { Files::Own },
            fsync: self.fsync,
            verify: self.verify,
            names: self.names,
            secs_max: self.secs_max,
            drop_caches: !self.keep_caches,
        }
    }
}

fn parse_workload(text: &str) -> Result<Workload, String> {
    let all = Spec::default().workloads;
    let dashed = |workload: &Workload| workload.name().replace(' ', "-");
    all.iter()
        .copied()
        .find(|workload| dashed(workload) == text)
        .ok_or_else(|| format!("there is {}", all.iter().map(dashed).collect::<Vec<_>>().join(", ")))
}

fn parse_verify(text: &str) -> Result<Verify, String> {
    match text {
        "off" => Ok(Verify::Off),
        "stamps" => Ok(Verify::Stamps),
        "full" => Ok(Verify::Full),
        _ => Err("there is off, stamps and full".to_owned()),
    }
}
