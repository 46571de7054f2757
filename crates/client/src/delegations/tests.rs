//! Answers, recalls and own changes in every order that the network may give them.

use super::*;
use pvfs_types::{DataGen, FileKind, Timestamp};
use std::time::Duration;

const DIR: Ino = Ino(1);
const X: Ino = Ino(10);

fn entry(ino: Ino, change: u64) -> Entry {
    let at = Timestamp::default();
    let attr = Attr {
        ino,
        kind: FileKind::Dir,
        mode: 0o750,
        uid: 5,
        gid: 6,
        nlink: 1,
        size: 0,
        size_epoch: 0,
        atime: at,
        mtime: at,
        ctime: at,
        btime: at,
        rdev: (0, 0),
        change,
        dist: None,
        data_gen: DataGen(1),
        layout: None,
        extras: None,
        allocated: None,
        inline: None,
    };
    Entry { attr, has_writers: false, delegated: Some(true) }
}

fn name() -> Name {
    Name::new(b"x").unwrap()
}

fn live() -> Arc<Delegations> {
    let delegations = Delegations::new(true);
    delegations.lease_until(Instant::now() + Duration::from_secs(30));
    delegations
}

fn known(delegations: &Delegations, ino: Ino) -> Option<u64> {
    delegations.attr(ino).map(|attr| attr.change)
}

