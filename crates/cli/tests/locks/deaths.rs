//! Who waits for a lock and is sent a signal, and what becomes of locks when the mgr, a mount's worker or a whole client dies.

use crate::{
    LIMIT, PVFS, kill9, open,
    sys::{Cmd, Kind, errno, interrupt_after, lock, read_u64, test_lock, write_u64},
    until_waiting, waiters, worker_of,
};
use pvfs_testkit::{Child, Half, TestCluster, can_mount, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What a signal may take: 20 ms of the mount's grace, and what a busy machine takes.
const SOON: Duration = Duration::from_secs(2);

/// Locks the file, says so, and holds it until it is told to end; then closes it without unlocking.
#[test]
#[ignore = "what other tests start as a process of its own"]
fn worker_that_holds() {
    let mut half = Half::new();
    let file = open(half.path());
    lock(&file, Cmd::Wait, Kind::Write, 0, 10).unwrap();
    file.lock().unwrap();
    half.wait();
}

/// Waits for a lock that others hold, and is interrupted; then keeps the file open until it is told to end.
#[test]
#[ignore = "what other tests start as a process of its own"]
fn worker_that_is_interrupted() {
    let mut half = Half::new();
    let file = open(half.path());
    for open_file in [false, true] {
        let begin = Instant::now();
        interrupt_after(300);
        let cmd = if open_file { Cmd::WaitOpenFile } else { Cmd::Wait };
        assert_eq!(errno(lock(&file, cmd, Kind::Write, 0, 10)), libc::EINTR);
        let late = begin.elapsed().saturating_sub(Duration::from_millis(300));
        println!("EINTR came after {late:?}");
        assert!(late < SOON, "{late:?}");
    }
    half.wait();
}

#[test]
fn a_wait_for_a_lock_ends_by_a_signal_and_leaves_no_lock_also_while_the_mgr_is_dead() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let (one, two) = (cluster.mount(&[]), cluster.mount(&[]));
    fs::write(one.join("f"), "text").unwrap();
    for mgr_dies in [false, true] {
        for signal in [Signal::INT, Signal::KILL] {
            let holder = Child::start("deaths::worker_that_holds", &[&one.join("f")]);
            holder.wait_until_half();
            let mut flock = Command::new("flock");
            let mut waiter =
                flock.arg("-x").arg(two.join("f")).arg("true").stderr(Stdio::null()).spawn().unwrap();
            until_waiting(&cluster, 1);
            if mgr_dies {
                cluster.kill9("mgr");
            }
            let begin = Instant::now();
            kill_process(Pid::from_child(&waiter), signal).unwrap();
            wait_until("the program ends", SOON, || waiter.try_wait().unwrap().is_some());
            println!("{signal:?} ended the wait after {:?}", begin.elapsed());
            if mgr_dies {
                cluster.restart("mgr");
            }
            holder.go_on();
            holder.end();
            // Neither the dead one nor the one that ended has it.
            let mut next = Command::new("flock");
            let next = next.args(["-w", "30", "-x"]).arg(one.join("f")).arg("true").status().unwrap();
            assert!(next.success(), "{next}");
            assert_eq!(waiters(&cluster), 0);
        }
    }
    cluster.fsck_finds_nothing();
}

#[test]
fn who_got_eintr_does_not_hold_the_lock_afterwards() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let (one, two) = (cluster.mount(&[]), cluster.mount(&[]));
    fs::write(one.join("f"), "text").unwrap();
    let holder = Child::start("deaths::worker_that_holds", &[&one.join("f")]);
    holder.wait_until_half();
    let interrupted = Child::start("deaths::worker_that_is_interrupted", &[&two.join("f")]);
    interrupted.wait_until_half();
    holder.go_on();
    holder.end();
    // It still has the file open.
    let file = open(one.join("f"));
    wait_until("nobody has it", LIMIT, || test_lock(&file, Kind::Write, 0, 0).is_none());
    interrupted.go_on();
    interrupted.end();
}

