//! Permissions as the operations apply them; the rules by themselves are tested in `access.rs`.

use crate::world::{ROOT, World, done, errno, user};
use pvfs_types::{Cred, Errno, SetAttr, SetTime, Timestamp};

#[test]
fn names_are_looked_up_and_changed_only_with_permission_on_the_directory() {
    let mut w = World::new();
    let dir = w.mkdir(ROOT, "d", 0o755).expect("makes");
    w.file(dir, "f");
    let stranger = user(5);
    assert_eq!(errno(w.as_user(stranger.clone(), |w| w.try_file(dir, "g", 0o644))), Errno::EACCES);
    assert_eq!(errno(w.as_user(stranger.clone(), |w| w.unlink(dir, "f"))), Errno::EACCES);
    assert_eq!(
        errno(w.as_user(stranger.clone(), |w| w.mkdir(dir, "f", 0o755))),
        Errno::EEXIST,
        "before EACCES"
    );
    assert_eq!(errno(w.as_user(stranger.clone(), |w| w.rmdir(dir, "none"))), Errno::ENOENT, "before EACCES");
    w.chmod(dir, 0o744).expect("chmods");
    assert_eq!(errno(w.as_user(stranger.clone(), |w| w.lookup(dir, "f"))), Errno::EACCES);
    assert_eq!(errno(w.as_user(stranger.clone(), |w| w.parent(dir))), Errno::EACCES);
    assert_eq!(w.as_user(stranger.clone(), |w| w.names(dir)), ["f"], "listing needs only r");
    w.chmod(dir, 0o711).expect("chmods");
    assert_eq!(errno(w.as_user(stranger, |w| w.readdir(dir, 0, 9))), Errno::EACCES);
}

#[test]
fn in_a_sticky_directory_others_names_stay() {
    let mut w = World::new();
    let dir = w.mkdir(ROOT, "tmp", 0o1777).expect("makes");
    w.as_user(user(5), |w| (w.file(dir, "f"), w.dir(dir, "d")));
    assert_eq!(errno(w.as_user(user(6), |w| w.unlink(dir, "f"))), Errno::EPERM);
    assert_eq!(errno(w.as_user(user(6), |w| w.rmdir(dir, "d"))), Errno::EPERM);
    w.as_user(user(5), |w| w.unlink(dir, "f")).expect("one's own");
    w.rmdir(dir, "d").expect("root may");
}

#[test]
fn supplementary_groups_count() {
    let mut w = World::new();
    let dir = w.mkdir(ROOT, "d", 0o770).expect("makes");
    w.chown(dir, Some(1), Some(77)).expect("chowns");
    let member = Cred { uid: 5, gid: 5, groups: vec![3, 77] };
    w.as_user(member, |w| w.file(dir, "f"));
    assert_eq!(errno(w.as_user(user(5), |w| w.lookup(dir, "f"))), Errno::EACCES);
}

#[test]
fn what_is_made_belongs_to_its_maker_or_to_the_set_gid_directorys_group() {
    let mut w = World::new();
    let dir = w.mkdir(ROOT, "d", 0o777).expect("makes");
    w.chown(dir, None, Some(77)).expect("chowns");
    w.chmod(dir, 0o2777).expect("chmods");
    let (file, sub) = w.as_user(user(5), |w| (w.file(dir, "f"), w.dir(dir, "s")));
    assert_eq!((w.attr(file).uid, w.attr(file).gid), (5, 77));
    assert_eq!((w.attr(sub).gid, w.attr(sub).mode), (77, 0o2755));
    let plain = w.as_user(user(5), |w| w.file(ROOT, "p"));
    assert_eq!((w.attr(plain).uid, w.attr(plain).gid), (5, 5));
}

#[test]
fn a_change_of_owner_takes_set_uid_and_set_gid_from_files_not_from_directories() {
    let mut w = World::new();
    let file = w.as_user(user(5), |w| w.file(ROOT, "f"));
    let dir = w.as_user(user(5), |w| w.dir(ROOT, "d"));
    for (ino, mode, expect) in [(file, 0o6755, 0o755), (file, 0o6745, 0o2745), (dir, 0o6755, 0o6755)] {
        w.chmod(ino, mode).expect("chmods");
        w.chown(ino, Some(6), Some(6)).expect("root may");
        assert_eq!(w.attr(ino).mode, expect, "{mode:o}, by root");
        w.chown(ino, Some(5), Some(5)).expect("root may");
        w.chmod(ino, mode).expect("chmods");
        w.as_user(user(5), |w| w.chown(ino, None, Some(5))).expect("the owner may");
        assert_eq!(w.attr(ino).mode, expect, "{mode:o}, by the owner");
    }
}

