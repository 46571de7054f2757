//! Bytes copied from object to object.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use pvfs_store::{Acked, Copy, Store, StoreError};
use pvfs_types::ObjectId;
use std::ops::Range;
use support::{TempTarget, id, run, writes};

const MIB: u64 = 1 << 20;

fn copy(range: Range<u64>, to: u64) -> Copy {
    Copy { range, to, writer: 1, makes: true }
}

fn content(store: &Store, of: ObjectId) -> Vec<u8> {
    store.read(of, &[run(0, 64 << 20)]).unwrap().bytes.to_vec()
}

fn put(store: &Store, of: ObjectId, at: u64, bytes: &[u8]) {
    store.write(of, &writes(&[run(at, bytes.len())]), bytes).unwrap();
}

#[test]
fn what_a_source_does_not_reach_becomes_zeros_as_far_as_there_are_bytes() {
    let target = TempTarget::new();
    let store = target.open();
    let nothing = store.copy(id(1), id(2), &copy(0..10, 0)).unwrap();
    assert_eq!((nothing.acked.mark, nothing.source_len), (Acked::DURABLE, 0));
    assert_eq!(store.stat(id(2)).unwrap(), None, "nothing makes nothing");
    put(&store, id(2), 0, b"abcdefgh");
    store.copy(id(1), id(2), &copy(0..2, 1)).unwrap();
    assert_eq!(content(&store, id(2)), b"a\0\0defgh");
    put(&store, id(1), 0, b"xyz");
    let short = store.copy(id(1), id(2), &copy(1..5, 3)).unwrap();
    assert_eq!((content(&store, id(2)), short.source_len), (b"a\0\0yz\0\0h".to_vec(), 3));
    assert!(short.acked.mark > store.committed(), "not durable by itself");
    let within = store.copy(id(2), id(2), &copy(3..5, 7)).unwrap();
    assert_eq!((content(&store, id(2)), within.source_len), (b"a\0\0yz\0\0yz".to_vec(), 8));
}

#[test]
fn holes_stay_holes() {
    let target = TempTarget::new();
    let store = target.open();
    put(&store, id(1), 30 * MIB, b"the end");
    put(&store, id(1), MIB, &vec![7; 5000]);
    store.copy(id(1), id(2), &copy(0..31 * MIB, 0)).unwrap();
    assert!(content(&store, id(1)) == content(&store, id(2)));
    assert!(store.stat(id(2)).unwrap().unwrap().allocated < MIB);
}

#[test]
fn no_object_is_made_that_must_not_be() {
    let target = TempTarget::new();
    let store = target.open();
    put(&store, id(1), 0, b"abc");
    let refused = store.copy(id(1), id(2), &Copy { makes: false, ..copy(0..3, 0) });
    assert!(matches!(refused, Err(StoreError::Absent { .. })), "{refused:?}");
    store.remove(&[id(2)]).unwrap();
    let late = store.copy(id(1), id(2), &copy(0..3, 0));
    assert!(matches!(late, Err(StoreError::Removed { .. })), "{late:?}");
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    (0..5 * MIB, 1..3 * MIB)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn copies_leave_what_copying_each_byte_leaves(
        data in proptest::collection::vec(range(), 0..4),
        before in 0..6 * MIB,
        (from, len) in range(),
        to in 0..4 * MIB,
    ) {
        let target = TempTarget::new();
        let store = target.open();
        for (n, (at, len)) in data.into_iter().enumerate() {
            put(&store, id(1), at, &vec![u8::try_from(n).unwrap() + 1; usize::try_from(len).unwrap()]);
        }
        put(&store, id(2), 0, &vec![9; usize::try_from(before).unwrap() + 1]);
        let byte = |bytes: &[u8], at: u64| bytes.get(usize::try_from(at).unwrap()).copied();
        let (source, mut model) = (content(&store, id(1)), content(&store, id(2)));
        let reaches = usize::try_from(to + (source.len() as u64).saturating_sub(from).min(len)).unwrap();
        if byte(&source, from).is_some() {
            model.resize(reaches.max(model.len()), 0);
        }
        for n in 0..len {
            let at = usize::try_from(to + n).unwrap();
            if at < model.len() {
                model[at] = byte(&source, from + n).unwrap_or(0);
            }
        }
        let copied = store.copy(id(1), id(2), &copy(from..from + len, to)).unwrap();
        prop_assert_eq!(copied.source_len, source.len() as u64);
        let found = content(&store, id(2));
        // A hole at the source's end makes nothing longer.
        prop_assert!(found.len() <= model.len() && model[found.len()..].iter().all(|&byte| byte == 0));
        prop_assert!(found == model[..found.len()]);
    }
}
