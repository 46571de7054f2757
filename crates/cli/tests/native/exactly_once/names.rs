//! The cases of changes of the name space, and of open files at the mgr.

use super::{
    cases::{Asked, Case, Step},
    world::{Cell, ROOT, name},
};
use pvfs_client::{
    Access, Client, ClientConfig, CreateOptions, Delegating, File, MemJournal, OpenOptions, RenameMode,
    TmpFileOptions,
};
use pvfs_types::{FileKind, Ino, LayoutHint, NewMode, SetAttr, SetTime, Timestamp};
use std::sync::Arc;

/// A result as text: its errno, or that it is good.
pub fn said<T, E: std::fmt::Debug>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

pub const fn at_mgr(name: &'static str, prepare: Step, act: Step, undo: Step) -> Case {
    Case { name, asked: Asked::Mgr, in_slot: true, prepare, act, undo }
}

pub async fn make(client: &Client, dir: Ino, file: &str, bytes: &'static str) -> File {
    let made = client.create(&ROOT, dir, &name(file), CreateOptions::default()).await.unwrap();
    if !bytes.is_empty() {
        made.file.write_at(0, bytes.into()).await.unwrap();
    }
    made.file
}

/// A file of the helper's, closed.
pub async fn put(cell: &Cell, file: &str, bytes: &'static str) -> Ino {
    let file = make(&cell.helper, cell.dir, file, bytes).await;
    file.close().await.unwrap();
    file.ino()
}

pub async fn ino(cell: &Cell, file: &str) -> Ino {
    cell.helper.lookup(&ROOT, cell.dir, &name(file)).await.unwrap().ino
}

/// Writes through a handle of the actor's, which stays open and says nothing to the mgr.
async fn write(cell: &Cell, file: &str, at: u64, bytes: &'static str) -> String {
    let file = cell.actor.open(&ROOT, ino(cell, file).await, OpenOptions::READ_WRITE).await;
    let file = cell.hold(file.unwrap());
    said(file.write_at(at, bytes.into()).await)
}

fn size(size: u64) -> SetAttr {
    SetAttr { size: Some(size), ..SetAttr::default() }
}

macro_rules! step {
    (|$cell:ident| $body:expr) => {
        |$cell| Box::pin(async move { $body })
    };
}
pub(crate) use step;

/// How many replies to `op` the actor has had.
pub fn replies(client: &Client, op: &str) -> u64 {
    let (op, dir, kind) = (format!("op=\"{op}\""), "dir=\"received\"", "kind=\"reply\"");
    let wanted = |series: &str| {
        series.starts_with("pvfs_messages_total")
            && [&op, dir, kind].iter().all(|label| series.contains(&**label))
    };
    client.metrics().snapshot().iter().filter(|(series, _)| wanted(series)).map(|(_, count)| count).sum()
}

