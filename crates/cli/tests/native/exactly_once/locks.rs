//! The cases of locks: held, waited for, taken back, given up with a close.

use super::{
    cases::{Asked, Case, Step},
    names::{ino, make, replies, said, step, until_replied},
    world::{Cell, ROOT},
};
use pvfs_client::{File, OpenOptions, WaitsFor};
use pvfs_types::LockMode::{Read, Write};
use std::sync::Arc;

const fn at_mgr(name: &'static str, prepare: Step, act: Step, undo: Step) -> Case {
    Case { name, asked: Asked::Mgr, in_slot: true, prepare, act, undo }
}

/// The helper makes a file; the actor opens it, and holds its handle last.
async fn both_open(cell: &Cell) -> String {
    let file = make(&cell.helper, cell.dir, "f", "locked").await;
    file.flush().await.unwrap();
    cell.hold(file);
    let file = cell.actor.open(&ROOT, ino(cell, "f").await, OpenOptions::READ_WRITE).await;
    cell.hold(file.unwrap());
    String::new()
}

/// The helper's handle.
fn helpers(cell: &Cell) -> Arc<File> {
    Arc::clone(&cell.held.lock().unwrap()[0])
}

/// What the helper sees locked.
async fn seen(cell: &Cell) -> String {
    let held = helpers(cell).test_lock(Write, 0..=u64::MAX).await.unwrap();
    held.map_or("nothing locked".to_owned(), |held| {
        format!("{:?} {}..={}", held.range.mode, held.range.start, held.range.end)
    })
}

async fn until_waiting(cell: &Cell) {
    let waits = || cell.actor.status().waiting.iter().any(|call| call.waits_for == [WaitsFor::Lock]);
    while !waits() {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

pub const SET_LOCK: &[Case] = &[
    at_mgr(
        "set_lock of a range that is free",
        step!(|cell| both_open(&cell).await),
        step!(|cell| {
            let locked = cell.last().try_lock(Write, 3..=9).await;
            format!("{locked:?} {}", seen(&cell).await)
        }),
        step!(|cell| {
            let unlocked = said(cell.last().unlock(5..=9).await);
            format!("{unlocked} {}", seen(&cell).await)
        }),
    ),
    at_mgr(
        "set_lock of a range that is waited for",
        step!(|cell| {
            both_open(&cell).await;
            said(helpers(&cell).lock(Write, 0..=9).await)
        }),
        step!(|cell| {
            let file = cell.last();
            let waiting = tokio::spawn(async move { file.lock(Read, 5..=14).await });
            until_waiting(&cell).await;
            helpers(&cell).unlock(0..=u64::MAX).await.unwrap();
            format!("{} {}", said(waiting.await.unwrap()), seen(&cell).await)
        }),
        step!(|cell| {
            let unlocked = said(cell.last().unlock(0..=u64::MAX).await);
            format!("{unlocked} {}", seen(&cell).await)
        }),
    ),
];

pub const CANCEL_LOCK: &[Case] = &[at_mgr(
    "cancel_lock of a lock that is waited for",
    step!(|cell| {
        both_open(&cell).await;
        cell.last().lock(Read, 0..=4).await.unwrap();
        said(helpers(&cell).lock(Write, 5..=9).await)
    }),
    step!(|cell| {
        let (file, before) = (cell.last(), replies(&cell.actor, "cancel_lock"));
        let waiting = tokio::spawn(async move { file.lock(Write, 0..=9).await });
        until_waiting(&cell).await;
        waiting.abort();
        until_replied(&cell, "cancel_lock", before).await;
        helpers(&cell).unlock(0..=u64::MAX).await.unwrap();
        seen(&cell).await
    }),
    step!(|cell| {
        let locked = said(cell.last().lock(Write, 0..=9).await);
        format!("{locked} {}", seen(&cell).await)
    }),
)];

pub const RELEASE_LOCKS: &[Case] = &[at_mgr(
    "release_locks by a close",
    step!(|cell| {
        both_open(&cell).await;
        said(cell.last().lock(Write, 0..=9).await)
    }),
    step!(|cell| {
        let closed = said(cell.last().close().await);
        format!("{closed} {}", seen(&cell).await)
    }),
    step!(|cell| {
        let file = cell.actor.open(&ROOT, ino(&cell, "f").await, OpenOptions::READ_WRITE).await.unwrap();
        let locked = said(file.lock(Read, 1..=2).await);
        cell.hold(file);
        format!("{locked} {}", seen(&cell).await)
    }),
)];
