//! What a mount's kernel keeps, and what another mount's changes do to it.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{TestCluster, can_mount, wait_until};
use rustix::process::Signal;
use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, ErrorKind, Seek as _, SeekFrom, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt as _, PermissionsExt},
    },
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
    time::Duration,
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");

#[test]
fn without_caches_each_call_sees_what_the_last_one_on_another_mount_did() {
    each_call_sees_what_the_last_one_did("cache=none");
}

#[test]
fn with_coherent_caches_each_call_sees_what_the_last_one_on_another_mount_did() {
    each_call_sees_what_the_last_one_did("cache=coherent");
}

fn each_call_sees_what_the_last_one_did(option: &str) {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let (one, two) = (cluster.mount(&["-o", option]), cluster.mount(&["-o", option]));
    fs::write(one.join("f"), "first").unwrap();
    let there = File::options().read(true).write(true).open(two.join("f")).unwrap();
    let here = File::options().read(true).write(true).open(one.join("f")).unwrap();
    let read = |file: &File| {
        let mut bytes = [0; 100];
        let len = file.read_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    for round in 0..20 {
        let (path, other) = (one.join(format!("n{round}")), two.join(format!("n{round}")));
        assert_eq!(fs::metadata(&other).unwrap_err().kind(), ErrorKind::NotFound);
        fs::create_dir(&path).unwrap();
        assert_eq!(
            fs::metadata(&other).unwrap().mode() & 0o777,
            0o755,
            "a name that was not there a moment ago"
        );
        fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(fs::metadata(&other).unwrap().mode() & 0o777, 0o700);
        fs::rename(&path, one.join("moved")).unwrap();
        assert_eq!(fs::metadata(&other).unwrap_err().kind(), ErrorKind::NotFound);
        fs::remove_dir(two.join("moved")).unwrap();
        assert_eq!(fs::metadata(one.join("moved")).unwrap_err().kind(), ErrorKind::NotFound);

        let text = format!("round {round}, as long as it is");
        here.set_len(0).unwrap();
        assert_eq!((read(&there).as_str(), there.metadata().unwrap().len()), ("", 0));
        here.write_all_at(text.as_bytes(), 0).unwrap();
        assert_eq!((read(&there), there.metadata().unwrap().len()), (text.clone(), text.len() as u64));
        there.write_all_at(b"ROUND", 0).unwrap();
        assert_eq!(read(&here), text.replace("round", "ROUND"), "also to who wrote there before");

        fs::write(one.join("whole"), &text).unwrap();
        let reader = File::open(two.join("whole")).unwrap();
        assert_eq!(read(&reader), text);
        fs::write(one.join("whole"), "new").unwrap();
        assert_eq!(read(&reader), "new", "all bytes were replaced under an open reader");
    }
}

#[test]
fn a_file_that_becomes_shared_while_it_is_open_is_read_as_it_is() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let (one, two) = (cluster.mount(&["-o", "cache=coherent"]), cluster.mount(&["-o", "cache=coherent"]));
    fs::write(one.join("f"), "first").unwrap();
    // Through the page cache: nobody writes it.
    let reader = File::open(two.join("f")).unwrap();
    let read = || {
        let mut bytes = vec![0; 20_000];
        let len = reader.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(len);
        bytes
    };
    assert_eq!(read(), b"first");
    for round in 0..3u8 {
        let writer = File::options().read(true).write(true).open(one.join("f")).unwrap();
        let mut expected = b"first".to_vec();
        writer.set_len(0).unwrap();
        writer.write_all_at(&expected, 0).unwrap();
        for step in 0..40u8 {
            assert_eq!(read(), expected, "round {round} step {step}");
            let times = || reader.metadata().unwrap().modified().unwrap();
            assert_eq!(times(), times(), "what the kernel is told for its pages' sake nobody sees");
            let at = usize::from(step) * 311 % 9000;
            if step % 4 == 3 {
                writer.set_len(at as u64).unwrap();
                expected.resize(at, 0);
            } else {
                let bytes = [step; 700];
                writer.write_all_at(&bytes, at as u64).unwrap();
                expected.resize(expected.len().max(at + 700), 0);
                expected[at..at + 700].copy_from_slice(&bytes);
            }
            assert_eq!(reader.metadata().unwrap().len(), expected.len() as u64);
        }
        assert_eq!(read(), expected);
        drop(writer);
        assert_eq!((read(), fs::read(two.join("f")).unwrap()), (expected.clone(), expected));
    }
}

