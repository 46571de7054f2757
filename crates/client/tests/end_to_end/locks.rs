//! Locks between clients: who gets them, in which order, and what becomes of them when somebody dies or gives up.

use crate::cluster::{
    Cluster, Pace, ROOT, create, eventually, forget_session, in_time, layout, name, sessions,
};
use pvfs_client::{Client, ClientError, File, OpenOptions};
use pvfs_types::{Errno, LockMode::Read, LockMode::Write};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;

const ALL: std::ops::RangeInclusive<u64> = 0..=u64::MAX;

/// As many clients as asked for, each with its handle of one file.
async fn handles(cluster: &Cluster, count: usize) -> Vec<(Arc<Client>, Arc<File>)> {
    let mut handles = Vec::new();
    for n in 0..count {
        let client = cluster.client().await;
        let file = if n == 0 {
            create(&client, "f", layout(1, 4096)).await
        } else {
            let ino = client.resolve(&ROOT, "f", true).await.unwrap().ino;
            client.open(&ROOT, ino, OpenOptions::READ_WRITE).await.unwrap()
        };
        handles.push((client, Arc::new(file)));
    }
    handles
}

fn locking(file: &Arc<File>) -> JoinHandle<Result<(), ClientError>> {
    let file = Arc::clone(file);
    tokio::spawn(async move { file.lock(Write, ALL).await })
}

/// Waits until so many calls of `client` wait for a lock.
async fn waits_for_lock(client: &Client, calls: usize) {
    let waiting = || {
        let status = client.status();
        status.waiting.iter().filter(|call| call.waits_for == [pvfs_client::WaitsFor::Lock]).count()
    };
    eventually("it waits for the lock", || waiting() == calls).await;
}

/// Whether anybody holds a lock of the file that `file`, another one, would have to wait for.
async fn is_free(file: &File) -> bool {
    file.test_lock(Write, ALL).await.unwrap().is_none()
}

