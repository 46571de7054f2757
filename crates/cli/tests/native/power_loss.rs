//! Machines that lose their power: the disk of a daemon, a loop-mounted image, is shut down without flushing, the daemon
//! is killed, and both come back in what they take for a new run of the machine.

use pvfs_client::{Client, ClientConfig, CreateOptions, File, OpenOptions, RenameMode};
use pvfs_testkit::{FsKind, Image, TestCluster, can_mount};
use pvfs_types::{Cred, Ino, LayoutHint, Name};
use pvfs_wire::msg::hello::Secret;
use std::{future::Future, path::Path, sync::Arc, time::Duration};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const LIMIT: Duration = Duration::from_mins(1);
const ROOT: Cred = Cred::root();
const STRIP: u32 = 64 << 10;

/// `len` bytes that repeat nowhere near.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

/// The kinds of disk that can lose power here; the test says why it skips the others.
fn disks() -> Vec<FsKind> {
    let mut kinds = vec![FsKind::Ext4, FsKind::Xfs];
    kinds.retain(|&kind| match Image::unavailable(kind) {
        Some(why) => {
            eprintln!("skipped on {kind:?}: {why}");
            false
        }
        None => true,
    });
    kinds
}

/// Two iods that commit nothing by themselves within a test, the first of them on an image.
fn cluster(kind: FsKind) -> TestCluster {
    let builder = TestCluster::builder(PVFS).iods(2).iod_args(&["--commit-seconds", "3600"]);
    builder.image("iod0", kind, kind.bytes_min()).start()
}

async fn connect(cluster: &TestCluster) -> Arc<Client> {
    let mut config =
        ClientConfig::new(vec![cluster.addr("mgr").to_owned()], Secret(cluster.cluster_secret()));
    config.label = "test".into();
    Client::connect(config).await.unwrap()
}

/// A new file over both iods.
async fn create(client: &Client, path: &str) -> File {
    let layout = LayoutHint { base: None, pcount: Some(2), ssize: Some(STRIP) };
    let options = CreateOptions { layout, ..CreateOptions::default() };
    client.create_path(&ROOT, path, options).await.unwrap().file
}

async fn read(client: &Client, path: &str) -> Vec<u8> {
    let file = client.open_path(&ROOT, path, OpenOptions::READ).await.unwrap();
    let bytes = file.read_at(0, 64 << 20).await.unwrap();
    file.close().await.unwrap();
    bytes.into()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn count(client: &Client, name: &str) -> u64 {
    client.metrics().snapshot().into_iter().find(|(of, _)| of == name).map_or(0, |(_, n)| n)
}

/// Bytes in objects on the target, as its disk tells now.
fn stored(cluster: &TestCluster, name: &str) -> u64 {
    fn len(dir: &Path) -> u64 {
        let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
        entries
            .map(
                |entry| {
                    if entry.path().is_dir() { len(&entry.path()) } else { entry.metadata().unwrap().len() }
                },
            )
            .sum()
    }
    len(&cluster.data_dir().join(name).join("objects"))
}

/// Fails instead of hanging. Daemons are started and stopped in between, so on one thread of its own.
fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, work).await.expect("in time") });
}

/// The client holds what it wrote to the file before, and has to leave it: it was copied over.
#[test]
fn what_targets_copied_outlives_their_machine_and_is_not_written_over_by_what_was_there_before() {
    for kind in disks() {
        let mut cluster = cluster(kind);
        run(async {
            let (client, other) = (connect(&cluster).await, connect(&cluster).await);
            let layout = LayoutHint { base: Some(0), pcount: Some(2), ssize: Some(STRIP) };
            let options = CreateOptions { layout, ..CreateOptions::default() };
            let (data, len) = (bytes(6 << 20, 1), 6 << 20);
            let from = client.create_path(&ROOT, "from", options).await.unwrap().file;
            from.write_at(0, data.clone().into()).await.unwrap();
            let to = client.create_path(&ROOT, "to", options).await.unwrap().file;
            to.write_at(0, bytes(7 << 20, 2).into()).await.unwrap();
            let others = other.open_path(&ROOT, "to", OpenOptions::READ_WRITE).await.unwrap();
            others.write_at(100, bytes(1 << 20, 3).into()).await.unwrap();
            assert_eq!(to.copy_from(0, &from, 0, len).await.unwrap(), len);
            assert_eq!(count(&client, "pvfs_client_read_bytes_total"), 0, "the targets copied it");
            others.write_at(200, "newer".into()).await.unwrap();
            cluster.lose_power("iod0");
            cluster.restart("iod0");
            let mut expect = data.clone();
            expect[200..205].copy_from_slice(b"newer");
            expect.extend(&bytes(7 << 20, 2)[6 << 20..]);
            // Each sends again what it holds.
            for file in [&to, &others] {
                file.sync().await.unwrap();
            }
            for file in [&to, &others] {
                assert!(file.read_at(0, 64 << 20).await.unwrap() == expect, "other bytes on {kind:?}");
            }
            assert!(read(&other, "from").await == data, "the source is sent again");
            assert_eq!(count(&client, "pvfs_client_lost_bytes_total"), 0);
        });
        cluster.fsck_finds_nothing();
    }
}

