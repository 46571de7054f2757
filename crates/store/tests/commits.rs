//! Commits: what they sync and what they say; and writes sent again after a loss, against cuts and syncs of others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use pvfs_store::{Acked, Store, Write};
use std::sync::atomic::Ordering;
use support::{TempTarget, id, run, writes};

fn object(ino: u64) -> String {
    format!("objects/000/{ino:016x}.00000000.0000")
}

fn content(store: &Store, ino: u64) -> Vec<u8> {
    store.read(id(ino), &[run(0, 100)]).unwrap().bytes.to_vec()
}

/// Sends a write again, as `writer`, that was acknowledged as `acked`.
fn again(store: &Store, offset: u64, bytes: &[u8], writer: u64, acked: Acked) -> Acked {
    let runs = [run(offset, bytes.len())];
    store.write(id(1), &Write { runs: &runs, writer, again: Some(acked), makes: true }, bytes).unwrap()
}

#[test]
fn a_commit_syncs_what_was_written_and_nothing_else() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    for ino in [1, 2, 3] {
        store.write(id(ino), &writes(&[run(0, 3)]), b"abc").unwrap();
    }
    let last = store.write(id(2), &writes(&[run(0, 3)]), b"abc").unwrap();
    assert!(store.committed() < last.mark && store.is_dirty());
    faults.take_synced();
    store.commit().unwrap();
    assert!(store.committed() >= last.mark && !store.is_dirty());
    assert_eq!(
        faults.take_synced(),
        [&object(1), "objects/000", "objects", &object(2), "objects/000", &object(3), "objects/000"]
    );
    store.write(id(2), &writes(&[run(0, 3)]), b"abc").unwrap();
    store.commit().unwrap();
    assert_eq!(faults.take_synced(), [object(2)]);
    store.commit().unwrap();
    assert_eq!(faults.take_synced(), Vec::<String>::new());
}

#[test]
fn a_removed_object_does_not_trouble_a_commit() {
    let target = TempTarget::new();
    let (store, _) = target.open_faulty();
    store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap();
    store.remove(&[id(1)]).unwrap();
    store.commit().unwrap();
}

#[test]
fn many_objects_are_committed_with_one_sync() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    for ino in 0..1000 {
        store.write(id(ino), &writes(&[run(0, 1)]), b"x").unwrap();
    }
    faults.take_synced();
    store.commit().unwrap();
    assert_eq!(faults.take_synced(), ["*"]);
}

#[test]
fn the_first_commit_of_a_process_covers_what_the_one_before_it_wrote() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let written = store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap();
    drop(store);
    let store = target.open_with(&faults);
    assert!(store.committed() < written.mark);
    faults.take_synced();
    store.commit().unwrap();
    assert_eq!(faults.take_synced(), ["*"]);
    assert_eq!(store.generation(), written.generation);
    assert!(store.committed() >= written.mark);
}

#[test]
fn a_failed_commit_raises_the_generation_and_the_next_one_syncs_everything() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let written = store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap();
    store.write(id(2), &writes(&[run(0, 3)]), b"abc").unwrap();
    faults.fail_next_sync_of(".0000");
    store.commit().unwrap_err();
    assert!(store.committed() < written.mark);
    assert!(store.generation() > written.generation);
    faults.take_synced();
    store.commit().unwrap();
    assert_eq!(faults.take_synced(), ["*"]);
}

#[test]
fn a_commit_ends_only_when_a_raised_generation_is_durable() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let before = store.generation();
    store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap();
    faults.fail_next_sync_of(".0000");
    faults.fail_next_sync_of("state.new");
    faults.fail_next_sync_of("state.new");
    store.commit().unwrap_err();
    let committed = store.committed();
    store.commit().unwrap_err();
    assert_eq!(store.committed(), committed);
    store.commit().unwrap();
    drop(store);
    assert!(target.open_with(&faults).generation() > before);
}

