//! Disks that fail to write back what was acknowledged, or to read: what is held is sent again, what is lost is told.

use crate::cluster::{Cluster, ROOT, bytes, create, eventually, in_time, layout};
use pvfs_client::{Client, File, OpenOptions};
use pvfs_types::Errno;
use std::{sync::Arc, time::Duration};

fn count(client: &Client, name: &str) -> u64 {
    client.metrics().snapshot().into_iter().find(|(of, _)| of == name).map_or(0, |(_, n)| n)
}

async fn fsync_errno(file: &File) -> Errno {
    in_time(file.sync()).await.expect_err("the disk fails").errno()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_back_that_fails_once_costs_sending_again_and_no_error() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(2, 4096)).await;
    file.write_at(0, bytes(1, 50_000).into()).await.unwrap();
    cluster.faults().fail_next_sync();
    in_time(file.sync()).await.unwrap();
    assert_eq!(count(&client, "pvfs_client_replays_total"), 1, "the kernel may have dropped the bytes");
    assert_eq!(file.read_at(0, 50_000).await.unwrap(), bytes(1, 50_000));
    in_time(file.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fsync_fails_as_long_as_the_disk_does_and_then_nothing_is_missing() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(1, 4096)).await;
    file.write_at(0, bytes(1, 50_000).into()).await.unwrap();
    cluster.faults().fail_syncs();
    assert_eq!(fsync_errno(&file).await, Errno::EIO);
    assert_eq!(fsync_errno(&file).await, Errno::EIO, "not forgotten: what is not durable is no success");
    cluster.faults().heal();
    in_time(file.sync()).await.unwrap();
    assert_eq!(count(&client, "pvfs_client_lost_bytes_total"), 0);
    assert_eq!(file.read_at(0, 50_000).await.unwrap(), bytes(1, 50_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_to_take_bytes_again_is_asked_once_more() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(1, 4096)).await;
    file.write_at(0, bytes(1, 50_000).into()).await.unwrap();
    cluster.faults().fail_next_sync();
    cluster.faults().fail_next_write();
    in_time(file.sync()).await.expect("sent again, and then once more");
    assert_eq!(count(&client, "pvfs_client_lost_bytes_total"), 0);
    assert_eq!(file.read_at(0, 50_000).await.unwrap(), bytes(1, 50_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_truncation_to_nothing_is_under_way_the_mgr_is_asked_before_bytes_are_sent_again() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let file = Arc::new(create(&client, "f", layout(1, 4096)).await);
    file.write_at(0, bytes(1, 50_000).into()).await.unwrap();
    cluster.stop_mgr().await;
    let (truncating, syncing) = (Arc::clone(&file), Arc::clone(&file));
    let truncating = tokio::spawn(async move { truncating.truncate(0).await });
    eventually("under way", || client.status().changes_in_flight > 0).await;
    cluster.faults().fail_next_sync();
    let syncing = tokio::spawn(async move { syncing.sync().await });
    eventually("to be sent again", || count(&client, "pvfs_client_replays_total") > 0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(count(&client, "pvfs_client_replayed_bytes_total"), 0, "who knows whose object that is");
    cluster.start_mgr().await;
    assert_eq!(in_time(truncating).await.unwrap().unwrap().size, 0);
    in_time(syncing).await.unwrap().unwrap();
    assert_eq!(count(&client, "pvfs_client_lost_bytes_total"), 0);
    assert_eq!(file.read_at(0, 50_000).await.unwrap(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_again_is_told_once_to_every_writer_of_the_file() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(1, 4096)).await;
    let second = client.open_path(&ROOT, "f", OpenOptions::READ_WRITE).await.unwrap();
    let reader = client.open_path(&ROOT, "f", OpenOptions::READ).await.unwrap();
    let innocent = create(&client, "g", layout(1, 4096)).await;
    file.write_at(0, bytes(1, 50_000).into()).await.unwrap();
    cluster.faults().fail_next_sync();
    cluster.faults().fail_writes();
    assert_eq!(fsync_errno(&file).await, Errno::EIO);
    assert_eq!(count(&client, "pvfs_client_lost_bytes_total"), 50_000);
    cluster.faults().heal();
    in_time(file.sync()).await.expect("told once");
    in_time(reader.sync()).await.expect("it wrote nothing");
    in_time(innocent.sync()).await.expect("another file");
    let third = client.open_path(&ROOT, "f", OpenOptions::READ_WRITE).await.unwrap();
    in_time(third.close()).await.expect("opened after the loss");
    assert_eq!(in_time(second.close()).await.expect_err("told at its close").errno(), Errno::EIO);
    file.write_at(0, bytes(2, 50_000).into()).await.unwrap();
    in_time(file.sync()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_never_commits_does_not_hold_up_writers_for_ever() {
    let cluster = Cluster::start(1).await;
    let mut config = cluster.config();
    config.held_bytes_target = 1 << 20;
    let client = Client::connect(config).await.unwrap();
    let file = create(&client, "f", layout(1, 4096)).await;
    cluster.faults().fail_syncs();
    for n in 0..8 {
        in_time(file.write_at(n << 18, bytes(n, 1 << 18).into())).await.unwrap();
    }
    assert_eq!(fsync_errno(&file).await, Errno::EIO, "the loss is told");
    assert!(count(&client, "pvfs_client_lost_bytes_total") > 0);
    cluster.faults().heal();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_ends_has_everything_committed() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(2, 4096)).await;
    file.write_at(0, bytes(1, 50_000).into()).await.unwrap();
    assert!(count(&client, "pvfs_client_held_bytes") >= 50_000);
    file.close().await.unwrap();
    in_time(client.shutdown()).await.unwrap();
    assert_eq!(count(&client, "pvfs_client_held_bytes"), 0);
    assert!(cluster.iods_received("commit") >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synced_file_is_not_held_any_more() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(2, 4096)).await;
    file.write_at(0, bytes(1, 50_000).into()).await.unwrap();
    in_time(file.sync()).await.unwrap();
    eventually("nothing is held", || count(&client, "pvfs_client_held_bytes") == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_disk_cannot_read_is_an_error_and_never_zeros() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(2, 4096)).await;
    file.write_at(0, bytes(1, 50_000).into()).await.unwrap();
    cluster.faults().fail_reads();
    let error = in_time(file.read_at(4096, 10_000)).await.expect_err("the disk fails");
    assert_eq!(error.errno(), Errno::EIO);
    file.write_at(50_000, bytes(2, 100).into()).await.expect("what needs no reading goes on");
    cluster.faults().heal();
    let all = [bytes(1, 50_000), bytes(2, 100)].concat();
    assert_eq!(
        file.read_at(0, 60_000).await.unwrap(),
        all,
        "the daemons live, and nothing is kept of the error"
    );
}
