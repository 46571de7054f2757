//! The suite that every engine passes, one claim a function; [`conformance_suite!`](crate::conformance_suite) makes
//! tests of them.

use crate::{ENGINE_KEY, Engine, KEY_BYTES_MAX, KvError, Overlay, Read, WriteSet, WriteTxn};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Where an engine's pairs lie, from one opening to the next. Dropping it removes them.
pub trait Place {
    type Engine: Engine;

    /// An empty place that takes at least `bytes` of keys and values, and not a hundred times as many.
    fn new(bytes: usize) -> Self;
    fn open(&self) -> Result<Self::Engine, KvError>;
}

/// Makes one test of each claim for an engine: `conformance_suite!(mem, MemPlace);`
#[macro_export]
macro_rules! conformance_suite {
    ($engine:ident, $place:ty) => {
        $crate::conformance_suite!(@tests $engine, $place,
            what_was_committed_is_read,
            a_snapshot_does_not_change,
            a_range_is_ordered_half_open_and_stops_when_told,
            snapshots_are_read_by_other_threads_while_commits_go_on,
            what_was_committed_is_there_after_a_reopen,
            a_full_store_says_so_changes_nothing_and_goes_on,
            a_second_open_is_refused_until_the_first_is_dropped,
            keys_that_no_engine_takes_are_refused_whole,
            large_values_come_back,
            an_empty_set_commits,
            overlays_over_a_snapshot_read_like_a_map,
        );
    };
    (@tests $engine:ident, $place:ty, $($claim:ident,)*) => {
        mod $engine {
            use super::*;
            $(
                #[test]
                fn $claim() {
                    $crate::conformance::$claim::<$place>();
                }
            )*
        }
    };
}

const SMALL: usize = 1 << 20;

fn set(pairs: &[(&[u8], Option<&[u8]>)]) -> WriteSet {
    let mut set = WriteSet::new();
    for (key, value) in pairs {
        match value {
            Some(value) => set.put(key, value.to_vec()),
            None => set.delete(key),
        }
    }
    set
}

fn pairs_of(read: &(impl Read + ?Sized), from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs = Vec::new();
    read.range(from, to, &mut |key, value| {
        pairs.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })
    .expect("a range is read");
    pairs
}

fn keys_of(read: &(impl Read + ?Sized), from: &[u8], to: &[u8]) -> Vec<String> {
    pairs_of(read, from, to).iter().map(|(key, _)| key.escape_ascii().to_string()).collect()
}

fn get(engine: &impl Engine, key: &[u8]) -> Option<Vec<u8>> {
    engine.snapshot().expect("a snapshot").get(key).expect("a key is read")
}

pub fn what_was_committed_is_read<P: Place>() {
    let place = P::new(SMALL);
    let engine = place.open().expect("opens");
    engine.commit(&set(&[(b"a", Some(b"1")), (b"b", Some(b"")), (b"c", Some(b"3"))])).expect("commits");
    engine.commit(&set(&[(b"c", None), (b"a", Some(b"2")), (b"never there", None)])).expect("commits");
    assert_eq!(get(&engine, b"a"), Some(b"2".to_vec()));
    assert_eq!(get(&engine, b"b"), Some(Vec::new()), "an empty value is a value");
    assert_eq!(get(&engine, b"c"), None);
    assert_eq!(get(&engine, b"aa"), None);
    assert!(engine.used_bytes().expect("is told") > 0);
}

pub fn a_snapshot_does_not_change<P: Place>() {
    let place = P::new(SMALL);
    let engine = place.open().expect("opens");
    engine.commit(&set(&[(b"a", Some(b"1"))])).expect("commits");
    let before = engine.snapshot().expect("a snapshot");
    engine.commit(&set(&[(b"a", None), (b"b", Some(b"2"))])).expect("commits beside a snapshot");
    assert_eq!(before.get(b"a").expect("reads"), Some(b"1".to_vec()));
    assert_eq!(keys_of(&*before, b"a", b"z"), ["a"]);
    assert_eq!(keys_of(&*engine.snapshot().expect("a snapshot"), b"a", b"z"), ["b"]);
}

