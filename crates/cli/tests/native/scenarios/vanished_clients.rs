//! Clients that vanish: killed outright, keeper and all, alone or by the hundred, or silent for longer than their lease. What
//! they held is free when the lease has run out, what they acknowledged stays, and nobody else is held up.

use super::native::{LIMIT, PVFS, ROOT, name};
use pvfs_client::{Client, ClientConfig, CreateOptions, File, OpenOptions, RenameMode};
use pvfs_testkit::{Child, Half, TestCluster, can_mount, is_mounted, wait_until};
use pvfs_types::{FileKind, Ino, LayoutHint};
use pvfs_wire::msg::hello::Secret;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::Write as _,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

const ENOTCONN: Option<i32> = Some(107);

/// Two iods, and a lease of a second.
fn short_leases() -> TestCluster {
    TestCluster::builder(PVFS).iods(2).mgr_args(&["--lease-seconds", "1"]).start()
}

fn gauge(cluster: &TestCluster, name: &str) -> u64 {
    cluster.counters("mgr").get(name).copied().unwrap_or_else(|| panic!("no {name}"))
}

/// One strip of 64 KiB on each target.
fn striped() -> CreateOptions {
    let layout = LayoutHint { base: None, pcount: Some(2), ssize: Some(64 << 10) };
    CreateOptions { layout, ..CreateOptions::default() }
}

async fn connect(mgr: &str, secret: [u8; 32]) -> Arc<Client> {
    Client::connect(ClientConfig::new(vec![mgr.to_owned()], Secret(secret))).await.unwrap()
}

/// What a client in a process of its own must know, as a file for it.
fn access_file(cluster: &TestCluster) -> PathBuf {
    let file = cluster.dir().join("access");
    let key = fs::read_to_string(cluster.data_dir().join("cluster.key")).unwrap();
    fs::write(&file, format!("{} {key}", cluster.addr("mgr"))).unwrap();
    file
}

async fn connect_by(access: &Path) -> Arc<Client> {
    let text = fs::read_to_string(access).unwrap();
    let (mgr, key) = text.trim().split_once(' ').unwrap();
    connect(mgr, std::array::from_fn(|at| u8::from_str_radix(&key[at * 2..at * 2 + 2], 16).unwrap())).await
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn a_mount_whose_keeper_is_killed_is_over_and_can_be_mounted_anew() {
    if !can_mount() {
        return;
    }
    let mut cluster = short_leases();
    let (mount, other) = (cluster.mount(&[]), cluster.mount(&[]));
    fs::write(mount.join("f"), "before").unwrap();
    for lazily in [false, true] {
        let held = fs::File::open(mount.join("f")).unwrap();
        cluster.kill9("mount0");
        let over = || fs::metadata(mount.join("f")).err().and_then(|error| error.raw_os_error()) == ENOTCONN;
        wait_until("the mount is over", LIMIT, over);
        assert_eq!(fs::write(mount.join("new"), "x").unwrap_err().raw_os_error(), ENOTCONN);
        assert_eq!(held.metadata().unwrap_err().raw_os_error(), ENOTCONN, "open files too");
        fs::write(other.join("g"), "others go on").unwrap();
        assert!(is_mounted(&mount), "it stays in the tree until it is unmounted");

        let umount =
            |args: &[&str]| cluster.run("umount", args.iter().map(AsRef::as_ref).chain([mount.as_path()]));
        if lazily {
            assert!(umount(&["--lazy"]).status.success());
            cluster.restart("mount0");
            assert_eq!(
                held.metadata().unwrap_err().raw_os_error(),
                ENOTCONN,
                "the old mount does not come back"
            );
        } else {
            drop(held);
            let out = umount(&[]);
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success() && said.contains("had been gone before"), "{said}");
            cluster.restart("mount0");
        }
        assert_eq!(fs::read(mount.join("f")).unwrap(), b"before");
        fs::write(mount.join("new"), "after").unwrap();
        assert_eq!(fs::read(other.join("new")).unwrap(), b"after");
        fs::remove_file(mount.join("new")).unwrap();
    }
    cluster.fsck_finds_nothing();
}