#[test]
fn modes_and_owners_are_changed_by_who_may_and_ctime_follows() {
    let mut w = World::new();
    let file = w.as_user(user(5), |w| w.file(ROOT, "f"));
    let before = w.attr(file);
    assert_eq!(errno(w.as_user(user(6), |w| w.chmod(file, 0o777))), Errno::EPERM);
    assert_eq!(errno(w.as_user(user(6), |w| w.chown(file, None, Some(6)))), Errno::EPERM);
    assert_eq!(errno(w.as_user(user(5), |w| w.chown(file, Some(6), None))), Errno::EPERM);
    assert_eq!(w.attr(file), before, "nothing of a refused change");
    w.as_user(user(5), |w| w.chmod(file, 0o7700)).expect("chmods");
    let after = w.attr(file);
    assert_eq!((after.mode, after.ctime, after.mtime), (0o7700, w.now(), before.mtime));
    assert!(after.change > before.change);
}

#[test]
fn times_are_set_to_the_mgrs_now_or_to_named_ones() {
    let mut w = World::new();
    let file = w.try_file(ROOT, "f", 0o666).expect("creates");
    let at = Timestamp { secs: -5, nanos: 7 };
    let named = SetAttr { atime: Some(SetTime::At(at)), ..SetAttr::default() };
    done(w.set(file, named.clone()).expect("root may"));
    assert_eq!((w.attr(file).atime, w.attr(file).ctime), (at, w.now()));
    assert_eq!(errno(w.as_user(user(5), |w| w.set(file, named))), Errno::EPERM);
    let none = Timestamp { secs: 0, nanos: 1_000_000_000 };
    let no_time = SetAttr { mtime: Some(SetTime::At(none)), ..SetAttr::default() };
    assert_eq!(errno(w.set(file, no_time)), Errno::EINVAL);
    let now = SetAttr { atime: Some(SetTime::Now), mtime: Some(SetTime::Now), ..SetAttr::default() };
    done(w.as_user(user(5), |w| w.set(file, now.clone())).expect("may write"));
    assert_eq!((w.attr(file).atime, w.attr(file).mtime), (w.now(), w.now()));
    w.chmod(file, 0o644).expect("chmods");
    assert_eq!(errno(w.as_user(user(5), |w| w.set(file, now))), Errno::EACCES);
}

#[test]
fn a_truncation_needs_write_permission_unless_by_handle() {
    let mut w = World::new();
    let file = w.try_file(ROOT, "f", 0o644).expect("creates");
    assert_eq!(errno(w.as_user(user(5), |w| w.truncate(file, 9))), Errno::EACCES);
    let size = SetAttr { size: Some(9), ..SetAttr::default() };
    let mut req = w.as_user(user(5), |w| w.setattr_req(file, size));
    req.by_handle = true;
    assert_eq!(done(w.setattr(&req).expect("ftruncate")).attr.size, 9);
    assert_eq!(errno(w.truncate(ROOT, 0)), Errno::EISDIR);
    let link = w.symlink(ROOT, "l", b"x").expect("links");
    assert_eq!(errno(w.truncate(link, 0)), Errno::EINVAL);
    assert_eq!(errno(w.truncate(file, 1 << 63)), Errno::EFBIG);
}

#[test]
fn truncating_or_writing_takes_set_uid_away_but_not_from_root() {
    let mut w = World::new();
    let file = w.try_file(ROOT, "f", 0o6777).expect("creates");
    done(w.truncate(file, 5).expect("root may"));
    assert_eq!(w.attr(file).mode, 0o6777);
    done(w.as_user(user(5), |w| w.truncate(file, 6)).expect("may write"));
    assert_eq!(w.attr(file).mode, 0o777);
    w.chmod(file, 0o6777).expect("chmods");
    let report = |w: &World| {
        let mut req = w.report_req(file, 7, false);
        req.mtime = Some(Timestamp { secs: 5, nanos: 0 });
        w.try_report(&req)
    };
    done(w.as_user(user(5), report).expect("reports"));
    assert_eq!((w.attr(file).mode, w.attr(file).mtime.secs), (0o777, 5));
}

#[test]
fn access_answers_without_doing() {
    let mut w = World::new();
    let file = w.try_file(ROOT, "f", 0o604).expect("creates");
    w.as_user(user(5), |w| w.access(file, 4)).expect("may read");
    assert_eq!(errno(w.as_user(user(5), |w| w.access(file, 6))), Errno::EACCES);
    w.access(file, 6).expect("root may");
    assert_eq!(errno(w.access(file, 1)), Errno::EACCES, "nobody may run it");
    w.as_user(user(5), |w| w.access(file, 0)).expect("it is there");
}
