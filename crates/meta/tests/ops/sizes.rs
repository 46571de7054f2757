//! Sizes: reports, truncations, intents, settling.

use crate::world::{ROOT, TARGETS, World, done, errno, name};
use pvfs_meta::{Intent, Outcome, Settled, intent, ops, session, settle, writer};
use pvfs_types::{DataGen, Errno, Ino, SessionId, SetAttr, Timestamp, limits};
use pvfs_wire::Access;
use pvfs_wire::msg::file::{EndWrites, ListWrites, Open, Writes};
use pvfs_wire::msg::namespace as msg;

fn pending<T: std::fmt::Debug>(outcome: Outcome<T>) -> Intent {
    match outcome {
        Outcome::Pending(intent) => intent,
        Outcome::Done(done) => panic!("done: {done:?}"),
    }
}

/// A file of 100 bytes, closed.
fn world() -> (World, Ino) {
    let w = World::new();
    let ino = w.file(ROOT, "a");
    w.write(ino, 100);
    (w, ino)
}

#[test]
fn a_report_grows_the_record_and_never_shrinks_it() {
    let (w, ino) = world();
    w.open(ino, Access::WRITE).expect("opens");
    done(w.try_report(&w.report_req(ino, 50, false)).expect("reports"));
    assert_eq!(w.attr(ino).size, 100);
    done(w.try_report(&w.report_req(ino, 150, false)).expect("reports"));
    assert_eq!((w.attr(ino).size, w.attr(ino).size_epoch), (150, 0));
    assert_eq!(errno(w.try_report(&w.report_req(ino, 1 << 63, false))), Errno::EFBIG);
    assert_eq!(errno(w.try_report(&w.report_req(ROOT, 1, false))), Errno::EINVAL);
}

#[test]
fn many_writers_end_at_once_and_only_the_sessions_own() {
    let (mut w, ino) = world();
    w.open(ino, Access::WRITE).expect("opens");
    let other = w.open_session(2);
    w.in_session(other, |w| w.open(ino, Access::WRITE).expect("opens"));
    let gone = Ino(1 << 40);
    let end = EndWrites { by: w.by(), inos: vec![gone, ino] };
    w.run(|txn, _| ops::end_writes(txn, &end)).expect("ends");
    assert_eq!(w.read(|txn| writer::list(txn, ino)).expect("lists"), [other]);
    let too_many = EndWrites { by: w.by(), inos: vec![ino; limits::END_WRITES_MAX + 1] };
    assert_eq!(errno(w.run(|txn, _| ops::end_writes(txn, &too_many))), Errno::EINVAL);
}

#[test]
fn what_a_session_writes_is_listed_page_by_page() {
    let w = World::new();
    let inos: Vec<Ino> = (0..=limits::WRITES_PAGE_MAX).map(|n| w.file(ROOT, &format!("f{n}"))).collect();
    for &ino in &inos {
        w.open(ino, Access::WRITE).expect("opens");
    }
    let other = w.open_session(2);
    let list = |w: &World, session, after| {
        w.read(|txn| ops::list_writes(txn, &ListWrites { session, after })).expect("lists")
    };
    let first = list(&w, w.session, Ino(0));
    assert_eq!((&first.inos[..], first.end), (&inos[..limits::WRITES_PAGE_MAX], false));
    let last = inos[limits::WRITES_PAGE_MAX];
    assert_eq!(
        list(&w, w.session, first.inos[limits::WRITES_PAGE_MAX - 1]),
        Writes { inos: vec![last], end: true }
    );
    let none = Writes { inos: vec![], end: true };
    assert_eq!(list(&w, w.session, last), none);
    assert_eq!(list(&w, w.session, Ino(u64::MAX)), none);
    assert_eq!(list(&w, other, Ino(0)), none);
}