#[test]
fn locks_and_waits_go_on_when_the_worker_of_their_mount_is_killed_and_end_with_their_programs() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let (one, two) = (cluster.mount(&[]), cluster.mount(&[]));
    fs::write(one.join("f"), "text").unwrap();
    let holder = Child::start("deaths::worker_that_holds", &[&one.join("f")]);
    holder.wait_until_half();
    let waiter = Child::start("deaths::worker_that_holds", &[&two.join("f")]);
    until_waiting(&cluster, 1);
    for mount in ["mount0", "mount1"] {
        kill9(worker_of(&mut cluster, mount));
    }
    // The wait came again, to the next worker.
    until_waiting(&cluster, 1);
    let file = open(one.join("f"));
    assert_eq!(errno(lock(&file, Cmd::TryOpenFile, Kind::Read, 0, 0)), libc::EAGAIN, "its lock stands");
    // It closes without unlocking, and its worker is not the one that it locked by.
    holder.go_on();
    holder.end();
    waiter.wait_until_half();
    assert_eq!(errno(lock(&file, Cmd::TryOpenFile, Kind::Read, 0, 0)), libc::EAGAIN);
    waiter.go_on();
    waiter.end();
    wait_until("all is free", LIMIT, || {
        test_lock(&file, Kind::Write, 0, 0).is_none() && file.try_lock().is_ok()
    });
    drop(file);
    cluster.unmount(&one);
    cluster.unmount(&two);
    cluster.fsck_finds_nothing();
}

#[test]
fn a_killed_clients_lock_comes_to_who_waits_when_its_lease_is_over() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).mgr_args(&["--lease-seconds=2"]).start();
    let (one, two) = (cluster.mount(&[]), cluster.mount(&[]));
    fs::write(one.join("f"), "text").unwrap();
    let holder = Child::start("deaths::worker_that_holds", &[&one.join("f")]);
    holder.wait_until_half();
    let waiter = Child::start("deaths::worker_that_holds", &[&two.join("f")]);
    until_waiting(&cluster, 1);
    let (begin, worker) = (Instant::now(), worker_of(&mut cluster, "mount0"));
    cluster.kill9("mount0");
    let _ = kill_process(worker, Signal::KILL);
    waiter.wait_until_half();
    println!("the lock came {:?} after its holder's client was killed", begin.elapsed());
    assert!(begin.elapsed() >= Duration::from_secs(1), "its lease was good until then");
    waiter.go_on();
    waiter.end();
    drop(holder);
}

#[test]
fn a_mount_that_slept_past_its_lease_does_not_go_on_as_if_it_held_its_locks() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).mgr_args(&["--lease-seconds=1"]).start();
    let (one, two) = (cluster.mount(&[]), cluster.mount(&[]));
    fs::write(one.join("f"), 7_u64.to_le_bytes()).unwrap();
    let (slept, never_locked, other) = (open(one.join("f")), open(one.join("f")), open(two.join("f")));
    lock(&slept, Cmd::TryOpenFile, Kind::Write, 0, 0).unwrap();
    let worker = worker_of(&mut cluster, "mount0");
    kill_process(worker, Signal::STOP).unwrap();
    lock(&other, Cmd::WaitOpenFile, Kind::Write, 0, 0).unwrap();
    write_u64(&other, 0, 8);
    kill_process(worker, Signal::CONT).unwrap();
    wait_until("the mount has found out", LIMIT, || {
        let log = fs::read_to_string(log_of(cluster.dir(), "mount0")).unwrap_or_default();
        log.contains("locks are lost with the session")
    });
    write_u64(&never_locked, 16, 1);
    let write = |file| std::os::unix::fs::FileExt::write_all_at(file, &[9; 8], 0);
    assert_eq!(errno(write(&slept)), libc::EIO);
    assert_eq!(read_u64(&other, 0), 8, "what was done under the lock stands");
    lock(&other, Cmd::TryOpenFile, Kind::Unlock, 0, 0).unwrap();
    lock(&slept, Cmd::WaitOpenFile, Kind::Write, 0, 0).unwrap();
    write(&slept).expect("told once");
}

fn log_of(dir: &Path, name: &str) -> std::path::PathBuf {
    dir.join("log").join(format!("{name}.log"))
}
