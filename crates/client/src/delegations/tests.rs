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
    asked.learn(&entry(DIR, 1));
    assert_eq!(known(&delegations, DIR), Some(1), "it was about another inode");
    drop((asked, other));
    assert!(delegations.state().forgotten.is_empty());
    let asked = delegations.ask();
    assert_eq!(delegations.list(), [DIR], "another mgr");
    asked.learn(&entry(X, 1));
    assert_eq!(known(&delegations, X), None, "it came from the mgr before");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_gone_by_that_this_client_changes() {
    let delegations = live();
    delegations.ask().learn(&entry(DIR, 1));
    let asked = delegations.ask();
    asked.learn(&entry(X, 1));
    asked.learn_name(DIR, &name(), X);
    drop(asked);
    let before = delegations.ask();
    let change = delegations.change(vec![DIR], vec![(DIR, name())]);
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
    drop(delegations.change(vec![], vec![(DIR, name())]));
    assert_eq!(known(&delegations, X), None, "a name that is not known may be any inode's");
}

#[tokio::test(start_paused = true)]
async fn names_are_known_as_long_as_their_directory_and_for_whom_it_lets() {
    let delegations = live();
    let found = |cred: &Cred| delegations.lookup(cred, DIR, &name()).map(|attr| attr.change);
    let (root, member) = (Cred::root(), Cred { uid: 9, gid: 9, groups: vec![6] });
    let asked = delegations.ask();
    asked.learn(&entry(DIR, 1));
    asked.learn(&entry(X, 7));
    asked.learn_name(DIR, &name(), X);
    assert_eq!(found(&root), None, "the directory may have changed between the two answers");
    let asked = delegations.ask();
    asked.learn_name(DIR, &name(), X);
    assert_eq!((found(&root), found(&member)), (Some(7), Some(7)));
    assert_eq!(found(&Cred { uid: 9, gid: 9, groups: vec![] }), None);
    delegations.forget(DIR);
    assert_eq!((found(&root), known(&delegations, X)), (None, Some(7)));
    asked.learn_name(DIR, &name(), X);
    delegations.ask().learn(&entry(DIR, 2));
    assert_eq!(found(&root), None);
}
