//! The cases of operations at an iod: its clients', and the mgr's.

use super::{
    cases::{Asked, Case, Step},
    names::{ino, is_inline, make, make_alone, put, said, step},
    world::{Cell, PATIENCE, ROOT, name},
};
use pvfs_client::OpenOptions;
use pvfs_types::SetAttr;
use std::{path::Path, time::Duration};

const fn at_iod(name: &'static str, prepare: Step, act: Step, undo: Step) -> Case {
    Case { name, asked: Asked::Iod, in_slot: false, prepare, act, undo }
}

pub const READ: &[Case] = &[at_iod(
    "read",
    step!(|cell| {
        put(&cell, "f", "what is read").await;
        let file = cell.actor.open(&ROOT, ino(&cell, "f").await, OpenOptions::READ).await.unwrap();
        cell.hold(file);
        String::new()
    }),
    step!(|cell| {
        let bytes = cell.last().read_at(0, 100).await;
        bytes.map_or_else(|error| format!("{error:?}"), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }),
    step!(|cell| said(cell.last().close().await)),
)];

pub const WRITE: &[Case] = &[
    at_iod(
        "write",
        step!(|cell| said(cell.hold(make(&cell.actor, cell.dir, "f", "").await).attr().await)),
        step!(|cell| said(cell.last().write_at(0, "the first bytes".into()).await)),
        // A late copy must not land on these.
        step!(|cell| said(cell.last().write_at(0, "the newer ones!".into()).await)),
    ),
    at_iod(
        "append",
        step!(|cell| said(cell.hold(make(&cell.actor, cell.dir, "f", "").await).attr().await)),
        step!(|cell| {
            let (one, two) =
                (cell.last().append("one,".into()).await, cell.last().append("two,".into()).await);
            format!("{one:?} {two:?}")
        }),
        step!(|cell| format!("{:?}", cell.last().append("three".into()).await)),
    ),
    at_iod(
        "write past which a truncation comes",
        step!(|cell| said(cell.hold(make(&cell.actor, cell.dir, "f", "").await).attr().await)),
        step!(|cell| said(cell.last().write_at(0, "cut here, not kept".into()).await)),
        step!(|cell| {
            let cut = said(cell.last().truncate(8).await);
            format!("{cut} {}", said(cell.last().write_at(20, "!".into()).await))
        }),
    ),
];

pub const FILL: &[Case] = &[at_iod(
    "fill",
    step!(|cell| said(
        cell.hold(make(&cell.actor, cell.dir, "f", "bytes, and some more").await).attr().await
    )),
    step!(|cell| said(cell.last().punch(2, 8).await)),
    // A late copy must not empty these.
    step!(|cell| said(cell.last().write_at(0, "the newer ones".into()).await)),
)];

/// As much as targets copy by themselves.
const COPY_BYTES: u64 = 4 << 20;

pub const COPY: &[Case] = &[at_iod(
    "copy",
    step!(|cell| {
        let (from, to) =
            (make(&cell.actor, cell.dir, "from", "").await, make(&cell.actor, cell.dir, "to", "").await);
        from.write_at(0, vec![b'x'; 4 << 20].into()).await.unwrap();
        to.write_at(0, "what was there".into()).await.unwrap();
        cell.hold(from);
        cell.hold(to);
        String::new()
    }),
    step!(|cell| {
        let from = std::sync::Arc::clone(&cell.held.lock().unwrap()[0]);
        format!("{:?}", cell.last().copy_from(0, &from, 0, COPY_BYTES).await)
    }),
    // A late copy must not land on these.
    step!(|cell| said(cell.last().write_at(0, "the newer ones".into()).await)),
)];

pub const SYNC: &[Case] = &[at_iod(
    "sync",
    step!(|cell| said(cell.hold(make(&cell.actor, cell.dir, "f", "bytes").await).attr().await)),
    step!(|cell| said(cell.last().sync().await)),
    step!(|cell| said(cell.last().write_at(0, "other".into()).await)),
)];

pub const TRUNCATE_OBJECTS: &[Case] = &[at_iod(
    "truncate_objects",
    step!(|cell| said(Ok::<_, ()>(put(&cell, "f", "some bytes").await))),
    step!(|cell| {
        let changes = SetAttr { size: Some(4), ..SetAttr::default() };
        said(cell.actor.setattr(&ROOT, ino(&cell, "f").await, changes, None).await)
    }),
    // A late copy must not cut these.
    step!(|cell| {
        let file = cell.actor.open(&ROOT, ino(&cell, "f").await, OpenOptions::WRITE).await.unwrap();
        file.write_at(4, " and more".into()).await.unwrap();
        said(file.close().await)
    }),
)];

pub const PUT_OBJECT: &[Case] = &[at_iod(
    "put_object",
    step!(|cell| {
        make_alone(&cell, "f", "some bytes").await;
        let closed = said(cell.last().close().await);
        format!("{closed}, kept: {}", is_inline(&cell, "f").await)
    }),
    step!(|cell| {
        let file = cell.actor.open(&ROOT, ino(&cell, "f").await, OpenOptions::WRITE).await.unwrap();
        let written = said(cell.hold(file).write_at(0, "newer".into()).await);
        format!("{written}, kept: {}", is_inline(&cell, "f").await)
    }),
    // A late copy must not land on these.
    step!(|cell| said(cell.last().write_at(0, "newest, and more".into()).await)),
)];

pub const REMOVE_OBJECTS: &[Case] = &[at_iod(
    "remove_objects",
    step!(|cell| said(Ok::<_, ()>(put(&cell, "f", "some bytes").await))),
    step!(|cell| {
        let object = format!("{:016x}.", ino(&cell, "f").await.0);
        let before = objects(&cell.objects, &object);
        cell.actor.unlink(&ROOT, cell.dir, &name("f")).await.unwrap();
        format!("{before} object, then {}", until_gone(&cell, &object).await)
    }),
    step!(|cell| {
        let file = make(&cell.actor, cell.dir, "f", "another file").await;
        said(file.close().await)
    }),
)];

async fn until_gone(cell: &Cell, object: &str) -> usize {
    let begin = std::time::Instant::now();
    while objects(&cell.objects, object) > 0 && begin.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    objects(&cell.objects, object)
}

/// How many object files below `dir` begin with `prefix`.
fn objects(dir: &Path, prefix: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let count = entries.flatten().map(|entry| {
        if entry.path().is_dir() {
            objects(&entry.path(), prefix)
        } else {
            usize::from(entry.file_name().to_string_lossy().starts_with(prefix))
        }
    });
    count.sum()
}
