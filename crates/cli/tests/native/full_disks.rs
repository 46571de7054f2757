//! Disks that are full: who adds gets ENOSPC, who removes does not, and all goes on when there is space again.

use pvfs_client::{Client, ClientConfig, CreateOptions};
use pvfs_testkit::{FsKind, Image, TestCluster};
use pvfs_types::{Cred, Errno, Ino, Name};
use pvfs_wire::msg::hello::Secret;
use std::{future::Future, sync::Arc, time::Duration};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const LIMIT: Duration = Duration::from_mins(2);
const ROOT: Cred = Cred::root();

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, work).await.expect("in time") });
}

/// A cluster with one iod, whose `daemon` has a tmpfs of `bytes`.
fn cluster(daemon: &str, bytes: u64) -> Option<TestCluster> {
    if let Some(why) = Image::unavailable(FsKind::Tmpfs) {
        eprintln!("skipped: {why}");
        return None;
    }
    Some(TestCluster::builder(PVFS).iods(1).image(daemon, FsKind::Tmpfs, bytes).start())
}

async fn connect(cluster: &TestCluster) -> Arc<Client> {
    let config = ClientConfig::new(vec![cluster.addr("mgr").to_owned()], Secret(cluster.cluster_secret()));
    Client::connect(config).await.unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn a_full_target_refuses_the_writer_and_goes_on_when_something_is_removed() {
    let Some(cluster) = cluster("iod0", 16 << 20) else { return };
    run(async {
        let client = connect(&cluster).await;
        let kept = client.create_path(&ROOT, "kept", CreateOptions::default()).await.unwrap().file;
        kept.write_at(0, vec![1; 4 << 20].into()).await.unwrap();
        let big = client.create_path(&ROOT, "big", CreateOptions::default()).await.unwrap().file;
        let mut written = 0;
        let error = loop {
            match big.write_at(written << 20, vec![2; 1 << 20].into()).await {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
            assert!(written < 16, "16 MiB are full by now");
        };
        assert_eq!(error.errno(), Errno::ENOSPC, "at the write, not later");
        big.sync().await.expect("what was acknowledged is there");
        assert!(big.read_at(0, written << 20).await.unwrap().iter().all(|&b| b == 2));
        big.close().await.unwrap();
        client.unlink(&ROOT, Ino::ROOT, &name("big")).await.unwrap();
        let again = client.create_path(&ROOT, "again", CreateOptions::default()).await;
        let again = match again {
            Ok(made) => made.file,
            // The mgr places no file on a target that it believes full.
            Err(error) => {
                assert_eq!(error.errno(), Errno::ENOSPC);
                loop {
                    match client.create_path(&ROOT, "again", CreateOptions::default()).await {
                        Ok(made) => break made.file,
                        Err(error) => assert_eq!(error.errno(), Errno::ENOSPC),
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        // Its bytes go in the background.
        while let Err(error) = again.write_at(0, vec![3; 4 << 20].into()).await {
            assert_eq!(error.errno(), Errno::ENOSPC);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        again.sync().await.unwrap();
        assert!(kept.read_at(0, 4 << 20).await.unwrap().iter().all(|&b| b == 1));
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn a_full_mgr_makes_nothing_new_removes_everything_and_goes_on_when_there_is_space() {
    let Some(cluster) = cluster("mgr", 12 << 20) else { return };
    run(async {
        let client = connect(&cluster).await;
        let dirs = |n: u32| name(&format!("{n:0200}"));
        let mut made = 0;
        let error = loop {
            match client.mkdir(&ROOT, Ino::ROOT, &dirs(made), 0o755).await {
                Ok(_) => made += 1,
                Err(error) => break error,
            }
            assert!(made < 30_000, "12 MiB are full by now");
        };
        assert_eq!(error.errno(), Errno::ENOSPC);
        assert!(made > 1000, "{made}");
        let open = client.create_path(&ROOT, "f", CreateOptions::default()).await;
        assert_eq!(open.expect_err("full").errno(), Errno::ENOSPC);
        // A look, a change and a removal need nothing new.
        client.resolve(&ROOT, dirs(0).as_bytes(), true).await.unwrap();
        for n in 0..made / 4 {
            client.rmdir(&ROOT, Ino::ROOT, &dirs(n)).await.unwrap();
        }
        cluster.image("mgr").resize(40 << 20);
        for n in 0..made / 2 {
            client.mkdir(&ROOT, Ino::ROOT, &name(&format!("new-{n}")), 0o755).await.expect("there is space");
        }
        let file = client.create_path(&ROOT, "f", CreateOptions::default()).await.unwrap().file;
        file.write_at(0, "all is well".into()).await.unwrap();
        file.close().await.unwrap();
        client.shutdown().await.unwrap();
    });
    cluster.fsck_finds_nothing();
}
