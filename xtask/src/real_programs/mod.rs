//! Real programs on a mount, each checking what it finds there: copies, builds, databases, stress tests, parallel programs.

mod builds;
mod databases;
mod parallel;
mod stress;
mod trees;

use crate::{
    cluster::Cluster,
    deps::{self, Need},
    leftovers,
    run::{self, Outcome},
    suites,
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// From the start of `pvfs up` to a mount that is ready.
const READY_WITHIN: Duration = Duration::from_secs(3);
/// No single program may take longer. (A cargo build takes longest: all crates, beside the daemons.)
const PROGRAM_WITHIN: Duration = Duration::from_mins(15);

/// Which programs run, and what becomes of one that is not installed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Only those whose names hold one of these, between commas.
    pub only: Option<&'a str>,
    /// Those too that take minutes.
    pub slow: bool,
    /// A program that is missing is a failure, not passed over.
    pub complete: bool,
}

/// `[--all] [--only PART] [PVFS]`
pub fn run(args: &[&str]) -> Outcome {
    let (mut wanted, mut pvfs, mut args) = (Wanted::default(), None, args.iter());
    while let Some(&arg) = args.next() {
        match arg {
            "--all" => wanted.slow = true,
            "--only" => wanted.only = Some(args.next().ok_or("--only PART[,PART…]")?),
            path if pvfs.is_none() && !path.starts_with('-') => pvfs = Some(path),
            _ => return Err(format!("`{arg}` means nothing here")),
        }
    }
    match pvfs {
        Some(pvfs) => run_with(pvfs.as_ref(), wanted),
        None => build_and_run(wanted),
    }
}

/// Builds the binary, runs all programs on a fresh file system, leaves nothing behind.
pub fn build_and_run(wanted: Wanted<'_>) -> Outcome {
    run::build_release()?;
    run_with(&run::release(), wanted)
}

/// The same with a binary that is there.
fn run_with(pvfs: &Path, wanted: Wanted<'_>) -> Outcome {
    deps::install_missing()?;
    deps::install_programs(needs(wanted))?;
    leftovers::prepare()?;
    let cluster = Cluster::new(pvfs, leftovers::temp_dir().join("real-programs"))?;
    let outcome = up(&cluster).and_then(|()| run_programs(&cluster, wanted));
    // Also after a failure: stopping may fail as well, but the first error is the one to see.
    let down = down(&cluster);
    if outcome.is_err() {
        println!("the daemons' logs are in {}", cluster.keep_logs());
    }
    let _ = std::fs::remove_dir_all(cluster.dir());
    outcome.and(down)
}

struct Program {
    name: &'static str,
    /// All of these, beside what every test needs.
    needs: &'static [Need],
    /// It takes minutes, or what it needs comes from far.
    is_slow: bool,
    run: fn(&Cluster) -> Outcome,
}

const fn quick(name: &'static str, needs: &'static [Need], run: fn(&Cluster) -> Outcome) -> Program {
    Program { name, needs, is_slow: false, run }
}

const fn slow(name: &'static str, needs: &'static [Need], run: fn(&Cluster) -> Outcome) -> Program {
    Program { name, needs, is_slow: true, run }
}

const STRESS_NG: Need = Need::Program("stress-ng", "stress-ng");
const H5REPACK: Need = Need::Program("h5repack", "hdf5-tools");
const H5PY: Need = Need::Module("h5py", "python3-h5py");
const NUMPY: Need = Need::Module("numpy", "python3-numpy");
const MPIRUN: Need = Need::Program("mpirun", "openmpi-bin");
const MPI4PY: Need = Need::Module("mpi4py", "python3-mpi4py");

