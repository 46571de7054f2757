//! What `pvfs status` shows of a client: whom it waits for and since when, and its counters.

use crate::{Client, WaitsFor, client::Core, waits::Call};
use pvfs_net::Peer;
use pvfs_types::{Ino, SessionId, TargetId};
use pvfs_wire::{
    Op,
    msg::{hello::Role, session::TargetInfo},
};
use std::{sync::Arc, time::Duration};

/// A client, as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientStatus {
    pub session: SessionId,
    pub label: String,
    pub up_for: Duration,
    /// The mgr first.
    pub servers: Vec<ServerStatus>,
    /// All targets, as the mgr last told.
    pub targets: Vec<TargetInfo>,
    /// Calls that have waited for a while, the oldest first.
    pub waiting: Vec<WaitingCall>,
    pub open_files: usize,
    /// Open files with writes that the mgr was not told of.
    pub unreported_files: usize,
    /// Changes that wait for the mgr's answer.
    pub changes_in_flight: usize,
    pub counters: Vec<(String, u64)>,
}

/// A daemon, as this client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    pub role: Role,
    pub addrs: Vec<String>,
    /// Iods: the targets it serves.
    pub targets: Vec<TargetId>,
    pub connected: bool,
    /// It is of this machine, and has this client's memory: bytes go through that.
    pub shares_memory: bool,
    /// Set: requests wait for it.
    pub waiting: Option<WaitingFor>,
}

/// How long a daemon has been waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingFor {
    pub since: Duration,
    pub tries: u32,
    /// Why the last try failed.
    pub error: String,
}

/// A call under way: who waits for what, since when, with how many tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingCall {
    /// The process in whose name it is made, where that is known; see [`crate::asked_by`].
    pub pid: Option<u32>,
    pub op: Op,
    /// The file, or the directory of the name.
    pub ino: Option<Ino>,
    pub since: Duration,
    pub waits_for: Vec<WaitsFor>,
    /// Failed tries to reach the daemon that was tried most; 0: asked, and not heard yet.
    pub tries: u32,
    /// Why the last try failed.
    pub error: String,
}

/// A call shows as waiting from then on: what is answered sooner is work.
const WAITS_AFTER: Duration = Duration::from_millis(100);

/// How long a daemon that is there may take to say so.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);

impl Client {
    /// Asks nobody.
    pub fn status(&self) -> ClientStatus {
        let core = &self.core;
        let inodes = core.inodes.all();
        let standing = core.session.standing();
        ClientStatus {
            session: standing.id,
            label: core.label.clone(),
            up_for: core.started.elapsed(),
            servers: servers(core),
            targets: core.targets.view().targets.clone(),
            waiting: core.waits.since(WAITS_AFTER).iter().map(|call| waiting_call(core, call)).collect(),
            open_files: inodes.len(),
            unreported_files: inodes.iter().filter(|inode| inode.has_unreported()).count(),
            changes_in_flight: standing.slots.in_flight(),
            counters: core.metrics.snapshot(),
        }
    }
}

impl Client {
    /// Whether a call made in the name of `pid` waits for a daemon that is away, or does not say that it is there when asked.
    /// What waits for another call's question waits for whatever this client waits for.
    pub async fn waits_in_vain(&self, pid: u32) -> bool {
        let core = &self.core;
        let calls = core.waits.since(Duration::ZERO);
        let own = calls.iter().filter(|call| call.pid == Some(pid)).flat_map(|call| call.waits_for());
        let mut servers: Vec<Arc<Peer>> = own.filter_map(|server| peer_of(core, server)).collect();
        if servers.is_empty() {
            let iods = core.targets.peers().into_iter().map(|(_, peer)| peer);
            servers = iods.filter(|peer| peer.waiting().is_some()).chain([Arc::clone(&core.mgr)]).collect();
        }
        for server in servers {
            if server.ping(ANSWERS_WITHIN).await.is_err() {
                return true;
            }
        }
        false
    }
}

fn peer_of(core: &Core, server: WaitsFor) -> Option<Arc<Peer>> {
    match server {
        WaitsFor::Lock => None,
        WaitsFor::Mgr => Some(Arc::clone(&core.mgr)),
        WaitsFor::Target(target) => core.targets.view().peer(target).cloned(),
    }
}

fn servers(core: &Core) -> Vec<ServerStatus> {
    let view = core.targets.view();
    let served_by = |peer: &Arc<Peer>| {
        let targets = view.targets.iter().map(|target| target.id);
        targets.filter(|&id| view.peer(id).is_some_and(|of| Arc::ptr_eq(of, peer))).collect()
    };
    let iods = core.targets.peers().into_iter().map(|(_, peer)| server(Role::Iod, &peer, served_by(&peer)));
    std::iter::once(server(Role::Mgr, &core.mgr, Vec::new())).chain(iods).collect()
}

fn server(role: Role, peer: &Peer, targets: Vec<TargetId>) -> ServerStatus {
    let waiting = peer.waiting().map(|waiting| WaitingFor {
        since: waiting.since.elapsed(),
        tries: waiting.tries,
        error: waiting.error,
    });
    let (connected, shares_memory) = (peer.welcome().is_some(), peer.lends());
    ServerStatus { role, addrs: peer.addrs(), targets, connected, shares_memory, waiting }
}

fn waiting_call(core: &Core, call: &Call) -> WaitingCall {
    let waits_for = call.waits_for();
    let servers = waits_for.iter().filter_map(|server| peer_of(core, *server));
    let worst = servers.filter_map(|server| server.waiting()).max_by_key(|waiting| waiting.tries);
    WaitingCall {
        pid: call.pid,
        op: call.op,
        ino: call.ino,
        since: call.since.elapsed(),
        tries: worst.as_ref().map_or(0, |waiting| waiting.tries),
        error: worst.map_or_else(String::new, |waiting| waiting.error),
        waits_for,
    }
}
