//! When the store generation is raised, and that it is never read too new.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use pvfs_env::memory::{Board, BoardView};
use pvfs_store::StoreError;
use pvfs_types::{Errno, TargetId};
use std::sync::{Arc, atomic::Ordering};
use support::{TempTarget, id, run, writes};

#[test]
fn a_process_that_died_loses_nothing() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let before = store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap().generation;
    drop(store);
    let store = target.open_with(&faults);
    assert_eq!(store.generation(), before);
    assert_eq!(&store.read(id(1), &[run(0, 3)]).unwrap().bytes[..], b"abc");
}

#[test]
fn a_machine_that_died_raises_the_generation_once() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let before = store.generation();
    drop(store);
    faults.boots.fetch_add(1, Ordering::SeqCst);
    let store = target.open_with(&faults);
    assert_eq!(store.generation(), before + 1);
    drop(store);
    assert_eq!(target.open_with(&faults).generation(), before + 1);
}

#[test]
fn a_clean_stop_outlives_the_machine() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let before = store.generation();
    store.close().unwrap();
    drop(store);
    faults.boots.fetch_add(1, Ordering::SeqCst);
    assert_eq!(target.open_with(&faults).generation(), before);
}

#[test]
fn a_machine_that_died_after_a_clean_stop_and_a_new_start_raises_the_generation() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let before = store.generation();
    store.close().unwrap();
    drop(store);
    drop(target.open_with(&faults));
    faults.boots.fetch_add(1, Ordering::SeqCst);
    assert_eq!(target.open_with(&faults).generation(), before + 1);
}

#[test]
fn a_failed_sync_raises_the_generation_for_good() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let written = store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap().generation;
    faults.fail_next_sync_of(".0000");
    let error = store.sync(id(1), 1).unwrap_err();
    assert_eq!(error.errno(), Errno::EIO);
    // The kernel tells the error once. Whoever syncs next must still learn that bytes may be lost.
    assert!(store.sync(id(1), 1).unwrap() > written);
    drop(store);
    assert!(target.open_with(&faults).generation() > written);
}

#[test]
fn what_was_passed_to_clients_is_void_when_a_sync_fails() {
    let (target, faults, board) = (TempTarget::new(), Arc::default(), Arc::new(Board::new().unwrap()));
    let store = target.open_showing(&faults, Some(Arc::clone(&board)));
    let (view, epoch) = (BoardView::map(board.descriptor()).unwrap(), board.epoch());
    store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap();
    store.sync(id(1), 1).unwrap();
    assert!(!view.is_void(epoch));
    store.write(id(1), &writes(&[run(0, 3)]), b"abd").unwrap();
    faults.fail_next_sync_of(".0000");
    store.sync(id(1), 1).unwrap_err();
    assert!(view.is_void(epoch));
}

#[test]
fn nothing_is_called_synced_before_a_raised_generation_is_durable() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let written = store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap().generation;
    faults.fail_next_sync_of(".0000");
    faults.fail_next_sync_of("state.new");
    faults.fail_next_sync_of("state.new");
    faults.fail_next_sync_of("state.new");
    store.sync(id(1), 1).unwrap_err();
    assert_eq!(
        store.generation(),
        written,
        "what is told never goes back, and the disk does not have it yet"
    );
    let error = store.settled_generation().unwrap_err();
    assert_eq!(error.errno(), Errno::EIO, "nobody may take what is told for the last word: {error}");
    let error = store.sync(id(2), 1).unwrap_err();
    assert_eq!(error.errno(), Errno::EIO, "the disk still does not take the generation: {error}");
    let synced = store.sync(id(2), 1).unwrap();
    assert!(synced > written);
    assert_eq!((store.generation(), store.settled_generation().unwrap()), (synced, synced));
    drop(store);
    assert_eq!(target.open_with(&faults).generation(), synced);
}

#[test]
fn a_raised_generation_that_the_disk_did_not_take_is_known_to_the_next_process() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let written = store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap().generation;
    faults.fail_next_sync_of(".0000");
    faults.fail_next_sync_of("state.new");
    store.sync(id(1), 1).unwrap_err();
    drop(store);
    // The kernel does not tell that error again: a sync would succeed now, of bytes that are nowhere.
    let store = target.open_with(&faults);
    assert_eq!(store.generation(), written + 1);
    drop(store);
    assert_eq!(target.open_with(&faults).generation(), written + 1, "raised once");
    faults.boots.fetch_add(1, Ordering::SeqCst);
    assert_eq!(
        target.open_with(&faults).generation(),
        written + 2,
        "of the machine's death nothing is noted"
    );
}

#[test]
fn a_failed_sync_of_which_a_dead_process_took_no_note_raises_the_generation() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let written = store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap().generation;
    faults.fail_next_sync_of(".0000");
    faults.dies_in_next_sync.store(true, Ordering::SeqCst);
    store.sync(id(1), 1).unwrap_err();
    assert_eq!(store.generation(), written, "it could tell nobody");
    drop(store);
    // The object's next sync would succeed, without the bytes.
    let store = target.open_with(&faults);
    assert_eq!(store.generation(), written + 1);
    assert_eq!(store.sync(id(1), 1).unwrap(), written + 1);
    drop(store);
    assert_eq!(target.open_with(&faults).generation(), written + 1, "raised once");
}

