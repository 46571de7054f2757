//! Targets join, move, fall silent; files are made without them.

use crate::world::{GENERATIONS, World, until};
use pvfs_types::Errno;
use pvfs_wire::{
    Status,
    msg::{
        data::Generations,
        hello::Role,
        namespace::StatFs,
        session::{GetTargets, Targets},
    },
};
use std::{sync::atomic::Ordering, time::Duration};

#[tokio::test]
async fn a_target_joins_with_its_first_heartbeat_and_keeps_its_number() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let client = world.client(&mgr).await;
    let refused = client.peer.call(&client.create("a")).await.expect_err("no targets yet");
    assert_eq!(refused.status, Status::Errno(Errno::ENOSPC));
    let (one, two) = (world.iod().await, world.iod().await);
    let (from_one, from_two) = (world.peer(&mgr, Role::Iod), world.peer(&mgr, Role::Iod));
    let first = one.reports(&from_one).await;
    assert_eq!(client.created("a").await.entry.attr.dist.expect("a file").pcount, 1);
    let before = client.peer.call(&GetTargets {}).await.expect("answers");
    let second = two.reports(&from_two).await;
    assert_ne!(first, second);
    let after: Targets = client.peer.call(&GetTargets {}).await.expect("answers");
    assert!(after.version > before.version);
    let iodtabs: Vec<_> = after.iodtabs.iter().map(|iodtab| iodtab.targets.clone()).collect();
    assert_eq!(iodtabs, [vec![first], vec![first, second]], "an old generation never changes");
    assert!(after.targets.iter().all(|target| target.up));
    assert_eq!(client.created("b").await.entry.attr.dist.expect("a file").pcount, 2);
    let usage = client.peer.call(&StatFs::default()).await.expect("answers");
    assert_eq!((usage.bytes_total, usage.bytes_free, usage.inodes), (2 << 40, 1 << 40, 3));
    mgr.stop().await;

    let mgr = world.start_mgr().await;
    assert_eq!(one.reports(&world.peer(&mgr, Role::Iod)).await, first);
    client.follow(&mgr);
    let restarted = client.peer.call(&GetTargets {}).await.expect("answers");
    assert!(restarted.version > after.version, "clients of the old mgr ask anew");
    mgr.stop().await;
}

#[tokio::test]
async fn a_disk_with_several_targets_counts_once() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let client = world.client(&mgr).await;
    for device in [Some(1), Some(1), Some(2), None, None] {
        let mut iod = world.iod().await;
        iod.device = device;
        iod.reports(&world.peer(&mgr, Role::Iod)).await;
    }
    let usage = client.peer.call(&StatFs::default()).await.expect("answers");
    assert_eq!((usage.bytes_total, usage.bytes_free), (4 << 40, 2 << 40), "two known disks, two unknown");
    mgr.stop().await;
}

#[tokio::test]
async fn new_files_avoid_targets_that_are_silent_or_stopping() {
    let mut world = World::new();
    world.target_silence = Duration::from_millis(300);
    let mgr = world.start_mgr().await;
    let client = world.client(&mgr).await;
    let (one, two) = (world.iod().await, world.iod().await);
    let (from_one, from_two) = (world.peer(&mgr, Role::Iod), world.peer(&mgr, Role::Iod));
    let (first, _) = (one.reports(&from_one).await, two.reports(&from_two).await);
    let targets = until("the silent one counts as down", || async {
        one.reports(&from_one).await;
        let targets = client.peer.call(&GetTargets {}).await.expect("answers").targets;
        targets.iter().any(|target| !target.up).then_some(targets)
    })
    .await;
    assert_eq!(
        targets.iter().filter(|target| target.up).map(|target| target.id).collect::<Vec<_>>(),
        [first]
    );
    one.reports(&from_one).await;
    assert_eq!(client.created("a").await.entry.attr.dist.map(|d| (d.base, d.pcount)), Some((0, 1)));
    two.reports(&from_two).await;
    one.report(&from_one, GENERATIONS, true).await;
    assert_eq!(client.created("b").await.entry.attr.dist.map(|d| (d.base, d.pcount)), Some((1, 1)));
    mgr.stop().await;
}

#[tokio::test]
async fn a_target_that_is_an_old_copy_is_refused() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let (iod, to_mgr) = (world.iod().await, world.peer(&mgr, Role::Iod));
    let with = |process, store| Generations { process, boot: 1, store };
    let taken = |answer: pvfs_wire::msg::admin::HeartbeatAnswer| answer.targets[0].is_some();
    assert!(taken(iod.report(&to_mgr, with(1, 5), false).await));
    assert!(!taken(iod.report(&to_mgr, with(2, 4), false).await), "its generation went back");
    assert!(taken(iod.report(&to_mgr, with(2, 6), false).await), "restarted");
    assert!(!taken(iod.report(&to_mgr, with(1, 6), false).await), "the process that was replaced");
    assert!(taken(iod.report(&to_mgr, with(2, 6), false).await));
    mgr.stop().await;
}

#[tokio::test]
async fn a_dead_iods_late_report_does_not_get_its_successor_refused() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let (iod, to_mgr) = (world.iod().await, world.peer(&mgr, Role::Iod));
    let with = |process| Generations { process, boot: 1, store: 5 };
    let taken = |answer: pvfs_wire::msg::admin::HeartbeatAnswer| answer.targets[0].is_some();
    // This mgr has not heard of the dead process 1 before.
    let confirmed = iod.mgr_time_ms.load(Ordering::Relaxed);
    assert!(taken(iod.report(&to_mgr, with(2), false).await));
    iod.mgr_time_ms.store(confirmed, Ordering::Relaxed);
    iod.report(&to_mgr, with(1), false).await;
    for _ in 0..3 {
        assert!(taken(iod.report(&to_mgr, with(2), false).await), "it goes on");
    }
    assert!(taken(iod.report(&to_mgr, with(3), false).await), "and is followed by the next one");
    assert!(taken(iod.report(&to_mgr, with(3), false).await), "which confirms a newer time");
    mgr.stop().await;
}

#[tokio::test]
async fn a_target_whose_store_was_put_back_to_an_older_state_is_refused() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let (iod, to_mgr) = (world.iod().await, world.peer(&mgr, Role::Iod));
    let with = |process, store| Generations { process, boot: 1, store };
    let taken = |answer: pvfs_wire::msg::admin::HeartbeatAnswer| answer.targets[0].is_some();
    assert!(taken(iod.report(&to_mgr, with(1, 5), false).await));
    assert!(taken(iod.report(&to_mgr, with(1, 5), false).await), "follows the mgr's time now");
    let followed = iod.mgr_time_ms.swap(1, Ordering::Relaxed);
    assert!(!taken(iod.report(&to_mgr, with(2, 5), false).await), "the time it followed went back");
    iod.mgr_time_ms.store(followed, Ordering::Relaxed);
    assert!(taken(iod.report(&to_mgr, with(3, 5), false).await), "the right one is back");
    iod.mgr_time_ms.store(0, Ordering::Relaxed);
    assert!(
        taken(iod.report(&to_mgr, with(4, 6), false).await),
        "its machine died: it says so by its generation"
    );
    mgr.stop().await;
}
