//! What is particular to LMDB: files, locks, durable commits.

use pvfs_kv::{Durability, Engine, KvError, LmdbEngine, WriteSet};
use std::path::Path;
use tempfile::TempDir;

fn one(key: &[u8], value: &[u8]) -> WriteSet {
    let mut set = WriteSet::new();
    set.put(key, value.to_vec());
    set
}

#[test]
fn a_larger_map_makes_room_in_a_full_store() {
    let dir = TempDir::new().expect("a directory");
    let open = |bytes| LmdbEngine::open(dir.path(), bytes, Durability::Sync).expect("opens");
    let fill = |engine: &LmdbEngine, key: &[u8]| engine.commit(&one(key, &vec![1; 100_000]));
    {
        let small = open(200_000);
        fill(&small, b"a").expect("one fits");
        assert!(matches!(fill(&small, b"b"), Err(KvError::Full { .. })));
    }
    let large = open(1 << 20);
    fill(&large, b"b").expect("fits now");
    drop(large);
    let engine = open(4096);
    let snapshot = engine.snapshot().expect("a snapshot");
    assert!(
        snapshot.get(b"b").expect("reads").is_some(),
        "a map smaller than the store still shows all of it"
    );
}

#[test]
fn the_error_of_a_second_open_names_the_directory() {
    let dir = TempDir::new().expect("a directory");
    let _first = LmdbEngine::open(dir.path(), 1 << 20, Durability::Sync).expect("opens");
    let Err(error) = LmdbEngine::open(dir.path(), 1 << 20, Durability::Sync) else { panic!("two engines") };
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
}

#[test]
fn a_file_that_is_no_store_is_refused_as_damaged() {
    let dir = TempDir::new().expect("a directory");
    std::fs::write(dir.path().join("data.mdb"), vec![0x5a; 16384]).expect("writes");
    let Err(error) = LmdbEngine::open(dir.path(), 1 << 20, Durability::Sync) else {
        panic!("opened garbage")
    };
    assert!(matches!(error, KvError::Corrupt { .. }), "{error:?}");
}

#[test]
fn a_directory_that_cannot_be_made_is_an_io_error_that_names_it() {
    let Err(error) = LmdbEngine::open(Path::new("/dev/null/store"), 1 << 20, Durability::Sync) else {
        panic!("opened below a device")
    };
    assert!(matches!(error, KvError::Io { .. }) && error.to_string().contains("/dev/null/store"), "{error}");
}
