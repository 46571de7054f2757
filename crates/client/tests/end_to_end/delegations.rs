//! Clients that go by what they know, and are asked before it changes.

use crate::cluster::{Cluster, Pace, create, in_time, layout};
use pvfs_client::{Client, CreateOptions, Delegating, RenameMode};
use pvfs_types::{Attr, Cred, Ino, Name, SetAttr};
use std::sync::Arc;

async fn delegating(cluster: &Cluster) -> Arc<Client> {
    let mut config = cluster.config();
    config.delegations = Delegating::Yes;
    Client::connect(config).await.unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

async fn chmod(client: &Client, ino: Ino, mode: u32) {
    let changes = SetAttr { mode: Some(mode), ..SetAttr::default() };
    client.setattr(&Cred::root(), ino, changes, None).await.unwrap();
}

async fn lookup(client: &Client, text: &str) -> Option<Attr> {
    client.lookup(&Cred::root(), Ino::ROOT, &name(text)).await.ok()
}

/// Knows the root directory and `text` in it.
async fn warm(client: &Client, text: &str) -> Attr {
    client.getattr(&Cred::root(), Ino::ROOT).await.unwrap();
    lookup(client, text).await.unwrap()
}

/// How many of these messages a client has sent to the mgr.
fn sent(client: &Client, ops: &[&str]) -> u64 {
    let wanted = |series: &str| {
        series.starts_with("pvfs_messages_total")
            && series.contains("dir=\"sent\"")
            && series.contains("kind=\"request\"")
            && ops.iter().any(|op| series.contains(&format!("op=\"{op}\"")))
    };
    client.metrics().snapshot().iter().filter(|(series, _)| wanted(series)).map(|(_, count)| count).sum()
}

#[tokio::test]
async fn what_is_delegated_costs_no_message_and_is_never_old() {
    let mut cluster = Cluster::with_pace(1, Pace { lease_ms: 30_000, keep_alive_ms: 20 }).await;
    let (a, b) = (delegating(&cluster).await, delegating(&cluster).await);
    let root = Cred::root();
    let dir = a.mkdir(&root, Ino::ROOT, &name("d"), 0o755).await.unwrap();
    for round in 0..50u32 {
        warm(&a, "d").await;
        let before = sent(&a, &["lookup", "getattr"]);
        for _ in 0..20 {
            assert_eq!(warm(&a, "d").await.ino, dir.ino);
        }
        assert_eq!(sent(&a, &["lookup", "getattr"]), before, "it knows");
        let mode = 0o700 + round;
        chmod(&b, dir.ino, mode).await;
        assert_eq!(lookup(&a, "d").await.unwrap().mode, mode, "round {round}");
        assert_eq!(lookup(&b, "d").await.unwrap().mode, mode, "who changed it does not go by what it knew");
        b.rename(&root, (Ino::ROOT, &name("d")), (Ino::ROOT, &name("e")), RenameMode::Replace).await.unwrap();
        assert_eq!(
            (lookup(&a, "d").await, lookup(&a, "e").await.map(|attr| attr.ino)),
            (None, Some(dir.ino))
        );
        a.rename(&root, (Ino::ROOT, &name("e")), (Ino::ROOT, &name("d")), RenameMode::Replace).await.unwrap();
        assert_eq!(
            (lookup(&b, "e").await, lookup(&b, "d").await.map(|attr| attr.ino)),
            (None, Some(dir.ino))
        );
        if round % 16 == 5 {
            warm(&a, "d").await;
            cluster.stop_mgr().await;
            cluster.start_mgr().await;
        }
    }
    a.shutdown().await.unwrap();
    b.shutdown().await.unwrap();
}

#[tokio::test]
async fn sizes_that_another_client_writes_are_never_old() {
    let cluster = Cluster::start(2).await;
    let (a, b) = (delegating(&cluster).await, delegating(&cluster).await);
    let options = CreateOptions::default();
    let written = b.create(&Cred::root(), Ino::ROOT, &name("f"), options).await.unwrap().file;
    written.close().await.unwrap();
    for round in 1..=20u64 {
        assert_eq!(warm(&a, "f").await.size, (round - 1) * 1000);
        let file = b.open(&Cred::root(), written.ino(), pvfs_client::OpenOptions::WRITE).await.unwrap();
        file.write_at((round - 1) * 1000, vec![7; 1000].into()).await.unwrap();
        assert_eq!(lookup(&a, "f").await.unwrap().size, round * 1000, "written, not closed");
        file.close().await.unwrap();
        assert_eq!(lookup(&a, "f").await.unwrap().size, round * 1000);
    }
    a.shutdown().await.unwrap();
    b.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_does_not_answer_a_recall_is_waited_for_until_its_lease_is_over_and_goes_by_nothing_then() {
    let cluster = Cluster::with_pace(1, Pace { lease_ms: 300, keep_alive_ms: 20 }).await;
    let b = delegating(&cluster).await;
    let dir = b.mkdir(&Cred::root(), Ino::ROOT, &name("d"), 0o755).await.unwrap();
    // In a runtime of its own, which does not get its turn for a while.
    let (config, stalls) = (cluster.config(), std::sync::mpsc::channel::<()>());
    let (known, is_known) = tokio::sync::oneshot::channel();
    let stalled = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut config = config;
            config.delegations = Delegating::Yes;
            let a = Client::connect(config).await.unwrap();
            // Its lease counts from a keep-alive.
            loop {
                warm(&a, "d").await;
                let before = sent(&a, &["lookup"]);
                warm(&a, "d").await;
                if sent(&a, &["lookup"]) == before {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            known.send(()).unwrap();
            stalls.1.recv().unwrap();
            lookup(&a, "d").await.unwrap().mode
        })
    });
    is_known.await.unwrap();
    chmod(&b, dir.ino, 0o711).await;
    stalls.0.send(()).unwrap();
    let seen = tokio::task::spawn_blocking(move || stalled.join().unwrap()).await.unwrap();
    assert_eq!(seen, 0o711);
    b.shutdown().await.unwrap();
}

/// The number of what one is about to make, while it waits for the other one to forget the directory, the other one's next file gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_make_files_in_one_directory_at_once_go_on() {
    let cluster = Cluster::start(1).await;
    let clients = [delegating(&cluster).await, delegating(&cluster).await];
    let make = |client: Arc<Client>, who: usize| {
        tokio::spawn(async move {
            for n in 0..150 {
                client.getattr(&Cred::root(), Ino::ROOT).await.unwrap();
                let file = create(&client, &format!("{who}-{n}"), layout(1, 4096)).await;
                file.write_at(0, "x".into()).await.unwrap();
                file.close().await.unwrap();
            }
        })
    };
    let [a, b] = [0, 1].map(|who| make(Arc::clone(&clients[who]), who));
    in_time(async { (a.await.unwrap(), b.await.unwrap()) }).await;
    for client in clients {
        in_time(client.shutdown()).await.unwrap();
    }
}
