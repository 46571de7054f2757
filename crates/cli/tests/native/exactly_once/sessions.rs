//! The cases of sessions. They name no slot: an open is known by its client and incarnation, the others tell a state.

use super::{
    cases::{Asked, Case},
    names::{make, replies, said, step, until_replied},
    world::{ROOT, name},
};
use pvfs_client::{Client, OpenOptions};

pub const OPEN_SESSION: &[Case] = &[Case {
    name: "open_session",
    asked: Asked::Mgr,
    in_slot: false,
    prepare: step!(|_cell| String::new()),
    act: step!(|cell| {
        let client = Client::connect(cell.config.clone()).await.unwrap();
        let made = said(client.mkdir(&ROOT, cell.dir, &name("d"), 0o755).await);
        *cell.spare.lock().unwrap() = Some(client);
        made
    }),
    undo: step!(|cell| {
        let client = cell.spare.lock().unwrap().take().unwrap();
        said(client.rmdir(&ROOT, cell.dir, &name("d")).await);
        said(client.shutdown().await)
    }),
}];

pub const CLOSE_SESSION: &[Case] = &[Case {
    name: "close_session",
    asked: Asked::Mgr,
    in_slot: false,
    prepare: step!(|cell| {
        let client = Client::connect(cell.config.clone()).await.unwrap();
        make(&client, cell.dir, "f", "left behind").await; // dropped: closed in the background
        *cell.spare.lock().unwrap() = Some(client);
        String::new()
    }),
    act: step!(|cell| {
        let client = cell.spare.lock().unwrap().take().unwrap();
        said(client.shutdown().await)
    }),
    undo: step!(|cell| said(cell.actor.unlink(&ROOT, cell.dir, &name("f")).await)),
}];

pub const KEEP_ALIVE: &[Case] = &[Case {
    name: "keep_alive that claims an unlinked file",
    asked: Asked::Mgr,
    in_slot: false,
    prepare: step!(|cell| {
        let file = make(&cell.actor, cell.dir, "f", "unlinked, not gone").await;
        file.flush().await.unwrap();
        let file = cell.actor.open(&ROOT, file.ino(), OpenOptions::READ).await.unwrap();
        cell.hold(file);
        String::new()
    }),
    act: step!(|cell| {
        let before = replies(&cell.actor, "keep_alive");
        cell.actor.unlink(&ROOT, cell.dir, &name("f")).await.unwrap();
        until_replied(&cell, "keep_alive", before + 1).await;
        let bytes = cell.last().read_at(0, 100).await;
        bytes.map_or_else(|error| format!("{error:?}"), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }),
    undo: step!(|cell| said(cell.last().close().await)),
}];
