//! Quotas: what is counted, what is refused, trees, and how far writers may write.

use crate::world::{ROOT, World, done, errno, name, user};
use pvfs_kv::WriteSet;
use pvfs_meta::record::{Inode, QuotaUsage, Record};
use pvfs_meta::{Outcome, inode, keys, ops, orphan, quota, session, settle, superblock};
use pvfs_types::{Errno, Ino, QuotaOwner, SetAttr, limits};
use pvfs_wire::Access;
use pvfs_wire::msg::file::Open;
use pvfs_wire::msg::fsck::{Fix, Repair};
use pvfs_wire::msg::namespace::SymLink;
use pvfs_wire::msg::quota::{GetQuotas, LimitChange, SetQuota};

const MIB: u64 = 1 << 20;
const ANN: QuotaOwner = QuotaOwner::User(7);

/// Bytes, bytes charged ahead, inodes.
fn used(w: &World, owner: QuotaOwner) -> (u64, u64, u64) {
    let quota = w.quota(owner).expect("is told");
    (quota.bytes, quota.bytes_ahead, quota.inodes)
}

fn load(w: &World, ino: Ino) -> Inode {
    w.read(|txn| inode::load(txn, ino)).expect("is there")
}

/// A world in which user 7 may have so much, and an empty file of that user.
fn world(bytes: u64, inodes: u64) -> (World, Ino) {
    let mut w = World::new();
    let file = w.as_user(user(7), |w| w.file(ROOT, "a"));
    w.set_quota(ANN, Some(bytes), Some(inodes)).expect("sets");
    (w, file)
}

fn grow(w: &World, ino: Ino, to: u64) -> pvfs_meta::Result<Option<u64>> {
    let req = Open { again: true, grow_to: Some(to), ..w.open_req(ino, Access::WRITE) };
    w.try_open(&req).map(|outcome| done(outcome).allowed)
}

#[test]
fn the_first_limit_has_all_there_is_counted() {
    let mut w = World::new();
    let dir = w.dir(ROOT, "d");
    w.chmod(dir, 0o777).expect("chmods");
    let file = w.as_user(user(7), |w| {
        w.symlink(dir, "s", b"somewhere").expect("links");
        w.file(dir, "f")
    });
    w.write(file, 100);
    assert!(!w.read(|txn| quota::is_on(txn)).expect("tells"));
    assert_eq!(used(&w, ANN), (0, 0, 0), "nothing is counted yet");
    w.set_quota(QuotaOwner::User(99), None, Some(5)).expect("sets");
    assert_eq!(used(&w, ANN), (100, 0, 2));
    assert_eq!(used(&w, QuotaOwner::Group(7)), (100, 0, 2));
    assert_eq!(used(&w, QuotaOwner::User(0)), (0, 0, 2));
    let format = w.read(|txn| superblock::load(txn)).expect("loads").format;
    assert_eq!(format, superblock::FORMAT_COUNTED, "builds that do not count refuse the store");
}

#[test]
fn as_many_inodes_as_allowed_are_made_and_a_removal_makes_room() {
    let (mut w, _) = world(MIB, 3);
    w.as_user(user(7), |w| {
        let dir = w.mkdir(ROOT, "d", 0o755).expect("makes the second");
        w.symlink(dir, "s", b"x").expect("makes the third");
        assert_eq!(errno(w.try_file(dir, "f", 0o644)), Errno::EDQUOT);
        assert_eq!(errno(w.mkdir(dir, "e", 0o755)), Errno::EDQUOT);
        assert_eq!(errno(w.symlink(dir, "t", b"x")), Errno::EDQUOT);
        assert_eq!(errno(w.mknod(dir, "p", pvfs_types::FileKind::Fifo)), Errno::EDQUOT);
        w.link(w.lookup(ROOT, "a").expect("is there"), dir, "same").expect("one more name is no inode");
        w.unlink(dir, "s").expect("unlinks");
        w.try_file(dir, "f", 0o644).expect("there is room again");
    });
}

