//! Programs on several mounts that append to one file: each record is there once, whole, each program's own in order.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{Child, Half, TestCluster, can_mount, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const LIMIT: Duration = Duration::from_mins(1);
const STRIP: usize = 4096;
const HEAD: usize = 14;

/// A record of `len` bytes: a mark, who, which, how long, and bytes that tell. One byte alone tells who.
fn record(writer: u8, seq: u32, len: usize) -> Vec<u8> {
    if len < HEAD {
        return vec![0x80 | writer];
    }
    let len32 = u32::try_from(len).unwrap();
    let mut record = [&[0x40 | writer, 0][..], &seq.to_le_bytes(), &len32.to_le_bytes(), &[0; 4]].concat();
    record.resize(len, writer.wrapping_mul(37).wrapping_add(seq.to_le_bytes()[0]) & 0x3f);
    record
}

/// The length of a program's next record: from one byte to more than all targets have in one turn.
fn len_of(seq: u32) -> usize {
    let n = seq as usize;
    [1, HEAD + n % 700, STRIP - 1 + n % 3, 13 * STRIP + n % 5000, HEAD, 9000][n % 6]
}

/// By writer, the numbers of the records that are there. Fails if a byte is of none.
#[track_caller]
fn records(mut log: &[u8]) -> BTreeMap<u8, Vec<u32>> {
    let (mut found, mut last) = (BTreeMap::<u8, Vec<u32>>::new(), (0, 0));
    while let Some(&mark) = log.first() {
        let (writer, is_byte) = (mark & 0x3f, mark & 0x80 != 0);
        let of = found.entry(writer).or_default();
        if is_byte {
            // Its number is the one after that writer's last.
            of.push(of.last().map_or(0, |last| last + 1));
            log = &log[1..];
            continue;
        }
        let left = log.len();
        assert!(mark & 0xc0 == 0x40 && left >= HEAD, "{left} bytes before the end: {mark:#x} after {last:?}");
        let seq = u32::from_le_bytes(log[2..6].try_into().unwrap());
        let len = u32::from_le_bytes(log[6..10].try_into().unwrap()) as usize;
        assert!(log.starts_with(&record(writer, seq, len)), "{seq} of {writer} is torn, after {last:?}");
        (last, log) = ((writer, seq), &log[len..]);
        of.push(seq);
    }
    found
}

fn append_to(path: &Path) -> File {
    File::options().append(true).open(path).unwrap()
}

/// Appends until it is told to stop, and leaves how many records it has appended. What fails with `EIO` it counts as one that
/// may be there.
#[test]
#[ignore = "what other tests start as a process of its own"]
fn worker_that_appends() {
    let mut half = Half::new();
    let (file, stop, result) = (half.path(), half.path(), half.path());
    let name = result.file_name().unwrap().to_str().unwrap().to_owned();
    let writer: u8 = name.split('-').nth(1).unwrap().parse().unwrap();
    let is_small = name.starts_with("small");
    let mut file_open = append_to(&file);
    half.wait();
    let mut seq = 0;
    while !stop.exists() {
        let record = record(writer, seq, if is_small { HEAD + seq as usize % 50 } else { len_of(seq) });
        match file_open.write(&record) {
            Ok(written) => assert_eq!(written, record.len(), "in one call"),
            Err(error) => assert!(is_small && error.raw_os_error() == Some(libc::EIO), "{error}"),
        }
        seq += 1;
        if seq % 16 == 0 {
            file_open = append_to(&file);
        }
        let told = result.with_extension("new");
        fs::write(&told, seq.to_string()).unwrap();
        fs::rename(&told, &result).unwrap();
    }
}

struct Program {
    child: Child,
    result: PathBuf,
}

impl Program {
    fn start(cluster: &TestCluster, mount: &Path, kind: &str, writer: usize) -> Program {
        let result = cluster.dir().join(format!("{kind}-{writer}"));
        let (file, stop) = (mount.join("log"), cluster.dir().join("stop"));
        let child = Child::start("worker_that_appends", &[&file, &stop, &result]);
        Program { child, result }
    }

    fn done(&self) -> u32 {
        fs::read_to_string(&self.result).unwrap_or_default().parse().unwrap_or(0)
    }
}

fn go_on(programs: &[Program]) {
    for program in programs {
        program.child.wait_until_half();
        program.child.go_on();
    }
}

fn end(cluster: &TestCluster, programs: Vec<Program>) -> BTreeMap<u8, u32> {
    fs::write(cluster.dir().join("stop"), "").unwrap();
    (0..)
        .zip(programs)
        .map(|(writer, Program { child, result })| {
            child.end();
            (writer, fs::read_to_string(result).unwrap().parse().unwrap())
        })
        .collect()
}

#[track_caller]
fn worker_of(cluster: &mut TestCluster, mount: &str) -> Pid {
    let mut found = None;
    wait_until("there is a worker", LIMIT, || {
        found = cluster.process(mount).children().first().and_then(|&pid| Pid::from_raw(pid.cast_signed()));
        found.is_some()
    });
    found.unwrap()
}

fn restart(cluster: &mut TestCluster, daemon: &str) {
    cluster.kill9(daemon);
    cluster.restart(daemon);
}

