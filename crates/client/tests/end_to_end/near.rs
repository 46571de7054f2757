//! Objects on iods of this machine, which are read without asking these.

use crate::cluster::{Cluster, ROOT, Sent, bytes, create, eventually, in_time, layout};
use pvfs_client::{Client, File, OpenOptions};
use pvfs_types::{Level, LogicalOffset, Pattern};
use std::{sync::Arc, time::Duration};

const STRIP: u32 = 64 << 10;

/// A file of 1 MiB on four iods, open at a second client, which has descriptors of its objects.
struct Shared {
    cluster: Cluster,
    data: Vec<u8>,
    writer: File,
    client: Arc<Client>,
    reader: File,
}

impl Shared {
    async fn start() -> Shared {
        let cluster = Cluster::start_near(4).await;
        let data = bytes(1, 1 << 20);
        let writing = cluster.client().await;
        let writer = create(&writing, "f", layout(4, STRIP)).await;
        writer.write_at(0, data.clone().into()).await.unwrap();
        let client = cluster.client().await;
        let reader = client.open_path(&ROOT, "f", OpenOptions::READ).await.unwrap();
        let shared = Shared { cluster, data, writer, client, reader };
        shared.draw_near().await;
        shared
    }

    /// Reads until no iod is asked any more.
    async fn draw_near(&self) {
        for _ in 0..16 {
            let sent = Sent::since_now(&self.client);
            assert!(self.reader.read_at(0, 1 << 20).await.unwrap() == self.data);
            if sent.get() == (0, 0) {
                return;
            }
        }
        panic!("iods are asked for ever");
    }

    async fn check(&self, at: usize, len: usize) {
        let found = self.reader.read_at(at as u64, len as u64).await.unwrap();
        let end = self.data.len().min(at + len);
        let expect = &self.data[at.min(end)..end];
        let differs = found.iter().zip(expect).position(|(found, expect)| found != expect);
        assert!(
            found == expect,
            "{at}+{len}: {} bytes for {}, first other {differs:?}",
            found.len(),
            expect.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_this_machine_are_read_without_asking_their_iods() {
    let it = Shared::start().await;
    assert!(it.client.status().servers.iter().all(|server| server.shares_memory));
    let sent = Sent::since_now(&it.client);
    for at in (0..800_000).step_by(40_961) {
        it.check(at, 4096).await;
        it.check(at, 200_000).await;
    }
    it.check((1 << 20) - 10, 10).await;
    let ranges = [(70_000, 5_000), (3, 4), (900_000, 100_000)];
    for ((at, len), found) in ranges.into_iter().zip(it.reader.read_list(&ranges).await.unwrap()) {
        assert!(found == it.data[usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap()]);
    }
    let levels = vec![Level { count: 1_000, stride: 1_000 }];
    let pattern = Pattern { start: LogicalOffset(7), len: 9, levels };
    let expect: Vec<u8> = it.data[7..].chunks(1_000).take(1_000).flat_map(|row| &row[..9]).copied().collect();
    assert!(it.reader.read_strided(&pattern).await.unwrap() == expect);
    assert_eq!(sent.get(), (0, 0));
    assert!(
        it.client
            .metrics()
            .snapshot()
            .iter()
            .any(|(name, n)| name == "pvfs_client_near_reads_total" && *n > 50)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_client_writes_and_cuts_is_seen_at_once() {
    let mut it = Shared::start().await;
    for round in 2..20_usize {
        let news = bytes(round as u64, 70_000);
        it.writer.write_at(60_000, news.clone().into()).await.unwrap();
        it.data[60_000..130_000].copy_from_slice(&news);
        it.check(0, 1 << 20).await;
        let len = (1 << 20) - round * 50_000;
        it.writer.truncate(len as u64).await.unwrap();
        it.data.truncate(len);
        // A native client goes by what it was told of a file's end for a second.
        assert_eq!(it.reader.attr().await.unwrap().size, len as u64);
        it.check(0, 1 << 20).await;
        it.check(len - 5, 10).await;
        let rest = bytes(100 + round as u64, (1 << 20) - len);
        it.writer.write_at(len as u64, rest.clone().into()).await.unwrap();
        it.data.extend(rest);
        it.check(len - 5, 10).await;
        it.check(0, 1 << 20).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replaces_the_objects_of_a_file_is_read_when_they_are_gone() {
    let mut it = Shared::start().await;
    it.data = bytes(9, 1 << 20);
    it.writer.truncate(0).await.unwrap();
    it.writer.write_at(0, it.data.clone().into()).await.unwrap();
    eventually("they are removed", || it.cluster.iods_received("remove_objects") >= 4).await;
    in_time(async {
        while it.reader.read_at(0, 1 << 20).await.unwrap() != it.data {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    it.draw_near().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_iod_that_is_away_is_waited_for_though_its_object_could_be_read() {
    let mut it = Shared::start().await;
    it.cluster.stop_iod(1).await;
    let away = tokio::time::timeout(Duration::from_millis(100), it.reader.read_at(0, 1 << 20)).await;
    assert!(away.is_err(), "who knows what it would say");
    it.cluster.start_iod(1).await;
    in_time(it.check(0, 1 << 20)).await;
    it.draw_near().await;
}