#[test]
fn an_unlinked_file_is_charged_until_it_is_reaped() {
    let (w, file) = world(MIB, 1);
    w.write(file, 100);
    let orphan = w.unlink(ROOT, "a").expect("unlinks").expect("an orphan");
    assert_eq!(used(&w, ANN), (100, 0, 1));
    assert!(w.reap(orphan));
    assert_eq!(used(&w, ANN), (0, 0, 0));
}

#[test]
fn root_makes_what_users_may_not_and_has_no_limits() {
    let (mut w, file) = world(10, 1);
    let other = w.file(ROOT, "b");
    w.write(other, 100);
    w.chown(other, Some(7), Some(7)).expect("root may give more than is allowed");
    assert_eq!(used(&w, ANN), (100, 0, 2));
    let of_root = |owner| errno(w.set_quota(owner, Some(1), None));
    assert_eq!(of_root(QuotaOwner::User(0)), Errno::EINVAL);
    assert_eq!(of_root(QuotaOwner::Group(0)), Errno::EINVAL);
    let by_user = w.as_user(user(7), |w| errno(w.set_quota(ANN, None, None)));
    assert_eq!(by_user, Errno::EPERM);
    assert_eq!(errno(grow(&w, file, 200)), Errno::EDQUOT, "a file grows no more, whoever writes it");
}

#[test]
fn a_group_takes_no_more_files_than_it_may_have() {
    let mut w = World::new();
    let file = w.as_user(user(7), |w| w.file(ROOT, "a"));
    w.write(file, 100);
    w.set_quota(QuotaOwner::Group(20), Some(99), None).expect("sets");
    let owner = pvfs_types::Cred { groups: vec![20], ..user(7) };
    assert_eq!(errno(w.as_user(owner.clone(), |w| w.chown(file, None, Some(20)))), Errno::EDQUOT);
    w.set_quota(QuotaOwner::Group(20), Some(100), None).expect("sets");
    w.as_user(owner, |w| w.chown(file, None, Some(20))).expect("fits");
    assert_eq!(used(&w, QuotaOwner::Group(20)), (100, 0, 1));
    assert_eq!(used(&w, QuotaOwner::Group(7)), (0, 0, 0));
}

#[test]
fn who_writes_is_charged_ahead_until_the_last_writer_is_gone() {
    let (mut w, file) = world(100 * MIB, 9);
    let allowed = w.open(file, Access::WRITE).expect("opens").allowed;
    assert_eq!(allowed, Some(MIB));
    assert_eq!(used(&w, ANN), (0, MIB, 1));
    let other = w.open_session(2);
    w.in_session(other, |w| assert_eq!(w.open(file, Access::WRITE).expect("opens").allowed, Some(MIB)));
    assert_eq!(grow(&w, file, MIB).expect("is within"), Some(MIB));
    assert_eq!(grow(&w, file, 3 * MIB).expect("has room"), Some(6 * MIB), "as much again");
    done(w.try_report(&w.report_req(file, 2 * MIB, true)).expect("reports"));
    assert_eq!(used(&w, ANN), (2 * MIB, 4 * MIB, 1));
    w.in_session(other, |w| done(w.try_report(&w.report_req(file, 0, true)).expect("reports")));
    assert_eq!((used(&w, ANN), load(&w, file).allowed), ((2 * MIB, 0, 1), None));
}

#[test]
fn writers_are_allowed_to_the_last_byte_and_not_one_more() {
    let (w, file) = world(10 * MIB, 9);
    w.open(file, Access::WRITE).expect("opens");
    for end in 1..=10 {
        let allowed = grow(&w, file, end * MIB).expect("has room").expect("is bound");
        assert!((end * MIB..=10 * MIB).contains(&allowed), "{end}: {allowed}");
    }
    let refused = grow(&w, file, 10 * MIB + 1).expect_err("is too much");
    assert_eq!(refused.errno(), Errno::EDQUOT);
    assert!(refused.to_string().contains("user 7 may have 10485760 bytes"), "{refused}");
    assert_eq!(grow(&w, file, 10 * MIB).expect("stays allowed"), Some(10 * MIB));
}

