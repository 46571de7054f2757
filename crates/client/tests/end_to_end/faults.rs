//! Daemons that go away and come back, sessions that are given up, callers that stop waiting.

use crate::cluster::{Cluster, Pace, ROOT, bytes, create, eventually, forget_session, in_time, layout, name};
use pvfs_client::{Client, ClientConfig, ClientError, CreateOptions, OpenOptions, WaitsFor, asked_by};
use pvfs_testkit::{Fate, Proxy, Way};
use pvfs_types::{Errno, FsId, Ino};
use pvfs_wire::{
    Op,
    msg::hello::{Role, Secret},
};
use std::{sync::Arc, time::Duration};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_writes_wait_for_an_iod_and_go_on() {
    let mut cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = Arc::new(create(&client, "f", layout(2, 4096)).await);
    file.write_at(0, bytes(1, 50_000).into()).await.unwrap();
    cluster.stop_iod(1).await;
    let write = tokio::spawn({
        let file = Arc::clone(&file);
        async move { file.write_at(50_000, bytes(2, 50_000).into()).await }
    });
    let read = tokio::spawn({
        let file = Arc::clone(&file);
        async move { file.read_at(0, 50_000).await }
    });
    let waits =
        || client.status().servers.iter().any(|server| server.role == Role::Iod && server.waiting.is_some());
    eventually("status names the iod that is waited for", waits).await;
    assert!(!write.is_finished() && !read.is_finished());
    cluster.start_iod(1).await;
    in_time(write).await.unwrap().unwrap();
    assert_eq!(in_time(read).await.unwrap().unwrap(), bytes(1, 50_000));
    assert_eq!(file.read_at(50_000, 50_000).await.unwrap(), bytes(2, 50_000));
    assert!(!waits(), "answered again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_follows_an_iod_to_its_new_address() {
    let mut cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = Arc::new(create(&client, "f", layout(2, 4096)).await);
    file.write_at(0, bytes(1, 50_000).into()).await.unwrap();
    cluster.stop_iod(0).await;
    let read = tokio::spawn({
        let file = Arc::clone(&file);
        async move { file.read_at(0, 50_000).await }
    });
    cluster.move_iod(0).await;
    assert_eq!(in_time(read).await.unwrap().unwrap(), bytes(1, 50_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_operations_work_while_an_iod_is_down() {
    let mut cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = create(&client, "old", layout(2, 4096)).await;
    file.write_at(0, bytes(1, 50_000).into()).await.unwrap();
    file.close().await.unwrap();
    cluster.stop_iod(0).await;
    in_time(async {
        let new = client.create(&ROOT, Ino::ROOT, &name("new"), CreateOptions::default()).await.unwrap();
        new.file.close().await.unwrap();
        let old = client.open_path(&ROOT, "old", OpenOptions::READ).await.unwrap();
        assert_eq!(client.getattr(&ROOT, old.ino()).await.unwrap().size, 50_000);
        assert_eq!(client.readdir_all(&ROOT, Ino::ROOT, true).await.unwrap().len(), 2);
        client.unlink(&ROOT, Ino::ROOT, &name("old")).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_files_need_no_mgr_and_changes_wait_for_it() {
    let mut cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(2, 4096)).await;
    cluster.stop_mgr().await;
    in_time(file.write_at(0, bytes(1, 50_000).into())).await.unwrap();
    assert_eq!(in_time(file.read_at(0, 50_000)).await.unwrap(), bytes(1, 50_000));
    let making = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.mkdir(&ROOT, Ino::ROOT, &name("d"), 0o755).await }
    });
    eventually("status names the mgr", || client.status().servers[0].waiting.is_some()).await;
    assert!(!making.is_finished());
    cluster.start_mgr().await;
    in_time(making).await.unwrap().unwrap();
    in_time(file.close()).await.unwrap();
    assert_eq!(client.resolve(&ROOT, "f", true).await.unwrap().size, 50_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_caller_gave_up_is_done_once_and_its_slot_goes_on() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    cluster.stop_mgr().await;
    // More than there are slots: the last 36 get none before their callers give up, so nothing is done.
    for n in 0..100 {
        let name = name(&format!("d{n}"));
        let making = client.mkdir(&ROOT, Ino::ROOT, &name, 0o755).await_a_little();
        assert!(making.await.is_none(), "there is no mgr");
    }
    assert_eq!(client.status().changes_in_flight, 64);
    cluster.start_mgr().await;
    eventually("all slots are free", || client.status().changes_in_flight == 0).await;
    // Every slot goes on with the next number: an old answer would show in a wrong name.
    for n in 100..300 {
        let (made, wanted) = (format!("d{n}"), name(&format!("d{n}")));
        let ino = in_time(client.mkdir(&ROOT, Ino::ROOT, &wanted, 0o755)).await.unwrap().ino;
        assert_eq!(client.resolve(&ROOT, &made, true).await.unwrap().ino, ino);
    }
    assert_eq!(client.readdir_all(&ROOT, Ino::ROOT, false).await.unwrap().len(), 264);
}

/// Polls a future for a moment and drops it.
trait AwaitALittle: Future + Sized {
    async fn await_a_little(self) -> Option<Self::Output> {
        tokio::time::timeout(Duration::from_millis(1), self).await.ok()
    }
}

impl<F: Future> AwaitALittle for F {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_whose_caller_gave_up_leaves_no_writer_behind() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(1, 4096)).await;
    let ino = file.ino();
    file.close().await.unwrap();
    cluster.stop_mgr().await;
    assert!(client.open(&ROOT, ino, OpenOptions::WRITE).await_a_little().await.is_none());
    cluster.start_mgr().await;
    eventually("the file is closed again", || client.status().open_files == 0).await;
    let other = cluster.client().await;
    // The mgr hears of it in the background; from then on nobody writes, and no iod is asked for the size.
    in_time(async {
        let cost_of_a_stat = async || {
            let sent = crate::cluster::Sent::since_now(&other);
            other.resolve(&ROOT, "f", true).await.unwrap();
            sent.get()
        };
        while cost_of_a_stat().await != (1, 0) {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_up_write_leaves_the_true_size() {
    let mut cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(2, 4096)).await;
    cluster.stop_iod(1).await;
    // The strip on iod 0 or 1 may land, the other waits.
    assert!(file.write_at(0, bytes(1, 8192).into()).await_a_little().await.is_none());
    cluster.start_iod(1).await;
    in_time(file.close()).await.unwrap();
    let size = client.resolve(&ROOT, "f", true).await.unwrap().size;
    let other = cluster.client().await.open_path(&ROOT, "f", OpenOptions::READ).await.unwrap();
    assert_eq!(other.read_at(0, 10_000).await.unwrap().len() as u64, size);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_files_outlive_their_session() {
    let mut cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(2, 4096)).await;
    file.write_at(0, bytes(1, 20_000).into()).await.unwrap();
    let before = client.status().session;
    forget_session(&cluster, &client).await;
    assert_eq!(file.read_at(0, 20_000).await.unwrap(), bytes(1, 20_000), "whatever session it is by now");
    eventually("a keep-alive finds out", || client.status().session != before).await;
    file.write_at(20_000, bytes(2, 20_000).into()).await.unwrap();
    assert_eq!(file.read_at(20_000, 30_000).await.unwrap(), bytes(2, 20_000));
    let other = cluster.client().await;
    assert_eq!(other.resolve(&ROOT, "f", true).await.unwrap().size, 40_000, "a writer again");
    client.mkdir(&ROOT, Ino::ROOT, &name("d"), 0o755).await.unwrap();
    file.close().await.unwrap();
    cluster.stop_iod(0).await;
    let told = in_time(other.resolve(&ROOT, "f", true)).await.unwrap();
    assert_eq!(told.size, 40_000, "no target is asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_finds_out_that_its_session_is_gone_and_is_done_in_a_new_one() {
    let cluster = Cluster::with_pace(1, Pace { lease_ms: 30_000, keep_alive_ms: 60_000 }).await;
    let client = cluster.client().await;
    forget_session(&cluster, &client).await;
    client.mkdir(&ROOT, Ino::ROOT, &name("d"), 0o755).await.unwrap();
    forget_session(&cluster, &client).await;
    assert_eq!(client.readdir_all(&ROOT, Ino::ROOT, true).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_another_client_unlinked_is_read_until_it_is_closed() {
    let cluster = Cluster::start(2).await;
    let (client, other) = (cluster.client().await, cluster.client().await);
    let file = create(&client, "f", layout(2, 4096)).await;
    file.write_at(0, bytes(1, 20_000).into()).await.unwrap();
    other.unlink(&ROOT, Ino::ROOT, &name("f")).await.unwrap();
    assert_eq!(file.read_at(0, 20_000).await.unwrap(), bytes(1, 20_000));
    file.close().await.unwrap();
    eventually("its objects are removed", || cluster.iods_received("remove_objects") >= 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_renewed_under_a_long_transfer() {
    let cluster = Cluster::with_pace(1, Pace { lease_ms: 200, keep_alive_ms: 60_000 }).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(1, 4096)).await;
    let begin = std::time::Instant::now();
    // No keep-alive comes by itself: each time the lease has run out, the refused write has it renewed.
    let mut at = 0;
    while begin.elapsed() < Duration::from_millis(1500) {
        in_time(file.write_at(at, "12345678".into())).await.unwrap();
        at += 8;
    }
    assert_eq!(file.attr().await.unwrap().size, at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_learn_at_once_why_they_are_not_let_in() {
    let cluster = Cluster::start(1).await;
    let wrong = ClientConfig { cluster_secret: Secret([7; 32]), ..cluster.config() };
    let error = in_time(Client::connect(wrong)).await.err().expect("wrong secret");
    assert!(matches!(error, ClientError::NotLetIn { .. }), "{error}");
    assert_eq!(error.errno(), Errno::EACCES);
    let foreign = ClientConfig { fs: Some(FsId::random()), ..cluster.config() };
    let error = in_time(Client::connect(foreign)).await.err().expect("wrong file system");
    assert!(matches!(error, ClientError::NotLetIn { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_with_a_deadline_ends_and_says_what_it_tried() {
    let config = ClientConfig {
        connect_deadline: Some(Duration::from_millis(50)),
        ..ClientConfig::new(vec!["127.0.0.1:1".into()], Secret([1; 32]))
    };
    let error = in_time(Client::connect(config)).await.err().expect("nobody there");
    assert_eq!(error.errno(), Errno::ETIMEDOUT);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_was_shut_down_says_so() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    client.shutdown().await.unwrap();
    let error = in_time(client.mkdir(&ROOT, Ino::ROOT, &name("d"), 0o755)).await.expect_err("shut down");
    assert!(matches!(error, ClientError::ShutDown), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_the_report_of_a_file_that_was_just_dropped() {
    let cluster = Cluster::start(1).await;
    let proxy = Proxy::start(cluster.mgr_addr());
    let client =
        Client::connect(ClientConfig { mgr: vec![proxy.addr().into()], ..cluster.config() }).await.unwrap();
    let file = create(&client, "f", layout(1, 4096)).await;
    file.write_at(0, bytes(1, 5_000).into()).await.unwrap();
    let report = proxy.plan(Way::Request, Op::ReportSize, 1, Fate::Hold);
    drop(file);
    let reporting = report.clone();
    tokio::task::spawn_blocking(move || reporting.wait()).await.unwrap();
    let shutdown = tokio::spawn(async move { client.shutdown().await });
    let other = cluster.client().await;
    for _ in 0..20 {
        other.resolve(&ROOT, "f", true).await.unwrap(); // time enough for a shutdown that does not wait
    }
    assert_eq!(proxy.seen(Way::Request, Op::CloseSession), 0, "the session ends before the report is in");
    report.release();
    in_time(shutdown).await.unwrap().unwrap();
    assert_eq!(other.resolve(&ROOT, "f", true).await.unwrap().size, 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_says_who_waits_for_what() {
    let mut cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = Arc::new(create(&client, "f", layout(1, 4096)).await);
    file.write_at(0, bytes(1, 5_000).into()).await.unwrap();
    let (target, ino) = (client.status().targets[0].id, file.ino());
    cluster.stop_iod(0).await;
    cluster.stop_iod(1).await;
    let read = tokio::spawn(asked_by(4711, {
        let file = Arc::clone(&file);
        async move { file.read_at(0, 5_000).await }
    }));
    eventually("the read shows as waiting", || client.status().waiting.iter().any(|call| call.tries > 1))
        .await;
    let call = client.status().waiting.remove(0);
    assert_eq!((call.pid, call.op, call.ino), (Some(4711), Op::Read, Some(ino)));
    assert!(matches!(call.waits_for[..], [WaitsFor::Target(_)]), "{:?} of {target}", call.waits_for);
    assert!(call.error.contains("cannot reach"), "{}", call.error);
    assert!(call.since >= Duration::from_millis(100) && client.status().waiting.len() == 1);
    cluster.start_iod(0).await;
    cluster.start_iod(1).await;
    in_time(read).await.unwrap().unwrap();
    assert_eq!(client.status().waiting, [], "nobody waits any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_client_gives_up_each_call_for_itself_and_goes_on() {
    let mut cluster = Cluster::start(1).await;
    let timeo = Duration::from_millis(150);
    let soft = ClientConfig { timeo: Some(timeo), ..cluster.config() };
    let client = Client::connect(soft).await.unwrap();
    let file = create(&client, "f", layout(1, 4096)).await;
    file.write_at(0, bytes(1, 5_000).into()).await.unwrap();

    cluster.stop_iod(0).await;
    let begin = std::time::Instant::now();
    for _ in 0..3 {
        let error = in_time(file.read_at(0, 5_000)).await.unwrap_err();
        assert!(matches!(error, ClientError::TimedOut { op: Op::Read, .. }), "{error}");
        assert_eq!(error.errno(), Errno::EIO);
    }
    assert!(begin.elapsed() >= 3 * timeo, "each of them waits");
    cluster.start_iod(0).await;
    assert_eq!(in_time(file.read_at(0, 5_000)).await.unwrap(), bytes(1, 5_000));

    // More changes than there are slots, all given up while the mgr is away.
    cluster.stop_mgr().await;
    let given_up = (0..100).map(|n| {
        let client = Arc::clone(&client);
        async move { client.mkdir(&ROOT, Ino::ROOT, &name(&format!("d{n}")), 0o755).await }
    });
    for error in futures_util::future::join_all(given_up).await {
        assert!(matches!(error, Err(ClientError::TimedOut { op: Op::MkDir, .. })), "{error:?}");
    }
    cluster.start_mgr().await;
    eventually("what had a slot is done", || client.status().changes_in_flight == 0).await;
    let made = in_time(client.readdir_all(&ROOT, Ino::ROOT, false)).await.unwrap().len();
    assert_eq!(made, 1 + 64, "once each, and nothing of those without a slot");
    for n in 100..200 {
        let wanted = name(&format!("d{n}"));
        let ino = in_time(client.mkdir(&ROOT, Ino::ROOT, &wanted, 0o755)).await.unwrap().ino;
        assert_eq!(client.lookup(&ROOT, Ino::ROOT, &wanted).await.unwrap().ino, ino, "an old answer");
    }
    assert_eq!(client.status().waiting, []);
}
