//! Files without a name.

use crate::acls::NAMED;
use crate::world::{ROOT, World, done, errno, user};
use pvfs_meta::{Result, Stat, ops, orphan, session, writer};
use pvfs_types::{Errno, Ino, LayoutHint};
use pvfs_wire::{Access, msg::namespace as msg, msg::session::Orphan};

fn request(w: &World, dir: Ino) -> msg::TmpFile {
    msg::TmpFile {
        by: w.by(),
        dir,
        mode: 0o640,
        unmasked: None,
        open: Access::READ_WRITE,
        linkable: true,
        layout: LayoutHint::default(),
    }
}

fn make(w: &World, req: &msg::TmpFile) -> Result<Stat> {
    w.run(|txn, env| ops::tmpfile(txn, req, env))
}

fn made(w: &World) -> Ino {
    make(w, &request(w, ROOT)).expect("makes").attr.ino
}

fn orphans(w: &World) -> Vec<Orphan> {
    w.read(|txn| orphan::list_after(txn, 0, 10)).expect("lists")
}

fn claim(w: &World, ino: Ino) {
    w.run(|txn, _| orphan::claim(txn, w.session, ino)).expect("claims");
}

#[test]
fn a_file_without_a_name_is_there_until_nobody_claims_it() {
    let w = World::new();
    let before = w.attr(ROOT);
    let ino = made(&w);
    let attr = w.attr(ino);
    assert_eq!((attr.nlink, attr.mode, attr.size), (0, 0o640, 0));
    assert_eq!(w.attr(ROOT), before, "the directory is as it was");
    assert_eq!(w.names(ROOT), [""; 0]);
    assert_eq!(w.read(|txn| writer::list(txn, ino)).expect("lists"), [w.session]);
    let [orphan] = orphans(&w)[..] else { panic!("one orphan") };
    claim(&w, ino);
    assert!(!w.reap(orphan));
    w.run(|txn, _| session::close(txn, w.session)).expect("closes");
    assert!(w.reap(orphan));
    assert_eq!((w.inodes_in_use(), w.read(|txn| writer::count(txn)).expect("counts")), (1, 0));
    assert!(w.garbage_count() > 0, "its objects go");
}

#[test]
fn a_link_gives_it_a_name_and_then_it_is_a_file_like_any_other() {
    let w = World::new();
    let ino = made(&w);
    claim(&w, ino);
    done(w.try_report(&w.report_req(ino, 77, false)).expect("reports"));
    assert_eq!(w.link(ino, ROOT, "f").expect("links").attr.nlink, 1);
    assert_eq!((w.lookup(ROOT, "f").expect("is there"), w.attr(ino).size), (ino, 77));
    assert_eq!(orphans(&w), []);
    assert_eq!(w.read(|txn| orphan::claims(txn, ino)).expect("lists"), []);
    w.open(ino, Access::READ).expect("opens");
    let orphan = w.unlink(ROOT, "f").expect("unlinks").expect("the last name");
    assert_eq!(errno(w.link(ino, ROOT, "again")), Errno::ESTALE, "it had its name");
    assert!(w.reap(orphan), "the old claim does not count");
}

#[test]
fn one_that_shall_have_no_name_gets_none() {
    let w = World::new();
    let ino = make(&w, &msg::TmpFile { linkable: false, ..request(&w, ROOT) }).expect("makes").attr.ino;
    assert_eq!(errno(w.link(ino, ROOT, "f")), Errno::ESTALE);
    assert_eq!((orphans(&w).len(), w.names(ROOT).len()), (1, 0));
}

#[test]
fn a_refused_link_leaves_it_without_a_name() {
    let mut w = World::new();
    let ino = made(&w);
    w.file(ROOT, "taken");
    assert_eq!(errno(w.link(ino, ROOT, "taken")), Errno::EEXIST);
    let dir = w.mkdir(ROOT, "d", 0o755).expect("makes");
    assert_eq!(errno(w.as_user(user(7), |w| w.link(ino, dir, "f"))), Errno::EACCES);
    assert_eq!((orphans(&w).len(), w.attr(ino).nlink), (1, 0));
}

#[test]
fn who_may_make_it_and_whose_it_is_is_as_of_a_create_there() {
    let mut w = World::new();
    let dir = w.mkdir(ROOT, "d", 0o755).expect("makes");
    assert_eq!(errno(w.as_user(user(7), |w| make(w, &request(w, dir)))), Errno::EACCES);
    assert_eq!(errno(make(&w, &request(&w, w.file(ROOT, "f")))), Errno::ENOTDIR);
    assert_eq!(errno(make(&w, &msg::TmpFile { open: Access::default(), ..request(&w, dir) })), Errno::EINVAL);
    w.chown(dir, None, Some(55)).expect("chowns");
    w.chmod(dir, 0o2777).expect("chmods");
    let attr = w.as_user(user(7), |w| make(w, &request(w, dir))).expect("makes").attr;
    assert_eq!((attr.uid, attr.gid), (7, 55), "the set-group-id directory's group");
    w.set_xattr(dir, "system.posix_acl_default", &NAMED).expect("sets");
    let req = msg::TmpFile { mode: 0o600, unmasked: Some(0o666), ..request(&w, dir) };
    let attr = make(&w, &req).expect("makes").attr;
    assert!(attr.extras.is_some_and(|extras| extras.acl) && attr.mode == 0o660, "{attr:?}");
}

#[test]
fn a_store_that_is_short_makes_none() {
    let w = World::new();
    w.is_short.set(true);
    assert_eq!(errno(make(&w, &request(&w, ROOT))), Errno::ENOSPC);
}