/// A target whose machine dies after `before`, with what was not synced: the object's file is gone.
fn after_a_loss(before: impl FnOnce(&Store)) -> (TempTarget, Store) {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    before(&store);
    drop(store);
    std::fs::remove_file(target.path().join(object(1))).ok();
    faults.boots.fetch_add(1, Ordering::SeqCst);
    let store = target.open_with(&faults);
    (target, store)
}

#[test]
fn what_was_lost_comes_back_when_it_is_sent_again() {
    let mut acked = None;
    let (_target, store) =
        after_a_loss(|store| acked = Some(store.write(id(1), &writes(&[run(2, 3)]), b"abc").unwrap()));
    assert_eq!(content(&store, 1), b"");
    let acked = again(&store, 2, b"abc", 1, acked.unwrap());
    assert_eq!(content(&store, 1), b"\0\0abc");
    assert_eq!(acked.generation, store.generation());
    assert!(acked.mark > store.committed(), "as good as any new write");
}

#[test]
fn what_a_cut_took_does_not_come_back() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let acked = store.write(id(1), &writes(&[run(0, 6)]), b"abcdef").unwrap();
    store.truncate(id(1), 3).unwrap();
    let later = store.write(id(1), &writes(&[run(5, 1)]), b"x").unwrap();
    faults.boots.fetch_add(1, Ordering::SeqCst);
    drop(store);
    let store = target.open_with(&faults);
    assert_eq!(again(&store, 0, b"abcdef", 1, acked).mark, Acked::DURABLE, "it need not be kept");
    again(&store, 5, b"x", 1, later);
    assert_eq!(content(&store, 1), b"abc\0\0x");
}

#[test]
fn what_was_lost_before_a_cut_comes_back_below_it_only() {
    let mut acked = None;
    let (_target, store) =
        after_a_loss(|store| acked = Some(store.write(id(1), &writes(&[run(0, 6)]), b"abcdef").unwrap()));
    // Somebody cuts the object that is not there before its writer has come back.
    store.truncate(id(1), 4).unwrap();
    again(&store, 0, b"abcdef", 1, acked.unwrap());
    assert_eq!(content(&store, 1), b"abcd");
}

#[test]
fn a_cut_makes_no_object_where_nothing_was_ever_lost() {
    let target = TempTarget::new();
    let store = target.open();
    store.truncate(id(1), 4).unwrap();
    assert_eq!(store.stat(id(1)).unwrap(), None);
}

#[test]
fn a_late_cut_does_not_bring_a_removed_object_back() {
    let (_target, store) = after_a_loss(|_| {});
    store.remove(&[id(1)]).unwrap();
    store.truncate(id(1), 4).unwrap();
    assert_eq!(store.stat(id(1)).unwrap(), None);
}

#[test]
fn what_one_client_synced_is_not_written_over_by_what_another_wrote_before() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let runs = [run(0, 3)];
    let by = |writer| Write { runs: &runs, writer, again: None, makes: true };
    let old = store.write(id(1), &by(1), b"old").unwrap();
    store.write(id(1), &by(2), b"new").unwrap();
    store.sync(id(1), 2).unwrap();
    drop(store);
    faults.boots.fetch_add(1, Ordering::SeqCst);
    let store = target.open_with(&faults);
    again(&store, 0, b"old", 1, old);
    assert_eq!(content(&store, 1), b"new");
}

#[test]
fn what_one_client_writes_after_its_sync_is_not_written_over_by_what_another_wrote_before() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let runs = [run(0, 3)];
    let by = |writer| Write { runs: &runs, writer, again: None, makes: true };
    let old = store.write(id(1), &by(1), b"old").unwrap();
    store.sync(id(1), 2).unwrap();
    let new = store.write(id(1), &by(2), b"new").unwrap();
    drop(store);
    faults.boots.fetch_add(1, Ordering::SeqCst);
    let store = target.open_with(&faults);
    again(&store, 0, b"new", 2, new);
    again(&store, 0, b"old", 1, old);
    assert_eq!(content(&store, 1), b"new");
}

