//! Ranges without bytes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use pvfs_store::{Acked, Fill, FillWith, Store, StoreError};
use std::{ops::Range, sync::atomic::Ordering};
use support::{TempTarget, id, run, writes};

fn fill(range: Range<u64>, with: FillWith) -> Fill {
    Fill { range, with, writer: 1, again: None, makes: true }
}

fn content(store: &Store, ino: u64) -> Vec<u8> {
    store.read(id(ino), &[run(0, 100)]).unwrap().bytes.to_vec()
}

#[test]
fn zeros_reach_to_the_objects_end_and_make_none() {
    let target = TempTarget::new();
    let store = target.open();
    let zeros = |range| fill(range, FillWith::Zeros);
    assert_eq!(store.fill(id(1), &zeros(0..10)).unwrap().mark, Acked::DURABLE, "nothing to lose");
    assert_eq!(store.stat(id(1)).unwrap(), None);
    store.write(id(1), &writes(&[run(0, 6)]), b"abcdef").unwrap();
    store.fill(id(1), &zeros(1..3)).unwrap();
    assert_eq!(content(&store, 1), b"a\0\0def");
    store.fill(id(1), &zeros(5..1 << 40)).unwrap();
    store.fill(id(1), &zeros(50..60)).unwrap();
    assert_eq!(content(&store, 1), b"a\0\0de\0");
}

/// Where the disk punches no holes, they are written.
#[test]
fn zeros_are_written_where_the_disk_makes_no_holes_and_count_as_written() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    store.write(id(1), &writes(&[run(0, 6)]), b"abcdef").unwrap();
    store.commit().unwrap();
    let acked = store.fill(id(1), &fill(1..3, FillWith::Zeros)).unwrap();
    assert_eq!(content(&store, 1), b"a\0\0def");
    assert!(acked.mark > store.committed() && store.is_dirty(), "not durable yet");
    store.truncate(id(1), 2).unwrap();
    store.write(id(1), &writes(&[run(0, 6)]), b"ABCDEF").unwrap();
    drop(store);
    faults.boots.fetch_add(1, Ordering::SeqCst);
    let store = target.open_with(&faults);
    let late = Fill { again: Some(acked), ..fill(1..3, FillWith::Zeros) };
    store.fill(id(1), &late).unwrap();
    assert_eq!(content(&store, 1), b"ABCDEF", "a cut had overtaken it");
}

#[test]
fn room_changes_no_byte_and_no_length_and_makes_objects_only_where_that_is_allowed() {
    let target = TempTarget::new();
    let store = target.open();
    store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap();
    let before = store.stat(id(1)).unwrap().unwrap().allocated;
    store.fill(id(1), &fill(0..1 << 20, FillWith::Room)).unwrap();
    let after = store.stat(id(1)).unwrap().unwrap();
    assert_eq!((after.len, content(&store, 1)), (3, b"abc".to_vec()));
    assert!(after.allocated >= 1 << 20 && before < 1 << 20);
    let none = store.fill(id(2), &Fill { makes: false, ..fill(0..10, FillWith::Room) });
    assert!(matches!(none, Err(StoreError::Absent { .. })));
    store.fill(id(2), &fill(0..10, FillWith::Room)).unwrap();
    assert_eq!(store.stat(id(2)).unwrap().unwrap().len, 0);
}

#[test]
fn an_object_that_is_not_there_is_a_hole_and_so_is_what_lies_behind_the_end() {
    let target = TempTarget::new();
    let store = target.open();
    assert_eq!((store.next_data(id(1), 5).unwrap(), store.next_hole(id(1), 5).unwrap()), (None, 5));
    store.write(id(1), &writes(&[run(1 << 20, 3)]), b"abc").unwrap();
    let end = (1 << 20) + 3;
    assert_eq!(store.next_data(id(1), 0).unwrap(), Some(1 << 20));
    assert_eq!(store.next_hole(id(1), 1 << 20).unwrap(), end);
    assert_eq!(
        (store.next_data(id(1), end).unwrap(), store.next_hole(id(1), end + 9).unwrap()),
        (None, end + 9)
    );
}
