//! The life of `pvfs up`: first use, second use, growth, deaths, refusals, end.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{Ports, Status, can_mount, is_mounted, unmount_lazily, wait_until};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const LIMIT: Duration = Duration::from_secs(20);

/// A place for one cluster of `up`, with room for ports. Dropped, it takes everything down.
struct Place {
    ports: Ports,
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        Place { ports: Ports::hold(6), dir: tempfile::Builder::new().prefix("pvfs-up-").tempdir().unwrap() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PVFS);
        command.env("XDG_RUNTIME_DIR", self.dir.path().join("run")).env_remove("PVFS_CLUSTER").args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "pvfs {args:?}: {}{}", text(&out.stdout), text(&out.stderr));
        text(&out.stdout)
    }

    /// `pvfs up --detach` with the place's directory and ports.
    fn up(&self, more: &[&str]) -> Output {
        let (data, port) = (self.data().display().to_string(), self.ports.first.to_string());
        self.run(&[&["up", "--detach", "--dir", &data, "--port", &port], more].concat())
    }

    #[track_caller]
    fn up_ok(&self, more: &[&str]) -> String {
        let out = self.up(more);
        assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
        text(&out.stdout)
    }

    /// The whole text of an `up` that fails.
    #[track_caller]
    fn up_fails(&self, more: &[&str]) -> String {
        let out = self.up(more);
        assert_eq!(out.status.code(), Some(1), "{}", text(&out.stdout));
        text(&out.stdout) + &text(&out.stderr)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn status(&self) -> Status {
        Status::parse(&text(&self.run(&["status", "--json"]).stdout))
    }

    fn pid_of(&self, place: u16) -> Option<u64> {
        let (status, addr) = (self.status(), self.ports.addr(place));
        let daemon = status.json["daemons"].as_array().unwrap().iter().find(|daemon| daemon["addr"] == addr);
        daemon.and_then(|daemon| daemon["pid"].as_u64())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.run(&["down", "--dir", self.data().to_str().unwrap()]);
        let mount = self.dir.path().join("mnt");
        if is_mounted(&mount) {
            unmount_lazily(&mount);
        }
        if std::thread::panicking() {
            for log in fs::read_dir(self.data().join("log")).into_iter().flatten().flatten() {
                eprintln!(
                    "--- {}\n{}",
                    log.path().display(),
                    fs::read_to_string(log.path()).unwrap_or_default()
                );
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn kill9(pid: u64) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn up_formats_starts_and_tells_within_3_s_and_a_second_up_finds_the_data() {
    let place = Place::new();
    let begin = Instant::now();
    let table = place.up_ok(&["--no-mount"]);
    assert!(begin.elapsed() < Duration::from_secs(3), "took {:?}", begin.elapsed());
    for part in
        ["Formatted", "mgr", "iod0", "iod3", "Capacity", "Try next", "pvfs status", &place.ports.addr(4)]
    {
        assert!(table.contains(part), "no {part:?} in:\n{table}");
    }
    let file = place.dir.path().join("f");
    fs::write(&file, "kept").unwrap();
    place.ok(&["put", file.to_str().unwrap(), "/f"]);
    assert!(place.ok(&["down"]).contains("has stopped"));
    assert!(!place.run(&["status"]).status.success(), "nothing answers");

    let table = place.up_ok(&["--no-mount"]);
    assert!(!table.contains("Formatted"), "{table}");
    assert_eq!(place.ok(&["cat", "/f"]), "kept");
}

#[test]
fn a_daemon_that_dies_is_told_of_and_started_again() {
    let place = Place::new();
    place.up_ok(&["--no-mount", "--iods", "2"]);
    for (at, name) in [(0, "mgr"), (2, "iod1")] {
        let old = place.pid_of(at).expect("it is up");
        kill9(old);
        wait_until("it runs again", LIMIT, || place.pid_of(at).is_some_and(|pid| pid != old));
        let log = fs::read_to_string(place.data().join("log/up.log")).unwrap();
        assert!(
            log.contains(&format!("{name} was killed by signal 9 (SIGKILL); starting it again")),
            "{log}"
        );
        assert!(log.contains(&format!("log/{name}.log")), "{log}");
    }
    wait_until("all is up", LIMIT, || place.run(&["status"]).status.success());
}

#[test]
fn nothing_outlives_an_up_that_is_killed_and_the_next_one_starts_at_once() {
    let place = Place::new();
    place.up_ok(&["--no-mount", "--iods", "2"]);
    let pid = fs::read_to_string(place.data().join("up.lock")).unwrap().trim().parse().unwrap();
    kill9(pid);
    place.up_ok(&["--no-mount"]);
    wait_until("all is up", LIMIT, || place.run(&["status"]).status.success());
}

#[test]
fn more_iods_are_added_and_fewer_refused() {
    let place = Place::new();
    place.up_ok(&["--no-mount", "--iods", "2"]);
    place.ok(&["down"]);
    assert!(place.up_fails(&["--no-mount", "--iods", "1"]).contains("formatted with 2 iods, not 1"));
    let table = place.up_ok(&["--no-mount", "--iods", "3"]);
    assert!(table.contains("Added 1 target") && table.contains("iod2"), "{table}");
    let file = place.dir.path().join("f");
    fs::write(&file, "wide").unwrap();
    place.ok(&["put", "--pcount", "3", file.to_str().unwrap(), "/f"]);
    assert_eq!(place.ok(&["cat", "/f"]), "wide");
}

#[test]
fn a_second_up_on_one_directory_and_a_port_in_use_are_refused_with_what_to_do() {
    let place = Place::new();
    place.up_ok(&["--no-mount", "--iods", "1"]);
    let refused = place.up_fails(&["--no-mount"]);
    assert!(refused.contains("runs already from") && refused.contains("pvfs down --dir"), "{refused}");

    let other = Place::new();
    let _taken = std::net::TcpListener::bind(other.ports.addr(1)).unwrap();
    let refused = other.up_fails(&["--no-mount", "--iods", "1"]);
    assert!(refused.contains(&format!("iod0 cannot listen on {}", other.ports.addr(1))), "{refused}");
    assert!(refused.contains("--port N"), "{refused}");
}

#[test]
fn a_mount_point_that_cannot_be_is_refused_before_anything_starts() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    let dir = place.dir.path().display().to_string();
    assert!(place.up_fails(&[&format!("{dir}/no/mnt")]).contains("does not exist: make it first"));
    assert!(place.up_fails(&[&dir]).contains("not empty"));
    assert!(!place.run(&["status"]).status.success(), "nothing runs");
}

#[test]
fn up_mounts_and_down_unmounts_and_nothing_is_lost() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    let mount = place.dir.path().join("mnt");
    let at = mount.display().to_string();
    let table = place.up_ok(&["--iods", "2", &at]);
    assert!(table.contains("Made the mount point") && is_mounted(&mount), "{table}");
    fs::write(mount.join("f"), "through the mount").unwrap();
    place.ok(&["down"]);
    assert!(!is_mounted(&mount));
    assert_eq!(fs::read_dir(&mount).unwrap().count(), 0);
    place.up_ok(&[&at]);
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"through the mount");
    assert_eq!(place.ok(&["cat", "/f"]), "through the mount");
}

#[test]
fn up_detached_goes_on_when_nobody_reads_what_it_prints() {
    let place = Place::new();
    let (data, port) = (place.data().display().to_string(), place.ports.first.to_string());
    let mut up = place.command(&["up", "--detach", "--no-mount", "--dir", &data, "--port", &port]);
    let mut up = up.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(up.stdout.take());
    assert!(up.wait().unwrap().success());
    assert!(place.run(&["status"]).status.success(), "all daemons are up");
}
