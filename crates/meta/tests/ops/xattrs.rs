//! Extended attributes: who may, what fits, what takes them away.

use crate::world::{ROOT, World, done, errno, user, xattr_name};
use pvfs_kv::WriteSet;
use pvfs_meta::record::{Inode, Record, Xattr, XattrTotals};
use pvfs_meta::{check, inode, keys};
use pvfs_types::{Errno, FileKind, Ino, SetAttr, Timestamp, limits, mode};
use pvfs_wire::Access;
use pvfs_wire::msg::xattr::XattrMode;

const CAPS: &str = "security.capability";

#[test]
fn attributes_are_set_read_listed_and_removed() {
    let w = World::new();
    let file = w.file(ROOT, "f");
    assert_eq!(w.attr(file).extras, None);
    assert_eq!(errno(w.xattr(file, "user.a")), Errno::ENODATA);
    w.set_xattr(file, "user.b", b"two").expect("sets");
    w.set_xattr(file, "user.a", b"").expect("sets");
    w.set_xattr(file, "user.b", b"\0\xff").expect("sets again");
    assert_eq!(w.xattr(file, "user.a").expect("reads"), b"");
    assert_eq!(w.xattr(file, "user.b").expect("reads"), b"\0\xff");
    assert_eq!(w.xattrs(file), ["user.a", "user.b"]);
    assert!(w.attr(file).extras.is_some_and(|extras| extras.others && !extras.file_caps));
    w.remove_xattr(file, "user.a").expect("removes");
    assert_eq!(errno(w.remove_xattr(file, "user.a")), Errno::ENODATA);
    w.remove_xattr(file, "user.b").expect("removes");
    assert_eq!((w.xattrs(file), w.attr(file).extras), (vec![], None));
}

#[test]
fn a_change_of_attributes_is_a_change_of_the_inode() {
    let w = World::new();
    let file = w.file(ROOT, "f");
    let changed = |act: &dyn Fn()| {
        let before = w.attr(file);
        act();
        let after = w.attr(file);
        (after.ctime > before.ctime, after.change - before.change, after.mtime == before.mtime)
    };
    assert_eq!(changed(&|| drop(w.set_xattr(file, "user.a", b"1"))), (true, 1, true));
    assert_eq!(changed(&|| drop(w.remove_xattr(file, "user.a"))), (true, 1, true));
    assert_eq!(changed(&|| drop(w.remove_xattr(file, "user.a"))), (false, 0, true), "nothing to remove");
}

#[test]
fn create_and_replace_look_at_what_is_there() {
    let w = World::new();
    let file = w.file(ROOT, "f");
    assert_eq!(errno(w.set_xattr_as(file, "user.a", b"1", XattrMode::Replace)), Errno::ENODATA);
    w.set_xattr_as(file, "user.a", b"1", XattrMode::Create).expect("is new");
    assert_eq!(errno(w.set_xattr_as(file, "user.a", b"2", XattrMode::Create)), Errno::EEXIST);
    w.set_xattr_as(file, "user.a", b"3", XattrMode::Replace).expect("is there");
    assert_eq!(w.xattr(file, "user.a").expect("reads"), b"3");
}

#[test]
fn user_attributes_take_the_permissions_of_the_contents() {
    let mut w = World::new();
    let file = w.try_file(ROOT, "f", 0o624).expect("creates");
    w.set_xattr(file, "user.a", b"1").expect("root may");
    let group = pvfs_types::Cred { uid: 5, gid: 0, groups: vec![] };
    w.as_user(group, |w| {
        assert_eq!(errno(w.xattr(file, "user.a")), Errno::EACCES);
        w.set_xattr(file, "user.a", b"2").expect("may write");
    });
    w.as_user(user(7), |w| {
        assert_eq!(w.xattr(file, "user.a").expect("may read"), b"2");
        assert_eq!(errno(w.set_xattr(file, "user.a", b"3")), Errno::EACCES);
        assert_eq!(errno(w.remove_xattr(file, "user.a")), Errno::EACCES);
        assert_eq!(w.xattrs(file), ["user.a"], "names are no secret");
    });
}

#[test]
fn only_files_and_directories_have_user_attributes_and_a_sticky_ones_owner_sets_them() {
    let mut w = World::new();
    let fifo = w.mknod(ROOT, "p", FileKind::Fifo).expect("makes").attr.ino;
    let link = w.symlink(ROOT, "l", b"to").expect("makes");
    for other in [fifo, link] {
        assert_eq!(errno(w.set_xattr(other, "user.a", b"1")), Errno::EPERM);
        assert_eq!(errno(w.remove_xattr(other, "user.a")), Errno::EPERM);
        assert_eq!(errno(w.xattr(other, "user.a")), Errno::ENODATA);
        w.set_xattr(other, "trusted.a", b"1").expect("other spaces are for all");
    }
    let tmp = w.mkdir(ROOT, "tmp", 0o1777).expect("makes");
    assert_eq!(errno(w.as_user(user(5), |w| w.set_xattr(tmp, "user.a", b"1"))), Errno::EPERM);
    w.chown(tmp, Some(5), None).expect("root may");
    w.as_user(user(5), |w| w.set_xattr(tmp, "user.a", b"1")).expect("the owner may");
    let open = w.mkdir(ROOT, "open", 0o777).expect("makes");
    w.as_user(user(5), |w| w.set_xattr(open, "user.a", b"1")).expect("without the bit whoever may write");
    w.unlink(ROOT, "l").expect("unlinks");
    w.unlink(ROOT, "p").expect("unlinks");
}

