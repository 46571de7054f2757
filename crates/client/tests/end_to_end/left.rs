//! What a process had closed, and could not tell of before it was killed.

use crate::{
    cluster::{Cluster, ROOT, Sent, bytes, create, in_time, layout, name},
    gathers::Desk,
};
use pvfs_types::{Errno, Ino};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A process writes 50,000 bytes to `f`, closes it while the mgr's store takes nothing, and is killed.
async fn dies_with_a_file_closed_in_vain(cluster: &Cluster, desk: &Desk) -> Ino {
    let (config, desk) = (cluster.config(), desk.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let writes = runtime.spawn(async move {
        let client = desk.connect(config).await;
        let file = create(&client, "f", layout(2, 4096)).await;
        file.write_at(0, bytes(1, 50_000).into()).await.unwrap();
        std::mem::forget(client);
        file
    });
    let file = writes.await.unwrap();
    let ino = file.ino();
    cluster.store_fails(true);
    let closing = runtime.spawn(async move {
        let closed = file.close().await;
        std::mem::forget(file);
        closed
    });
    assert_eq!(closing.await.unwrap().unwrap_err().errno(), Errno::ENOSPC);
    // Else it might tell the mgr after all.
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10))).await.unwrap();
    cluster.store_fails(false);
    ino
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_knows_how_far_a_file_reaches_whose_close_the_mgr_could_not_store() {
    let cluster = Cluster::start(2).await;
    let desk = Desk::new(9);
    let ino = in_time(dies_with_a_file_closed_in_vain(&cluster, &desk)).await;
    let next = desk.connect(cluster.config()).await;
    assert_eq!(in_time(next.getattr(&ROOT, ino)).await.unwrap().size, 50_000);
    // It has closed the file when a stat by others needs no target.
    let other = cluster.client().await;
    let begin = Instant::now();
    loop {
        let sent = Sent::since_now(&other);
        assert_eq!(in_time(other.getattr(&ROOT, ino)).await.unwrap().size, 50_000);
        if sent.get().1 == 0 {
            break;
        }
        assert!(begin.elapsed() < Duration::from_mins(1), "it still counts as written");
        sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(next.status().open_files, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_ends_at_once_tells_how_far_such_a_file_reaches() {
    let cluster = Cluster::start(2).await;
    let desk = Desk::new(9);
    let ino = in_time(dies_with_a_file_closed_in_vain(&cluster, &desk)).await;
    in_time(desk.connect(cluster.config()).await.shutdown()).await.unwrap();
    let other = cluster.client().await;
    let sent = Sent::since_now(&other);
    assert_eq!(in_time(other.getattr(&ROOT, ino)).await.unwrap().size, 50_000);
    assert_eq!(sent.get().1, 0, "nobody writes it any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_gone_meanwhile_is_let_go_of() {
    let cluster = Cluster::start(2).await;
    let desk = Desk::new(9);
    in_time(dies_with_a_file_closed_in_vain(&cluster, &desk)).await;
    let next = desk.connect(cluster.config()).await;
    in_time(cluster.client().await.unlink(&ROOT, Ino::ROOT, &name("f"))).await.unwrap();
    in_time(next.shutdown()).await.unwrap();
}