#[test]
fn a_closing_report_ends_the_writer() {
    let (w, ino) = world();
    w.open(ino, Access::WRITE).expect("opens");
    done(w.try_report(&w.report_req(ino, 1, false)).expect("reports"));
    assert_eq!(w.read(|txn| writer::list(txn, ino)).expect("lists"), [w.session]);
    done(w.try_report(&w.report_req(ino, 1, true)).expect("reports"));
    assert_eq!(w.read(|txn| writer::list(txn, ino)).expect("lists"), []);
}

#[test]
fn a_report_of_another_epoch_changes_nothing_and_is_told_the_new_one() {
    let (w, ino) = world();
    w.open(ino, Access::WRITE).expect("opens");
    let mut late = w.report_req(ino, 500, true);
    late.mtime = Some(Timestamp { secs: 1, nanos: 1 });
    done(w.truncate(ino, 0).expect("truncates"));
    let before = w.attr(ino);
    let answer = done(w.try_report(&late).expect("answers"));
    assert_eq!((answer.attr.size, answer.attr.size_epoch), (0, 1));
    assert_eq!(w.attr(ino), before);
    assert_eq!(w.read(|txn| writer::list(txn, ino)).expect("lists"), [w.session], "still a writer");
}

#[test]
fn truncating_to_nothing_swaps_the_objects_and_asks_no_target() {
    let (w, ino) = world();
    let before = w.attr(ino);
    let after = done(w.truncate(ino, 0).expect("truncates")).attr;
    assert_eq!((after.size, after.size_epoch, after.data_gen), (0, 1, DataGen(2)));
    assert_eq!((after.mtime, after.ctime, w.garbage_count()), (w.now(), w.now(), usize::from(TARGETS)));
    assert_ne!(after.data_gen, before.data_gen);
}

#[test]
fn truncating_to_nothing_swaps_beside_an_own_writer_but_not_beside_a_foreign_one() {
    let (mut w, ino) = world();
    w.open(ino, Access::WRITE).expect("opens");
    assert_eq!(done(w.truncate(ino, 0).expect("truncates")).attr.data_gen, DataGen(2));
    let other = w.open_session(2);
    let intent = w.in_session(other, |w| pending(w.truncate(ino, 0).expect("waits")));
    assert_eq!((intent.size, intent.data_gen), (0, DataGen(2)));
}

#[test]
fn an_empty_file_that_nobody_writes_needs_no_swap() {
    let w = World::new();
    let ino = w.file(ROOT, "a");
    let after = done(w.truncate(ino, 0).expect("truncates")).attr;
    assert_eq!((after.data_gen, after.size_epoch, after.mtime), (DataGen(1), 0, w.now()));
    assert_eq!(w.garbage_count(), 0);
}

#[test]
fn growing_what_nobody_writes_keeps_the_epoch() {
    let (w, ino) = world();
    let after = done(w.truncate(ino, 1000).expect("grows")).attr;
    assert_eq!((after.size, after.size_epoch, after.mtime), (1000, 0, w.now()));
}

#[test]
fn a_shrink_is_done_only_when_the_targets_have_done_it() {
    let (w, ino) = world();
    let size = SetAttr { size: Some(40), mode: Some(0o600), ..SetAttr::default() };
    let req = w.setattr_req(ino, size);
    let intent = pending(w.setattr(&req).expect("waits"));
    assert_eq!((intent.ino, intent.size, Some(intent.dist)), (ino, 40, w.attr(ino).dist));
    assert_eq!((w.attr(ino).size, w.attr(ino).mode), (100, 0o644), "nothing is visible yet");
    assert_eq!(w.read(|txn| intent::list(txn)).expect("lists"), [intent]);
    assert_eq!(pending(w.setattr(&req).expect("waits")), intent, "sent again: the same one");
    w.finish(ino);
    assert_eq!((w.attr(ino).size, w.attr(ino).size_epoch), (40, 1));
    let after = done(w.setattr(&req).expect("run again")).attr;
    assert_eq!((after.size, after.size_epoch, after.mode), (40, 1, 0o600));
    assert_eq!(w.read(|txn| intent::list(txn)).expect("lists"), []);
}

