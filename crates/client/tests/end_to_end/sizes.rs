//! Sizes and times while files are written: by this client, by others, under truncations.

use crate::cluster::{Cluster, ROOT, Sent, bytes, create, eventually, layout};
use pvfs_client::OpenOptions;
use pvfs_types::mode::SUID;
use pvfs_types::{Cred, SetAttr, SetTime, Timestamp};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_size_that_was_not_told_yet_is_seen_by_everybody() {
    let cluster = Cluster::start(3).await;
    let (writer, other) = (cluster.client().await, cluster.client().await);
    let file = create(&writer, "f", layout(3, 4096)).await;
    file.write_at(0, bytes(1, 20_000).into()).await.unwrap();
    assert_eq!(writer.resolve(&ROOT, "f", true).await.unwrap().size, 20_000);
    assert_eq!(other.resolve(&ROOT, "f", true).await.unwrap().size, 20_000);
    let reader = other.open_path(&ROOT, "f", OpenOptions::READ).await.unwrap();
    assert_eq!(reader.read_at(0, 1 << 20).await.unwrap(), bytes(1, 20_000));
    file.write_at(20_000, "more".into()).await.unwrap();
    assert_eq!(reader.read_at(20_000, 100).await.unwrap(), "more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_failed_in_part_leaves_no_old_size() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(2, 4096)).await;
    file.write_at(0, "0123456789".into()).await.unwrap();
    assert_eq!(file.read_at(0, 100).await.unwrap(), "0123456789", "and the size is fresh");
    cluster.faults().fail_the_write_after_next();
    file.write_list(&[(8192, 10), (100, 10)], bytes(1, 20).into()).await.unwrap_err();
    assert_eq!(
        file.read_at(4096, 100).await.unwrap(),
        [0; 100].as_slice(),
        "the target of this hole knows of no bytes"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_leaves_out_what_only_targets_know() {
    let cluster = Cluster::start(2).await;
    let (writer, other) = (cluster.client().await, cluster.client().await);
    let file = create(&writer, "f", layout(2, 4096)).await;
    file.write_at(0, bytes(1, 5000).into()).await.unwrap();
    let sent = Sent::since_now(&other);
    let seen = other.readdir_all(&ROOT, pvfs_types::Ino::ROOT, true).await.unwrap();
    assert_eq!((sent.get(), seen[0].attr.as_ref()), ((1, 0), None));
    let own = writer.readdir_all(&ROOT, pvfs_types::Ino::ROOT, true).await.unwrap();
    assert_eq!(own[0].attr.as_ref().map(|attr| attr.size), Some(5000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_after_flush_is_told_again() {
    let cluster = Cluster::start(2).await;
    let (writer, other) = (cluster.client().await, cluster.client().await);
    let file = create(&writer, "f", layout(2, 4096)).await;
    file.write_at(0, bytes(1, 5000).into()).await.unwrap();
    file.flush().await.unwrap();
    let sent = Sent::since_now(&writer);
    file.flush().await.unwrap();
    assert_eq!(sent.get(), (0, 0), "nothing new to tell");
    let sent = Sent::since_now(&writer);
    file.write_at(5000, bytes(1, 5000).into()).await.unwrap();
    assert_eq!(sent.get().0, 1, "recorded as a writer again");
    assert_eq!(other.resolve(&ROOT, "f", true).await.unwrap().size, 10_000);
    let sent = Sent::since_now(&writer);
    file.close().await.unwrap();
    assert_eq!(sent.get(), (1, 0));
    let sent = Sent::since_now(&other);
    assert_eq!(other.resolve(&ROOT, "f", true).await.unwrap().size, 10_000);
    assert_eq!(sent.get(), (1, 0), "nobody writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_writers_record_stays_until_its_last_handle_is_closed() {
    let cluster = Cluster::start(2).await;
    let (writer, other) = (cluster.client().await, cluster.client().await);
    let first = create(&writer, "f", layout(2, 4096)).await;
    let second = writer.open_path(&ROOT, "f", OpenOptions::WRITE).await.unwrap();
    first.write_at(0, "12345".into()).await.unwrap();
    first.close().await.unwrap();
    second.write_at(5, "678".into()).await.unwrap();
    assert_eq!(other.resolve(&ROOT, "f", true).await.unwrap().size, 8, "asked of the targets");
    second.close().await.unwrap();
    let sent = Sent::since_now(&other);
    assert_eq!(other.resolve(&ROOT, "f", true).await.unwrap().size, 8);
    assert_eq!(sent.get(), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_handle_is_closed_in_the_background() {
    let cluster = Cluster::start(2).await;
    let (writer, other) = (cluster.client().await, cluster.client().await);
    let file = create(&writer, "f", layout(2, 4096)).await;
    file.write_at(0, "12345".into()).await.unwrap();
    drop(file);
    eventually("closed", || writer.status().open_files == 0).await;
    let sent = Sent::since_now(&other);
    assert_eq!(other.resolve(&ROOT, "f", true).await.unwrap().size, 5);
    assert_eq!(sent.get(), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_tells_what_was_written() {
    let cluster = Cluster::start(2).await;
    let (writer, other) = (cluster.client().await, cluster.client().await);
    let file = create(&writer, "f", layout(2, 4096)).await;
    file.write_at(0, "12345".into()).await.unwrap();
    writer.shutdown().await.unwrap();
    let sent = Sent::since_now(&other);
    assert_eq!(other.resolve(&ROOT, "f", true).await.unwrap().size, 5);
    assert_eq!(sent.get(), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_set_after_a_write_stays() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(1, 4096)).await;
    file.write_at(0, "12345".into()).await.unwrap();
    let then = Timestamp { secs: 1_000_000, nanos: 7 };
    let changes = SetAttr { mtime: Some(SetTime::At(then)), ..SetAttr::default() };
    assert_eq!(client.setattr(&ROOT, file.ino(), changes, None).await.unwrap().mtime, then);
    file.close().await.unwrap();
    let attr = client.resolve(&ROOT, "f", true).await.unwrap();
    assert_eq!((attr.mtime, attr.size), (then, 5));
    let file = client.open_path(&ROOT, "f", OpenOptions::WRITE).await.unwrap();
    file.write_at(0, "6".into()).await.unwrap();
    assert!(file.attr().await.unwrap().mtime > then, "a later write counts");
    file.close().await.unwrap();
    assert!(client.resolve(&ROOT, "f", true).await.unwrap().mtime > then);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_by_others_takes_set_user_id_away() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(1, 4096)).await;
    let set = SetAttr { mode: Some(0o777 | SUID), ..SetAttr::default() };
    client.setattr(&ROOT, file.ino(), set, None).await.unwrap();
    file.write_at(0, "by root".into()).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(client.resolve(&ROOT, "f", true).await.unwrap().mode, 0o777 | SUID);
    let user = Cred { uid: 7, gid: 7, groups: vec![] };
    let file = client.open_path(&user, "f", OpenOptions::WRITE).await.unwrap();
    file.write_at(0, "by user".into()).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(client.resolve(&ROOT, "f", true).await.unwrap().mode, 0o777);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncation_by_another_client_is_seen_by_the_writer() {
    let cluster = Cluster::start(2).await;
    let (writer, other) = (cluster.client().await, cluster.client().await);
    let file = create(&writer, "f", layout(2, 4096)).await;
    file.write_at(0, bytes(1, 50_000).into()).await.unwrap();
    let cut = SetAttr { size: Some(100), ..SetAttr::default() };
    assert_eq!(other.setattr(&ROOT, file.ino(), cut, None).await.unwrap().size, 100);
    file.write_at(200, "end".into()).await.unwrap();
    file.sync().await.unwrap();
    assert_eq!(file.attr().await.unwrap().size, 203);
    file.close().await.unwrap();
    assert_eq!(other.resolve(&ROOT, "f", true).await.unwrap().size, 203);
    let reader = other.open_path(&ROOT, "f", OpenOptions::READ).await.unwrap();
    let mut expect = bytes(1, 100);
    expect.extend([0; 100]);
    expect.extend(b"end");
    assert_eq!(reader.read_at(0, 1000).await.unwrap(), expect);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_reader_follows_when_another_client_replaces_all_bytes() {
    let cluster = Cluster::start(2).await;
    let (writer, other) = (cluster.client().await, cluster.client().await);
    let file = create(&writer, "f", layout(2, 4096)).await;
    file.write_at(0, bytes(1, 20_000).into()).await.unwrap();
    file.close().await.unwrap();
    let reader = other.open_path(&ROOT, "f", OpenOptions::READ).await.unwrap();
    assert_eq!(reader.read_at(0, 20_000).await.unwrap(), bytes(1, 20_000));
    // Truncation swaps the data generation: the old objects are removed in the background.
    let file = writer.open_path(&ROOT, "f", OpenOptions::WRITE.truncate()).await.unwrap();
    file.write_at(0, bytes(2, 10_000).into()).await.unwrap();
    file.close().await.unwrap();
    eventually("old objects are removed", || cluster.iods_received("remove_objects") >= 2).await;
    assert_eq!(reader.read_at(0, 20_000).await.unwrap(), bytes(2, 10_000));
    assert_eq!(reader.attr().await.unwrap().size, 10_000);
}

/// The mgr has answered before it was told, and the client knows no more what it told when the answer comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stat_beside_a_close_knows_what_was_written() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    for n in 0..300 {
        let name = format!("f{n}");
        let file = create(&client, &name, layout(1, 4096)).await;
        file.write_at(0, "0123456789".into()).await.unwrap();
        let ino = file.ino();
        let asking = tokio::spawn({
            let client = std::sync::Arc::clone(&client);
            async move {
                let attr = client.getattr(&ROOT, ino).await.unwrap();
                (attr.size, client.resolve(&ROOT, &name, true).await.unwrap().size)
            }
        });
        file.close().await.unwrap();
        assert_eq!(asking.await.unwrap(), (10, 10), "round {n}");
    }
}
