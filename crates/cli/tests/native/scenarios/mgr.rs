//! Group C: a manager that crashes under load, again while it recovers, or comes back before its iods and clients.

use super::native::{PVFS, ROOT, bytes, connect, create, eventually, list, name, read, run, until_it_waits};
use pvfs_client::{Client, CreateOptions, OpenOptions, RenameMode};
use pvfs_testkit::{Child, Half, TestCluster, can_mount};
use pvfs_types::{Ino, Name};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// One of the clients of a storm: what it makes it moves, some of it it removes. Gives the names that must be there.
async fn storm(
    client: Arc<Client>,
    rank: usize,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    numbers: Arc<Mutex<BTreeSet<Ino>>>,
) -> Vec<String> {
    let mut names = Vec::new();
    let is_new = |ino| assert!(numbers.lock().unwrap().insert(ino), "{ino:?} was dealt out twice");
    for round in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let (new, kept) = (format!("new-{rank}-{round}"), format!("kept-{rank}-{round}"));
        let options = CreateOptions { exclusive: true, ..CreateOptions::default() };
        let made = client.create(&ROOT, Ino::ROOT, &name(&new), options).await.expect("nobody else makes it");
        is_new(made.file.ino());
        made.file.close().await.unwrap();
        let (from, to) = (name(&new), name(&kept));
        let (from, to) = ((Ino::ROOT, &from), (Ino::ROOT, &to));
        client.rename(&ROOT, from, to, RenameMode::Replace).await.expect("it is there");
        let dir = name(&format!("dir-{rank}-{round}"));
        is_new(client.mkdir(&ROOT, Ino::ROOT, &dir, 0o755).await.expect("nobody else makes it").ino);
        client.rmdir(&ROOT, Ino::ROOT, &dir).await.expect("it is there and empty");
        if round % 2 == 0 {
            client.unlink(&ROOT, Ino::ROOT, &name(&kept)).await.expect("it is there");
        } else {
            names.push(kept);
        }
        rounds.fetch_add(1, Ordering::SeqCst);
    }
    names
}