#[test]
fn reading_a_tree_again_costs_no_message() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let (one, two) = (cluster.mount(&["-o", "cache=coherent"]), cluster.mount(&["-o", "cache=coherent"]));
    let path = |n: u32| format!("tree/{}/{n}", n % 20);
    let text = |n: u32| format!("file {n} ").repeat(1 + n as usize % 700);
    for n in 0..1000 {
        fs::create_dir_all(one.join(path(n)).parent().unwrap()).unwrap();
        fs::write(one.join(path(n)), text(n)).unwrap();
    }
    let read_all =
        || (0..1000).for_each(|n| assert_eq!(fs::read_to_string(two.join(path(n))).unwrap(), text(n)));
    let sent = |daemon: &str| cluster.client_requests(daemon).into_values().sum::<u64>();
    // Names are known once their directory is.
    read_all();
    read_all();
    // The kernel may have let go of a page; hardly each time.
    let costs = (0..10).map(|_| {
        let before = (sent("mgr"), sent("iod0") + sent("iod1"));
        read_all();
        (sent("mgr") - before.0, sent("iod0") + sent("iod1") - before.1)
    });
    let costs: Vec<(u64, u64)> = costs.collect();
    assert!(costs.iter().any(|&(mgr, iods)| mgr <= 1 && iods == 0), "(to the mgr, to iods): {costs:?}");
    fs::write(one.join(path(7)), "another text").unwrap();
    assert_eq!(fs::read_to_string(two.join(path(7))).unwrap(), "another text");
}

#[test]
fn a_long_listing_costs_one_message_for_many_files() {
    const FILES: u64 = 3000;
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let (one, two) = (cluster.mount(&["-o", "cache=coherent"]), cluster.mount(&["-o", "cache=coherent"]));
    fs::create_dir(one.join("d")).unwrap();
    for n in 0..FILES {
        File::create(one.join(format!("d/{n}"))).unwrap();
    }
    let list = || {
        let entries = fs::read_dir(two.join("d")).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().nlink()).sum::<u64>()
    };
    let sent = |daemon: &str| cluster.client_requests(daemon).into_values().sum::<u64>();
    let (mgr, iod) = (sent("mgr"), sent("iod0"));
    assert_eq!(list(), FILES);
    let cold = sent("mgr") - mgr;
    assert!(cold <= FILES / 500 + 6, "{cold} messages to the mgr: the path, and pages of names");
    let mgr = sent("mgr");
    assert_eq!(list(), FILES);
    let warm = sent("mgr") - mgr;
    assert!(warm <= FILES / 500 + 6, "{warm} messages to the mgr");
    assert_eq!(sent("iod0"), iod);
    fs::set_permissions(one.join("d/77"), PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(fs::metadata(two.join("d/77")).unwrap().mode() & 0o777, 0o600, "and none of it is old");
}

#[test]
fn in_a_new_directory_no_name_is_asked_for() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let mount = cluster.mount(&["-o", "cache=coherent"]);
    fs::create_dir(mount.join("d")).unwrap();
    let lookups = || cluster.client_requests("mgr").get("lookup").copied().unwrap_or(0);
    let before = lookups();
    for n in 0..200 {
        File::create(mount.join(format!("d/{n}"))).unwrap();
    }
    assert!(lookups() - before <= 3, "only of the directory: {}", lookups() - before);
    assert_eq!(fs::read_dir(mount.join("d")).unwrap().count(), 200);
    assert_eq!(fs::metadata(mount.join("d/200")).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(fs::metadata(mount.join("d/199")).unwrap().is_file());
}

