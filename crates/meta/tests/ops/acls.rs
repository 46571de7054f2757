//! ACLs on inodes: who is let in, what a chmod does, what new entries get. (What an ACL says by itself: `pvfs_types::acl`.)

use crate::world::{ROOT, World, done, errno, user};
use pvfs_kv::WriteSet;
use pvfs_meta::record::Record;
use pvfs_meta::{inode, keys};
use pvfs_types::{Acl, Cred, Errno, FileKind, Ino, mode};
use pvfs_wire::Access;
use pvfs_wire::msg::namespace as msg;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

const fn with_entry<const N: usize>(mut acl: [u8; N], at: usize, tag: u8, perm: u8, id: u32) -> [u8; N] {
    let (start, id) = (4 + 8 * at, id.to_le_bytes());
    let entry = [tag, 0, perm, 0, id[0], id[1], id[2], id[3]];
    let mut byte = 0;
    while byte < 8 {
        acl[start + byte] = entry[byte];
        byte += 1;
    }
    acl
}

/// `u::rw- u:7:rwx g::r-- m::rw- o::---`
pub const NAMED: [u8; 44] = {
    let acl = with_entry([0; 44], 0, 1, 6, u32::MAX);
    let acl = with_entry(acl, 1, 2, 7, 7);
    let acl = with_entry(acl, 2, 4, 4, u32::MAX);
    let acl = with_entry(acl, 3, 0x10, 6, u32::MAX);
    let mut acl = with_entry(acl, 4, 0x20, 0, u32::MAX);
    acl[0] = 2;
    acl
};

/// Three entries: what a mode says.
fn plain(mode: u8) -> Vec<u8> {
    let perm = |shift: u8| mode >> shift & 7;
    let acl = with_entry([0; 28], 0, 1, perm(6), u32::MAX);
    let acl = with_entry(acl, 1, 4, perm(3), u32::MAX);
    let mut acl = with_entry(acl, 2, 0x20, perm(0), u32::MAX);
    acl[0] = 2;
    acl.to_vec()
}

/// The access ACL of `ino`, as setfacl's words.
fn shown(w: &World, ino: Ino, name: &str) -> Option<String> {
    let bytes = w.xattr(ino, name).ok()?;
    let entries = bytes[4..].chunks(8).map(|entry| {
        let who = match entry[0] {
            1 => "u".to_owned(),
            2 => format!("u{}", entry[4]),
            4 => "g".to_owned(),
            8 => format!("g{}", entry[4]),
            0x10 => "m".to_owned(),
            _ => "o".to_owned(),
        };
        format!("{who}:{}", entry[2])
    });
    Some(entries.collect::<Vec<_>>().join(" "))
}

#[test]
fn a_named_user_is_let_in_as_far_as_the_mask_goes() {
    let mut w = World::new();
    let file = w.try_file(ROOT, "f", 0o600).expect("creates");
    assert_eq!(errno(w.as_user(user(7), |w| w.open(file, Access::READ))), Errno::EACCES);
    w.set_xattr(file, ACCESS, &NAMED).expect("sets");
    assert_eq!(w.attr(file).mode, 0o660, "the mask is the group's bits");
    w.as_user(user(7), |w| {
        w.open(file, Access::READ_WRITE).expect("is named");
        assert_eq!(errno(w.access(file, mode::X)), Errno::EACCES, "the mask has no x");
    });
    assert_eq!(errno(w.as_user(user(8), |w| w.open(file, Access::READ))), Errno::EACCES);
    let group = Cred { uid: 9, gid: 0, groups: vec![] };
    w.as_user(group, |w| {
        w.open(file, Access::READ).expect("the group's entry");
        assert_eq!(errno(w.open(file, Access::WRITE)), Errno::EACCES, "not what the mask alone would give");
    });
    assert!(w.attr(file).extras.is_some_and(|extras| extras.acl && !extras.others));
    assert_eq!(w.xattrs(file), [ACCESS]);
}

#[test]
fn directories_are_searched_and_changed_by_their_acl() {
    let mut w = World::new();
    let dir = w.mkdir(ROOT, "d", 0o700).expect("makes");
    w.file(dir, "f");
    w.set_xattr(dir, ACCESS, &NAMED).expect("sets");
    assert_eq!(errno(w.as_user(user(7), |w| w.lookup(dir, "f"))), Errno::EACCES, "the mask has no x");
    w.chmod(dir, 0o770).expect("opens the mask");
    w.as_user(user(7), |w| {
        w.lookup(dir, "f").expect("may search");
        w.file(dir, "g");
        w.unlink(dir, "f").expect("may change");
    });
    assert_eq!(errno(w.as_user(user(8), |w| w.lookup(dir, "g"))), Errno::EACCES);
}

