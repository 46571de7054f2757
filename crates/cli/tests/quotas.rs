//! Quotas through a real mount, by programs and the command line: met in the middle of a write, kept over kills.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_kv::{Durability, Engine as _, LmdbEngine, Overlay, WriteTxn as _};
use pvfs_meta::{
    keys,
    record::{QuotaUsage, Record},
};
use pvfs_testkit::{TestCluster, can_mount, wait_until};
use pvfs_types::QuotaOwner;
use serde_json::Value;
use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const LIMIT: Duration = Duration::from_mins(1);
/// A user that no file of the tests belongs to.
const ANN: u32 = 12_001;
const MAP_BYTES: usize = 1 << 30;

/// A cluster with a mount that every user can get at and write to. `None`: not here.
fn start() -> Option<(TestCluster, PathBuf)> {
    if !can_mount() || !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs a mount and root");
        return None;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    fs::set_permissions(cluster.dir(), Permissions::from_mode(0o755)).unwrap();
    let mount = cluster.mount(&[]);
    fs::set_permissions(&mount, Permissions::from_mode(0o1777)).unwrap();
    Some((cluster, mount))
}

fn as_ann(dir: &Path, script: &str) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-euc", script]).current_dir(dir).env("LC_ALL", "C");
    // (The standard library also drops the groups.)
    shell.uid(ANN).gid(ANN).output().unwrap()
}

#[track_caller]
fn may(dir: &Path, script: &str) {
    let output = as_ann(dir, script);
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `script` fails by the quota; gives what it said.
#[track_caller]
fn exceeds(dir: &Path, script: &str) -> String {
    let output = as_ann(dir, script);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && stderr.contains("Disk quota exceeded"), "{script}: {stderr}");
    stderr
}

/// What `pvfs quota show` tells of user ann.
#[track_caller]
fn ann(cluster: &TestCluster) -> Value {
    let text = cluster.run_ok("quota", ["show", "--user", &ANN.to_string(), "--json"]);
    let told: Value = serde_json::from_str(&text).unwrap();
    told["quotas"][0].clone()
}

#[track_caller]
fn limit_ann(cluster: &TestCluster, limits: &[&str]) {
    let uid = ANN.to_string();
    cluster.run_ok("quota", ["set", "--user", &uid].iter().chain(limits));
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[test]
fn a_quota_that_is_exceeded_in_the_middle_of_a_write_keeps_what_was_acknowledged_and_a_removal_makes_room() {
    let Some((mut cluster, mount)) = start() else { return };
    limit_ann(&cluster, &["--bytes", "10M", "--inodes", "5"]);
    let told = exceeds(&mount, "dd if=/dev/zero bs=3M of=big status=none");
    assert!(told.contains("error writing 'big'"), "{told}");
    // Whole requests of the kernel are taken, 1 MiB each: the last write was a short one.
    assert_eq!(size(&mount.join("big")), 10 << 20);
    assert!(fs::read(mount.join("big")).unwrap().iter().all(|&byte| byte == 0));
    assert_eq!(
        (ann(&cluster)["bytes"].as_u64(), ann(&cluster)["inodes"].as_u64()),
        (Some(10 << 20), Some(1))
    );
    exceeds(&mount, "dd if=/dev/zero bs=4 count=1 of=big oflag=append conv=notrunc status=none");
    exceeds(&mount, "truncate -s 11M big");
    let another = "dd if=/dev/zero bs=4 count=1 of=another status=none";
    exceeds(&mount, another);
    may(&mount, "dd if=/dev/urandom of=big bs=1M count=10 conv=notrunc status=none");

    cluster.kill9("mgr");
    cluster.restart("mgr");
    let after = ann(&cluster);
    assert_eq!((after["bytes"].as_u64(), after["inodes"].as_u64()), (Some(10 << 20), Some(2)), "{after}");
    exceeds(&mount, another);
    exceeds(&mount, "mkdir a b c d");

    may(&mount, "rm big");
    // Room comes as soon as every session has checked in.
    wait_until("there is room", LIMIT, || as_ann(&mount, another).status.success());
    may(&mount, "dd if=/dev/zero of=next bs=1M count=5 status=none; rm -r next another a b c");
    wait_until("all is given back", LIMIT, || {
        let quota = ann(&cluster);
        (quota["bytes"].as_u64(), quota["bytes_ahead"].as_u64(), quota["inodes"].as_u64())
            == (Some(0), Some(0), Some(0))
    });
    cluster.unmount(&mount);
    cluster.fsck_finds_nothing();
}

#[test]
fn a_tree_binds_root_too_shows_its_limit_in_df_and_lets_nothing_move_in_or_out() {
    let Some((mut cluster, mount)) = start() else { return };
    fs::create_dir_all(mount.join("projects/climate/run")).unwrap();
    fs::write(mount.join("projects/climate/run/in"), vec![1; 1 << 20]).unwrap();
    cluster.run_ok("quota", ["set", "--tree", "/projects/climate", "--bytes", "4M", "--inodes", "10"]);
    let table = cluster.run_ok("quota", ["show", "--tree", "/projects/climate"]);
    let words: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        words[..9],
        ["tree", "/projects/climate", "1.0", "MiB", "4.0", "MiB", "25%", "3", "10"],
        "{table}"
    );

    let climate = mount.join("projects/climate");
    let df = |what: &str| {
        let output = Command::new("df").args([what, "--output=size,avail"]).arg(&climate).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().nth(1).unwrap().to_owned();
        line.split_whitespace().map(|number| number.parse().unwrap()).collect::<Vec<u64>>()
    };
    assert_eq!(df("-B1"), [4 << 20, 3 << 20]);
    let inodes = Command::new("df").args(["--output=itotal,iavail"]).arg(&climate).output().unwrap();
    let inodes = String::from_utf8(inodes.stdout).unwrap();
    assert_eq!(inodes.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(), ["10", "7"]);

    let errno = |result: std::io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
    assert_eq!(errno(fs::write(climate.join("out"), vec![2; 4 << 20])), libc_edquot());
    fs::write(mount.join("beside"), "free").unwrap();
    let exdev = rustix::io::Errno::XDEV.raw_os_error();
    assert_eq!(errno(fs::rename(mount.join("beside"), climate.join("in"))), exdev);
    assert_eq!(errno(fs::rename(climate.join("run"), mount.join("run"))), exdev);
    assert_eq!(errno(fs::hard_link(climate.join("run/in"), mount.join("in"))), exdev);
    let moved = Command::new("mv").arg(climate.join("run")).arg(&mount).status().unwrap();
    assert!(moved.success() && size(&mount.join("run/in")) == 1 << 20, "mv copies");
    fs::rename(&climate, mount.join("weather")).unwrap();
    let listed = cluster.run_ok("quota", ["show"]);
    assert!(listed.lines().any(|line| line.contains("tree") && line.contains("/weather")), "{listed}");

    cluster.run_ok("quota", ["clear", "--tree", "/weather"]);
    fs::rename(mount.join("beside"), mount.join("weather/in")).unwrap();
    cluster.unmount(&mount);
    cluster.fsck_finds_nothing();
}

