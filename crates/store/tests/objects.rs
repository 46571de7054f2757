//! Objects against a model, and what happens to them side by side.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use pvfs_env::{
    Metrics,
    disk::PassedFile,
    memory::{Board, BoardView},
};
use pvfs_store::{ObjectRun, Store, StoreError, StoreOptions};
use pvfs_types::Errno;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use support::{FS, TempTarget, id, run, writes};

#[derive(Clone, Debug)]
enum Op {
    Write(u64, Vec<(u64, usize)>, u8),
    Read(u64, Vec<(u64, usize)>),
    Truncate(u64, u64),
    Remove(Vec<u64>),
    Sync(u64),
    Stat(u64),
    Reopen,
}

fn any_op() -> impl Strategy<Value = Op> {
    let ino = 1u64..6;
    let runs = proptest::collection::vec((0u64..5000, 1usize..3000), 1..5);
    prop_oneof![
        4 => (ino.clone(), runs.clone(), any::<u8>()).prop_map(|(i, r, b)| Op::Write(i, r, b)),
        4 => (ino.clone(), runs).prop_map(|(i, r)| Op::Read(i, r)),
        2 => (ino.clone(), 0u64..9000).prop_map(|(i, len)| Op::Truncate(i, len)),
        1 => proptest::collection::vec(1u64..6, 0..3).prop_map(Op::Remove),
        1 => ino.clone().prop_map(Op::Sync),
        1 => ino.prop_map(Op::Stat),
        1 => Just(Op::Reopen),
    ]
}

/// Objects as plain vectors, and which were removed since the store was opened.
#[derive(Default)]
struct Model {
    objects: BTreeMap<u64, Vec<u8>>,
    removed: BTreeSet<u64>,
}

impl Model {
    fn write(&mut self, ino: u64, runs: &[(u64, usize)], payload: &[u8]) -> bool {
        if self.removed.contains(&ino) {
            return false;
        }
        let object = self.objects.entry(ino).or_default();
        let mut rest = payload;
        for &(offset, len) in runs {
            let start = usize::try_from(offset).unwrap();
            if object.len() < start + len {
                object.resize(start + len, 0);
            }
            object[start..start + len].copy_from_slice(&rest[..len]);
            rest = &rest[len..];
        }
        true
    }

    fn read(&self, ino: u64, runs: &[(u64, usize)]) -> Vec<u8> {
        let Some(object) = self.objects.get(&ino) else { return Vec::new() };
        let at = |offset: usize| offset.min(object.len());
        let part = |&(offset, len): &(u64, usize)| {
            let start = usize::try_from(offset).unwrap();
            object[at(start)..at(start + len)].to_vec()
        };
        runs.iter().flat_map(part).collect()
    }
}

fn as_runs(runs: &[(u64, usize)]) -> Vec<ObjectRun> {
    runs.iter().map(|&(offset, len)| run(offset, len)).collect()
}

