//! How much memory the daemons of a cluster take: when it has just been started, and at most while something runs.
//!
//! Counted is memory of their own: a mount's with what it shares with iods, which count theirs without it. Files that are
//! mapped, as the mgr maps its store, are not counted: the kernel drops their pages when it needs them.

use crate::{cluster::Cluster, run};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::mpsc::{self, RecvTimeoutError},
    thread::JoinHandle,
    time::Duration,
};

const PERIOD: Duration = Duration::from_millis(100);

/// KiB by role: of the one that takes most.
type Sizes = BTreeMap<&'static str, u64>;

/// Looks at the daemons now and then.
pub struct Watch {
    at_start: Sizes,
    stop: mpsc::Sender<()>,
    watching: JoinHandle<Sizes>,
}

impl Watch {
    pub fn start(cluster: &Cluster) -> Result<Watch, String> {
        let mut status = cluster.command(cluster.pvfs());
        let said: Value = serde_json::from_str(&run::output(status.args(["status", "--json"]))?)
            .map_err(|e| format!("pvfs status: {e}"))?;
        let pid = |of: &Value| of["pid"].as_u64().ok_or("pvfs status tells no pid".to_owned());
        let mut daemons = Vec::new();
        for daemon in said["daemons"].as_array().into_iter().flatten() {
            daemons.push((if daemon["role"] == "mgr" { "mgr" } else { "iod" }, pid(daemon)?));
        }
        for mount in said["mounts"].as_array().into_iter().flatten() {
            daemons.push(("mount", pid(mount)?));
        }
        let mut at_start = Sizes::new();
        look(&daemons, &mut at_start);
        let (stop, stopped) = mpsc::channel();
        let watching = std::thread::spawn(move || {
            let mut most = Sizes::new();
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                look(&daemons, &mut most);
            }
            most
        });
        Ok(Watch { at_start, stop, watching })
    }

    /// MiB at the start and at most, by role.
    pub fn stop(self) -> Value {
        drop(self.stop);
        let most = self.watching.join().unwrap_or_default();
        let mib = |sizes: &Sizes, role| sizes.get(role).map(|&kib| kib.div_ceil(1024));
        ["mgr", "iod", "mount"]
            .map(|role| json!({ "role": role, "mib_at_start": mib(&self.at_start, role), "mib_most": mib(&most, role) }))
            .into()
    }
}

/// Raises `sizes` to what the daemons take now.
fn look(daemons: &[(&'static str, u64)], sizes: &mut Sizes) {
    for &(role, pid) in daemons {
        let kib = kib_of(pid, role == "mount");
        let known = sizes.entry(role).or_default();
        *known = kib.max(*known);
    }
}

/// 0 of a process that is gone.
fn kib_of(pid: u64, with_shared: bool) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
    };
    of("RssAnon:") + if with_shared { of("RssShmem:") } else { 0 }
}

/// For the page.
pub fn table(report: &Value) -> Result<String, String> {
    let mut text = String::from("| MiB of memory | at the start | at most |\n|---|---:|---:|\n");
    for row in report["memory"].as_array().into_iter().flatten() {
        let role = row["role"].as_str().ok_or("no role")?;
        let line = format!("| {role} | {} | {} |\n", row["mib_at_start"], row["mib_most"]);
        text.push_str(&line);
    }
    Ok(text)
}
