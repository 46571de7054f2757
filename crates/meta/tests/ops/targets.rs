//! Targets, iodtabs and formatting.

use crate::world::{ROOT, TARGETS, World, done, errno, target_uuids};
use pvfs_kv::{Engine, MemEngine, Overlay};
use pvfs_meta::{MetaError, iodtab, superblock, target};
use pvfs_types::{Cred, Errno, FsId, IodtabGen, TargetId, TargetUuid, Timestamp};
use pvfs_wire::msg::namespace::Create;

#[test]
fn a_new_target_makes_a_new_generation_and_old_files_keep_theirs() {
    let w = World::new();
    let old = w.file(ROOT, "old");
    let uuids = [TargetUuid([0; 16]), TargetUuid([77; 16]), TargetUuid([78; 16])];
    let joined = w.run(|txn, _| target::join(txn, &uuids)).expect("joins");
    assert_eq!(joined.ids, [TargetId(1), TargetId(5), TargetId(6)]);
    assert_eq!(joined.generation, Some(IodtabGen(2)));
    let again = w.run(|txn, _| target::join(txn, &uuids)).expect("joins");
    assert_eq!((again.ids, again.generation), (joined.ids, None));
    let all = w.read(|txn| iodtab::all(txn)).expect("lists");
    assert_eq!(all.iter().map(|tab| tab.targets.len()).collect::<Vec<_>>(), [4, 6]);
    assert_eq!(w.read(|txn| iodtab::latest(txn)).expect("reads"), Some(all[1].clone()));
    assert_eq!(w.attr(old).dist.map(|d| (d.iodtab, d.pcount)), Some((IodtabGen(1), TARGETS)));
    let new = w.file(ROOT, "new");
    assert_eq!(w.attr(new).dist.map(|d| (d.iodtab, d.pcount)), Some((IodtabGen(2), 6)));
    for text in ["old", "new"] {
        let orphan = w.unlink(ROOT, text).expect("unlinks").expect("the last name");
        w.reap(orphan);
    }
    assert_eq!(w.garbage_count(), 10);
}

#[test]
fn the_targets_of_a_file_are_counted_from_its_base_around_the_iodtab() {
    let w = World::new();
    let layout = pvfs_types::LayoutHint { base: Some(3), pcount: Some(2), ssize: None };
    let req = Create { layout, ..w.create_req(ROOT, "a") };
    done(w.create(&req).expect("creates"));
    let orphan = w.unlink(ROOT, "a").expect("unlinks").expect("the last name");
    w.reap(orphan);
    let has = |id| !w.read(|txn| pvfs_meta::garbage::list(txn, TargetId(id), 1)).expect("lists").is_empty();
    assert_eq!([1, 2, 3, 4].map(has), [true, false, false, true]);
}

#[test]
fn a_store_is_formatted_once_and_used_only_then() {
    let engine = MemEngine::new();
    let snapshot = engine.snapshot().expect("a snapshot");
    let mut txn = Overlay::new(&*snapshot);
    assert!(matches!(superblock::load(&txn), Err(MetaError::NotFormatted)));
    let owner = Cred { uid: 5, gid: 6, groups: vec![] };
    let mut init =
        |fs| superblock::init(&mut txn, FsId([fs; 16]), &target_uuids(0), &owner, Timestamp::default());
    init(1).expect("formats");
    assert!(matches!(init(2), Err(MetaError::FormattedAlready)));
    assert_eq!(superblock::load(&txn).expect("is there").fs, FsId([1; 16]));
    assert_eq!(iodtab::latest(&txn).expect("reads"), None, "targets may join later");
    let root = pvfs_meta::inode::load(&txn, ROOT).expect("is there");
    assert_eq!((root.uid, root.gid, root.mode), (5, 6, 0o755));
}

#[test]
fn without_targets_no_file_is_made() {
    let w = World::with_targets(0);
    assert_eq!(errno(w.try_file(ROOT, "a", 0o644)), Errno::ENOSPC);
    w.dir(ROOT, "d");
    w.run(|txn, _| target::join(txn, &target_uuids(1))).expect("joins");
    assert_eq!(w.attr(w.file(ROOT, "a")).dist.map(|d| d.pcount), Some(1));
}