/// How many questions about names and attributes the mounts of `cluster` have sent to the mgr.
fn asked(cluster: &TestCluster) -> u64 {
    let requests = cluster.client_requests("mgr");
    ["lookup", "getattr"].iter().filter_map(|op| requests.get(*op)).sum()
}

#[test]
fn names_and_attributes_that_nobody_else_changes_cost_no_message() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let (one, two) = (cluster.mount(&["-o", "cache=coherent"]), cluster.mount(&["-o", "cache=coherent"]));
    let dir = |n: u32| format!("tree/{}/{n}", n % 10);
    for n in 0..100 {
        fs::create_dir_all(one.join(dir(n))).unwrap();
    }
    let look =
        |mount: &Path| (0..100).map(|n| fs::metadata(mount.join(dir(n))).unwrap().mode() & 0o777).max();
    // Names are known once their directory is.
    for _ in 0..3 {
        look(&two);
    }
    let warm = asked(&cluster);
    for _ in 0..5 {
        assert_eq!(look(&two), Some(0o755));
    }
    assert_eq!(asked(&cluster), warm, "nothing has changed");
    fs::set_permissions(one.join(dir(55)), PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(look(&two), Some(0o777));
    assert!(asked(&cluster) - warm < 10, "only what has changed is asked for");
}

#[test]
fn own_changes_cost_one_message_each_and_what_they_leave_is_known() {
    const FILES: u64 = 200;
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let mount = cluster.mount(&["-o", "cache=coherent"]);
    let path = |n: u64| mount.join(format!("d/{n}"));
    fs::create_dir(mount.join("d")).unwrap();
    let requests = |op: &str| cluster.client_requests("mgr").get(op).copied().unwrap_or(0);
    let (asked_before, made_before) = (asked(&cluster), requests("create"));
    for n in 0..FILES {
        File::create(path(n)).unwrap();
        assert_eq!(fs::metadata(mount.join("d")).unwrap().nlink(), 2);
    }
    assert_eq!(requests("create") - made_before, FILES);
    for n in 0..FILES {
        fs::set_permissions(path(n), PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(fs::metadata(path(n)).unwrap().mode() & 0o777, 0o600);
    }
    for n in 0..FILES {
        fs::remove_file(path(n)).unwrap();
        assert_eq!(fs::metadata(path(n)).unwrap_err().kind(), ErrorKind::NotFound);
    }
    let questions = asked(&cluster) - asked_before;
    assert!(questions <= 4, "{questions} questions: only the way to the directory");
}

#[test]
fn what_one_mount_changes_the_moment_another_has_looked_is_seen_by_the_next_look() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let (one, two) = (cluster.mount(&["-o", "cache=coherent"]), cluster.mount(&["-o", "cache=coherent"]));
    fs::create_dir(one.join("d")).unwrap();
    for round in 0..300u32 {
        let name = format!("d/{round}");
        // What is looked at first by each is new to its kernel.
        fs::create_dir(one.join(&name)).unwrap();
        for (step, (changes, looks)) in [(&one, &two), (&two, &one), (&one, &two)].into_iter().enumerate() {
            let mode = 0o700 | u32::try_from(step).unwrap();
            fs::set_permissions(changes.join(&name), PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(
                fs::metadata(looks.join(&name)).unwrap().mode() & 0o777,
                mode,
                "round {round}, step {step}"
            );
        }
        let times = |mount: &Path| fs::metadata(mount.join("d")).unwrap().modified().unwrap();
        assert_eq!(times(&one), times(&two));
        fs::create_dir(two.join(format!("d/{round}b"))).unwrap();
        assert_eq!(times(&one), times(&two), "round {round}");
    }
}

fn kill_and_restart(cluster: &mut TestCluster, daemon: &str) {
    cluster.kill9(daemon);
    cluster.restart(daemon);
}

#[test]
fn coherent_caches_stay_so_while_mgr_iods_and_workers_are_killed() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let (one, two) = (cluster.mount(&["-o", "cache=coherent"]), cluster.mount(&["-o", "cache=coherent"]));
    fs::write(one.join("f"), "0").unwrap();
    let open = File::open(two.join("f")).unwrap();
    for round in 1..=24u32 {
        match round % 4 {
            0 => kill_and_restart(&mut cluster, "mgr"),
            1 => kill_and_restart(&mut cluster, "iod0"),
            2 => cluster.kill_worker("mount0"),
            _ => cluster.kill_worker("mount1"),
        }
        let text = "x".repeat(round as usize);
        fs::write(one.join("f"), &text).unwrap();
        let mut bytes = [0; 100];
        let len = open.read_at(&mut bytes, 0).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes[..len]), text, "round {round}");
        assert_eq!(open.metadata().unwrap().len(), u64::from(round));
        fs::rename(two.join("f"), two.join("g")).unwrap();
        assert_eq!(fs::read_to_string(one.join("g")).unwrap(), text);
        assert!(!one.join("f").exists());
        fs::rename(one.join("g"), one.join("f")).unwrap();
        assert!(two.join("f").exists() && !two.join("g").exists());
    }
}

