//! Limits while files are written: to the last byte, on all clients together, also for files that were open before.

use crate::cluster::{Cluster, ROOT, Sent, bytes, create, in_time, layout, name};
use ::bytes::Bytes;
use pvfs_client::{Client, CreateOptions, File, LimitChange, OpenOptions, Quota};
use pvfs_types::{Cred, Errno, Ino, QuotaOwner, SetAttr};
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const OWNER: QuotaOwner = QuotaOwner::User(7);

fn ann() -> Cred {
    Cred { uid: 7, gid: 7, groups: vec![] }
}

/// A cluster in whose root directory everybody may make files; and a client.
async fn start() -> (Cluster, Arc<Client>) {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let open = SetAttr { mode: Some(0o777), ..SetAttr::default() };
    client.setattr(&ROOT, Ino::ROOT, open, None).await.unwrap();
    (cluster, client)
}

async fn limit(client: &Client, bytes: u64) {
    client.set_quota(&ROOT, OWNER, LimitChange::Set(bytes), LimitChange::Keep).await.unwrap();
}

async fn used(client: &Client) -> Quota {
    client.quota(&ROOT, OWNER).await.unwrap().quotas.remove(0)
}

async fn file(client: &Client, file: &str) -> File {
    let options = CreateOptions { exclusive: true, ..layout(2, 65_536) };
    client.create(&ann(), Ino::ROOT, &name(file), options).await.unwrap().file
}

fn piece(seed: u64, len: u64) -> Bytes {
    bytes(seed, usize::try_from(len).unwrap()).into()
}

