//! `pvfs mount -o remount,…`, by name and as mount(8) calls it.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{TestCluster, can_mount};
use std::{fs, io::ErrorKind, path::Path, process::Command};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");

/// The flags that the kernel shows for the mount on `dir`.
fn flags(dir: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_it = |line: &&str| line.split(' ').nth(4) == dir.to_str();
    mounts.lines().rfind(is_it).unwrap().split(' ').nth(5).unwrap().to_owned()
}

#[test]
fn a_remount_changes_the_flags_it_names_and_no_others() {
    if !can_mount() || !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root remounts");
        return;
    }
    let mut cluster = TestCluster::start(PVFS);
    let dir = cluster.mount(&["-o", "nosuid"]);
    let remount = |options: &str| cluster.run("mount", ["-o", options, dir.to_str().unwrap()]);
    fs::write(dir.join("before"), b"x").unwrap();

    assert!(remount("remount,ro").status.success());
    assert_eq!(fs::write(dir.join("after"), b"x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::read(dir.join("before")).unwrap(), b"x");
    assert!(flags(&dir).contains("nosuid"), "{}", flags(&dir));

    assert!(remount("remount,rw,noatime").status.success());
    assert!(flags(&dir).contains("noatime") && flags(&dir).contains("nosuid"), "{}", flags(&dir));
    let writing = fs::File::create(dir.join("after")).unwrap();
    let busy = remount("remount,ro");
    assert!(!busy.status.success(), "somebody writes");
    drop(writing);

    let daemons = remount("remount,soft");
    assert!(String::from_utf8_lossy(&daemons.stderr).contains("a remount changes only"), "{daemons:?}");

    // As libmount calls the link in /sbin, with what it has read of the mount.
    let link = cluster.dir().join("mount.fuse.pvfs");
    std::os::unix::fs::symlink(PVFS, &link).unwrap();
    let args = ["-o", "ro,nosuid,noatime,remount,user_id=0,group_id=0,default_permissions,allow_other"];
    let mut called = Command::new(&link);
    called.args(["pvfs://h:1/".as_ref(), dir.as_os_str()]).args(args).args(["-t", "fuse.pvfs"]);
    assert!(called.status().unwrap().success());
    assert!(flags(&dir).starts_with("ro,"), "{}", flags(&dir));
}
