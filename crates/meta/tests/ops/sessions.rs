//! Sessions and their slots.

use crate::world::{ROOT, World, errno};
use pvfs_meta::slot::{self, Check};
use pvfs_meta::{MetaError, mgr_time, orphan, session, writer};
use pvfs_types::{Errno, SessionId, limits};
use pvfs_wire::msg::session::OpenSession;
use pvfs_wire::{Access, Status};

fn open(w: &World, incarnation: u64) -> pvfs_meta::Result<SessionId> {
    let req = OpenSession { client: [7; 16], incarnation, label: "a label".to_owned(), delegations: None };
    w.run(|txn, env| session::open(txn, &req, env.now))
}

#[test]
fn the_same_open_gives_the_same_session() {
    let w = World::new();
    let id = open(&w, 1).expect("opens");
    assert_eq!(open(&w, 1).expect("opens"), id);
    let standing = w.read(|txn| session::load(txn, id)).expect("is there");
    assert_eq!((standing.client, standing.label.as_str()), ([7; 16], "a label"));
    assert_eq!(w.read(|txn| session::list(txn)).expect("lists").len(), 2, "and the world's own");
}

#[test]
fn a_label_is_kept_as_far_as_people_read() {
    let w = World::new();
    let req = OpenSession { client: [8; 16], incarnation: 1, label: "ü".repeat(1000), delegations: None };
    let id = w.run(|txn, env| session::open(txn, &req, env.now)).expect("opens");
    assert_eq!(w.read(|txn| session::load(txn, id)).expect("is there").label, "ü".repeat(200));
}

#[test]
fn a_new_incarnation_takes_the_place_of_the_old_and_a_late_copy_finds_nothing() {
    let w = World::new();
    let old = open(&w, 1).expect("opens");
    let new = open(&w, 2).expect("opens");
    assert!(new > old);
    assert!(matches!(open(&w, 1), Err(MetaError::SessionUnknown { .. })));
    assert!(w.read(|txn| session::find(txn, old)).expect("reads").is_none());
    assert_eq!(open(&w, 2).expect("opens"), new);
}

#[test]
fn a_closed_session_leaves_nothing_and_an_expelled_one_its_writers() {
    let mut w = World::new();
    let file = w.file(ROOT, "a");
    w.file(ROOT, "o");
    let gone = w.unlink(ROOT, "o").expect("unlinks").expect("the last name");
    for (incarnation, writers) in [(1, 0), (2, 1)] {
        let id = open(&w, incarnation).expect("opens");
        w.in_session(id, |w| w.open(file, Access::WRITE)).expect("opens");
        w.run(|txn, _| {
            slot::record(txn, id, 3, 1, b"answer".to_vec());
            orphan::claim(txn, id, gone.ino)
        })
        .expect("claims");
        for _twice in 0..2 {
            let closes = incarnation == 1;
            w.run(|txn, _| if closes { session::close(txn, id) } else { session::expel(txn, id) })
                .expect("ends");
        }
        assert_eq!(w.read(|txn| writer::list_of(txn, id)).expect("lists").len(), writers);
        assert_eq!(w.read(|txn| orphan::claims(txn, gone.ino)).expect("lists"), []);
        let check = w.read(|txn| slot::check(txn, id, 3, 2));
        assert!(matches!(check, Err(MetaError::SessionUnknown { .. })));
    }
}

#[test]
fn a_slot_tells_new_repeated_and_stale_requests_apart() {
    let w = World::new();
    let check = |seq| w.read(|txn| slot::check(txn, w.session, 5, seq)).expect("checks");
    let record = |seq, reply: &[u8]| {
        w.run(|txn, _| {
            slot::record(txn, w.session, 5, seq, reply.to_vec());
            Ok(())
        })
        .expect("records");
    };
    assert_eq!(check(0), Check::Stale);
    assert_eq!(check(1), Check::New);
    record(1, b"one");
    assert_eq!(check(1), Check::Repeat(b"one".to_vec()));
    assert_eq!(check(2), Check::New);
    assert_eq!(check(4), Check::New, "one that was given up before it left");
    record(4, b"four");
    assert_eq!(check(3), Check::Stale);
    assert_eq!(check(4), Check::Repeat(b"four".to_vec()));
}

#[test]
fn slots_and_sessions_that_are_none_are_refused() {
    let w = World::new();
    let status = |session, slot| {
        w.read(|txn| slot::check(txn, session, slot, 1)).expect_err("must be refused").status()
    };
    assert_eq!(status(SessionId(99), 0), Status::SessionUnknown);
    assert_eq!(status(w.session, limits::SESSION_SLOTS), Status::BadRequest);
    let error = MetaError::SessionUnknown { session: SessionId(99) };
    assert_eq!(
        (error.errno(), error.refusal().text.as_str()),
        (Errno::EIO, "session 99 is not known (any more)")
    );
    assert_eq!(errno::<()>(Err(MetaError::NoTargets)), Errno::ENOSPC);
}

#[test]
fn mgr_time_never_goes_back() {
    let w = World::new();
    assert_eq!(w.read(|txn| mgr_time::get(txn)).expect("reads"), 0);
    for (set, expect) in [(5_000, 5_000), (4_000, 5_000), (6_000, 6_000)] {
        w.run(|txn, _| mgr_time::set(txn, set)).expect("sets");
        assert_eq!(w.read(|txn| mgr_time::get(txn)).expect("reads"), expect);
    }
}
