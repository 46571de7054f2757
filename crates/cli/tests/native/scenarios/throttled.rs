//! Targets that acknowledge writes and do not commit, or do nothing at all: their writers wait, others go on, memory stays
//! bounded, and all ends by itself when they are back.

use super::native::{LIMIT, PVFS, ROOT, bytes, config, connect, count, create_on, eventually, run};
use pvfs_client::{Client, ClientConfig, File, OpenOptions};
use pvfs_testkit::{Caught, Fate, Ports, TestCluster, Way, can_mount, wait_until};
use pvfs_wire::Op;
use rustix::process::Signal;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
};

const MIB: usize = 1 << 20;

/// Iods that commit when they are asked to, and only then.
fn cluster(iods: u16) -> TestCluster {
    TestCluster::builder(PVFS).iods(iods).proxied().iod_args(&["--commit-seconds", "3600"]).start()
}

/// From now on the target commits nothing, until that is released.
fn throttle(cluster: &TestCluster, iod: &str) -> Caught {
    cluster.proxy(iod).plan(Way::Request, Op::Commit, 1, Fate::Hold)
}

/// A new file on one target for each iod, in the order of the iods.
async fn a_file_on_each(client: &Client, cluster: &TestCluster) -> Vec<File> {
    let mut files = Vec::new();
    let names: Vec<String> = cluster.iods().map(str::to_owned).collect();
    for base in 0..u16::try_from(names.len()).unwrap() {
        let file = create_on(client, &format!("f{base}"), base).await;
        let before: Vec<usize> = names.iter().map(|iod| cluster.objects(iod).len()).collect();
        file.write_at(0, "some".into()).await.unwrap();
        let at = names.iter().zip(&before).position(|(iod, before)| cluster.objects(iod).len() > *before);
        files.push((at.expect("it has an object"), file));
    }
    files.sort_by_key(|(at, _)| *at);
    files.into_iter().map(|(_, file)| file).collect()
}

fn part(file: usize, n: usize) -> Vec<u8> {
    bytes(MIB, (file << 32 | n) as u64)
}

