//! What is particular to LMDB: files, locks, durable commits.

use pvfs_kv::{Durability, Engine, KvError, LmdbEngine, WriteSet};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
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

/// A small tmpfs, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, with the reason told, where that is not allowed.
    fn new(size: &std::ffi::CStr) -> Option<SmallDisk> {
        let dir = TempDir::new().expect("a directory");
        match mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), size) {
            Ok(()) => Some(SmallDisk(dir)),
            Err(error) => {
                eprintln!("skipped: cannot mount a tmpfs: {error}");
                None
            }
        }
    }

    fn grow(&self, size: &str) {
        mount_remount(self.0.path(), MountFlags::empty(), size).expect("grows");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).ok();
    }
}

fn delete(key: &[u8]) -> WriteSet {
    let mut set = WriteSet::new();
    set.delete(key);
    set
}

#[test]
fn on_a_full_disk_removals_go_on_and_so_does_everything_once_there_is_space() {
    let Some(disk) = SmallDisk::new(c"size=24m") else { return };
    let dir = disk.0.path().join("store");
    let engine = LmdbEngine::open(&dir, 1 << 30, Durability::Sync).expect("opens");
    let key = |n: u32| n.to_be_bytes();
    assert!(!engine.is_short());
    let mut count = 0;
    while !engine.is_short() {
        engine.commit(&one(&key(count), &[7; 10_000])).expect("fits: the reserve is there for the last one");
        count += 1;
        assert!(count < 3_000, "24 MiB are full by now");
    }
    assert!(count > 500, "most of the disk could be used: {count}");
    // Whoever asks first stops here. All can be removed, each with a commit of its own.
    for n in 0..count {
        engine.commit(&delete(&key(n))).expect("a removal fits");
        assert!(engine.snapshot().expect("reads").get(&key(n)).expect("reads").is_none());
    }
    assert!(!engine.is_short(), "what was removed is room in the store's own file");
    for n in 0..count / 4 {
        engine.commit(&one(&key(n), &[8; 10_000])).expect("fits");
    }
    drop(engine);

    let engine = LmdbEngine::open(&dir, 1 << 30, Durability::Sync).expect("opens on a full disk");
    let mut more = count;
    while !engine.is_short() {
        engine.commit(&one(&key(more), &[9; 10_000])).expect("fits");
        more += 1;
    }
    disk.grow("size=48m");
    assert!(!engine.is_short(), "the reserve is whole again, without a restart");
    engine.commit(&one(&key(more), &[9; 10_000])).expect("fits");
}

#[test]
fn who_goes_on_adding_to_a_short_store_is_refused_in_the_end_and_harms_nothing() {
    let Some(disk) = SmallDisk::new(c"size=16m") else { return };
    let engine = LmdbEngine::open(disk.0.path(), 1 << 30, Durability::Sync).expect("opens");
    let mut count: u32 = 0;
    let error = loop {
        match engine.commit(&one(&count.to_be_bytes(), &[7; 10_000])) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 3_000, "16 MiB are full by now");
    };
    assert!(matches!(error, KvError::Full { .. }), "{error}");
    assert!(engine.is_short());
    let snapshot = engine.snapshot().expect("reads");
    for n in 0..count {
        assert!(snapshot.get(&n.to_be_bytes()).expect("reads").is_some());
    }
}
