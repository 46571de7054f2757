//! Truncations: to nothing without asking an iod, else through the targets, whatever is down meanwhile.

use crate::world::{TestClient, World, until};
use pvfs_types::{Attr, DataGen, ObjectId, SetAttr as Changes, Slot};
use pvfs_wire::{
    Access,
    msg::{hello::Role, namespace::SetAttr},
};
use std::sync::{Arc, atomic::Ordering};
use tokio::sync::Semaphore;

fn to_size(client: &TestClient, attr: &Attr, size: u64) -> SetAttr {
    let changes = Changes { size: Some(size), ..Changes::default() };
    let (by, want) = (client.by(), Some(Access::READ_WRITE));
    SetAttr { by, ino: attr.ino, changes, by_handle: true, want, drop_privileges: None }
}

fn object(attr: &Attr, data_gen: u32) -> ObjectId {
    ObjectId { ino: attr.ino, data_gen: DataGen(data_gen), slot: Slot(0) }
}

#[tokio::test]
async fn a_truncation_to_nothing_asks_no_iod_and_leaves_the_old_objects_to_the_garbage() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let (iod, to_mgr) = (world.iod().await, world.peer(&mgr, Role::Iod));
    iod.reports(&to_mgr).await;
    let client = world.client(&mgr).await;
    let attr = client.created("a").await.entry.attr;
    client.reports_size(&attr, 1000, false).await;
    iod.objects.put(object(&attr, 1), 1000);
    iod.objects.balks.store(true, Ordering::Release);
    let cut = client.peer.call(&to_size(&client, &attr, 0)).await.expect("truncates");
    assert_eq!((cut.entry.attr.size, cut.entry.attr.data_gen), (0, DataGen(2)));
    assert_eq!(cut.capability.expect("asked for").grant.data_gen, DataGen(2));
    iod.objects.balks.store(false, Ordering::Release);
    until("the old object goes", || async {
        iod.reports(&to_mgr).await;
        iod.objects.all().is_empty().then_some(())
    })
    .await;
    mgr.stop().await;
}

#[tokio::test]
async fn a_shrink_waits_for_a_target_that_is_down_and_survives_the_mgr() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let (iod, to_mgr) = (world.iod().await, world.peer(&mgr, Role::Iod));
    iod.reports(&to_mgr).await;
    let client = world.client(&mgr).await;
    let attr = client.created("a").await.entry.attr;
    client.reports_size(&attr, 1000, true).await;
    iod.objects.put(object(&attr, 1), 1000);
    iod.objects.balks.store(true, Ordering::Release);
    let request = to_size(&client, &attr, 10);
    let peer = client.peer.clone();
    let waiting = tokio::spawn(async move { peer.call(&request).await });
    until("the iod is asked", || async { (mgr.sent("truncate_objects") > 0).then_some(()) }).await;
    assert_eq!(client.attr(attr.ino).await.size, 1000, "not done before all targets did it");
    assert!(!waiting.is_finished());
    client.follow_later();
    mgr.stop().await;

    let mgr = world.start_mgr().await;
    client.follow(&mgr);
    let to_mgr = world.peer(&mgr, Role::Iod);
    iod.reports(&to_mgr).await;
    iod.objects.balks.store(false, Ordering::Release);
    let cut = waiting.await.expect("no panic").expect("truncates");
    assert_eq!((cut.entry.attr.size, cut.entry.attr.size_epoch), (10, attr.size_epoch + 1));
    assert_eq!(iod.objects.all(), [(object(&attr, 1), 10)]);
    mgr.stop().await;
}

#[tokio::test]
async fn what_a_dead_mgr_had_sent_is_over_before_the_next_one_is_served() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let (iod, to_mgr) = (world.iod().await, world.peer(&mgr, Role::Iod));
    iod.reports(&to_mgr).await;
    let client = world.client(&mgr).await;
    let attr = client.created("a").await.entry.attr;
    client.reports_size(&attr, 1000, true).await;
    iod.objects.put(object(&attr, 1), 1000);
    let gate = Arc::new(Semaphore::new(0));
    *iod.objects.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let request = to_size(&client, &attr, 10);
    let peer = client.peer.clone();
    let waiting = tokio::spawn(async move { peer.call(&request).await });
    let cuts = || iod.objects.truncations.load(Ordering::SeqCst);
    until("the iod is asked", || async { (cuts() == 1).then_some(()) }).await;
    client.follow_later();
    mgr.stop().await;

    *iod.objects.gate.lock().unwrap() = None;
    let mgr = world.start_mgr().await;
    client.follow(&mgr);
    iod.reports(&world.peer(&mgr, Role::Iod)).await;
    let takeovers = iod.metrics.counter("pvfs_takeovers_total", &[]);
    until("the next mgr has come", || async { (takeovers.get() == 1).then_some(()) }).await;
    assert!(cuts() == 1 && !waiting.is_finished(), "the old one could still land after what is written now");
    gate.add_permits(1);
    assert_eq!(waiting.await.expect("no panic").expect("truncates").entry.attr.size, 10);
    assert_eq!(cuts(), 2);
    mgr.stop().await;
}
