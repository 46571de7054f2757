//! The list of objects that a check of the whole file system reads.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use pvfs_store::Store;
use pvfs_types::{DataGen, Ino, ObjectId, Slot};
use std::fs;
use support::{TempTarget, run, writes};

fn object(ino: u64, data_gen: u32, slot: u16) -> ObjectId {
    ObjectId { ino: Ino(ino), data_gen: DataGen(data_gen), slot: Slot(slot) }
}

/// All of it, in pages of at most `max`.
fn all(store: &Store, max: usize) -> (Vec<ObjectId>, Vec<String>) {
    let (mut objects, mut strangers, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = store.list(after, max).unwrap();
        assert!(page.objects.len() <= max);
        after = page.objects.last().copied().or(after);
        objects.extend(page.objects);
        strangers.extend(page.strangers);
        if page.end {
            return (objects, strangers);
        }
    }
}

#[test]
fn pages_of_any_size_show_every_object_once() {
    let target = TempTarget::new();
    let store = target.open();
    assert_eq!(all(&store, 1), (vec![], vec![]));
    // Two shards, and one number that wraps into the first of them.
    let mut made: Vec<ObjectId> = [2, 3, 255, 256, 700, 4096 * 256 + 2]
        .iter()
        .flat_map(|&ino| [object(ino, 1, 0), object(ino, 1, 7)])
        .collect();
    made.push(object(2, 3, 1));
    for &id in &made {
        store.write(id, &writes(&[run(0, 1)]), b"x").unwrap();
    }
    let shards = |id: &ObjectId| ((id.ino.0 >> 8) % 4096, *id);
    made.sort_by_key(shards);
    for max in [1, 2, 3, 5, 100] {
        let (objects, strangers) = all(&store, max);
        assert_eq!((objects, strangers.len()), (made.clone(), 0), "pages of {max}");
    }
    store.remove(&[object(700, 1, 0)]).unwrap();
    assert_eq!(all(&store, 4).0.len(), made.len() - 1);
}

#[test]
fn what_is_no_object_is_named_once() {
    let target = TempTarget::new();
    let store = target.open();
    for slot in 0..5 {
        store.write(object(2, 1, slot), &writes(&[run(0, 1)]), b"x").unwrap();
    }
    fs::write(target.path().join("objects/000/notes.txt"), "").unwrap();
    // The name of an object, in the shard of others.
    fs::write(target.path().join("objects/000/0000000000000400.00000001.0000"), "").unwrap();
    fs::write(target.path().join("objects/README"), "").unwrap();
    for max in [1, 2, 100] {
        let (objects, mut strangers) = all(&store, max);
        strangers.sort();
        assert_eq!(objects.len(), 5);
        assert_eq!(
            strangers,
            ["objects/000/0000000000000400.00000001.0000", "objects/000/notes.txt", "objects/README"],
            "pages of {max}"
        );
    }
}