#[test]
fn a_failed_sync_of_all_of_which_a_dead_process_took_no_note_raises_the_generation_and_is_made_good() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    drop(store);
    // The first commit after a stop that was not clean syncs all.
    let store = target.open_with(&faults);
    let written = store.write(id(1), &writes(&[run(5, 3)]), b"abc").unwrap().generation;
    faults.fail_next_sync_of("*");
    faults.dies_in_next_sync.store(true, Ordering::SeqCst);
    store.commit().unwrap_err();
    drop(store);
    // The file system has told its error; the object has its own.
    faults.fail_next_sync_of("0000000000000001.00000000.0000");
    let store = target.open_with(&faults);
    assert_eq!(store.generation(), written + 1);
    // Its writer may be dead: what is in memory goes to the disk once more.
    faults.written.lock().unwrap().clear();
    store.sync(id(1), 1).unwrap();
    assert!(faults.written.lock().unwrap().contains(&(0, b"\0\0\0\0\0abc".to_vec())));
}

/// Their writer may be dead: in memory all is whole, and the kernel takes it for written.
#[test]
fn what_a_failed_sync_left_is_written_once_more_by_the_next_process_too() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    store.write(id(1), &writes(&[run(2, 3)]), b"abc").unwrap();
    faults.fail_next_sync_of(".0000");
    store.sync(id(1), 1).unwrap_err();
    drop(store);
    let store = target.open_with(&faults);
    faults.written.lock().unwrap().clear();
    store.sync(id(1), 2).unwrap();
    assert_eq!(*faults.written.lock().unwrap(), [(0, b"\0\0abc".to_vec())], "nobody knows where");
    store.sync(id(1), 2).unwrap();
    assert_eq!(faults.written.lock().unwrap().len(), 1, "once");
}

#[test]
fn what_a_failed_sync_left_and_a_commit_made_good_does_not_trouble_the_next_process() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    store.write(id(1), &writes(&[run(2, 3)]), b"abc").unwrap();
    faults.fail_next_sync_of(".0000");
    store.sync(id(1), 1).unwrap_err();
    store.commit().unwrap();
    drop(store);
    let store = target.open_with(&faults);
    faults.written.lock().unwrap().clear();
    store.sync(id(1), 2).unwrap();
    assert_eq!(*faults.written.lock().unwrap(), []);
}

#[test]
fn a_process_that_died_in_a_sync_that_did_not_fail_loses_nothing() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let before = store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap().generation;
    faults.dies_in_next_sync.store(true, Ordering::SeqCst);
    store.sync(id(1), 1).unwrap_err();
    drop(store);
    let store = target.open_with(&faults);
    assert_eq!(store.generation(), before, "of an object");
    faults.dies_in_next_sync.store(true, Ordering::SeqCst);
    let _ = store.commit();
    drop(store);
    faults.take_synced();
    assert_eq!(target.open_with(&faults).generation(), before, "of all");
    assert!(faults.take_synced().iter().any(|name| name.ends_with("1.00000000.0000")), "each was asked");
    drop(target.open_with(&faults));
    faults.take_synced();
    drop(target.open_with(&faults));
    assert!(
        !faults.take_synced().contains(&"*".to_owned()),
        "who was killed in no sync has nothing looked for"
    );
}

#[test]
fn a_stop_that_cannot_sync_is_not_clean() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let before = store.generation();
    faults.fail_next_sync_of("*");
    assert!(matches!(store.close(), Err(StoreError::Io { .. })));
    drop(store);
    assert_eq!(target.open_with(&faults).generation(), before + 1);
}

#[test]
fn a_new_object_s_name_is_synced_with_its_bytes() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap();
    faults.take_synced();
    store.sync(id(1), 1).unwrap();
    let object = "objects/000/0000000000000001.00000000.0000";
    assert_eq!(faults.take_synced(), [object, "objects/000", "objects"]);
    store.sync(id(1), 1).unwrap();
    assert_eq!(faults.take_synced(), [object], "the names are durable");
    store.write(id(2), &writes(&[run(0, 3)]), b"abc").unwrap();
    store.sync(id(2), 1).unwrap();
    assert_eq!(faults.take_synced(), ["objects/000/0000000000000002.00000000.0000", "objects/000"]);
}

#[test]
fn a_directory_that_cannot_be_synced_raises_the_generation() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    let written = store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap().generation;
    faults.fail_next_sync_of("objects/000");
    store.sync(id(1), 1).unwrap_err();
    faults.take_synced();
    assert!(store.sync(id(1), 1).unwrap() > written);
    assert!(faults.take_synced().contains(&"objects/000".to_owned()), "tried again");
}

#[test]
fn removals_and_cuts_are_durable_also_when_sent_again() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    store.write(id(1), &writes(&[run(0, 3)]), b"abc").unwrap();
    faults.take_synced();
    for _ in 0..2 {
        store.truncate(id(1), 1).unwrap();
        assert!(faults.take_synced().iter().any(|name| name.ends_with(".0000")));
    }
    for _ in 0..2 {
        store.remove(&[id(1)]).unwrap();
        assert_eq!(faults.take_synced(), ["objects/000"]);
    }
    store.remove(&[id(1 << 20)]).expect("neither the object nor its directory was ever there");
}

#[test]
fn the_mgr_s_time_outlives_the_process_and_a_clean_stop_but_not_the_machine() {
    let target = TempTarget::new();
    let (store, faults) = target.open_faulty();
    assert_eq!(store.mgr_time_at_open(), Some(0), "never joined: no lease can concern it");
    store.follow_mgr_time(500).unwrap();
    store.join(TargetId(1)).unwrap();
    store.follow_mgr_time(700).unwrap();
    drop(store);
    let store = target.open_with(&faults);
    assert_eq!(store.mgr_time_at_open(), Some(700));
    store.close().unwrap();
    drop(store);
    faults.boots.fetch_add(1, Ordering::SeqCst);
    let store = target.open_with(&faults);
    assert_eq!(store.mgr_time_at_open(), Some(700), "a clean stop syncs it");
    drop(store);
    faults.boots.fetch_add(1, Ordering::SeqCst);
    assert_eq!(target.open_with(&faults).mgr_time_at_open(), None);
}