#[test]
fn beside_any_writer_the_targets_cut_whatever_the_record_says() {
    let (w, ino) = world();
    w.open(ino, Access::WRITE).expect("opens");
    for size in [100, 1000] {
        let req = w.setattr_req(ino, SetAttr { size: Some(size), ..SetAttr::default() });
        assert_eq!(pending(w.setattr(&req).expect("waits")).size, size);
        w.finish(ino);
        assert_eq!(done(w.setattr(&req).expect("run again")).attr.size, size, "finds nothing left to do");
    }
    assert_eq!(w.attr(ino).size_epoch, 2);
}

#[test]
fn another_truncation_waits_for_the_standing_one() {
    let (w, ino) = world();
    let first = pending(w.truncate(ino, 40).expect("waits"));
    let second = w.setattr_req(ino, SetAttr { size: Some(20), ..SetAttr::default() });
    assert_eq!(pending(w.setattr(&second).expect("waits")), first);
    let grow = w.setattr_req(ino, SetAttr { size: Some(2000), ..SetAttr::default() });
    assert_eq!(pending(w.setattr(&grow).expect("waits")), first);
    w.finish(ino);
    assert_eq!(pending(w.setattr(&second).expect("starts its own")).size, 20);
    w.finish(ino);
    assert_eq!(done(w.setattr(&second).expect("run again")).attr.size, 20);
    assert_eq!(done(w.setattr(&grow).expect("run again")).attr.size, 2000);
}

#[test]
fn a_report_during_a_truncation_waits_and_then_asks_the_targets() {
    let (w, ino) = world();
    w.open(ino, Access::WRITE).expect("opens");
    pending(w.truncate(ino, 40).expect("waits"));
    let late = w.report_req(ino, 500, true);
    pending(w.try_report(&late).expect("waits"));
    let nothing_new = w.report_req(ino, 100, false);
    done(w.try_report(&nothing_new).expect("has nothing to wait for"));
    w.finish(ino);
    let answer = done(w.try_report(&late).expect("run again"));
    assert_eq!((answer.attr.size, answer.attr.size_epoch), (40, 1), "not taken");
    assert_eq!(w.read(|txn| writer::list(txn, ino)).expect("lists"), [w.session]);
}

#[test]
fn o_trunc_goes_the_same_way_in_open_and_create() {
    let (mut w, ino) = world();
    let trunc = |w: &World| Open { truncate: true, ..w.open_req(ino, Access::WRITE) };
    let after = done(w.try_open(&trunc(&w)).expect("opens")).attr;
    assert_eq!((after.size, after.data_gen), (0, DataGen(2)));
    let other = w.open_session(2);
    w.in_session(other, |w| {
        let req = trunc(w);
        pending(w.try_open(&req).expect("waits"));
        assert_eq!(w.read(|txn| writer::list_of(txn, other)).expect("lists"), [], "not open yet");
        w.finish(ino);
        assert_eq!(done(w.try_open(&req).expect("run again")).attr.size, 0);
        assert_eq!(w.read(|txn| writer::list_of(txn, other)).expect("lists"), [ino]);

        let req = msg::Create {
            exclusive: false,
            open: Some(Access::WRITE),
            truncate: true,
            ..w.create_req(ROOT, "a")
        };
        pending(w.create(&req).expect("waits: the first session still writes"));
        w.finish(ino);
        let created = done(w.create(&req).expect("run again"));
        assert!(!created.created && created.stat.has_writers);
    });
}

#[test]
fn a_new_file_is_not_truncated() {
    let w = World::new();
    let req = msg::Create { truncate: true, open: Some(Access::WRITE), ..w.create_req(ROOT, "n") };
    let stat = done(w.create(&req).expect("creates")).stat;
    assert_eq!((stat.attr.data_gen, stat.attr.size_epoch), (DataGen(1), 0));
}

