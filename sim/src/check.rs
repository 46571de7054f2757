//! What must be true when everything is up again and nobody uses the file system any more: nothing is left behind,
//! nothing is lost with it.

use crate::{client::ClientSeat, cluster::Cluster};
use pvfs_kv::Read;
use pvfs_meta::{garbage, inode, intent, orphan, target, writer};
use pvfs_types::{DataGen, Ino, Slot};
use std::{sync::Arc, time::Duration};

/// How long what was left behind may stay: leases run out, targets are asked.
const GRACE: Duration = Duration::from_mins(5);

/// How long until iods have committed what was written.
const COMMITTED: Duration = Duration::from_secs(30);

/// Ends the clients and checks the stores against each other.
pub async fn all(cluster: &Cluster, seats: &[Arc<ClientSeat>]) {
    for seat in seats {
        match tokio::time::timeout(GRACE, seat.shut_down()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => cluster.trace.fail(format!("{} does not shut down: {error}", seat.name)),
            Err(_) => cluster.trace.fail(format!("{} does not shut down: {}", seat.name, seat.waiting())),
        }
    }
    let mut left = leftovers(cluster);
    for _ in 0..GRACE.as_secs() {
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        left = leftovers(cluster);
    }
    for what in left {
        cluster.trace.fail(format!("left behind: {what}"));
    }
    keyspace(cluster);
    // The next commit lets go of what was written last.
    tokio::time::sleep(COMMITTED).await;
    resources(cluster);
}

fn keyspace(cluster: &Cluster) {
    match pvfs_meta::check::check(&cluster.engine.view()) {
        Ok(findings) => {
            for finding in findings {
                cluster.trace.fail(format!("metadata: {finding}"));
            }
        }
        Err(error) => cluster.trace.fail(format!("metadata cannot be read: {error}")),
    }
}

/// What should go in time.
fn leftovers(cluster: &Cluster) -> Vec<String> {
    let view = cluster.engine.view();
    try_leftovers(cluster, &view).unwrap_or_else(|error| vec![error.to_string()])
}

fn try_leftovers(cluster: &Cluster, view: &impl Read) -> Result<Vec<String>, pvfs_meta::MetaError> {
    let mut left = Vec::new();
    left.extend(orphan::list_after(view, 0, 100)?.iter().map(|orphan| format!("{orphan:?}")));
    left.extend(intent::list(view)?.iter().map(|intent| format!("truncation of {}", intent.ino)));
    for (target, _) in target::list(view)? {
        left.extend(
            garbage::list(view, target, 100)?.iter().map(|object| format!("{object} as garbage on {target}")),
        );
    }
    left.extend(writer::sessions(view)?.iter().map(|session| format!("{session} as a writer")));
    // What daemons need for each other; half-open ones go with their keep-alives.
    let connections = cluster.net.open_connections();
    if connections.len() > 2 * cluster.iods {
        left.push(format!("connections for {} iods: {connections:?}", cluster.iods));
    }
    for disk in cluster.daemons.iter().filter_map(|daemon| daemon.disk.as_ref()) {
        for name in disk.files().iter().filter(|name| name.starts_with("objects/")) {
            let (ino, data_gen, slot) = parse(name);
            let owner = inode::find(view, ino)?;
            let fits = owner.is_some_and(|owner| {
                owner.data_gen == data_gen && owner.dist.is_some_and(|dist| slot.0 < dist.pcount)
            });
            if !fits {
                left.push(format!("object {name}, which belongs to no file"));
            }
        }
    }
    Ok(left)
}

/// An object's name: see `docs/disk-target.md`.
fn parse(name: &str) -> (Ino, DataGen, Slot) {
    let file = name.rsplit('/').next().unwrap_or(name);
    let mut parts = file.split('.').map(|part| u64::from_str_radix(part, 16).expect("hexadecimal"));
    let mut next = || parts.next().expect("three parts");
    (
        Ino(next()),
        DataGen(u32::try_from(next()).expect("32 bits")),
        Slot(u16::try_from(next()).expect("16 bits")),
    )
}

/// Descriptors: what daemons keep open for the next request, and no more.
fn resources(cluster: &Cluster) {
    for disk in cluster.daemons.iter().filter_map(|daemon| daemon.disk.as_ref()) {
        // Its cache of objects, and the records of the time, of losses and of syncs.
        let open = disk.open_files();
        if open.len() > 8 + 3 {
            cluster.trace.fail(format!("{} descriptors are open: {open:?}", open.len()));
        }
    }
}