#[test]
fn trusted_is_roots_and_security_everybody_reads() {
    let mut w = World::new();
    let file = w.try_file(ROOT, "f", 0o666).expect("creates");
    w.set_xattr(file, "trusted.t", b"1").expect("root may");
    w.set_xattr(file, "security.s", b"2").expect("root may");
    assert_eq!(w.xattrs(file), ["security.s", "trusted.t"]);
    w.as_user(user(5), |w| {
        assert_eq!(errno(w.xattr(file, "trusted.t")), Errno::ENODATA);
        assert_eq!(w.xattr(file, "security.s").expect("reads"), b"2");
        assert_eq!(w.xattrs(file), ["security.s"], "hidden");
        for name in ["trusted.t", "security.s", CAPS] {
            assert_eq!(errno(w.set_xattr(file, name, b"3")), Errno::EPERM);
            assert_eq!(errno(w.remove_xattr(file, name)), Errno::EPERM);
        }
    });
}

#[test]
fn names_of_no_space_are_not_supported() {
    let w = World::new();
    let file = w.file(ROOT, "f");
    for (name, expected) in
        [("other.a", Errno::EOPNOTSUPP), ("system.x", Errno::EOPNOTSUPP), ("user.", Errno::EINVAL)]
    {
        assert_eq!(errno(w.set_xattr(file, name, b"1")), expected);
        assert_eq!(errno(w.xattr(file, name)), expected);
        assert_eq!(errno(w.remove_xattr(file, name)), expected);
    }
}

#[test]
fn values_and_lists_have_linuxs_bounds() {
    let w = World::new();
    let file = w.file(ROOT, "f");
    let most = vec![7; limits::XATTR_VALUE_BYTES_MAX];
    w.set_xattr(file, "user.most", &most).expect("fits");
    assert_eq!(w.xattr(file, "user.most").expect("reads"), most);
    assert_eq!(errno(w.set_xattr(file, "user.more", &[&most[..], b"x"].concat())), Errno::E2BIG);
    // 255 bytes and a NUL each: 256 of them fill the list.
    let dir = w.dir(ROOT, "d");
    let long = |n: usize| format!("user.{n:0250}");
    for n in 0..255 {
        w.set_xattr(dir, &long(n), b"").expect("fits");
    }
    w.set_xattr(dir, &long(255), b"").expect("the list is full now");
    assert_eq!(errno(w.set_xattr(dir, "user.a", b"")), Errno::ENOSPC);
    w.set_xattr(dir, &long(3), b"another value").expect("no more names");
    assert_eq!(errno(w.set_xattr(dir, "system.posix_acl_default", &crate::acls::NAMED)), Errno::ENOSPC);
    w.remove_xattr(dir, &long(9)).expect("removes");
    w.set_xattr(dir, "user.a", b"").expect("there is room again");
    w.rmdir(ROOT, "d").expect("removes");
}

#[test]
fn a_store_that_is_short_takes_no_attributes_and_lets_them_go() {
    let w = World::new();
    let file = w.file(ROOT, "f");
    w.set_xattr(file, "user.a", b"1").expect("sets");
    w.is_short.set(true);
    assert_eq!(errno(w.set_xattr(file, "user.b", b"1")), Errno::ENOSPC);
    w.remove_xattr(file, "user.a").expect("removes");
}

