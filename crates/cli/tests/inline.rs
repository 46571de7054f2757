//! Small files through mounts, whose bytes the mgr keeps: few messages, none to iods, and whole whatever is killed.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{Child, Half, TestCluster, can_mount};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::Duration,
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const IODS: u16 = 2;
const FILES: u64 = 200;

/// `len` bytes that tell their place and their file.
fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at / 100 * 31 + at + seed * 7) % 251).unwrap()).collect()
}

/// What clients asked the mgr, and how often they asked any iod for or with bytes.
fn asked(cluster: &TestCluster) -> (BTreeMap<String, u64>, u64) {
    let of = |iod: &str| {
        let asked = cluster.client_requests(iod);
        ["read", "write", "sync", "stat_objects"].iter().filter_map(|op| asked.get(*op)).sum::<u64>()
    };
    (cluster.client_requests("mgr"), cluster.iods().map(of).sum())
}

#[test]
fn a_small_file_is_made_with_two_messages_and_read_with_one_and_no_iod_hears_of_it() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(IODS).start();
    let (dir, other) = (cluster.mount(&[]), cluster.mount(&[]));
    fs::create_dir(dir.join("d")).unwrap();
    let before = asked(&cluster);
    for n in 0..FILES {
        fs::write(dir.join(format!("d/f{n}")), bytes(n.try_into().unwrap(), 3_901)).unwrap();
    }
    let made = asked(&cluster);
    let rise = |op: &str, from: &BTreeMap<String, u64>, to: &BTreeMap<String, u64>| {
        to.get(op).unwrap_or(&0) - from.get(op).unwrap_or(&0)
    };
    let of_making = ["create", "put_inline", "report_size", "open", "lookup", "getattr"]
        .map(|op| rise(op, &before.0, &made.0));
    assert_eq!(of_making[..4], [FILES, FILES, 0, 0], "{of_making:?}");
    assert!(of_making[4] + of_making[5] <= 5, "{of_making:?}: the directory is known");
    // A listing tells what is there, and a read brings the bytes.
    for entry in fs::read_dir(other.join("d")).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().len(), 3_901);
    }
    let listed = asked(&cluster);
    for n in 0..FILES {
        let data = fs::read(other.join(format!("d/f{n}"))).unwrap();
        assert!(data == bytes(n.try_into().unwrap(), 3_901), "file {n}");
    }
    let read = asked(&cluster);
    let of_reading = ["read_inline", "open", "lookup", "getattr"].map(|op| rise(op, &listed.0, &read.0));
    assert_eq!(of_reading[..2], [FILES, 0], "{of_reading:?}");
    assert!(of_reading[2] + of_reading[3] <= 5, "{of_reading:?}: the listing has told");
    fs::remove_dir_all(dir.join("d")).unwrap();
    assert_eq!(asked(&cluster).1, before.1, "no iod had anything of them");
    cluster.fsck_finds_nothing();
}

#[test]
fn a_small_file_that_is_open_when_its_worker_dies_is_read_and_written_on() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(IODS).start();
    let (dir, other) = (cluster.mount(&[]), cluster.mount(&[]));
    for round in 0..6 {
        let name = format!("f{round}");
        let mut data = bytes(round, 3_000);
        fs::write(dir.join(&name), &data).unwrap();
        let open = |path: &Path| File::options().read(true).write(true).open(path).unwrap();
        let (here, there) = (open(&dir.join(&name)), open(&other.join(&name)));
        if round % 2 == 0 {
            // What the kernel keeps is not what is looked for.
            rustix::fs::fadvise(&here, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        cluster.kill_worker("mount0");
        if round % 3 == 2 {
            here.sync_all().unwrap();
        }
        let read = |file: &File| {
            let mut found = vec![0; 9_000];
            let len = file.read_at(&mut found, 0).unwrap();
            found.truncate(len);
            found
        };
        assert!(read(&here) == data, "round {round}: nobody has written it");
        there.write_all_at(b"written there", 1_000).unwrap();
        data[1_000..1_013].copy_from_slice(b"written there");
        assert!(read(&here) == data, "round {round}: written there");
        cluster.kill_worker("mount0");
        here.write_all_at(b"written here", 2_000).unwrap();
        data[2_000..2_012].copy_from_slice(b"written here");
        assert!(read(&there) == data, "round {round}: written here");
        assert!(read(&here) == data, "round {round}");
    }
    cluster.fsck_finds_nothing();
}

/// Small files of four programs, looked at and changed through another mount too, while all that can be killed is.
#[test]
fn small_files_are_whole_for_everybody_while_workers_and_daemons_are_killed() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(IODS).start();
    let (dir, other) = (cluster.mount(&[]), cluster.mount(&[]));
    let stop = cluster.dir().join("stop");
    let programs: Vec<Child> = (0..4)
        .map(|n| Child::start("worker_with_small_files", &[&dir, &other, &stop, Path::new(&n.to_string())]))
        .collect();
    for program in &programs {
        program.wait_until_half();
        program.go_on();
    }
    for round in 0..32 {
        match round % 4 {
            0 => cluster.kill_worker("mount0"),
            1 => bounce(&mut cluster, "mgr"),
            2 => cluster.kill_worker("mount1"),
            _ => bounce(&mut cluster, &format!("iod{}", round / 4 % usize::from(IODS))),
        }
        thread::sleep(Duration::from_millis(150));
    }
    fs::write(stop, "").unwrap();
    programs.into_iter().for_each(Child::end);
    cluster.fsck_finds_nothing();
}

#[test]
#[ignore = "what other tests start as a process of its own"]
fn worker_with_small_files() {
    let mut half = Half::new();
    let (dir, other, stop, number) = (half.path(), half.path(), half.path(), half.path());
    let number: usize = number.to_str().unwrap().parse().unwrap();
    half.wait();
    let mut lived = 0;
    while !stop.exists() {
        live(&dir, &other, number * 100_000 + lived);
        lived += 1;
    }
    assert!(lived > 0);
}

fn bounce(cluster: &mut TestCluster, daemon: &str) {
    cluster.kill9(daemon);
    cluster.restart(daemon);
}

/// The life of one file.
fn live(dir: &Path, other: &Path, number: usize) {
    let name = format!("f{number}");
    let (here, there) = (dir.join(&name), other.join(&name));
    let mut data = bytes(number, 1 + number * 37 % 4_096);
    let check = |path: &Path, data: &[u8], what: &str| {
        let found = fs::read(path).unwrap();
        assert!(found == data, "{name}, {what}: {} of {} bytes", found.len(), data.len());
    };
    let mut file = File::create_new(&here).unwrap();
    for piece in data.chunks(1_000) {
        file.write_all(piece).unwrap();
    }
    drop(file);
    check(&there, &data, "made");
    check(&here, &data, "made here");
    match number % 4 {
        0 => {
            File::options().append(true).open(&there).unwrap().write_all(&data.clone()).unwrap();
            data = [&data[..], &data].concat();
        }
        1 => {
            data = bytes(number + 1, 500);
            fs::write(&there, &data).unwrap();
        }
        2 => {
            let size = data.len() as u64 / 2;
            File::options().write(true).open(&there).unwrap().set_len(size).unwrap();
            data.truncate(data.len() / 2);
        }
        _ => fs::rename(&there, other.join("replaced")).unwrap(),
    }
    if number % 4 < 3 {
        check(&here, &data, "changed there");
        check(&there, &data, "changed");
        fs::remove_file(&here).unwrap();
    }
}