#[test]
fn what_a_live_client_wrote_and_never_synced_outlives_an_iods_machine() {
    for kind in disks() {
        let mut cluster = cluster(kind);
        run(async {
            let (client, other) = (connect(&cluster).await, connect(&cluster).await);
            // Open and closed, large and small, written over again and again.
            let open = create(&client, "open").await;
            let data = bytes(5 << 20, 1);
            open.write_at(0, bytes(5 << 20, 2).into()).await.unwrap();
            for (n, part) in data.chunks(300_000).enumerate() {
                open.write_at(n as u64 * 300_000, part.to_vec().into()).await.unwrap();
            }
            let closed = create(&client, "closed").await;
            closed.write_at(0, bytes(1 << 20, 3).into()).await.unwrap();
            closed.close().await.unwrap();
            let mut small = Vec::new();
            let dribble = create(&client, "dribble").await;
            for n in 0..200 {
                let part = bytes(1000, n);
                dribble.write_at(small.len() as u64, part.clone().into()).await.unwrap();
                small.extend(part);
            }
            cluster.lose_power("iod0");
            assert!(stored(&cluster, "iod0") < 1 << 20, "the test is worth nothing if nothing is lost");
            cluster.restart("iod0");
            assert!(open.read_at(0, 5 << 20).await.unwrap() == data, "other bytes on {kind:?}");
            assert_eq!(count(&client, "pvfs_client_replays_total"), 1);
            for (path, expect) in [("open", data), ("closed", bytes(1 << 20, 3)), ("dribble", small)] {
                assert!(read(&other, path).await == expect, "{path} has other bytes on {kind:?}");
            }
            open.sync().await.unwrap();
            // What was sent again is as good as what is written now.
            open.write_at(7, "more".into()).await.unwrap();
            cluster.lose_power("iod0");
            cluster.restart("iod0");
            assert_eq!(open.read_at(7, 4).await.unwrap(), "more");
            assert!(read(&other, "closed").await == bytes(1 << 20, 3));
            assert_eq!(count(&client, "pvfs_client_lost_bytes_total"), 0);
        });
        cluster.fsck_finds_nothing();
    }
}

