//! Unlinked files: their objects go, but not before the last session has closed them.

use crate::world::{TestClient, World, until};
use pvfs_types::{DataGen, Ino, ObjectId, Slot};
use pvfs_wire::{Status, msg::hello::Role};
use std::{sync::atomic::Ordering, time::Duration};

fn object(ino: Ino) -> ObjectId {
    ObjectId { ino, data_gen: DataGen(1), slot: Slot(0) }
}

/// Checks in until the orphan list is empty for it: it has seen all, and claims nothing.
async fn checks_in(client: &TestClient) {
    let mut seen = 0;
    loop {
        let kept = client.keep_alive(seen, &[], &[]).await.expect("known");
        match kept.orphans.last() {
            Some(last) => seen = last.seq,
            None => return,
        }
    }
}

#[tokio::test]
async fn an_unlinked_file_goes_with_its_objects_once_every_session_has_checked_in() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let (iod, to_mgr) = (world.iod().await, world.peer(&mgr, Role::Iod));
    iod.reports(&to_mgr).await;
    let (one, two) = (world.client(&mgr).await, world.client(&mgr).await);
    let file = one.created("a").await.entry.attr;
    iod.objects.put(object(file.ino), 5);
    let orphan = one.unlink("a").await.orphan.expect("the last name went");
    assert_eq!(orphan.ino, file.ino);
    checks_in(&one).await;
    assert!(one.getattr(file.ino).await.is_ok(), "the other session has not checked in");
    checks_in(&two).await;
    until("the inode goes", || async { one.getattr(file.ino).await.err() }).await;
    until("the object goes", || async { iod.objects.all().is_empty().then_some(()) }).await;
    mgr.stop().await;
}

#[tokio::test]
async fn a_file_that_a_session_has_open_stays_until_it_closes_it_also_over_a_restart() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let (iod, to_mgr) = (world.iod().await, world.peer(&mgr, Role::Iod));
    iod.reports(&to_mgr).await;
    let client = world.client(&mgr).await;
    let file = client.created("a").await.entry.attr;
    iod.objects.put(object(file.ino), 5);
    let orphan = client.unlink("a").await.orphan.expect("the last name went");
    client.keep_alive(orphan.seq, &[file.ino], &[]).await.expect("known");
    mgr.stop().await;

    let mgr = world.start_mgr().await;
    client.follow(&mgr);
    let to_mgr = world.peer(&mgr, Role::Iod);
    iod.reports(&to_mgr).await;
    client.keep_alive(orphan.seq, &[], &[]).await.expect("the session is known");
    assert!(client.getattr(file.ino).await.is_ok(), "it is claimed");
    client.keep_alive(orphan.seq, &[], &[file.ino]).await.expect("known");
    until("the inode goes", || async { client.getattr(file.ino).await.err() }).await;
    until("the object goes", || async { iod.objects.all().is_empty().then_some(()) }).await;
    mgr.stop().await;
}

#[tokio::test]
async fn garbage_waits_for_a_target_that_is_down() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let (iod, to_mgr) = (world.iod().await, world.peer(&mgr, Role::Iod));
    iod.reports(&to_mgr).await;
    let client = world.client(&mgr).await;
    let file = client.created("a").await.entry.attr;
    iod.objects.put(object(file.ino), 5);
    iod.objects.balks.store(true, Ordering::Release);
    client.unlink("a").await;
    checks_in(&client).await;
    until("the inode goes", || async { client.getattr(file.ino).await.err() }).await;
    assert_eq!(iod.objects.all().len(), 1);
    iod.objects.balks.store(false, Ordering::Release);
    until("the object goes", || async {
        iod.reports(&to_mgr).await;
        iod.objects.all().is_empty().then_some(())
    })
    .await;
    mgr.stop().await;
}

#[tokio::test]
async fn a_silent_session_is_expelled_when_an_orphan_waits_for_it_and_may_open_a_new_one() {
    let mut world = World::new();
    world.lease_ms = 200;
    let mgr = world.start_mgr().await;
    let (iod, to_mgr) = (world.iod().await, world.peer(&mgr, Role::Iod));
    iod.reports(&to_mgr).await;
    let (silent, busy) = (world.client(&mgr).await, world.client(&mgr).await);
    let file = busy.created("a").await.entry.attr;
    iod.objects.put(object(file.ino), 5);
    busy.unlink("a").await;
    until("the inode goes", || async {
        checks_in(&busy).await;
        busy.getattr(file.ino).await.err()
    })
    .await;
    until("the object goes", || async {
        iod.reports(&to_mgr).await;
        iod.objects.all().is_empty().then_some(())
    })
    .await;
    let unknown = silent.keep_alive(0, &[], &[]).await.expect_err("it is out");
    assert_eq!(unknown.status, Status::SessionUnknown);
    let again = silent.reopen(2).await.expect("a new one");
    assert!(again.session > silent.session());
    mgr.stop().await;
}

#[tokio::test]
async fn a_session_that_nobody_needs_out_comes_back_after_its_lease() {
    let mut world = World::new();
    world.lease_ms = 1;
    world.target_silence = Duration::from_mins(1);
    let mgr = world.start_mgr().await;
    let client = world.client(&mgr).await;
    let first = client.opened.lease.until_ms;
    let kept = until("the lease runs out", || async {
        let kept = client.keep_alive(0, &[], &[]).await.expect("never thrown out by the clock");
        (kept.mgr_time_ms > first).then_some(kept)
    })
    .await;
    assert!(kept.lease.until_ms > first);
    mgr.stop().await;
}