pub fn a_range_is_ordered_half_open_and_stops_when_told<P: Place>() {
    let place = P::new(SMALL);
    let engine = place.open().expect("opens");
    let keys: [&[u8]; 6] = [b"\xff\xff", b"b", b"a\0", b"a", b"a\xff", b"c"];
    engine.commit(&set(&keys.map(|key| (key, Some(key))))).expect("commits");
    let read = engine.snapshot().expect("a snapshot");
    assert_eq!(keys_of(&*read, b"a", b"c"), ["a", "a\\x00", "a\\xff", "b"]);
    assert_eq!(keys_of(&*read, b"a\0", b"a\xff"), ["a\\x00"]);
    assert_eq!(keys_of(&*read, b"c", b"a"), [""; 0], "from past to");
    assert_eq!(keys_of(&*read, b"b", b"b"), [""; 0], "from at to");
    assert_eq!(keys_of(&*read, b"d", b"\xff"), [""; 0]);
    let mut seen = 0;
    read.range(b"a", b"z", &mut |_, _| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .expect("a range is read");
    assert_eq!(seen, 2);
}

pub fn snapshots_are_read_by_other_threads_while_commits_go_on<P: Place>() {
    let place = P::new(SMALL);
    let engine = place.open().expect("opens");
    engine.commit(&set(&[(b"x", Some(b"0")), (b"y", Some(b"0"))])).expect("commits");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    // Made here, read here, moved there: a snapshot is Send.
                    let read = engine.snapshot().expect("a snapshot");
                    let x = read.get(b"x").expect("reads");
                    let y = scope.spawn(move || read.get(b"y").expect("reads")).join().expect("no panic");
                    assert_eq!(x, y, "half of a commit was seen");
                }
            });
        }
        for round in 0..100u8 {
            engine.commit(&set(&[(b"x", Some(&[round])), (b"y", Some(&[round]))])).expect("commits");
        }
    });
}

pub fn what_was_committed_is_there_after_a_reopen<P: Place>() {
    let place = P::new(SMALL);
    {
        let engine = place.open().expect("opens");
        engine.commit(&set(&[(b"a", Some(b"1")), (b"b", Some(b"2"))])).expect("commits");
        engine.commit(&set(&[(b"a", None)])).expect("commits");
    }
    let engine = place.open().expect("opens again");
    assert_eq!(
        pairs_of(&*engine.snapshot().expect("a snapshot"), b"a", b"z"),
        [(b"b".to_vec(), b"2".to_vec())]
    );
}

pub fn a_full_store_says_so_changes_nothing_and_goes_on<P: Place>() {
    let place = P::new(SMALL);
    let engine = place.open().expect("opens");
    engine.commit(&set(&[(b"kept", Some(b"1"))])).expect("commits");
    let big = vec![7; 20_000];
    let mut filled = 0u32;
    let error = loop {
        let key = filled.to_be_bytes();
        // Two keys, so that half of a set would show.
        let pair = set(&[(b"kept", Some(&key)), (&[b'f', key[0], key[1], key[2], key[3]], Some(&big))]);
        match engine.commit(&pair) {
            Ok(()) => filled += 1,
            Err(error) => break error,
        }
        assert!(filled < 100_000, "a store of 1 MiB is full some time");
    };
    assert!(matches!(error, KvError::Full { .. }), "{error}");
    assert!(filled >= 1, "something fits");
    assert_eq!(
        get(&engine, b"kept"),
        Some((filled - 1).to_be_bytes().to_vec()),
        "nothing of the refused set"
    );
    assert_eq!(keys_of(&*engine.snapshot().expect("a snapshot"), b"f", b"g").len(), filled as usize);

    let mut all_but_kept = WriteSet::new();
    for (key, _) in pairs_of(&*engine.snapshot().expect("a snapshot"), b"f", b"g").into_iter().skip(1) {
        all_but_kept.delete(&key);
    }
    engine.commit(&all_but_kept).expect("deleting works in a full store");
    // An engine that copies on write frees a commit's old pages with the next one.
    engine.commit(&set(&[(b"kept", Some(b"2"))])).expect("commits");
    engine.commit(&set(&[(b"after", Some(&big))])).expect("what was freed is used again");
    assert_eq!(get(&engine, b"after"), Some(big));
}

