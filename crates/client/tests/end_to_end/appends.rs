//! Appends of several clients to one file: each record once, whole, in one order, whoever dies or gives up meanwhile.

use crate::{
    cluster::{Cluster, Pace, ROOT, Sent, create, eventually, forget_session, in_time, layout},
    gathers::has_lease,
};
use pvfs_client::{Client, ClientError, Delegating, File, OpenOptions, WaitsFor};
use pvfs_types::Errno;
use std::{collections::BTreeMap, sync::Arc};
use tokio::task::JoinHandle;

const STRIP: u32 = 4096;

async fn client(cluster: &Cluster, delegations: Delegating) -> Arc<Client> {
    let mut config = cluster.config();
    config.delegations = delegations;
    Client::connect(config).await.unwrap()
}

async fn open(client: &Client, file: &File) -> Arc<File> {
    Arc::new(client.open(&ROOT, file.ino(), OpenOptions::READ_WRITE).await.unwrap())
}

fn appending(file: &Arc<File>, record: Vec<u8>) -> JoinHandle<Result<u64, ClientError>> {
    let file = Arc::clone(file);
    tokio::spawn(async move { file.append(record.into()).await })
}

/// A record of `len` bytes and some that tell who wrote it and which it is.
fn record(writer: u32, seq: u32, len: usize) -> Vec<u8> {
    let head = [writer, seq, u32::try_from(len).unwrap()].map(u32::to_le_bytes).concat();
    let fill = u8::try_from((writer * 31 + seq) % 251).unwrap();
    [head, vec![fill; len]].concat()
}

/// How many records of each writer there are; fails unless all are whole and each writer's in order.
#[track_caller]
fn records(mut log: &[u8]) -> BTreeMap<u32, u32> {
    let mut next = BTreeMap::new();
    while !log.is_empty() {
        let [writer, seq, len] = [0, 4, 8].map(|at| u32::from_le_bytes(log[at..at + 4].try_into().unwrap()));
        let next: &mut u32 = next.entry(writer).or_default();
        assert_eq!(seq, *next, "of writer {writer}, {} bytes before the end", log.len());
        *next += 1;
        let whole = record(writer, seq, usize::try_from(len).unwrap());
        assert!(log.starts_with(&whole), "record {seq} of writer {writer} is torn");
        log = &log[whole.len()..];
    }
    next
}

/// Waits until a call of `client` waits for `what`.
async fn waits_for(client: &Client, what: impl Fn(WaitsFor) -> bool) {
    let is_waiting = || client.status().waiting.iter().any(|call| call.waits_for.iter().copied().any(&what));
    eventually("it waits", is_waiting).await;
}

fn is_target(what: WaitsFor) -> bool {
    matches!(what, WaitsFor::Target(_))
}

