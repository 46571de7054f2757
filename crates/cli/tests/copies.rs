//! `copy_file_range` on a mount, as programs use it: exact, and by the targets among themselves where strips line up.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{Child, Half, TestCluster, can_mount, wait_until};
use rustix::{fs::copy_file_range, io::Errno};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const MIB: u64 = 1 << 20;

/// Bytes that repeat nowhere near.
fn bytes(len: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(usize::try_from(len).unwrap()).collect()
}

/// Files in it lie on two targets.
fn mounted() -> Option<(TestCluster, PathBuf)> {
    if !can_mount() {
        return None;
    }
    let mut cluster = TestCluster::start(PVFS);
    cluster.run_ok("layout", ["set", "--strip-size", "64K", "--pcount", "2", "/"]);
    let dir = cluster.mount(&[]);
    Some((cluster, dir))
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// Makes an empty file that begins on the first target. (The mgr takes turns.)
fn make_on_first(cluster: &TestCluster, dir: &Path, name: &str) {
    for turn in 0.. {
        fs::write(dir.join(name), "").unwrap();
        let told = cluster.run_ok("stat", ["--json", &format!("/{name}")]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        if told["distribution"]["base"] == 0 {
            return;
        }
        fs::rename(dir.join(name), dir.join(format!("{name}-{turn}"))).unwrap();
    }
}

/// Copies all of it, in as many calls as it takes; gives how many bytes.
fn copy(from: &File, mut at: u64, to: &File, mut to_at: u64, len: u64) -> u64 {
    let begin = at;
    while at - begin < len {
        let left = usize::try_from(len - (at - begin)).unwrap();
        if copy_file_range(from, Some(&mut at), to, Some(&mut to_at), left).unwrap() == 0 {
            break;
        }
    }
    at - begin
}

/// Of all iods: bytes that they copied, and that they were sent or sent.
fn moved(cluster: &TestCluster) -> (u64, u64) {
    let (mut copied, mut passed) = (0, 0);
    for iod in cluster.iods() {
        let counters = cluster.counters(iod);
        let count = |dir: &str| counters.get(&format!("pvfs_iod_bytes_total{{dir=\"{dir}\"}}")).copied();
        copied += count("copied").unwrap();
        passed += count("read").unwrap() + count("written").unwrap();
    }
    (copied, passed)
}

#[test]
fn a_copy_that_lines_up_sends_no_byte_through_the_client() {
    const LEN: u64 = 40 * MIB;
    let Some((cluster, dir)) = mounted() else { return };
    for name in ["source", "to"] {
        make_on_first(&cluster, &dir, name);
    }
    let (data, source) = (bytes(LEN, 1), open(&dir.join("source")));
    source.write_all_at(&data, 0).unwrap();
    let to = open(&dir.join("to"));
    let before = moved(&cluster);
    assert_eq!(copy(&source, 0, &to, 0, LEN + 5), LEN, "up to the end");
    let after = moved(&cluster);
    assert_eq!((after.0 - before.0, after.1 - before.1), (LEN, 0));
    assert_eq!(to.metadata().unwrap().len(), LEN);
    assert!(fs::read(dir.join("to")).unwrap() == data);
    // A strip further, and the other target's.
    let before = moved(&cluster);
    assert_eq!(copy(&source, 0, &to, 64 << 10, LEN), LEN);
    assert_eq!(moved(&cluster).0, before.0, "by the client");
    let found = fs::read(dir.join("to")).unwrap();
    assert!(found[..64 << 10] == data[..64 << 10] && found[64 << 10..] == data);
}

#[test]
fn programs_copy_exactly_and_are_refused_what_linux_refuses() {
    const LEN: u64 = 11 * MIB + 4321;
    let Some((mut cluster, dir)) = mounted() else { return };
    let other = cluster.mount(&[]);
    let data = bytes(LEN, 1);
    let at = |name: &str| dir.join(name);
    fs::write(at("source"), &data).unwrap();
    let run = |program: &str, args: &[&str]| {
        let out = Command::new(program).args(args).current_dir(&dir).output().unwrap();
        assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    };
    run("cp", &["--reflink=auto", "source", "cp"]);
    // Data amid holes, and a hole at the end.
    let sparse = open(&at("sparse"));
    sparse.write_all_at(&data[..5000], 30 * MIB).unwrap();
    sparse.set_len(50 * MIB).unwrap();
    for sparse in ["auto", "always", "never"] {
        run("cp", &[&format!("--sparse={sparse}"), "sparse", sparse]);
        run("cmp", &["sparse", sparse]);
    }
    let script = "import os; i = os.open('source', os.O_RDONLY); o = os.open('python', os.O_RDWR | os.O_CREAT); n = 0\n\
                  while (k := os.copy_file_range(i, o, 1 << 40)): n += k\n\
                  assert n == os.fstat(i).st_size == os.fstat(o).st_size, n";
    run("python3", &["-c", script]);
    for name in ["cp", "python"] {
        assert!(fs::read(other.join(name)).unwrap() == data, "{name}, on another mount");
    }

    let (source, to) = (open(&at("source")), open(&at("to")));
    let call = |mut from: u64, mut at: u64, len: usize| {
        copy_file_range(&source, Some(&mut from), &source, Some(&mut at), len)
    };
    assert_eq!(call(0, 5, 6), Err(Errno::INVAL), "they overlap");
    assert_eq!(call(LEN, 0, 10), Ok(0), "behind the end there is nothing");
    assert_eq!(copy(&source, LEN - 7, &to, 3, 100), 7, "up to the end");
    assert!(fs::read(at("to")).unwrap()[3..] == data[data.len() - 7..]);
    let reader = File::open(at("to")).unwrap();
    assert_eq!(copy_file_range(&source, None, &reader, None, 10), Err(Errno::BADF));
    // Between mounts the kernel copies.
    let elsewhere = open(&other.join("elsewhere"));
    assert_eq!(copy(&source, 5, &elsewhere, 0, MIB), MIB);
    assert!(fs::read(at("elsewhere")).unwrap() == data[5..][..1 << 20]);
    assert!(fs::read(at("source")).unwrap() == data);
}

#[test]
#[ignore = "what other tests start as a process of its own"]
fn copier() {
    const LEN: u64 = 12 * MIB;
    let mut half = Half::new();
    let (dir, stop) = (half.path(), half.path());
    let (mut source, mut model) = (bytes(LEN, 1), bytes(LEN, 2));
    let (from, to) = (open(&dir.join("from")), open(&dir.join("to")));
    from.write_all_at(&source, 0).unwrap();
    to.write_all_at(&model, 0).unwrap();
    half.wait();
    let mut round = 0;
    while !stop.exists() || round < 10 {
        round += 1;
        // Of every third the strips do not line up.
        let skew = if round % 3 == 0 { 4096 } else { 0 };
        let (at, to_at) =
            (round * 77_777 % (4 * MIB), round * 77_777 % (4 * MIB) + 128 * 1024 * (round % 5) + skew);
        let len = 5 * MIB + round * 12_345 % MIB;
        let patch = bytes(100_000, round + 10);
        from.write_all_at(&patch, at + MIB).unwrap();
        let patched = usize::try_from(at + MIB).unwrap();
        source[patched..patched + patch.len()].copy_from_slice(&patch);
        to.write_all_at(&patch, to_at + 2 * MIB).unwrap();
        assert_eq!(copy(&from, at, &to, to_at, len), len, "round {round}");
        let [at, to_at, len] = [at, to_at, len].map(|n| usize::try_from(n).unwrap());
        model[to_at..to_at + len].copy_from_slice(&source[at..at + len]);
        to.write_all_at(&patch, 7).unwrap();
        model[7..7 + patch.len()].copy_from_slice(&patch);
        assert!(fs::read(dir.join("to")).unwrap() == model, "round {round}");
    }
}

#[test]
fn copies_are_exact_while_iods_the_mgr_and_the_worker_are_killed() {
    let Some((mut cluster, dir)) = mounted() else { return };
    for name in ["from", "to"] {
        make_on_first(&cluster, &dir, name);
    }
    let stop = cluster.dir().join("stop");
    let copier = Child::start("copier", &[&dir, &stop]);
    copier.wait_until_half();
    copier.go_on();
    for round in 0..8 {
        for daemon in ["iod0", "iod1", "mgr"] {
            let before = moved(&cluster).0;
            wait_until("copies go on", Duration::from_mins(1), || moved(&cluster).0 != before);
            cluster.kill9(daemon);
            cluster.restart(daemon);
        }
        if round % 2 == 0 {
            cluster.kill_worker("mount0");
        }
    }
    fs::write(&stop, "").unwrap();
    copier.end();
    cluster.fsck_finds_nothing();
}