#[test]
fn a_chmod_changes_the_mask_and_leaves_the_groups_entry() {
    let w = World::new();
    let file = w.file(ROOT, "f");
    w.set_xattr(file, ACCESS, &NAMED).expect("sets");
    w.chmod(file, 0o4751).expect("changes");
    assert_eq!(shown(&w, file, ACCESS).as_deref(), Some("u:7 u7:7 g:4 m:5 o:1"));
    assert_eq!(w.attr(file).mode, 0o4751);
}

#[test]
fn an_acl_that_says_no_more_than_a_mode_is_kept_as_the_mode() {
    let w = World::new();
    let file = w.file(ROOT, "f");
    w.set_xattr(file, ACCESS, &NAMED).expect("sets");
    w.set_xattr(file, ACCESS, &plain(0o134)).expect("sets");
    assert_eq!((w.attr(file).mode, w.attr(file).extras), (0o134, None));
    assert_eq!(errno(w.xattr(file, ACCESS)), Errno::ENODATA);
    w.set_xattr(file, ACCESS, &NAMED).expect("sets");
    w.remove_xattr(file, ACCESS).expect("removes");
    assert_eq!((w.attr(file).mode, w.attr(file).extras), (0o660, None), "the mode stays");
    w.remove_xattr(file, ACCESS).expect("what is not there is removed");
    w.set_xattr(file, ACCESS, &NAMED).expect("sets");
    w.set_xattr(file, ACCESS, &[2, 0, 0, 0]).expect("no entries: no ACL");
    assert_eq!(w.attr(file).extras, None);
}

#[test]
fn acls_are_the_owners_to_change_and_everybodys_to_read() {
    let mut w = World::new();
    let file = w.try_file(ROOT, "f", 0o666).expect("creates");
    w.chown(file, Some(5), None).expect("root may");
    assert_eq!(errno(w.as_user(user(6), |w| w.set_xattr(file, ACCESS, &NAMED))), Errno::EPERM);
    w.as_user(user(5), |w| w.set_xattr(file, ACCESS, &NAMED)).expect("the owner may");
    assert_eq!(errno(w.as_user(user(6), |w| w.remove_xattr(file, ACCESS))), Errno::EPERM);
    w.as_user(user(6), |w| w.xattr(file, ACCESS)).expect("reads");
}

#[test]
fn acls_that_cannot_be_are_refused_with_linuxs_errno() {
    let w = World::new();
    let (file, dir) = (w.file(ROOT, "f"), w.dir(ROOT, "d"));
    let link = w.symlink(ROOT, "l", b"to").expect("makes");
    for name in [ACCESS, DEFAULT] {
        assert_eq!(errno(w.set_xattr(dir, name, &NAMED[..43])), Errno::EINVAL);
        assert_eq!(errno(w.set_xattr(dir, name, &NAMED[..36])), Errno::EINVAL, "no entry for others");
        let mut version = NAMED;
        version[0] = 1;
        assert_eq!(errno(w.set_xattr(dir, name, &version)), Errno::EOPNOTSUPP);
        assert_eq!(errno(w.set_xattr(link, name, &NAMED)), Errno::EOPNOTSUPP);
        assert_eq!(errno(w.xattr(link, name)), Errno::EOPNOTSUPP);
        let long = [&[2, 0, 0, 0][..], &NAMED[4..12].repeat(512)].concat();
        assert_eq!(errno(w.set_xattr(dir, name, &long)), Errno::E2BIG);
    }
    assert_eq!(errno(w.set_xattr(file, DEFAULT, &NAMED)), Errno::EACCES);
    w.remove_xattr(file, DEFAULT).expect("it has none");
    assert_eq!((w.attr(dir).mode, w.attr(dir).extras), (0o755, None), "nothing of it was done");
}

#[test]
fn who_is_not_in_the_group_loses_its_set_gid_bit_by_an_acl_as_by_a_chmod() {
    let mut w = World::new();
    let file = w.try_file(ROOT, "f", 0o2755).expect("creates");
    w.chown(file, Some(5), None).expect("root may");
    w.chmod(file, 0o2755).expect("root may");
    w.as_user(user(5), |w| w.set_xattr(file, ACCESS, &NAMED)).expect("the owner may");
    assert_eq!(w.attr(file).mode, 0o660);
    w.chmod(file, 0o2755).expect("root may");
    let member = Cred { uid: 5, gid: 5, groups: vec![0] };
    w.as_user(member, |w| w.set_xattr(file, ACCESS, &NAMED)).expect("the owner may");
    assert_eq!(w.attr(file).mode, 0o2660);
}

