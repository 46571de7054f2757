//! Holes are made, filled and found; room is taken beforehand.

use crate::cluster::{Cluster, ROOT, bytes, create, in_time, layout};
use pvfs_client::{File, OpenOptions};
use pvfs_types::{Errno, limits};

const STRIP: u32 = 65_536;
const STRIPS: usize = 12;
const LEN: usize = STRIPS * STRIP as usize;

async fn holds(file: &File, expect: &[u8], what: &str) {
    assert!(file.read_at(0, 2 * LEN as u64).await.unwrap() == expect, "{what}");
    assert_eq!(file.attr().await.unwrap().size, expect.len() as u64, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_become_zeros_on_every_target_and_only_they() {
    let cluster = Cluster::start(3).await;
    let (client, other) = (cluster.client().await, cluster.client().await);
    let file = create(&client, "f", layout(3, STRIP)).await;
    let mut model = bytes(1, LEN);
    file.write_at(0, model.clone().into()).await.unwrap();
    let strip = STRIP as usize;
    for (start, end) in
        [(10, 20), (strip - 1, strip + 1), (2 * strip + 5, 7 * strip - 5), (8 * strip, 9 * strip)]
    {
        file.punch(start as u64, (end - start) as u64).await.unwrap();
        model[start..end].fill(0);
        holds(&file, &model, "punched").await;
    }
    file.punch(LEN as u64 - 3, 1 << 40).await.unwrap();
    model[LEN - 3..].fill(0);
    holds(&file, &model, "past the end nothing happens").await;
    file.zero(LEN as u64 - 1, 1_000).await.unwrap();
    model.resize(LEN + 999, 0);
    holds(&file, &model, "it grew").await;
    let seen = other.open_path(&ROOT, "f", OpenOptions::READ).await.unwrap();
    holds(&seen, &model, "another client sees it at once").await;
    assert_eq!(seen.punch(0, 1).await.unwrap_err().errno(), Errno::EBADF);
    assert_eq!(file.punch(0, 0).await.unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(file.zero(limits::FILE_BYTES_MAX, 1).await.unwrap_err().errno(), Errno::EFBIG);
    holds(&file, &model, "what was refused changed nothing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zeros_are_made_again_when_a_disk_loses_what_was_written() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(2, STRIP)).await;
    let mut model = bytes(1, LEN);
    file.write_at(0, model.clone().into()).await.unwrap();
    file.punch(1_000, 300_000).await.unwrap();
    model[1_000..301_000].fill(0);
    file.write_at(2_000, "after".into()).await.unwrap();
    model[2_000..2_005].copy_from_slice(b"after");
    cluster.faults().fail_next_sync();
    in_time(file.sync()).await.unwrap();
    holds(&file, &model, "sent again in order: the bytes, the zeros, the bytes after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_is_taken_without_a_byte_changed_and_the_file_grows_where_that_is_asked_for() {
    let cluster = Cluster::start(3).await;
    let (client, other) = (cluster.client().await, cluster.client().await);
    let file = create(&client, "f", layout(3, STRIP)).await;
    file.write_at(0, "bytes".into()).await.unwrap();
    file.allocate(0, LEN as u64, false).await.unwrap();
    holds(&file, b"bytes", "it keeps its size").await;
    file.allocate(2, LEN as u64, true).await.unwrap();
    let mut model = b"bytes".to_vec();
    model.resize(LEN + 2, 0);
    holds(&file, &model, "it grew").await;
    let seen = other.open_path(&ROOT, "f", OpenOptions::READ).await.unwrap();
    holds(&seen, &model, "another client sees it at once").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_another_client_has_cut_grows_again_by_room_and_by_zeros() {
    let cluster = Cluster::start(2).await;
    let (client, other) = (cluster.client().await, cluster.client().await);
    let file = create(&client, "f", layout(2, STRIP)).await;
    file.write_at(0, bytes(1, LEN).into()).await.unwrap();
    file.sync().await.unwrap();
    let there = other.open_path(&ROOT, "f", OpenOptions::READ_WRITE).await.unwrap();
    for (grown, grows_by_room) in [(LEN as u64 / 2, true), (LEN as u64 / 3, false)] {
        file.truncate(10).await.unwrap();
        if grows_by_room {
            there.allocate(0, grown, true).await.unwrap();
        } else {
            there.zero(10, grown - 10).await.unwrap();
        }
        for seen in [&file, &there] {
            assert_eq!(seen.attr().await.unwrap().size, grown, "room: {grows_by_room}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_and_holes_are_found_over_all_targets() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(3, STRIP)).await;
    let strip = u64::from(STRIP);
    for at in [1, 2, 7] {
        file.write_at(at * strip, bytes(at, STRIP as usize).into()).await.unwrap();
    }
    file.truncate(10 * strip).await.unwrap();
    for (from, data, hole) in [
        (0, Some(strip), 0),
        (strip, Some(strip), 3 * strip),
        (2 * strip + 5, Some(2 * strip + 5), 3 * strip),
        (3 * strip, Some(7 * strip), 3 * strip),
        (7 * strip + 1, Some(7 * strip + 1), 8 * strip),
        (8 * strip, None, 8 * strip),
        (10 * strip - 1, None, 10 * strip - 1),
    ] {
        let found = file.seek_data(from).await;
        assert_eq!(found.as_ref().ok().copied(), data, "data from {from}");
        assert!(found.is_ok() || found.unwrap_err().errno() == Errno::ENXIO);
        assert_eq!(file.seek_hole(from).await.unwrap(), hole, "hole from {from}");
    }
    file.punch(strip, strip).await.unwrap();
    assert_eq!(file.seek_data(0).await.unwrap(), 2 * strip, "what was punched is a hole");
    for from in [10 * strip, u64::MAX] {
        assert_eq!(file.seek_data(from).await.unwrap_err().errno(), Errno::ENXIO);
        assert_eq!(file.seek_hole(from).await.unwrap_err().errno(), Errno::ENXIO);
    }
}
