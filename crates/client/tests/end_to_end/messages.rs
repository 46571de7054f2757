//! What operations cost: DESIGN §11, counted in messages.

use crate::cluster::{Cluster, ROOT, Sent, bytes, create, eventually, layout, name};
use pvfs_client::OpenOptions;
use pvfs_types::{Ino, Level, LogicalOffset, Pattern};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_operations_cost_one_message_to_the_mgr_and_none_to_iods() {
    let cluster = Cluster::start(4).await;
    let client = cluster.client().await;
    let sent = Sent::since_now(&client);
    client.mkdir(&ROOT, Ino::ROOT, &name("d"), 0o755).await.unwrap();
    assert_eq!(sent.get(), (1, 0), "mkdir");

    let sent = Sent::since_now(&client);
    let file = create(&client, "f", layout(4, 4096)).await;
    assert_eq!(sent.get(), (1, 0), "create and open");
    file.write_at(0, bytes(1, 100_000).into()).await.unwrap();

    let sent = Sent::since_now(&client);
    file.close().await.unwrap();
    assert_eq!(sent.get(), (1, 0), "close after writing");

    let sent = Sent::since_now(&client);
    let attr = client.lookup(&ROOT, Ino::ROOT, &name("f")).await.unwrap();
    assert_eq!((sent.get(), attr.size), ((1, 0), 100_000), "stat");

    let sent = Sent::since_now(&client);
    let file = client.open(&ROOT, attr.ino, OpenOptions::READ).await.unwrap();
    assert_eq!(sent.get(), (1, 0), "open");

    let sent = Sent::since_now(&client);
    assert_eq!(file.read_at(3, 90_000).await.unwrap().len(), 90_000);
    assert_eq!(sent.get(), (0, 4), "read");

    let sent = Sent::since_now(&client);
    file.close().await.unwrap();
    assert_eq!(sent.get(), (0, 0), "close after reading");

    let sent = Sent::since_now(&client);
    assert_eq!(client.readdir_all(&ROOT, Ino::ROOT, true).await.unwrap().len(), 2);
    assert_eq!(sent.get(), (1, 0), "ls -l");

    let sent = Sent::since_now(&client);
    let file = client.open(&ROOT, attr.ino, OpenOptions::WRITE.truncate()).await.unwrap();
    assert_eq!(sent.get(), (1, 0), "truncate to zero");
    file.close().await.unwrap();
    eventually("the close without a write is told in the background", || sent.get() == (2, 0)).await;

    let sent = Sent::since_now(&client);
    client.unlink(&ROOT, Ino::ROOT, &name("f")).await.unwrap();
    assert_eq!(sent.get(), (1, 0), "unlink");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_an_open_file_send_nothing_to_the_mgr() {
    let cluster = Cluster::start(4).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(4, 1 << 20)).await;
    let sent = Sent::since_now(&client);
    for strip in 0..8 {
        file.write_at(strip << 20, bytes(strip, 1 << 20).into()).await.unwrap();
    }
    assert_eq!(sent.get(), (0, 8), "one request for each aligned strip");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noncontiguous_access_costs_one_request_per_target_touched() {
    let cluster = Cluster::start(4).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(4, 4096)).await;
    let pattern = Pattern {
        start: LogicalOffset(10),
        len: 8,
        levels: vec![Level { count: 100, stride: 4096 }, Level { count: 10, stride: 100 }],
    };
    let data = bytes(1, 8000);
    let sent = Sent::since_now(&client);
    file.write_strided(&pattern, data.clone().into()).await.unwrap();
    assert_eq!(sent.get(), (0, 4), "1,000 pieces written");
    let sent = Sent::since_now(&client);
    assert!(file.read_strided(&pattern).await.unwrap() == data);
    assert_eq!(sent.get(), (0, 4), "1,000 pieces read");
    let ranges: Vec<(u64, u64)> = pattern.runs().map(|(at, len)| (at.0, len)).collect();
    let sent = Sent::since_now(&client);
    assert!(file.read_list(&ranges).await.unwrap().concat() == data);
    assert_eq!(sent.get(), (0, 4), "1,000 listed pieces read");
    let sent = Sent::since_now(&client);
    file.write_list(&[(0, 4), (16_384, 4), (8_192, 4)], "abcdefghijkl".into()).await.unwrap();
    assert_eq!(sent.get(), (0, 2), "two of the targets touched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unlinked_file_frees_its_objects_in_the_background() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(2, 4096)).await;
    file.write_at(0, bytes(1, 10_000).into()).await.unwrap();
    client.unlink(&ROOT, Ino::ROOT, &name("f")).await.unwrap();
    // Several rounds of keep-alives: as long as the file is open, its bytes are there.
    let sent_before = keep_alives(&client);
    eventually("ten keep-alives", || keep_alives(&client) > sent_before + 10).await;
    assert_eq!(file.read_at(0, 10_000).await.unwrap(), bytes(1, 10_000));
    assert_eq!(cluster.iods_received("remove_objects"), 0);
    file.close().await.unwrap();
    eventually("objects are removed", || cluster.iods_received("remove_objects") >= 2).await;
}

fn keep_alives(client: &pvfs_client::Client) -> u64 {
    let snapshot = client.metrics().snapshot();
    let sent = snapshot.iter().filter(|(name, _)| name.contains("keep_alive") && name.contains("sent"));
    sent.map(|(_, n)| n).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_opened_again_for_writing_stays_known_as_written() {
    let cluster = Cluster::start(2).await;
    let (client, other) = (cluster.client().await, cluster.client().await);
    let file = create(&client, "f", layout(2, 4096)).await;
    let ino = file.ino();
    file.close().await.unwrap();
    let ends_sent = || {
        let series = client.metrics().snapshot();
        let ends = |name: &str| name.contains("dir=\"received\"") && name.contains("op=\"end_writes\"");
        series.iter().filter(|(name, _)| ends(name)).map(|(_, count)| count).sum::<u64>()
    };
    for round in 0..20 {
        client.open(&ROOT, ino, OpenOptions::WRITE).await.unwrap().close().await.unwrap();
        let held = client.open(&ROOT, ino, OpenOptions::WRITE).await.unwrap();
        // Another file's close carries along whatever end of `f` is still queued.
        let before = ends_sent();
        create(&client, &format!("g{round}"), layout(2, 4096)).await.close().await.unwrap();
        eventually("ends are told", || ends_sent() > before).await;
        let asked = cluster.iods_received("stat_objects");
        other.getattr(&ROOT, ino).await.unwrap();
        assert!(cluster.iods_received("stat_objects") > asked, "round {round}: the writer was forgotten");
        held.close().await.unwrap();
    }
    let asked = || cluster.iods_received("stat_objects");
    // And in the end it is forgotten.
    loop {
        let before = asked();
        other.getattr(&ROOT, ino).await.unwrap();
        if asked() == before {
            break;
        }
        tokio::task::yield_now().await;
    }
}

/// What operations on one file over `iods` targets cost, a strip on each.
async fn check_costs_over(iods: u16) -> Cluster {
    let cluster = Cluster::start(usize::from(iods)).await;
    let client = cluster.client().await;
    let (all, data) = (u64::from(iods), bytes(1, usize::from(iods) * 4096));
    let sent = Sent::since_now(&client);
    let file = create(&client, "f", layout(iods, 4096)).await;
    assert_eq!(sent.get(), (1, 0), "create");
    let sent = Sent::since_now(&client);
    file.write_at(0, data.clone().into()).await.unwrap();
    assert_eq!(sent.get(), (0, all), "a write of all strips");
    let sent = Sent::since_now(&client);
    file.close().await.unwrap();
    assert_eq!(sent.get(), (1, 0), "close after writing");
    let sent = Sent::since_now(&client);
    let attr = client.lookup(&ROOT, Ino::ROOT, &name("f")).await.unwrap();
    assert_eq!((sent.get(), attr.size), ((1, 0), data.len() as u64), "stat");
    let sent = Sent::since_now(&client);
    let file = client.open(&ROOT, attr.ino, OpenOptions::READ).await.unwrap();
    assert_eq!(sent.get(), (1, 0), "open");
    let sent = Sent::since_now(&client);
    assert!(file.read_at(0, data.len() as u64).await.unwrap() == data);
    assert_eq!(sent.get(), (0, all), "a read of all strips");
    let sent = Sent::since_now(&client);
    assert!(file.read_at(4096, 100).await.unwrap() == data[4096..4196]);
    assert_eq!(sent.get(), (0, 1), "a read of one strip");
    file.close().await.unwrap();
    let sent = Sent::since_now(&client);
    client.unlink(&ROOT, Ino::ROOT, &name("f")).await.unwrap();
    assert_eq!(sent.get(), (1, 0), "unlink");
    eventually("its objects are removed", || cluster.iods_received("remove_objects") >= all).await;
    assert_eq!(cluster.iods_received("remove_objects"), all, "one message to each target");
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_cost_the_same_over_twenty_four_iods() {
    check_costs_over(24).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute and many descriptors: 1,000 iods"]
async fn names_cost_the_same_over_a_thousand_iods() {
    let cluster = check_costs_over(1_000).await;
    let before = cluster.heartbeats();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    println!("{} heartbeats in 5 s", cluster.heartbeats() - before);
}
