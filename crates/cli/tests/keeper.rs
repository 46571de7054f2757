//! A mount's worker is killed again and again under programs that check all they do: they see pauses, nothing else.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{Child, Half, TestCluster, can_mount, offer_io_uring, wait_until};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, linkat},
    process::{Pid, Signal, kill_process},
};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt, PermissionsExt},
    },
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const LIMIT: Duration = Duration::from_mins(2);

/// Bytes that differ from number to number.
fn bytes(number: usize) -> Vec<u8> {
    let len = 1 + number * 7919 % 300_000;
    let mut state = number as u64 * 2 + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

fn record(number: usize) -> String {
    format!("{number:>15}\n")
}

/// One round of everything: what is done is checked at once, and what earlier rounds left too.
fn round(dir: &Path, number: usize, log: &mut File, nameless: &File) {
    let at = |name: &str, number: usize| dir.join(format!("{name}-{number}"));
    let (new, kept) = (at("new", number), at("kept", number));
    let data = bytes(number);
    let mut file = File::create_new(&new).expect("nobody else makes it");
    let half = data.len() / 2;
    file.write_all(&data[..half]).expect("writes");
    file.write_all(&data[half..]).expect("writes on");
    assert_eq!(file.metadata().expect("stats").len(), data.len() as u64, "round {number}");
    drop(file);
    fs::rename(&new, &kept).expect("renames");
    assert!(!new.exists());
    log.write_all(record(number).as_bytes()).expect("appends");
    linked_nameless(dir, &at("nameless", number), &data);
    let sub = at("dir", number);
    fs::create_dir(&sub).expect("makes a directory");
    fs::hard_link(&kept, sub.join("link")).expect("links");
    assert_eq!(fs::metadata(&kept).expect("stats").nlink(), 2, "round {number}");
    fs::remove_file(sub.join("link")).expect("unlinks");
    std::os::unix::fs::symlink("elsewhere", sub.join("symlink")).expect("symlinks");
    fs::remove_file(sub.join("symlink")).expect("unlinks");
    fs::remove_dir(&sub).expect("is empty");
    nameless.write_all_at(record(number).as_bytes(), 16 * (number as u64 % 100)).expect("writes");
    let mut back = [0; 16];
    nameless.read_exact_at(&mut back, 16 * (number as u64 % 100)).expect("reads");
    assert_eq!(back, record(number).as_bytes(), "the file without a name");
    if number >= 1 {
        let before = fs::read(at("kept", number - 1)).expect("reads");
        assert!(before == bytes(number - 1), "round {number}: other bytes");
    }
    if number >= 2 {
        let old = at("kept", number - 2);
        File::options().write(true).open(&old).expect("opens").set_len(3).expect("shrinks");
        assert_eq!(
            fs::read(&old).expect("reads"),
            bytes(number - 2)[..bytes(number - 2).len().min(3)]
                .iter()
                .copied()
                .chain(std::iter::repeat(0))
                .take(3)
                .collect::<Vec<_>>()
        );
        fs::remove_file(&old).expect("removes");
        assert!(!old.exists());
    }
}

/// A file that gets its name when it is whole.
fn linked_nameless(dir: &Path, name: &Path, data: &[u8]) {
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    let file = File::from(rustix::fs::open(dir, flags, Mode::RWXU).expect("opens without a name"));
    file.write_all_at(data, 0).expect("writes");
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, from, CWD, name, AtFlags::SYMLINK_FOLLOW).expect("links");
    assert!(fs::read(name).expect("reads") == data, "the file that got a name");
    fs::remove_file(name).expect("unlinks");
}

#[test]
#[ignore = "what other tests start as a process of its own"]
fn worker_of_rounds() {
    let mut half = Half::new();
    let (dir, stop, progress) = (half.path(), half.path(), half.path());
    fs::create_dir(&dir).unwrap();
    let mut log = File::options().append(true).create_new(true).open(dir.join("log")).unwrap();
    let nameless =
        File::options().read(true).write(true).create_new(true).open(dir.join("nameless")).unwrap();
    fs::remove_file(dir.join("nameless")).unwrap();
    half.wait();
    let mut number = 0;
    while !stop.exists() {
        round(&dir, number, &mut log, &nameless);
        number += 1;
        fs::write(&progress, number.to_string()).unwrap();
    }
    drop((log, nameless));
    let expected: String = (0..number).map(record).collect();
    assert!(fs::read_to_string(dir.join("log")).unwrap() == expected, "the log");
    let names: BTreeSet<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let left = [format!("kept-{}", number - 1), format!("kept-{}", number - 2), "log".into()];
    assert_eq!(names, left.into_iter().map(Into::into).collect());
}

fn progress(file: &Path) -> usize {
    fs::read_to_string(file).unwrap_or_default().parse().unwrap_or(0)
}

/// The pid of the mount's worker, other than `former`.
#[track_caller]
fn next_worker(cluster: &mut TestCluster, former: u32) -> u32 {
    let mut found = 0;
    wait_until("there is a worker", LIMIT, || {
        found = cluster.process("mount0").children().into_iter().find(|&pid| pid != former).unwrap_or(0);
        found != 0
    });
    found
}

