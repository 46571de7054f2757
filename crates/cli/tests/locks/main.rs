//! Locks between mounts, as programs ask for them: `fcntl`, open file descriptions, `flock`; and who is killed meanwhile.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

mod counting;
mod deaths;
mod maps;
mod sys;

use pvfs_testkit::{TestCluster, can_mount, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};
use sys::{Cmd, Kind, errno, lock, test_lock};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const LIMIT: Duration = Duration::from_mins(1);

fn open(path: impl AsRef<Path>) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// How many calls of all mounts of `cluster` wait for locks.
fn waiters(cluster: &TestCluster) -> usize {
    let calls = cluster.waiting_calls().into_iter();
    calls.filter(|call| call["waits_for"] == serde_json::json!(["lock"])).count()
}

#[track_caller]
fn until_waiting(cluster: &TestCluster, count: usize) {
    wait_until("they wait for the lock", LIMIT, || waiters(cluster) == count);
}

#[track_caller]
fn worker_of(cluster: &mut TestCluster, mount: &str) -> Pid {
    let mut found = 0;
    wait_until("there is a worker", LIMIT, || {
        found = cluster.process(mount).children().first().copied().unwrap_or(0);
        found != 0
    });
    Pid::from_raw(i32::try_from(found).unwrap()).unwrap()
}

fn kill9(pid: Pid) {
    kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn two_mounts_exclude_each_other_by_ranges_open_files_and_flock() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let (one, two) = (cluster.mount(&[]), cluster.mount(&[]));
    fs::write(one.join("f"), "text").unwrap();
    let (a, b) = (open(one.join("f")), open(two.join("f")));
    // Ranges of a process, which has an owner of its own on each mount.
    lock(&a, Cmd::Try, Kind::Write, 0, 10).unwrap();
    assert_eq!(errno(lock(&b, Cmd::Try, Kind::Read, 9, 1)), libc::EAGAIN);
    lock(&b, Cmd::Try, Kind::Write, 10, 0).unwrap();
    assert_eq!(test_lock(&b, Kind::Read, 0, 0), Some((Kind::Write, 0, 10, 0)), "of another mount: no pid");
    assert_eq!(test_lock(&a, Kind::Write, 5, 0).map(|found| found.1), Some(10));
    lock(&a, Cmd::Try, Kind::Read, 0, 5).unwrap();
    lock(&b, Cmd::Try, Kind::Read, 0, 5).unwrap();
    assert_eq!(errno(lock(&a, Cmd::Try, Kind::Write, 0, 5)), libc::EAGAIN);
    assert_eq!(errno(lock(&a, Cmd::Try, Kind::Write, i64::MAX, 2)), libc::EOVERFLOW, "the kernel's word");
    // Any close of the file by the process ends them.
    drop(open(two.join("f")));
    lock(&a, Cmd::Try, Kind::Write, 0, 0).unwrap();
    lock(&a, Cmd::Try, Kind::Unlock, 0, 0).unwrap();
    // Of an open file: until its last descriptor is closed.
    let ofd = open(one.join("f"));
    lock(&ofd, Cmd::TryOpenFile, Kind::Write, 2, 2).unwrap();
    let copy = ofd.try_clone().unwrap();
    drop(ofd);
    assert_eq!(errno(lock(&b, Cmd::TryOpenFile, Kind::Read, 0, 0)), libc::EAGAIN);
    assert_eq!(
        errno(lock(&open(one.join("f")), Cmd::TryOpenFile, Kind::Read, 3, 1)),
        libc::EAGAIN,
        "same mount"
    );
    drop(copy);
    wait_until("the last close frees it", LIMIT, || lock(&b, Cmd::TryOpenFile, Kind::Write, 0, 0).is_ok());
    lock(&b, Cmd::TryOpenFile, Kind::Unlock, 0, 0).unwrap();
    // flock: apart from those.
    lock(&b, Cmd::Try, Kind::Write, 0, 0).unwrap();
    a.try_lock().unwrap();
    assert!(b.try_lock_shared().is_err());
    a.unlock().unwrap();
    b.lock_shared().unwrap();
    assert!(a.try_lock().is_err());
    drop(b);
    wait_until("the last close frees it", LIMIT, || a.try_lock().is_ok());
    cluster.fsck_finds_nothing();
}

