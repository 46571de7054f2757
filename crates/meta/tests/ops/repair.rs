//! What a check asks, and what a repair mends.

use crate::world::{ROOT, TARGETS, World, done, errno, user};
use pvfs_kv::WriteSet;
use pvfs_meta::{
    inode, keys, ops,
    record::Record,
    rollback::{self, RolledBack},
};
use pvfs_types::{DataGen, Errno, Ino, ObjectId, Slot, TargetId};
use pvfs_wire::{
    Access,
    msg::fsck::{CheckStore, Files, Fix, JudgeObjects, ListFiles, Repair, Verdict},
};

fn fix(w: &World, fix: Fix) -> u64 {
    let req = Repair { cred: w.cred.clone(), fixes: vec![fix] };
    w.run(|txn, env| ops::repair(txn, &req, env.now)).expect("may").changed[0]
}

fn judge(w: &World, target: u32, ino: u64, data_gen: u32, slot: u16) -> Verdict {
    let object = ObjectId { ino: Ino(ino), data_gen: DataGen(data_gen), slot: Slot(slot) };
    let req = JudgeObjects { cred: w.cred.clone(), target: TargetId(target), objects: vec![object] };
    w.read(|txn| ops::judge_objects(txn, &req)).expect("judges").verdicts[0]
}

fn list(w: &World, after: Ino, max: u32) -> Files {
    let req = ListFiles { cred: w.cred.clone(), after, max };
    w.read(|txn| ops::list_files(txn, &req)).expect("lists")
}

/// Makes `ino`'s link count wrong.
fn break_links(w: &World, ino: Ino) {
    let mut broken = w.read(|txn| inode::load(txn, ino)).expect("is there");
    broken.nlink += 5;
    let mut set = WriteSet::new();
    set.put(&keys::inode(ino), broken.to_bytes());
    w.commit(&set);
}

#[test]
fn files_are_listed_in_pages_without_anything_else() {
    let w = World::new();
    let dir = w.dir(ROOT, "d");
    let files: Vec<Ino> = (0..5).map(|n| w.file(dir, &format!("f{n}"))).collect();
    w.symlink(ROOT, "s", b"x").expect("makes a link");
    w.open(files[1], Access::WRITE).expect("opens");
    w.unlink(dir, "f2").expect("unlinks");
    let (mut found, mut after) = (Vec::new(), Ino(0));
    loop {
        let page = list(&w, after, 2);
        assert!(page.files.len() <= 2);
        after = page.files.last().map_or(after, |file| file.ino);
        found.extend(page.files);
        if page.end {
            break;
        }
    }
    assert_eq!(found.iter().map(|file| file.ino).collect::<Vec<_>>(), files);
    assert_eq!(found.iter().map(|file| file.busy).collect::<Vec<_>>(), [false, true, false, false, false]);
    assert_eq!(found.iter().map(|file| file.orphan).collect::<Vec<_>>(), [false, false, true, false, false]);
    assert!(list(&w, Ino(u64::MAX), 1).end);
}

#[test]
fn an_object_is_a_files_or_garbage_or_nobodys_or_newer_than_the_store() {
    let w = World::new();
    let file = w.file(ROOT, "f");
    assert_eq!(judge(&w, 1, file.0, 1, 0), Verdict::Live);
    assert_eq!(judge(&w, 2, file.0, 1, 0), Verdict::Misplaced);
    assert_eq!(judge(&w, 1, file.0, 0, 0), Verdict::Nobodys, "an older data generation");
    assert_eq!(judge(&w, 1, file.0, 2, 0), Verdict::Newer, "a generation that was not taken yet");
    assert_eq!(judge(&w, 1, file.0, 1, TARGETS), Verdict::Nobodys, "no such slot");
    assert_eq!(judge(&w, 1, file.0 + 1, 1, 0), Verdict::Newer, "a number not dealt out yet");
    assert_eq!(judge(&w, 1, ROOT.0, 1, 0), Verdict::Nobodys, "a directory has none");
    let orphan = w.unlink(ROOT, "f").expect("unlinks").expect("the last name");
    assert_eq!(judge(&w, 1, file.0, 1, 0), Verdict::Live, "somebody may have it open");
    w.reap(orphan);
    assert_eq!(judge(&w, 1, file.0, 1, 0), Verdict::Garbage);
    assert_eq!(judge(&w, 2, file.0, 1, 0), Verdict::Nobodys, "garbage of another target");
}

