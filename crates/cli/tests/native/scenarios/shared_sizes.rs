//! Truncations against the writes of others, and against dying daemons: the end is what some order of them gives, and what was
//! cut never comes back.

use super::native::{LIMIT, PVFS, ROOT, connect, run};
use pvfs_client::{Client, CreateOptions, File, OpenOptions};
use pvfs_testkit::{TestCluster, wait_until};
use pvfs_types::LayoutHint;
use std::sync::Arc;

const STRIP: u64 = 4096;

/// A new file over `pcount` targets.
async fn create(client: &Client, path: &str, pcount: u16) -> File {
    let layout = LayoutHint { base: None, pcount: Some(pcount), ssize: Some(4096) };
    let options = CreateOptions { layout, ..CreateOptions::default() };
    client.create_path(&ROOT, path, options).await.unwrap().file
}

async fn read(client: &Client, path: &str) -> Vec<u8> {
    let file = client.open_path(&ROOT, path, OpenOptions::READ).await.unwrap();
    let bytes = file.read_at(0, 1 << 20).await.unwrap();
    file.close().await.unwrap();
    bytes.into()
}

#[test]
fn a_cut_and_anothers_write_behind_it_end_in_the_order_of_one_of_them() {
    let cluster = TestCluster::builder(PVFS).iods(4).start();
    run(async {
        let (cutter, writer, reader) =
            (connect(&cluster).await, connect(&cluster).await, connect(&cluster).await);
        let (mut cut_last, mut written_last) = (0, 0);
        for round in 0..60 {
            let (path, to) = (format!("f{round}"), [0, STRIP, 2 * STRIP + 100][round % 3]);
            let file = create(&cutter, &path, 4).await;
            file.write_at(0, vec![b'o'; 16 * 4096].into()).await.unwrap();
            file.sync().await.unwrap();
            let other = writer.open_path(&ROOT, &path, OpenOptions::WRITE).await.unwrap();
            let (cut, written) = tokio::join!(file.truncate(to), async {
                for _ in 0..round % 4 {
                    tokio::task::yield_now().await;
                }
                other.write_at(10 * STRIP, vec![b'n'; 4096].into()).await
            });
            cut.unwrap();
            written.unwrap();
            other.close().await.unwrap();
            file.close().await.unwrap();
            let end = read(&reader, &path).await;
            let size = usize::try_from(to).unwrap();
            let mut expect = vec![b'o'; size];
            if end == expect {
                cut_last += 1;
            } else {
                expect.resize(10 * 4096, 0);
                expect.resize(11 * 4096, b'n');
                assert!(end == expect, "round {round}: {} bytes, neither order's", end.len());
                written_last += 1;
            }
            // Made longer, it shows nothing of what was cut.
            let file = reader.open_path(&ROOT, &path, OpenOptions::READ_WRITE).await.unwrap();
            file.truncate(16 * STRIP).await.unwrap();
            assert!(
                file.read_at(to, 16 * STRIP).await.unwrap().iter().all(|&byte| byte != b'o'),
                "round {round}"
            );
            file.close().await.unwrap();
        }
        println!("{cut_last} times cut last, {written_last} times written last");
        for client in [cutter, writer, reader] {
            client.shutdown().await.unwrap();
        }
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn a_cut_that_reached_some_targets_before_everything_died_is_carried_out_and_shows_zeros() {
    let mut cluster = TestCluster::builder(PVFS).iods(4).start();
    run(async {
        let client = connect(&cluster).await;
        let file = Arc::new(create(&client, "f", 4).await);
        file.write_at(0, vec![b'o'; 16 * 4096].into()).await.unwrap();
        file.sync().await.unwrap();
        for iod in ["iod1", "iod3"] {
            cluster.kill9(iod);
        }
        let cutting = tokio::spawn({
            let file = Arc::clone(&file);
            async move { file.truncate(100).await }
        });
        wait_until("some targets have cut", LIMIT, || {
            ["iod0", "iod2"].iter().all(|iod| {
                let counters = cluster.counters(iod);
                counters
                    .iter()
                    .any(|(name, &n)| name.contains("truncate_objects") && name.contains("received") && n > 0)
            })
        });
        cluster.kill9("mgr");
        for iod in ["iod0", "iod2"] {
            cluster.kill9(iod);
        }
        assert!(!cutting.is_finished(), "it is done on all of them or not yet");
        for daemon in ["iod3", "mgr", "iod0", "iod1", "iod2"] {
            cluster.restart(daemon);
        }
        cutting.await.unwrap().unwrap();
        file.truncate(16 * STRIP).await.unwrap();
        let other = connect(&cluster).await;
        let mut expect = vec![b'o'; 100];
        expect.resize(16 * 4096, 0);
        assert!(read(&other, "f").await == expect && file.read_at(0, 1 << 20).await.unwrap() == expect);
        file.close().await.unwrap();
        cluster.wait_targets_up();
    });
    cluster.fsck_finds_nothing();
}
