//! Programs on several mounts that raise one counter under a lock, and a database: all they do is there in the end.

use crate::{
    LIMIT, PVFS, kill9, open,
    sys::{Cmd, Kind, lock, read_u64, write_u64},
    worker_of,
};
use pvfs_testkit::{Child, Half, TestCluster, can_mount, wait_until};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Raises the counter until it is told to stop, by `fcntl` and by `flock` in turn, and leaves how often it did.
#[test]
#[ignore = "what other tests start as a process of its own"]
fn worker_that_counts() {
    let mut half = Half::new();
    let (file, stop, result) = (half.path(), half.path(), half.path());
    let by_fcntl = file.file_name().is_some_and(|name| name == "fcntl");
    let file = open(file);
    half.wait();
    let mut count = 0;
    while !stop.exists() {
        if by_fcntl {
            lock(&file, Cmd::Wait, Kind::Write, 0, 8).unwrap();
        } else {
            file.lock().unwrap();
        }
        write_u64(&file, 0, read_u64(&file, 0) + 1);
        count += 1;
        if by_fcntl {
            lock(&file, Cmd::Wait, Kind::Unlock, 0, 8).unwrap();
        } else {
            file.unlock().unwrap();
        }
        if count % 10 == 0 {
            fs::write(&result, count.to_string()).unwrap();
        }
    }
    fs::write(&result, count.to_string()).unwrap();
}

fn number(file: &Path) -> u64 {
    fs::read_to_string(file).unwrap_or_default().parse().unwrap_or(0)
}

#[test]
fn counters_under_locks_of_three_mounts_are_exact_while_everybody_is_killed() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let mounts: Vec<PathBuf> = (0..3).map(|_| cluster.mount(&[])).collect();
    for name in ["fcntl", "flock"] {
        fs::write(mounts[0].join(name), 0_u64.to_le_bytes()).unwrap();
    }
    let stop = cluster.dir().join("stop");
    let mut programs = Vec::new();
    for (n, mount) in mounts.iter().enumerate() {
        for name in ["fcntl", "flock"] {
            let result = cluster.dir().join(format!("{name}-{n}"));
            programs.push((
                Child::start("counting::worker_that_counts", &[&mount.join(name), &stop, &result]),
                name,
                result,
            ));
        }
    }
    for (child, ..) in &programs {
        child.wait_until_half();
        child.go_on();
    }
    let done = |programs: &[(Child, &str, PathBuf)]| -> u64 {
        programs.iter().map(|(_, _, result)| number(result)).sum()
    };
    for round in 0..12 {
        let before = done(&programs);
        match round % 4 {
            0 => {
                cluster.kill9("mgr");
                cluster.restart("mgr");
            }
            1 => kill9(worker_of(&mut cluster, "mount0")),
            2 => {
                cluster.kill9("iod0");
                cluster.restart("iod0");
            }
            _ => {
                kill9(worker_of(&mut cluster, "mount1"));
                cluster.kill9("mgr");
                cluster.restart("mgr");
            }
        }
        wait_until("the programs go on", LIMIT, || done(&programs) >= before + 20);
    }
    fs::write(&stop, "").unwrap();
    let results: Vec<_> = programs
        .into_iter()
        .map(|(child, name, result)| {
            child.end();
            (name, number(&result))
        })
        .collect();
    for name in ["fcntl", "flock"] {
        let expected: u64 = results.iter().filter(|(of, _)| *of == name).map(|(_, count)| count).sum();
        for mount in &mounts {
            let file = open(mount.join(name));
            lock(&file, Cmd::Wait, Kind::Read, 0, 0).unwrap();
            assert_eq!(read_u64(&file, 0), expected, "{name} on {}", mount.display());
        }
    }
    for mount in &mounts {
        cluster.unmount(mount);
    }
    cluster.fsck_finds_nothing();
}

#[test]
fn a_database_is_written_from_two_mounts_at_once_and_has_every_transaction() {
    a_database_has_every_transaction("delete", true);
}

/// The index of the log is memory that all who use it map.
#[test]
fn a_database_with_a_write_ahead_log_is_written_from_two_mounts_at_once_and_has_every_transaction() {
    a_database_has_every_transaction("wal", false);
}

fn a_database_has_every_transaction(journal: &str, kills: bool) {
    const TRANSACTIONS: usize = 20;
    if !can_mount() {
        return;
    }
    if Command::new("sqlite3").arg("--version").output().is_err() {
        return eprintln!("no sqlite3 here");
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let mounts = [cluster.mount(&[]), cluster.mount(&[])];
    let sql = |mount: &Path, text: &str| {
        let mut command = Command::new("sqlite3");
        command.args(["-bail", "-cmd", ".timeout 60000"]).arg(mount.join("db")).arg(text);
        command
    };
    let make = format!("pragma journal_mode = {journal}; create table t (who, n);");
    let made = sql(&mounts[0], &make).output().unwrap();
    assert_eq!((made.status.success(), made.stdout), (true, format!("{journal}\n").into_bytes()));
    let inserts = |who: usize| -> String {
        let insert = |n| format!("begin immediate; insert into t values ({who}, {n}); commit;");
        (0..TRANSACTIONS).map(insert).collect()
    };
    let programs: Vec<_> = (0..4).map(|who| sql(&mounts[who % 2], &inserts(who)).spawn().unwrap()).collect();
    if kills {
        cluster.kill9("mgr");
        cluster.restart("mgr");
        kill9(worker_of(&mut cluster, "mount1"));
    }
    for mut program in programs {
        assert!(program.wait().unwrap().success());
    }
    for mount in &mounts {
        let text = "select count(*), count(distinct who || ' ' || n) from t; pragma integrity_check;";
        let out = sql(mount, text).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), format!("{0}|{0}\nok\n", 4 * TRANSACTIONS));
    }
}
