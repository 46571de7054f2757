//! Small writes through a mount, gathered by its worker: few messages, and nothing is lost with the worker.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{TestCluster, can_mount};
use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::Path,
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const IODS: u16 = 2;
/// The must of the cost table: a message for so many bytes.
const BYTES_PER_MESSAGE: usize = 64 << 10;

/// `len` bytes that tell their place and their file.
fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at / 100 * 31 + at + seed * 7) % 251).unwrap()).collect()
}

fn writes(cluster: &TestCluster) -> u64 {
    cluster.iods().map(|iod| cluster.client_requests(iod).get("write").copied().unwrap_or(0)).sum()
}

fn make(path: &Path, appends: bool) -> File {
    File::options().create_new(true).append(appends).write(true).open(path).unwrap()
}

fn write_small(file: &mut File, data: &[u8]) {
    data.chunks(100).for_each(|piece| file.write_all(piece).unwrap());
}

#[test]
fn ten_thousand_small_writes_of_a_lone_writer_are_a_few_messages() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(IODS).start();
    let dir = cluster.mount(&[]);
    let data = bytes(1, 1_000_000);
    for (name, appends) in [("written", false), ("appended", true)] {
        let mut file = make(&dir.join(name), appends);
        let before = writes(&cluster);
        write_small(&mut file, &data);
        file.sync_all().unwrap();
        let sent = writes(&cluster) - before;
        assert!(sent <= (data.len() / BYTES_PER_MESSAGE) as u64 + 1, "{name}: {sent} messages");
        drop(file);
        assert!(fs::read(dir.join(name)).unwrap() == data, "{name}");
    }
    cluster.fsck_finds_nothing();
}

#[test]
fn a_worker_that_is_killed_loses_no_small_write() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(IODS).start();
    let (dir, other) = (cluster.mount(&[]), cluster.mount(&[]));
    for round in 0..12 {
        let name = format!("f{round}");
        let data = bytes(round, 40_000);
        let appends = round % 2 == 0;
        let mut file = make(&dir.join(&name), appends);
        let (first, second) = data.split_at(25_000);
        write_small(&mut file, first);
        cluster.kill_worker("mount0");
        match round % 3 {
            0 => assert_eq!(
                fs::metadata(other.join(&name)).unwrap().len(),
                25_000,
                "round {round}: others see it"
            ),
            1 => assert_eq!(file.metadata().unwrap().len(), 25_000, "round {round}: so does who wrote it"),
            _ => {}
        }
        write_small(&mut file, second);
        assert!(fs::read(other.join(&name)).unwrap() == data, "round {round}");
        if round % 4 == 3 {
            cluster.kill_worker("mount0");
            cluster.kill9("iod0");
            cluster.restart("iod0");
        }
        drop(file);
    }
    for round in 0..12 {
        assert!(
            fs::read(dir.join(format!("f{round}"))).unwrap() == bytes(round, 40_000),
            "round {round}, at the end"
        );
    }
    cluster.fsck_finds_nothing();
}

/// Many files at once, each by its own thread, read by another mount as soon as they are named, under kills.
#[test]
fn files_that_are_written_in_small_pieces_are_whole_for_whoever_opens_them_while_workers_are_killed() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(IODS).start();
    let (dir, other) = (cluster.mount(&[]), cluster.mount(&[]));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (dir, other) = (&dir, &other);
                scope.spawn(move || (0..40).for_each(|n| written_and_read(dir, other, writer * 1000 + n)))
            })
            .collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            cluster.kill_worker("mount0");
            std::thread::sleep(std::time::Duration::from_millis(150));
        }
    });
    cluster.fsck_finds_nothing();
}

fn written_and_read(dir: &Path, other: &Path, number: usize) {
    let data = bytes(number, 500 + number % 7 * 3000);
    let (made, named) = (dir.join(format!("made{number}")), format!("named{number}"));
    let mut file = File::create_new(&made).unwrap();
    write_small(&mut file, &data);
    fs::rename(&made, dir.join(&named)).unwrap();
    let mut found = Vec::new();
    File::open(other.join(&named)).unwrap().read_to_end(&mut found).unwrap();
    assert!(found == data, "file {number}: {} of {} bytes", found.len(), data.len());
    write_small(&mut file, &data);
    drop(file);
    assert!(fs::read(other.join(&named)).unwrap() == [&data[..], &data].concat(), "file {number}, twice");
}