async fn until_free(file: &File) {
    in_time(async {
        while !is_free(file).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_excludes_other_clients_and_its_end_wakes_them_in_the_order_of_coming() {
    let cluster = Cluster::start(1).await;
    let handles = handles(&cluster, 4).await;
    let (_, first) = &handles[0];
    first.lock(Write, 0..=9).await.unwrap();
    assert!(!handles[1].1.try_lock(Read, 5..=5).await.unwrap());
    let held = handles[1].1.test_lock(Read, ALL).await.unwrap().expect("is locked");
    assert_eq!((held.is_own, held.range.start, held.range.end, held.range.mode), (false, 0, 9, Write));
    assert!(handles[1].1.try_lock(Write, 10..=u64::MAX).await.unwrap(), "the rest is free");
    handles[1].1.unlock(ALL).await.unwrap();
    let mut waiting = Vec::new();
    for (client, file) in &handles[1..] {
        waiting.push(locking(file));
        waits_for_lock(client, 1).await;
    }
    first.unlock(0..=9).await.unwrap();
    for (n, waiting) in waiting.into_iter().enumerate() {
        in_time(waiting).await.unwrap().unwrap();
        let (client, file) = &handles[n + 1];
        assert!(!first.try_lock(Read, 0..=0).await.unwrap(), "client {} has it", n + 1);
        // The last one ends without a word about locks.
        if n < 2 { file.unlock(ALL).await.unwrap() } else { client.shutdown().await.unwrap() }
    }
    assert!(is_free(first).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_gives_up_what_is_locked_by_it_and_one_without_locks_sends_nothing() {
    let cluster = Cluster::start(1).await;
    let handles = handles(&cluster, 2).await;
    let ((client, file), (_, other)) = (&handles[0], &handles[1]);
    let again = client.open(&ROOT, file.ino(), OpenOptions::READ).await.unwrap();
    again.lock(Read, 0..=9).await.unwrap();
    assert!(!other.try_lock(Write, ALL).await.unwrap());
    again.close().await.unwrap();
    assert!(is_free(other).await);
    let again = client.open(&ROOT, file.ino(), OpenOptions::READ).await.unwrap();
    again.lock(Read, 0..=9).await.unwrap();
    drop(again);
    until_free(other).await;
    let sent = crate::cluster::Sent::since_now(client);
    let again = client.open(&ROOT, file.ino(), OpenOptions::READ).await.unwrap();
    again.close().await.unwrap();
    assert_eq!(sent.get(), (1, 0), "the open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_waiting_does_not_hold_the_lock_afterwards_also_when_the_mgr_was_away() {
    let mut cluster = Cluster::start(1).await;
    let handles = handles(&cluster, 3).await;
    let ((_, holder), (client, waiter), (_, third)) = (&handles[0], &handles[1], &handles[2]);
    for mgr_dies in [false, true] {
        holder.lock(Write, ALL).await.unwrap();
        waiter.lock(Read, 0..=0).now_or_never_is_pending();
        let waiting = locking(waiter);
        waits_for_lock(client, 1).await;
        if mgr_dies {
            cluster.stop_mgr().await;
        }
        waiting.abort();
        let _ = waiting.await;
        if mgr_dies {
            cluster.start_mgr().await;
        }
        in_time(holder.unlock(ALL)).await.unwrap();
        until_free(third).await;
        // What the same owner does next is not taken back with it.
        in_time(waiter.lock(Write, 0..=0)).await.unwrap();
        assert!(!is_free(third).await);
        waiter.unlock(ALL).await.unwrap();
    }
}

/// A client locks the file and is gone, without a word, as if it were killed.
async fn lock_and_die(cluster: &Cluster) {
    let config = cluster.config();
    let die = move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::connect(config).await.unwrap();
            let ino = client.resolve(&ROOT, "f", true).await.unwrap().ino;
            let file = client.open(&ROOT, ino, OpenOptions::READ_WRITE).await.unwrap();
            file.lock(Write, ALL).await.unwrap();
            // Neither is to say goodbye.
            std::mem::forget((client, file));
        });
        runtime.shutdown_background();
    };
    tokio::task::spawn_blocking(die).await.unwrap();
}

/// A call that is begun and given up at once.
trait GivenUp {
    fn now_or_never_is_pending(self);
}

impl<F: Future<Output = Result<(), ClientError>>> GivenUp for F {
    fn now_or_never_is_pending(self) {
        use futures_util::FutureExt as _;
        assert!(self.now_or_never().is_none(), "the mgr has to be asked");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_and_places_in_the_queue_outlive_the_mgr() {
    let mut cluster = Cluster::start(1).await;
    let handles = handles(&cluster, 4).await;
    handles[0].1.lock(Write, ALL).await.unwrap();
    let mut waiting = Vec::new();
    for (client, file) in &handles[1..] {
        waiting.push(locking(file));
        waits_for_lock(client, 1).await;
    }
    for round in 0..waiting.len() {
        cluster.stop_mgr().await;
        let unlock = {
            let holder = Arc::clone(&handles[round].1);
            tokio::spawn(async move { holder.unlock(ALL).await })
        };
        cluster.start_mgr().await;
        in_time(unlock).await.unwrap().unwrap();
        in_time(&mut waiting[round]).await.unwrap().unwrap();
        assert!(waiting[round + 1..].iter().all(|waiting| !waiting.is_finished()), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_clients_locks_come_to_who_waits_once_its_lease_is_over_and_the_targets_know() {
    let pace = Pace { lease_ms: 400, keep_alive_ms: 50 };
    let mut cluster = Cluster::with_pace(1, pace).await;
    let handles = handles(&cluster, 1).await;
    lock_and_die(&cluster).await;
    cluster.stop_iod(0).await;
    let waiting = locking(&handles[0].1);
    waits_for_lock(&handles[0].0, 1).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!waiting.is_finished(), "the target may still take late writes");
    cluster.start_iod(0).await;
    in_time(waiting).await.unwrap().unwrap();
    // A try finds it free in the end too, without anybody that waits.
    handles[0].1.unlock(ALL).await.unwrap();
    lock_and_die(&cluster).await;
    assert!(!handles[0].1.try_lock(Write, ALL).await.unwrap());
    in_time(async {
        while !handles[0].1.try_lock(Write, ALL).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_its_locks_with_the_session_is_told_once_and_who_waits_goes_on() {
    let cluster = Cluster::with_pace(1, Pace { lease_ms: 30_000, keep_alive_ms: 60_000 }).await;
    let handles = handles(&cluster, 2).await;
    let ((client, file), (other_client, other)) = (&handles[0], &handles[1]);
    let unlocked = client.open(&ROOT, file.ino(), OpenOptions::READ).await.unwrap();
    file.write_at(0, "12345678".into()).await.unwrap();
    file.lock(Write, 0..=9).await.unwrap();
    let waiting = locking(other);
    waits_for_lock(other_client, 1).await;
    // The waiter's session goes, then the holder's.
    forget_session(&cluster, other_client).await;
    forget_session(&cluster, client).await;
    in_time(waiting).await.unwrap().unwrap();
    client.mkdir(&ROOT, pvfs_types::Ino::ROOT, &name("finds out"), 0o755).await.unwrap();
    assert_eq!(unlocked.read_at(0, 8).await.unwrap(), "12345678", "it had no lock");
    let error = file.write_at(0, "x".into()).await.expect_err("as if it were locked");
    assert!(matches!(error, ClientError::LocksLost { .. }) && error.errno() == Errno::EIO, "{error}");
    assert_eq!(file.read_at(0, 8).await.unwrap(), "12345678", "told once");
    assert!(!file.try_lock(Write, ALL).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_waited_for_a_lock_leaves_no_session_when_it_ends() {
    let cluster = Cluster::start(1).await;
    for _ in 0..5 {
        let handles = handles(&cluster, 1).await;
        let waiter = cluster.client().await;
        let file = waiter.open(&ROOT, handles[0].1.ino(), OpenOptions::READ_WRITE).await.unwrap();
        let file = Arc::new(file);
        handles[0].1.lock(Write, ALL).await.unwrap();
        let waiting = locking(&file);
        waits_for_lock(&waiter, 1).await;
        handles[0].1.unlock(ALL).await.unwrap();
        in_time(waiting).await.unwrap().unwrap();
        // It still asks for news: nobody has told it that there will be none.
        waiter.shutdown().await.unwrap();
        handles[0].0.shutdown().await.unwrap();
        let late = cluster.client().await;
        late.shutdown().await.unwrap();
        assert_eq!(sessions(&cluster).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_wait_for_one_another_get_a_deadlock_and_not_for_ever() {
    let cluster = Cluster::start(1).await;
    let handles = handles(&cluster, 2).await;
    let ((client, one), (_, two)) = (&handles[0], &handles[1]);
    one.lock(Write, 0..=0).await.unwrap();
    two.lock(Write, 1..=1).await.unwrap();
    let waiting = {
        let one = Arc::clone(one);
        tokio::spawn(async move { one.lock(Write, 1..=1).await })
    };
    waits_for_lock(client, 1).await;
    assert_eq!(two.lock(Write, 0..=0).await.expect_err("for ever").errno(), Errno::EDEADLK);
    assert_eq!(two.test_lock(Read, 0..=0).await.unwrap().expect("still").range.end, 0);
    two.close().await.unwrap();
    in_time(waiting).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_counter_under_a_lock_is_exact_whatever_becomes_of_the_mgr() {
    const ROUNDS: u64 = 40;
    let mut cluster = Cluster::start(2).await;
    let handles = handles(&cluster, 3).await;
    handles[0].1.write_at(0, 0_u64.to_le_bytes().to_vec().into()).await.unwrap();
    let counting: Vec<_> = (0..6)
        .map(|n: usize| {
            // Two handles of each client: each an owner of its own.
            let (client, file) = &handles[n % 3];
            let (client, ino) = (Arc::clone(client), file.ino());
            tokio::spawn(async move {
                let file = client.open(&ROOT, ino, OpenOptions::READ_WRITE).await.unwrap();
                for _ in 0..ROUNDS {
                    file.lock(Write, 0..=7).await.unwrap();
                    let count =
                        u64::from_le_bytes(file.read_at(0, 8).await.unwrap().as_ref().try_into().unwrap());
                    file.write_at(0, (count + 1).to_le_bytes().to_vec().into()).await.unwrap();
                    file.unlock(0..=7).await.unwrap();
                }
                file.close().await.unwrap();
            })
        })
        .collect();
    while !counting.iter().all(JoinHandle::is_finished) {
        cluster.stop_mgr().await;
        cluster.start_mgr().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for counting in counting {
        in_time(counting).await.unwrap();
    }
    let count = handles[0].1.read_at(0, 8).await.unwrap();
    assert_eq!(u64::from_le_bytes(count.as_ref().try_into().unwrap()), 6 * ROUNDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_whose_release_the_store_refused_are_given_up_later() {
    let cluster = Cluster::start(1).await;
    let handles = handles(&cluster, 2).await;
    let ((_, file), (other_client, other)) = (&handles[0], &handles[1]);
    file.lock(Write, ALL).await.unwrap();
    let waiting = locking(other);
    waits_for_lock(other_client, 1).await;
    cluster.store_fails(true);
    assert_eq!(in_time(file.close()).await.unwrap_err().errno(), Errno::ENOSPC, "its user is told");
    assert!(!waiting.is_finished());
    cluster.store_fails(false);
    in_time(waiting).await.unwrap().unwrap();
}