const PROGRAMS: &[Program] = &[
    quick("cp -r of a source tree and its build", &[], trees::copy),
    quick("tar out and in", &[], trees::tar),
    quick("rsync there and back, with attributes and ACLs", &[], trees::rsync),
    quick("git clone, fsck, status", &[], builds::git),
    quick("sqlite3 makes and checks a database", &[], databases::sqlite),
    quick("sqlite3 on two mounts at once", &[], databases::sqlite_on_two_mounts),
    quick("PostgreSQL: pgbench, a crash, amcheck, checksums, dumps", &[Need::Postgres], databases::postgres),
    slow("PostgreSQL for longer", &[Need::Postgres], databases::postgres_for_long),
    slow(
        "DuckDB, by SQL against what it finds in memory",
        &[Need::Module("ensurepip", "python3-venv")],
        databases::duckdb,
    ),
    quick("stress-ng, file system stressors at once", &[STRESS_NG], stress::stress_ng),
    slow("stress-ng, each file system stressor", &[STRESS_NG], stress::stress_ng_each),
    quick("dbench", &[Need::Program("dbench", "dbench")], stress::dbench),
    quick("fio, verified here and on another mount", &[], stress::fio),
    slow("fio, verified, more of it", &[], stress::fio_for_long),
    quick("HDF5: h5repack, h5copy, h5diff, a reader beside the writer", &[H5REPACK, H5PY], parallel::hdf5),
    slow("HDF5: h5repart", &[H5REPACK, H5PY], parallel::h5repart),
    quick("NumPy arrays mapped into memory", &[NUMPY], parallel::numpy),
    quick("MPI-IO from two mounts", &[MPIRUN, MPI4PY, NUMPY], parallel::mpi_io),
    quick("pjdfstest, all that ext4 passes", &[], suites::pjdfstest),
    quick("a file of 3 GiB and one byte", &[], trees::large),
    quick("cargo build in the mount", &[], builds::cargo),
    quick("all is there after a restart", &[], trees::restart),
    quick("the README's tour", &[], builds::tour),
];

/// What the programs need that are wanted.
pub fn needs(wanted: Wanted<'_>) -> impl Iterator<Item = Need> + use<'_> {
    programs(wanted).flat_map(|program| program.needs).copied()
}

fn programs(wanted: Wanted<'_>) -> impl Iterator<Item = &'static Program> + use<'_> {
    let is_wanted = move |program: &&Program| match wanted.only {
        Some(parts) => parts.split(',').any(|part| program.name.contains(part)),
        None => wanted.slow || !program.is_slow,
    };
    PROGRAMS.iter().filter(is_wanted)
}

fn run_programs(cluster: &Cluster, wanted: Wanted<'_>) -> Outcome {
    for program in programs(wanted) {
        let missing: Vec<&str> =
            program.needs.iter().filter(|need| !need.is_there()).map(|need| need.package()).collect();
        if !missing.is_empty() && wanted.complete {
            return Err(format!("{}: not installed: {}", program.name, missing.join(", ")));
        }
        if !missing.is_empty() {
            println!("          not run: {} (not installed: {})", program.name, missing.join(", "));
            continue;
        }
        let start = Instant::now();
        (program.run)(cluster).map_err(|e| format!("{}: {e}", program.name))?;
        println!("{:>7.1} s  {}", start.elapsed().as_secs_f64(), program.name);
        cluster.fsck().map_err(|e| format!("after {}: {e}", program.name))?;
    }
    Ok(())
}

/// Starts it, within its time, and mounts it once more.
fn up(cluster: &Cluster) -> Outcome {
    let start = Instant::now();
    cluster.up()?;
    let took = start.elapsed();
    println!("{:>7.1} s  pvfs up", took.as_secs_f64());
    if took > READY_WITHIN {
        return Err(format!("`pvfs up` was ready after {took:?}, not within {READY_WITHIN:?}"));
    }
    cluster.mount_other(&["mount", "/"])
}

fn down(cluster: &Cluster) -> Outcome {
    let umounted = cluster.umount_other();
    cluster.down().and(umounted)
}

impl Cluster {
    /// Holds all records, files and objects against each other.
    fn fsck(&self) -> Outcome {
        let out = self.command(self.pvfs()).arg("fsck").output().map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&out.stdout);
        if out.status.success() { Ok(()) } else { Err(format!("pvfs fsck: {}\n{said}", out.status)) }
    }

    /// Runs `program args…` within its time; arguments are split at spaces, `@` stands for the mount, `&` for the other
    /// mount, `%` for the local directory beside them.
    fn run(&self, line: &str) -> Outcome {
        let mut words = line.split(' ');
        let mut command = self.command(words.next().unwrap_or_default());
        command.args(words.map(|word| self.placed(word)));
        run::run_within(&mut command, PROGRAM_WITHIN)
    }

    /// Puts the daemons' logs where they outlive this run.
    fn keep_logs(&self) -> String {
        let to = run::target_dir().join("real-programs-logs");
        let _ = std::fs::remove_dir_all(&to);
        let _ = std::fs::create_dir_all(&to);
        let _ = run::run(run::command("cp -r").arg(self.dir().join("data/log")).arg(&to));
        to.display().to_string()
    }
}
