//! Bytes copied from file to file, by the targets where strips line up.

use crate::cluster::{Cluster, ROOT, bytes, create, in_time, layout};
use pvfs_client::{Client, CreateOptions, File, OpenOptions};
use pvfs_types::{Errno, LayoutHint};

const STRIP: u32 = 65_536;
const MIB: u64 = 1 << 20;
const LEN: usize = 9 << 20;

fn count(client: &Client, name: &str) -> u64 {
    client.metrics().snapshot().into_iter().find(|(of, _)| of == name).map_or(0, |(_, n)| n)
}

/// Of files, through this client.
fn passed(client: &Client) -> (u64, u64) {
    (count(client, "pvfs_client_read_bytes_total"), count(client, "pvfs_client_written_bytes_total"))
}

fn based(base: u16) -> CreateOptions {
    let layout = LayoutHint { base: Some(base), pcount: Some(3), ssize: Some(STRIP) };
    CreateOptions { layout, ..CreateOptions::default() }
}

async fn holds(file: &File, expect: &[u8], what: &str) {
    assert!(file.read_at(0, 4 * LEN as u64).await.unwrap() == expect, "{what}");
    assert_eq!(file.attr().await.unwrap().size, expect.len() as u64, "{what}");
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

/// Copies, and the same in the model.
async fn copy(
    to: &File,
    model: &mut Vec<u8>,
    to_at: u64,
    from: &File,
    source: &[u8],
    from_at: u64,
    len: u64,
) {
    let copied = in_time(to.copy_from(to_at, from, from_at, len)).await.unwrap();
    assert_eq!(copied, len.min((source.len() as u64).saturating_sub(from_at)));
    if copied > 0 {
        model.resize(model.len().max(at(to_at + copied)), 0);
        model[at(to_at)..at(to_at + copied)].copy_from_slice(&source[at(from_at)..at(from_at + copied)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lines_up_is_copied_by_the_targets_and_no_byte_passes_through_the_client() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let (source, strip) = (bytes(1, LEN), u64::from(STRIP));
    let from = create(&client, "from", based(1)).await;
    from.write_at(0, source.clone().into()).await.unwrap();
    from.sync().await.unwrap();
    // The same place; another place of the ring that its base makes up for; one whole ring further.
    for (base, to_at, from_at, len) in
        [(1, 0, 0, LEN as u64), (2, 100, strip + 100, 5 * MIB), (0, 4 * strip + 7, 7, u64::MAX >> 2)]
    {
        let to = create(&client, &format!("to{base}-{to_at}"), based(base)).await;
        let mut model = bytes(2, LEN / 2);
        to.write_at(0, model.clone().into()).await.unwrap();
        let before = (passed(&client), cluster.iods_received("copy"));
        copy(&to, &mut model, to_at, &from, &source, from_at, len).await;
        assert_eq!(passed(&client), before.0, "base {base}");
        assert!(cluster.iods_received("copy") >= before.1 + 3);
        assert_eq!(
            count(&client, "pvfs_client_held_bytes"),
            0,
            "all of it is durable: nothing to send again"
        );
        holds(&to, &model, &format!("base {base}")).await;
        let other = cluster.client().await;
        holds(
            &other.open_path(&ROOT, &format!("to{base}-{to_at}"), OpenOptions::READ).await.unwrap(),
            &model,
            "seen",
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_line_up_is_copied_by_the_client() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let source = bytes(1, LEN);
    let from = create(&client, "from", based(1)).await;
    from.write_at(0, source.clone().into()).await.unwrap();
    for (n, (options, to_at, from_at, len)) in [
        (based(0), 0, 0, LEN as u64),
        (based(1), 1, 0, LEN as u64),
        (layout(2, STRIP), 0, 0, LEN as u64),
        (layout(3, 4096), 0, 3, 5 * MIB),
        // Sooner sent than made durable.
        (based(1), 0, 0, MIB),
    ]
    .into_iter()
    .enumerate()
    {
        let to = create(&client, &format!("to{n}"), options).await;
        let mut model = Vec::new();
        copy(&to, &mut model, to_at, &from, &source, from_at, len).await;
        holds(&to, &model, &format!("{n}")).await;
    }
    assert_eq!(cluster.iods_received("copy"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_end_where_the_file_does_and_bad_ones_are_refused() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let mut model = bytes(1, LEN);
    let file = create(&client, "f", based(0)).await;
    file.write_at(0, model.clone().into()).await.unwrap();
    let len = LEN as u64;
    for past in [len, len + 1, 1 << 40] {
        assert_eq!(file.copy_from(0, &file, past, 10).await.unwrap(), 0, "behind the end there is nothing");
    }
    let refused = |error: pvfs_client::ClientError| error.errno();
    assert_eq!(refused(file.copy_from(5, &file, 0, 6).await.unwrap_err()), Errno::EINVAL, "they overlap");
    assert_eq!(refused(file.copy_from(0, &file, 5, 6).await.unwrap_err()), Errno::EINVAL);
    assert_eq!(refused(file.copy_from(u64::MAX >> 1, &file, 0, 6).await.unwrap_err()), Errno::EFBIG);
    let (reader, writer) = (
        client.open_path(&ROOT, "f", OpenOptions::READ).await.unwrap(),
        client.open_path(&ROOT, "f", OpenOptions::WRITE).await.unwrap(),
    );
    assert_eq!(refused(reader.copy_from(0, &file, 5, 5).await.unwrap_err()), Errno::EBADF);
    assert_eq!(refused(file.copy_from(0, &writer, 5, 5).await.unwrap_err()), Errno::EBADF);
    holds(&file, &model, "what was refused changed nothing").await;
    // Within one file, further on by whole rings.
    let ring = 3 * u64::from(STRIP);
    let to = len.next_multiple_of(ring);
    let source = model.clone();
    copy(&file, &mut model, to, &file, &source, 0, u64::MAX >> 2).await;
    assert!(cluster.iods_received("copy") >= 3);
    holds(&file, &model, "within one file").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holes_are_copied_as_zeros_and_count_to_the_size() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let (from, to) = (create(&client, "from", based(0)).await, create(&client, "to", based(0)).await);
    let mut source = bytes(1, 1000);
    from.write_at(0, source.clone().into()).await.unwrap();
    from.truncate(LEN as u64).await.unwrap();
    source.resize(LEN, 0);
    let mut model = bytes(2, LEN - 70_000);
    to.write_at(0, model.clone().into()).await.unwrap();
    copy(&to, &mut model, 0, &from, &source, 0, LEN as u64).await;
    assert!(cluster.iods_received("copy") >= 3);
    holds(&to, &model, "a hole reaches to the end").await;
    let other = cluster.client().await;
    holds(&other.open_path(&ROOT, "to", OpenOptions::READ).await.unwrap(), &model, "others know the size")
        .await;
}

/// The mgr gives the file other objects; the old ones are as if they had never been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_client_has_replaced_is_copied_as_it_is_now() {
    let cluster = Cluster::start(3).await;
    let (client, other) = (cluster.client().await, cluster.client().await);
    let (from, to) = (create(&client, "from", based(0)).await, create(&client, "to", based(0)).await);
    for file in [&from, &to] {
        file.write_at(0, bytes(1, LEN).into()).await.unwrap();
        file.flush().await.unwrap();
    }
    for name in ["from", "to"] {
        let emptied = other.open_path(&ROOT, name, OpenOptions::READ_WRITE.truncate()).await.unwrap();
        emptied.write_at(0, bytes(3, LEN / 2).into()).await.unwrap();
        emptied.close().await.unwrap();
    }
    let copied = in_time(to.copy_from(0, &from, 0, LEN as u64)).await.unwrap();
    assert_eq!(copied, LEN as u64 / 2);
    holds(&to, &bytes(3, LEN / 2), "the new bytes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_a_disk_fails_to_keep_is_made_again_after_what_was_written_before_it() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let (from, to) = (create(&client, "from", based(0)).await, create(&client, "to", based(0)).await);
    let source = bytes(1, LEN);
    from.write_at(0, source.clone().into()).await.unwrap();
    from.sync().await.unwrap();
    to.write_at(0, bytes(2, LEN).into()).await.unwrap();
    cluster.faults().fail_next_sync();
    assert_eq!(in_time(to.copy_from(0, &from, 0, LEN as u64)).await.unwrap(), LEN as u64);
    assert_eq!(
        count(&client, "pvfs_client_replays_total"),
        1,
        "what lay under it was sent again, and copied over"
    );
    holds(&to, &source, "the copy").await;
    cluster.faults().fail_syncs();
    let failed = in_time(to.copy_from(0, &from, 0, LEN as u64)).await.unwrap_err();
    assert_eq!(failed.errno(), Errno::EIO, "never called done");
    cluster.faults().heal();
    assert_eq!(in_time(to.copy_from(0, &from, 0, LEN as u64)).await.unwrap(), LEN as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_waits_for_an_iod_and_goes_on() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let (from, to) = (create(&client, "from", based(0)).await, create(&client, "to", based(0)).await);
    let source = bytes(1, LEN);
    from.write_at(0, source.clone().into()).await.unwrap();
    cluster.stop_iod(1).await;
    let copied = {
        let (from, to) = (std::sync::Arc::new(from), std::sync::Arc::new(to));
        let work = std::sync::Arc::clone(&to);
        let copying = tokio::spawn(async move { work.copy_from(0, &from, 0, LEN as u64).await });
        crate::cluster::eventually("it waits", || !client.status().waiting.is_empty()).await;
        cluster.start_iod(1).await;
        assert_eq!(in_time(copying).await.unwrap().unwrap(), LEN as u64);
        to
    };
    holds(&copied, &source, "after the pause").await;
}
