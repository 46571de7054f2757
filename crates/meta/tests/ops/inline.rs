//! Small files whose bytes are kept in the store.

use crate::world::{ROOT, TARGETS, World, done, errno};
use pvfs_kv::WriteTxn as _;
use pvfs_meta::{
    Intent, Outcome, check, keys,
    record::{Inline, Record as _},
    writer,
};
use pvfs_types::{Attr, Errno, Ino, limits::INLINE_BYTES_MAX};
use pvfs_wire::{Access, msg::file::Open};

fn pending<T: std::fmt::Debug>(outcome: Outcome<T>) -> Intent {
    match outcome {
        Outcome::Pending(intent) => intent,
        Outcome::Done(done) => panic!("done: {done:?}"),
    }
}

/// A file that is kept in the store, closed.
fn world() -> (World, Ino) {
    let w = World::new();
    let ino = w.file(ROOT, "a");
    w.open(ino, Access::WRITE).expect("opens");
    assert!(w.put_inline(ino, b"some bytes").expect("closes"));
    (w, ino)
}

/// Of who is about to write.
fn open_to_write(w: &World, ino: Ino) -> Open {
    Open { again: true, grow_to: Some(11), ..w.open_req(ino, Access::WRITE) }
}

#[test]
fn its_only_writer_closes_a_small_file_and_it_is_all_here() {
    let (w, ino) = world();
    let attr = w.attr(ino);
    assert_eq!((attr.size, attr.is_inline()), (10, true));
    assert_eq!((attr.mtime < attr.ctime, attr.ctime), (true, w.now()));
    assert_eq!(w.read_inline(ino).as_deref(), Some(&b"some bytes"[..]));
    assert_eq!(w.read(|txn| writer::list(txn, ino)).expect("lists"), []);
}

#[test]
fn nothing_is_kept_and_nothing_changes_where_targets_may_have_bytes_of_it_or_others_write() {
    let mut w = World::new();
    let ino = w.file(ROOT, "a");
    assert!(!w.put_inline(ino, b"bytes").expect("is told"), "nobody has it open");
    w.open(ino, Access::WRITE).expect("opens");
    let before = w.attr(ino);
    assert!(!w.put_inline(ino, b"").expect("is told"), "nothing");
    assert!(!w.put_inline(ino, &[1; INLINE_BYTES_MAX + 1]).expect("is told"), "too long");
    let other = w.open_session(2);
    w.in_session(other, |w| w.open(ino, Access::WRITE).expect("opens"));
    assert!(!w.put_inline(ino, b"bytes").expect("is told"), "another writer");
    assert_eq!((w.attr(ino), w.read_inline(ino)), (before, None));
    assert_eq!(w.read(|txn| writer::list(txn, ino)).expect("lists").len(), 2, "nobody's standing ended");
    w.in_session(other, |w| done(w.try_report(&w.report_req(ino, 3, true)).expect("reports")));
    assert!(!w.put_inline(ino, b"bytes").expect("is told"), "targets have three bytes");
    done(w.truncate(ino, 0).expect("truncates"));
    let mut late = w.report_req(ino, 0, true);
    late.size_epoch = 0;
    assert_eq!(errno(w.put_inline(ROOT, b"bytes")), Errno::EINVAL);
    assert!(w.put_inline(ino, &[1; INLINE_BYTES_MAX]).expect("closes"), "new objects, of which none is made");
}

#[test]
fn who_is_about_to_write_it_waits_until_a_target_has_taken_it() {
    let (w, ino) = world();
    let before = w.attr(ino);
    w.open(ino, Access::WRITE).expect("opens");
    assert_eq!((w.attr(ino), w.read(|txn| writer::list(txn, ino)).expect("lists")), (before.clone(), vec![]));
    let intent = pending(w.try_open(&open_to_write(&w, ino)).expect("opens"));
    assert!(intent.spills());
    assert_eq!((intent.size, intent.data_gen), (10, before.data_gen));
    assert_eq!(w.read_inline(ino).as_deref(), Some(&b"some bytes"[..]), "as long as no target has them");
    w.finish(ino);
    done(w.try_open(&open_to_write(&w, ino)).expect("opens"));
    assert_eq!(w.attr(ino), Attr { inline: None, ..before }, "nothing else is changed");
    assert_eq!(w.read_inline(ino), None);
    // Everybody who asks meanwhile waits for the same.
    let (w, ino) = world();
    let first = pending(w.try_open(&open_to_write(&w, ino)).expect("opens"));
    assert_eq!(pending(w.try_open(&open_to_write(&w, ino)).expect("opens")), first);
    assert_eq!(pending(w.truncate(ino, 5).expect("truncates")), first);
    let emptied = Open { truncate: true, ..w.open_req(ino, Access::WRITE) };
    assert_eq!(pending(w.try_open(&emptied).expect("opens")), first);
    w.chmod(ino, 0o600).expect("changes what it does not stand in the way of");
    w.open(ino, Access::READ).expect("readers do not wait");
    w.finish(ino);
    assert_eq!(w.attr(ino).mode, 0o600);
}

#[test]
fn emptied_or_removed_it_leaves_no_objects_for_there_are_none() {
    let (w, ino) = world();
    let open = Open { truncate: true, ..w.open_req(ino, Access::WRITE) };
    let attr = done(w.try_open(&open).expect("opens")).attr;
    assert_eq!((attr.size, attr.is_inline(), w.garbage_count()), (0, false, 0));
    assert!(w.put_inline(ino, b"again").expect("closes"), "and small again");
    let orphan = w.unlink(ROOT, "a").expect("unlinks").expect("an orphan");
    assert_eq!(w.read_inline(ino).as_deref(), Some(&b"again"[..]), "somebody may have it open");
    assert!(w.reap(orphan));
    assert_eq!(w.garbage_count(), 0);
}

#[test]
fn it_is_not_reaped_while_a_target_may_be_taking_it() {
    let (w, ino) = world();
    pending(w.try_open(&open_to_write(&w, ino)).expect("opens"));
    let orphan = w.unlink(ROOT, "a").expect("unlinks").expect("an orphan");
    assert!(!w.reap(orphan), "the object would be made behind its removal");
    w.finish(ino);
    assert!(w.reap(orphan));
    assert_eq!(w.garbage_count(), usize::from(TARGETS));
}

#[test]
fn a_truncation_to_more_than_nothing_is_one_of_the_targets() {
    for (size, waits_again) in [(20, false), (4, true)] {
        let (w, ino) = world();
        assert!(pending(w.truncate(ino, size).expect("truncates")).spills());
        w.finish(ino);
        match w.truncate(ino, size).expect("truncates") {
            Outcome::Done(stat) => assert_eq!((stat.attr.size, waits_again), (size, false)),
            Outcome::Pending(intent) => assert_eq!((intent.spills(), waits_again), (false, true)),
        }
    }
}

#[test]
fn the_checker_finds_bytes_that_are_lost_or_nobodys() {
    let (mut w, ino) = world();
    w.damaged = true;
    w.run(|txn, _| {
        txn.delete(&keys::inline(ino));
        txn.put(&keys::inline(Ino(1 << 40)), Inline { data: b"stray".to_vec() }.to_bytes());
        Ok(())
    })
    .expect("damages");
    let findings = w.findings();
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(findings.iter().any(|found| found.contains("lost")), "{findings:?}");
    w.run(|txn, env| check::mend_counts(txn, env.now)).expect("mends");
    assert_eq!(w.findings().len(), 1, "what is lost stays told");
}