/// How many records of attributes there are.
fn records(w: &World) -> usize {
    let mut count = 0;
    w.read(|txn| {
        let space = keys::space::XATTR;
        txn.range(&[space], &[space + 1], &mut |_, _| {
            count += 1;
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(())
    })
    .expect("reads");
    count
}

#[test]
fn attributes_go_with_their_inode_whatever_takes_it() {
    let w = World::new();
    let with = |ino: Ino, space: &str| {
        for n in 0..3 {
            w.set_xattr(ino, &format!("{space}.{n}"), b"value").expect("sets");
        }
        ino
    };
    with(w.file(ROOT, "file"), "user");
    with(w.dir(ROOT, "dir"), "user");
    with(w.symlink(ROOT, "link", b"to").expect("makes"), "trusted");
    with(w.dir(ROOT, "replaced"), "user");
    w.dir(ROOT, "new");
    assert_eq!(records(&w), 12);
    let orphan = w.unlink(ROOT, "file").expect("unlinks").expect("an orphan");
    assert_eq!(w.xattr(orphan.ino, "user.1").expect("an open file keeps them"), b"value");
    w.rmdir(ROOT, "dir").expect("removes");
    w.unlink(ROOT, "link").expect("unlinks");
    w.rename((ROOT, "new"), (ROOT, "replaced")).expect("replaces");
    assert_eq!(records(&w), 3);
    assert!(w.reap(orphan));
    assert_eq!(records(&w), 0);
}

#[test]
fn file_capabilities_go_when_the_file_is_written_cut_or_given_away() {
    let check = |what: &str, act: &dyn Fn(&World, Ino)| {
        let w = World::new();
        let file = w.file(ROOT, "f");
        w.write(file, 10);
        w.set_xattr(file, "user.stays", b"1").expect("sets");
        w.set_xattr(file, CAPS, b"some").expect("sets");
        assert!(w.attr(file).extras.is_some_and(|extras| extras.file_caps));
        act(&w, file);
        assert_eq!(w.xattrs(file), ["user.stays"], "{what}");
        assert!(w.attr(file).extras.is_some_and(|extras| !extras.file_caps && extras.others));
    };
    check("cut", &|w, file| drop(w.truncate(file, 0)));
    check("grown", &|w, file| drop(w.truncate(file, 100)));
    check("given away", &|w, file| w.chown(file, Some(7), None).expect("root may"));
    check("written", &|w, file| {
        let req = w.report_req(file, 20, true);
        done(
            w.try_report(&pvfs_wire::msg::file::ReportSize { mtime: Some(w.now()), ..req }).expect("reports"),
        );
    });
    check("about to be written", &|w, file| {
        let req = w.setattr_req(file, SetAttr::default());
        let req = pvfs_wire::msg::namespace::SetAttr { by_handle: true, drop_privileges: Some(true), ..req };
        done(w.setattr(&req).expect("sets"));
    });
}

#[test]
fn whoever_writes_by_a_handle_has_set_id_bits_fall_without_owning_the_file() {
    let mut w = World::new();
    let file = w.try_file(ROOT, "f", 0o6777).expect("creates");
    w.as_user(user(5), |w| {
        w.open(file, Access::WRITE).expect("opens");
        let req = w.setattr_req(file, SetAttr::default());
        let drop = |by_handle| pvfs_wire::msg::namespace::SetAttr {
            by_handle,
            drop_privileges: Some(true),
            ..req.clone()
        };
        done(w.setattr(&drop(false)).expect("changes nothing"));
        assert_eq!(w.attr(file).mode, 0o6777, "not by a path");
        done(w.setattr(&drop(true)).expect("sets"));
        assert_eq!(w.attr(file).mode, 0o777);
    });
    w.chmod(file, 0o2666).expect("root may");
    let req = pvfs_wire::msg::namespace::SetAttr {
        by_handle: true,
        drop_privileges: Some(true),
        ..w.setattr_req(file, SetAttr::default())
    };
    done(w.setattr(&req).expect("sets"));
    assert_eq!(w.attr(file).mode & mode::SGID, mode::SGID, "nobody runs as its group");
}

/// A file with one attribute, then `damage`; expects a finding that says `expect`, and that mending leaves none.
fn damaged(expect: &str, damage: impl FnOnce(&mut WriteSet, &Inode)) {
    let mut w = World::new();
    let file = w.file(ROOT, "f");
    w.set_xattr(file, "user.a", b"1").expect("sets");
    let inode = w.read(|txn| inode::load(txn, file)).expect("is there");
    let mut set = WriteSet::new();
    damage(&mut set, &inode);
    w.commit(&set);
    w.damaged = true;
    let findings = w.findings();
    assert!(findings.iter().any(|finding| finding.contains(expect)), "{expect}: {findings:#?}");
    w.run(|txn, env| check::mend_counts(txn, env.now)).expect("mends");
    w.damaged = false;
}

#[test]
fn attributes_that_do_not_fit_their_inodes_are_found_and_mended() {
    let value = || Xattr { value: b"1".to_vec() }.to_bytes();
    damaged("it is gone", |set, _| set.put(&keys::xattr(Ino(999), &xattr_name("user.b")), value()));
    damaged("counts other attributes", |set, inode| {
        set.put(&keys::xattr(inode.ino, &xattr_name("user.b")), value());
    });
    damaged("counts attributes, has none", |set, inode| {
        set.delete(&keys::xattr(inode.ino, &xattr_name("user.a")));
    });
    damaged("counts other attributes", |set, inode| {
        let xattrs = Some(XattrTotals { count: 1, list_bytes: 9, file_caps: true });
        let ctime = Timestamp::default();
        set.put(&keys::inode(inode.ino), Inode { xattrs, ctime, ..inode.clone() }.to_bytes());
    });
}