#[test]
fn many_files_open_at_once_never_exceed_the_limit_together() {
    let (mut w, _) = world(16 * MIB, 1000);
    let files: Vec<Ino> = (0..40).map(|n| w.as_user(user(7), |w| w.file(ROOT, &format!("f{n}")))).collect();
    let mut written = 0;
    for &file in &files {
        w.open(file, Access::WRITE).expect("opens");
        if grow(&w, file, MIB).is_ok() {
            written += MIB;
        }
    }
    let (bytes, ahead, _) = used(&w, ANN);
    assert_eq!(bytes, 0);
    assert!(written <= ahead && ahead <= 16 * MIB, "{written} {ahead}");
    assert!(written >= 12 * MIB, "most of it can be used: {written}");
}

#[test]
fn who_is_not_limited_is_not_bound() {
    let (w, _) = world(10, 9);
    let free = w.file(ROOT, "of root");
    assert_eq!(w.open(free, Access::WRITE).expect("opens").allowed, None);
    assert_eq!(grow(&w, free, 1 << 50).expect("opens"), None);
    assert_eq!(errno(grow(&w, free, limits::FILE_BYTES_MAX + 1)), Errno::EFBIG);
}

#[test]
fn a_file_made_and_open_at_once_is_charged_ahead_too() {
    let (mut w, _) = world(100 * MIB, 9);
    let made = w.as_user(user(7), |w| {
        let req = pvfs_wire::msg::namespace::Create { open: Some(Access::WRITE), ..w.create_req(ROOT, "n") };
        done(w.create(&req).expect("creates"))
    });
    assert_eq!(made.stat.allowed, Some(MIB));
    assert_eq!(used(&w, ANN), (0, MIB, 2));
}

#[test]
fn a_file_without_a_name_is_bound_as_any_other() {
    let (mut w, _) = world(100 * MIB, 9);
    let made = w.as_user(user(7), |w| {
        let req = pvfs_wire::msg::namespace::TmpFile {
            by: w.by(),
            dir: ROOT,
            mode: 0o600,
            unmasked: None,
            open: Access::WRITE,
            linkable: true,
            layout: pvfs_types::LayoutHint::default(),
        };
        w.run(|txn, env| pvfs_meta::ops::tmpfile(txn, &req, env)).expect("makes")
    });
    assert_eq!(made.allowed, Some(MIB));
    assert_eq!(used(&w, ANN), (0, MIB, 2));
}

#[test]
fn sizes_that_are_set_are_held_against_the_limit_and_a_cut_frees() {
    let (w, file) = world(1000, 9);
    assert_eq!(errno(w.truncate(file, 1001)), Errno::EDQUOT);
    done(w.truncate(file, 1000).expect("fits"));
    assert_eq!(used(&w, ANN), (1000, 0, 1));
    done(w.truncate(file, 0).expect("cuts"));
    assert_eq!(used(&w, ANN), (0, 0, 1));
}

#[test]
fn a_truncation_under_way_is_charged_for_what_it_will_make() {
    let (mut w, file) = world(1000, 9);
    let other = w.as_user(user(7), |w| w.file(ROOT, "b"));
    w.open(file, Access::WRITE).expect("opens");
    let req = w.setattr_req(file, SetAttr { size: Some(900), ..SetAttr::default() });
    assert!(matches!(w.setattr(&req).expect("waits"), Outcome::Pending(_)));
    assert_eq!(errno(w.truncate(other, 200)), Errno::EDQUOT, "the room is taken");
    w.finish(file);
    done(w.setattr(&req).expect("run again"));
    assert_eq!(used(&w, ANN).0, 900);
    let big = w.setattr_req(file, SetAttr { size: Some(1001), ..SetAttr::default() });
    assert_eq!(errno(w.setattr(&big)), Errno::EDQUOT);
}

