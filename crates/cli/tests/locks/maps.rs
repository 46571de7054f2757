//! Files that programs on several mounts map, and change in memory under locks.

use super::PVFS;
use pvfs_testkit::{TestCluster, can_mount};
use std::{fs, path::Path, process::Command};

/// No safe Rust maps a file that others change.
const PYTHON: &str = "/usr/bin/python3";

/// Counts in a number of its own, and in one that all share, each under a lock of its own: all in one page.
const COUNT: &str = r"
import fcntl, mmap, os, struct, sys
path, mine, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
file = os.open(path, os.O_RDWR)
memory = mmap.mmap(file, 8192)
def add(at, lock):
    fcntl.lockf(file, fcntl.LOCK_EX, 1, 1000 + lock)
    number, = struct.unpack_from('<I', memory, at)
    struct.pack_into('<I', memory, at, number + 1)
    if lock == 0:
        # What comes after counts only up to what the first number says.
        struct.pack_into('<I', memory, 4096 + 4 * number, mine)
    fcntl.lockf(file, fcntl.LOCK_UN, 1, 1000 + lock)
def look():
    # As SQLite: what is the same before and after locking something was whole before.
    while True:
        before, = struct.unpack_from('<I', memory, 0)
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 2000 + mine)
        count, = struct.unpack_from('<I', memory, 0)
        last, = struct.unpack_from('<I', memory, 4096 + 4 * (count - 1))
        fcntl.lockf(file, fcntl.LOCK_UN, 1, 2000 + mine)
        if before == count:
            assert last > 0, 'seen before what comes after it'
            return
for _ in range(rounds):
    add(0, 0)
    add(100 + 4 * mine, 1 + mine)
    look()
";

#[test]
fn what_several_mounts_change_in_one_page_under_locks_is_all_there() {
    const ROUNDS: u32 = 40;
    if !can_mount() {
        return;
    }
    if !Path::new(PYTHON).exists() {
        return eprintln!("no {PYTHON} here");
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let mounts = [cluster.mount(&[]), cluster.mount(&[])];
    fs::write(mounts[0].join("f"), vec![0; 8192]).unwrap();
    let programs: Vec<_> = (1..=4u32)
        .map(|mine| {
            let path = mounts[mine as usize % 2].join("f");
            let (mine, rounds) = (mine.to_string(), ROUNDS.to_string());
            Command::new(PYTHON).args(["-c", COUNT]).arg(path).args([mine, rounds]).spawn().unwrap()
        })
        .collect();
    for mut program in programs {
        assert!(program.wait().unwrap().success());
    }
    for mount in &mounts {
        let bytes = fs::read(mount.join("f")).unwrap();
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(number(0), 4 * ROUNDS);
        assert_eq!((1..=4).map(|mine| number(100 + 4 * mine)).collect::<Vec<_>>(), [ROUNDS; 4]);
        let of = |mine| (0..4 * ROUNDS as usize).filter(|at| number(4096 + 4 * at) == mine).count();
        assert_eq!((1..=4).map(of).collect::<Vec<_>>(), [ROUNDS as usize; 4]);
    }
}