/// Writes pieces at the end of `file`, which is empty, until one is refused; gives how many were taken.
async fn fill(file: &File, len: u64) -> u64 {
    let mut taken = 0;
    loop {
        match file.write_at(taken * len, piece(taken, len)).await {
            Ok(()) => taken += 1,
            Err(error) => {
                assert_eq!(error.errno(), Errno::EDQUOT, "{error}");
                return taken;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_met_to_the_byte_and_what_was_acknowledged_stays() {
    let (cluster, client) = start().await;
    limit(&client, 4 * MIB + 5).await;
    let full = file(&client, "full").await;
    assert_eq!(in_time(fill(&full, MIB)).await, 4);
    full.write_at(4 * MIB, piece(9, 5)).await.expect("to the last byte");
    assert_eq!(full.write_at(4 * MIB + 5, piece(9, 1)).await.unwrap_err().errno(), Errno::EDQUOT);
    full.write_at(0, piece(3, MIB)).await.expect("what is there is written over");
    let told = full.write_at(5 * MIB, piece(1, 1)).await.unwrap_err().to_string();
    assert!(told.contains("user 7 may have 4194309 bytes"), "{told}");
    full.sync().await.unwrap();
    full.close().await.unwrap();
    let quota = used(&client).await;
    assert_eq!((quota.bytes, quota.bytes_ahead, quota.inodes), (4 * MIB + 5, 0, 1));
    let other = cluster.client().await;
    let seen = other.open_path(&ROOT, "full", OpenOptions::READ).await.unwrap();
    assert_eq!(seen.read_at(MIB, MIB).await.unwrap(), piece(1, MIB));
    assert_eq!(seen.attr().await.unwrap().size, 4 * MIB + 5);
    seen.close().await.unwrap();
    let next = file(&client, "next").await;
    assert_eq!(next.write_at(0, piece(1, 1)).await.unwrap_err().errno(), Errno::EDQUOT);
    client.unlink(&ann(), Ino::ROOT, &name("full")).await.unwrap();
    in_time(async {
        // Room comes with the reaping, once every session has checked in.
        while next.write_at(0, piece(1, MIB)).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    next.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_that_write_many_files_at_once_never_exceed_a_limit_together() {
    let (cluster, client) = start().await;
    limit(&client, 24 * MIB).await;
    let clients = [client.clone(), cluster.client().await, cluster.client().await];
    let mut writers = Vec::new();
    for (n, writer) in clients.iter().enumerate() {
        for m in 0..3 {
            let file = file(writer, &format!("{n}.{m}")).await;
            writers.push(tokio::spawn(async move {
                let taken = fill(&file, 256 << 10).await;
                file.close().await.unwrap();
                taken * (256 << 10)
            }));
        }
    }
    let mut written = 0;
    for writer in writers {
        written += in_time(writer).await.unwrap();
    }
    assert!(written <= 24 * MIB, "{written} bytes");
    assert!(written >= 12 * MIB, "most of what is allowed can be used: {written}");
    // Who took nothing has nothing to report: such closes are told in the background.
    in_time(async {
        while used(&client).await.bytes_ahead > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(used(&client).await.bytes, written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_binds_files_that_were_open_for_writing_before_it_was_set() {
    let (cluster, client) = start().await;
    let open = file(&client, "open").await;
    open.write_at(0, piece(1, MIB)).await.unwrap();
    let admin = cluster.client().await;
    limit(&admin, 100).await;
    let mut at = MIB;
    let error = in_time(async {
        loop {
            match open.write_at(at, piece(1, 512)).await {
                Ok(()) => at += 512,
                Err(error) => return error,
            }
        }
    })
    .await;
    assert_eq!(error.errno(), Errno::EDQUOT, "{error}");
    open.write_at(0, piece(2, 512)).await.expect("what is there is written over");
    open.close().await.unwrap();
    assert_eq!(used(&client).await.bytes, at, "what was acknowledged is there, and counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_and_limits_outlive_the_mgr_also_in_the_middle_of_writing() {
    let (mut cluster, client) = start().await;
    limit(&client, 8 * MIB).await;
    let (kept, half) = (file(&client, "kept").await, file(&client, "half").await);
    kept.write_at(0, piece(1, MIB)).await.unwrap();
    kept.close().await.unwrap();
    half.write_at(0, piece(2, MIB)).await.unwrap();
    let before = used(&client).await;
    cluster.stop_mgr().await;
    cluster.start_mgr().await;
    assert_eq!(in_time(used(&client)).await, before);
    assert_eq!(in_time(fill(&half, MIB)).await, 7);
    half.close().await.unwrap();
    assert_eq!((used(&client).await.bytes, used(&client).await.bytes_ahead), (8 * MIB, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_file_asks_the_mgr_seldom_as_it_grows_and_others_never() {
    let (_cluster, client) = start().await;
    limit(&client, 1 << 30).await;
    let limited = file(&client, "limited").await;
    let sent = Sent::since_now(&client);
    for n in 0..32 {
        limited.write_at(n * MIB, piece(n, MIB)).await.unwrap();
    }
    let asked = sent.get().0;
    assert!((1..=6).contains(&asked), "{asked} messages for 32 MiB: each asks for as much again");
    let free = create(&client, "free", layout(2, 65_536)).await;
    let sent = Sent::since_now(&client);
    for n in 0..8 {
        free.write_at(n * MIB, piece(n, MIB)).await.unwrap();
    }
    assert_eq!(sent.get().0, 0);
    limited.close().await.unwrap();
    free.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_taken_beforehand_and_sizes_that_are_set_are_held_against_limits() {
    let (_cluster, client) = start().await;
    limit(&client, 2 * MIB).await;
    let full = file(&client, "f").await;
    let errno = |result: Result<(), pvfs_client::ClientError>| result.unwrap_err().errno();
    assert_eq!(errno(full.allocate(0, 3 * MIB, true).await), Errno::EDQUOT);
    assert_eq!(errno(full.allocate(0, 3 * MIB, false).await), Errno::EDQUOT);
    assert_eq!(errno(full.zero(0, 3 * MIB).await), Errno::EDQUOT);
    assert_eq!(errno(full.truncate(3 * MIB).await.map(drop)), Errno::EDQUOT);
    full.punch(0, 3 * MIB).await.expect("no byte more");
    assert_eq!(full.attr().await.unwrap().size, 0, "what was refused changed nothing");
    full.zero(0, 2 * MIB).await.expect("fits");
    full.truncate(10).await.expect("cuts");
    full.write_at(10, piece(1, MIB)).await.expect("there is room again");
    full.close().await.unwrap();
    assert_eq!(used(&client).await.bytes, MIB + 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_given_to_a_limited_user_while_it_is_written_is_bound_at_once() {
    let (_cluster, client) = start().await;
    limit(&client, 2 * MIB).await;
    let given = create(&client, "f", layout(2, 65_536)).await;
    given.write_at(0, piece(1, MIB)).await.unwrap();
    let chown = SetAttr { uid: Some(7), ..SetAttr::default() };
    client.setattr(&ROOT, given.ino(), chown, None).await.unwrap();
    assert_eq!(in_time(fill(&given, MIB)).await, 2);
    given.close().await.unwrap();
}
