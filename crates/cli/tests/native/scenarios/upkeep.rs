//! What administrators do to a running file system: restarts in turn, more iods, other addresses, unmounts while daemons are
//! away. Programs see pauses, and what cannot be is said.

use super::native::{LIMIT, PVFS, bytes};
use pvfs_testkit::{Child, Half, Ports, TestCluster, can_mount, is_mounted, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// A daemon beside those of the cluster; killed at the end.
struct Daemon(std::process::Child);

impl Daemon {
    fn start(mut command: Command) -> Daemon {
        Daemon(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn restarts_of_all_daemons_in_turn_cost_programs_only_time_ended_in_order_or_killed() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(3).start();
    let mount = cluster.mount(&[]);
    let mut torture = cluster.command("torture", ["--secs", "0", "--workers", "3", "--seed", "7"]);
    let report = fs::File::create(cluster.dir().join("report")).unwrap();
    let mut load = torture.arg(&mount).stdout(report).stderr(Stdio::null()).spawn().unwrap();
    let written = |cluster: &TestCluster| {
        ["iod0", "iod1", "iod2"]
            .iter()
            .filter_map(|iod| cluster.counters(iod).get("pvfs_iod_ops_total{op=\"write\"}").copied())
            .sum::<u64>()
    };
    for in_order in [true, false, true] {
        for daemon in ["mgr", "iod0", "iod1", "iod2"] {
            if in_order {
                cluster.terminate(daemon);
            } else {
                cluster.kill9(daemon);
            }
            cluster.restart(daemon);
            let before = written(&cluster);
            wait_until("the programs go on", LIMIT, || written(&cluster) > before + 20);
        }
    }
    kill_process(Pid::from_child(&load), Signal::INT).unwrap();
    let ended = load.wait().unwrap();
    let report = fs::read_to_string(cluster.dir().join("report")).unwrap();
    assert!(ended.success(), "{report}");
    cluster.wait_targets_up();
    cluster.unmount(&mount);
    cluster.fsck_finds_nothing();
}

#[test]
fn an_iod_that_joins_a_running_file_system_is_used_by_new_files_and_changes_no_old_one() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let mount = cluster.mount(&[]);
    let (before, after) = (bytes(2 << 20, 1), bytes(3 << 20, 2));
    fs::write(mount.join("before"), &before).unwrap();
    let layout = |path: &str| cluster.run_ok("stat", [path]);
    let old = layout("/before");

    let (target, ports) = (cluster.dir().join("more"), Ports::hold(1));
    cluster.run_ok(
        "format",
        ["--target", target.to_str().unwrap(), "--cluster", cluster.cluster_toml().to_str().unwrap()],
    );
    let addr = ports.addr(0);
    let _iod =
        Daemon::start(cluster.command("iod", ["--listen", &addr, "--target", target.to_str().unwrap()]));
    wait_until("it has joined", LIMIT, || {
        let status = cluster.status();
        let targets = status.json["targets"].as_array().cloned().unwrap_or_default();
        targets.iter().filter(|target| target["up"] == true).count() == 3
    });
    fs::write(mount.join("after"), &after).unwrap();
    assert_eq!(layout("/before"), old, "it lies where it lay");
    let new = layout("/after");
    assert!(new.contains("t3") && !old.contains("t3"), "{old}{new}");
    fs::OpenOptions::new().append(true).open(mount.join("before")).unwrap().write_all(&after).unwrap();
    for (path, expect) in [("/before", [&before[..], &after].concat()), ("/after", after)] {
        let back = cluster.dir().join("back");
        cluster.run_ok("get", [path, back.to_str().unwrap()]);
        assert!(fs::read(&back).unwrap() == expect, "{path}");
    }
    cluster.fsck_finds_nothing();
    cluster.unmount(&mount);
}

#[test]
fn iods_that_swap_their_addresses_and_their_order_keep_their_targets() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let mount = cluster.mount(&["-o", "soft,timeo=30"]);
    let data = bytes(4 << 20, 3);
    fs::write(mount.join("f"), &data).unwrap();
    let addrs = [cluster.addr("iod0").to_owned(), cluster.addr("iod1").to_owned()];
    // The list in cluster.toml too.
    let text = fs::read_to_string(cluster.cluster_toml()).unwrap();
    let (head, iods) = text.split_once("[[local.iod]]").unwrap();
    let (first, second) = iods.split_once("[[local.iod]]").unwrap();
    fs::write(cluster.cluster_toml(), format!("{head}[[local.iod]]{second}\n[[local.iod]]{first}")).unwrap();
    for iod in ["iod0", "iod1"] {
        cluster.kill9(iod);
    }
    let swapped: Vec<Daemon> = [("iod0", &addrs[1]), ("iod1", &addrs[0])]
        .into_iter()
        .map(|(iod, addr)| Daemon::start(cluster.command("iod", ["--name", iod, "--listen", addr])))
        .collect();
    let cold = cluster.dir().join("cold");
    // Through who knew the old addresses, and through a new client.
    let more = bytes(1 << 20, 4);
    let file = fs::OpenOptions::new().append(true).open(mount.join("f"));
    file.unwrap().write_all(&more).unwrap();
    cluster.run_ok("get", ["/f", cold.to_str().unwrap()]);
    let expect = [&data[..], &more].concat();
    assert!(fs::read(&cold).unwrap() == expect);
    let other = cluster.mount(&[]);
    assert!(fs::read(other.join("f")).unwrap() == expect);
    cluster.wait_targets_up();
    cluster.fsck_finds_nothing();
    cluster.unmount(&other);
    cluster.unmount(&mount);
    drop(swapped);
}

#[test]
#[ignore = "what other tests start as a process of its own"]
fn writer_that_waits() {
    let mut half = Half::new();
    let mut file = fs::File::create(half.path()).unwrap();
    file.write_all(&vec![1; 100_000]).unwrap();
    half.wait();
    file.write_all(&vec![2; 100_000]).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn an_unmount_while_daemons_are_away_ends_or_says_who_holds_it() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let (busy, idle) = (cluster.mount(&[]), cluster.mount(&[]));
    fs::write(idle.join("g"), bytes(1 << 20, 5)).unwrap();
    let child = Child::start("scenarios::upkeep::writer_that_waits", &[&busy.join("f")]);
    child.wait_until_half();
    cluster.kill9("iod0");
    child.go_on();
    // It waits in its write, and nobody takes the mount away under it.
    let refused = cluster.run("umount", [&busy]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("is busy: used by native") && is_mounted(&busy),
        "{said}"
    );
    cluster.kill9("mgr");
    let begin = Instant::now();
    let out = cluster.run("umount", [&idle]);
    let said = String::from_utf8_lossy(&out.stderr);
    println!("after {:?}: {} {said}", begin.elapsed(), out.status);
    assert!(out.status.success() && !is_mounted(&idle), "{said}");
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    wait_until("its process ends", LIMIT, || !cluster.process("mount1").is_running());
    assert!(cluster.process("mount1").log_tail().contains("no mgr to say goodbye to"));

    let begin = Instant::now();
    cluster.run_ok("umount", ["--lazy".as_ref(), busy.as_path()]);
    assert!(!is_mounted(&busy) && begin.elapsed() < Duration::from_secs(10));
    cluster.restart("mgr");
    cluster.restart("iod0");
    child.end();
    wait_until("its process ends too", LIMIT, || !cluster.process("mount0").is_running());
    cluster.wait_targets_up();
    let told = cluster.run_ok("cat", ["/f"]).into_bytes();
    assert!(told == [vec![1; 100_000], vec![2; 100_000]].concat());
    let back = cluster.dir().join("back");
    cluster.run_ok("get", ["/g", back.to_str().unwrap()]);
    assert!(fs::read(&back).unwrap() == bytes(1 << 20, 5));
    cluster.fsck_finds_nothing();
}