#[test]
fn a_mgr_killed_in_a_storm_and_again_in_its_recovery_does_each_change_once() {
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    run(async {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (numbers, mut storms) = (Arc::new(Mutex::new(BTreeSet::new())), Vec::new());
        for rank in 0..8 {
            let client = connect(&cluster).await;
            let work = storm(client, rank, Arc::clone(&stop), Arc::clone(&rounds), Arc::clone(&numbers));
            storms.push(tokio::spawn(work));
        }
        for death in 0..4 {
            let before = rounds.load(Ordering::SeqCst);
            eventually("the storm goes on", || rounds.load(Ordering::SeqCst) >= before + 50).await;
            cluster.kill9("mgr");
            // At other moments of its recovery each time; some find it ready already.
            for again in 0..3 {
                let after = Duration::from_millis(1 + 4 * death + 20 * again);
                cluster.process("mgr").start_and_kill9(after);
            }
            cluster.restart("mgr");
        }
        stop.store(true, Ordering::SeqCst);
        let mut expect = Vec::new();
        for storm in storms {
            expect.extend(storm.await.unwrap());
        }
        expect.sort();
        assert_eq!(list(&*connect(&cluster).await).await, expect);
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn a_mgr_killed_while_its_store_takes_the_journal_loses_nothing() {
    // Four thousand of them fill a segment of the journal.
    const BULK: usize = 4000;
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let tree = cluster.data_dir().join("mgr/data.mdb");
    let len = move || fs::metadata(&tree).unwrap().len();
    run(async {
        let client = connect(&cluster).await;
        let (made, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let target = |n: usize| format!("{n:0BULK$}");
        let makers: Vec<_> = (0..16)
            .map(|_| {
                let (client, made, stop) = (Arc::clone(&client), Arc::clone(&made), Arc::clone(&stop));
                tokio::spawn(async move {
                    while !stop.load(Ordering::SeqCst) {
                        let n = made.fetch_add(1, Ordering::SeqCst);
                        let (link, target) = (name(&n.to_string()), target(n));
                        client.symlink(&ROOT, Ino::ROOT, &link, target.as_bytes()).await.expect("made once");
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            let before = len();
            eventually("the store takes the journal", || len() > before).await;
            cluster.kill9("mgr");
            cluster.restart("mgr");
        }
        stop.store(true, Ordering::SeqCst);
        for maker in makers {
            maker.await.unwrap();
        }
        let all = client.readdir_all(&ROOT, Ino::ROOT, false).await.unwrap();
        assert_eq!(all.len(), made.load(Ordering::SeqCst));
        for item in all {
            let n = std::str::from_utf8(item.name.as_bytes()).unwrap().parse().unwrap();
            assert!(
                client.readlink(&ROOT, item.ino).await.unwrap() == target(n).as_bytes(),
                "link {n} differs"
            );
        }
    });
    cluster.fsck_finds_nothing();
}

#[test]
#[ignore = "what another test starts as a process of its own"]
fn user_of_a_descriptor() {
    let mut half = Half::new();
    let path = half.path();
    let mut file = fs::File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    file.write_all(&bytes(100_000, 1)).unwrap();
    half.wait();
    assert_eq!(file.metadata().unwrap().len(), 100_000);
    file.write_all(b"more").unwrap();
    file.set_len(50_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 50_000);
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut back = Vec::new();
    file.read_to_end(&mut back).unwrap();
    assert!(back == bytes(100_000, 1)[..50_000], "other bytes");
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    file.sync_all().unwrap();
    drop(file);
    assert_eq!(fs::metadata(&path).unwrap().len(), 50_000);
}

#[test]
fn a_descriptor_from_before_the_mgr_died_is_good_for_all_that_comes_after() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let mount = cluster.mount(&[]);
    let child = Child::start("scenarios::mgr::user_of_a_descriptor", &[&mount.join("f")]);
    child.wait_until_half();
    cluster.kill9("mgr");
    child.go_on();
    cluster.restart("mgr");
    child.end();
    cluster.fsck_finds_nothing();
}

#[test]
fn a_mgr_that_comes_back_without_one_of_its_clients_makes_nobody_wait() {
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let lost = tokio::runtime::Runtime::new().unwrap();
    let held = lost.block_on(async {
        let client = connect(&cluster).await;
        let (open, gone) = (create(&client, "open", None, 2).await, create(&client, "gone", None, 2).await);
        open.write_at(0, bytes(300_000, 1).into()).await.unwrap();
        gone.write_at(0, bytes(300_000, 2).into()).await.unwrap();
        client.unlink(&ROOT, Ino::ROOT, &name("gone")).await.unwrap();
        (client, open, gone)
    });
    cluster.kill9("mgr");
    // Its machine too: nothing of it says goodbye.
    lost.shutdown_background();
    std::mem::forget(held);
    cluster.restart("mgr");
    run(async {
        let client = connect(&cluster).await;
        let work = async {
            client.mkdir(&ROOT, Ino::ROOT, &name("d"), 0o755).await.unwrap();
            assert!(read(&client, "open").await == bytes(300_000, 1), "what it had acknowledged");
            client.unlink(&ROOT, Ino::ROOT, &name("open")).await.unwrap();
            create(&client, "open", None, 2).await.close().await.unwrap();
        };
        // A lease lasts 30 s: nobody waits for its end.
        tokio::time::timeout(Duration::from_secs(15), work).await.expect("at once");
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn a_listing_goes_on_over_the_death_of_the_mgr_and_shows_each_old_name_once() {
    const NAMES: usize = 2000;
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    run(async {
        let client = connect(&cluster).await;
        let make = |prefix: &'static str, client: Arc<Client>| async move {
            let made = (0..NAMES).map(|n| {
                let client = Arc::clone(&client);
                tokio::spawn(async move {
                    client.mkdir(&ROOT, Ino::ROOT, &name(&format!("{prefix}-{n}")), 0o755).await.unwrap();
                })
            });
            for made in made.collect::<Vec<_>>() {
                made.await.unwrap();
            }
        };
        make("old", Arc::clone(&client)).await;
        let (mut seen, mut cookie, mut pages) = (Vec::new(), 0, 0);
        loop {
            let page = client.readdir(&ROOT, Ino::ROOT, cookie, 100, false).await.unwrap();
            cookie = page.entries.last().map_or(cookie, |entry| entry.cookie);
            seen.extend(page.entries.into_iter().map(|entry| entry.name));
            pages += 1;
            if page.end {
                break;
            }
            if pages % 5 == 0 && pages <= 15 {
                cluster.kill9("mgr");
                cluster.restart("mgr");
            }
            if pages == 7 {
                make("new", Arc::clone(&client)).await;
            }
        }
        let is_old = |name: &&Name| name.as_bytes().starts_with(b"old");
        let old: BTreeSet<&[u8]> = seen.iter().filter(is_old).map(Name::as_bytes).collect();
        assert_eq!((old.len(), seen.iter().filter(is_old).count()), (NAMES, NAMES), "each once");
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn daemons_come_back_in_any_order_and_names_need_the_mgr_only() {
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    run(async {
        let client = connect(&cluster).await;
        let file = Arc::new(create(&client, "f", None, 2).await);
        file.write_at(0, bytes(1 << 20, 0).into()).await.unwrap();
        for (round, order) in [["mgr", "iod1", "iod0"], ["iod0", "mgr", "iod1"], ["iod1", "iod0", "mgr"]]
            .into_iter()
            .enumerate()
        {
            for daemon in ["mgr", "iod0", "iod1"] {
                cluster.kill9(daemon);
            }
            let writing = tokio::spawn({
                let (file, data) = (Arc::clone(&file), bytes(1 << 20, 1 + round as u64));
                async move { file.write_at(0, data.into()).await }
            });
            until_it_waits(&client).await;
            let dir = format!("d{round}");
            for daemon in order {
                cluster.restart(daemon);
                if daemon == "mgr" {
                    client.mkdir(&ROOT, Ino::ROOT, &name(&dir), 0o755).await.unwrap();
                    create(&client, &format!("{dir}/new"), None, 1).await.close().await.unwrap();
                }
            }
            writing.await.unwrap().unwrap();
            assert!(file.read_at(0, 1 << 20).await.unwrap() == bytes(1 << 20, 1 + round as u64), "{order:?}");
            let new = client.open_path(&ROOT, format!("{dir}/new"), OpenOptions::WRITE).await.unwrap();
            new.write_at(0, "bytes".into()).await.unwrap();
            new.close().await.unwrap();
        }
    });
    cluster.fsck_finds_nothing();
}
