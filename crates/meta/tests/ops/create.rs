//! `create`, `open`, `mknod`: new inodes and opens of old ones.

use crate::world::{ROOT, TARGETS, World, done, errno, name, user};
use pvfs_meta::{Outcome, ops, writer};
use pvfs_types::{Errno, FileKind, LayoutHint};
use pvfs_wire::Access;
use pvfs_wire::msg::file::Open;
use pvfs_wire::msg::namespace as msg;

#[test]
fn a_new_file_has_its_layout_and_its_parents_times_change() {
    let w = World::new();
    let before = w.attr(ROOT);
    let ino = w.file(ROOT, "a");
    let file = w.attr(ino);
    assert_eq!((file.kind, file.mode, file.nlink, file.size), (FileKind::File, 0o644, 1, 0));
    assert_eq!(file.dist.map(|d| d.pcount), Some(TARGETS));
    assert_eq!([file.atime, file.mtime, file.ctime, file.btime], [w.now(); 4]);
    let root = w.attr(ROOT);
    assert_eq!((root.mtime, root.ctime, root.nlink), (w.now(), w.now(), before.nlink));
    assert!(root.change > before.change);
}

#[test]
fn an_exclusive_create_of_a_taken_name_is_refused() {
    let w = World::new();
    w.file(ROOT, "a");
    assert_eq!(errno(w.try_file(ROOT, "a", 0o600)), Errno::EEXIST);
}

#[test]
fn a_create_that_opens_for_writing_records_the_writer_at_once() {
    let mut w = World::new();
    let req = msg::Create { open: Some(Access::READ_WRITE), ..w.create_req(ROOT, "a") };
    let created = done(w.create(&req).expect("creates"));
    assert!(created.created && !created.stat.has_writers, "the asker itself does not count");
    let ino = created.stat.attr.ino;
    let other = w.open_session(2);
    assert!(w.in_session(other, |w| w.stat(ino)).expect("is there").has_writers);
}

#[test]
fn a_create_of_a_name_that_is_there_opens_it_with_its_permissions() {
    let mut w = World::new();
    let ino = w.try_file(ROOT, "a", 0o444).expect("creates");
    let open = |w: &World, access| {
        let req = msg::Create { exclusive: false, open: Some(access), ..w.create_req(ROOT, "a") };
        w.create(&req).map(done)
    };
    let opened = open(&w, Access::WRITE).expect("root may");
    assert_eq!((opened.created, opened.stat.attr.ino), (false, ino));
    assert_eq!(errno(w.as_user(user(5), |w| open(w, Access::WRITE))), Errno::EACCES);
    assert!(!w.as_user(user(5), |w| open(w, Access::READ)).expect("others may read").created);
    let truncating = |w: &World| {
        let req = msg::Create { exclusive: false, truncate: true, ..w.create_req(ROOT, "a") };
        w.create(&req)
    };
    assert_eq!(errno(w.as_user(user(5), truncating)), Errno::EACCES, "O_TRUNC needs write permission");
}

#[test]
fn a_create_over_what_is_no_file_is_refused_by_its_kind() {
    let w = World::new();
    w.dir(ROOT, "d");
    w.symlink(ROOT, "l", b"d").expect("links");
    w.mknod(ROOT, "p", FileKind::Fifo).expect("makes a fifo");
    for (text, expect) in [("d", Errno::EISDIR), ("l", Errno::ELOOP), ("p", Errno::ENXIO)] {
        let req = msg::Create { exclusive: false, open: Some(Access::READ), ..w.create_req(ROOT, text) };
        assert_eq!(errno(w.create(&req)), expect, "{text}");
    }
}

#[test]
fn a_file_inherits_what_its_directory_says_and_its_own_wish_counts_more() {
    let w = World::new();
    let dir = w.dir(ROOT, "d");
    let layout = LayoutHint { base: Some(2), pcount: Some(2), ssize: None };
    let set = |ino, layout| {
        let req = msg::SetLayout { by: w.by(), ino, layout };
        w.run(|txn, env| ops::set_layout(txn, &req, env))
    };
    set(dir, layout).expect("sets");
    let sub = w.dir(dir, "sub");
    let inherited = w.attr(w.file(sub, "a")).dist.expect("a file");
    assert_eq!((inherited.base, inherited.pcount), (2, 2), "over a directory between, too");
    let wish = LayoutHint { pcount: Some(1), ssize: Some(65536), ..LayoutHint::default() };
    let req = msg::Create { layout: wish, ..w.create_req(dir, "b") };
    let wished = done(w.create(&req).expect("creates")).stat.attr.dist.expect("a file");
    assert_eq!((wished.base, wished.pcount, wished.ssize), (2, 1, 65536));
    let too_many = LayoutHint { pcount: Some(TARGETS + 1), ..LayoutHint::default() };
    assert_eq!(errno(set(dir, too_many)), Errno::EINVAL);
    let req = msg::Create { layout: too_many, ..w.create_req(dir, "c") };
    assert_eq!(errno(w.create(&req)), Errno::EINVAL);
    set(dir, LayoutHint::default()).expect("sets");
    assert_eq!(w.attr(dir).layout, None);
    assert_eq!(errno(set(w.file(dir, "f"), layout)), Errno::ENOTDIR);
}

