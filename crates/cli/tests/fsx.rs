//! The file system exerciser (the crate `fsx`) on a mount: reads, writes, mappings, truncations, holes, copies in an order by
//! seed, each byte checked; also while daemons are killed. `cargo xtask ci` installs it; where it is not, skipped.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{TestCluster, can_mount};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");

/// All operations that it has, on a file of several stripes.
const CONFIG: &str = "\
flen = 4194304
[opsize]
max = 262144
[weights]
close_open = 2
invalidate = 5
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 5
fsync = 2
fdatasync = 2
posix_fallocate = 3
punch_hole = 5
sendfile = 5
posix_fadvise = 3
copy_file_range = 5
";

/// Where `cargo xtask ci` installs it.
fn fsx() -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("tools/bin/fsx");
    if !can_mount() || !found.is_file() {
        eprintln!("skipped: needs a mount and {}", found.display());
        return None;
    }
    Some(found)
}

/// Starts it on `dir`, with what it leaves in `beside`.
fn start(fsx: &Path, dir: &Path, beside: &Path, seed: u32, operations: u32) -> Child {
    let config = beside.join("fsx.toml");
    fs::write(&config, CONFIG).unwrap();
    let log = fs::File::create(beside.join(format!("fsx-{seed}.log"))).unwrap();
    let mut command = Command::new(fsx);
    command
        .args(["-S", &seed.to_string(), "-N", &operations.to_string(), "-f"])
        .arg(&config)
        .arg("-P")
        .arg(beside);
    command.arg(dir.join(format!("fsx-{seed}")));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

#[track_caller]
fn ended_well(mut child: Child, beside: &Path, seed: u32) {
    let status = child.wait().unwrap();
    let said = fs::read_to_string(beside.join(format!("fsx-{seed}.log"))).unwrap();
    assert!(status.success() && said.contains("A-OK"), "seed {seed}: {status}\n{said}");
}

#[test]
fn fsx_finds_every_byte_as_it_left_it() {
    let Some(fsx) = fsx() else { return };
    let mut cluster = TestCluster::builder(PVFS).iods(4).start();
    let (dir, beside) = (cluster.mount(&[]), cluster.dir().to_owned());
    for seed in 1..=4 {
        ended_well(start(&fsx, &dir, &beside, seed, 500), &beside, seed);
    }
}

#[test]
fn fsx_finds_every_byte_while_iods_and_the_mgr_are_killed_under_it() {
    const ROUNDS: usize = 12;
    let Some(fsx) = fsx() else { return };
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let (dir, beside) = (cluster.mount(&[]), cluster.dir().to_owned());
    let (start_at, mut killed) = (Instant::now(), 0);
    for seed in 11.. {
        let mut child = start(&fsx, &dir, &beside, seed, 300);
        while child.try_wait().unwrap().is_none() {
            let name = ["iod0", "mgr", "iod1"][killed % 3];
            cluster.kill9(name);
            cluster.restart(name);
            killed += 1;
            std::thread::sleep(Duration::from_millis(200));
        }
        ended_well(child, &beside, seed);
        if killed >= ROUNDS {
            break;
        }
    }
    println!("{killed} daemons killed within {:?}", start_at.elapsed());
    cluster.fsck_finds_nothing();
}