/// Two programs on each mount append while `rounds` kills happen.
fn append_under_kills(options: &[&[&str]], rounds: usize) {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(3).start();
    cluster.run_ok("layout", ["set", "/", "--strip-size", "4K"]);
    let mounts: Vec<PathBuf> = options.iter().map(|options| cluster.mount(options)).collect();
    fs::write(mounts[0].join("log"), "").unwrap();
    let programs: Vec<Program> =
        (0..2 * mounts.len()).map(|n| Program::start(&cluster, &mounts[n / 2], "any", n)).collect();
    go_on(&programs);
    for round in 0..rounds {
        let before: Vec<u32> = programs.iter().map(Program::done).collect();
        match round % 5 {
            0 => restart(&mut cluster, "mgr"),
            1 => kill_process(worker_of(&mut cluster, "mount0"), Signal::KILL).unwrap(),
            2 => restart(&mut cluster, &format!("iod{}", round % 3)),
            3 => kill_process(worker_of(&mut cluster, "mount1"), Signal::KILL).unwrap(),
            _ => {
                kill_process(worker_of(&mut cluster, "mount0"), Signal::KILL).unwrap();
                restart(&mut cluster, "mgr");
            }
        }
        wait_until("every program goes on", LIMIT, || {
            programs.iter().zip(&before).all(|(program, before)| program.done() > before + 3)
        });
    }
    let appended = end(&cluster, programs);
    for mount in &mounts {
        let found = records(&fs::read(mount.join("log")).unwrap());
        for (writer, count) in &appended {
            assert!(found[writer].iter().copied().eq(0..*count), "{writer}: {:?}, {count}", found[writer]);
        }
        assert_eq!(found.len(), appended.len());
    }
    println!("{} records", appended.values().sum::<u32>());
    cluster.fsck_finds_nothing();
}

#[test]
fn records_that_two_mounts_append_are_there_once_and_whole_while_everybody_is_killed() {
    append_under_kills(&[&[], &[]], 15);
}

#[test]
fn records_that_three_mounts_append_are_there_once_and_whole_while_everybody_is_killed() {
    append_under_kills(&[&[], &["-o", "locks=local"], &["-o", "cache=none"]], 10);
}

#[test]
fn a_mount_that_slept_past_its_lease_in_an_append_tears_no_others_record() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).mgr_args(&["--lease-seconds=1"]).start();
    let (one, two) = (cluster.mount(&[]), cluster.mount(&[]));
    fs::write(one.join("log"), "").unwrap();
    let sleeper = Program::start(&cluster, &one, "small", 0);
    go_on(std::slice::from_ref(&sleeper));
    for round in 1..=4 {
        let before = sleeper.done();
        wait_until("it appends", LIMIT, || sleeper.done() > before + 20);
        let worker = worker_of(&mut cluster, "mount0");
        kill_process(worker, Signal::STOP).unwrap();
        let mut log = append_to(&two.join("log"));
        for seq in 0..10 {
            let record = record(1, (round - 1) * 10 + seq, 400);
            assert_eq!(log.write(&record).unwrap(), record.len());
        }
        drop(log);
        kill_process(worker, Signal::CONT).unwrap();
    }
    let appended = end(&cluster, vec![sleeper])[&0];
    let found = records(&fs::read(two.join("log")).unwrap());
    assert!(found[&1].iter().copied().eq(0..40));
    assert!(found[&0].windows(2).all(|pair| pair[0] < pair[1]), "each once, in order");
    let lost = appended as usize - found[&0].len();
    assert!(lost <= 4, "one for each sleep at most was cut: {lost}");
}

/// What the writes that wait in mounts wait for.
fn waiting(cluster: &TestCluster) -> Vec<serde_json::Value> {
    let calls = cluster.waiting_calls().into_iter();
    calls.filter(|call| call["op"] == "write").map(|call| call["waits_for"].clone()).collect()
}

/// Appends one record when it is told to.
#[test]
#[ignore = "what other tests start as a process of its own"]
fn worker_that_appends_once() {
    let mut half = Half::new();
    let (file, told) = (half.path(), half.path());
    let writer = told.file_name().unwrap().to_str().unwrap().parse().unwrap();
    fs::write(told, std::process::id().to_string()).unwrap();
    let mut log = append_to(&file);
    half.wait();
    log.write_all(&record(writer, 0, 9000)).unwrap();
}

#[test]
fn who_waits_with_an_append_for_another_mounts_is_seen_and_ends_by_a_signal() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    cluster.run_ok("layout", ["set", "/", "--strip-size", "4K"]);
    let mounts = [cluster.mount(&[]), cluster.mount(&[])];
    fs::write(mounts[0].join("log"), "").unwrap();
    let tells = ["0", "1"].map(|name| cluster.dir().join(name));
    let start = |n: usize| Child::start("worker_that_appends_once", &[&mounts[n].join("log"), &tells[n]]);
    let [first, second] = [0, 1].map(start);
    first.wait_until_half();
    second.wait_until_half();
    // Its turn comes, and no target answers.
    for iod in ["iod0", "iod1"] {
        cluster.signal(iod, Signal::STOP);
    }
    first.go_on();
    wait_until("the first append waits", LIMIT, || waiting(&cluster).len() == 1);
    second.go_on();
    let lock = serde_json::json!(["lock"]);
    wait_until("the second one waits for the first", LIMIT, || waiting(&cluster).contains(&lock));
    let pid = fs::read_to_string(&tells[1]).unwrap().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
    wait_until("it ends", LIMIT, || !waiting(&cluster).contains(&lock));
    for iod in ["iod0", "iod1"] {
        cluster.signal(iod, Signal::CONT);
    }
    first.end();
    append_to(&mounts[1].join("log")).write_all(&record(1, 0, 50)).unwrap();
    let log = fs::read(mounts[0].join("log")).unwrap();
    assert_eq!(log.len(), 9050, "who was interrupted has appended nothing");
    assert_eq!(records(&log), BTreeMap::from([(0, vec![0]), (1, vec![0])]));
}