pub fn a_second_open_is_refused_until_the_first_is_dropped<P: Place>() {
    let place = P::new(SMALL);
    let first = place.open().expect("opens");
    let Err(error) = place.open() else { panic!("two engines on one store") };
    assert!(matches!(error, KvError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another daemon"), "{error}");
    first.commit(&set(&[(b"a", Some(b"1"))])).expect("the first one goes on");
    drop(first);
    place.open().expect("opens now");
}

pub fn keys_that_no_engine_takes_are_refused_whole<P: Place>() {
    let place = P::new(SMALL);
    let engine = place.open().expect("opens");
    for bytes in [0, KEY_BYTES_MAX + 1] {
        let refused = engine.commit(&set(&[(b"a", Some(b"1")), (&vec![b'k'; bytes], Some(b"1"))]));
        assert!(matches!(refused, Err(KvError::KeySize { bytes: told }) if told == bytes));
    }
    let refused = engine.commit(&set(&[(b"a", Some(b"1")), (ENGINE_KEY, Some(b"1"))]));
    assert!(matches!(refused, Err(KvError::ReservedKey)));
    assert_eq!(get(&engine, b"a"), None);
    let longest = vec![b'k'; KEY_BYTES_MAX];
    engine.commit(&set(&[(&longest, Some(b"1"))])).expect("commits");
    assert_eq!(get(&engine, &longest), Some(b"1".to_vec()));
}

pub fn large_values_come_back<P: Place>() {
    let place = P::new(SMALL * 4);
    let engine = place.open().expect("opens");
    let large: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    engine.commit(&set(&[(b"large", Some(&large))])).expect("commits");
    assert_eq!(get(&engine, b"large"), Some(large));
}

pub fn an_empty_set_commits<P: Place>() {
    let place = P::new(SMALL);
    place.open().expect("opens").commit(&WriteSet::new()).expect("commits");
}

/// One step of the random test below, on the uppermost of two overlays or on all three layers.
#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// The operation ends: its set goes into the batch.
    Merge,
    /// The batch ends: its set is committed.
    Commit,
    Get(Vec<u8>),
    Range(Vec<u8>, Vec<u8>, usize),
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    // Few keys, so that the layers often speak of the same one.
    prop::collection::vec(prop::sample::select(vec![1u8, 2, 0xff]), 1..4)
}

fn any_step() -> impl Strategy<Value = Step> {
    let value = prop::collection::vec(any::<u8>(), 0..4);
    prop_oneof![
        4 => (any_key(), value).prop_map(|(key, value)| Step::Put(key, value)),
        3 => any_key().prop_map(Step::Delete),
        1 => Just(Step::Merge),
        1 => Just(Step::Commit),
        2 => any_key().prop_map(Step::Get),
        3 => (any_key(), any_key(), 0usize..20).prop_map(|(from, to, most)| Step::Range(from, to, most)),
    ]
}

/// An operation's overlay over a batch's overlay over a snapshot, against a `BTreeMap`.
pub fn overlays_over_a_snapshot_read_like_a_map<P: Place>() {
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let steps = prop::collection::vec(any_step(), 1..60);
    runner.run(&steps, |steps| run_steps::<P>(&steps)).unwrap_or_else(|error| panic!("{error}"));
}

fn run_steps<P: Place>(steps: &[Step]) -> Result<(), TestCaseError> {
    let place = P::new(SMALL);
    let engine = place.open().expect("opens");
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut steps = steps.iter();
    let mut more = true;
    while more {
        more = false;
        let snapshot = engine.snapshot().expect("a snapshot");
        let mut batch = Overlay::new(&*snapshot);
        'batch: loop {
            let mut op = Overlay::new(&batch);
            for step in steps.by_ref() {
                match step {
                    Step::Put(key, value) => {
                        op.put(key, value.clone());
                        model.insert(key.clone(), value.clone());
                    }
                    Step::Delete(key) => {
                        op.delete(key);
                        model.remove(key);
                    }
                    Step::Merge => {
                        let set = op.into_set();
                        batch.merge(set);
                        continue 'batch;
                    }
                    Step::Commit => {
                        more = true;
                        break;
                    }
                    Step::Get(key) => prop_assert_eq!(op.get(key).expect("reads"), model.get(key).cloned()),
                    Step::Range(from, to, most) => check_range(&op, &model, from, to, *most)?,
                }
            }
            let set = op.into_set();
            batch.merge(set);
            break;
        }
        let set = batch.into_set();
        drop(snapshot);
        engine.commit(&set).expect("commits");
    }
    drop(engine);
    let engine = place.open().expect("opens again");
    let all = pairs_of(&*engine.snapshot().expect("a snapshot"), &[0], &[0xff; 8]);
    prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
    Ok(())
}

fn check_range(
    op: &impl Read,
    model: &BTreeMap<Vec<u8>, Vec<u8>>,
    from: &[u8],
    to: &[u8],
    most: usize,
) -> Result<(), TestCaseError> {
    let mut seen = Vec::new();
    op.range(from, to, &mut |key, value| {
        seen.push((key.to_vec(), value.to_vec()));
        if seen.len() > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .expect("a range is read");
    let in_range = model.iter().filter(|(key, _)| key.as_slice() >= from && key.as_slice() < to);
    let expected: Vec<_> = in_range.take(most + 1).map(|(key, value)| (key.clone(), value.clone())).collect();
    prop_assert_eq!(seen, expected);
    Ok(())
}