#[test]
fn unlinked_files_of_a_mount_that_was_killed_go_with_its_lease_and_what_it_wrote_stays() {
    if !can_mount() {
        return;
    }
    let mut cluster = short_leases();
    let (mount, other) = (cluster.mount(&[]), cluster.mount(&[]));
    cluster.run_ok("layout", ["set", "--strip-size", "64K", "--pcount", "2", "/"]);
    let data = vec![0x5a; 200_000];
    let open = |name: &str| {
        let mut file =
            fs::File::options().read(true).write(true).create_new(true).open(mount.join(name)).unwrap();
        file.write_all(&data).unwrap();
        file
    };
    let files = [open("unlinked-here"), open("unlinked-there"), open("kept")];
    fs::remove_file(mount.join("unlinked-here")).unwrap();
    fs::remove_file(other.join("unlinked-there")).unwrap();
    // Longer than a lease: who has it open is heard of, and keeps it.
    let begin = Instant::now();
    wait_until("leases would have run out", LIMIT, || begin.elapsed() > Duration::from_millis(2500));
    assert_eq!((cluster.count_objects(), gauge(&cluster, "pvfs_orphans")), (6, 2));
    for file in &files {
        let mut back = vec![0; data.len()];
        file.read_exact_at(&mut back, 0).unwrap();
        assert!(back == data);
    }

    cluster.kill9("mount0");
    cluster.run_ok("umount", ["--lazy".as_ref(), mount.as_path()]);
    drop(files);
    // At once, without waiting for what the dead one had.
    cluster.restart("mount0");
    let mut file = fs::File::options().append(true).open(mount.join("kept")).unwrap();
    file.write_all(b"more").unwrap();
    drop(file);
    let expect = [&data[..], b"more"].concat();
    assert!(
        fs::read(mount.join("kept")).unwrap() == expect && fs::read(other.join("kept")).unwrap() == expect
    );
    assert_eq!(fs::read_dir(&mount).unwrap().count(), 1);
    cluster.wait_objects(2);
    cluster.fsck_finds_nothing();
    cluster.unmount(&mount);
    cluster.unmount(&other);
    wait_until("no session is left but that of the look", LIMIT, || gauge(&cluster, "pvfs_sessions") <= 1);
}

const CROWD: usize = 100;

#[test]
#[ignore = "what other tests start as a process of its own"]
fn crowd_of_clients() {
    let mut half = Half::new();
    let access = half.path();
    runtime().block_on(async {
        let mut held = Vec::new();
        for n in 0..CROWD {
            let client = connect_by(&access).await;
            let mut files = Vec::new();
            for kind in ["unlinked", "kept"] {
                let path = format!("{kind}-{n}");
                let file = client.create_path(&ROOT, &path, striped()).await.unwrap().file;
                file.write_at(0, vec![7; 70_000].into()).await.unwrap();
                files.push(file);
            }
            client.unlink(&ROOT, Ino::ROOT, &name(&format!("unlinked-{n}"))).await.unwrap();
            held.push((client, files));
        }
        half.wait();
    });
}

#[test]
fn a_hundred_clients_that_vanish_at_once_hold_up_nobody_and_leave_only_what_they_wrote() {
    let cluster = short_leases();
    let crowd = Child::start("scenarios::vanished_clients::crowd_of_clients", &[&access_file(&cluster)]);
    crowd.wait_until_half();
    assert!(gauge(&cluster, "pvfs_sessions") >= CROWD as u64);
    assert_eq!(gauge(&cluster, "pvfs_orphans"), CROWD as u64);
    drop(crowd);
    runtime().block_on(async {
        let client = connect(cluster.addr("mgr"), cluster.cluster_secret()).await;
        let (begin, mut longest, mut rounds) = (Instant::now(), Duration::ZERO, 0);
        // Over the end of all their leases.
        while begin.elapsed() < Duration::from_secs(3) {
            let before = Instant::now();
            client.mkdir(&ROOT, Ino::ROOT, &name("d"), 0o755).await.unwrap();
            client.rmdir(&ROOT, Ino::ROOT, &name("d")).await.unwrap();
            longest = longest.max(before.elapsed());
            rounds += 1;
        }
        println!("{rounds} rounds meanwhile, the longest took {longest:?}");
        assert!(longest < Duration::from_secs(2), "{longest:?}");
        cluster.wait_objects(2 * CROWD);
        for n in 0..CROWD {
            let file = client.open_path(&ROOT, &format!("kept-{n}"), OpenOptions::READ).await.unwrap();
            assert!(file.read_at(0, 1 << 20).await.unwrap() == vec![7; 70_000], "file {n}");
            file.close().await.unwrap();
        }
        client.shutdown().await.unwrap();
    });
    cluster.fsck_finds_nothing();
}

#[test]
#[ignore = "what other tests start as a process of its own"]
fn storm_of_changes() {
    let mut half = Half::new();
    let access = half.path();
    runtime().block_on(async {
        let client = connect_by(&access).await;
        half.wait();
        let storms = (0..16).map(|task| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                for n in 0.. {
                    storm(&client, &format!("{}-{task}-{n}", std::process::id())).await;
                }
            })
        });
        for storm in storms.collect::<Vec<_>>() {
            storm.await.unwrap();
        }
    });
}