#[test]
fn layouts_are_the_owners_to_set() {
    let mut w = World::new();
    let dir = w.mkdir(ROOT, "d", 0o777).expect("makes");
    let req = msg::SetLayout { by: w.as_user(user(5), World::by), ino: dir, layout: LayoutHint::default() };
    assert_eq!(errno(w.run(|txn, env| ops::set_layout(txn, &req, env))), Errno::EPERM);
}

#[test]
fn readers_leave_no_record() {
    let w = World::new();
    let ino = w.file(ROOT, "a");
    w.open(ino, Access::READ).expect("opens");
    assert_eq!(w.read(|txn| writer::count(txn)).expect("counts"), 0);
    w.open(ino, Access::WRITE).expect("opens");
    w.open(ino, Access::READ_WRITE).expect("opens again");
    assert_eq!(w.read(|txn| writer::count(txn)).expect("counts"), 1);
}

#[test]
fn only_regular_files_are_opened() {
    let w = World::new();
    let dir = w.dir(ROOT, "d");
    let link = w.symlink(ROOT, "l", b"d").expect("links");
    let socket = w.mknod(ROOT, "s", FileKind::Socket).expect("makes").attr.ino;
    assert_eq!(errno(w.open(dir, Access::READ)), Errno::EISDIR);
    assert_eq!(errno(w.open(link, Access::READ)), Errno::ELOOP);
    assert_eq!(errno(w.open(socket, Access::WRITE)), Errno::ENXIO);
    let file = w.file(ROOT, "f");
    assert_eq!(errno(w.open(file, Access::default())), Errno::EINVAL);
}

#[test]
fn an_open_checks_permissions_but_not_when_it_is_open_already() {
    let mut w = World::new();
    let ino = w.try_file(ROOT, "a", 0o640).expect("creates");
    assert_eq!(errno(w.as_user(user(5), |w| w.open(ino, Access::READ))), Errno::EACCES);
    let again = |w: &World| {
        let req = Open { again: true, ..w.open_req(ino, Access::WRITE) };
        w.try_open(&req)
    };
    done(w.as_user(user(5), again).expect("opened before the mode changed"));
}

#[test]
fn an_orphan_is_opened_only_by_who_had_it_open() {
    let w = World::new();
    let ino = w.file(ROOT, "a");
    w.unlink(ROOT, "a").expect("unlinks");
    assert_eq!(errno(w.open(ino, Access::READ)), Errno::ESTALE);
    let req = Open { again: true, ..w.open_req(ino, Access::WRITE) };
    assert!(matches!(w.try_open(&req), Ok(Outcome::Done(_))));
}

#[test]
fn device_nodes_are_roots_to_make_and_directories_nobodys() {
    let mut w = World::new();
    let made = w.mknod(ROOT, "null", FileKind::CharDev).expect("root may").attr;
    assert_eq!((made.kind, made.rdev), (FileKind::CharDev, (1, 3)));
    assert_eq!(errno(w.as_user(user(5), |w| w.mknod(ROOT, "n2", FileKind::BlockDev))), Errno::EPERM);
    let fifo = w.as_user(user(5), |w| w.mknod(ROOT, "p", FileKind::Fifo)).expect("anybody may").attr;
    assert_eq!((fifo.uid, fifo.rdev), (5, (0, 0)));
    assert!(w.mknod(ROOT, "f", FileKind::File).expect("makes").attr.dist.is_some());
    assert_eq!(errno(w.mknod(ROOT, "d", FileKind::Dir)), Errno::EINVAL);
    assert_eq!(errno(w.mknod(ROOT, "l", FileKind::Symlink)), Errno::EINVAL);
}

#[test]
fn nothing_is_made_where_the_directory_is_gone() {
    let w = World::new();
    let dir = w.dir(ROOT, "d");
    w.rmdir(ROOT, "d").expect("removes");
    assert_eq!(errno(w.try_file(dir, "a", 0o644)), Errno::ESTALE);
    assert_eq!(errno(w.mkdir(dir, "a", 0o755)), Errno::ESTALE);
    assert_eq!(errno(w.symlink(dir, "a", b"b")), Errno::ESTALE);
    let file = w.file(ROOT, "f");
    assert_eq!(errno(w.try_file(file, "a", 0o644)), Errno::ENOTDIR);
    assert_eq!(errno(w.lookup(file, "a")), Errno::ENOTDIR);
}

#[test]
fn inode_numbers_are_not_used_again() {
    let w = World::new();
    let first = w.dir(ROOT, name("a").to_string().as_str());
    w.rmdir(ROOT, "a").expect("removes");
    assert!(w.dir(ROOT, "a") > first);
    assert_eq!(w.inodes_in_use(), 2);
}