fn libc_edquot() -> i32 {
    rustix::io::Errno::DQUOT.raw_os_error()
}

#[test]
fn users_see_their_own_quota_and_set_none() {
    let Some((cluster, _)) = start() else { return };
    let shown = cluster.run_ok("quota", ["show"]);
    assert!(shown.contains("no limit was ever set"), "{shown}");
    limit_ann(&cluster, &["--bytes", "10M"]);
    fs::set_permissions(cluster.data_dir(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(cluster.cluster_toml(), Permissions::from_mode(0o644)).unwrap();
    let key = cluster.cluster_toml().with_file_name("cluster.key");
    fs::set_permissions(key, Permissions::from_mode(0o644)).unwrap();
    let by_ann = |args: &[&str]| {
        let output = cluster.command("quota", args).uid(ANN).gid(ANN).output().unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    };
    let (shown, text) = by_ann(&["show"]);
    assert!(shown && text.contains("12001") && text.contains("10 MiB") && !text.contains("root"), "{text}");
    for args in [
        &["set", "--user", "12001", "--bytes", "none"][..],
        &["clear", "--user", "12001"],
        &["show", "--user", "root"],
    ] {
        let (done, text) = by_ann(args);
        assert!(!done && text.contains("Operation not permitted"), "{args:?}: {text}");
    }
    for (args, why) in [
        (&["set", "--user", "root", "--bytes", "1G"][..], "root has no limits"),
        (&["set", "--user", "nobody-of-that-name", "--bytes", "1G"], "use the number"),
        (&["set", "--user", "12001"], "set --bytes, --inodes or both"),
        (&["set", "--bytes", "1G"], "Name one by --user, --group or --tree"),
        (&["set", "--user", "12001", "--bytes", "1Q"], "unknown unit"),
        (&["set", "--tree", "/nothing", "--bytes", "1G"], "No such file or directory"),
    ] {
        let output = cluster.run("quota", args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(why), "{args:?}: {stderr}");
    }
}

#[test]
fn fsck_finds_wrong_counts_and_mends_them() {
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let source = cluster.dir().join("source");
    fs::write(&source, vec![7; 1 << 20]).unwrap();
    cluster.run_ok("put", [source.to_str().unwrap(), "/f"]);
    limit_ann(&cluster, &["--inodes", "7"]);
    cluster.terminate("mgr");
    {
        let engine = LmdbEngine::open(&cluster.data_dir().join("mgr"), MAP_BYTES, Durability::Sync).unwrap();
        let snapshot = engine.snapshot().unwrap();
        let view: &dyn pvfs_kv::Read = &*snapshot;
        let mut txn = Overlay::new(view);
        let wrong = QuotaUsage { inodes: 7, bytes: 1 << 30, ahead: 0 };
        txn.put(&keys::quota_usage(QuotaOwner::User(ANN)), wrong.to_bytes());
        let changes = txn.into_set();
        drop(snapshot);
        engine.commit(&changes).unwrap();
    }
    cluster.restart("mgr");
    cluster.wait_targets_up();
    assert_eq!(ann(&cluster)["inodes"], 7);
    let found = cluster.run("fsck", ["--json"]);
    let text = String::from_utf8_lossy(&found.stdout);
    let is_found = text.contains("use of user 12001") && text.contains("counts 7 inodes");
    assert!(!found.status.success() && is_found, "{text}");
    cluster.run("fsck", ["--json", "--repair"]);
    cluster.fsck_finds_nothing();
    assert_eq!((ann(&cluster)["inodes"].as_u64(), ann(&cluster)["bytes"].as_u64()), (Some(0), Some(0)));
}