#[test]
fn what_the_next_worker_tells_first_of_an_open_file_is_taken_notice_of() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let (one, two) = (cluster.mount(&["-o", "cache=coherent"]), cluster.mount(&["-o", "cache=coherent"]));
    let here =
        File::options().read(true).write(true).create(true).truncate(true).open(one.join("f")).unwrap();
    let mut there = File::options().read(true).write(true).open(two.join("f")).unwrap();
    for round in 1..=10u32 {
        let text = round.to_string().repeat((round * 37 % 100) as usize);
        here.set_len(0).unwrap();
        here.write_all_at(text.as_bytes(), 0).unwrap();
        cluster.kill_worker("mount1");
        if round % 2 == 0 {
            assert_eq!(there.seek(SeekFrom::End(0)).unwrap(), text.len() as u64, "round {round}");
        }
        let mut bytes = [0; 200];
        let len = there.read_at(&mut bytes, 0).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes[..len]), text, "round {round}");
        assert_eq!(there.seek(SeekFrom::End(0)).unwrap(), text.len() as u64, "round {round}");
    }
}

#[test]
fn appends_of_two_mounts_in_turn_follow_each_other_also_while_workers_are_killed() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let (one, two) = (cluster.mount(&["-o", "cache=coherent"]), cluster.mount(&["-o", "cache=coherent"]));
    let open = |mount: &Path| File::options().append(true).create(true).open(mount.join("log")).unwrap();
    let mut logs = [open(&one), open(&two)];
    let mut expected = String::new();
    for round in 0..120usize {
        let line = format!("line {round} {}\n", "x".repeat(round * 37 % 500));
        logs[round / 2 % 2].write_all(line.as_bytes()).unwrap();
        expected += &line;
        match round % 15 {
            7 => cluster.kill_worker("mount0"),
            14 => cluster.kill_worker("mount1"),
            _ => {}
        }
    }
    for mount in [&one, &two] {
        assert_eq!(fs::read_to_string(mount.join("log")).unwrap(), expected);
    }
}

/// Ends the other threads, also when this one fails.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_append_is_made_once_when_the_worker_dies_in_it() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let mount = cluster.mount(&["-o", "cache=coherent"]);
    let path = mount.join("log");
    let (stop, written) = (AtomicBool::new(false), AtomicI32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = File::options().append(true).create(true).open(&path).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let line = written.load(Ordering::Relaxed);
                log.write_all(format!("{line:07}\n").as_bytes()).unwrap();
                written.store(line + 1, Ordering::Relaxed);
            }
        });
        let _stops = Stops(&stop);
        for kill in 1..=12 {
            // So that each kill is another worker's.
            wait_until("it is appended to", Duration::from_mins(1), || {
                written.load(Ordering::Relaxed) >= kill * 30
            });
            cluster.kill_worker("mount0");
        }
    });
    let lines = written.load(Ordering::Relaxed);
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.lines().map(|line| line.parse::<i32>().unwrap()).eq(0..lines),
        "{} lines of {lines}",
        text.lines().count()
    );
}