/// A bit of everything in the root directory; what it leaves begins with `keep`.
async fn storm(client: &Client, id: &str) {
    let (dir, new, kept) =
        (name(&format!("dir-{id}")), name(&format!("new-{id}")), name(&format!("keep-{id}")));
    let made = client.mkdir(&ROOT, Ino::ROOT, &dir, 0o755).await.unwrap();
    let file: File = client.create(&ROOT, Ino::ROOT, &new, striped()).await.unwrap().file;
    file.write_at(0, vec![3; 100_000].into()).await.unwrap();
    client.link(&ROOT, file.ino(), made.ino, &name("link")).await.unwrap();
    client.rename(&ROOT, (Ino::ROOT, &new), (Ino::ROOT, &kept), RenameMode::Replace).await.unwrap();
    client.unlink(&ROOT, made.ino, &name("link")).await.unwrap();
    file.truncate(70_000).await.unwrap();
    file.close().await.unwrap();
    client.rmdir(&ROOT, Ino::ROOT, &dir).await.unwrap();
    client.unlink(&ROOT, Ino::ROOT, &kept).await.unwrap();
}

#[test]
fn clients_that_are_killed_amid_changes_leave_nothing_half_made() {
    let cluster = short_leases();
    let access = access_file(&cluster);
    for round in 0..4 {
        let child = Child::start("scenarios::vanished_clients::storm_of_changes", &[&access]);
        child.wait_until_half();
        let before = gauge(&cluster, "pvfs_sequencer_jobs_total");
        child.go_on();
        let jobs = 100 + 37 * round;
        wait_until("it is amid its changes", LIMIT, || {
            gauge(&cluster, "pvfs_sequencer_jobs_total") > before + jobs
        });
        drop(child);
        cluster.fsck_finds_nothing();
    }
    runtime().block_on(async {
        let client = connect(cluster.addr("mgr"), cluster.cluster_secret()).await;
        for item in client.readdir_all(&ROOT, Ino::ROOT, true).await.unwrap() {
            if item.kind == FileKind::Dir {
                // At most the link, which a killed client has not taken away.
                if client.lookup(&ROOT, item.ino, &name("link")).await.is_ok() {
                    client.unlink(&ROOT, item.ino, &name("link")).await.unwrap();
                }
                client.rmdir(&ROOT, Ino::ROOT, &item.name).await.unwrap();
            } else {
                client.unlink(&ROOT, Ino::ROOT, &item.name).await.unwrap();
            }
        }
        cluster.wait_objects(0);
        client.shutdown().await.unwrap();
    });
    cluster.fsck_finds_nothing();
}

#[test]
#[ignore = "what other tests start as a process of its own"]
fn sleeper() {
    const O_DIRECT: i32 = 0o40000;
    let mut half = Half::new();
    let dir = half.path();
    let open = |name: &str, flags| {
        fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .custom_flags(flags)
            .open(dir.join(name))
            .unwrap()
    };
    let (named, gone) = (open("named", 0), open("gone", O_DIRECT));
    named.write_all_at(&vec![1; 200_000], 0).unwrap();
    gone.write_all_at(&vec![2; 1 << 20], 0).unwrap();
    half.wait();
    // It has slept. The file with a name goes on; of the one without, nothing is made up.
    named.write_all_at(b"later", 100_000).unwrap();
    named.sync_all().unwrap();
    let mut back = vec![9; 4096];
    let read = gone.read_at(&mut back, 512 << 10);
    assert!(
        read.is_err() || back == vec![2; 4096],
        "neither an error nor its bytes: {read:?} {:?}",
        &back[..8]
    );
    println!("reading what was reaped: {read:?}");
    let written = gone.write_all_at(&[3; 4096], 0).and_then(|()| gone.sync_all());
    println!("writing it: {written:?}");
    assert!(written.is_err(), "bytes that nobody can have");
    half.wait();
}

#[test]
fn a_mount_that_slept_past_its_lease_goes_on_and_what_was_reaped_meanwhile_is_an_error() {
    if !can_mount() {
        return;
    }
    let mut cluster = short_leases();
    let (mount, other) = (cluster.mount(&[]), cluster.mount(&[]));
    let child = Child::start("scenarios::vanished_clients::sleeper", &[&mount]);
    child.wait_until_half();
    let worker = cluster.process("mount0").children()[0];
    let worker = Pid::from_raw(i32::try_from(worker).unwrap()).unwrap();
    kill_process(worker, Signal::STOP).unwrap();
    fs::remove_file(other.join("gone")).unwrap();
    wait_until("the unlinked file is reaped", LIMIT, || gauge(&cluster, "pvfs_orphans") == 0);
    let file = fs::File::options().write(true).open(other.join("named")).unwrap();
    file.write_all_at(b"meanwhile", 0).unwrap();
    drop(file);
    kill_process(worker, Signal::CONT).unwrap();
    child.go_on();
    child.wait_until_half();
    let told = cluster.run_ok("cat", ["/named"]).into_bytes();
    assert_eq!(told.len(), 200_000);
    assert!(&told[..9] == b"meanwhile" && &told[100_000..100_005] == b"later", "both writes are there");
    child.go_on();
    child.end();
    wait_until("its objects are gone", LIMIT, || gauge(&cluster, "pvfs_garbage_objects") == 0);
    cluster.unmount(&mount);
    cluster.fsck_finds_nothing();
}
