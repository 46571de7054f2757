//! Daemons killed under a copy through a real mount: a pause, never an error, never a wrong byte.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{Child, Half, TestCluster, can_mount, requests_received, wait_until};
use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const LIMIT: Duration = Duration::from_mins(1);
const CHUNK: usize = 1 << 20;

/// `len` bytes that repeat nowhere near.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

/// Kills `name` when `child` is at half, lets it run against the dead daemon, starts that again, and waits for a good
/// end.
#[track_caller]
fn bounce(child: Child, cluster: &mut TestCluster, name: &str) {
    child.wait_until_half();
    cluster.kill9(name);
    child.go_on();
    wait_until("the daemon is seen to be down", LIMIT, || !cluster.status().at(cluster.addr(name)).up);
    cluster.restart(name);
    child.end();
}

#[test]
#[ignore = "what other tests start as a process of its own"]
fn copier() {
    let mut half = Half::new();
    let (from, to) = (half.path(), half.path());
    copy(&from, &to, &mut || half.wait()).expect("no error reaches the application");
}

#[test]
#[ignore = "what other tests start as a process of its own"]
fn maker_of_many_files() {
    let mut half = Half::new();
    let dir = half.path();
    fs::create_dir(&dir).unwrap();
    for number in 0..200 {
        if number == 100 {
            half.wait();
        }
        let name = dir.join(format!("new-{number}"));
        fs::write(&name, bytes(1000 + number, number as u64)).unwrap();
        fs::rename(&name, dir.join(number.to_string())).unwrap();
    }
}

#[test]
#[ignore = "what other tests start as a process of its own"]
fn writer_of_an_open_file() {
    let mut half = Half::new();
    let data = bytes(8 * CHUNK, 3);
    let mut file = fs::File::create(half.path()).unwrap();
    file.write_all(&data[..CHUNK]).unwrap();
    half.wait();
    file.write_all(&data[CHUNK..]).unwrap(); // asks no mgr
    half.wait();
    file.sync_all().unwrap();
}

/// Copies a file as `cp` does, 1 MiB a call, and calls `half` in the middle.
fn copy(from: &Path, to: &Path, half: &mut dyn FnMut()) -> std::io::Result<()> {
    let (mut from, mut to) = (fs::File::open(from)?, fs::File::create(to)?);
    let chunks = from.metadata()?.len() / CHUNK as u64;
    let mut buffer = vec![0; CHUNK];
    for number in 0.. {
        if number == chunks / 2 {
            half();
        }
        match from.read(&mut buffer)? {
            0 => break,
            len => to.write_all(&buffer[..len])?,
        }
    }
    to.sync_all()
}

fn mounted(iods: u16) -> Option<(TestCluster, PathBuf)> {
    if !can_mount() {
        return None;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(iods).start();
    let mount = cluster.mount(&[]);
    Some((cluster, mount))
}

#[test]
fn a_copy_in_goes_on_when_an_iod_is_killed_and_started_again() {
    let Some((mut cluster, mount)) = mounted(4) else { return };
    let (source, target) = (cluster.dir().join("source"), mount.join("copy"));
    fs::write(&source, bytes(48 * CHUNK + 12345, 1)).unwrap();
    bounce(Child::start("copier", &[&source, &target]), &mut cluster, "iod1");
    assert!(fs::read(&source).unwrap() == fs::read(&target).unwrap(), "other bytes");
    // Not only what the kernel still holds.
    let back = cluster.dir().join("back");
    cluster.run_ok("get", ["/copy", back.to_str().unwrap()]);
    assert!(fs::read(&source).unwrap() == fs::read(&back).unwrap(), "other bytes on the targets");
    cluster.fsck_finds_nothing();
}

#[test]
fn a_copy_out_goes_on_when_an_iod_is_killed_and_started_again() {
    let Some((mut cluster, mount)) = mounted(4) else { return };
    let (source, target) = (cluster.dir().join("source"), cluster.dir().join("back"));
    fs::write(&source, bytes(48 * CHUNK + 12345, 2)).unwrap();
    cluster.run_ok("put", [source.to_str().unwrap(), "/f"]); // not through the mount: its kernel has none of it
    bounce(Child::start("copier", &[&mount.join("f"), &target]), &mut cluster, "iod2");
    assert!(fs::read(&source).unwrap() == fs::read(&target).unwrap(), "other bytes");
    cluster.fsck_finds_nothing();
}

#[test]
fn a_copy_of_many_files_goes_on_when_the_mgr_is_killed_and_started_again() {
    let Some((mut cluster, mount)) = mounted(2) else { return };
    let dir = mount.join("many");
    bounce(Child::start("maker_of_many_files", &[&dir]), &mut cluster, "mgr");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 200, "none is missing, none is left over");
    for number in 0..200 {
        let read = fs::read(dir.join(number.to_string())).unwrap();
        assert!(read == bytes(1000 + number, number as u64), "file {number} differs");
    }
    cluster.fsck_finds_nothing();
}

