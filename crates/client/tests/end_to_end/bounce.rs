//! An iod goes away and comes back under many clients with many open files: what that costs in messages.

use crate::cluster::{Cluster, Pace, bytes, in_time, layout, name};
use pvfs_client::{Client, File};
use pvfs_types::Ino;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How many of each.
struct Scale {
    clients: usize,
    iods: usize,
    files_each: usize,
}

/// So many files of each client are written and read: a process has no descriptors for connections of every client to every
/// iod.
const WRITTEN: usize = 2;
/// Clients do nothing by themselves for the time of the test.
const QUIET: Pace = Pace { lease_ms: 600_000, keep_alive_ms: 300_000 };

/// Connections that it made, each with one hello.
fn connects(client: &Client) -> u64 {
    let of_all = client.metrics().snapshot();
    of_all.iter().filter(|(name, _)| name.starts_with("pvfs_connects_total")).map(|(_, n)| n).sum()
}

async fn bounce(scale: &Scale) -> (u64, u64, Duration) {
    let mut cluster = Cluster::with_pace(scale.iods, QUIET).await;
    let mut clients: Vec<Arc<Client>> = Vec::new();
    let mut files: Vec<File> = Vec::new();
    for number in 0..scale.clients {
        let client = cluster.client().await;
        for file in 0..scale.files_each {
            // Two targets each. The first file of each client lies on the iod that goes, the second on two others.
            let mut options = layout(2, 4096);
            let first = if file == 0 { 0 } else { 1 + (number + file - 1) % (scale.iods - 1) };
            options.layout.base = Some(u16::try_from(first).unwrap());
            let path = name(&format!("{number}.{file}"));
            let made = client.create(&crate::cluster::ROOT, Ino::ROOT, &path, options).await.unwrap();
            if file < WRITTEN {
                made.file.write_at(0, bytes(number as u64, 8192).into()).await.unwrap();
            }
            files.push(made.file);
        }
        clients.push(client);
    }
    // Everybody has a connection to the iod that goes, from its writes; nothing is in flight.
    let connects = |clients: &[Arc<Client>]| clients.iter().map(|client| connects(client)).sum::<u64>();
    cluster.stop_iod(0).await;
    let (mgr_before, connects_before) = (cluster.mgr_received_from_clients(), connects(&clients));
    cluster.start_iod(0).await;
    let back = Instant::now();
    let reads = files.chunks(scale.files_each).enumerate().map(|(number, files)| async move {
        for file in &files[..WRITTEN] {
            assert_eq!(file.read_at(0, 8192).await.unwrap(), bytes(number as u64, 8192));
        }
    });
    in_time(futures_util::future::join_all(reads)).await;
    let took = back.elapsed();
    let hellos = connects(&clients) - connects_before;
    (hellos, cluster.mgr_received_from_clients() - mgr_before, took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_iod_that_comes_back_gets_one_hello_of_each_client_and_the_mgr_gets_nothing() {
    let scale = Scale { clients: 20, iods: 4, files_each: 10 };
    let (hellos, to_mgr, _) = bounce(&scale).await;
    assert_eq!((hellos, to_mgr), (20, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and 12,000 descriptors: 1,000 clients, 64 iods, 100,000 open files"]
async fn a_thousand_clients_and_a_hundred_thousand_open_files_bounce_as_cheaply() {
    let scale = Scale { clients: 1000, iods: 64, files_each: 100 };
    let (hellos, to_mgr, took) = bounce(&scale).await;
    println!("hellos {hellos}, messages to the mgr {to_mgr}, back in full service after {took:?}");
    assert_eq!((hellos, to_mgr), (1000, 0));
}
