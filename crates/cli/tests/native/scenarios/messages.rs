//! Groups D and E: connections that break within large messages, wrong programs on a daemon's port, many answers lost at once,
//! opens and closes lost in all combinations. (One message of each operation at a time: `tests/exactly_once`.)

use super::native::{
    PVFS, ROOT, bytes, connect, connect_by_proxy, create, eventually, list, name, read, run, until_it_waits,
};
use pvfs_client::OpenOptions;
use pvfs_testkit::{Caught, Fate, TestCluster, Way};
use pvfs_types::Ino;
use pvfs_wire::Op;
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

fn cluster(iods: u16) -> TestCluster {
    TestCluster::builder(PVFS).iods(iods).proxied().start()
}

#[test]
fn a_connection_reset_within_a_large_payload_costs_a_pause_and_no_byte() {
    let cluster = cluster(1);
    run(async {
        let client = connect(&cluster).await;
        let file = create(&client, "f", None, 1).await;
        let iod = cluster.proxy("iod0");
        for (round, fate) in [Fate::Reset, Fate::Tear, Fate::Reset].into_iter().enumerate() {
            let data = bytes(1 << 20, round as u64);
            let torn = iod.plan(Way::Request, Op::Write, 1, fate);
            file.write_at(0, data.clone().into()).await.unwrap();
            assert!(torn.has_happened());
            let torn = iod.plan(Way::Reply, Op::Read, 1, fate);
            assert!(file.read_at(0, 1 << 20).await.unwrap() == data, "other bytes after {fate:?}");
            assert!(torn.has_happened());
        }
        file.close().await.unwrap();
        assert!(read(&client, "f").await == bytes(1 << 20, 2), "other bytes");
    });
    cluster.fsck_finds_nothing();
}

/// What answers on a port until it is dropped.
struct Impostor {
    addr: String,
    ended: Arc<AtomicBool>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

impl Impostor {
    fn start(addr: &str, answer: fn(TcpStream)) -> Impostor {
        let (listener, ended) = (TcpListener::bind(addr).unwrap(), Arc::new(AtomicBool::new(false)));
        let is_over = Arc::clone(&ended);
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                answer(stream);
            }
        });
        Impostor { addr: addr.to_owned(), ended, accepting: Some(accepting) }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        TcpStream::connect(&self.addr).ok(); // wakes it
        self.accepting.take().unwrap().join().ok();
    }
}