#[test]
fn an_open_file_is_written_on_while_the_mgr_is_dead_and_closed_when_it_is_back() {
    let Some((mut cluster, mount)) = mounted(2) else { return };
    let (name, data) = (mount.join("f"), bytes(8 * CHUNK, 3));
    let child = Child::start("writer_of_an_open_file", &[&name]);
    child.wait_until_half();
    cluster.kill9("mgr");
    child.go_on();
    child.wait_until_half(); // all is written, and no mgr there
    child.go_on();
    cluster.restart("mgr");
    child.end();
    assert!(fs::read(mount.join("f")).unwrap() == data, "other bytes");
    cluster.fsck_finds_nothing();
}

#[test]
fn names_work_while_an_iod_is_down_and_nothing_is_left_behind() {
    let Some((mut cluster, mount)) = mounted(2) else { return };
    fs::write(mount.join("old"), bytes(3 * CHUNK, 4)).unwrap();
    fs::write(mount.join("doomed"), bytes(3 * CHUNK, 5)).unwrap();
    cluster.kill9("iod0");
    let work = {
        let mount = mount.clone();
        std::thread::spawn(move || -> std::io::Result<()> {
            fs::create_dir(mount.join("dir"))?;
            fs::File::create(mount.join("dir/new"))?;
            drop(fs::File::open(mount.join("old"))?);
            assert_eq!(fs::metadata(mount.join("old"))?.len(), 3 * CHUNK as u64);
            assert_eq!(fs::read_dir(&mount)?.count(), 3);
            fs::remove_file(mount.join("doomed"))?;
            fs::rename(mount.join("dir/new"), mount.join("new"))
        })
    };
    wait_until("all that is done while the iod is down", LIMIT, || work.is_finished());
    work.join().unwrap().unwrap();
    assert!(!cluster.status().at(cluster.addr("iod0")).up, "it was down all the time");

    // What the mgr knows to be down, new files avoid.
    wait_until("the mgr knows", LIMIT, || {
        let status = cluster.status();
        let targets = status.json["targets"].as_array().cloned().unwrap_or_default();
        targets.iter().filter(|target| target["up"] == true).count() == 1
    });
    let data = bytes(2 * CHUNK, 6);
    let (name, written) = (mount.join("while-down"), data.clone());
    let work = std::thread::spawn(move || fs::write(name, written));
    wait_until("a new file is written", LIMIT, || work.is_finished());
    work.join().unwrap().unwrap();
    assert!(fs::read(mount.join("while-down")).unwrap() == data);

    cluster.restart("iod0");
    assert!(fs::read(mount.join("old")).unwrap() == bytes(3 * CHUNK, 4), "the old file is whole");
    wait_until("the removed file's objects go", LIMIT, || {
        requests_received(&cluster.counters("iod0"), "mgr").contains_key("remove_objects")
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn every_daemon_killed_in_turn_under_one_copy_costs_only_time() {
    let Some((mut cluster, mount)) = mounted(3) else { return };
    let (source, target) = (cluster.dir().join("source"), mount.join("copy"));
    fs::write(&source, bytes(32 * CHUNK + 1, 7)).unwrap();
    for round in ["iod0", "mgr", "iod2", "iod1", "mgr"] {
        bounce(Child::start("copier", &[&source, &target]), &mut cluster, round);
        assert!(fs::read(&source).unwrap() == fs::read(&target).unwrap(), "other bytes after {round}");
    }
    cluster.fsck_finds_nothing();
}

#[test]
fn an_unmount_loses_nothing() {
    let Some((mut cluster, mount)) = mounted(2) else { return };
    let data = bytes(5 * CHUNK + 7, 8);
    fs::write(mount.join("f"), &data).unwrap();
    cluster.unmount(&mount);
    let back = cluster.dir().join("back");
    cluster.run_ok("get", ["/f", back.to_str().unwrap()]);
    assert!(fs::read(&back).unwrap() == data);
}