#[test]
fn a_writer_that_empties_its_file_is_charged_anew() {
    let (w, file) = world(100 * MIB, 9);
    w.open(file, Access::WRITE).expect("opens");
    grow(&w, file, 20 * MIB).expect("has room");
    done(w.try_report(&w.report_req(file, 20 * MIB, false)).expect("reports"));
    let after = done(w.truncate(file, 0).expect("empties"));
    assert_eq!(after.allowed, Some(MIB));
    assert_eq!(used(&w, ANN), (0, MIB, 1));
}

#[test]
fn what_was_written_is_counted_also_beyond_the_limit() {
    let (w, file) = world(1000, 9);
    w.open(file, Access::WRITE).expect("opens");
    done(w.try_report(&w.report_req(file, 5000, true)).expect("is taken"));
    assert_eq!(used(&w, ANN), (5000, 0, 1));
    assert_eq!(errno(grow(&w, file, 5001)), Errno::EDQUOT);
    assert_eq!(
        w.open(file, Access::WRITE).expect("opens").allowed,
        Some(5000),
        "what is there may be written"
    );
}

#[test]
fn a_dead_writer_is_charged_ahead_until_its_size_is_settled() {
    let (mut w, file) = world(100 * MIB, 9);
    w.open(file, Access::WRITE).expect("opens");
    let dead = w.session;
    w.run(|txn, _| session::expel(txn, dead)).expect("expels");
    w.session = w.open_session(2);
    assert_eq!(used(&w, ANN), (0, MIB, 1));
    w.run(|txn, _| settle(txn, file, dead, 900, 0, None)).expect("settles");
    assert_eq!(used(&w, ANN), (900, 0, 1));
}

#[test]
fn what_is_made_in_a_tree_is_of_it_and_nothing_moves_or_is_linked_out_or_in() {
    let w = World::new();
    let (top, outside) = (w.dir(ROOT, "top"), w.file(ROOT, "outside"));
    let tree = QuotaOwner::Tree(top);
    w.set_quota(tree, Some(MIB), Some(4)).expect("sets");
    let below = w.dir(top, "below");
    let file = w.file(below, "f");
    w.symlink(below, "s", b"x").expect("makes the fourth");
    assert_eq!(used(&w, tree), (0, 0, 4));
    assert_eq!(errno(w.try_file(below, "g", 0o644)), Errno::EDQUOT, "root too");
    assert_eq!(errno(w.rename((below, "f"), (ROOT, "f"))), Errno::EXDEV);
    assert_eq!(errno(w.rename((ROOT, "outside"), (top, "inside"))), Errno::EXDEV);
    assert_eq!(errno(w.link(file, ROOT, "l")), Errno::EXDEV);
    assert_eq!(errno(w.link(outside, top, "l")), Errno::EXDEV);
    w.rename((below, "f"), (top, "f")).expect("moves within");
    w.link(file, below, "l").expect("links within");
    w.rename((ROOT, "top"), (ROOT, "moved")).expect("the tree moves as a whole");
    assert_eq!(w.quota(tree).expect("is told").path, Some(b"/moved".to_vec()));
    w.set_quota(tree, Some(10), None).expect("sets");
    assert_eq!(errno(grow(&w, file, 11)), Errno::EDQUOT, "root too");
}