#[test]
fn whoever_answers_in_an_iods_place_is_not_taken_for_it() {
    let mut cluster = TestCluster::builder(PVFS).iods(1).start();
    let other = TestCluster::builder(PVFS).iods(1).start();
    let answers: [fn(TcpStream); 3] = [
        drop,
        |mut stream| drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")),
        |mut stream| {
            // Says back what it hears.
            let mut buffer = [0; 256];
            let len = stream.read(&mut buffer).unwrap_or(0);
            stream.write_all(&buffer[..len]).ok();
        },
    ];
    run(async {
        let client = connect(&cluster).await;
        let file = Arc::new(create(&client, "f", None, 1).await);
        let addr = cluster.addr("iod0").to_owned();
        for (round, answer) in answers.into_iter().map(Some).chain([None]).enumerate() {
            let data = bytes(100_000, round as u64);
            file.write_at(0, data.clone().into()).await.unwrap();
            cluster.kill9("iod0");
            let impostor = answer.map(|answer| Impostor::start(&addr, answer));
            // Or the iod of another file system, which knows another secret.
            let target = other.data_dir().join("iod0");
            let mut stranger = (impostor.is_none()).then(|| {
                let args = ["--listen", &addr, "--target", target.to_str().unwrap()];
                other.command("iod", args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            });
            let reading = tokio::spawn({
                let file = Arc::clone(&file);
                async move { file.read_at(0, 100_000).await.unwrap() }
            });
            until_it_waits(&client).await;
            let tries = || client.status().waiting.first().map_or(0, |call| call.tries);
            eventually("it is tried again and again", || tries() > 5).await;
            assert!(!reading.is_finished(), "those are not its bytes");
            drop(impostor);
            if let Some(stranger) = &mut stranger {
                stranger.kill().unwrap();
                stranger.wait().unwrap();
            }
            cluster.restart("iod0");
            assert!(reading.await.unwrap() == data, "other bytes");
        }
        file.close().await.unwrap();
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn a_thousand_changes_in_flight_are_each_done_once_though_all_answers_are_lost_again_and_again() {
    const CHANGES: usize = 1000;
    let cluster = cluster(1);
    run(async {
        let (client, helper) = (connect_by_proxy(&cluster).await, connect(&cluster).await);
        let mgr = cluster.proxy("mgr");
        mgr.silence(Way::Reply, None);
        let changes: Vec<_> = (0..CHANGES)
            .map(|n| {
                let client = Arc::clone(&client);
                tokio::spawn(async move {
                    client
                        .mkdir(&ROOT, Ino::ROOT, &name(&format!("d{n}")), 0o755)
                        .await
                        .expect("made once")
                        .ino
                })
            })
            .collect();
        // All that has a slot is done, and nobody has heard of it.
        while list(&helper).await.len() < 64 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Those go, and every fortieth after them goes with all others that are on their way.
        let lost: Vec<_> =
            (1..CHANGES / 40).map(|n| mgr.plan(Way::Reply, Op::MkDir, n * 40, Fate::Lose)).collect();
        mgr.cut_clients();
        mgr.clear();
        for (n, change) in changes.into_iter().enumerate() {
            let ino = change.await.unwrap();
            assert_eq!(helper.lookup(&ROOT, Ino::ROOT, &name(&format!("d{n}"))).await.unwrap().ino, ino);
        }
        assert_eq!(list(&helper).await.len(), CHANGES);
        assert!(lost.iter().all(Caught::has_happened));
    });
    cluster.fsck_finds_nothing();
}

#[test]
fn opens_and_closes_lost_in_all_combinations_leave_no_writer_and_take_no_bytes_away() {
    let mut cluster = cluster(1);
    run(async {
        let (client, helper) = (connect_by_proxy(&cluster).await, connect(&cluster).await);
        let reader = {
            let file = create(&client, "f", None, 1).await;
            file.write_at(0, bytes(50_000, 1).into()).await.unwrap();
            file.close().await.unwrap();
            client.open_path(&ROOT, "f", OpenOptions::READ).await.unwrap()
        };
        let lost = [None, Some(Way::Request), Some(Way::Reply)];
        for (open, close) in lost.iter().flat_map(|open| lost.iter().map(move |close| (*open, *close))) {
            let plan =
                |way: Option<Way>, op| way.map(|way| cluster.proxy("mgr").plan(way, op, 1, Fate::Lose));
            let open = plan(open, Op::Open);
            let file = client.open(&ROOT, reader.ino(), OpenOptions::WRITE).await.unwrap();
            file.write_at(0, bytes(50_000, 1).into()).await.unwrap();
            let close = plan(close, Op::ReportSize);
            // The next open comes while the close is under way.
            let root = ROOT;
            let opening = client.open(&root, reader.ino(), OpenOptions::WRITE);
            let (closed, again) = tokio::join!(file.close(), opening);
            closed.unwrap();
            let again = again.unwrap();
            again.write_at(10, bytes(50_000, 1)[10..20].to_vec().into()).await.unwrap();
            again.close().await.unwrap();
            assert!(
                open.is_none_or(|lost| lost.has_happened()) && close.is_none_or(|lost| lost.has_happened())
            );
        }
        cluster.kill9("iod0");
        let told = helper.lookup(&ROOT, Ino::ROOT, &name("f")).await.unwrap();
        assert_eq!(told.size, 50_000, "nobody writes it, so no iod is asked");
        cluster.restart("iod0");
        helper.unlink(&ROOT, Ino::ROOT, &name("f")).await.unwrap();
        assert!(reader.read_at(0, 60_000).await.unwrap() == bytes(50_000, 1), "it is open here");
        reader.close().await.unwrap();
        client.shutdown().await.unwrap();
        helper.shutdown().await.unwrap();
    });
    cluster.wait_objects(0);
    cluster.fsck_finds_nothing();
}