#[test]
fn what_is_written_under_a_lock_is_read_under_the_next_one_on_another_mount() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let files: Vec<File> = (0..2)
        .map(|n| {
            let mount = cluster.mount(&[]);
            if n == 0 {
                fs::write(mount.join("f"), vec![0; 8192]).unwrap();
            }
            open(mount.join("f"))
        })
        .collect();
    for round in 0..200_u64 {
        let file = &files[usize::try_from(round % 2).unwrap()];
        lock(file, Cmd::Wait, Kind::Write, 0, 0).unwrap();
        let len = file.metadata().unwrap().len();
        assert_eq!(len, 8192 + round, "the size");
        assert_eq!(sys::read_u64(file, 4096), round, "the bytes");
        sys::write_u64(file, 4096, round + 1);
        file.set_len(len + 1).unwrap();
        lock(file, Cmd::Wait, Kind::Unlock, 0, 0).unwrap();
    }
}

#[test]
fn waiters_of_two_mounts_are_woken_in_the_order_of_coming_by_the_unlock() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let mounts = [cluster.mount(&[]), cluster.mount(&[])];
    fs::write(mounts[0].join("f"), "text").unwrap();
    let holder = open(mounts[0].join("f"));
    lock(&holder, Cmd::TryOpenFile, Kind::Write, 0, 0).unwrap();
    let (tell, order) = mpsc::channel();
    let threads: Vec<_> = (0..6)
        .map(|n| {
            let (file, tell) = (open(mounts[n % 2].join("f")), tell.clone());
            let thread = std::thread::spawn(move || {
                lock(&file, Cmd::WaitOpenFile, Kind::Write, 0, 10).unwrap();
                tell.send(n).unwrap();
                lock(&file, Cmd::WaitOpenFile, Kind::Unlock, 0, 0).unwrap();
            });
            until_waiting(&cluster, n + 1);
            thread
        })
        .collect();
    let begin = Instant::now();
    lock(&holder, Cmd::TryOpenFile, Kind::Unlock, 0, 0).unwrap();
    let woken: Vec<usize> = (0..6).map(|_| order.recv_timeout(LIMIT).unwrap()).collect();
    println!("six waiters, one after the other: {:?}", begin.elapsed());
    assert_eq!(woken, [0, 1, 2, 3, 4, 5]);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_deadlock_over_two_mounts_is_refused() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let (one, two) = (cluster.mount(&[]), cluster.mount(&[]));
    fs::write(one.join("f"), "text").unwrap();
    let (a, b) = (open(one.join("f")), open(two.join("f")));
    lock(&a, Cmd::Wait, Kind::Write, 0, 1).unwrap();
    lock(&b, Cmd::Wait, Kind::Write, 1, 1).unwrap();
    let waiting = {
        let a = a.try_clone().unwrap();
        std::thread::spawn(move || lock(&a, Cmd::Wait, Kind::Write, 1, 1))
    };
    until_waiting(&cluster, 1);
    assert_eq!(errno(lock(&b, Cmd::Wait, Kind::Read, 0, 1)), libc::EDEADLK);
    lock(&b, Cmd::Wait, Kind::Unlock, 0, 0).unwrap();
    waiting.join().unwrap().unwrap();
}

#[test]
fn with_local_locks_a_mount_asks_nobody_and_excludes_only_its_own() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let (one, two) = (cluster.mount(&["-o", "locks=local"]), cluster.mount(&[]));
    fs::write(one.join("f"), "text").unwrap();
    let (a, b) = (open(one.join("f")), open(two.join("f")));
    lock(&b, Cmd::TryOpenFile, Kind::Write, 0, 0).unwrap();
    let before = cluster.client_requests("mgr").get("set_lock").copied();
    a.try_lock().unwrap();
    lock(&a, Cmd::TryOpenFile, Kind::Write, 0, 0).unwrap();
    let other = open(one.join("f"));
    assert!(other.try_lock().is_err());
    assert_eq!(errno(lock(&other, Cmd::TryOpenFile, Kind::Read, 0, 0)), libc::EAGAIN);
    assert_eq!(cluster.client_requests("mgr").get("set_lock").copied(), before);
}
