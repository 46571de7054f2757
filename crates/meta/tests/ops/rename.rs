//! `rename`: moving, replacing, exchanging.

use crate::world::{ROOT, World, errno, user};
use pvfs_types::{Errno, Ino};
use pvfs_wire::msg::namespace::RenameMode;

#[test]
fn a_file_moves_and_both_directories_change() {
    let w = World::new();
    let (a, b) = (w.dir(ROOT, "a"), w.dir(ROOT, "b"));
    let ino = w.file(a, "f");
    assert_eq!(w.rename((a, "f"), (b, "g")).expect("renames"), None);
    assert_eq!((w.names(a), w.names(b)), (vec![], vec!["g".to_owned()]));
    assert_eq!(w.lookup(b, "g").expect("is there"), ino);
    for dir in [a, b] {
        assert_eq!((w.attr(dir).mtime, w.attr(dir).ctime), (w.now(), w.now()));
    }
    assert_eq!(w.attr(ino).ctime, w.now());
}

#[test]
fn a_directory_takes_its_dotdot_and_its_link_along() {
    let w = World::new();
    let (a, b) = (w.dir(ROOT, "a"), w.dir(ROOT, "b"));
    let moved = w.dir(a, "s");
    w.rename((a, "s"), (b, "s")).expect("renames");
    assert_eq!(w.parent(moved).expect("is there"), b);
    assert_eq!((w.attr(a).nlink, w.attr(b).nlink), (2, 3));
    w.rename((b, "s"), (b, "t")).expect("renames in place");
    assert_eq!((w.attr(b).nlink, w.names(b)), (3, vec!["t".to_owned()]));
}

#[test]
fn a_replaced_file_becomes_an_orphan() {
    let w = World::new();
    let (new, old) = (w.file(ROOT, "new"), w.file(ROOT, "old"));
    let orphan = w.rename((ROOT, "new"), (ROOT, "old")).expect("renames").expect("the old one's last name");
    assert_eq!(orphan.ino, old);
    assert_eq!((w.lookup(ROOT, "old").expect("is there"), w.names(ROOT).len()), (new, 1));
}

#[test]
fn a_replaced_file_with_other_names_lives_on() {
    let w = World::new();
    let (_, old) = (w.file(ROOT, "new"), w.file(ROOT, "old"));
    w.link(old, ROOT, "other").expect("links");
    assert_eq!(w.rename((ROOT, "new"), (ROOT, "old")).expect("renames"), None);
    assert_eq!(w.attr(old).nlink, 1);
}

#[test]
fn an_empty_directory_is_replaced_and_no_other() {
    let w = World::new();
    let (a, b) = (w.dir(ROOT, "a"), w.dir(ROOT, "b"));
    let sub = w.dir(a, "s");
    w.dir(b, "s");
    w.rename((a, "s"), (b, "s")).expect("renames");
    assert_eq!((w.lookup(b, "s").expect("is there"), w.attr(a).nlink, w.attr(b).nlink), (sub, 2, 3));
    assert_eq!(errno(w.rename((ROOT, "a"), (ROOT, "b"))), Errno::ENOTEMPTY);
    w.rename((b, "s"), (ROOT, "a")).expect("over a sibling of its parent");
    assert_eq!((w.attr(ROOT).nlink, w.attr(b).nlink, w.parent(sub).expect("is there")), (4, 2, ROOT));
}

#[test]
fn kinds_must_fit() {
    let w = World::new();
    w.dir(ROOT, "d");
    w.file(ROOT, "f");
    assert_eq!(errno(w.rename((ROOT, "f"), (ROOT, "d"))), Errno::EISDIR);
    assert_eq!(errno(w.rename((ROOT, "d"), (ROOT, "f"))), Errno::ENOTDIR);
    assert_eq!(errno(w.rename((ROOT, "x"), (ROOT, "f"))), Errno::ENOENT);
}

#[test]
fn a_directory_does_not_move_into_itself() {
    let w = World::new();
    let a = w.dir(ROOT, "a");
    let b = w.dir(a, "b");
    let c = w.dir(b, "c");
    for into in [a, b, c] {
        assert_eq!(errno(w.rename((ROOT, "a"), (into, "x"))), Errno::EINVAL);
    }
    assert_eq!(errno(w.rename_as((ROOT, "a"), (b, "c"), RenameMode::Exchange)), Errno::EINVAL);
    assert_eq!(errno(w.rename((b, "c"), (ROOT, "a"))), Errno::ENOTEMPTY, "over its own grandparent");
    assert_eq!(errno(w.rename_as((b, "c"), (ROOT, "a"), RenameMode::Exchange)), Errno::EINVAL);
    w.rename((b, "c"), (a, "c")).expect("up is allowed");
}

