//! `pvfs bench`: what the file system does, and beside it what the machine could do.

use crate::{
    args::Global, context::Context, error::CliError, out, remote, runtime, spec::Spec as Path, unit,
};
use pvfs_bench::{Files, Local, Native, Place, Report, Row, Spec, Verify, Workload, Writer};
use std::path::PathBuf;

/// Measure how fast it is, and the machine's own limits beside it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs the phases in order with RANKS concurrent callers, through the native client in PVFS directory PATH, or with --path \
through any local directory, say a mount. Then, unless --no-limits is given, the same bytes go over bare TCP on this machine \
into and out of files, and the same calls to a local directory: what this machine could do at best. (Local directories make \
names durable later, PVFS before it answers: their creates and removes are no limit to reach.)

What is read is checked. CPU seconds are those of this process and of all other pvfs processes on this machine, or of --pids. \
Files named pvfs-bench-… are made and removed again.

Examples:
  pvfs bench
  pvfs bench --path /mnt/pvfs --run write,read --bytes 2G
  pvfs bench --run strided-write,strided-read --shared --pieces 256 --ranks 4
  pvfs bench --run create,stat,remove --ranks 16 --names 100000 --secs 0
  pvfs bench --pattern ior-hard --path /mnt/pvfs
  pvfs bench --no-limits --json | jq '.rows[] | {workload, where, mib_per_s}'")]
pub struct Args {
    /// The directory in PVFS: /path, pvfs:/path or pvfs://host:port/path
    #[arg(value_name = "PATH", default_value = "/", value_parser = Path::arg())]
    dir: Path,
    /// Go through this local directory (a mount, or any other) instead
    #[arg(long, value_name = "DIR", conflicts_with = "dir")]
    path: Option<PathBuf>,
    /// The phases, in order
    #[arg(long, value_name = "PHASES", value_delimiter = ',', value_parser = parse_workload,
        default_value = "write,read,random-read,strided-write,strided-read,create,stat,open-read,remove",
        conflicts_with = "pattern")]
    run: Vec<Workload>,
    /// A benchmark that people know instead: its phases, sizes and files
    #[arg(long, value_name = "NAME", conflicts_with_all = ["transfer", "pieces", "shared", "name_bytes", "own_dirs"])]
    pattern: Option<Pattern>,
    /// Concurrent callers: threads with --path, else tasks
    #[arg(short, long, value_name = "N", default_value_t = Spec::default().ranks)]
    ranks: u32,
    /// Bytes of one call
    #[arg(short, long, value_name = "BYTES", default_value = "1M", value_parser = unit::parse_bytes)]
    transfer: u64,
    /// Bytes that each rank moves in a phase
    #[arg(short, long, value_name = "BYTES", default_value = "512M", value_parser = unit::parse_bytes)]
    bytes: u64,
    /// Strided phases: how many pieces one transfer consists of
    #[arg(long, value_name = "N", default_value_t = Spec::default().pieces)]
    pieces: u64,
    /// One file for all ranks, not one each
    #[arg(long)]
    shared: bool,
    /// Bytes of one call of a random read
    #[arg(long, value_name = "BYTES", default_value = "4K", value_parser = unit::parse_bytes)]
    random: u64,
    /// Open the files of write phases for reading too, as IOR does
    #[arg(long)]
    read_write: bool,
    /// fsync at the end of each write phase, within its time
    #[arg(long)]
    fsync: bool,
    /// Compare what is read: off, stamps (8 bytes of each 4 KiB) or full
    #[arg(long, value_name = "HOW", default_value = "stamps", value_parser = parse_verify)]
    verify: Verify,
    /// Files of create, stat, open-read and remove, over all ranks
    #[arg(short, long, value_name = "N", default_value_t = Spec::default().names)]
    names: u64,
    /// Bytes in each of them
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = unit::parse_bytes)]
    name_bytes: u64,
    /// A directory of their own for each rank's files, not one for all
    #[arg(long)]
    own_dirs: bool,
    /// No phase goes on longer than this, in seconds; 0: until it is done
    #[arg(short, long, value_name = "SECONDS", default_value_t = Spec::default().secs_max)]
    secs: f64,
    /// With --path: read what the kernel holds in its cache too
    #[arg(long)]
    keep_cache: bool,
    /// Where to measure the machine's own limits [default: the directory of `pvfs up`, else the temporary one]
    #[arg(long, value_name = "DIR")]
    limits_dir: Option<PathBuf>,
    /// Do not measure the machine's own limits
    #[arg(long, conflicts_with = "limits_dir")]
    no_limits: bool,
    /// Count the CPU seconds of these processes [default: all other pvfs processes on this machine]
    #[arg(long, value_name = "PIDS", value_delimiter = ',')]
    pids: Option<Vec<u32>>,
    /// As JSON, when all is done
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let report = match &args.path {
        Some(dir) => runtime::run_tool(measure(args, Local::new(dir, "path")))?,
        None => remote::run(global, &[&args.dir], async |remote| {
            let dir =
                remote.attr(&args.dir.path, true).await.map_err(CliError::remote(args.dir.display()))?;
            measure(args, Native::new(remote.client, remote.cred, dir.ino)).await
        })?,
    };
    if args.json { print_json(&report) } else { Ok(()) }
}

