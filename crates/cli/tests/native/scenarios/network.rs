//! Group D: partitions, silence in one way, slow and narrow links. Proxies before the daemons make the weather.

use super::native::{
    PVFS, ROOT, bytes, config, connect, connect_by_proxy, count, create, eventually, list, name, read, run,
    until_it_waits,
};
use pvfs_client::{Client, ClientConfig, OpenOptions, RenameMode};
use pvfs_testkit::{Proxy, TestCluster, Way};
use pvfs_types::Ino;
use pvfs_wire::msg::hello::Role;
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

fn cluster(iods: u16) -> TestCluster {
    TestCluster::builder(PVFS).iods(iods).proxied().start()
}

/// In both ways.
fn silence(proxy: &Proxy, role: Option<Role>) {
    for way in [Way::Request, Way::Reply] {
        proxy.silence(way, role);
    }
}

/// A directory made and moved, by each of `numbers`.
fn changes(client: &Arc<Client>, numbers: std::ops::Range<usize>) -> Vec<JoinHandle<()>> {
    let change = |number: usize| {
        let client = Arc::clone(client);
        tokio::spawn(async move {
            let (from, to) = (name(&format!("from-{number}")), name(&format!("to-{number:03}")));
            client.mkdir(&ROOT, Ino::ROOT, &from, 0o755).await.expect("nobody else makes it");
            let (from, to) = ((Ino::ROOT, &from), (Ino::ROOT, &to));
            client.rename(&ROOT, from, to, RenameMode::NoReplace).await.expect("it is there, once");
        })
    };
    numbers.map(change).collect()
}

async fn all(work: Vec<JoinHandle<()>>) {
    for work in work {
        work.await.unwrap();
    }
}

fn writing(file: &Arc<pvfs_client::File>, data: Vec<u8>) -> JoinHandle<()> {
    let file = Arc::clone(file);
    tokio::spawn(async move { file.write_at(0, data.into()).await.unwrap() })
}