fn kill9(pid: u32) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn fifty_kills_of_a_mounts_worker_cost_programs_only_time() {
    if can_mount() {
        fifty_kills(&["-o", "no_io_uring"]);
    }
}

#[test]
fn fifty_kills_of_a_worker_that_serves_over_io_uring_cost_programs_only_time() {
    if can_mount()
        && let Some(_offered) = offer_io_uring()
    {
        fifty_kills(&[]);
    }
}

fn fifty_kills(options: &[&str]) {
    let mut cluster = TestCluster::builder(PVFS).iods(3).start();
    let mount = cluster.mount(options);
    let stop = cluster.dir().join("stop");
    let programs: Vec<_> = (0..3)
        .map(|n| {
            let progress = cluster.dir().join(format!("progress{n}"));
            let child =
                Child::start("worker_of_rounds", &[&mount.join(format!("program{n}")), &stop, &progress]);
            (child, progress)
        })
        .collect();
    for (child, _) in &programs {
        child.wait_until_half();
        child.go_on();
    }
    let (mut worker, mut longest) = (0, Duration::ZERO);
    for kill in 0..50_u64 {
        let next = next_worker(&mut cluster, worker);
        // Some workers die while they start, some in the middle of it all.
        let rounds = || programs.iter().map(|(_, file)| progress(file)).sum::<usize>();
        if kill % 5 == 4 {
            std::thread::sleep(Duration::from_millis(kill % 7));
        } else {
            let (before, begin) = (rounds(), Instant::now());
            wait_until("the programs go on", LIMIT, || {
                rounds() > before + (usize::try_from(kill).unwrap() % 3)
            });
            longest = longest.max(begin.elapsed());
        }
        kill9(next);
        worker = next;
    }
    println!("the longest time to the next round after a kill: {longest:?}");
    fs::write(&stop, "").unwrap();
    for (child, file) in programs {
        child.end();
        assert!(progress(&file) > 10, "{} rounds", progress(&file));
    }
    cluster.unmount(&mount);
    // Not only what the kernel held.
    assert_eq!(cluster.run_ok("ls", ["/program0"]).lines().count(), 3);
}

#[test]
fn a_mount_goes_on_with_another_program_under_a_running_one() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let mount = cluster.mount(&[]);
    let (stop, file) = (cluster.dir().join("stop"), cluster.dir().join("progress"));
    let child = Child::start("worker_of_rounds", &[&mount.join("program"), &stop, &file]);
    child.wait_until_half();
    child.go_on();
    let newer = cluster.dir().join("pvfs-newer");
    fs::copy(PVFS, &newer).unwrap();
    for _ in 0..3 {
        let before = progress(&file);
        wait_until("rounds are done", LIMIT, || progress(&file) > before + 2);
        let upgraded = Command::new(&newer).args(["mount", "--upgrade"]).arg(&mount).output().unwrap();
        assert!(upgraded.status.success(), "{}", String::from_utf8_lossy(&upgraded.stderr));
    }
    let worker = next_worker(&mut cluster, 0);
    assert_eq!(fs::read_link(format!("/proc/{worker}/exe")).unwrap(), newer);
    fs::write(&stop, "").unwrap();
    child.end();
    cluster.unmount(&mount);
}

/// Whether a thread of the process `pid` waits in the kernel where no signal reaches it.
fn waits_deaf(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats
        .into_iter()
        .any(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('D')))
}

#[test]
fn a_worker_is_followed_by_the_next_also_if_it_dies_while_the_kernel_holds_a_thread_of_it() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let (one, two) = (cluster.mount(&[]), cluster.mount(&[]));
    fs::write(one.join("f"), vec![7; 4 << 20]).unwrap();
    let file = File::open(one.join("f")).unwrap();
    let byte_at = |offset: u64| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).map(|()| byte[0])
    };
    // So that the kernel goes by what it was told, and is to be told when that changes.
    (0..3).for_each(|_| assert_eq!(byte_at(0).unwrap(), 7));
    cluster.kill9("iod0");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| byte_at(4 << 20 >> 1).unwrap());
        wait_until("the kernel waits for a page", LIMIT, || !cluster.waiting_calls().is_empty());
        let changer = scope.spawn(|| fs::set_permissions(two.join("f"), PermissionsExt::from_mode(0o600)));
        let worker = cluster.process("mount0").children()[0];
        wait_until("a notice waits for that page", LIMIT, || waits_deaf(worker));
        cluster.kill_worker("mount0");
        wait_until("there is another worker", LIMIT, || {
            cluster.process("mount0").children().iter().any(|&pid| pid != worker)
        });
        cluster.restart("iod0");
        assert_eq!(reader.join().unwrap(), 7);
        changer.join().unwrap().unwrap();
    });
    assert_eq!(fs::metadata(one.join("f")).unwrap().permissions().mode() & 0o777, 0o600);
}
