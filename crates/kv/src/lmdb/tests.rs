//! What stands after a death at any moment: stores are copied as a dead process leaves them, and opened.

use super::*;
use std::{collections::BTreeMap, ops::ControlFlow};
use tempfile::TempDir;

const MAP_BYTES: usize = 64 << 20;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(dir: &Path, segment_bytes: u64) -> Result<LmdbEngine, KvError> {
    LmdbEngine::with_journal(dir, MAP_BYTES, Durability::NoSync, segment_bytes)
}

/// The `n`th of a row of commits: puts some keys, deletes others.
fn commit(engine: &LmdbEngine, model: &mut Model, n: u32) {
    let mut set = WriteSet::new();
    for k in 0..5 {
        let key = format!("key {}", (n * 7 + k * 13) % 50).into_bytes();
        if (n + k).is_multiple_of(4) {
            set.delete(&key);
            model.remove(&key);
        } else {
            let value = format!("{n} {k} {}", "v".repeat((n % 90) as usize)).into_bytes();
            set.put(&key, value.clone());
            model.insert(key, value);
        }
    }
    engine.commit(&set).expect("commits");
}

fn state_of(engine: &LmdbEngine) -> Model {
    let mut found = Model::new();
    let snapshot = engine.snapshot().expect("a snapshot");
    snapshot
        .range(b"a", b"z", &mut |key, value| {
            found.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        })
        .expect("a range is read");
    for (key, value) in &found {
        assert_eq!(snapshot.get(key).expect("a key is read").as_ref(), Some(value));
    }
    found
}

/// The files of `dir`, as a process that dies now leaves them.
fn copy(dir: &Path) -> TempDir {
    let to = TempDir::new().expect("a directory");
    for name in ["data.mdb", "journal.0", "journal.1"] {
        std::fs::copy(dir.join(name), to.path().join(name)).expect("copies");
    }
    to
}

/// The journal of a process that died after eight commits: where each ended in it, its bytes, what the commits made, and the
/// store's files.
fn eight_commits() -> (Vec<usize>, Vec<u8>, Vec<Model>, TempDir) {
    let dir = TempDir::new().expect("a directory");
    let engine = open(dir.path(), 1 << 16).expect("opens");
    let (mut states, mut ends) = (vec![Model::new()], Vec::new());
    for n in 0..8 {
        let mut model = states.last().cloned().unwrap_or_default();
        commit(&engine, &mut model, n);
        states.push(model);
        ends.push(usize::try_from(locked(&engine.journal).at).expect("small"));
    }
    let journal = std::fs::read(dir.path().join("journal.0")).expect("reads");
    (ends, journal, states, copy(dir.path()))
}

#[test]
fn a_journal_cut_anywhere_gives_a_prefix_of_the_commits() {
    let (ends, journal, states, dead) = eight_commits();
    for at in (0..=ends[7]).step_by(7) {
        let mut cut = journal.clone();
        cut[at..].fill(0);
        let store = copy(dead.path());
        std::fs::write(store.path().join("journal.0"), cut).expect("writes");
        let found = state_of(&open(store.path(), 1 << 16).expect("opens"));
        let whole = ends.iter().filter(|&&end| end <= at).count();
        assert_eq!(found, states[whole], "cut at {at}");
    }
}

#[test]
fn a_journal_that_is_damaged_before_its_last_record_is_refused() {
    let (ends, journal, states, dead) = eight_commits();
    for at in (0..ends[7]).step_by(3) {
        let mut damaged = journal.clone();
        damaged[at] ^= 0x10;
        let store = copy(dead.path());
        std::fs::write(store.path().join("journal.0"), damaged).expect("writes");
        match open(store.path(), 1 << 16) {
            Err(error) => {
                assert!(at < ends[6], "damage at {at}, in the last record, is what a power loss leaves");
                assert!(matches!(error, KvError::Corrupt { .. }), "{error}");
                assert!(error.to_string().contains("is damaged"), "{error}");
            }
            Ok(engine) => {
                assert!(at >= ends[6], "damage at {at} goes unseen");
                assert_eq!(state_of(&engine), states[7]);
            }
        }
    }
}

#[test]
fn a_journal_that_no_mgr_has_written_is_refused() {
    let (.., dead) = eight_commits();
    let journal = std::fs::File::options().write(true).open(dead.path().join("journal.1")).expect("opens");
    journal.set_len((1 << 16) + 1).expect("makes it longer");
    let Err(error) = open(dead.path(), 1 << 16) else { panic!("opened") };
    assert!(
        matches!(&error, KvError::Corrupt { detail } if detail.contains("no mgr writes more")),
        "{error}"
    );
}

#[test]
fn blocks_of_the_journal_that_are_missing_are_allocated() {
    use std::os::unix::fs::MetadataExt as _;
    let (.., dead) = eight_commits();
    let journal = dead.path().join("journal.1");
    std::fs::write(&journal, []).expect("empties it");
    let file = std::fs::File::options().write(true).open(&journal).expect("opens");
    file.set_len(1 << 16).expect("a hole");
    let engine = open(dead.path(), 1 << 16).expect("opens");
    assert!(std::fs::metadata(&journal).expect("is there").blocks() * 512 >= 1 << 16);
    drop(engine);
}

