//! `link`: names and link counts.

use crate::world::{ROOT, World, errno};
use pvfs_kv::WriteSet;
use pvfs_meta::{inode, keys, record::Record};
use pvfs_types::{Errno, FileKind, Ino, limits};

#[test]
fn a_file_lives_as_long_as_one_name() {
    let w = World::new();
    let dir = w.dir(ROOT, "d");
    let ino = w.file(ROOT, "a");
    let before = w.attr(ino);
    assert_eq!(w.link(ino, dir, "b").expect("links").attr.nlink, 2);
    assert_eq!((w.attr(ino).ctime, w.attr(ino).mtime), (w.now(), before.mtime));
    assert_eq!(w.unlink(ROOT, "a").expect("unlinks"), None);
    assert_eq!(w.attr(ino).ctime, w.now());
    assert_eq!(w.lookup(dir, "b").expect("is there"), ino);
    let orphan = w.unlink(dir, "b").expect("unlinks").expect("the last name");
    assert_eq!((orphan.ino, w.attr(ino).nlink), (ino, 0));
}

#[test]
fn symlinks_and_fifos_have_links_too() {
    let w = World::new();
    let link = w.symlink(ROOT, "l", b"x").expect("links");
    let fifo = w.mknod(ROOT, "p", FileKind::Fifo).expect("makes").attr.ino;
    assert_eq!(w.link(link, ROOT, "l2").expect("links").attr.nlink, 2);
    assert_eq!(w.link(fifo, ROOT, "p2").expect("links").attr.nlink, 2);
}

#[test]
fn directories_and_what_is_gone_get_no_second_name() {
    let w = World::new();
    let dir = w.dir(ROOT, "d");
    assert_eq!(errno(w.link(dir, ROOT, "e")), Errno::EPERM);
    assert_eq!(errno(w.link(Ino(99), ROOT, "e")), Errno::ESTALE);
    let file = w.file(ROOT, "f");
    w.unlink(ROOT, "f").expect("unlinks");
    assert_eq!(errno(w.link(file, ROOT, "f")), Errno::ESTALE, "an orphan stays one");
}

#[test]
fn there_are_only_so_many_links() {
    let mut w = World::new();
    w.damaged = true; // A million names are not made here: the count is set.
    let file = w.file(ROOT, "f");
    let dir = w.dir(ROOT, "d");
    for ino in [file, dir] {
        let mut full = w.read(|txn| inode::load(txn, ino)).expect("is there");
        full.nlink = limits::LINK_MAX;
        let mut set = WriteSet::new();
        set.put(&keys::inode(ino), full.to_bytes());
        w.commit(&set);
    }
    assert_eq!(errno(w.link(file, ROOT, "g")), Errno::EMLINK);
    assert_eq!(errno(w.mkdir(dir, "s", 0o755)), Errno::EMLINK);
    w.dir(ROOT, "e");
    assert_eq!(errno(w.rename((ROOT, "e"), (dir, "e"))), Errno::EMLINK);
    assert_eq!(w.names(ROOT), ["d", "e", "f"], "nothing half done");
}