/// A directory whose default ACL is [`NAMED`].
fn with_default(w: &World) -> Ino {
    let dir = w.mkdir(ROOT, "d", 0o777).expect("makes");
    w.set_xattr(dir, DEFAULT, &NAMED).expect("sets");
    assert_eq!(w.attr(dir).mode, 0o777, "a default ACL says nothing of the directory itself");
    dir
}

#[test]
fn what_is_new_gets_its_directorys_default_acl_in_place_of_the_umask() {
    let w = World::new();
    let dir = with_default(&w);
    let unmasked = Some(0o666);
    let req = msg::Create { mode: 0o600, unmasked, ..w.create_req(dir, "f") };
    let file = done(w.create(&req).expect("creates")).stat.attr;
    assert_eq!(file.mode, 0o660, "asked for 666 under a umask of 066");
    assert_eq!(shown(&w, file.ino, ACCESS).as_deref(), Some("u:6 u7:7 g:4 m:6 o:0"));
    assert_eq!(shown(&w, file.ino, DEFAULT), None);
    let req =
        msg::MkDir { by: w.by(), dir, name: crate::world::name("s"), mode: 0o700, unmasked: Some(0o777) };
    let sub = w.run(|txn, env| pvfs_meta::ops::mkdir(txn, &req, env)).expect("makes").attr;
    assert_eq!(sub.mode, 0o660);
    assert_eq!(shown(&w, sub.ino, DEFAULT).as_deref(), Some("u:6 u7:7 g:4 m:6 o:0"), "handed on");
    assert!(sub.extras.is_some_and(|extras| extras.acl && extras.default_acl));
    let fifo = w.mknod(dir, "p", FileKind::Fifo).expect("makes").attr;
    assert_eq!((fifo.mode, shown(&w, fifo.ino, ACCESS).is_some()), (0o640, true), "asked for 644, no umask");
    let link = w.symlink(dir, "l", b"to").expect("makes");
    assert_eq!((w.attr(link).mode, w.attr(link).extras), (0o777, None), "symbolic links have no ACL");
}

#[test]
fn a_default_acl_without_named_entries_leaves_a_mode_alone() {
    let w = World::new();
    let dir = w.dir(ROOT, "d");
    w.set_xattr(dir, DEFAULT, &plain(0o174)).expect("sets");
    let req = msg::Create { mode: 0o600, unmasked: Some(0o666), ..w.create_req(dir, "f") };
    let file = done(w.create(&req).expect("creates")).stat.attr;
    assert_eq!((file.mode, file.extras), (0o064, None));
    w.remove_xattr(dir, DEFAULT).expect("removes");
    let req = msg::Create { mode: 0o600, unmasked: Some(0o666), ..w.create_req(dir, "g") };
    assert_eq!(done(w.create(&req).expect("creates")).stat.attr.mode, 0o600, "the umask counts again");
}

#[test]
fn a_set_gid_directory_with_a_default_acl_hands_on_both() {
    let mut w = World::new();
    let dir = with_default(&w);
    w.chown(dir, None, Some(33)).expect("root may");
    w.chmod(dir, 0o2777).expect("root may");
    let sub = w.as_user(user(5), |w| w.mkdir(dir, "s", 0o777)).expect("makes");
    let attr = w.attr(sub);
    assert_eq!((attr.mode, attr.gid), (0o2660, 33));
}

#[test]
fn an_acl_that_does_not_fit_its_mode_is_found() {
    let found = |expect: &str, damage: &dyn Fn(&mut inode::Inode)| {
        let mut w = World::new();
        let file = w.file(ROOT, "f");
        w.set_xattr(file, ACCESS, &NAMED).expect("sets");
        let mut inode = w.read(|txn| inode::load(txn, file)).expect("is there");
        damage(&mut inode);
        let mut set = WriteSet::new();
        set.put(&keys::inode(file), inode.to_bytes());
        w.commit(&set);
        w.damaged = true;
        let findings = w.findings();
        assert!(findings.iter().any(|finding| finding.contains(expect)), "{expect}: {findings:#?}");
    };
    found("its ACL and its mode differ", &|inode| inode.mode = 0o640);
    found("a default ACL of no directory", &|inode| inode.default_acl.clone_from(&inode.acl));
    found("no more than its mode", &|inode| {
        inode.acl = Acl::from_xattr(&plain(0o164)).expect("valid");
        inode.mode = 0o164;
    });
}