/// Also when the mgr was told before that the file is not open.
#[test]
fn a_file_whose_last_name_has_just_gone_is_opened_for_good_or_not_at_all() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let (mount, _) = (cluster.mount(&["-o", "cache=coherent"]), cluster.mount(&[]));
    let path = mount.join("f");
    fs::write(&path, "text").unwrap();
    // As an open that was under way when the last name went, this brings the kernel to open an inode without any.
    let place = File::options().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
    let open = || File::open(format!("/proc/self/fd/{}", place.as_raw_fd()));
    // The file stays, for this one does not say that it has not got it open.
    cluster.signal_worker("mount1", Signal::STOP);
    fs::remove_file(&path).unwrap();
    assert_eq!(place.metadata().unwrap().nlink(), 0);
    // Meanwhile the first mount has said that it has not.
    std::thread::sleep(Duration::from_millis(500));
    let mut file = open().unwrap();
    cluster.signal_worker("mount1", Signal::CONT);
    fs::write(&path, "another").unwrap();
    fs::remove_file(&path).unwrap();
    cluster.wait_orphans(1);
    assert_eq!(std::io::read_to_string(&mut file).unwrap(), "text");
    drop(file);
    cluster.wait_objects(0);
    assert_eq!(open().unwrap_err().raw_os_error(), Some(libc::ESTALE));
}

#[test]
fn a_file_without_a_name_is_opened_by_who_has_it_open() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let mount = cluster.mount(&["-o", "cache=coherent"]);
    let path = mount.join("f");
    let mut file = File::create_new(&path).unwrap();
    file.write_all(b"text").unwrap();
    fs::remove_file(&path).unwrap();
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    // Once at once, and once when the mgr knows for sure who has it open.
    for _ in 0..2 {
        assert_eq!(fs::read_to_string(&again).unwrap(), "text");
        File::options().write(true).open(&again).unwrap().write_all_at(b"T", 0).unwrap();
        assert_eq!(fs::read_to_string(&again).unwrap(), "Text");
        std::thread::sleep(Duration::from_millis(300));
        file.write_all_at(b"t", 0).unwrap();
    }
    assert_eq!(File::create(&again).unwrap().metadata().unwrap().len(), 0, "O_TRUNC");
    file.set_permissions(PermissionsExt::from_mode(0o000)).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 0);
    drop(file);
    cluster.wait_objects(0);
}

/// Writes past the kernel's pages of a file, which it and two others map and read meanwhile.
const WRITE: &str = r"
import mmap, os, signal, struct, sys
path, rounds, pages = sys.argv[1], int(sys.argv[2]), 8
write, read = os.open(path, os.O_WRONLY), os.open(path, os.O_RDONLY)
memory = mmap.mmap(read, pages * 4096, prot=mmap.PROT_READ)
readers = []
for _ in range(2):
    reader = os.fork()
    while reader == 0:
        for at in range(0, pages * 4096, 4096):
            memory[at]
    readers.append(reader)
try:
    for number in range(1, rounds + 1):
        at = number % pages * 4096
        os.pwrite(write, struct.pack('<Q', number), at)
        mapped, = struct.unpack_from('<Q', memory, at)
        got, = struct.unpack('<Q', os.pread(read, 8, at))
        assert (mapped, got) == (number, number), (mapped, got, number)
        if number == rounds // 4:
            print('a quarter', flush=True)
finally:
    for reader in readers:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
";

#[test]
fn what_is_written_past_the_pages_is_found_at_once_by_who_maps_and_who_reads_them() {
    const PYTHON: &str = "/usr/bin/python3";
    if !can_mount() {
        return;
    }
    if !Path::new(PYTHON).exists() {
        return eprintln!("no {PYTHON} here: no safe Rust maps a file that others change");
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let mount = cluster.mount(&[]);
    let path = mount.join("f");
    fs::write(&path, vec![0; 1 << 16]).unwrap();
    let mut command = Command::new(PYTHON);
    let mut program =
        command.args(["-c", WRITE]).arg(&path).arg("4000").stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "a quarter\n");
    // Of what a worker had given away, the next one does not know how it was opened.
    cluster.kill_worker("mount0");
    assert!(program.wait().unwrap().success());
}
