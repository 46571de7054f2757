//! Programs that wait for dead servers and are sent a signal: they die or get `EINTR`, where the signal asks for that; the mount goes on, and nothing is left
//! of what they began.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{TestCluster, can_mount, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const LIMIT: Duration = Duration::from_mins(1);
/// What a signal may take: 20 ms of the mount's grace, half a second in which the server may say that it is there, and what a
/// busy machine takes.
const SOON: Duration = Duration::from_secs(2);

fn start(program: &str, args: &[&str]) -> Child {
    Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn waits_in_mount(child: &Child) -> bool {
    let chan = fs::read_to_string(format!("/proc/{}/wchan", child.id())).unwrap_or_default();
    ["fuse", "request_wait", "folio"].iter().any(|name| chan.contains(name))
}

/// Sends `signal` to `child`, which waits in the mount, and expects its end.
#[track_caller]
fn ends_by(signal: Signal, mut child: Child) {
    let pid = Pid::from_child(&child);
    // In the call, not before it.
    wait_until("the program waits for the mount", LIMIT, || waits_in_mount(&child));
    let begin = Instant::now();
    kill_process(pid, signal).unwrap();
    wait_until("the program ends", SOON, || child.try_wait().unwrap().is_some());
    println!("{signal:?} ended the program after {:?}", begin.elapsed());
    assert!(!child.wait().unwrap().success());
}

/// As the timer of a progress bar sends it. (The shell opens the file itself, and does not try again.)
#[test]
fn a_signal_that_a_program_catches_fails_no_call_that_waits_for_a_server() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let mount = cluster.mount(&[]);
    let (new, other) = (mount.join("new"), mount.join("dir/other"));
    // Of its own: a directory is locked in the kernel while something is made in it.
    fs::create_dir(mount.join("dir")).unwrap();
    cluster.stop("mgr");
    let mut caught = start("sh", &["-c", "trap : USR1; : > \"$0\"", new.to_str().unwrap()]);
    wait_until("the shell waits for the mount", LIMIT, || waits_in_mount(&caught));
    kill_process(Pid::from_child(&caught), Signal::USR1).unwrap();
    // Sent a signal later, and over earlier.
    ends_by(Signal::KILL, start("mkdir", &[other.to_str().unwrap()]));
    assert!(waits_in_mount(&caught), "it waits on");
    cluster.signal("mgr", Signal::CONT);
    assert!(caught.wait().unwrap().success());
    assert_eq!(fs::metadata(&new).unwrap().len(), 0);
    cluster.unmount(&mount);
}

#[test]
fn a_signal_ends_a_wait_for_the_mgr_also_while_the_mounts_worker_is_a_new_one() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let mount = cluster.mount(&[]);
    fs::write(mount.join("there"), "text").unwrap();
    // (Nothing of the mount is open here: the programs that this process starts would close it, and wait for that.)
    cluster.kill9("mgr");
    let worker = cluster.process("mount0").children()[0];
    kill_process(Pid::from_raw(i32::try_from(worker).unwrap()).unwrap(), Signal::KILL).unwrap();
    for signal in [Signal::INT, Signal::KILL] {
        ends_by(signal, start("mkdir", &[mount.join("new").to_str().unwrap()]));
    }
    cluster.restart("mgr");
    wait_until("the mount works", LIMIT, || fs::create_dir(mount.join("other")).is_ok());
    assert_eq!(fs::read(mount.join("there")).unwrap(), b"text");
    cluster.unmount(&mount);
    cluster.fsck_finds_nothing();
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[track_caller]
fn read_back(file: &Path, len: usize) {
    assert_eq!(fs::read(file).unwrap().len(), len);
}

#[test]
fn programs_that_wait_for_dead_servers_end_by_a_signal_and_leave_nothing() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let mount = cluster.mount(&[]);
    let (there, new) = (mount.join("there"), mount.join("new"));
    fs::write(&there, vec![7; 4 << 20]).unwrap();
    let worker = cluster.process("mount0").children()[0];
    let before = descriptors(worker);
    let output = format!("of={}", new.display());

    for signal in [Signal::INT, Signal::KILL] {
        for stop in [true, false] {
            // The kernel has none of it.
            let name = format!("cold-{signal:?}-{stop}");
            cluster.run_ok("put", [there.to_str().unwrap(), &format!("/{name}")]);
            let cold = mount.join(name);
            let input = format!("if={}", cold.display());
            for iod in ["iod0", "iod1"] {
                if stop { cluster.stop(iod) } else { cluster.kill9(iod) }
            }
            ends_by(signal, start("dd", &["if=/dev/zero", &output, "bs=1M", "count=4"]));
            ends_by(signal, start("dd", &[&input, "of=/dev/null", "bs=1M", "iflag=direct"]));
            ends_by(signal, start("cat", &[cold.to_str().unwrap()]));
            for iod in ["iod0", "iod1"] {
                if stop { cluster.signal(iod, Signal::CONT) } else { cluster.restart(iod) }
            }
            read_back(&there, 4 << 20);
        }
        cluster.stop("mgr");
        ends_by(signal, start("mkdir", &[mount.join(format!("{signal:?}")).to_str().unwrap()]));
        ends_by(signal, start("stat", &[mount.join("nowhere").to_str().unwrap()]));
        cluster.signal("mgr", Signal::CONT);
        // The change that was under way is done, once, or was never sent.
        wait_until("the mount works", LIMIT, || fs::metadata(&there).is_ok());
    }
    fs::write(&new, vec![9; 1 << 20]).unwrap();
    read_back(&new, 1 << 20);
    wait_until("the daemon holds no more than before", LIMIT, || descriptors(worker) <= before);
    // Not lazily: whatever was open is closed.
    cluster.unmount(&mount);
    let out = cluster.run_ok("get", ["/new", cluster.dir().join("back").to_str().unwrap()]);
    assert!(out.len() < 1000);
    read_back(&cluster.dir().join("back"), 1 << 20);
    cluster.fsck_finds_nothing();
}
