//! Nothing may be left behind: no process that a test started, no mount, no temporary file.

use crate::run::{self, MARK, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// Where temporary files of a run go, so that what stays of them is seen.
pub fn temp_dir() -> PathBuf {
    std::env::temp_dir().join(run::mark())
}

/// Makes the run's directory for temporary files.
pub fn prepare() -> Outcome {
    std::fs::create_dir_all(temp_dir()).map_err(|e| format!("{}: {e}", temp_dir().display()))
}

/// Finds what is left, removes it, and fails if there was anything.
pub fn check_and_clean() -> Outcome {
    let mut found = Vec::new();
    for mount in mounts() {
        found.push(format!("mount {}", mount.display()));
        let _ = run::run(run::command("umount --lazy").arg(&mount));
    }
    let mut pids = marked_processes();
    if !pids.is_empty() {
        // Give the orderly ones the time to end that an exit takes.
        std::thread::sleep(Duration::from_secs(1));
        pids = marked_processes();
    }
    for (pid, line) in pids {
        found.push(format!("process {}: {line}", pid.as_raw_nonzero()));
        let _ = kill_process(pid, Signal::KILL);
    }
    for entry in std::fs::read_dir(temp_dir()).into_iter().flatten().flatten() {
        found.push(format!("file {}", entry.path().display()));
    }
    let _ = std::fs::remove_dir_all(temp_dir());
    if found.is_empty() {
        Ok(())
    } else {
        Err(format!("left behind, now removed:\n  {}", found.join("\n  ")))
    }
}

/// Processes that bear this run's mark, but for this one.
fn marked_processes() -> Vec<(Pid, String)> {
    let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter(|pid| pid.as_raw_nonzero().get().unsigned_abs() != std::process::id())
        .filter_map(marked)
        .collect()
}

/// The command line of a process that bears the mark. One that cannot be looked at within a second is passed over: the
/// kernel lets nobody see the environment of a process that is just starting from a mount that hangs.
fn marked(pid: Pid) -> Option<(Pid, String)> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let dir = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        let wanted = format!("{MARK}={}", run::mark());
        let environ = std::fs::read(dir.join("environ")).unwrap_or_default();
        let is_marked = environ.split(|byte| *byte == 0).any(|var| var == wanted.as_bytes());
        let line = std::fs::read(dir.join("cmdline")).unwrap_or_default();
        let _ = send.send(is_marked.then(|| String::from_utf8_lossy(&line).replace('\0', " ")));
    });
    Some((pid, receive.recv_timeout(Duration::from_secs(1)).ok()??))
}

/// Mount points below the run's temporary directory. Last made first.
fn mounts() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    let mut ours: Vec<PathBuf> =
        points.map(Path::new).filter(|point| point.starts_with(temp_dir())).map(Path::to_path_buf).collect();
    ours.reverse();
    ours
}
