//! The daemons that a `pvfs up` runs, found among the processes of this machine.

use std::collections::HashMap;

/// Pid and name (`mgr`, `iod0`, `mount`) of each daemon below process `up`. Where a mount is served by a worker under a
/// keeper, it is the worker.
pub fn daemons(up: u32) -> Vec<(i32, String)> {
    let parents = parents();
    let children = |pid: i32| parents.iter().filter(move |(_, parent)| **parent == pid).map(|(pid, _)| *pid);
    let Ok(up) = i32::try_from(up) else { return Vec::new() };
    let named = children(up).filter_map(|pid| Some((pid, name(pid)?)));
    named.map(|(pid, name)| (children(pid).next().unwrap_or(pid), name)).collect()
}

/// The parent of each process.
fn parents() -> HashMap<i32, i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (comm) state ppid: comm may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// What the daemon's command line says it is.
fn name(pid: i32) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let args: Vec<&str> = line.split(|&byte| byte == 0).filter_map(|arg| str::from_utf8(arg).ok()).collect();
    match *args.get(1)? {
        "iod" => args.iter().skip_while(|arg| **arg != "--name").nth(1).map(|name| (*name).to_owned()),
        name @ ("mgr" | "mount") => Some(name.to_owned()),
        _ => None,
    }
}
