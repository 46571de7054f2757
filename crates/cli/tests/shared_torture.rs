//! `pvfs torture --shared`: mounts with coherent caches are one file system, also while everything dies.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{Ports, TestCluster, can_mount, is_mounted, unmount_lazily};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const COHERENT: &[&str] = &["-o", "cache=coherent"];

/// Runs it over `mounts`, and gives the report of a run that has passed.
#[track_caller]
fn passes(mut command: Command, mounts: &[PathBuf]) -> Value {
    let out = command.arg("--json").arg("--shared").args(mounts).output().unwrap();
    let report: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", text(&out)));
    let faults = report["faults"].as_array().cloned().unwrap_or_default();
    for fault in &faults {
        eprintln!("{} {}: {}", fault["part"], fault["kind"], fault["text"].as_str().unwrap_or_default());
    }
    assert!(out.status.success() && report["passed"] == true, "{} faults", faults.len());
    report
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

#[track_caller]
fn did_all(report: &Value) {
    let parts = report["parts"].as_array().unwrap();
    assert!(!parts.is_empty());
    for part in parts {
        assert!(part["steps"].as_u64().unwrap() > 10, "{part}");
    }
}

/// `--skip` of what [semantics](../../../docs/semantics.md) does not promise.
const NOT_PROMISED: &[&str] = &["--skip", "room"];

fn agree(mounts: usize) {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(3).start();
    let mounts: Vec<PathBuf> = (0..mounts).map(|_| cluster.mount(COHERENT)).collect();
    let args = [&["--secs", "6", "--seed", "11"], NOT_PROMISED].concat();
    let report = passes(cluster.command("torture", args), &mounts);
    did_all(&report);
    assert!(mounts.iter().all(|mount| fs::read_dir(mount).unwrap().count() == 0), "nothing is left behind");
    cluster.fsck_finds_nothing();
}

#[test]
fn programs_and_models_find_two_mounts_to_be_one_file_system() {
    agree(2);
}

#[test]
fn programs_and_models_find_three_mounts_to_be_one_file_system() {
    agree(3);
}

/// A cluster of `pvfs up`, whose daemons the command finds by itself, and more mounts of it.
struct Up {
    ports: Ports,
    dir: tempfile::TempDir,
    mounts: Vec<PathBuf>,
}

impl Up {
    #[track_caller]
    fn start(mounts: usize) -> Up {
        let dir = tempfile::Builder::new().prefix("pvfs-shared-").tempdir().unwrap();
        let mounts = (0..mounts).map(|number| dir.path().join(format!("mnt{number}"))).collect();
        let up = Up { ports: Ports::hold(6), dir, mounts };
        let (data, port) = (up.data(), up.ports.first.to_string());
        up.ok(&[
            "up",
            "--detach",
            "--no-mount",
            "--iods",
            "3",
            "--dir",
            data.to_str().unwrap(),
            "--port",
            &port,
        ]);
        for mount in &up.mounts {
            fs::create_dir(mount).unwrap();
            up.ok(&[&["mount", "/", mount.to_str().unwrap()], COHERENT].concat());
        }
        up
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PVFS);
        command.env("XDG_RUNTIME_DIR", self.dir.path().join("run")).env_remove("PVFS_CLUSTER").args(args);
        command
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) {
        let out = self.command(args).output().unwrap();
        assert!(out.status.success(), "pvfs {args:?}: {}", text(&out));
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let end = |args: &[&str], path: &Path| self.command(args).arg(path).output();
        for mount in &self.mounts {
            let _ = end(&["umount"], mount);
            if is_mounted(mount) {
                unmount_lazily(mount);
            }
        }
        let _ = end(&["down", "--dir"], &self.data());
    }
}

#[test]
fn two_mounts_stay_one_file_system_while_mgr_iods_and_both_workers_are_killed() {
    if !can_mount() {
        return;
    }
    let up = Up::start(2);
    let args = ["torture", "--secs", "12", "--seed", "12", "--kill", "mgr,iod,mount", "--every", "0.6"];
    let report = passes(up.command(&[&args, NOT_PROMISED].concat()), &up.mounts);
    did_all(&report);
    let kills = report["kills"].as_array().unwrap();
    let names: Vec<&str> = kills.iter().filter_map(|kill| kill["name"].as_str()).collect();
    assert_eq!(names, ["iod0", "iod1", "iod2", "mgr", "mount0", "mount1"], "all were killed");
    up.ok(&["fsck"]);
}

#[test]
fn directories_that_are_not_one_and_parts_that_are_none_are_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = |args: &[&str]| {
        let out = Command::new(PVFS).args([&["torture"], args].concat()).output().unwrap();
        (out.status.code(), text(&out))
    };
    let dirs = [one.path().to_str().unwrap(), two.path().to_str().unwrap()];
    let (code, told) = run(&["--shared", dirs[0], dirs[1]]);
    assert!(code == Some(1) && told.contains("name the same directory through several mounts"), "{told}");
    assert!(fs::read_dir(one.path()).unwrap().next().is_none());
    let (code, told) = run(&["--only", "nonsense", "--shared", dirs[0], dirs[1]]);
    assert!(code == Some(2) && told.contains("there is fcntl, flock, append"), "{told}");
    let (code, told) = run(&["--only", "names", "--skip", "names", "--shared", dirs[0], dirs[0]]);
    assert!(code == Some(1) && told.contains("leaves nothing"), "{told}");
    assert_eq!(run(&["--shared", dirs[0]]).0, Some(2), "one mount has nobody to agree with");
}
