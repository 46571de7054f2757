//! The checker finds what is broken: one break a test.

use crate::world::{ROOT, World};
use pvfs_kv::WriteSet;
use pvfs_meta::record::{Dentry, LockHeld, LockWait, Mark, Record, Writer};
use pvfs_meta::{dentry, inode, keys};
use pvfs_types::{
    DataGen, FileKind, Ino, LockKind, LockMode, LockOwner, LockRange, Name, ObjectId, SessionId, Slot,
    TargetId, Timestamp,
};
use pvfs_wire::Access;

/// A sound little tree, then `damage`; expects a finding that says `expect`.
fn check(expect: &str, damage: impl FnOnce(&World, &mut WriteSet)) {
    let mut w = World::new();
    let dir = w.dir(ROOT, "d");
    let file = w.file(dir, "f");
    w.open(file, Access::WRITE).expect("opens");
    w.file(dir, "o");
    w.unlink(dir, "o").expect("unlinks");
    assert_eq!(w.findings(), [""; 0]);
    w.damaged = true;
    let mut set = WriteSet::new();
    damage(&w, &mut set);
    w.commit(&set);
    let findings = w.findings();
    assert!(findings.iter().any(|finding| finding.contains(expect)), "{expect}: {findings:#?}");
}

fn ino_of(w: &World, text: &str) -> Ino {
    let dir = w.lookup(ROOT, "d").expect("is there");
    if text == "d" { dir } else { w.lookup(dir, text).expect("is there") }
}

fn change(w: &World, set: &mut WriteSet, text: &str, change: impl FnOnce(&mut inode::Inode)) {
    let mut inode = w.read(|txn| inode::load(txn, ino_of(w, text))).expect("is there");
    let key = keys::inode(inode.ino);
    change(&mut inode);
    set.put(&key, inode.to_bytes());
}

fn entry_key(dir: Ino, text: &str) -> Vec<u8> {
    let name = Name::new(text).expect("a name");
    keys::dentry(dir, dentry::cookie(&name), &name)
}

#[test]
fn a_wrong_link_count_is_found() {
    check("counts 7 links, has 1", |w, set| change(w, set, "f", |inode| inode.nlink = 7));
    check("counts 9 links, has 2", |w, set| change(w, set, "d", |inode| inode.nlink = 9));
}

#[test]
fn a_name_of_nothing_and_an_inode_without_a_name_are_found() {
    check("there is no inode", |w, set| set.delete(&keys::inode(ino_of(w, "f"))));
    check("counts 1 links, has 0", |w, set| set.delete(&entry_key(ino_of(w, "d"), "f")));
    check("a directory with 0 names", |_, set| set.delete(&entry_key(ROOT, "d")));
}

#[test]
fn a_wrong_parent_and_a_loop_are_found() {
    check("names another parent", |w, set| change(w, set, "d", |inode| inode.parent = Some(Ino(77))));
    check("does not lead to the root", |w, set| {
        let dir = ino_of(w, "d");
        change(w, set, "d", |inode| inode.parent = Some(dir));
    });
}

#[test]
fn a_name_in_the_wrong_place_is_found() {
    check("the cookie is not its name's", |w, set| {
        let name = Name::new("f").expect("a name");
        let entry = Dentry { ino: ino_of(w, "f"), kind: FileKind::File };
        set.put(&keys::dentry(ROOT, 5, &name), entry.to_bytes());
    });
    check("is of another kind", |w, set| {
        let entry = Dentry { ino: ino_of(w, "f"), kind: FileKind::Fifo };
        set.put(&entry_key(ino_of(w, "d"), "f"), entry.to_bytes());
    });
}