/// Waits until the actor has had more than `before` replies to `op`.
pub async fn until_replied(cell: &Cell, op: &str, before: u64) {
    while replies(&cell.actor, op) <= before {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

pub const CREATE: &[Case] = &[
    at_mgr(
        "create O_EXCL",
        step!(|_cell| String::new()),
        step!(|cell| {
            let options = CreateOptions { exclusive: true, ..CreateOptions::default() };
            match cell.actor.create(&ROOT, cell.dir, &name("f"), options).await {
                Ok(made) => format!("created {} {}", made.created, said(made.file.close().await)),
                Err(error) => format!("{error:?}"),
            }
        }),
        step!(|cell| said(cell.actor.unlink(&ROOT, cell.dir, &name("f")).await)),
    ),
    at_mgr(
        "create with O_TRUNC of a file that is there",
        step!(|cell| said(Ok::<_, ()>(put(&cell, "f", "old bytes").await))),
        step!(|cell| {
            let made = cell.actor.create(&ROOT, cell.dir, &name("f"), CreateOptions::default()).await;
            made.map_or_else(
                |error| format!("{error:?}"),
                |made| {
                    let answer = format!("created {} size {}", made.created, made.attr.size);
                    cell.hold(made.file);
                    answer
                },
            )
        }),
        step!(|cell| said(cell.last().write_at(0, "newer bytes".into()).await)),
    ),
];

/// A file without a name, held open.
async fn make_nameless(cell: &Cell) -> String {
    let (mode, layout) = (NewMode { mode: 0o640, unmasked: None }, LayoutHint::default());
    let options = TmpFileOptions { access: Access::READ_WRITE, mode, linkable: true, layout };
    match cell.actor.tmpfile(&ROOT, cell.dir, options).await {
        Ok(made) => {
            let answer = format!("made, {} names", made.attr.nlink);
            cell.hold(made.file);
            answer
        }
        Err(error) => format!("{error:?}"),
    }
}

async fn name_last(cell: &Cell, file: &str) -> String {
    let last = cell.last();
    let written = said(last.write_at(0, "bytes".into()).await);
    let named = cell.actor.link(&ROOT, last.ino(), cell.dir, &name(file)).await;
    format!("{written}, {:?} names", named.map(|attr| attr.nlink))
}

pub const TMP_FILE: &[Case] = &[at_mgr(
    "tmpfile",
    step!(|_cell| String::new()),
    step!(|cell| make_nameless(&cell).await),
    step!(|cell| name_last(&cell, "f").await),
)];

pub const MK_DIR: &[Case] = &[at_mgr(
    "mkdir",
    step!(|_cell| String::new()),
    step!(|cell| said(cell.actor.mkdir(&ROOT, cell.dir, &name("d"), 0o750).await)),
    step!(|cell| said(cell.actor.rmdir(&ROOT, cell.dir, &name("d")).await)),
)];

pub const MK_NOD: &[Case] = &[at_mgr(
    "mknod",
    step!(|_cell| String::new()),
    step!(|cell| {
        let made = cell.actor.mknod(&ROOT, cell.dir, &name("p"), FileKind::Fifo, 0o640, (0, 0)).await;
        said(made)
    }),
    step!(|cell| said(cell.actor.unlink(&ROOT, cell.dir, &name("p")).await)),
)];

pub const SYM_LINK: &[Case] = &[at_mgr(
    "symlink",
    step!(|_cell| String::new()),
    step!(|cell| said(cell.actor.symlink(&ROOT, cell.dir, &name("s"), b"to/nowhere").await)),
    step!(|cell| said(cell.actor.unlink(&ROOT, cell.dir, &name("s")).await)),
)];

pub const LINK: &[Case] = &[
    at_mgr(
        "link",
        step!(|cell| said(Ok::<_, ()>(put(&cell, "f", "bytes").await))),
        step!(|cell| said(cell.actor.link(&ROOT, ino(&cell, "f").await, cell.dir, &name("g")).await)),
        step!(|cell| said(cell.actor.unlink(&ROOT, cell.dir, &name("g")).await)),
    ),
    at_mgr(
        "link of a file without a name",
        step!(|cell| make_nameless(&cell).await),
        step!(|cell| name_last(&cell, "g").await),
        step!(|cell| said(cell.actor.unlink(&ROOT, cell.dir, &name("g")).await)),
    ),
];

pub const UNLINK: &[Case] = &[at_mgr(
    "unlink",
    step!(|cell| said(Ok::<_, ()>(put(&cell, "f", "bytes").await))),
    step!(|cell| said(cell.actor.unlink(&ROOT, cell.dir, &name("f")).await)),
    // The name is there again: a late copy must not take it away.
    step!(|cell| {
        let file = make(&cell.actor, cell.dir, "f", "other bytes").await;
        said(file.close().await)
    }),
)];

pub const RM_DIR: &[Case] = &[at_mgr(
    "rmdir",
    step!(|cell| said(cell.helper.mkdir(&ROOT, cell.dir, &name("d"), 0o755).await)),
    step!(|cell| said(cell.actor.rmdir(&ROOT, cell.dir, &name("d")).await)),
    step!(|cell| said(cell.actor.mkdir(&ROOT, cell.dir, &name("d"), 0o700).await)),
)];

async fn rename(cell: Cell, from: &str, to: &str, mode: RenameMode) -> String {
    let (from, to) = (name(from), name(to));
    said(cell.actor.rename(&ROOT, (cell.dir, &from), (cell.dir, &to), mode).await)
}

pub const RENAME: &[Case] = &[
    at_mgr(
        "rename",
        step!(|cell| said(Ok::<_, ()>(put(&cell, "a", "bytes").await))),
        step!(|cell| rename(cell, "a", "b", RenameMode::NoReplace).await),
        step!(|cell| rename(cell, "b", "a", RenameMode::NoReplace).await),
    ),
    at_mgr(
        "rename over a file",
        step!(|cell| {
            put(&cell, "a", "new").await;
            said(Ok::<_, ()>(put(&cell, "b", "old").await))
        }),
        step!(|cell| rename(cell, "a", "b", RenameMode::Replace).await),
        step!(|cell| {
            let file = make(&cell.actor, cell.dir, "a", "a later one").await;
            said(file.close().await)
        }),
    ),
    at_mgr(
        "rename that exchanges",
        step!(|cell| {
            put(&cell, "a", "one").await;
            said(Ok::<_, ()>(put(&cell, "b", "two").await))
        }),
        step!(|cell| rename(cell, "a", "b", RenameMode::Exchange).await),
        step!(|cell| rename(cell, "a", "b", RenameMode::Exchange).await),
    ),
    at_mgr(
        "rename of a directory over one in another directory",
        step!(|cell| {
            for path in ["a", "a/moved", "a/moved/below", "b", "b/replaced"] {
                make_dir(&cell, path).await;
            }
            String::new()
        }),
        step!(|cell| move_dir(&cell, ("a", "moved"), ("b", "replaced")).await),
        step!(|cell| move_dir(&cell, ("b", "replaced"), ("a", "moved")).await),
    ),
];

/// The directory at `path` below the cell's own.
async fn dir_at(cell: &Cell, path: &str) -> Ino {
    let mut dir = cell.dir;
    for step in path.split('/').filter(|step| !step.is_empty()) {
        dir = cell.helper.lookup(&ROOT, dir, &name(step)).await.unwrap().ino;
    }
    dir
}

async fn make_dir(cell: &Cell, path: &str) {
    let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
    cell.helper.mkdir(&ROOT, dir_at(cell, parent).await, &name(last), 0o755).await.unwrap();
}

/// Says also what then is above the moved one.
async fn move_dir(cell: &Cell, from: (&str, &str), to: (&str, &str)) -> String {
    let (from_dir, to_dir) = (dir_at(cell, from.0).await, dir_at(cell, to.0).await);
    let (from, to_name) = ((from_dir, &name(from.1)), name(to.1));
    let moved = said(cell.actor.rename(&ROOT, from, (to_dir, &to_name), RenameMode::Replace).await);
    let there = cell.helper.lookup(&ROOT, to_dir, &to_name).await.unwrap();
    let above = cell.helper.lookup_parent(&ROOT, there.ino).await.unwrap();
    format!("{moved}, above it its new directory: {}", above.ino == to_dir)
}

pub const SET_ATTR: &[Case] = &[
    at_mgr(
        "setattr of the mode",
        step!(|cell| said(Ok::<_, ()>(put(&cell, "f", "bytes").await))),
        step!(|cell| {
            let changes = SetAttr { mode: Some(0o600), ..SetAttr::default() };
            said(cell.actor.setattr(&ROOT, ino(&cell, "f").await, changes, None).await)
        }),
        step!(|cell| {
            let changes = SetAttr { mode: Some(0o755), ..SetAttr::default() };
            said(cell.actor.setattr(&ROOT, ino(&cell, "f").await, changes, None).await)
        }),
    ),
    at_mgr(
        "truncate to nothing",
        step!(|cell| said(Ok::<_, ()>(put(&cell, "f", "old bytes").await))),
        step!(|cell| said(cell.actor.setattr(&ROOT, ino(&cell, "f").await, size(0), None).await)),
        step!(|cell| write(&cell, "f", 0, "newer").await),
    ),
    at_mgr(
        "truncate to a part",
        step!(|cell| said(Ok::<_, ()>(put(&cell, "f", "old bytes").await))),
        step!(|cell| said(cell.actor.setattr(&ROOT, ino(&cell, "f").await, size(3), None).await)),
        step!(|cell| write(&cell, "f", 3, "er bytes").await),
    ),
    at_mgr(
        "truncate to more",
        step!(|cell| said(Ok::<_, ()>(put(&cell, "f", "old").await))),
        step!(|cell| said(cell.actor.setattr(&ROOT, ino(&cell, "f").await, size(9), None).await)),
        step!(|cell| said(cell.actor.setattr(&ROOT, ino(&cell, "f").await, size(2), None).await)),
    ),
];

pub const SET_LAYOUT: &[Case] = &[at_mgr(
    "set_layout",
    step!(|cell| said(cell.helper.mkdir(&ROOT, cell.dir, &name("d"), 0o755).await)),
    step!(|cell| {
        let layout = LayoutHint { ssize: Some(4096), ..LayoutHint::default() };
        said(cell.actor.set_layout(&ROOT, ino(&cell, "d").await, layout).await)
    }),
    step!(|cell| {
        let layout = LayoutHint { ssize: Some(8192), ..LayoutHint::default() };
        said(cell.actor.set_layout(&ROOT, ino(&cell, "d").await, layout).await)
    }),
)];

pub const OPEN: &[Case] = &[
    at_mgr(
        "open for writing",
        step!(|cell| said(Ok::<_, ()>(put(&cell, "f", "old").await))),
        // Others see what is written only where the mgr knows of the writer.
        step!(|cell| write(&cell, "f", 3, " and new").await),
        step!(|cell| said(cell.last().close().await)),
    ),
    at_mgr(
        "open with O_TRUNC",
        step!(|cell| said(Ok::<_, ()>(put(&cell, "f", "old bytes").await))),
        step!(|cell| {
            let ino = ino(&cell, "f").await;
            let opened = cell.actor.open(&ROOT, ino, OpenOptions::READ_WRITE.truncate()).await;
            said(opened.map(|file| cell.hold(file)))
        }),
        // Another client's bytes: the open that is sent again must leave them alone.
        step!(|cell| {
            let file = cell.helper.open(&ROOT, ino(&cell, "f").await, OpenOptions::WRITE).await.unwrap();
            file.write_at(0, "another's".into()).await.unwrap();
            said(file.close().await)
        }),
    ),
];

pub const REPORT_SIZE: &[Case] = &[
    at_mgr(
        "report_size at fsync",
        step!(|cell| said(cell.hold(make(&cell.actor, cell.dir, "f", "some bytes").await).attr().await)),
        step!(|cell| said(cell.last().sync().await)),
        step!(|cell| said(cell.helper.setattr(&ROOT, ino(&cell, "f").await, size(4), None).await)),
    ),
    at_mgr(
        "report_size at close",
        step!(|cell| said(cell.hold(make(&cell.actor, cell.dir, "f", "some bytes").await).attr().await)),
        step!(|cell| said(cell.last().close().await)),
        // A late copy must not end the new handle's record.
        step!(|cell| write(&cell, "f", 10, ", and more").await),
    ),
];

/// A file that another client of this cell has made, alone with it, and written small; held open.
pub async fn make_alone(cell: &Cell, file: &str, bytes: &'static str) -> String {
    let mut client = [0; 16];
    client[..8].copy_from_slice(&cell.dir.0.to_be_bytes());
    let estate = Some(MemJournal::new(client).estate());
    let config = ClientConfig { delegations: Delegating::Yes, estate, ..cell.config.clone() };
    let client = Client::connect(config).await.unwrap();
    while client.delegation(cell.dir).is_none() {
        client.getattr(&ROOT, cell.dir).await.unwrap();
    }
    let made = make(&client, cell.dir, file, bytes).await;
    *cell.spare.lock().unwrap() = Some(client);
    said(cell.hold(made).attr().await)
}

/// Whether the mgr keeps the bytes of a file.
pub async fn is_inline(cell: &Cell, file: &str) -> bool {
    cell.helper.lookup(&ROOT, cell.dir, &name(file)).await.unwrap().is_inline()
}

pub const PUT_INLINE: &[Case] = &[at_mgr(
    "put_inline",
    step!(|cell| make_alone(&cell, "f", "some bytes").await),
    step!(|cell| {
        let closed = said(cell.last().close().await);
        format!("{closed}, kept: {}", is_inline(&cell, "f").await)
    }),
    // A late copy must not hide these.
    step!(|cell| {
        let spare = Arc::clone(cell.spare.lock().unwrap().as_ref().unwrap());
        let file = spare.open(&ROOT, ino(&cell, "f").await, OpenOptions::WRITE).await.unwrap();
        file.write_at(0, "other bytes, more of them".into()).await.unwrap();
        said(file.close().await)
    }),
)];

pub const END_WRITES: &[Case] = &[at_mgr(
    "end_writes",
    step!(|_cell| String::new()),
    step!(|cell| {
        let before = replies(&cell.actor, "end_writes");
        let closed = said(make(&cell.actor, cell.dir, "f", "").await.close().await);
        until_replied(&cell, "end_writes", before).await;
        closed
    }),
    // A late copy must not end the new handle's record.
    step!(|cell| write(&cell, "f", 0, "seven b").await),
)];

async fn set_atime(cell: &Cell, secs: i64) -> String {
    let at = Some(SetTime::At(Timestamp { secs, nanos: 0 }));
    let changes = SetAttr { atime: at, ..SetAttr::default() };
    let set = cell.actor.setattr(&ROOT, ino(cell, "f").await, changes, None).await;
    format!("{:?}", set.map(|attr| attr.atime.secs))
}

pub const TOUCH_ATIMES: &[Case] = &[at_mgr(
    "touch_atimes",
    step!(|cell| {
        put(&cell, "f", "").await;
        set_atime(&cell, 0).await
    }),
    step!(|cell| {
        let ino = ino(&cell, "f").await;
        let touched = said(cell.actor.touch_atimes(&[(ino, Timestamp { secs: 1000, nanos: 0 })], true).await);
        format!("{touched} {}", cell.helper.getattr(&ROOT, ino).await.unwrap().atime.secs)
    }),
    // A late copy must not move it.
    step!(|cell| set_atime(&cell, 5).await),
)];