#[test]
fn a_client_that_does_nothing_finds_out_and_sends_again() {
    for kind in disks() {
        let mut cluster = cluster(kind);
        run(async {
            let (client, other) = (connect(&cluster).await, connect(&cluster).await);
            let file = create(&client, "f").await;
            file.write_at(0, bytes(1 << 20, 1).into()).await.unwrap();
            file.close().await.unwrap();
            cluster.lose_power("iod0");
            cluster.restart("iod0");
            while count(&client, "pvfs_client_replays_total") == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            while read(&other, "f").await != bytes(1 << 20, 1) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        cluster.fsck_finds_nothing();
    }
}

#[test]
fn writes_in_flight_when_the_power_fails_land_after_what_was_acknowledged_before() {
    for kind in disks() {
        let mut cluster = cluster(kind);
        run(async {
            let client = connect(&cluster).await;
            let file = Arc::new(create(&client, "f").await);
            file.write_at(0, bytes(1 << 20, 1).into()).await.unwrap();
            cluster.lose_power("iod0");
            let writes: Vec<_> = (0..8)
                .map(|n| {
                    let file = Arc::clone(&file);
                    let part = bytes(100_000, 100 + n);
                    tokio::spawn(async move { file.write_at(n * 100_000, part.into()).await })
                })
                .collect();
            let reading = tokio::spawn({
                let file = Arc::clone(&file);
                async move { file.read_at(900_000, 100_000).await }
            });
            cluster.restart("iod0");
            for write in writes {
                write.await.unwrap().unwrap();
            }
            let mut expect = bytes(1 << 20, 1);
            assert!(
                reading.await.unwrap().unwrap() == expect[900_000..1_000_000],
                "never a lost byte as a hole"
            );
            for n in 0..8 {
                let at = n * 100_000;
                expect[at..at + 100_000].copy_from_slice(&bytes(100_000, 100 + n as u64));
            }
            assert!(file.read_at(0, 1 << 20).await.unwrap() == expect, "other bytes on {kind:?}");
        });
        cluster.fsck_finds_nothing();
    }
}

#[test]
fn what_was_cut_stays_cut_when_the_bytes_are_sent_again() {
    for kind in disks() {
        let mut cluster = cluster(kind);
        run(async {
            let (client, other) = (connect(&cluster).await, connect(&cluster).await);
            // Cut before the loss, by another client, while it is written.
            let before = create(&client, "before").await;
            before.write_at(0, bytes(1 << 20, 1).into()).await.unwrap();
            let cutter = other.open_path(&ROOT, "before", OpenOptions::WRITE).await.unwrap();
            cutter.truncate(300_000).await.unwrap();
            before.write_at(600_000, "past the cut".into()).await.unwrap();
            // Cut after the loss, before its writer has come back.
            let after = create(&client, "after").await;
            after.write_at(0, bytes(1 << 20, 2).into()).await.unwrap();
            // Cut to nothing by its own writer, and written again.
            let swapped = create(&client, "swapped").await;
            swapped.write_at(0, bytes(1 << 20, 3).into()).await.unwrap();
            swapped.truncate(0).await.unwrap();
            swapped.write_at(0, bytes(1000, 4).into()).await.unwrap();
            let cutter = other.open_path(&ROOT, "after", OpenOptions::WRITE).await.unwrap();
            cluster.lose_power("iod0");
            let cutting = tokio::spawn(async move { cutter.truncate(300_000).await });
            cluster.restart("iod0");
            cutting.await.unwrap().unwrap();

            let mut expect = bytes(1 << 20, 1);
            expect.truncate(300_000);
            expect.resize(600_000, 0);
            expect.extend(b"past the cut");
            assert!(before.read_at(0, 1 << 20).await.unwrap() == expect, "cut before, on {kind:?}");
            let size = after.attr().await.unwrap().size;
            assert_eq!(size, 300_000, "{kind:?}");
            after.truncate(1 << 20).await.unwrap();
            let mut expect = bytes(1 << 20, 2);
            expect[300_000..].fill(0);
            assert!(after.read_at(0, 1 << 20).await.unwrap() == expect, "cut after, on {kind:?}");
            assert!(swapped.read_at(0, 1 << 20).await.unwrap() == bytes(1000, 4));
            for file in [&before, &after, &swapped] {
                file.sync().await.unwrap();
            }
            assert!(read(&other, "after").await == expect, "for others too");
        });
        cluster.fsck_finds_nothing();
    }
}

#[test]
fn what_one_client_synced_outlives_what_another_wrote_before_and_sends_again() {
    for kind in disks() {
        let mut cluster = cluster(kind);
        run(async {
            let (client, other) = (connect(&cluster).await, connect(&cluster).await);
            let file = create(&client, "f").await;
            file.write_at(0, bytes(500_000, 1).into()).await.unwrap();
            let over = other.open_path(&ROOT, "f", OpenOptions::WRITE).await.unwrap();
            over.write_at(100_000, bytes(200_000, 2).into()).await.unwrap();
            over.sync().await.unwrap();
            cluster.lose_power("iod0");
            cluster.restart("iod0");
            let mut expect = bytes(500_000, 1);
            expect[100_000..300_000].copy_from_slice(&bytes(200_000, 2));
            assert!(file.read_at(0, 1 << 20).await.unwrap() == expect, "{kind:?}");
            assert_eq!(count(&client, "pvfs_client_replays_total"), 1);
        });
        cluster.fsck_finds_nothing();
    }
}

#[test]
fn what_fsync_acknowledged_is_there_without_its_client() {
    for kind in disks() {
        let mut cluster = cluster(kind);
        run(async {
            let client = connect(&cluster).await;
            let synced = create(&client, "synced").await;
            let mut data = Vec::new();
            for n in 0..50 {
                let part = bytes(10_000, n);
                synced.write_at(data.len() as u64, part.clone().into()).await.unwrap();
                synced.sync().await.unwrap();
                data.extend(part);
            }
            // A file that has nothing on the other iod is synced all the same.
            let one = CreateOptions {
                layout: LayoutHint { base: None, pcount: Some(1), ssize: Some(STRIP) },
                ..CreateOptions::default()
            };
            let narrow = client.create_path(&ROOT, "narrow", one).await.unwrap().file;
            narrow.write_at(0, "narrow".into()).await.unwrap();
            narrow.sync().await.unwrap();
            let unsynced = create(&client, "unsynced").await;
            unsynced.write_at(0, bytes(500_000, 99).into()).await.unwrap();
            unsynced.close().await.unwrap();
            // As if the client's machine had died too: nothing is sent any more.
            std::mem::forget((synced, narrow, unsynced));
            drop(client);
            cluster.lose_power("iod0");
            cluster.restart("iod0");
            let other = connect(&cluster).await;
            assert!(read(&other, "synced").await == data, "fsynced bytes are there on {kind:?}");
            assert_eq!(read(&other, "narrow").await, b"narrow");
            let found = read(&other, "unsynced").await;
            assert_eq!(found.len(), 500_000);
            let written = bytes(500_000, 99);
            let own = |(found, written): (&u8, &u8)| *found == 0 || found == written;
            assert!(found.iter().zip(&written).all(own), "its own bytes or none, on {kind:?}");
        });
    }
}

#[test]
fn a_second_loss_before_anybody_came_back_changes_nothing() {
    for kind in disks() {
        let mut cluster = cluster(kind);
        run(async {
            let client = connect(&cluster).await;
            let file = create(&client, "f").await;
            file.write_at(0, bytes(2 << 20, 1).into()).await.unwrap();
            for _ in 0..3 {
                cluster.lose_power("iod0");
                cluster.restart("iod0");
            }
            assert!(file.read_at(0, 2 << 20).await.unwrap() == bytes(2 << 20, 1), "{kind:?}");
            file.sync().await.unwrap();
            cluster.lose_power("iod0");
            cluster.restart("iod0");
            assert!(file.read_at(0, 2 << 20).await.unwrap() == bytes(2 << 20, 1), "{kind:?}");
        });
        cluster.fsck_finds_nothing();
    }
}

#[test]
fn a_small_hold_makes_writers_wait_for_commits_and_loses_nothing() {
    for kind in disks() {
        let mut cluster = cluster(kind);
        run(async {
            let mut config =
                ClientConfig::new(vec![cluster.addr("mgr").to_owned()], Secret(cluster.cluster_secret()));
            config.held_bytes_target = 1 << 20;
            let client = Client::connect(config).await.unwrap();
            let file = create(&client, "f").await;
            for n in 0..64 {
                file.write_at(n << 18, bytes(1 << 18, n).into()).await.unwrap();
                assert!(count(&client, "pvfs_client_held_bytes") < 3 << 20, "bounded");
            }
            cluster.lose_power("iod0");
            cluster.restart("iod0");
            for n in 0..64 {
                assert!(file.read_at(n << 18, 1 << 18).await.unwrap() == bytes(1 << 18, n), "{kind:?}");
            }
        });
        cluster.fsck_finds_nothing();
    }
}

#[test]
fn every_answered_change_outlives_the_mgrs_machine() {
    for kind in disks() {
        let builder = TestCluster::builder(PVFS).iods(1).image("mgr", kind, kind.bytes_min());
        let mut cluster = builder.start();
        run(async {
            let client = connect(&cluster).await;
            for n in 0..100 {
                let file = client
                    .create_path(&ROOT, &format!("new-{n}"), CreateOptions::default())
                    .await
                    .unwrap()
                    .file;
                file.write_at(0, format!("{n}").into()).await.unwrap();
                // As git, sqlite and dpkg replace a file.
                file.sync().await.unwrap();
                file.close().await.unwrap();
                let (from, to) = (name(&format!("new-{n}")), name(&format!("{}", n % 30)));
                client
                    .rename(&ROOT, (Ino::ROOT, &from), (Ino::ROOT, &to), RenameMode::Replace)
                    .await
                    .unwrap();
            }
            cluster.lose_power("mgr");
            cluster.restart("mgr");
            for n in 0..30 {
                let last = (0..100).rev().find(|m| m % 30 == n).unwrap();
                assert_eq!(read(&client, &format!("{n}")).await, format!("{last}").as_bytes(), "{kind:?}");
            }
            let names = client.readdir_all(&ROOT, Ino::ROOT, false).await.unwrap();
            assert_eq!(names.len(), 30, "nothing is left over");
        });
        cluster.fsck_finds_nothing();
    }
}

#[test]
fn through_a_mount_too_what_was_never_synced_outlives_an_iods_machine() {
    if !can_mount() {
        return;
    }
    for kind in disks() {
        let mut cluster = cluster(kind);
        let mount = cluster.mount(&["-o", "held_target=16M"]);
        let data = bytes(40 << 20, 1);
        std::fs::write(mount.join("f"), &data).unwrap();
        cluster.lose_power("iod0");
        cluster.restart("iod0");
        std::fs::write(mount.join("g"), "next").unwrap();
        // Not through the mount: its kernel holds all of it.
        let back = cluster.dir().join("back");
        pvfs_testkit::wait_until("the mount has sent it again", LIMIT, || {
            std::fs::remove_file(&back).ok();
            cluster.run_ok("get", ["/f", back.to_str().unwrap()]);
            std::fs::read(&back).unwrap() == data
        });
        cluster.fsck_finds_nothing();
    }
}
