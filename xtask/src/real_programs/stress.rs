//! Programs made to find faults, which verify what they do: stress-ng, dbench, fio.

use super::{Cluster, PROGRAM_WITHIN};
use crate::run::{self, Outcome};
use std::process::Stdio;

/// Those of stress-ng's file system class that have something to do here within seconds.
const STRESSORS: &[&str] = &[
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dup",
    "fallocate",
    "fcntl",
    "flock",
    "fpunch",
    "fstat",
    "getdent",
    "hdd",
    "io",
    "lease",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "open",
    "rename",
    "symlink",
    "touch",
    "utime",
];

/// They take away things that others on the machine use, or no file system.
const NOT_HERE: &str = "bind-mount,binderfs,eventfd,iomix,ioprio,procfs";

/// All at once, on two mounts.
pub fn stress_ng(c: &Cluster) -> Outcome {
    let stressed = |dir: std::path::PathBuf| {
        let mut command = c.command("stress-ng");
        for stressor in STRESSORS {
            command.args([&format!("--{stressor}"), "1"]);
        }
        command.args(["--timeout", "8", "--verify", "--quiet", "--temp-path"]).arg(dir);
        run::run_within(&mut command, PROGRAM_WITHIN)
    };
    c.run("mkdir @/stress-1 &/stress-2")?;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| stressed(c.other().join("stress-2")));
        let here = stressed(c.mnt().join("stress-1"));
        here.and(other.join().map_err(|_| "a thread panicked".to_owned())?)
    })?;
    c.run("rmdir @/stress-1 @/stress-2")
}

/// One after the other, also those that take long for a single step.
pub fn stress_ng_each(c: &Cluster) -> Outcome {
    c.run("mkdir @/stress")?;
    let line = "stress-ng --class filesystem --sequential 2 --timeout 8 --verify --quiet --temp-path @/stress --exclude";
    c.run(&format!("{line} {NOT_HERE}"))?;
    c.run("rmdir @/stress")
}

pub fn dbench(c: &Cluster) -> Outcome {
    c.run("mkdir @/dbench")?;
    let mut dbench = c.command("dbench");
    dbench.args(["-c", "/usr/share/dbench/client.txt", "-t", "5", "-D"]).arg(c.mnt().join("dbench"));
    let said = run::output(dbench.arg("4"))?;
    // It reports a failed operation, and ends well all the same. (A process of it that comes late to its own start says so.)
    let is_fault = |line: &str| line.contains("failed") && !line.contains("barrier semaphore");
    if said.lines().any(is_fault) || !said.contains("Throughput") {
        return Err(format!("dbench says:\n{said}"));
    }
    c.run("rm -r @/dbench")
}

/// What is written through one mount is verified by that one at once, then by the other.
pub fn fio(c: &Cluster) -> Outcome {
    c.run("mkdir @/fio")?;
    for job in [
        "--name=blocks --rw=write --bs=1M --size=64M --numjobs=2",
        "--name=odd --rw=randwrite --bsrange=512-256k --bs_unaligned=1 --size=32M --numjobs=2",
        "--name=direct --rw=randwrite --bs=64k --size=32M --direct=1 --ioengine=libaio --iodepth=16",
        "--name=mapped --rw=randwrite --bs=4k --size=8M --ioengine=mmap",
        "--name=synced --rw=randwrite --bs=4k --size=2M --fsync=8 --numjobs=2",
    ] {
        verified(c, "@", job)?;
        verified(c, "&", &format!("{job} --verify_only"))?;
    }
    c.run("rm -r @/fio")
}

pub fn fio_for_long(c: &Cluster) -> Outcome {
    c.run("mkdir @/fio")?;
    for job in [
        "--name=blocks --rw=write --bs=1M --size=1G --numjobs=2",
        "--name=random --rw=randwrite --bs=4k --size=128M --numjobs=2",
        "--name=mixed --rw=randrw --bs=8k --size=64M --numjobs=4 --verify_backlog=256",
        "--name=ring --rw=randwrite --bs=16k --size=128M --ioengine=io_uring --iodepth=32",
        "--name=mapped --rw=randwrite --bs=4k --size=64M --ioengine=mmap --numjobs=2",
        "--name=shared --filename=shared --rw=randwrite --bs=16k --size=64M --offset_increment=64M --numjobs=4",
    ] {
        verified(c, "@", job)?;
    }
    c.run("rm -r @/fio")
}

fn verified(c: &Cluster, mount: &str, job: &str) -> Outcome {
    let line = "--verify=crc32c --verify_fatal=1 --verify_state_save=0 --minimal";
    let mut fio = c.command("fio");
    fio.arg(c.placed(&format!("--directory={mount}/fio"))).args(job.split(' ')).args(line.split(' '));
    run::run_within(fio.current_dir(c.local()).stdout(Stdio::null()), PROGRAM_WITHIN)
}