#[test]
fn a_dead_sessions_writer_counts_until_it_is_settled() {
    let (mut w, ino) = world();
    w.open(ino, Access::WRITE).expect("opens");
    let dead = w.session;
    w.run(|txn, _| session::expel(txn, dead)).expect("expels");
    w.session = w.open_session(2);
    assert!(w.stat(ino).expect("is there").has_writers);
    assert_eq!(w.read(|txn| writer::list_dead(txn, 9)).expect("lists"), [(dead, ino)]);
    let found = |epoch, size| {
        let mtime = Some(w.now());
        w.run(|txn, _| settle(txn, ino, dead, size, epoch, mtime)).expect("settles")
    };
    assert_eq!(found(7, 900), Settled::AskAgain, "learned under another epoch");
    assert_eq!(found(0, 900), Settled::Done(vec![]));
    assert_eq!((w.attr(ino).size, w.stat(ino).expect("is there").has_writers), (900, false));
    assert_eq!(w.read(|txn| writer::list_dead(txn, 9)).expect("lists"), []);
}

#[test]
fn settling_waits_for_a_truncation_and_forgives_a_file_that_is_gone() {
    let (w, ino) = world();
    w.open(ino, Access::WRITE).expect("opens");
    pending(w.truncate(ino, 40).expect("waits"));
    let settle_now =
        |session: SessionId, ino| w.run(|txn, _| settle(txn, ino, session, 900, 0, None)).expect("answers");
    assert_eq!(settle_now(w.session, ino), Settled::AskAgain);
    w.finish(ino);
    assert_eq!(settle_now(w.session, Ino(99)), Settled::Done(vec![]));
}

#[test]
fn a_listing_tells_of_writers_too() {
    let (mut w, ino) = world();
    w.open(ino, Access::WRITE).expect("opens");
    let other = w.open_session(2);
    let entries = w.in_session(other, |w| w.readdir(ROOT, 0, 9)).expect("lists").entries;
    assert!(entries[0].entry.as_ref().is_some_and(|entry| entry.has_writers));
    let req = msg::Lookup { caller: w.caller(), dir: ROOT, name: Some(name("a")) };
    assert!(!w.read(|txn| ops::lookup(txn, &req)).expect("is there").has_writers, "the asker's own");
}

#[test]
fn what_disks_hold_of_a_file_with_holes_is_kept_beside_its_size() {
    let w = World::new();
    let ino = w.file(ROOT, "a");
    let allocated = || w.attr(ino).allocated;
    let report = |size, allocated| {
        w.open(ino, Access::WRITE).expect("opens");
        let req = pvfs_wire::msg::file::ReportSize { allocated, ..w.report_req(ino, size, true) };
        done(w.try_report(&req).expect("reports"));
    };
    report(1 << 30, Some(4096));
    assert_eq!((w.attr(ino).size, allocated()), (1 << 30, Some(4096)));
    report(1 << 30, None);
    assert_eq!(allocated(), Some(4096), "who does not say leaves it");
    // Rounded up on each disk: no hole.
    report(1 << 30, Some((1 << 30) + 4 * 4096));
    assert_eq!(allocated(), None);
    report(1 << 30, Some(1 << 40));
    assert_eq!(allocated(), Some(1 << 40), "room that was taken beforehand");
}

#[test]
fn what_a_truncation_adds_is_a_hole() {
    let w = World::new();
    let ino = w.file(ROOT, "a");
    w.write(ino, 5000);
    let set = |size| {
        if let pvfs_meta::Outcome::Pending(_) = w.truncate(ino, size).expect("truncates") {
            w.finish(ino);
        }
        (w.attr(ino).size, w.attr(ino).allocated)
    };
    assert_eq!(set(1 << 30), (1 << 30, Some(5000)));
    assert_eq!(set(1 << 31), (1 << 31, Some(5000)));
    assert_eq!(set(1 << 20), (1 << 20, Some(5000)));
    assert_eq!(set(300), (300, None));
    assert_eq!(set(1 << 20), (1 << 20, Some(300)));
    assert_eq!(set(0), (0, None));
}
