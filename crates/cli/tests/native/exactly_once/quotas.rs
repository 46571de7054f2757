//! The cases of quotas. What is set is seen in the answers, and in what a tree lets be made.

use super::{
    cases::Case,
    names::{at_mgr, put, step},
    world::{Cell, ROOT, name},
};
use pvfs_client::{ClientError, LimitChange, RenameMode};
use pvfs_types::QuotaOwner;

/// Sets how many inodes the tree of directory `d` may have, or that it is no tree.
async fn limit(cell: &Cell, inodes: LimitChange) -> String {
    let top = cell.helper.lookup(&ROOT, cell.dir, &name("d")).await.unwrap().ino;
    let set = cell.actor.set_quota(&ROOT, QuotaOwner::Tree(top), LimitChange::Keep, inodes).await;
    match set {
        Ok(quota) => format!("{} inodes of {:?}", quota.inodes, quota.inodes_limit),
        Err(error) => error.errno().to_string(),
    }
}

/// Makes what only an unlimited tree has room for, and then what does not fit through the edge of one.
async fn probe(cell: &Cell) -> String {
    let top = cell.helper.lookup(&ROOT, cell.dir, &name("d")).await.unwrap().ino;
    let more = cell.helper.mkdir(&ROOT, top, &name("more"), 0o755).await.map(drop);
    let (within, outside) = (name("in"), name("out"));
    let moved = cell.helper.rename(&ROOT, (top, &within), (cell.dir, &outside), RenameMode::Replace).await;
    let shown = |result: Result<(), ClientError>| result.map_or_else(|e| e.errno().name(), |()| "done");
    format!("{} {}", shown(more), shown(moved))
}

async fn tree_of_two(cell: &Cell) -> String {
    let top = cell.helper.mkdir(&ROOT, cell.dir, &name("d"), 0o755).await.unwrap().ino;
    cell.helper.mkdir(&ROOT, top, &name("in"), 0o755).await.unwrap();
    put(cell, "f", "beside it").await;
    "a directory with another".to_owned()
}

pub const SET_QUOTA: &[Case] = &[
    at_mgr(
        "set_quota makes a tree",
        step!(|cell| tree_of_two(&cell).await),
        step!(|cell| {
            let set = limit(&cell, LimitChange::Set(2)).await;
            format!("{set} {}", probe(&cell).await)
        }),
        step!(|cell| {
            let cleared = limit(&cell, LimitChange::Clear).await;
            format!("{cleared} {}", probe(&cell).await)
        }),
    ),
    at_mgr(
        "set_quota ends a tree",
        step!(|cell| {
            let made = tree_of_two(&cell).await;
            let top = cell.helper.lookup(&ROOT, cell.dir, &name("d")).await.unwrap().ino;
            let (keep, two) = (LimitChange::Keep, LimitChange::Set(2));
            cell.helper.set_quota(&ROOT, QuotaOwner::Tree(top), keep, two).await.unwrap();
            made
        }),
        step!(|cell| limit(&cell, LimitChange::Clear).await),
        // It is a tree again: a late copy must not end it.
        step!(|cell| {
            let set = limit(&cell, LimitChange::Set(2)).await;
            format!("{set} {}", probe(&cell).await)
        }),
    ),
];