/// A client with room for 16 MiB, on a cluster of which the first `standing` targets commit nothing.
fn others_go_on_beside(standing: usize) {
    const HELD: u64 = 16 << 20;
    const WRITTEN: usize = 24;
    let cluster = cluster(4);
    run(async {
        let small = ClientConfig { held_bytes_client: HELD, ..config(&cluster) };
        let client = Client::connect(small).await.unwrap();
        let files: Vec<Arc<File>> =
            a_file_on_each(&client, &cluster).await.into_iter().map(Arc::new).collect();
        let throttled: Vec<Caught> =
            (0..standing).map(|at| throttle(&cluster, &format!("iod{at}"))).collect();
        let bounded = || {
            let held = count(&client, "pvfs_client_held_bytes");
            assert!(held <= HELD + MIB as u64, "{held} bytes are held");
        };
        let writes: Vec<_> = (0..standing)
            .map(|at| {
                let file = Arc::clone(&files[at]);
                tokio::spawn(async move {
                    for n in 0..WRITTEN {
                        file.write_at((n * MIB) as u64, part(at, n).into()).await.unwrap();
                    }
                })
            })
            .collect();
        let waits = || count(&client, "pvfs_client_held_waits_total");
        eventually("their writers wait", || waits() >= standing as u64).await;
        let held = count(&client, "pvfs_client_held_bytes");
        assert!(
            held <= HELD - (HELD >> standing) + (64 << 10),
            "none has more than half of what is left: {held}"
        );
        for n in 0..2 * WRITTEN {
            for (at, file) in files.iter().enumerate().skip(standing) {
                file.write_at((n * MIB) as u64, part(at, n).into()).await.unwrap();
                bounded();
            }
        }
        assert!(!writes.iter().any(tokio::task::JoinHandle::is_finished), "nothing was committed for them");
        for caught in &throttled {
            caught.release();
        }
        for write in writes {
            write.await.unwrap();
            bounded();
        }
        let other = connect(&cluster).await;
        for (at, file) in files.into_iter().enumerate() {
            Arc::into_inner(file).unwrap().close().await.unwrap();
            let file = other.open_path(&ROOT, &format!("f{at}"), OpenOptions::READ).await.unwrap();
            for n in 0..if at < standing { WRITTEN } else { 2 * WRITTEN } {
                let read = file.read_at((n * MIB) as u64, MIB as u64).await.unwrap();
                assert!(read == part(at, n), "MiB {n} of file {at}");
            }
            file.close().await.unwrap();
        }
        client.shutdown().await.unwrap();
        other.shutdown().await.unwrap();
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn a_target_that_commits_nothing_takes_half_of_the_room_and_writers_to_the_others_go_on() {
    others_go_on_beside(1);
}

#[test]
fn several_targets_that_commit_nothing_leave_room_for_the_others_too() {
    others_go_on_beside(3);
}

/// A counter of a mount that serves them at `addr`.
fn served(addr: &str, name: &str) -> u64 {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().parse().unwrap_or(0)
}

/// Memory of a process that is its own or shared, in MiB.
fn memory_mib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (kib("RssAnon:") + kib("RssShmem:")) / 1024
}

fn writing(dir: &Path, file: usize, count: usize) -> JoinHandle<()> {
    let path = dir.join(format!("f{file}"));
    std::thread::spawn(move || {
        let open = fs::File::options().write(true).open(path).unwrap();
        for n in 0..count {
            open.write_all_at(&part(file, n), (n * MIB) as u64).unwrap();
        }
    })
}

#[test]
fn a_mounts_memory_stays_bounded_while_some_targets_commit_nothing_and_another_one_is_stopped() {
    const WRITTEN: usize = 80;
    const MEMORY_MIB: u64 = 256;
    if !can_mount() {
        return;
    }
    let mut cluster = cluster(6);
    run(async {
        let client = connect(&cluster).await;
        for file in a_file_on_each(&client, &cluster).await {
            file.close().await.unwrap();
        }
        client.shutdown().await.unwrap();
    });
    let ports = Ports::hold(1);
    let addr = ports.addr(0);
    let dir = cluster.mount(&["--metrics", &addr]);
    let worker = cluster.process("mount0").children()[0];
    let bounded = || {
        let (held, memory) = (served(&addr, "pvfs_client_held_bytes"), memory_mib(worker));
        assert!(held <= 129 << 20, "{held} bytes are held");
        assert!(memory <= MEMORY_MIB, "{memory} MiB of memory");
    };
    let throttled = ["iod0", "iod1", "iod2"].map(|iod| throttle(&cluster, iod));
    let slow = [0, 1, 2].map(|file| writing(&dir, file, WRITTEN));
    let waits = || served(&addr, "pvfs_client_held_waits_total");
    wait_until("writers to those that commit nothing wait", LIMIT, || {
        bounded();
        waits() >= 3
    });
    cluster.stop("iod3");
    let stopped = writing(&dir, 3, WRITTEN);
    let others = [4, 5].map(|file| writing(&dir, file, WRITTEN));
    wait_until("who writes to the others is done", LIMIT, || {
        bounded();
        others.iter().all(JoinHandle::is_finished)
    });
    assert!(!stopped.is_finished() && !slow.iter().any(JoinHandle::is_finished), "they wait");
    cluster.signal("iod3", Signal::CONT);
    throttled.iter().for_each(Caught::release);
    wait_until("all is written", LIMIT, || {
        bounded();
        stopped.is_finished() && slow.iter().all(JoinHandle::is_finished)
    });
    for writing in slow.into_iter().chain([stopped]).chain(others) {
        writing.join().unwrap();
    }
    run(async {
        let client = connect(&cluster).await;
        for at in 0..6 {
            let file = client.open_path(&ROOT, &format!("f{at}"), OpenOptions::READ).await.unwrap();
            for n in 0..WRITTEN {
                let read = file.read_at((n * MIB) as u64, MIB as u64).await.unwrap();
                assert!(read == part(at, n), "MiB {n} of file {at}");
            }
            file.close().await.unwrap();
        }
        client.shutdown().await.unwrap();
    });
    cluster.unmount(&dir);
    cluster.fsck_finds_nothing();
}
