//! Group A: I/O daemons that crash, hang, come back elsewhere or with another disk.

use super::native::{
    LIMIT, PVFS, ROOT, STRIP, bytes, config, connect, create, eventually, name, read, run, until_it_waits,
};
use pvfs_client::{Client, ClientConfig, OpenOptions};
use pvfs_testkit::{TestCluster, can_mount, requests_received, wait_until};
use pvfs_types::Ino;
use rustix::process::Signal;
use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

#[test]
fn four_clients_that_write_disjoint_stripes_see_a_pause_when_an_iod_is_killed() {
    const STRIPS: usize = 96;
    let strip = STRIP as usize;
    let mut cluster = TestCluster::builder(PVFS).iods(4).start();
    run(async {
        let data = Arc::new(bytes(STRIPS * strip, 1));
        create(&*connect(&cluster).await, "f", None, 4).await.close().await.unwrap();
        let (written, mut writers, mut clients) = (Arc::new(AtomicUsize::new(0)), Vec::new(), Vec::new());
        // Whoever is half through goes on against the dead iod.
        let (die, dead) = tokio::sync::watch::channel(false);
        for rank in 0..4 {
            let client = connect(&cluster).await;
            clients.push(Arc::clone(&client));
            let file = client.open_path(&ROOT, "f", OpenOptions::WRITE).await.unwrap();
            let (data, written, mut dead) = (Arc::clone(&data), Arc::clone(&written), dead.clone());
            writers.push(tokio::spawn(async move {
                for at in (rank * strip..data.len()).step_by(4 * strip) {
                    file.write_at(at as u64, data[at..at + strip].to_vec().into()).await.unwrap();
                    written.fetch_add(1, Ordering::SeqCst);
                    if at >= data.len() / 2 {
                        dead.wait_for(|dead| *dead).await.unwrap();
                    }
                }
                file.sync().await.unwrap();
                file.close().await.unwrap();
            }));
        }
        eventually("some of it is written", || written.load(Ordering::SeqCst) > STRIPS / 4).await;
        cluster.kill9("iod1");
        die.send(true).unwrap();
        let waits = |client: &Arc<Client>| !client.status().waiting.is_empty();
        eventually("somebody waits for it", || clients.iter().any(waits)).await;
        cluster.restart("iod1");
        for writer in writers {
            writer.await.unwrap();
        }
        assert!(read(&*connect(&cluster).await, "f").await == *data, "other bytes");
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn space_of_files_that_were_removed_beside_a_dead_iod_comes_back_also_when_the_mgr_dies_too() {
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let source = cluster.dir().join("source");
    fs::write(&source, bytes(3 << 20, 1)).unwrap();
    cluster.run_ok("mkdir", ["/d"]);
    for path in ["/a", "/d/b", "/d/c"] {
        cluster.run_ok("put", [source.to_str().unwrap(), path]);
    }
    assert_eq!(cluster.objects("iod0").len(), 3);
    cluster.kill9("iod0");
    cluster.run_ok("rm", ["-r", "/a", "/d"]);
    wait_until("the live iod's objects go", LIMIT, || cluster.objects("iod1").is_empty());
    cluster.kill9("mgr");
    cluster.restart("mgr");
    assert_eq!(cluster.objects("iod0").len(), 3, "they wait for their daemon");
    cluster.restart("iod0");
    cluster.wait_objects(0);
    cluster.fsck_finds_nothing();
}

/// A read of the file that the client has open, under way.
fn reading(file: &Arc<pvfs_client::File>, len: u64) -> tokio::task::JoinHandle<bytes::Bytes> {
    let file = Arc::clone(file);
    tokio::spawn(async move { file.read_at(0, len).await.unwrap() })
}

#[test]
fn a_read_waits_while_an_empty_directory_stands_in_its_targets_place() {
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    run(async {
        let client = connect(&cluster).await;
        let file = Arc::new(create(&client, "f", None, 2).await);
        file.write_at(0, bytes(1 << 20, 1).into()).await.unwrap();
        file.sync().await.unwrap();
        cluster.kill9("iod0");
        let (target, aside) = (cluster.data_dir().join("iod0"), cluster.dir().join("aside"));
        fs::rename(&target, &aside).unwrap();
        fs::create_dir(&target).unwrap();
        let refused = cluster.run("iod", ["--name", "iod0"]);
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && told.contains("holds no PVFS target"), "{told}");
        let reading = reading(&file, 1 << 20);
        until_it_waits(&client).await;
        assert!(!reading.is_finished(), "there is nothing that it could read");
        fs::remove_dir(&target).unwrap();
        fs::rename(&aside, &target).unwrap();
        cluster.restart("iod0");
        assert!(reading.await.unwrap() == bytes(1 << 20, 1), "other bytes");
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn targets_that_changed_places_are_served_as_what_they_are() {
    let mut cluster = TestCluster::builder(PVFS).iods(3).start();
    run(async {
        let client = connect(&cluster).await;
        let file = Arc::new(create(&client, "f", None, 3).await);
        file.write_at(0, bytes(1 << 20, 1).into()).await.unwrap();
        for iod in ["iod0", "iod2"] {
            cluster.kill9(iod);
        }
        let dir = cluster.data_dir();
        let swap = |a: &Path, b: &Path| {
            fs::rename(a, dir.join("aside"))?;
            fs::rename(b, a)?;
            fs::rename(dir.join("aside"), b)
        };
        swap(&dir.join("iod0"), &dir.join("iod2")).unwrap();
        let reading = reading(&file, 1 << 20);
        until_it_waits(&client).await;
        for iod in ["iod0", "iod2"] {
            cluster.restart(iod);
        }
        assert!(reading.await.unwrap() == bytes(1 << 20, 1), "other bytes");
        file.write_at(1 << 20, bytes(1 << 20, 2).into()).await.unwrap();
        file.close().await.unwrap();
        let all = [bytes(1 << 20, 1), bytes(1 << 20, 2)].concat();
        assert!(read(&*connect(&cluster).await, "f").await == all, "other bytes for who comes new");
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn what_a_stopped_iod_holds_of_given_up_writes_does_not_land_on_newer_bytes() {
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    run(async {
        let soft = ClientConfig { timeo: Some(Duration::from_millis(200)), ..config(&cluster) };
        let client = Client::connect(soft).await.unwrap();
        let file = Arc::new(create(&client, "f", None, 1).await);
        file.write_at(0, bytes(8 * 4096, 0).into()).await.unwrap();
        for round in 1..=5 {
            cluster.stop("iod0");
            let given_up: Vec<_> = (0..8)
                .map(|n| {
                    let file = Arc::clone(&file);
                    tokio::spawn(async move { file.write_at(n * 4096, vec![0xee; 4096].into()).await })
                })
                .collect();
            for write in given_up {
                write.await.unwrap().expect_err("the iod is stopped");
            }
            let newer = bytes(8 * 4096, round);
            let writing = tokio::spawn({
                let (file, newer) = (Arc::clone(&file), newer.clone());
                async move { while file.write_at(0, newer.clone().into()).await.is_err() {} }
            });
            cluster.signal("iod0", Signal::CONT);
            writing.await.unwrap();
            for _ in 0..5 {
                assert!(
                    file.read_at(0, 8 * 4096).await.unwrap() == newer,
                    "an old write landed in round {round}"
                );
            }
        }
        file.close().await.unwrap();
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn names_attributes_and_free_space_need_no_iod_at_all() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let mount = cluster.mount(&[]);
    fs::write(mount.join("old"), bytes(3 << 20, 1)).unwrap();
    for iod in ["iod0", "iod1"] {
        cluster.kill9(iod);
    }
    let work = {
        let mount = mount.clone();
        let at = move |name: &str| mount.join(name);
        std::thread::spawn(move || -> io::Result<()> {
            fs::create_dir(at("dir"))?;
            fs::File::create(at("dir/new"))?;
            fs::rename(at("dir/new"), at("new"))?;
            fs::hard_link(at("old"), at("link"))?;
            std::os::unix::fs::symlink("old", at("symlink"))?;
            fs::set_permissions(at("new"), fs::metadata(at("old"))?.permissions())?;
            drop(fs::File::open(at("old"))?);
            assert_eq!(fs::metadata(at("old"))?.len(), 3 << 20);
            assert_eq!(fs::read_dir(at("."))?.count(), 5);
            assert!(rustix::fs::statvfs(at("."))?.f_blocks > 0);
            fs::File::create(at("old"))?; // to nothing
            fs::remove_file(at("link"))?;
            fs::remove_dir(at("dir"))
        })
    };
    wait_until("all that is done without any iod", LIMIT, || work.is_finished());
    work.join().unwrap().unwrap();
    cluster.run_ok("df", [] as [&str; 0]);
    for iod in ["iod0", "iod1"] {
        cluster.restart(iod);
    }
    assert_eq!(fs::metadata(mount.join("old")).unwrap().len(), 0);
    fs::write(mount.join("new"), "bytes again").unwrap();
    cluster.fsck_finds_nothing();
}

#[test]
fn nothing_that_was_cut_comes_back_when_iods_die_in_the_truncation() {
    let mut cluster = TestCluster::builder(PVFS).iods(4).start();
    run(async {
        let (client, other) = (connect(&cluster).await, connect(&cluster).await);
        let file = Arc::new(create(&client, "f", Some(0), 4).await);
        file.write_at(0, vec![0xff; 2 << 20].into()).await.unwrap();
        cluster.kill9("iod2");
        let cutting = tokio::spawn({
            let file = Arc::clone(&file);
            async move { file.truncate(100_000).await }
        });
        let cut = |cluster: &TestCluster| {
            requests_received(&cluster.counters("iod0"), "mgr").contains_key("truncate_objects")
        };
        eventually("some targets have cut", || cut(&cluster)).await;
        for daemon in ["iod0", "mgr"] {
            cluster.kill9(daemon);
            cluster.restart(daemon);
        }
        assert!(!cutting.is_finished(), "a target has not cut yet");
        cluster.restart("iod2");
        cutting.await.unwrap().unwrap();
        assert_eq!(other.lookup(&ROOT, Ino::ROOT, &name("f")).await.unwrap().size, 100_000);
        file.truncate(2 << 20).await.unwrap();
        let mut expect = vec![0; 2 << 20];
        expect[..100_000].fill(0xff);
        assert!(read(&other, "f").await == expect, "old bytes are back");
        file.close().await.unwrap();
    });
    cluster.fsck_finds_nothing();
}
