//! Delegations: who goes by what it knows is asked before that changes.

use crate::world::{TestClient, TestMgr, World};
use pvfs_types::{Ino, Name, SetAttr as Changes};
use pvfs_wire::msg::{
    delegation::{AwaitRecalls, HoldDelegations, Recalled, Recalls},
    namespace::{Entry, SetAttr},
};
use tokio::task::JoinHandle;

async fn holder(world: &World, mgr: &TestMgr) -> TestClient {
    let client = world.client_with(mgr, Some(true)).await;
    assert!(is_delegated(&client.getattr(Ino::ROOT).await.expect("is there")));
    client
}

fn is_delegated(entry: &Entry) -> bool {
    entry.delegated == Some(true)
}

/// Another client changes the root directory.
fn change(client: TestClient, mode: u32) -> JoinHandle<TestClient> {
    tokio::spawn(async move {
        let changes = Changes { mode: Some(mode), ..Changes::default() };
        let (by, ino) = (client.by(), Ino::ROOT);
        let set = SetAttr { by, ino, changes, by_handle: false, want: None, drop_privileges: None };
        client.peer.call(&set).await.expect("is made");
        client
    })
}

async fn recalls(client: &TestClient, mgr: u64, after: u64) -> Recalls {
    client.peer.call(&AwaitRecalls { session: client.session(), mgr, after }).await.expect("is told")
}

async fn answer(client: &TestClient, told: &Recalls) {
    let ids = told.recalls.iter().map(|recall| recall.id).collect();
    client.peer.call(&Recalled { session: client.session(), mgr: told.mgr, ids }).await.expect("is taken");
}

#[tokio::test]
async fn a_change_waits_for_who_goes_by_what_it_knows_and_is_then_seen() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let (a, b) = (holder(&world, &mgr).await, world.client(&mgr).await);
    assert!(!is_delegated(&b.getattr(Ino::ROOT).await.expect("is there")), "it did not ask for any");
    let changed = change(b, 0o700);
    let told = recalls(&a, 0, 0).await;
    assert_eq!(told.recalls.iter().map(|recall| recall.ino).collect::<Vec<_>>(), [Ino::ROOT]);
    let entry = a.getattr(Ino::ROOT).await.expect("is there");
    assert_ne!(entry.attr.mode, 0o700, "nothing is changed before it has answered");
    assert!(!is_delegated(&entry) && !changed.is_finished());
    answer(&a, &told).await;
    let b = changed.await.expect("no panic");
    let entry = a.getattr(Ino::ROOT).await.expect("is there");
    assert_eq!((entry.attr.mode, is_delegated(&entry)), (0o700, true));
    drop(b);
    mgr.stop().await;
}

#[tokio::test]
async fn a_restarted_mgr_changes_nothing_before_it_knows_who_goes_by_it() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let (a, b) = (holder(&world, &mgr).await, world.client(&mgr).await);
    mgr.stop().await;
    let mgr = world.start_mgr().await;
    a.follow(&mgr);
    b.follow(&mgr);
    let changed = change(b, 0o700);
    let told = recalls(&a, 0, 0).await;
    assert!(told.unknown && told.recalls.is_empty() && !changed.is_finished());
    let held = HoldDelegations { session: a.session(), mgr: told.mgr, inos: vec![Ino::ROOT], last: true };
    a.peer.call(&held).await.expect("is taken");
    let told = recalls(&a, told.mgr, 0).await;
    assert_eq!((told.recalls.len(), told.unknown, changed.is_finished()), (1, false, false));
    answer(&a, &told).await;
    changed.await.expect("no panic");
    mgr.stop().await;
}

#[tokio::test]
async fn a_silent_holder_is_waited_for_no_longer_than_its_lease() {
    let mut world = World::new();
    world.lease_ms = 200;
    let mgr = world.start_mgr().await;
    let (a, b) = (holder(&world, &mgr).await, world.client(&mgr).await);
    let _b = change(b, 0o700).await.expect("no panic");
    assert!(is_delegated(&a.getattr(Ino::ROOT).await.expect("its session stands")));
    mgr.stop().await;
}

#[tokio::test]
async fn a_lookup_that_finds_nothing_and_a_written_file_give_no_delegation() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let iod = world.iod().await;
    iod.reports(&world.peer(&mgr, pvfs_wire::msg::hello::Role::Iod)).await;
    let (a, b) = (holder(&world, &mgr).await, world.client(&mgr).await);
    let name = Name::new("none").expect("a name");
    let lookup = pvfs_wire::msg::namespace::Lookup { caller: a.caller(), dir: Ino::ROOT, name: Some(name) };
    assert!(a.peer.call(&lookup).await.is_err());
    let created = tokio::spawn(async move { (b.created("f").await, b) });
    answer(&a, &recalls(&a, 0, 0).await).await;
    let (created, b) = created.await.expect("no panic");
    let ino = created.entry.attr.ino;
    assert!(!is_delegated(&a.getattr(ino).await.expect("is there")), "it is being written");
    b.reports_size(&created.entry.attr, 10, true).await;
    assert!(is_delegated(&a.getattr(ino).await.expect("is there")));
    mgr.stop().await;
}

#[tokio::test]
async fn a_silent_writer_is_thrown_out_before_what_it_was_delegated_changes() {
    let mut world = World::new();
    world.lease_ms = 200;
    let mgr = world.start_mgr().await;
    let iod = world.iod().await;
    iod.reports(&world.peer(&mgr, pvfs_wire::msg::hello::Role::Iod)).await;
    let (a, b) = (holder(&world, &mgr).await, world.client(&mgr).await);
    a.created("f").await;
    let _b = change(b, 0o700).await.expect("no panic");
    let refused = a.getattr(Ino::ROOT).await.expect_err("bytes that it sends late must be refused");
    assert_eq!(refused.status, pvfs_wire::Status::SessionUnknown);
    mgr.stop().await;
}