fn is_lock(what: WaitsFor) -> bool {
    what == WaitsFor::Lock
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_appends_alone_takes_no_lock_and_asks_no_mgr() {
    let cluster = Cluster::with_pace(2, Pace { lease_ms: 30_000, keep_alive_ms: 20 }).await;
    let alone = client(&cluster, Delegating::Yes).await;
    // Before that it would lock, and unlock later.
    has_lease(&alone).await;
    let file = create(&alone, "log", layout(2, STRIP)).await;
    let sent = Sent::since_now(&alone);
    for n in 0..50 {
        assert_eq!(file.append("y".into()).await.unwrap(), n);
    }
    assert_eq!(sent.get(), (0, 50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_clients_that_append_in_turn_pay_a_lock_and_its_end() {
    let cluster = Cluster::with_pace(1, Pace { lease_ms: 30_000, keep_alive_ms: 60_000 }).await;
    let clients = [client(&cluster, Delegating::Yes).await, client(&cluster, Delegating::Yes).await];
    let first = create(&clients[0], "log", layout(1, STRIP)).await;
    let files = [open(&clients[0], &first).await, open(&clients[1], &first).await];
    for file in files.iter().cycle().take(6) {
        file.append("x".into()).await.unwrap();
    }
    let sent = clients.each_ref().map(Sent::since_now);
    for n in 0..40 {
        assert_eq!(files[n % 2].append("y".into()).await.unwrap(), 6 + n as u64);
    }
    let to_mgr = || sent.iter().map(|sent| sent.get().0).sum::<u64>();
    eventually("the last lock is given up", || to_mgr() >= 80).await;
    assert!(to_mgr() <= 160, "{} messages for 40 appends", to_mgr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn records_of_several_clients_are_there_once_and_whole_whatever_becomes_of_the_daemons() {
    const RECORDS: u32 = 60;
    let mut cluster = Cluster::with_pace(3, Pace { lease_ms: 30_000, keep_alive_ms: 50 }).await;
    let mut clients = Vec::new();
    for delegations in [Delegating::Yes, Delegating::No, Delegating::Yes] {
        clients.push(client(&cluster, delegations).await);
    }
    let first = create(&clients[0], "log", layout(3, STRIP)).await;
    let mut writers = Vec::new();
    // Two handles of each client.
    for writer in 0..6_u32 {
        let file = open(&clients[writer as usize % 3], &first).await;
        writers.push(tokio::spawn(async move {
            for seq in 0..RECORDS {
                // From one byte to more than all targets have in one turn.
                let len = usize::try_from((seq * 7 + writer) * (seq * 7 + writer) % 14_000).unwrap();
                file.append(record(writer, seq, len).into()).await.unwrap();
            }
            file.close().await.unwrap();
        }));
    }
    let mut round = 0;
    while !writers.iter().all(JoinHandle::is_finished) {
        if round % 2 == 0 {
            cluster.stop_mgr().await;
            cluster.start_mgr().await;
        } else {
            cluster.stop_iod(round % 3).await;
            cluster.start_iod(round % 3).await;
        }
        round += 1;
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }
    for writer in writers {
        in_time(writer).await.unwrap();
    }
    let log = first.read_at(0, 1 << 26).await.unwrap();
    assert_eq!(records(&log), (0..6).map(|writer| (writer, RECORDS)).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_delegation_that_is_recalled_amid_an_append_is_given_up_for_the_lock() {
    let mut cluster = Cluster::with_pace(2, Pace { lease_ms: 30_000, keep_alive_ms: 20 }).await;
    let (one, two) = (client(&cluster, Delegating::Yes).await, client(&cluster, Delegating::Yes).await);
    let file = Arc::new(create(&one, "log", layout(2, STRIP)).await);
    eventually("it is known to be alone", || {
        one.delegation(file.ino()).is_some() || {
            let _ = futures_util::FutureExt::now_or_never(file.attr());
            false
        }
    })
    .await;
    file.append(record(0, 0, 10).into()).await.unwrap();
    assert!(one.delegation(file.ino()).is_some());
    cluster.stop_iod(1).await;
    // To the target that is there and the one that is not.
    let under_way = appending(&file, record(0, 1, 9000));
    waits_for(&one, is_target).await;
    // The open waits for no iod, though it takes the delegation away.
    let other = in_time(open(&two, &file)).await;
    assert!(one.delegation(file.ino()).is_none());
    let waiting = appending(&other, record(1, 0, 100));
    waits_for(&two, is_lock).await;
    cluster.start_iod(1).await;
    let (first, second) =
        (in_time(under_way).await.unwrap().unwrap(), in_time(waiting).await.unwrap().unwrap());
    assert_eq!((first, second), (22, 22 + 9012));
    let log = file.read_at(0, 1 << 20).await.unwrap();
    assert_eq!(records(&log), BTreeMap::from([(0, 2), (1, 1)]));
}

/// Two clients, of which the first holds the file's append lock: its append waits for an iod that is not there.
struct Stuck {
    cluster: Cluster,
    clients: [Arc<Client>; 2],
    files: [Arc<File>; 2],
    under_way: JoinHandle<Result<u64, ClientError>>,
}

impl Stuck {
    async fn start() -> Stuck {
        let mut cluster = Cluster::with_pace(2, Pace { lease_ms: 30_000, keep_alive_ms: 50 }).await;
        let clients = [client(&cluster, Delegating::No).await, client(&cluster, Delegating::No).await];
        let first = Arc::new(create(&clients[0], "log", layout(2, STRIP)).await);
        first.append(record(0, 0, 10).into()).await.unwrap();
        cluster.stop_iod(1).await;
        let under_way = appending(&first, record(0, 1, 9000));
        waits_for(&clients[0], is_target).await;
        let second = in_time(open(&clients[1], &first)).await;
        Stuck { cluster, clients, files: [first, second], under_way }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_gives_up_waiting_for_its_turn_has_appended_nothing_and_holds_nothing() {
    let Stuck { mut cluster, clients, files: [first, second], under_way } = Stuck::start().await;
    let given_up = appending(&second, record(1, 0, 100));
    waits_for(&clients[1], is_lock).await;
    // One of the same client waits behind it.
    let behind = appending(&second, record(2, 0, 100));
    given_up.abort();
    given_up.await.expect_err("is given up");
    cluster.start_iod(1).await;
    in_time(under_way).await.unwrap().unwrap();
    in_time(behind).await.unwrap().unwrap();
    in_time(first.append(record(0, 2, 5).into())).await.unwrap();
    let log = first.read_at(0, 1 << 20).await.unwrap();
    assert_eq!(records(&log), BTreeMap::from([(0, 3), (2, 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_append_that_nobody_waits_for_any_more_is_whole_before_the_next_and_closed_after_it() {
    let Stuck { mut cluster, clients, files: [first, second], under_way } = Stuck::start().await;
    under_way.abort();
    under_way.await.expect_err("is given up");
    in_time(first.close()).await.unwrap();
    let next = appending(&second, record(1, 0, 100));
    waits_for(&clients[1], is_lock).await;
    cluster.start_iod(1).await;
    in_time(next).await.unwrap().unwrap();
    let log = second.read_at(0, 1 << 20).await.unwrap();
    assert_eq!(records(&log), BTreeMap::from([(0, 2), (1, 1)]));
    in_time(second.close()).await.unwrap();
    // Nobody counts as a writer any more.
    in_time(async {
        while open(&clients[1], &first).await.at_open().has_writers {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_append_is_not_carried_on_in_another_session() {
    let Stuck { mut cluster, clients, files: [first, second], under_way } = Stuck::start().await;
    let session = clients[0].status().session;
    forget_session(&cluster, &clients[0]).await;
    eventually("a keep-alive finds out", || clients[0].status().session != session).await;
    let next = appending(&second, record(1, 0, 100));
    cluster.start_iod(1).await;
    let error = in_time(under_way).await.unwrap().expect_err("others go on meanwhile");
    assert!(matches!(error, ClientError::AppendCut { .. }) && error.errno() == Errno::EIO, "{error}");
    let at = in_time(next).await.unwrap().unwrap();
    let again = in_time(first.append(record(1, 1, 9000).into())).await.unwrap();
    assert_eq!(again, at + 112);
    let log = second.read_at(at, 1 << 20).await.unwrap();
    assert_eq!(records(&log), BTreeMap::from([(1, 2)]));
}
