//! Writers and sizes; what a writer that died leaves behind.

use crate::world::{World, until};
use pvfs_types::{DataGen, ObjectId, Slot, Timestamp};
use pvfs_wire::{Access, msg::hello::Role};

#[tokio::test]
async fn others_are_told_that_a_file_has_writers() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let (iod, to_mgr) = (world.iod().await, world.peer(&mgr, Role::Iod));
    iod.reports(&to_mgr).await;
    let (writer, reader) = (world.client(&mgr).await, world.client(&mgr).await);
    let attr = writer.created("a").await.entry.attr;
    assert!(reader.getattr(attr.ino).await.expect("is there").has_writers);
    assert!(!writer.getattr(attr.ino).await.expect("is there").has_writers, "its own writing it knows of");
    reader.open(attr.ino, Access::READ, false).await.expect("opens");
    assert!(!writer.getattr(attr.ino).await.expect("is there").has_writers, "readers leave no trace");
    writer.reports_size(&attr, 1000, true).await;
    let entry = reader.getattr(attr.ino).await.expect("is there");
    assert_eq!((entry.attr.size, entry.has_writers), (1000, false));
    mgr.stop().await;
}

#[tokio::test]
async fn the_size_that_a_dead_writer_left_is_asked_from_the_targets() {
    let mut world = World::new();
    world.lease_ms = 200;
    let mgr = world.start_mgr().await;
    let (iod, to_mgr) = (world.iod().await, world.peer(&mgr, Role::Iod));
    iod.reports(&to_mgr).await;
    let writer = world.client(&mgr).await;
    let attr = writer.created("a").await.entry.attr;
    iod.objects.put(ObjectId { ino: attr.ino, data_gen: DataGen(1), slot: Slot(0) }, 5000);
    let reader = world.client(&mgr).await;
    let entry = until("the writer's record goes", || async {
        iod.reports(&to_mgr).await;
        reader.keep_alive(0, &[], &[]).await.expect("known");
        reader.getattr(attr.ino).await.ok().filter(|entry| !entry.has_writers)
    })
    .await;
    assert_eq!(entry.attr.size, 5000);
    assert!(entry.attr.mtime >= Timestamp { secs: 77, nanos: 0 });
    assert!(writer.keep_alive(0, &[], &[]).await.is_err(), "the writer was expelled first");
    mgr.stop().await;
}
