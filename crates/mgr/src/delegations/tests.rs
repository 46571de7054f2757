//! What is delegated, recalled and waited for, without a mgr around it.

use super::*;
use futures_util::FutureExt;

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const X: Ino = Ino(10);
const Y: Ino = Ino(11);

fn inos<const N: usize>(inos: [Ino; N]) -> Inos {
    inos.into()
}

fn with_a_and_b() -> Arc<Delegations> {
    let delegations = Delegations::new(7);
    delegations.admit(A, true);
    delegations.admit(B, true);
    delegations
}

fn ask(session: SessionId, after: u64) -> AwaitRecalls {
    AwaitRecalls { session, mgr: 7, after }
}

fn answer(delegations: &Delegations, session: SessionId, ids: &[u64]) {
    delegations.recalled(&Recalled { session, mgr: 7, ids: ids.to_vec() });
}

fn gets(delegations: &Delegations, session: SessionId, ino: Ino) -> bool {
    delegations.delegate(session, ino) != Given::No
}

#[tokio::test]
async fn a_change_waits_until_every_other_holder_has_answered_its_recall() {
    let delegations = with_a_and_b();
    assert!(gets(&delegations, A, X) && gets(&delegations, B, X) && gets(&delegations, B, Y));
    assert!(delegations.change(&inos([X]), Some(A)).is_none(), "B goes by it");
    let waiting = tokio::spawn({
        let delegations = Arc::clone(&delegations);
        async move { delegations.recall(&inos([X]), Some(A)).await }
    });
    let told = delegations.wait(&ask(B, 0)).await;
    assert_eq!(told, Recalls { mgr: 7, recalls: vec![Recall { id: 1, ino: X }], unknown: false });
    assert_eq!(delegations.wait(&ask(B, 0)).await, told, "its answer was lost");
    assert!(delegations.wait(&ask(B, 1)).now_or_never().is_none(), "it is told once");
    assert!(!gets(&delegations, B, X), "not while it changes");
    assert!(!waiting.is_finished());
    assert_eq!(delegations.awaited(), [B]);
    answer(&delegations, B, &[1]);
    let changing = waiting.await.unwrap().unwrap();
    assert!(!gets(&delegations, B, X) && !gets(&delegations, A, X), "it changes");
    assert!(delegations.change(&inos([Y]), Some(B)).is_some() && gets(&delegations, A, Y));
    drop(changing);
    assert!(gets(&delegations, B, X));
    answer(&delegations, B, &[1]);
    assert!(delegations.change(&inos([X]), Some(A)).is_none(), "an old answer ends no new delegation");
    assert!(delegations.change(&inos([X]), None).is_none(), "nor does the mgr change it unasked");
}

#[tokio::test]
async fn one_who_is_silent_is_waited_for_until_its_lease_is_over() {
    let delegations = with_a_and_b();
    assert!(gets(&delegations, B, X));
    let x = inos([X]);
    let mut waiting = Box::pin(delegations.recall(&x, Some(A)));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(delegations.awaited(), [B]);
    delegations.lapse(B);
    assert!(waiting.await.is_ok());
    assert!(delegations.awaited().is_empty());
    assert!(gets(&delegations, B, X), "it comes back, knowing that it holds nothing");
}

#[tokio::test]
async fn after_a_restart_changes_wait_for_what_sessions_hold_of_the_mgr_before() {
    let delegations = Delegations::new(7);
    delegations.admit(A, true);
    delegations.admit(B, false);
    assert!(!gets(&delegations, B, Y), "not before it has told");
    assert!(delegations.change(&inos([Y]), Some(B)).is_some(), "its own changes need not wait for it");
    let x = inos([X]);
    let mut waiting = Box::pin(delegations.recall(&x, Some(A)));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(delegations.awaited(), [B]);
    assert!(delegations.wait(&AwaitRecalls { session: B, mgr: 6, after: 99 }).await.unknown);
    let held = |inos: &[Ino], last| HoldDelegations { session: B, mgr: 7, inos: inos.to_vec(), last };
    delegations.held(&held(&[Y], false));
    assert!(waiting.as_mut().now_or_never().is_none());
    delegations.held(&held(&[X], true));
    assert!(waiting.as_mut().now_or_never().is_none(), "it does hold that");
    let told = delegations.wait(&AwaitRecalls { session: B, mgr: 6, after: 99 }).await;
    assert_eq!(told.recalls, [Recall { id: 1, ino: X }]);
    answer(&delegations, B, &[1]);
    drop(waiting.await.unwrap());
    assert!(delegations.change(&inos([X]), Some(A)).is_some());
    assert!(delegations.change(&inos([Y]), Some(A)).is_none());
}

