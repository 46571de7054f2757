//! Daemons among each other: what must not be is refused by name, what is down is shown as such.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{TestCluster, wait_until};
use std::{
    fs,
    process::Output,
    time::{Duration, Instant},
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn a_second_daemon_on_one_directory_is_refused() {
    let cluster = TestCluster::start(PVFS);
    let target = cluster.data_dir().join("iod0");
    let out = cluster.run("iod", ["--listen", "127.0.0.1:0", "--target", target.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("used by another process"), "{}", stderr(&out));
    let out = cluster.run("mgr", ["--listen", "127.0.0.1:0"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("pvfs mgr: "), "{}", stderr(&out));
    assert!(cluster.status().daemons.iter().all(|daemon| daemon.up), "the first ones go on");
}

#[test]
fn a_port_in_use_is_said_with_what_to_do() {
    let mut cluster = TestCluster::start(PVFS);
    cluster.terminate("iod1");
    let addr = cluster.addr("iod0").to_owned();
    let out = cluster.run("iod", ["--name", "iod1", "--listen", &addr]);
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains(&format!("cannot listen on {addr}")), "{}", stderr(&out));
    assert!(stderr(&out).contains("choose another port"), "{}", stderr(&out));
}

#[test]
fn targets_that_are_missing_or_foreign_are_refused() {
    let mut cluster = TestCluster::start(PVFS);
    let other = TestCluster::builder(PVFS).iods(1).start();
    cluster.terminate("iod0");
    let serve = |target: &std::path::Path| {
        let out = cluster.run("iod", ["--listen", "127.0.0.1:0", "--target", target.to_str().unwrap()]);
        assert_eq!(out.status.code(), Some(1));
        stderr(&out)
    };
    assert!(serve(&cluster.dir().join("nowhere")).contains("is missing"));
    let empty = cluster.dir().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(serve(&empty).contains("holds no PVFS target"));
    drop(other.run("down", ["--dir", "/nonexistent"])); // touches nothing of either
    assert!(serve(&other.data_dir().join("iod0")).contains("belongs to the file system"));
}

#[test]
fn without_the_secret_nobody_gets_in() {
    let cluster = TestCluster::start(PVFS);
    let stolen = cluster.dir().join("stolen");
    fs::create_dir(&stolen).unwrap();
    fs::copy(cluster.cluster_toml(), stolen.join("cluster.toml")).unwrap();
    fs::write(stolen.join("cluster.key"), "ab".repeat(32)).unwrap();
    let file = stolen.join("cluster.toml");
    let run = |name: &str| {
        let out = std::process::Command::new(PVFS).args([name, "--cluster"]).arg(&file).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
        String::from_utf8_lossy(&out.stdout).into_owned() + &stderr(&out)
    };
    assert!(run("ls").contains("secret"), "says why");
    assert!(run("status").contains("DOWN"), "shows nothing");
}

#[test]
fn status_shows_a_killed_iod_within_about_a_second_and_exits_with_1() {
    let mut cluster = TestCluster::builder(PVFS).iods(3).start();
    assert!(cluster.run("status", ["--json"]).status.success());
    cluster.kill9("iod1");
    let begin = Instant::now();
    let out = cluster.run("status", std::iter::empty::<&str>());
    assert!(begin.elapsed() < Duration::from_secs(2), "took {:?}", begin.elapsed());
    assert_eq!(out.status.code(), Some(1));
    let shown = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = shown.lines().find(|line| line.contains(cluster.addr("iod1"))).expect("it is listed");
    assert!(line.contains("DOWN") && line.contains("refused"), "{line}");
    let status = cluster.status();
    assert!(!status.at(cluster.addr("iod1")).up && status.at(cluster.addr("iod0")).up);
    cluster.restart("iod1");
    wait_until("all is well again", Duration::from_secs(20), || {
        cluster.run("status", ["--json"]).status.success()
    });
}

#[test]
fn status_with_a_dead_mgr_still_shows_the_iods() {
    let mut cluster = TestCluster::start(PVFS);
    cluster.kill9("mgr");
    let out = cluster.run("status", std::iter::empty::<&str>());
    let shown = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(1));
    for (name, expect) in [("mgr", "DOWN"), ("iod0", "up"), ("iod1", "up")] {
        let line = shown.lines().find(|line| line.contains(cluster.addr(name))).expect("it is listed");
        assert!(line.contains(expect), "{line}");
    }
}

#[test]
fn every_daemon_says_its_counters_and_serves_them_as_prometheus_text() {
    use std::io::{Read, Write};
    let mut cluster = TestCluster::start(PVFS);
    assert!(cluster.counters("mgr").keys().any(|name| name.starts_with("pvfs_messages_total{")));
    assert!(cluster.counters("iod0").keys().any(|name| name.starts_with("pvfs_messages_total{")));
    // A mgr with --metrics, in place of the first.
    cluster.terminate("mgr");
    let ports = pvfs_testkit::Ports::hold(1);
    let args = ["--metrics".to_owned(), ports.addr(0)];
    let mut mgr = cluster.command("mgr", args).stdout(std::process::Stdio::null()).spawn().unwrap();
    let mut answer = String::new();
    wait_until("it serves /metrics, and the iods have found it", Duration::from_secs(20), || {
        let Ok(mut stream) = std::net::TcpStream::connect(ports.addr(0)) else { return false };
        answer.clear();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.contains("pvfs_messages_total{")
    });
    mgr.kill().unwrap();
    mgr.wait().unwrap();
    assert!(answer.starts_with("HTTP/1.") && answer.contains("200"), "{answer}");
    assert!(answer.contains("# TYPE pvfs_messages_total counter"), "{answer}");
}