#[test]
fn a_directory_that_is_not_empty_becomes_a_tree_with_all_that_is_below_it() {
    let w = World::new();
    let (top, other) = (w.dir(ROOT, "top"), w.dir(ROOT, "other"));
    let below = w.dir(top, "below");
    let file = w.file(below, "f");
    w.write(file, 100);
    w.link(file, top, "also f").expect("links");
    let tree = QuotaOwner::Tree(top);
    w.set_quota(tree, Some(MIB), None).expect("sets");
    assert_eq!(used(&w, tree), (100, 0, 3));
    for nested in [ROOT, below] {
        assert_eq!(errno(w.set_quota(QuotaOwner::Tree(nested), Some(1), None)), Errno::EINVAL, "{nested}");
    }
    assert_eq!(errno(w.set_quota(QuotaOwner::Tree(file), Some(1), None)), Errno::ENOTDIR);
    w.set_quota(tree, None, None).expect("clears");
    assert_eq!(used(&w, tree), (0, 0, 0));
    w.rename((below, "f"), (other, "f")).expect("it is no tree any more");
    assert_eq!(errno(w.set_quota(tree, Some(1), None)), Errno::EXDEV, "a file has a name outside");
    assert_eq!(load(&w, top).tree, None, "nothing has changed");
}

#[test]
fn a_tree_that_is_removed_leaves_no_limit_and_no_count() {
    let w = World::new();
    let top = w.dir(ROOT, "top");
    w.set_quota(QuotaOwner::Tree(top), Some(100 * MIB), None).expect("sets");
    let file = w.file(top, "f");
    w.open(file, Access::WRITE).expect("opens");
    let orphan = w.unlink(top, "f").expect("unlinks").expect("an orphan");
    w.rmdir(ROOT, "top").expect("removes");
    assert_eq!(used(&w, QuotaOwner::Tree(top)), (0, MIB, 1), "an open file is charged still");
    assert!(w.reap(orphan));
    let listed = GetQuotas { caller: w.caller(), owner: None, after: None, max: 9 };
    let found = w.read(|txn| ops::get_quotas(txn, &listed)).expect("lists").quotas;
    assert!(found.iter().all(|quota| !quota.owner.is_tree()), "{found:?}");
}

#[test]
fn limits_are_kept_changed_and_cleared_one_by_one() {
    let (w, _) = world(10, 20);
    let set = |bytes, inodes| {
        let req = SetQuota { by: w.by(), owner: ANN, bytes, inodes };
        let quota = w.run(|txn, _| ops::set_quota(txn, &req)).expect("sets");
        (quota.bytes_limit, quota.inodes_limit)
    };
    assert_eq!(set(LimitChange::Keep, LimitChange::Set(30)), (Some(10), Some(30)));
    assert_eq!(set(LimitChange::Clear, LimitChange::Keep), (None, Some(30)));
    assert_eq!(set(LimitChange::Keep, LimitChange::Clear), (None, None));
}

#[test]
fn quotas_are_listed_in_pages_and_users_are_told_their_own() {
    use QuotaOwner::{Group, Tree, User};
    let (mut w, _) = world(10, 20);
    let top = w.dir(ROOT, "t");
    w.set_quota(QuotaOwner::Tree(top), Some(1), None).expect("sets");
    w.chmod(top, 0o700).expect("chmods");
    w.set_quota(QuotaOwner::User(8), Some(1), None).expect("sets");
    let list = |w: &World, max| {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let req = GetQuotas { caller: w.caller(), owner: None, after, max };
            let page = w.read(|txn| ops::get_quotas(txn, &req)).expect("lists");
            assert!(page.counted && page.quotas.len() <= max as usize);
            after = page.quotas.last().map(|quota| quota.owner).or(after);
            all.extend(page.quotas.into_iter().map(|quota| quota.owner));
            if page.end {
                return all;
            }
        }
    };
    let all = [Group(0), Group(7), Tree(top), User(0), User(7), User(8)];
    for max in [1, 2, 100] {
        assert_eq!(list(&w, max), all);
    }
    w.as_user(user(7), |w| {
        assert_eq!(list(w, 1), [Group(7), User(7)]);
        assert_eq!(errno(w.quota(User(8))), Errno::EPERM);
        assert_eq!(errno(w.quota(Tree(top))), Errno::EPERM);
        assert!(w.quota(User(7)).is_ok());
    });
}