#[tokio::test]
async fn a_session_that_ends_and_a_mgr_that_stops_end_every_wait() {
    let delegations = with_a_and_b();
    assert!(gets(&delegations, B, X));
    let x = inos([X]);
    let mut waiting = Box::pin(delegations.recall(&x, None));
    assert!(waiting.as_mut().now_or_never().is_none());
    delegations.forget(B);
    drop(waiting.await.unwrap());
    assert!(delegations.wait(&ask(B, 0)).now_or_never().is_some(), "nobody waits in vain");
    assert!(gets(&delegations, A, X));
    let x = inos([X]);
    let mut waiting = Box::pin(delegations.recall(&x, Some(B)));
    assert!(waiting.as_mut().now_or_never().is_none());
    delegations.stop();
    assert!(waiting.await.is_err());
    assert!(delegations.table().changing.is_empty());
}

#[test]
fn who_takes_none_gets_none_and_one_taken_back_is_in_nobodys_way() {
    let delegations = with_a_and_b();
    assert!(!gets(&delegations, SessionId(3), X));
    assert!(gets(&delegations, A, X));
    delegations.take_back(A, X);
    assert!(delegations.change(&inos([X]), Some(B)).is_some());
    assert!(delegations.table().holders.is_empty());
}

#[tokio::test]
async fn whoever_asks_for_a_file_waits_for_who_has_made_it_and_is_alone_with_it_since() {
    let delegations = with_a_and_b();
    assert_eq!(delegations.delegate_new(A, X), Given::Now);
    assert!(gets(&delegations, A, Y));
    assert!(delegations.is_alone(X, &[A], B));
    assert!(
        !delegations.is_alone(X, &[A], A) && !delegations.is_alone(X, &[], B),
        "who writes it itself, and not"
    );
    assert!(!delegations.is_alone(Y, &[A], B), "others were told of it too");
    let asking = tokio::spawn({
        let delegations = Arc::clone(&delegations);
        async move { delegations.recall_alone(X, &[A], B).await }
    });
    let told = delegations.wait(&ask(A, 0)).await;
    assert_eq!(told.recalls, [Recall { id: 1, ino: X }]);
    assert!(!asking.is_finished());
    answer(&delegations, A, &[1]);
    asking.await.unwrap().unwrap();
    assert!(gets(&delegations, A, X) && !delegations.is_alone(X, &[A], B), "never again");
    delegations.take_back(A, X);
    assert_eq!(delegations.delegate_new(A, X), Given::Now);
    delegations.take_back(A, X);
    assert!(!delegations.is_alone(X, &[A], B), "it was not made");
}

#[tokio::test]
async fn after_a_restart_a_writer_counts_as_alone_with_what_it_holds() {
    let delegations = Delegations::new(7);
    delegations.admit(A, false);
    delegations.admit(B, true);
    assert!(delegations.is_alone(X, &[A], B) && !delegations.is_alone(X, &[B], A));
    let asking = tokio::spawn({
        let delegations = Arc::clone(&delegations);
        async move { delegations.recall_alone(X, &[A], B).await }
    });
    assert!(delegations.wait(&ask(A, 0)).await.unknown);
    while delegations.awaited() != [A] {
        tokio::task::yield_now().await;
    }
    delegations.held(&HoldDelegations { session: A, mgr: 7, inos: vec![X], last: true });
    let told = delegations.wait(&ask(A, 0)).await;
    assert_eq!(told.recalls, [Recall { id: 1, ino: X }], "who asked before it told");
    assert!(!asking.is_finished());
    answer(&delegations, A, &[1]);
    asking.await.unwrap().unwrap();
}