fn step(store: &Store, model: &mut Model, op: &Op) -> Result<(), TestCaseError> {
    match op {
        Op::Write(ino, runs, first) => {
            let total: usize = runs.iter().map(|r| r.1).sum();
            let payload: Vec<u8> = (0..total).map(|n| first.wrapping_add(n.to_le_bytes()[0])).collect();
            let done = store.write(id(*ino), &writes(&as_runs(runs)), &payload);
            if model.write(*ino, runs, &payload) {
                prop_assert_eq!(done.unwrap().generation, store.generation());
            } else {
                let is_removed = matches!(done, Err(StoreError::Removed { .. }));
                prop_assert!(is_removed);
            }
        }
        Op::Read(ino, runs) => {
            let read = store.read(id(*ino), &as_runs(runs)).unwrap();
            prop_assert!(read.bytes[..] == model.read(*ino, runs)[..]);
            prop_assert_eq!(read.exists, model.objects.contains_key(ino));
            prop_assert_eq!(read.object_len, model.objects.get(ino).map_or(0, |o| o.len() as u64));
        }
        Op::Truncate(ino, len) => {
            store.truncate(id(*ino), *len).unwrap();
            if let Some(object) = model.objects.get_mut(ino) {
                object.truncate(usize::try_from(*len).unwrap());
            }
        }
        Op::Remove(inos) => {
            store.remove(&inos.iter().map(|&ino| id(ino)).collect::<Vec<_>>()).unwrap();
            for ino in inos {
                model.objects.remove(ino);
                model.removed.insert(*ino);
            }
        }
        Op::Sync(ino) => {
            prop_assert_eq!(store.sync(id(*ino), 1).unwrap(), store.generation());
        }
        Op::Stat(ino) => {
            let len = store.stat(id(*ino)).unwrap().map(|stat| stat.len);
            prop_assert_eq!(len, model.objects.get(ino).map(|o| o.len() as u64));
        }
        Op::Reopen => unreachable!("done by the caller"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_plain_vectors_do(
        ops in proptest::collection::vec(any_op(), 1..40), open_objects_max in 1usize..6,
    ) {
        let target = TempTarget::new();
        let options = StoreOptions { open_objects_max, metrics: Metrics::new(), ..StoreOptions::default() };
        let open = || Store::open(target.path(), FS, &options).unwrap();
        let (mut store, mut model) = (open(), Model::default());
        for op in &ops {
            if matches!(op, Op::Reopen) {
                drop(store);
                store = open();
                model.removed.clear();
            } else {
                step(&store, &mut model, op)?;
            }
        }
    }
}

#[test]
fn an_absent_object_reads_as_not_there_and_stays_so() {
    let target = TempTarget::new();
    let store = target.open();
    let read = store.read(id(1), &[run(0, 100)]).unwrap();
    assert_eq!((read.bytes.len(), read.object_len, read.exists), (0, 0, false));
    store.truncate(id(1), 50).unwrap();
    store.sync(id(1), 1).unwrap();
    store.write(id(1), &writes(&[]), b"").unwrap();
    store.remove(&[id(1)]).unwrap();
    assert_eq!(store.stat(id(1)).unwrap(), None);
}

#[test]
fn who_reads_an_object_by_itself_sees_what_is_cut_and_removed() {
    let (target, board) = (TempTarget::new(), Arc::new(Board::new().unwrap()));
    let options = StoreOptions { board: Some(Arc::clone(&board)), ..StoreOptions::default() };
    let store = Store::open(target.path(), FS, &options).unwrap();
    assert!(store.pass(id(1)).unwrap().is_none(), "no object yet");
    store.write(id(1), &writes(&[run(0, 6)]), b"abcdef").unwrap();
    let file = PassedFile::new(store.pass(id(1)).unwrap().expect("an object")).unwrap();
    assert_eq!(file.len().unwrap(), Some(6));
    let (view, epoch) = (BoardView::map(board.descriptor()).unwrap(), board.epoch());
    let ended = view.cuts_ended();
    assert!(view.is_quiet(epoch, ended, 1));
    store.truncate(id(1), 2).unwrap();
    assert!(!view.is_quiet(epoch, ended, 1), "a read that began before may have seen anything");
    assert!(view.is_quiet(epoch, view.cuts_ended(), 1), "the next one sees what is left");
    assert_eq!(file.len().unwrap(), Some(2));
    store.remove(&[id(1)]).unwrap();
    assert_eq!(file.len().unwrap(), None);
}

#[test]
fn nothing_is_passed_without_a_board() {
    let store = TempTarget::new();
    let store = store.open();
    store.write(id(1), &writes(&[run(0, 1)]), b"a").unwrap();
    assert_eq!(store.pass(id(1)).unwrap_err().errno(), Errno::EOPNOTSUPP);
}

#[test]
fn a_late_write_does_not_bring_a_removed_object_back() {
    let target = TempTarget::new();
    let store = target.open();
    store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap();
    store.remove(&[id(1), id(2)]).unwrap();
    for ino in [1, 2] {
        let error = store.write(id(ino), &writes(&[run(0, 3)]), b"abc").unwrap_err();
        assert_eq!(error.errno(), Errno::ESTALE);
        assert_eq!(store.stat(id(ino)).unwrap(), None);
    }
}

#[test]
fn a_read_past_the_end_allocates_only_what_is_there() {
    let target = TempTarget::new();
    let store = target.open();
    store.write(id(1), &writes(&[run(10, 3)]), b"abc").unwrap();
    let read = store.read(id(1), &[run(11, 4 << 20), run(1 << 40, 4 << 20)]).unwrap();
    assert_eq!((&read.bytes[..], read.object_len, read.exists), (&b"bc"[..], 13, true));
}

#[test]
fn an_offset_that_the_disk_cannot_hold_is_an_errno() {
    let target = TempTarget::new();
    let store = target.open();
    let far = i64::MAX.cast_unsigned() - 10;
    let error = store.write(id(1), &writes(&[run(far, 3)]), b"abc").unwrap_err();
    assert!(matches!(error.errno(), Errno::EFBIG | Errno::EINVAL), "{error}");
}

#[test]
fn more_objects_than_descriptors_are_served() {
    let target = TempTarget::new();
    let metrics = Metrics::new();
    let options = StoreOptions { open_objects_max: 4, metrics: metrics.clone(), ..StoreOptions::default() };
    let store = Store::open(target.path(), FS, &options).unwrap();
    for ino in 0..2000u64 {
        store.write(id(ino), &writes(&[run(0, 8)]), &ino.to_le_bytes()).unwrap();
    }
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open < 200, "{open} descriptors are open");
    for ino in 0..2000u64 {
        assert_eq!(store.read(id(ino), &[run(0, 8)]).unwrap().bytes[..], ino.to_le_bytes());
    }
    let count = |event| metrics.counter("pvfs_iod_object_cache_total", &[("event", event)]).get();
    assert!(count("evict") > 3900 && count("miss") > 3900, "{:?}", metrics.snapshot());
}

/// Writers fill whole blocks with one byte each while others cut, remove, sync and read. What a read returns must agree
/// with the length it reports, and each byte must be one that somebody wrote, or a hole.
#[test]
fn requests_side_by_side_never_tear_the_store() {
    const BLOCK: usize = 4096;
    let target = TempTarget::new();
    let options = StoreOptions { open_objects_max: 2, metrics: Metrics::new(), ..StoreOptions::default() };
    let store = Store::open(target.path(), FS, &options).unwrap();
    std::thread::scope(|scope| {
        for writer in 1..=3u8 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..300u64 {
                    let runs = [run((n % 16) * BLOCK as u64, BLOCK)];
                    store.write(id(n % 4), &writes(&runs), &[writer; BLOCK]).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for n in 0..100u64 {
                store.truncate(id(n % 4), (n % 8) * BLOCK as u64).unwrap();
                store.sync(id((n + 1) % 4), 1).unwrap();
            }
        });
        scope.spawn(|| {
            for n in 0..300u64 {
                let read = store.read(id(n % 4), &[run(0, 16 * BLOCK)]).unwrap();
                assert_eq!(read.bytes.len() as u64, read.object_len);
                assert!(read.bytes.iter().all(|&byte| byte <= 3));
            }
        });
    });
}
