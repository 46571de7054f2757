//! Orphans, claims, garbage.

use crate::world::{ROOT, TARGETS, World, done, errno};
use pvfs_meta::{garbage, orphan, session, target, writer};
use pvfs_types::{DataGen, Errno, Ino};
use pvfs_wire::{Access, msg::file::Open};

fn unlinked(w: &World, text: &str) -> pvfs_wire::msg::session::Orphan {
    w.file(ROOT, text);
    w.unlink(ROOT, text).expect("unlinks").expect("the last name")
}

#[test]
fn orphans_are_listed_in_the_order_they_came() {
    let w = World::new();
    let all: Vec<_> = ["a", "b", "c"].iter().map(|text| unlinked(&w, text)).collect();
    let list = |after, max| w.read(|txn| orphan::list_after(txn, after, max)).expect("lists");
    assert_eq!(list(0, 10), all);
    assert_eq!(list(all[0].seq, 1), all[1..2]);
    assert_eq!(list(all[2].seq, 10), []);
    assert_eq!(w.read(|txn| orphan::head(txn)).expect("is told"), all[2].seq);
    assert!(all.iter().all(|orphan| w.reap(*orphan)));
    assert_eq!(w.read(|txn| orphan::head(txn)).expect("is told"), all[2].seq, "numbers are not used again");
}

#[test]
fn an_orphan_is_reaped_with_an_object_of_each_slot_and_once() {
    let w = World::new();
    let orphan = unlinked(&w, "a");
    assert_eq!(w.attr(orphan.ino).nlink, 0, "still there for who has it open");
    assert!(w.reap(orphan));
    assert_eq!(errno(w.stat(orphan.ino)), Errno::ESTALE);
    assert_eq!(w.garbage_count(), usize::from(TARGETS));
    assert!(w.reap(orphan), "again: nothing left to do");
    assert_eq!((w.garbage_count(), w.inodes_in_use()), (usize::from(TARGETS), 1));
}

#[test]
fn a_claimed_orphan_stays_until_the_last_claim_is_gone() {
    let w = World::new();
    let orphan = unlinked(&w, "a");
    let other = w.open_session(2);
    for session in [w.session, other] {
        w.run(|txn, _| orphan::claim(txn, session, orphan.ino)).expect("claims");
    }
    assert!(!w.reap(orphan));
    w.run(|txn, _| {
        orphan::release(txn, w.session, orphan.ino);
        Ok(())
    })
    .expect("releases");
    assert!(!w.reap(orphan));
    w.run(|txn, _| session::expel(txn, other)).expect("expels");
    assert!(w.reap(orphan));
}

#[test]
fn an_orphan_that_is_opened_again_for_writing_stays_without_waiting_for_a_claim() {
    let w = World::new();
    let orphan = unlinked(&w, "a");
    let req = Open { again: true, ..w.open_req(orphan.ino, Access::WRITE) };
    done(w.try_open(&req).expect("opens"));
    assert!(!w.reap(orphan), "bytes are sent again to it");
    w.run(|txn, _| {
        orphan::release(txn, w.session, orphan.ino);
        Ok(())
    })
    .expect("releases");
    assert!(w.reap(orphan));
}

#[test]
fn a_claim_on_what_is_no_orphan_is_nothing() {
    let w = World::new();
    let file = w.file(ROOT, "a");
    for ino in [file, Ino(99)] {
        w.run(|txn, _| orphan::claim(txn, w.session, ino)).expect("is ignored");
        assert_eq!(w.read(|txn| orphan::claims(txn, ino)).expect("lists"), []);
    }
}

#[test]
fn a_reaped_orphan_takes_its_writers_and_its_intent_along() {
    let w = World::new();
    let ino = w.file(ROOT, "a");
    w.open(ino, Access::WRITE).expect("opens");
    assert!(matches!(w.truncate(ino, 5), Ok(pvfs_meta::Outcome::Pending(_))));
    let orphan = w.unlink(ROOT, "a").expect("unlinks").expect("the last name");
    assert!(w.reap(orphan));
    assert_eq!(w.read(|txn| writer::count(txn)).expect("counts"), 0);
    w.finish(ino);
    assert_eq!(errno(w.stat(ino)), Errno::ESTALE);
}

#[test]
fn an_orphan_is_written_and_changed_like_a_file() {
    let w = World::new();
    let ino = w.file(ROOT, "a");
    w.open(ino, Access::WRITE).expect("opens");
    w.unlink(ROOT, "a").expect("unlinks");
    done(w.try_report(&w.report_req(ino, 77, true)).expect("reports"));
    w.chmod(ino, 0o600).expect("fchmods");
    assert_eq!((w.attr(ino).size, w.attr(ino).mode), (77, 0o600));
}

#[test]
fn garbage_is_listed_by_target_until_it_is_cleared() {
    let w = World::new();
    let orphan = unlinked(&w, "a");
    w.reap(orphan);
    let targets = w.read(|txn| target::list(txn)).expect("lists");
    for (slot, (target, _)) in targets.iter().enumerate() {
        let objects = w.read(|txn| garbage::list(txn, *target, 10)).expect("lists");
        assert_eq!(objects.len(), 1);
        assert_eq!((objects[0].ino, objects[0].data_gen), (orphan.ino, DataGen(1)));
        assert_eq!(usize::from(objects[0].slot.0), slot, "base 0: slot n on target n");
        w.run(|txn, _| {
            garbage::clear(txn, *target, &objects);
            Ok(())
        })
        .expect("clears");
    }
    assert_eq!(w.garbage_count(), 0);
}
