//! Twenty thousand files made, opened, unlinked and closed, some calls aborted and some refused: descriptors, memory, objects
//! and records are what they were before.

use super::native::{PVFS, ROOT, config, name};
use pvfs_client::{Client, ClientConfig, CreateOptions, OpenOptions};
use pvfs_testkit::{TestCluster, wait_until};
use pvfs_types::{Errno, Ino};
use std::{fs, path::Path, sync::Arc, time::Duration};

const LIMIT: Duration = Duration::from_mins(2);
const TASKS: usize = 32;
/// What a client keeps for each target at most.
const HELD_BYTES: u64 = 1 << 20;
/// What memory may differ by, for whatever the allocator keeps.
const SLACK_KIB: u64 = 12 << 10;

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, work).await.expect("in time") });
}

fn gauge(cluster: &TestCluster, name: &str) -> u64 {
    cluster.counters("mgr").get(name).copied().unwrap_or_else(|| panic!("no {name}"))
}

/// Open descriptors, and resident memory in KiB.
fn uses(pid: u64) -> (usize, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib = line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    (fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), kib)
}

/// `files` files come and go.
async fn come_and_go(clients: &[Arc<Client>], round: usize, files: usize) {
    let tasks = (0..TASKS).map(|task| {
        let (one, two) = (Arc::clone(&clients[task % 2]), Arc::clone(&clients[(task + 1) % 2]));
        tokio::spawn(async move {
            for n in 0..files / TASKS {
                one_file(&one, &two, &format!("{round}-{task}-{n}"), n).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

async fn one_file(one: &Client, two: &Client, path: &str, n: usize) {
    let exclusive = CreateOptions { exclusive: true, ..CreateOptions::default() };
    let file = one.create_path(&ROOT, path, exclusive).await.unwrap().file;
    file.write_at(0, vec![1; 1000].into()).await.unwrap();
    match n % 50 {
        0 => {
            let error = two.create_path(&ROOT, path, exclusive).await.expect_err("it is there");
            assert_eq!(error.errno(), Errno::EEXIST);
        }
        1 => {
            // A caller that stops waiting, somewhere on the way.
            let begin = async { two.open_path(&ROOT, path, OpenOptions::READ_WRITE).await.map(drop) };
            tokio::time::timeout(Duration::from_micros(200), begin).await.ok();
        }
        2 => assert!(two.open_path(&ROOT, "nowhere", OpenOptions::READ).await.is_err()),
        _ => {}
    }
    let other = two.open_path(&ROOT, path, OpenOptions::READ).await.unwrap();
    let unlinker = if n.is_multiple_of(2) { one } else { two };
    unlinker.unlink(&ROOT, Ino::ROOT, &name(path)).await.unwrap();
    assert_eq!(other.read_at(0, 2000).await.unwrap().len(), 1000);
    file.close().await.unwrap();
    other.close().await.unwrap();
}

#[track_caller]
fn wait_until_gone(cluster: &TestCluster) {
    for what in ["pvfs_orphans", "pvfs_garbage_objects"] {
        wait_until("nothing is to be removed", LIMIT, || gauge(cluster, what) == 0);
    }
    assert_eq!(cluster.count_objects(), 0);
}

#[test]
fn twenty_thousand_files_that_come_and_go_leave_descriptors_memory_objects_and_records_as_they_were() {
    let mut builder = TestCluster::builder(PVFS).iods(2);
    if Path::new("/dev/shm").is_dir() {
        builder = builder.below(Path::new("/dev/shm")); // what takes time here is not the disk
    }
    let cluster = builder.start();
    let daemons: Vec<(String, u64)> = cluster.status().json["daemons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|daemon| (format!("{} {}", daemon["role"], daemon["addr"]), daemon["pid"].as_u64().unwrap()))
        .chain([("the clients".to_owned(), u64::from(std::process::id()))])
        .collect();
    run(async {
        // What they keep until it is durable would be more in a round that is longer, and differ with its pace.
        let lean = || ClientConfig { held_bytes_target: HELD_BYTES, ..config(&cluster) };
        let clients = [Client::connect(lean()).await.unwrap(), Client::connect(lean()).await.unwrap()];
        come_and_go(&clients, 0, 10_000).await;
        wait_until_gone(&cluster);
        let before: Vec<_> = daemons.iter().map(|(_, pid)| uses(*pid)).collect();
        let records = gauge(&cluster, "pvfs_metadata_bytes");
        come_and_go(&clients, 1, 10_000).await;
        wait_until_gone(&cluster);
        for ((daemon, pid), before) in daemons.iter().zip(&before) {
            wait_until("descriptors are as before", LIMIT, || uses(*pid).0 <= before.0 + 4);
            let after = uses(*pid);
            println!("{daemon}: {before:?} before, {after:?} after");
            assert!(
                after.1 < before.1 + SLACK_KIB,
                "{daemon}: memory grew from {} to {} KiB",
                before.1,
                after.1
            );
        }
        println!("records: {records} bytes before, {} after", gauge(&cluster, "pvfs_metadata_bytes"));
        for client in &clients {
            assert_eq!(client.status().open_files, 0);
            client.shutdown().await.unwrap();
        }
    });
    cluster.fsck_finds_nothing();
}
