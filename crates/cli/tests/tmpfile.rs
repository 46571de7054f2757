//! Files without a name (`O_TMPFILE`) on a mount: they get one by a link, or go, whoever dies meanwhile.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{Child, Half, TestCluster, can_mount};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, MetadataExt as _},
    },
    path::Path,
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const BYTES: usize = 3 << 20;

fn nameless(dir: &Path, more: OFlags) -> File {
    File::from(rustix::fs::open(dir, OFlags::TMPFILE | OFlags::RDWR | more, Mode::from(0o666)).unwrap())
}

fn link(file: &File, to: &Path) -> io::Result<()> {
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, from, CWD, to, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from)
}

fn fill(file: &File, byte: u8) {
    file.write_all_at(&vec![byte; BYTES], 0).unwrap();
}

fn holds(file: &File, byte: u8) -> bool {
    let mut back = vec![!byte; BYTES];
    file.read_exact_at(&mut back, 0).unwrap();
    back.iter().all(|&found| found == byte)
}

#[test]
fn a_file_without_a_name_gets_one_by_a_link_or_goes() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::start(PVFS);
    let (dir, other) = (cluster.mount(&[]), cluster.mount(&[]));
    fs::create_dir(dir.join("d")).unwrap();
    let before = fs::metadata(dir.join("d")).unwrap();
    let (named, lost) =
        (nameless(&dir.join("d"), OFlags::empty()), nameless(&dir.join("d"), OFlags::empty()));
    let sealed = nameless(&dir.join("d"), OFlags::EXCL);
    for file in [&named, &lost, &sealed] {
        fill(file, 7);
        let told = file.metadata().unwrap();
        assert_eq!((told.nlink(), told.len(), told.mode() & 0o7000), (0, BYTES as u64, 0));
        assert!(told.is_file() && told.uid() == rustix::process::geteuid().as_raw());
    }
    assert_eq!(fs::read_dir(dir.join("d")).unwrap().count(), 0);
    let after = fs::metadata(dir.join("d")).unwrap();
    assert_eq!((after.mtime_nsec(), after.nlink()), (before.mtime_nsec(), before.nlink()));

    assert_eq!(link(&sealed, &dir.join("sealed")).unwrap_err().raw_os_error(), Some(2), "ENOENT");
    fs::write(dir.join("taken"), "").unwrap();
    assert_eq!(link(&named, &dir.join("taken")).unwrap_err().raw_os_error(), Some(17), "EEXIST");
    link(&named, &dir.join("d/f")).unwrap();
    assert_eq!((named.metadata().unwrap().nlink(), fs::metadata(other.join("d/f")).unwrap().nlink()), (1, 1));
    assert!(holds(&File::open(other.join("d/f")).unwrap(), 7), "seen by everybody");
    assert_eq!(fs::read_dir(other.join("d")).unwrap().count(), 1);
    fs::remove_file(dir.join("d/f")).unwrap();
    assert_eq!(link(&named, &dir.join("again")).unwrap_err().raw_os_error(), Some(2), "it had its name");
    assert!(holds(&named, 7) && holds(&lost, 7), "while they are open");
    drop((named, lost, sealed));
    cluster.wait_objects(0);
    cluster.fsck_finds_nothing();
}

#[test]
#[ignore = "what other tests start as a process of its own"]
fn holder_of_nameless_files() {
    let mut half = Half::new();
    let dir = half.path();
    let (named, lost) = (nameless(&dir, OFlags::empty()), nameless(&dir, OFlags::empty()));
    fill(&named, 1);
    fill(&lost, 2);
    half.wait();
    assert!(holds(&named, 1) && holds(&lost, 2), "after the kills");
    fill(&named, 3);
    link(&named, &dir.join("f")).unwrap();
    half.wait();
    assert!(holds(&named, 3) && holds(&lost, 2), "after more kills");
    assert_eq!((named.metadata().unwrap().nlink(), lost.metadata().unwrap().nlink()), (1, 0));
}

#[test]
fn files_without_a_name_outlive_kills_of_worker_mgr_and_iods_and_leave_nothing() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::start(PVFS);
    let dir = cluster.mount(&[]);
    let holder = Child::start("holder_of_nameless_files", &[&dir]);
    for _ in 0..2 {
        holder.wait_until_half();
        cluster.kill_worker("mount0");
        for daemon in ["mgr", "iod0"] {
            cluster.kill9(daemon);
            cluster.restart(daemon);
        }
        holder.go_on();
    }
    holder.end();
    assert_eq!(fs::read(dir.join("f")).unwrap(), vec![3; BYTES]);
    fs::remove_file(dir.join("f")).unwrap();
    cluster.wait_objects(0);
    cluster.fsck_finds_nothing();
}

#[test]
fn files_without_a_name_of_a_mount_that_was_killed_go_with_its_lease() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).mgr_args(&["--lease-seconds=1"]).start();
    let dir = cluster.mount(&[]);
    let holder = Child::start("holder_of_nameless_files", &[&dir]);
    holder.wait_until_half();
    assert!(cluster.count_objects() > 0);
    cluster.kill9("mount0");
    cluster.run_ok("umount", ["--lazy".as_ref(), dir.as_path()]);
    drop(holder);
    cluster.wait_objects(0);
    cluster.fsck_finds_nothing();
}