#[test]
fn two_names_of_one_inode_stay() {
    let w = World::new();
    let ino = w.file(ROOT, "a");
    w.link(ino, ROOT, "b").expect("links");
    let before = w.attr(ROOT);
    assert_eq!(w.rename((ROOT, "a"), (ROOT, "b")).expect("does nothing"), None);
    assert_eq!(w.rename((ROOT, "a"), (ROOT, "a")).expect("does nothing"), None);
    assert_eq!((w.names(ROOT), w.attr(ROOT)), (vec!["a".to_owned(), "b".to_owned()], before));
}

#[test]
fn noreplace_spares_what_is_there() {
    let w = World::new();
    w.file(ROOT, "a");
    w.file(ROOT, "b");
    assert_eq!(errno(w.rename_as((ROOT, "a"), (ROOT, "b"), RenameMode::NoReplace)), Errno::EEXIST);
    assert_eq!(errno(w.rename_as((ROOT, "a"), (ROOT, "a"), RenameMode::NoReplace)), Errno::EEXIST);
    w.rename_as((ROOT, "a"), (ROOT, "c"), RenameMode::NoReplace).expect("renames");
}

#[test]
fn exchange_swaps_files_and_directories_across_directories() {
    let w = World::new();
    let (a, b) = (w.dir(ROOT, "a"), w.dir(ROOT, "b"));
    let file = w.file(a, "x");
    let sub = w.dir(b, "y");
    w.file(sub, "inside");
    w.rename_as((a, "x"), (b, "y"), RenameMode::Exchange).expect("swaps");
    assert_eq!((w.lookup(a, "x").expect("there"), w.lookup(b, "y").expect("there")), (sub, file));
    assert_eq!((w.parent(sub).expect("there"), w.attr(a).nlink, w.attr(b).nlink), (a, 3, 2));
    let other = w.dir(b, "z");
    w.rename_as((a, "x"), (b, "z"), RenameMode::Exchange).expect("swaps two directories");
    assert_eq!((w.parent(sub).expect("there"), w.parent(other).expect("there")), (b, a));
    w.rename_as((b, "y"), (b, "z"), RenameMode::Exchange).expect("swaps in one directory");
    assert_eq!(w.lookup(b, "z").expect("there"), file);
    assert_eq!(errno(w.rename_as((b, "y"), (b, "none"), RenameMode::Exchange)), Errno::ENOENT);
}

#[test]
fn a_directory_that_changes_its_parent_must_be_writable_to_who_moves_it() {
    let mut w = World::new();
    let (a, b) = (w.mkdir(ROOT, "a", 0o777).expect("makes"), w.mkdir(ROOT, "b", 0o777).expect("makes"));
    w.mkdir(a, "s", 0o755).expect("makes");
    let moved = |w: &World| w.rename((a, "s"), (b, "s"));
    assert_eq!(errno(w.as_user(user(5), moved)), Errno::EACCES);
    w.as_user(user(5), |w| w.rename((a, "s"), (a, "t"))).expect("its `..` stays");
}

#[test]
fn sticky_directories_guard_both_ends() {
    let mut w = World::new();
    let dir = w.mkdir(ROOT, "tmp", 0o1777).expect("makes");
    let open = w.mkdir(ROOT, "open", 0o777).expect("makes");
    w.as_user(user(5), |w| w.file(dir, "five"));
    w.as_user(user(6), |w| w.file(dir, "six"));
    w.as_user(user(6), |w| w.file(open, "six"));
    let by_six =
        |w: &mut World, from: (Ino, &str), to: (Ino, &str)| w.as_user(user(6), |w| w.rename(from, to));
    assert_eq!(errno(by_six(&mut w, (dir, "five"), (dir, "mine"))), Errno::EPERM);
    assert_eq!(errno(by_six(&mut w, (dir, "six"), (dir, "five"))), Errno::EPERM);
    assert_eq!(errno(by_six(&mut w, (open, "six"), (dir, "five"))), Errno::EPERM);
    by_six(&mut w, (dir, "six"), (dir, "seven")).expect("one's own");
}