#[test]
fn sums_of_sizes_do_not_overflow() {
    let (w, _) = world(10, 20);
    for n in 0..4 {
        let file = w.file(ROOT, &format!("sparse{n}"));
        done(w.truncate(file, limits::FILE_BYTES_MAX).expect("has any size"));
    }
    let sum = w.read(|txn| quota::usage(txn, QuotaOwner::User(0))).expect("counts").bytes;
    assert_eq!(sum, 4 * u128::from(limits::FILE_BYTES_MAX));
    assert_eq!(used(&w, QuotaOwner::User(0)).0, u64::MAX);
}

#[test]
fn wrong_counts_are_found_and_mended() {
    let (mut w, file) = world(100, 20);
    w.write(file, 10);
    w.damaged = true;
    let mut set = WriteSet::new();
    let wrong = QuotaUsage { inodes: 5, bytes: 3, ahead: 0 };
    set.put(&keys::quota_usage(ANN), wrong.to_bytes());
    set.put(&keys::quota_usage(QuotaOwner::User(55)), wrong.to_bytes());
    set.put(&keys::inode(file), Inode { allowed: Some(50), ..load(&w, file) }.to_bytes());
    w.commit(&set);
    let found = w.findings().join("\n");
    assert!(
        found.contains("use of user 7: counts 5 inodes, 3 bytes and 0 ahead, there are 1 inodes"),
        "{found}"
    );
    assert!(found.contains("use of user 55"), "{found}");
    assert!(found.contains("nobody writes it"), "{found}");
    let repair = Repair { cred: w.cred.clone(), fixes: vec![Fix::Counts] };
    w.run(|txn, env| ops::repair(txn, &repair, env.now)).expect("mends");
    assert_eq!(w.findings(), [""; 0]);
    assert_eq!(used(&w, ANN), (10, 0, 1));
}

#[test]
fn an_orphan_that_is_open_stays_charged_to_its_tree() {
    let w = World::new();
    let top = w.dir(ROOT, "top");
    w.set_quota(QuotaOwner::Tree(top), Some(100 * MIB), None).expect("sets");
    let file = w.file(top, "f");
    w.open(file, Access::WRITE).expect("opens");
    let found = w.unlink(top, "f").expect("unlinks").expect("an orphan");
    w.run(|txn, _| orphan::claim(txn, w.session, found.ino)).expect("claims");
    assert!(!w.reap(found), "somebody has it open");
    assert_eq!(used(&w, QuotaOwner::Tree(top)), (0, MIB, 2));
    w.run(|txn, _| {
        orphan::release(txn, w.session, found.ino);
        Ok(())
    })
    .expect("releases");
    assert!(w.reap(found));
    assert_eq!(used(&w, QuotaOwner::Tree(top)), (0, 0, 1));
}

#[test]
fn a_directory_with_too_much_below_it_becomes_no_tree() {
    let w = World::new();
    let top = w.dir(ROOT, "top");
    let make = |count: usize, text: &str| {
        w.run(|txn, env| {
            for n in 0..count {
                let name = name(&format!("{text}{n}"));
                let req = SymLink { by: w.by(), dir: top, name, target: b"x".to_vec() };
                ops::symlink(txn, &req, env)?;
            }
            Ok(())
        })
        .expect("makes links");
    };
    make(limits::TREE_INODES_MAX - 1, "a");
    let tree = QuotaOwner::Tree(top);
    w.set_quota(tree, Some(1), None).expect("just fits");
    assert_eq!(used(&w, tree), (0, 0, limits::TREE_INODES_MAX as u64));
    w.set_quota(tree, None, None).expect("clears");
    make(1, "b");
    assert_eq!(errno(w.set_quota(tree, Some(1), None)), Errno::E2BIG);
    assert_eq!(load(&w, top).tree, None, "nothing has changed");
}