#[test]
fn blocks_are_written_ahead_of_the_records_and_harm_none_after_a_death() {
    const MIB: u64 = 1 << 20;
    let dir = TempDir::new().expect("a directory");
    let open = |dir: &Path| LmdbEngine::with_journal(dir, MAP_BYTES, Durability::Sync, 3 * MIB);
    let journal_bytes = |dir: &Path| std::fs::metadata(dir.join("journal.0")).expect("is there").len();
    let mut engine = open(dir.path()).expect("opens");
    assert_eq!(journal_bytes(dir.path()), 0, "a start writes nothing");
    let mut expected = Model::new();
    let mut lengths = Vec::new();
    for n in 0..9_u8 {
        let (key, value) = (vec![b'k', n], vec![n; 300 << 10]);
        let mut set = WriteSet::new();
        set.put(&key, value.clone());
        engine.commit(&set).expect("commits");
        expected.insert(key, value);
        lengths.push(journal_bytes(dir.path()) / MIB);
        if n % 4 == 1 {
            let dead = copy(dir.path());
            assert_eq!(state_of(&open(dead.path()).expect("opens")), expected);
            drop(engine);
            engine = open(dir.path()).expect("opens");
        }
    }
    assert!(
        lengths.contains(&1) && lengths.contains(&2) && lengths.iter().all(|mib| *mib <= 3),
        "{lengths:?}"
    );
    assert_eq!(state_of(&engine), expected);
}

#[test]
fn a_death_at_any_commit_loses_none_that_returned() {
    // Segments so small that LMDB takes several of them on the way.
    let dir = TempDir::new().expect("a directory");
    let engine = open(dir.path(), 4096).expect("opens");
    let mut model = Model::new();
    for n in 0..120 {
        commit(&engine, &mut model, n);
        // LMDB writes its file by itself; a copy taken meanwhile would be none that a death leaves.
        engine.shared.wait().expect("LMDB takes it");
        let dead = copy(dir.path());
        let again = open(dead.path(), 4096).expect("opens");
        assert_eq!(state_of(&again), model, "after commit {n}");
        // The one that was opened goes on, and dies too.
        let mut model = model.clone();
        for more in 0..n % 5 {
            commit(&again, &mut model, 1000 + more);
        }
        again.shared.wait().expect("LMDB takes it");
        let dead = copy(dead.path());
        assert_eq!(
            state_of(&open(dead.path(), 4096).expect("opens")),
            model,
            "after commit {n} and some more"
        );
    }
}

#[test]
fn what_was_frozen_when_the_process_died_is_read_before_what_came_after() {
    let dir = TempDir::new().expect("a directory");
    let engine = open(dir.path(), 1 << 16).expect("opens");
    let mut model = Model::new();
    for n in 0..10 {
        commit(&engine, &mut model, n);
    }
    engine.shared.wait().expect("nothing is frozen");
    let early = copy(dir.path());
    locked(&engine.journal).switch();
    for n in 10..20 {
        commit(&engine, &mut model, n);
    }
    // Both segments hold what LMDB has not: it died before the checkpoint ended.
    std::fs::copy(dir.path().join("journal.1"), early.path().join("journal.1")).expect("copies");
    let again = open(early.path(), 1 << 16).expect("opens");
    assert_eq!(state_of(&again), model);
    drop(again);
    assert_eq!(state_of(&open(early.path(), 1 << 16).expect("opens")), model, "LMDB has taken both");
}

#[test]
fn an_lmdb_file_older_than_the_journal_is_refused() {
    let dir = TempDir::new().expect("a directory");
    let engine = open(dir.path(), 4096).expect("opens");
    let old = copy(dir.path());
    let mut model = Model::new();
    for n in 0..100 {
        commit(&engine, &mut model, n);
    }
    engine.shared.wait().expect("LMDB takes it");
    let new = copy(dir.path());
    std::fs::copy(old.path().join("data.mdb"), new.path().join("data.mdb")).expect("copies");
    let Err(error) = open(new.path(), 4096) else { panic!("opened with commits missing") };
    assert!(matches!(&error, KvError::Corrupt { detail } if detail.contains("missing")), "{error}");
}

#[test]
fn a_closed_store_needs_its_journal_no_more() {
    let dir = TempDir::new().expect("a directory");
    let mut model = Model::new();
    let engine = open(dir.path(), 1 << 16).expect("opens");
    for n in 0..30 {
        commit(&engine, &mut model, n);
    }
    drop(engine);
    for name in ["journal.0", "journal.1"] {
        std::fs::remove_file(dir.path().join(name)).expect("removes");
    }
    assert_eq!(state_of(&open(dir.path(), 1 << 16).expect("opens")), model);
}

#[test]
fn a_set_larger_than_the_journal_is_committed() {
    let dir = TempDir::new().expect("a directory");
    let engine = open(dir.path(), 4096).expect("opens");
    let mut model = Model::new();
    commit(&engine, &mut model, 1);
    let mut set = WriteSet::new();
    set.put(b"large", vec![1; 100_000]);
    engine.commit(&set).expect("commits");
    model.insert(b"large".to_vec(), vec![1; 100_000]);
    commit(&engine, &mut model, 2);
    assert_eq!(state_of(&engine), model);
    engine.shared.wait().expect("LMDB takes it");
    assert_eq!(state_of(&open(copy(dir.path()).path(), 4096).expect("opens")), model);
}