#[test]
fn changes_wait_out_a_silence_between_client_and_mgr_and_are_done_once() {
    let cluster = cluster(1);
    run(async {
        let client = connect_by_proxy(&cluster).await;
        let file = create(&client, "f", None, 1).await;
        let mgr = cluster.proxy("mgr");
        // TCP gets over the first silence; the client gives up its connection in the second.
        for (round, gives_up) in [false, true].into_iter().enumerate() {
            let before = changes(&client, round * 40..round * 40 + 20);
            silence(mgr, None);
            let during = changes(&client, round * 40 + 20..round * 40 + 40);
            until_it_waits(&client).await;
            file.write_at(0, bytes(100_000, round as u64).into()).await.expect("needs no mgr");
            if gives_up {
                mgr.cut_clients();
            }
            mgr.clear();
            all(before).await;
            all(during).await;
        }
        client.unlink(&ROOT, Ino::ROOT, &name("f")).await.unwrap();
        let expect: Vec<String> = (0..80).map(|number| format!("to-{number:03}")).collect();
        assert_eq!(list(&client).await, expect);
        file.close().await.unwrap();
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn where_requests_arrive_and_answers_do_not_each_change_is_done_once() {
    let cluster = cluster(1);
    run(async {
        let (client, helper) = (connect_by_proxy(&cluster).await, connect(&cluster).await);
        let file = Arc::new(create(&client, "f", None, 1).await);
        file.write_at(0, "connects".into()).await.unwrap();
        let (mgr, iod) = (cluster.proxy("mgr"), cluster.proxy("iod0"));
        mgr.silence(Way::Reply, None);
        let made = changes(&client, 0..20);
        let removed = tokio::spawn({
            let client = Arc::clone(&client);
            async move { client.unlink(&ROOT, Ino::ROOT, &name("f")).await.expect("it is there, once") }
        });
        // All of the first step and nothing of the second: nobody was answered.
        let mut names = Vec::new();
        while names.len() != 20 {
            names = list(&helper).await;
        }
        assert!(names.iter().all(|name| name.starts_with("from-")), "{names:?}");
        mgr.cut_clients();
        mgr.clear();
        all(made).await;
        removed.await.unwrap();
        assert_eq!(list(&helper).await, (0..20).map(|n| format!("to-{n:03}")).collect::<Vec<_>>());

        iod.silence(Way::Reply, Some(Role::Client));
        let data = bytes(100_000, 1);
        let writing = writing(&file, data.clone());
        let arrived = || cluster.objects("iod0").iter().any(|object| fs::read(object).unwrap() == data);
        eventually("the bytes arrive", arrived).await;
        assert!(!writing.is_finished(), "nobody was answered");
        iod.cut_clients();
        iod.clear();
        writing.await.unwrap();
        assert!(file.read_at(0, 200_000).await.unwrap() == data, "other bytes");
        file.close().await.unwrap();
        client.shutdown().await.unwrap();
        helper.shutdown().await.unwrap();
    });
    cluster.wait_objects(0);
    cluster.fsck_finds_nothing();
}

#[test]
fn a_client_cut_off_from_one_iod_goes_on_with_all_others() {
    let cluster = cluster(2);
    run(async {
        let client = connect_by_proxy(&cluster).await;
        let near = Arc::new(create(&client, "near", Some(0), 1).await);
        near.write_at(0, bytes(300_000, 1).into()).await.unwrap();
        let (near_iod, far_iod) =
            if cluster.objects("iod0").is_empty() { ("iod1", "iod0") } else { ("iod0", "iod1") };
        let far = Arc::new(create(&client, "far", Some(1), 1).await);
        let both = Arc::new(create(&client, "both", Some(0), 2).await);
        far.write_at(0, bytes(300_000, 2).into()).await.unwrap();
        both.write_at(0, bytes(300_000, 3).into()).await.unwrap();
        let session = client.status().session;

        silence(cluster.proxy(far_iod), Some(Role::Client));
        let far_writing = writing(&far, bytes(300_000, 4));
        let both_writing = writing(&both, bytes(300_000, 5));
        until_it_waits(&client).await;
        for round in 0..10 {
            near.write_at(0, bytes(300_000, 10 + round).into()).await.unwrap();
            assert!(near.read_at(0, 300_000).await.unwrap() == bytes(300_000, 10 + round));
            client.mkdir(&ROOT, Ino::ROOT, &name(&format!("d{round}")), 0o755).await.unwrap();
            create(&client, &format!("d{round}/new"), None, 2).await.close().await.unwrap();
        }
        near.sync().await.unwrap();
        assert!(!far_writing.is_finished() && !both_writing.is_finished(), "no silent success");
        assert!(!cluster.objects(near_iod).is_empty());
        assert_eq!(client.status().session, session, "nobody took it for dead");
        cluster.proxy(far_iod).clear();
        far_writing.await.unwrap();
        both_writing.await.unwrap();
        for file in [&near, &far, &both] {
            file.close().await.unwrap();
        }
        let other = connect(&cluster).await;
        assert!(
            read(&other, "far").await == bytes(300_000, 4) && read(&other, "both").await == bytes(300_000, 5)
        );
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn a_mgr_that_cannot_reach_an_iod_catches_up_and_no_size_is_wrong() {
    let cluster = cluster(2);
    run(async {
        let (client, other) = (connect_by_proxy(&cluster).await, connect(&cluster).await);
        for path in ["doomed", "cut", "kept"] {
            let file = create(&client, path, Some(0), 2).await;
            file.write_at(0, bytes(300_000, 1).into()).await.unwrap();
            file.close().await.unwrap();
        }
        silence(cluster.proxy("iod0"), Some(Role::Mgr));
        client.unlink(&ROOT, Ino::ROOT, &name("doomed")).await.unwrap();
        let new = create(&client, "new", Some(0), 2).await;
        new.write_at(0, bytes(300_000, 2).into()).await.unwrap();
        new.close().await.unwrap();
        assert!(read(&other, "new").await == bytes(300_000, 2), "clients reach it");
        let cut = Arc::new(client.open_path(&ROOT, "cut", OpenOptions::READ_WRITE).await.unwrap());
        let cutting = tokio::spawn({
            let cut = Arc::clone(&cut);
            async move { cut.truncate(1000).await.unwrap() }
        });
        eventually("the other iod's object of the removed file is gone", || {
            cluster.objects("iod1").len() + 1 == cluster.objects("iod0").len()
        })
        .await;
        assert!(!cutting.is_finished(), "not all targets have cut");
        client.mkdir(&ROOT, Ino::ROOT, &name("d"), 0o755).await.unwrap();
        cluster.proxy("iod0").clear();
        assert_eq!(cutting.await.unwrap().size, 1000);
        cut.close().await.unwrap();
        eventually("all of the removed file is gone", || {
            cluster.objects("iod1").len() == cluster.objects("iod0").len()
        })
        .await;
        for (path, expect) in [("cut", &bytes(300_000, 1)[..1000]), ("kept", &bytes(300_000, 1)[..])] {
            assert!(read(&other, path).await == expect, "{path} has other bytes");
        }
    });
    cluster.fsck_finds_nothing();
}

/// Sockets that a daemon has open, and its memory in bytes.
fn resources(cluster: &mut TestCluster, daemon: &str) -> (usize, u64) {
    let pid = cluster.process(daemon).pid().unwrap();
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let is_socket = |fd: &fs::DirEntry| {
        fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = rss.trim().trim_end_matches(" kB").parse().unwrap();
    (fds.filter(is_socket).count(), kib << 10)
}

#[test]
fn connections_that_flap_cost_time_and_leave_nothing_at_the_servers() {
    const FLAPS: usize = 60;
    const DAEMONS: [&str; 3] = ["mgr", "iod0", "iod1"];
    let mut cluster = cluster(2);
    let before = DAEMONS.map(|daemon| resources(&mut cluster, daemon));
    run(async {
        let client = connect_by_proxy(&cluster).await;
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let workers: Vec<_> = (0..4)
            .map(|rank| {
                let (client, stop, done) = (Arc::clone(&client), Arc::clone(&stop), Arc::clone(&done));
                tokio::spawn(async move {
                    let mut made = 0;
                    while !stop.load(Ordering::SeqCst) {
                        let file = create(&client, &format!("f-{rank}-{made}"), None, 2).await;
                        file.write_at(0, bytes(200_000, made).into()).await.unwrap();
                        file.close().await.unwrap();
                        made += 1;
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                    made
                })
            })
            .collect();
        for flap in 0..FLAPS {
            let so_far = done.load(Ordering::SeqCst);
            eventually("it gets on", || done.load(Ordering::SeqCst) > so_far).await;
            for daemon in DAEMONS.iter().skip(flap % 3) {
                cluster.proxy(daemon).cut();
            }
        }
        stop.store(true, Ordering::SeqCst);
        let other = connect(&cluster).await;
        let mut files = 0;
        for (rank, worker) in workers.into_iter().enumerate() {
            let made = worker.await.unwrap();
            files += made;
            for n in 0..made {
                assert!(
                    read(&other, &format!("f-{rank}-{n}")).await == bytes(200_000, n),
                    "{rank} {n} differs"
                );
            }
        }
        assert_eq!(list(&other).await.len() as u64, files);
        client.shutdown().await.unwrap();
        other.shutdown().await.unwrap();
    });
    for (daemon, (sockets, rss)) in DAEMONS.into_iter().zip(before) {
        pvfs_testkit::wait_until("its connections are gone", super::native::LIMIT, || {
            resources(&mut cluster, daemon).0 <= sockets + 2
        });
        let now = resources(&mut cluster, daemon).1;
        assert!(now < rss + (64 << 20), "{daemon} has grown from {rss} to {now} bytes");
    }
    cluster.fsck_finds_nothing();
}

#[test]
fn slow_answers_to_many_calls_are_waited_for_and_nobody_is_taken_for_dead() {
    let cluster = cluster(2);
    run(async {
        let client = connect_by_proxy(&cluster).await;
        let file = Arc::new(create(&client, "f", None, 2).await);
        file.write_at(0, bytes(1 << 20, 0).into()).await.unwrap();
        let connects = || {
            count(&client, "pvfs_connects_total{peer=\"mgr\"}")
                + count(&client, "pvfs_connects_total{peer=\"iod\"}")
        };
        let (before, session) = (connects(), client.status().session);
        assert!(before >= 3, "{before}");
        for daemon in ["mgr", "iod0", "iod1"] {
            cluster.proxy(daemon).delay(Way::Reply, Duration::from_millis(500));
        }
        let made = changes(&client, 0..64);
        let writes: Vec<_> = (0..16)
            .map(|n| {
                let file = Arc::clone(&file);
                tokio::spawn(async move {
                    file.write_at(n << 16, bytes(1 << 16, 100 + n).into()).await.unwrap();
                })
            })
            .collect();
        all(made).await;
        all(writes).await;
        assert_eq!((connects(), client.status().session), (before, session), "nobody connected again");
        for daemon in ["mgr", "iod0", "iod1"] {
            cluster.proxy(daemon).clear();
        }
        let expect: Vec<u8> = (0..16).flat_map(|n| bytes(1 << 16, 100 + n)).collect();
        assert!(file.read_at(0, 2 << 20).await.unwrap() == expect, "other bytes");
        file.close().await.unwrap();
        assert_eq!(list(&client).await.len(), 65);
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn a_narrow_link_to_one_iod_holds_up_its_writers_and_memory_stays_bounded() {
    const HELD: u64 = 1 << 20;
    let mut cluster = cluster(2);
    let before = ["iod0", "iod1"].map(|iod| resources(&mut cluster, iod).1);
    run(async {
        let narrow = ClientConfig { held_bytes_target: HELD, ..config(&cluster) };
        let client = Client::connect(narrow).await.unwrap();
        let far = Arc::new(create(&client, "far", Some(0), 1).await);
        far.write_at(0, "some".into()).await.unwrap();
        let far_iod = if cluster.objects("iod0").is_empty() { "iod1" } else { "iod0" };
        let near = create(&client, "near", Some(1), 1).await;
        cluster.proxy(far_iod).narrow(2 << 20);
        let writes: Vec<_> = (0..4)
            .map(|rank| {
                let far = Arc::clone(&far);
                tokio::spawn(async move {
                    for n in 0..6 {
                        let at = (n * 4 + rank) << 18;
                        far.write_at(at, bytes(1 << 18, at).into()).await.unwrap();
                    }
                })
            })
            .collect();
        // What goes to the other iod overtakes it.
        for n in 0..24 {
            near.write_at(n << 18, bytes(1 << 18, n).into()).await.unwrap();
        }
        assert!(!writes.iter().all(JoinHandle::is_finished), "6 MiB take 3 s over there");
        while !writes.iter().all(JoinHandle::is_finished) {
            let held = count(&client, "pvfs_client_held_bytes");
            assert!(held <= 2 * HELD + (4 << 18), "{held} bytes held");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        all(writes).await;
        cluster.proxy(far_iod).clear();
        for n in 0..24 {
            assert!(
                far.read_at(n << 18, 1 << 18).await.unwrap() == bytes(1 << 18, n << 18),
                "part {n} differs"
            );
        }
        far.close().await.unwrap();
        near.close().await.unwrap();
    });
    for (iod, rss) in ["iod0", "iod1"].into_iter().zip(before) {
        let now = resources(&mut cluster, iod).1;
        assert!(now < rss + (64 << 20), "{iod} has grown from {rss} to {now} bytes");
    }
    cluster.fsck_finds_nothing();
}
