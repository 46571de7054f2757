//! `lookup`, `mkdir`, `rmdir`, `unlink`, `symlink`, `readlink`.

use crate::world::{ROOT, World, errno};
use pvfs_types::{Errno, FileKind, Ino};

#[test]
fn a_name_leads_to_its_inode_and_dotdot_to_the_parent() {
    let w = World::new();
    let dir = w.dir(ROOT, "d");
    let sub = w.dir(dir, "s");
    assert_eq!(w.lookup(ROOT, "d").expect("is there"), dir);
    assert_eq!(w.parent(sub).expect("is there"), dir);
    assert_eq!(w.parent(ROOT).expect("is there"), ROOT);
    assert_eq!(errno(w.lookup(dir, "x")), Errno::ENOENT);
}

#[test]
fn a_directory_counts_itself_its_name_and_its_subdirectories() {
    let w = World::new();
    let dir = w.dir(ROOT, "d");
    assert_eq!((w.attr(dir).nlink, w.attr(ROOT).nlink), (2, 3));
    w.dir(dir, "s");
    w.file(dir, "f");
    assert_eq!(w.attr(dir).nlink, 3);
    w.rmdir(dir, "s").expect("removes");
    assert_eq!(w.attr(dir).nlink, 2);
    assert_eq!((w.attr(dir).mtime, w.attr(dir).ctime), (w.now(), w.now()));
}

#[test]
fn only_empty_directories_are_removed_and_only_by_rmdir() {
    let w = World::new();
    let dir = w.dir(ROOT, "d");
    w.file(dir, "f");
    assert_eq!(errno(w.rmdir(ROOT, "d")), Errno::ENOTEMPTY);
    assert_eq!(errno(w.unlink(ROOT, "d")), Errno::EISDIR);
    assert_eq!(errno(w.rmdir(dir, "f")), Errno::ENOTDIR);
    assert_eq!(errno(w.rmdir(ROOT, "x")), Errno::ENOENT);
    w.unlink(dir, "f").expect("unlinks");
    w.rmdir(ROOT, "d").expect("removes");
    assert_eq!(errno(w.stat(dir)), Errno::ESTALE);
}

#[test]
fn what_has_no_objects_goes_with_its_last_name() {
    let w = World::new();
    let link = w.symlink(ROOT, "l", b"to").expect("links");
    w.mknod(ROOT, "p", FileKind::Fifo).expect("makes");
    assert_eq!(w.unlink(ROOT, "l").expect("unlinks"), None);
    assert_eq!(w.unlink(ROOT, "p").expect("unlinks"), None);
    assert_eq!(errno(w.stat(link)), Errno::ESTALE);
    assert_eq!(w.inodes_in_use(), 1);
}

#[test]
fn a_symlink_keeps_its_target_byte_for_byte() {
    let w = World::new();
    let target = vec![0xff; 4095];
    let link = w.symlink(ROOT, "l", &target).expect("links");
    assert_eq!(w.readlink(link).expect("reads"), target);
    assert_eq!((w.attr(link).mode, w.attr(link).size), (0o777, 4095));
    assert_eq!(errno(w.symlink(ROOT, "m", &[b'x'; 4096])), Errno::ENAMETOOLONG);
    assert_eq!(errno(w.symlink(ROOT, "m", b"")), Errno::ENOENT);
    assert_eq!(errno(w.symlink(ROOT, "m", b"a\0b")), Errno::EINVAL);
    assert_eq!(errno(w.readlink(ROOT)), Errno::EINVAL);
    assert_eq!(errno(w.readlink(Ino(99))), Errno::ESTALE);
}

#[test]
fn a_taken_name_is_not_made_again() {
    let w = World::new();
    let file = w.file(ROOT, "a");
    assert_eq!(errno(w.mkdir(ROOT, "a", 0o755)), Errno::EEXIST);
    assert_eq!(errno(w.symlink(ROOT, "a", b"b")), Errno::EEXIST);
    assert_eq!(errno(w.mknod(ROOT, "a", FileKind::Fifo)), Errno::EEXIST);
    assert_eq!(errno(w.link(file, ROOT, "a")), Errno::EEXIST);
}

#[test]
fn a_refused_operation_leaves_nothing() {
    let w = World::new();
    let before = (w.attr(ROOT), w.inodes_in_use());
    w.file(ROOT, "a");
    w.unlink(ROOT, "a").expect("unlinks");
    assert_eq!(errno(w.unlink(ROOT, "a")), Errno::ENOENT);
    assert_eq!(w.inodes_in_use(), before.1 + 1, "the orphan");
    assert_eq!(w.names(ROOT), [""; 0]);
}

#[test]
fn in_a_store_that_is_short_nothing_is_made_and_everything_can_be_removed() {
    let w = World::new();
    let dir = w.dir(ROOT, "d");
    let file = w.file(dir, "f");
    w.symlink(dir, "l", b"to").expect("links");
    w.is_short.set(true);
    assert_eq!(errno(w.try_file(dir, "g", 0o644)), Errno::ENOSPC);
    assert_eq!(errno(w.mkdir(dir, "e", 0o755)), Errno::ENOSPC);
    assert_eq!(errno(w.mknod(dir, "p", FileKind::Fifo)), Errno::ENOSPC);
    assert_eq!(errno(w.symlink(dir, "m", b"to")), Errno::ENOSPC);
    assert_eq!(errno(w.link(file, dir, "h")), Errno::ENOSPC);
    w.rename((dir, "f"), (dir, "g")).expect("takes no room");
    w.chmod(file, 0o600).expect("takes no room");
    w.truncate(file, 0).expect("truncates");
    w.unlink(dir, "g").expect("unlinks");
    w.unlink(dir, "l").expect("unlinks");
    w.rmdir(ROOT, "d").expect("removes");
    w.is_short.set(false);
    w.dir(ROOT, "d");
}

#[test]
fn a_directory_is_as_it_was_made_only_while_no_name_was_made_in_it() {
    let w = World::new();
    let fresh = |dir| w.attr(dir).change == pvfs_types::Attr::CHANGE_FIRST;
    let (with_file, with_dir, target) = (w.dir(ROOT, "a"), w.dir(ROOT, "b"), w.dir(ROOT, "c"));
    assert!(fresh(with_file) && fresh(with_dir) && fresh(target));
    w.file(with_file, "f");
    w.dir(with_dir, "d");
    assert!(!fresh(with_file) && !fresh(with_dir));
    w.rename((with_file, "f"), (target, "f")).expect("moves");
    assert!(!fresh(target));
    w.unlink(target, "f").expect("removes");
    assert!(!fresh(target), "also when it is empty again");
}