#[test]
fn syncs_of_a_lone_writer_leave_no_fence() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap();
    store.sync(id(1), 1).unwrap();
    assert!(!faults.take_synced().iter().any(|name| name.ends_with("note")));
    let other = Write { runs: &[run(0, 3)], writer: 2, again: None, makes: true };
    store.write(id(1), &other, b"abc").unwrap();
    store.sync(id(1), 1).unwrap();
    assert!(faults.take_synced().iter().any(|name| name.ends_with("note")));
}

#[test]
fn a_fence_that_cannot_be_written_is_a_failed_sync() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let written = store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap();
    faults.fail_next_sync_of("note");
    store.truncate(id(1), 1).unwrap_err();
    assert!(store.generation() > written.generation);
    store.truncate(id(1), 1).unwrap();
}

#[test]
fn a_cut_whose_sync_failed_is_made_again() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    store.write(id(1), &writes(&[run(0, 6)]), b"abcdef").unwrap();
    faults.fail_next_sync_of("note");
    store.truncate(id(1), 3).unwrap_err();
    assert_eq!(content(&store, 1), b"abc", "cut, but not on the platter maybe");
    let cuts = faults.cuts.load(Ordering::SeqCst);
    store.truncate(id(1), 3).unwrap();
    assert_eq!(faults.cuts.load(Ordering::SeqCst), cuts + 1);
}

#[test]
fn a_sync_after_one_that_failed_writes_once_more_what_a_dead_process_wrote() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    store.write(id(1), &writes(&[run(5, 3)]), b"abc").unwrap();
    drop(store);
    let store = target.open_with(&faults);
    faults.fail_next_sync_of("0000000000000001.00000000.0000");
    store.sync(id(1), 1).unwrap_err();
    faults.written.lock().unwrap().clear();
    store.sync(id(1), 1).unwrap();
    assert_eq!(
        *faults.written.lock().unwrap(),
        [(0, b"\0\0\0\0\0abc".to_vec())],
        "all of it: nobody knows where"
    );
    faults.fail_next_sync_of("0000000000000001.00000000.0000");
    store.write(id(1), &writes(&[run(1, 1)]), b"x").unwrap();
    store.sync(id(1), 1).unwrap_err();
    faults.written.lock().unwrap().clear();
    store.sync(id(1), 1).unwrap();
    assert_eq!(*faults.written.lock().unwrap(), [(1, b"x".to_vec())], "the rest is durable since");
}

/// The kernel takes for written what a failed sync could not write: a later one succeeds without it.
#[test]
fn a_sync_after_one_that_failed_writes_once_more_what_that_left() {
    for syncs in [|store: &Store| store.sync(id(1), 1).map(drop), |store: &Store| store.commit().map(drop)] {
        let target = TempTarget::new();
        let (store, faults) = target.open_faulty();
        store.write(id(1), &writes(&[run(0, 3), run(10, 2)]), b"abcde").unwrap();
        store.write(id(2), &writes(&[run(0, 1)]), b"x").unwrap();
        faults.fail_next_sync_of("0001.00000000.0000");
        store.sync(id(1), 1).unwrap_err();
        faults.written.lock().unwrap().clear();
        store.sync(id(2), 1).unwrap();
        assert_eq!(*faults.written.lock().unwrap(), [], "another object");
        faults.take_synced();
        syncs(&store).unwrap();
        let again = faults.written.lock().unwrap().clone();
        assert_eq!(again, [(0, b"abc".to_vec()), (10, b"de".to_vec())]);
        assert!(faults.take_synced().iter().any(|name| name.ends_with("0001.00000000.0000")));
        syncs(&store).unwrap();
        assert_eq!(faults.written.lock().unwrap().len(), 2, "once");
    }
}