async fn measure(args: &Args, place: impl Place) -> Result<Report, CliError> {
    let spec = args.spec();
    spec.check()?;
    let pids = args.pids.clone().unwrap_or_else(pvfs_bench::own_program_pids);
    if !args.json {
        out::tell(Row::head());
    }
    let tell = |row: &Row| {
        if !args.json {
            out::tell(row.line());
        }
    };
    Ok(pvfs_bench::run(&spec, &place, args.limits_dir().as_deref(), &pids, tell).await?)
}

fn print_json(report: &Report) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(report)
        .map_err(|error| CliError::Output { source: std::io::Error::other(error) })?;
    out::line(text)
}

impl Args {
    fn spec(&self) -> Spec {
        let asked = self.asked();
        match self.pattern {
            None => asked,
            Some(pattern) => pattern.of(&asked),
        }
    }

    fn asked(&self) -> Spec {
        Spec {
            workloads: self.run.clone(),
            ranks: self.ranks,
            transfer_bytes: self.transfer,
            rank_bytes: self.bytes,
            pieces: self.pieces,
            files: if self.shared { Files::Shared } else { Files::Own },
            writer: if self.read_write { Writer::ReadsToo } else { Writer::Only },
            fsync: self.fsync,
            verify: self.verify,
            random_bytes: self.random,
            names: self.names,
            name_bytes: self.name_bytes,
            own_dirs: self.own_dirs,
            secs_max: self.secs,
            drop_caches: !self.keep_cache,
        }
    }

    /// On the disk of the targets, where that is known.
    fn limits_dir(&self) -> Option<PathBuf> {
        if self.no_limits {
            return None;
        }
        let writable = |dir: &PathBuf| rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok();
        let of_up = || Context::load().map(|context| context.dir).filter(writable);
        Some(self.limits_dir.clone().or_else(of_up).unwrap_or_else(std::env::temp_dir))
    }
}

/// The patterns of the benchmarks IOR and mdtest, as the IO500 list runs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Pattern {
    /// A file for each rank, in calls of 1 MiB
    IorEasy,
    /// One file for all, in interleaved records of 47,008 bytes
    IorHard,
    /// Empty files in a directory for each rank
    MdtestEasy,
    /// Files of 3,901 bytes in one directory
    MdtestHard,
}

impl Pattern {
    /// What `asked` leaves open: how many ranks, bytes, files and seconds.
    fn of(self, asked: &Spec) -> Spec {
        use Workload::{Create, OpenRead, Read, Remove, Stat, StridedRead, StridedWrite, Write};
        let names = Spec { workloads: vec![Create, Stat, OpenRead, Remove], ..asked.clone() };
        match self {
            Pattern::IorEasy => Spec {
                workloads: vec![Write, Read],
                transfer_bytes: 1 << 20,
                files: Files::Own,
                ..asked.clone()
            },
            Pattern::IorHard => Spec {
                workloads: vec![StridedWrite, StridedRead],
                transfer_bytes: 47_008,
                pieces: 1,
                files: Files::Shared,
                ..asked.clone()
            },
            Pattern::MdtestEasy => Spec { name_bytes: 0, own_dirs: true, ..names },
            Pattern::MdtestHard => Spec { name_bytes: 3901, own_dirs: false, ..names },
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