#[test]
fn fixes_are_made_once_and_only_where_they_still_apply() {
    let w = World::new();
    let (dir, file) = (w.dir(ROOT, "d"), w.file(ROOT, "f"));
    let object = |ino: Ino, data_gen| ObjectId { ino, data_gen: DataGen(data_gen), slot: Slot(0) };

    assert_eq!(fix(&w, Fix::Counts), 0, "nothing is wrong");
    break_links(&w, dir);
    break_links(&w, file);
    assert_eq!(w.findings().len(), 2);
    assert_eq!((fix(&w, Fix::Counts), fix(&w, Fix::Counts)), (2, 0));
    assert_eq!((w.attr(dir).nlink, w.attr(file).nlink), (2, 1));

    assert_eq!(fix(&w, Fix::Remove(TargetId(1), object(file, 1))), 0, "it is live");
    assert_eq!(fix(&w, Fix::Remove(TargetId(1), object(Ino(999), 1))), 0, "it may be somebody's yet");
    let nobodys = Fix::Remove(TargetId(1), object(file, 0));
    assert_eq!((fix(&w, nobodys), fix(&w, nobodys)), (1, 0));
    assert_eq!(w.garbage_count(), 1);

    let grow = |size| Fix::Grow { ino: file, size_epoch: w.attr(file).size_epoch, size };
    assert_eq!((fix(&w, grow(100)), fix(&w, grow(100)), fix(&w, grow(50))), (1, 0, 0));
    assert_eq!(w.attr(file).size, 100);
    let late = grow(200);
    done(w.truncate(file, 0).expect("truncates"));
    assert_eq!(fix(&w, late), 0, "a truncation came between");
    let late = grow(200);
    w.open(file, Access::WRITE).expect("opens");
    assert_eq!(fix(&w, late), 0, "it is being written");
    assert_eq!(w.attr(file).size, 0);
}

#[test]
fn numbers_that_a_newer_store_dealt_out_are_passed() {
    let w = World::new();
    let file = w.file(ROOT, "f");
    w.write(file, 77);
    let object = |ino, data_gen| ObjectId { ino: Ino(ino), data_gen: DataGen(data_gen), slot: Slot(0) };
    assert_eq!(fix(&w, Fix::Pass(object(1_000, 1))), 1);
    assert_eq!(w.file(ROOT, "g"), Ino(1_001));
    assert_eq!(judge(&w, 1, 1_000, 1, 0), Verdict::Nobodys);
    let newer = Fix::Pass(object(file.0, 4));
    assert_eq!((fix(&w, newer), fix(&w, newer)), (1, 0));
    assert_eq!((w.attr(file).data_gen, w.attr(file).size), (DataGen(4), 0), "its objects say how long it is");
    assert_eq!(judge(&w, 1, file.0, 4, 0), Verdict::Live);
}

#[test]
fn an_old_store_goes_on_without_what_a_newer_one_may_have_done() {
    let mut w = World::new();
    let file = w.file(ROOT, "f");
    w.write(file, 5_000_000);
    w.open(file, Access::WRITE).expect("opens");
    w.truncate(file, 7).expect("waits for the targets");
    assert_eq!(fix(&w, Fix::Settle), 0, "nothing is to be settled");
    w.run(|txn, _| {
        rollback::note(txn, RolledBack { stored_ms: 1, heard_ms: 2 });
        Ok(())
    })
    .expect("notes it");
    let before = w.session;
    assert!(fix(&w, Fix::Settle) > 0);
    assert_eq!(w.read(|txn| rollback::find(txn)).expect("reads"), None);
    assert_eq!(w.read(|txn| pvfs_meta::intent::list(txn)).expect("lists").len(), 0, "it was done since");
    assert_eq!(w.read(|txn| pvfs_meta::session::count(txn)).expect("counts"), 0);
    w.session = w.open_session(2);
    assert!(w.session.0 > before.0 + (1 << 31), "{:?}", w.session);
    assert!(w.file(ROOT, "g").0 > file.0 + (1 << 31));
    assert_eq!(fix(&w, Fix::Settle), 0);
}

#[test]
fn only_root_and_the_owner_of_the_root_directory_check_and_mend() {
    let mut w = World::new();
    let check = |w: &World| {
        let cred = w.cred.clone();
        w.read(|txn| ops::check_store(txn, &CheckStore { cred })).map(|checked| checked.inodes)
    };
    assert_eq!(check(&w).expect("root may"), 1);
    w.as_user(user(5), |w| {
        assert_eq!(errno(check(w)), Errno::EPERM);
        let cred = w.cred.clone();
        let list = ListFiles { cred: cred.clone(), after: Ino(0), max: 1 };
        assert_eq!(errno(w.read(|txn| ops::list_files(txn, &list))), Errno::EPERM);
        let judge = JudgeObjects { cred: cred.clone(), target: TargetId(1), objects: vec![] };
        assert_eq!(errno(w.read(|txn| ops::judge_objects(txn, &judge))), Errno::EPERM);
        let repair = Repair { cred, fixes: vec![Fix::Counts] };
        assert_eq!(errno(w.run(|txn, env| ops::repair(txn, &repair, env.now))), Errno::EPERM);
    });
    w.chown(ROOT, Some(5), None).expect("chowns");
    w.as_user(user(5), |w| assert_eq!(check(w).expect("its owner may"), 1));
}