#[tokio::test(start_paused = true)]
async fn what_is_delegated_is_known_until_it_is_recalled_or_the_lease_is_over() {
    let delegations = live();
    delegations.ask().learn(&Entry { delegated: None, ..entry(X, 1) });
    assert_eq!(known(&delegations, X), None);
    delegations.ask().learn(&entry(X, 1));
    assert_eq!(known(&delegations, X), Some(1));
    delegations.forget(X);
    assert_eq!(known(&delegations, X), None);
    delegations.ask().learn(&entry(X, 2));
    tokio::time::advance(Duration::from_secs(29)).await;
    assert_eq!(known(&delegations, X), Some(2));
    delegations.lease_until(Instant::now() + Duration::from_secs(30));
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(known(&delegations, X), None);
    delegations.lease_until(Instant::now() + Duration::from_secs(30));
    assert_eq!(known(&delegations, X), None, "a lease that comes back brings nothing back");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_a_recall_has_overtaken_does_not_count() {
    let delegations = live();
    let (asked, other) = (delegations.ask(), delegations.ask());
    delegations.forget(X);
    asked.learn(&entry(X, 1));
    assert_eq!(known(&delegations, X), None);
    asked.learn(&entry(DIR, 5));
    assert_eq!(known(&delegations, DIR), Some(5), "it was about another inode");
    drop((asked, other));
    assert!(delegations.state().forgotten.is_empty());
    let asked = delegations.ask();
    assert_eq!(delegations.list(), [DIR], "another mgr");
    asked.learn(&entry(X, 1));
    assert_eq!(known(&delegations, X), None, "it came from the mgr before");
}

/// `name()` in `DIR` goes, with what it names.
fn goes() -> Touched {
    Touched { dirs: vec![DIR], names: vec![(DIR, name(), true)], ..Touched::default() }
}

/// Something of that name is made in `DIR`.
fn comes() -> Touched {
    Touched { dirs: vec![DIR], names: vec![(DIR, name(), false)], ..Touched::default() }
}

/// What `name()` names, as far as it is known: 0 for nothing.
fn named(delegations: &Delegations) -> Option<u64> {
    delegations.lookup(&Cred::root(), DIR, &name()).map(|named| match named {
        Named::Nothing => 0,
        Named::Inode(attr) => attr.change,
    })
}

#[tokio::test(start_paused = true)]
async fn nothing_is_gone_by_that_this_client_changes() {
    let delegations = live();
    delegations.ask().learn(&entry(DIR, 5));
    let asked = delegations.ask();
    asked.learn(&entry(X, 1));
    asked.learn_name(DIR, &name(), Some(X));
    drop(asked);
    let before = delegations.ask();
    let change = delegations.change(goes());
    assert_eq!((known(&delegations, DIR), known(&delegations, X)), (None, None), "also what the name names");
    let during = delegations.ask();
    during.learn(&entry(X, 1));
    assert_eq!(known(&delegations, X), None);
    drop(change);
    before.learn(&entry(X, 1));
    during.learn(&entry(X, 1));
    assert_eq!(known(&delegations, X), None, "asked before the change was made");
    delegations.ask().learn(&entry(X, 2));
    assert_eq!(known(&delegations, X), Some(2));
    drop(delegations.change(goes()));
    assert_eq!(known(&delegations, X), None, "a name that is not known may be any inode's");
}

#[tokio::test(start_paused = true)]
async fn what_this_client_changes_stays_held_until_it_is_recalled() {
    let delegations = live();
    delegations.ask().learn(&entry(X, 1));
    let held = delegations.of(X).unwrap();
    assert!(held.known);
    drop(delegations.change(Touched { inos: vec![X], ..Touched::default() }));
    let changed = delegations.of(X).unwrap();
    assert_eq!((changed.number, changed.known, known(&delegations, X)), (held.number, false, None));
    assert_eq!(delegations.list(), [X], "another mgr is told of it");
    delegations.ask().learn(&entry(X, 2));
    assert_eq!(delegations.of(X), Some(held));
    delegations.forget(X);
    delegations.ask().learn(&entry(X, 2));
    assert_ne!(delegations.of(X).unwrap().number, held.number);
}

#[tokio::test(start_paused = true)]
async fn that_nothing_has_a_name_is_known_until_something_has() {
    let delegations = live();
    delegations.ask().learn(&entry(DIR, 5));
    delegations.ask().learn_name(DIR, &name(), None);
    assert_eq!(named(&delegations), Some(0));
    delegations.ask().learn(&entry(X, 1));
    let before = delegations.ask();
    let change = delegations.change(goes());
    assert_eq!(known(&delegations, X), Some(1), "there is nothing that could go");
    before.learn_name(DIR, &name(), None);
    drop(change);
    before.learn_name(DIR, &name(), None);
    assert_eq!(named(&delegations), None);
    delegations.ask().learn(&entry(DIR, 2));
    delegations.ask().learn_name(DIR, &name(), None);
    assert_eq!(named(&delegations), Some(0));
    drop(delegations.change(comes()));
    assert_eq!((named(&delegations), known(&delegations, X)), (None, Some(1)));
    delegations.ask().learn_name(DIR, &name(), Some(X));
    assert_eq!(named(&delegations), Some(1), "who may search in it is still known");
    delegations.forget(DIR);
    assert_eq!(named(&delegations), None);
}

#[tokio::test(start_paused = true)]
async fn a_path_is_walked_over_directories_in_which_this_client_makes_names() {
    const SUB: Ino = Ino(11);
    let delegations = live();
    let asked = delegations.ask();
    asked.learn(&entry(DIR, 5));
    drop(asked);
    let asked = delegations.ask();
    asked.learn(&entry(SUB, 5));
    asked.learn_name(DIR, &name(), Some(SUB));
    drop(asked);
    drop(delegations.change(Touched { dirs: vec![SUB], ..Touched::default() }));
    let walked = |cred: &Cred| delegations.step(cred, DIR, &name());
    assert!(matches!(walked(&Cred::root()), Some(Named::Inode(attr)) if attr.ino == SUB));
    assert_eq!((named(&delegations), walked(&Cred { uid: 9, gid: 9, groups: vec![] })), (None, None));
    drop(delegations.change(Touched { inos: vec![SUB], ..Touched::default() }));
    assert_eq!(walked(&Cred::root()), None, "its rights may be others now");
}

#[tokio::test(start_paused = true)]
async fn in_a_directory_that_was_new_only_this_clients_names_are_asked_for() {
    let delegations = live();
    let other = |text: &[u8]| delegations.lookup(&Cred::root(), DIR, &Name::new(text).unwrap());
    delegations.ask().learn(&entry(DIR, 2));
    assert_eq!(other(b"y"), None);
    delegations.forget(DIR);
    delegations.ask().learn(&entry(DIR, Attr::CHANGE_FIRST));
    assert_eq!((other(b"x"), other(b"y")), (Some(Named::Nothing), Some(Named::Nothing)));
    drop(delegations.change(comes()));
    delegations.ask().learn(&entry(DIR, 2));
    assert_eq!((other(b"x"), other(b"y")), (None, Some(Named::Nothing)));
    delegations.forget(DIR);
    delegations.ask().learn(&entry(DIR, 2));
    assert_eq!(other(b"y"), None, "others may have made names since");
}

#[tokio::test(start_paused = true)]
async fn names_are_known_as_long_as_their_directory_and_for_whom_it_lets() {
    let delegations = live();
    let found = |cred: &Cred| delegations.lookup(cred, DIR, &name()).is_some();
    let (root, member) = (Cred::root(), Cred { uid: 9, gid: 9, groups: vec![6] });
    let asked = delegations.ask();
    asked.learn(&entry(DIR, 5));
    asked.learn(&entry(X, 7));
    asked.learn_name(DIR, &name(), Some(X));
    assert!(!found(&root), "the directory may have changed between the two answers");
    let asked = delegations.ask();
    asked.learn_name(DIR, &name(), Some(X));
    assert_eq!((named(&delegations), found(&member)), (Some(7), true));
    assert!(!found(&Cred { uid: 9, gid: 9, groups: vec![] }));
    delegations.forget(DIR);
    assert_eq!((found(&root), known(&delegations, X)), (false, Some(7)));
    asked.learn_name(DIR, &name(), Some(X));
    delegations.ask().learn(&entry(DIR, 2));
    assert!(!found(&root));
}

/// A change that begins now.
fn begins(delegations: &Arc<Delegations>, touched: Touched) -> OwnChange {
    delegations.change(touched)
}

/// `change` ends, and inodes are as in `told`.
fn ends(mut change: OwnChange, told: &[Entry]) {
    change.made(told.to_vec());
}

/// How `ino` is right after a change; nobody is given it by that.
fn left(ino: Ino, change: u64) -> Entry {
    Entry { delegated: None, ..entry(ino, change) }
}

#[tokio::test(start_paused = true)]
async fn what_a_change_has_left_is_known_without_a_question() {
    let delegations = live();
    delegations.ask().learn(&entry(DIR, 5));
    let change = begins(&delegations, comes());
    assert_eq!(known(&delegations, DIR), None, "others may see it done before its answer comes");
    ends(change, &[left(DIR, 6), entry(X, 0)]);
    assert_eq!(
        (known(&delegations, DIR), known(&delegations, X), named(&delegations)),
        (Some(6), Some(0), Some(0))
    );
    assert!(
        matches!(delegations.lookup(&Cred::root(), DIR, &name()), Some(Named::Inode(attr)) if attr.ino == X)
    );
    ends(begins(&delegations, goes()), &[left(DIR, 7)]);
    assert_eq!((known(&delegations, DIR), known(&delegations, X)), (Some(7), None));
    assert_eq!(delegations.lookup(&Cred::root(), DIR, &name()), Some(Named::Nothing));
    ends(begins(&delegations, comes()), &[left(Ino(99), 4), left(DIR, 8)]);
    assert_eq!(known(&delegations, Ino(99)), None, "nobody has delegated it");
}

#[tokio::test(start_paused = true)]
async fn of_several_changes_the_newest_counts_and_only_when_none_is_under_way() {
    let delegations = live();
    delegations.ask().learn(&entry(X, 5));
    let touched = || Touched { inos: vec![X], ..Touched::default() };
    let (one, two) = (begins(&delegations, touched()), begins(&delegations, touched()));
    ends(two, &[left(X, 7)]);
    assert_eq!(known(&delegations, X), None);
    ends(one, &[left(X, 6)]);
    assert_eq!(known(&delegations, X), Some(7));
    let (one, two) = (begins(&delegations, touched()), begins(&delegations, touched()));
    drop(one);
    ends(two, &[left(X, 8)]);
    assert_eq!(known(&delegations, X), None, "of the other one nobody knows whether it came after");
    ends(begins(&delegations, touched()), &[left(X, 10)]);
    assert_eq!(known(&delegations, X), Some(10), "what begins after the others is after them");
}

#[tokio::test(start_paused = true)]
async fn what_is_told_of_a_change_that_a_recall_has_overtaken_does_not_count() {
    let delegations = live();
    delegations.ask().learn(&entry(DIR, 5));
    let change = begins(&delegations, comes());
    delegations.forget(DIR);
    delegations.forget(X);
    delegations.ask().learn(&entry(DIR, 9));
    ends(change, &[left(DIR, 6), entry(X, 0)]);
    assert_eq!((known(&delegations, DIR), known(&delegations, X), named(&delegations)), (None, None, None));
    delegations.ask().learn(&entry(DIR, 9));
    assert_eq!(known(&delegations, DIR), Some(9));
    let change = begins(&delegations, comes());
    assert_eq!(delegations.list(), [DIR], "another mgr");
    ends(change, &[left(DIR, 10), entry(X, 0)]);
    assert_eq!((known(&delegations, DIR), known(&delegations, X)), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_two_changes_were_about_at_once_is_asked_for() {
    let delegations = live();
    let asked = delegations.ask();
    asked.learn(&entry(DIR, 5));
    drop(asked);
    let (one, two) = (begins(&delegations, comes()), begins(&delegations, comes()));
    ends(two, &[left(DIR, 7), entry(X, 0)]);
    ends(one, &[left(DIR, 6), entry(X, 0)]);
    assert_eq!((known(&delegations, DIR), named(&delegations)), (Some(7), None));
    ends(begins(&delegations, comes()), &[left(DIR, 8), entry(Ino(12), 0)]);
    assert_eq!(named(&delegations), Some(0), "the next one is alone again");
    assert!(delegations.state().held[&DIR].names.changing.is_empty());
}
