//! What is written comes back, whatever the layout, the size and the shape of the access.

use crate::cluster::{Cluster, ROOT, bytes, create, in_time, layout};
use bytes::Bytes;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use pvfs_client::{Client, ClientError, CreateOptions, File, OpenOptions};
use pvfs_types::{Errno, LayoutHint, Level, LogicalOffset, Pattern, limits};
use std::sync::Arc;

const STRIP: u32 = 4096;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_every_critical_size_come_back_exact() {
    let cluster = Cluster::start(3).await;
    let (writer, reader) = (cluster.client().await, cluster.client().await);
    let strip = STRIP as usize;
    for size in [0, 1, strip - 1, strip, strip + 1, 3 * strip - 1, 3 * strip, 3 * strip + 1, 10 * strip + 7] {
        let path = format!("f{size}");
        let data = Bytes::from(bytes(size as u64, size));
        let file = create(&writer, &path, layout(3, STRIP)).await;
        file.write_at(0, data.clone()).await.unwrap();
        assert_eq!(file.read_at(0, 1 << 20).await.unwrap(), data, "{size} by the writer, open");
        file.close().await.unwrap();
        let file = reader.open_path(&ROOT, &path, OpenOptions::READ).await.unwrap();
        assert_eq!(file.read_at(0, 1 << 20).await.unwrap(), data, "{size}");
        assert_eq!(file.read_at(size as u64, 10).await.unwrap(), "", "{size}");
        assert_eq!(file.read_at(size as u64 + 5_000_000, 10).await.unwrap(), "", "{size}");
        assert_eq!(file.attr().await.unwrap().size, size as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holes_read_as_zeros() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let file = create(&client, "sparse", layout(3, STRIP)).await;
    file.write_at(100_000, "end".into()).await.unwrap();
    let all = file.read_at(0, 200_000).await.unwrap();
    assert_eq!(all.len(), 100_003);
    assert!(all[..100_000].iter().all(|&byte| byte == 0));
    assert_eq!(&all[100_000..], b"end");
    assert_eq!(file.read_at(5, 10).await.unwrap(), [0; 10].as_slice());
    file.truncate(300_000).await.unwrap();
    assert_eq!(file.read_at(200_000, 200_000).await.unwrap(), vec![0; 100_000]);
    file.close().await.unwrap();
    let other = cluster.client().await.open_path(&ROOT, "sparse", OpenOptions::READ).await.unwrap();
    assert_eq!(other.read_at(0, 100_003).await.unwrap(), all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_bytes_are_gone_for_good() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = create(&client, "f", layout(2, STRIP)).await;
    file.write_at(0, bytes(1, 50_000).into()).await.unwrap();
    assert_eq!(file.truncate(10_000).await.unwrap().size, 10_000);
    assert_eq!(file.read_at(0, 50_000).await.unwrap(), bytes(1, 10_000));
    file.truncate(20_000).await.unwrap();
    assert_eq!(file.read_at(10_000, 50_000).await.unwrap(), vec![0; 10_000]);
    file.truncate(0).await.unwrap();
    assert_eq!(file.read_at(0, 10).await.unwrap(), "");
    file.write_at(3, "abc".into()).await.unwrap();
    assert_eq!(file.read_at(0, 10).await.unwrap(), "\0\0\0abc");
    file.close().await.unwrap();
    assert_eq!(client.resolve(&ROOT, "f", true).await.unwrap().size, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_larger_than_many_payloads_comes_back() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let data = Bytes::from(bytes(3, (21 << 20) + 5));
    for pcount in [1, 2] {
        let file = create(&client, &format!("f{pcount}"), layout(pcount, 1 << 20)).await;
        file.write_at(11, data.clone()).await.unwrap();
        assert!(file.read_at(11, 1 << 40).await.unwrap() == data, "over {pcount} targets");
    }
}

/// One step against a file and its model.
#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, len: usize },
    Read { at: u64, len: u64 },
    WriteList(Vec<(u64, usize)>),
    ReadList(Vec<(u64, u64)>),
    WriteStrided(Pattern),
    ReadStrided(Pattern),
    Truncate(u64),
    Sync,
}

fn any_step() -> impl Strategy<Value = Step> {
    let at = 0u64..120_000;
    let pattern = (0u64..50_000, 1u64..3000, proptest::collection::vec((1u64..4, 0u64..5000), 0..3))
        .prop_map(|(start, len, steps)| {
            let (mut levels, mut extent) = (Vec::new(), len);
            for (count, gap) in steps {
                levels.insert(0, Level { count, stride: extent + gap });
                extent += (count - 1) * (extent + gap);
            }
            Pattern { start: LogicalOffset(start), len, levels }
        });
    prop_oneof![
        3 => (at.clone(), 0usize..40_000).prop_map(|(at, len)| Step::Write { at, len }),
        3 => (at.clone(), 0u64..80_000).prop_map(|(at, len)| Step::Read { at, len }),
        // Ranges of a written list must not overlap.
        1 => proptest::collection::vec((0u64..3000, 0usize..6000), 0..6).prop_map(|gaps| {
            let mut at = 0;
            Step::WriteList(gaps.into_iter().map(|(gap, len)| {
                let start = at + gap;
                at = start + len as u64;
                (start, len)
            }).collect())
        }),
        1 => proptest::collection::vec((at.clone(), 0u64..9000), 0..6).prop_map(Step::ReadList),
        1 => pattern.clone().prop_map(Step::WriteStrided),
        1 => pattern.prop_map(Step::ReadStrided),
        1 => at.prop_map(Step::Truncate),
        1 => Just(Step::Sync),
    ]
}

/// The naive file.
#[derive(Default)]
struct Model(Vec<u8>);

impl Model {
    fn write(&mut self, at: u64, data: &[u8]) {
        let at = usize::try_from(at).unwrap();
        if data.is_empty() {
            return;
        }
        self.0.resize(self.0.len().max(at + data.len()), 0);
        self.0[at..at + data.len()].copy_from_slice(data);
    }

    fn read(&self, at: u64, len: u64) -> &[u8] {
        let clamp = |n: u64| usize::try_from(n).unwrap().min(self.0.len());
        &self.0[clamp(at)..clamp(at + len)]
    }
}

async fn step(file: &File, model: &mut Model, seed: u64, step: Step) {
    match step {
        Step::Write { at, len } => {
            let data = bytes(seed, len);
            file.write_at(at, data.clone().into()).await.unwrap();
            model.write(at, &data);
        }
        Step::Read { at, len } => {
            assert!(file.read_at(at, len).await.unwrap() == model.read(at, len), "read {at}+{len}");
        }
        Step::WriteList(ranges) => {
            let data = bytes(seed, ranges.iter().map(|(_, len)| len).sum());
            let sent: Vec<(u64, u64)> = ranges.iter().map(|&(at, len)| (at, len as u64)).collect();
            file.write_list(&sent, data.clone().into()).await.unwrap();
            let mut rest = data.as_slice();
            for (at, len) in ranges {
                model.write(at, rest.split_off(..len).unwrap());
            }
        }
        Step::ReadList(ranges) => {
            let got = file.read_list(&ranges).await.unwrap();
            assert_eq!(got.len(), ranges.len());
            for ((at, len), got) in ranges.into_iter().zip(got) {
                assert!(got == model.read(at, len), "list {at}+{len}");
            }
        }
        Step::WriteStrided(pattern) => {
            let data = bytes(seed, usize::try_from(pattern.byte_count()).unwrap());
            file.write_strided(&pattern, data.clone().into()).await.unwrap();
            for ((at, len), piece) in pattern.runs().zip(data.chunks(usize::try_from(pattern.len).unwrap())) {
                assert_eq!(piece.len() as u64, len);
                model.write(at.0, piece);
            }
        }
        Step::ReadStrided(pattern) => {
            let expect: Vec<u8> =
                pattern.runs().flat_map(|(at, len)| model.read(at.0, len).to_vec()).collect();
            assert!(file.read_strided(&pattern).await.unwrap() == expect, "{pattern:?}");
        }
        Step::Truncate(size) => {
            file.truncate(size).await.unwrap();
            model.0.resize(usize::try_from(size).unwrap(), 0);
        }
        Step::Sync => file.sync().await.unwrap(),
    }
    assert_eq!(file.attr().await.unwrap().size, model.0.len() as u64);
}

async fn play(client: &Client, reader: &Client, path: &str, options: CreateOptions, steps: Vec<Step>) {
    let file = create(client, path, options).await;
    let mut model = Model::default();
    for (seed, next) in steps.into_iter().enumerate() {
        step(&file, &mut model, seed as u64, next).await;
    }
    let other = reader.open_path(&ROOT, path, OpenOptions::READ).await.unwrap();
    assert!(other.read_at(0, 1 << 20).await.unwrap() == model.0, "by another client, while it is open");
    file.close().await.unwrap();
    assert_eq!(reader.resolve(&ROOT, path, true).await.unwrap().size, model.0.len() as u64);
}

#[test]
fn files_of_any_layout_behave_as_an_array_of_bytes() {
    check_files(Cluster::start);
}

#[test]
fn so_do_files_whose_objects_are_read_without_asking_iods() {
    check_files(Cluster::start_near);
}

fn check_files<F: Future<Output = Cluster>>(start: impl FnOnce(usize) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let targets = 5u16;
    let cluster = runtime.block_on(start(usize::from(targets)));
    let (client, reader) = runtime.block_on(async { (cluster.client().await, cluster.client().await) });
    let number = std::cell::Cell::new(0);
    let strategy = (0..targets, 1..=targets, 1u32..4, proptest::collection::vec(any_step(), 1..25));
    let outcome = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() }).run(
        &strategy,
        |(base, pcount, pages, steps)| {
            number.set(number.get() + 1);
            let layout = LayoutHint { base: Some(base), pcount: Some(pcount), ssize: Some(pages * STRIP) };
            let options = CreateOptions { layout, ..CreateOptions::default() };
            runtime.block_on(in_time(play(&client, &reader, &format!("f{}", number.get()), options, steps)));
            Ok(())
        },
    );
    outcome.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clients_that_write_interleaved_pieces_end_exact() {
    let cluster = Cluster::start(4).await;
    let clients = [cluster.client().await, cluster.client().await];
    create(&clients[0], "shared", layout(4, STRIP)).await.close().await.unwrap();
    let (piece, pieces) = (1500u64, 200u64);
    let expect: Vec<u8> = (0..pieces).flat_map(|n| bytes(n, 1500)).collect();
    let write = |client: Arc<Client>, odd: u64| async move {
        let file = client.open_path(&ROOT, "shared", OpenOptions::WRITE).await.unwrap();
        for n in (odd..pieces).step_by(2) {
            file.write_at(n * piece, bytes(n, 1500).into()).await.unwrap();
        }
        file
    };
    let [first, second] = clients.clone();
    let (first, second) = (tokio::spawn(write(first, 0)), tokio::spawn(write(second, 1)));
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    let third = cluster.client().await;
    let reader = third.open_path(&ROOT, "shared", OpenOptions::READ).await.unwrap();
    assert_eq!(reader.attr().await.unwrap().size, piece * pieces, "while both are open");
    first.close().await.unwrap();
    second.close().await.unwrap();
    assert!(reader.read_at(0, 1 << 20).await.unwrap() == expect);
    assert_eq!(third.resolve(&ROOT, "shared", true).await.unwrap().size, piece * pieces);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_of_one_client_do_not_mix() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let file = Arc::new(create(&client, "log", layout(2, STRIP)).await);
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let file = Arc::clone(&file);
            tokio::spawn(async move { file.append(format!("line {n:04}\n").into()).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let text = String::from_utf8(file.read_at(0, 1000).await.unwrap().to_vec()).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let expect: Vec<String> = (0..20).map(|n| format!("line {n:04}")).collect();
    assert_eq!(lines, expect);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accesses_that_make_no_sense_are_refused() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let file = create(&client, "f", CreateOptions::default()).await;
    let errno = |result: Result<(), ClientError>| result.expect_err("must be refused").errno();
    let (max, data) = (limits::FILE_BYTES_MAX, || Bytes::from_static(b"abc"));
    assert_eq!(errno(file.write_at(max, data()).await), Errno::EFBIG);
    assert_eq!(errno(file.write_at(u64::MAX, data()).await), Errno::EFBIG);
    assert_eq!(errno(file.write_list(&[(0, 1), (u64::MAX, 2)], data()).await), Errno::EFBIG);
    assert_eq!(errno(file.write_list(&[(0, 1)], data()).await), Errno::EINVAL);
    assert_eq!(errno(file.read_at(max + 1, 1).await.map(drop)), Errno::EINVAL);
    assert_eq!(file.read_at(max, 10).await.unwrap(), "");
    assert_eq!(errno(file.truncate(max + 1).await.map(drop)), Errno::EFBIG);
    let overlapping =
        Pattern { start: LogicalOffset(0), len: 3, levels: vec![Level { count: 1, stride: 0 }; 9] };
    assert_eq!(errno(file.write_strided(&overlapping, data()).await), Errno::EINVAL);
    file.write_at(0, data()).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(errno(file.read_at(0, 1).await.map(drop)), Errno::EBADF);
    let reading = client.open_path(&ROOT, "f", OpenOptions::READ).await.unwrap();
    assert_eq!(errno(reading.write_at(0, data()).await), Errno::EBADF);
    assert_eq!(errno(reading.truncate(0).await.map(drop)), Errno::EBADF);
    let writing = client.open_path(&ROOT, "f", OpenOptions::WRITE).await.unwrap();
    assert_eq!(errno(writing.read_at(0, 1).await.map(drop)), Errno::EBADF);
    let neither = OpenOptions::default();
    assert_eq!(errno(client.open_path(&ROOT, "f", neither).await.map(drop)), Errno::EINVAL);
}