#[test]
fn lists_that_disagree_are_found() {
    check("a writer in one index only", |w, set| set.delete(&keys::writer(ino_of(w, "f"), w.session)));
    check("a writer of what is no file", |w, set| {
        let dir = ino_of(w, "d");
        set.put(&keys::writer(dir, w.session), Writer { since: Timestamp::default() }.to_bytes());
        set.put(&keys::session_writer(w.session, dir), Mark {}.to_bytes());
    });
    check("an orphan that is not listed", |_, set| set.delete(&keys::orphan(1)));
    check("a claim on what is no orphan", |w, set| {
        let file = ino_of(w, "f");
        set.put(&keys::claim(file, w.session), Mark {}.to_bytes());
        set.put(&keys::session_claim(w.session, file), Mark {}.to_bytes());
    });
    check("has replies, it is gone", |_, set| {
        let reply = pvfs_meta::record::Reply { seq: 1, reply: vec![] };
        set.put(&keys::reply(SessionId(99), 0), reply.to_bytes());
    });
    check("is garbage, and a file has it", |w, set| {
        let object = ObjectId { ino: ino_of(w, "f"), data_gen: DataGen(1), slot: Slot(0) };
        set.put(&keys::garbage(TargetId(1), object), Mark {}.to_bytes());
    });
    check("does not fit iodtab 9", |w, set| {
        change(w, set, "f", |inode| {
            inode.dist =
                inode.dist.map(|dist| pvfs_types::Distribution { iodtab: pvfs_types::IodtabGen(9), ..dist });
        });
    });
}

#[test]
fn bytes_that_are_no_record_and_keys_of_no_kind_are_found_and_do_not_stop_the_check() {
    check("version 99 is not known", |w, set| set.put(&keys::inode(ino_of(w, "f")), vec![99, 1, 2]));
    check("no bytes", |_, set| set.put(&keys::superblock(), vec![]));
    check("of no known kind", |_, set| set.put(b"\x01what", vec![1]));
    check("is missing", |_, set| set.delete(&keys::superblock()));
    check("say 4 inodes, there are 5", |_, set| {
        let numbers = pvfs_meta::record::InodeNumbers { next: 100, in_use: 4 };
        set.put(&keys::inode_numbers(), numbers.to_bytes());
        let fifo = inode_like_fifo();
        set.put(&keys::inode(Ino(50)), fifo);
    });
}

fn inode_like_fifo() -> Vec<u8> {
    let w = World::new();
    let stat = w.mknod(ROOT, "p", FileKind::Fifo).expect("makes");
    let mut inode = w.read(|txn| inode::load(txn, stat.attr.ino)).expect("is there");
    inode.ino = Ino(50);
    inode.to_bytes()
}

#[test]
fn locks_that_no_mgr_would_grant_are_found() {
    const OWNER: LockOwner = LockOwner { kind: LockKind::Posix, id: 1 };
    const RANGE: LockRange = LockRange { start: 0, end: 9, mode: LockMode::Write, pid: 1 };
    let put = |set: &mut WriteSet, ino: Ino, session: SessionId, listed: bool| {
        let mut held = LockHeld::default();
        held.ranges.lock(RANGE);
        set.put(&keys::lock(ino, session, OWNER), held.to_bytes());
        if listed {
            set.put(&keys::session_lock(session, OWNER, ino), Mark {}.to_bytes());
        }
    };
    check("a lock in one index only", |w, set| put(set, ino_of(w, "f"), w.session, false));
    check("a lock of what is no file", |w, set| put(set, ino_of(w, "d"), w.session, true));
    check("a lock's session was never opened", |w, set| put(set, ino_of(w, "f"), SessionId(99), true));
    check("holds what inode", |w, set| {
        let other = w.open_session(9);
        put(set, ino_of(w, "f"), w.session, true);
        put(set, ino_of(w, "f"), other, true);
    });
    check("do not fit each other", |w, set| {
        set.put(&keys::lock(ino_of(w, "f"), w.session, OWNER), LockHeld::default().to_bytes());
    });
    check("waits, its session is gone", |w, set| {
        let wait = LockWait {
            session: SessionId(1 << 20),
            owner: OWNER,
            id: 1,
            range: RANGE,
            since: Timestamp::default(),
        };
        set.put(&keys::lock_wait(ino_of(w, "f"), 1), wait.to_bytes());
    });
}
