//! Small files whose bytes the mgr keeps: few messages, none to iods, and nobody sees where the bytes are.

use crate::{
    cluster::{Cluster, ROOT, Sent, bytes, forget_session, in_time, name},
    gathers::{Desk, create, gathering, open},
};
use pvfs_client::{Client, OpenOptions};
use pvfs_types::{Errno, Ino, SetAttr, limits::INLINE_BYTES_MAX};
use std::{sync::Arc, time::Duration};

/// Makes a file of `data` and closes it.
async fn small(client: &Client, file: &str, data: &[u8]) -> Ino {
    let made = create(client, file).await;
    made.write_at(0, data.to_vec().into()).await.unwrap();
    in_time(made.close()).await.unwrap();
    made.ino()
}

async fn is_inline(client: &Client, ino: Ino) -> bool {
    in_time(client.getattr(&ROOT, ino)).await.unwrap().is_inline()
}

/// All of a file, as `client` reads it.
async fn read(client: &Client, ino: Ino) -> Vec<u8> {
    let file = in_time(open(client, ino, OpenOptions::READ)).await;
    let data = in_time(file.read_at(0, 1 << 20)).await.unwrap();
    in_time(file.close()).await.unwrap();
    data.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_file_costs_two_messages_to_make_one_to_read_and_one_to_remove_and_asks_no_iod() {
    let cluster = Cluster::start(2).await;
    let (client, desk) = gathering(&cluster).await;
    let data = bytes(1, 3_901);
    let sent = Sent::since_now(&client);
    let ino = small(&client, "f", &data).await;
    assert_eq!(sent.get(), (2, 0), "create, write, close");
    assert_eq!((desk.gathered_bytes(), is_inline(&client, ino).await), (0, true));
    assert_eq!(client.getattr(&ROOT, ino).await.unwrap().size, 3_901);
    assert_eq!(sent.get(), (2, 0), "what was told with it is known");

    // As a mount does, which opens what it knows without a question.
    let held = client.hold_known(ino).expect("has a name");
    let file = client.open_held(&ROOT, &held).await.unwrap();
    assert_eq!(file.read_at(0, 9_000).await.unwrap(), data);
    assert_eq!(sent.get(), (3, 0), "open, read");
    assert!(file.read_at(3_901, 10).await.unwrap().is_empty());
    assert_eq!(file.read_at(3_900, 10).await.unwrap(), data[3_900..]);
    assert_eq!((file.seek_data(7).await.unwrap(), file.seek_hole(7).await.unwrap()), (7, 3_901));
    drop((file, held));
    client.unlink(&ROOT, Ino::ROOT, &name("f")).await.unwrap();
    let iods = || {
        ["write", "read", "sync", "stat_objects", "find_data", "remove_objects"]
            .map(|op| cluster.iods_received(op))
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(iods(), [0; 6], "nothing was there, and nothing is to be removed");
    in_time(client.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_fits_and_was_never_sent_is_kept() {
    let cluster = Cluster::start(2).await;
    let (client, _) = gathering(&cluster).await;
    for (file, len, is_kept) in
        [("one", 1, true), ("most", INLINE_BYTES_MAX, true), ("more", INLINE_BYTES_MAX + 1, false)]
    {
        let ino = small(&client, file, &bytes(1, len)).await;
        assert_eq!(is_inline(&client, ino).await, is_kept, "{file}");
        assert_eq!(read(&client, ino).await, bytes(1, len), "{file}");
    }
    let synced = create(&client, "synced").await;
    synced.write_at(0, "sent".into()).await.unwrap();
    in_time(synced.sync()).await.unwrap();
    synced.write_at(4, ", and more".into()).await.unwrap();
    in_time(synced.close()).await.unwrap();
    assert!(!is_inline(&client, synced.ino()).await);
    assert_eq!(read(&client, synced.ino()).await, b"sent, and more");
    let holey = create(&client, "holey").await;
    holey.write_at(10, "behind a hole".into()).await.unwrap();
    in_time(holey.close()).await.unwrap();
    assert!(!is_inline(&client, holey.ino()).await);
    // Two handles: the first close sends, for the other may write on.
    let first = create(&client, "two").await;
    first.write_at(0, "one,".into()).await.unwrap();
    let second = open(&client, first.ino(), OpenOptions::WRITE).await;
    in_time(first.close()).await.unwrap();
    second.append("two".into()).await.unwrap();
    in_time(second.close()).await.unwrap();
    assert_eq!(read(&client, first.ino()).await, b"one,two");
    in_time(client.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_changes_it_in_whatever_way_everybody_sees_it() {
    let mut cluster = Cluster::start(2).await;
    let (a, _) = gathering(&cluster).await;
    let (b, c) = (Desk::new(8).connect(cluster.config()).await, cluster.client().await);
    for round in 0..18 {
        let data = bytes(round, 3_000);
        let ino = small(&a, &format!("f{round}"), &data).await;
        assert!(is_inline(&b, ino).await, "round {round}");
        let mut model = data.clone();
        let readers = [&a, &b, &c].map(|client| open(client, ino, OpenOptions::READ));
        let readers = futures_util::future::join_all(readers).await;
        for reader in &readers {
            assert_eq!(reader.read_at(0, 9_000).await.unwrap(), data, "round {round}");
        }
        if round % 4 == 3 {
            cluster.stop_mgr().await;
            cluster.start_mgr().await;
        }
        let by = [&a, &b, &c][usize::try_from(round).unwrap() % 3];
        let resized = |size| SetAttr { size: Some(size), ..SetAttr::default() };
        match round % 6 {
            0 => {
                let file = in_time(open(by, ino, OpenOptions::WRITE)).await;
                in_time(file.write_at(1_000, bytes(77, 100).into())).await.unwrap();
                model[1_000..1_100].copy_from_slice(&bytes(77, 100));
            }
            1 => {
                let file = in_time(open(by, ino, OpenOptions::WRITE)).await;
                assert_eq!(in_time(file.append(bytes(77, 10_000).into())).await.unwrap(), 3_000);
                model.extend(bytes(77, 10_000));
            }
            2 => {
                in_time(by.setattr(&ROOT, ino, resized(1_234), None)).await.unwrap();
                model.truncate(1_234);
            }
            3 => {
                in_time(by.setattr(&ROOT, ino, resized(5_000), None)).await.unwrap();
                model.resize(5_000, 0);
            }
            4 => {
                let file = in_time(open(by, ino, OpenOptions::WRITE.truncate())).await;
                in_time(file.write_at(0, "new".into())).await.unwrap();
                model = b"new".to_vec();
            }
            _ => {
                let file = in_time(open(by, ino, OpenOptions::WRITE)).await;
                in_time(file.punch(100, 200)).await.unwrap();
                model[100..300].fill(0);
            }
        }
        for reader in &readers {
            assert_eq!(
                in_time(reader.read_at(0, 99_000)).await.unwrap(),
                model,
                "round {round}, open before"
            );
        }
        for client in [&a, &b, &c] {
            assert_eq!(read(client, ino).await, model, "round {round}");
        }
        assert!(!is_inline(&c, ino).await, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_target_is_away_readers_go_on_and_who_is_to_write_waits() {
    let mut cluster = Cluster::start(1).await;
    let (a, _) = gathering(&cluster).await;
    let ino = small(&a, "f", b"some bytes").await;
    cluster.stop_iod(0).await;
    assert_eq!(read(&a, ino).await, b"some bytes");
    let copied = small(&a, "another", b"made without any target").await;
    assert_eq!(read(&a, copied).await, b"made without any target");
    let b = cluster.client().await;
    let writing = tokio::spawn({
        let b = Arc::clone(&b);
        async move { open(&b, ino, OpenOptions::WRITE).await.append(", and more".into()).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!writing.is_finished());
    assert_eq!(read(&a, ino).await, b"some bytes");
    cluster.stop_mgr().await;
    cluster.start_mgr().await;
    assert_eq!(read(&a, ino).await, b"some bytes", "the next mgr goes on with it");
    cluster.start_iod(0).await;
    assert_eq!(in_time(writing).await.unwrap(), 10);
    assert_eq!(read(&a, ino).await, b"some bytes, and more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unlinked_file_that_is_kept_is_read_and_written_as_long_as_it_is_open() {
    let cluster = Cluster::start(2).await;
    let (a, _) = gathering(&cluster).await;
    let b = cluster.client().await;
    let ino = small(&a, "f", b"some bytes").await;
    let theirs = open(&b, ino, OpenOptions::READ).await;
    let ours = open(&a, ino, OpenOptions::READ).await;
    b.unlink(&ROOT, Ino::ROOT, &name("f")).await.unwrap();
    assert_eq!(theirs.read_at(0, 99).await.unwrap(), "some bytes");
    assert_eq!(in_time(ours.read_at(0, 99)).await.unwrap(), "some bytes");
    in_time(ours.close()).await.unwrap();
    in_time(theirs.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_the_mgr_does_not_take_goes_to_the_targets_and_is_told_of_when_the_store_is_well() {
    let cluster = Cluster::start(1).await;
    let (client, desk) = gathering(&cluster).await;
    let file = create(&client, "f").await;
    file.write_at(0, "some bytes".into()).await.unwrap();
    cluster.store_fails(true);
    in_time(file.close()).await.unwrap_err();
    assert_eq!((desk.gathered_bytes(), cluster.iods_received("write")), (0, 1));
    cluster.store_fails(false);
    let b = cluster.client().await;
    let ino = file.ino();
    assert_eq!(read(&b, ino).await, b"some bytes");
    in_time(client.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_another_session_nothing_is_kept_for_others_may_have_seen_the_file_empty() {
    let cluster = Cluster::start(1).await;
    let (client, desk) = gathering(&cluster).await;
    let file = create(&client, "f").await;
    file.write_at(0, "some bytes".into()).await.unwrap();
    forget_session(&cluster, &client).await;
    let b = cluster.client().await;
    assert!(read(&b, file.ino()).await.is_empty());
    assert_eq!(in_time(file.flush()).await.unwrap_err().errno(), Errno::EIO, "told as lost");
    assert_eq!(desk.gathered_bytes(), 0);
    assert!(!is_inline(&b, file.ino()).await);
    assert!(read(&b, file.ino()).await.is_empty());
}
