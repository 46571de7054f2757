//! The map: which target has which place in which iodtab, and which iod serves it. One [`Peer`] per iod's address.
//!
//! Asked anew when the mgr says it changed, when an iod cannot be reached, and when an iod says that it is the wrong
//! one. A call that waits for an iod moves on to the target's new address as soon as it is known.

use crate::{
    calls::{refused, shut_down},
    client::Core,
    error::Result,
    waits::{WaitsFor, waiting_for},
};
use bytes::Bytes;
use pvfs_env::BoxFuture;
use pvfs_net::{Dialer, Load, Peer, ReadBody, read, read_into};
use pvfs_types::{Distribution, IodtabGen, Slot, TargetId};
use pvfs_wire::{
    Op, Refusal, Request, encode,
    msg::{
        hello::Role,
        session::{GetTargets, TargetInfo, Targets},
    },
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use tracing::{debug, warn};

/// Pauses between refreshes that changed nothing, doubling.
const REFRESH_PAUSE_MIN: Duration = Duration::from_millis(100);
const REFRESH_PAUSE_MAX: Duration = Duration::from_secs(8);

/// The map as last told, and the connections made by it.
pub(crate) struct TargetMap {
    view: watch::Sender<Arc<View>>,
    dialer: Arc<Dialer>,
    peers: Mutex<BTreeMap<String, Arc<Peer>>>,
    /// A refresh would be good, soon.
    wanted: Arc<Notify>,
    /// Somebody cannot go on without a refresh.
    urgent: Notify,
    /// Counts refreshes.
    refreshed: watch::Sender<u64>,
}

/// One answer of the mgr, with a peer for each address.
#[derive(Default)]
pub(crate) struct View {
    version: u64,
    pub targets: Vec<TargetInfo>,
    peers: BTreeMap<TargetId, Arc<Peer>>,
    iodtabs: BTreeMap<IodtabGen, Vec<TargetId>>,
}

impl View {
    pub fn target(&self, dist: &Distribution, slot: Slot) -> Option<TargetId> {
        let iodtab = self.iodtabs.get(&dist.iodtab).filter(|iodtab| !iodtab.is_empty())?;
        iodtab.get(dist.place(slot, iodtab.len())).copied()
    }

    pub fn peer(&self, target: TargetId) -> Option<&Arc<Peer>> {
        self.peers.get(&target)
    }
}

impl TargetMap {
    pub fn new(dialer: Arc<Dialer>) -> TargetMap {
        TargetMap {
            view: watch::channel(Arc::default()).0,
            dialer,
            peers: Mutex::default(),
            wanted: Arc::default(),
            urgent: Notify::new(),
            refreshed: watch::channel(0).0,
        }
    }

    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// The mgr's map has this version.
    pub fn version_is(&self, version: u64) {
        if self.view.borrow().version != version {
            self.urgent.notify_one();
        }
    }

    /// Has the map asked for anew, and waits until it was.
    pub async fn refresh(&self) {
        let mut refreshed = self.refreshed.subscribe();
        refreshed.borrow_and_update();
        self.urgent.notify_one();
        // The sender lives as long as `self`.
        let _ = waiting_for(WaitsFor::Mgr, refreshed.changed()).await;
    }

    /// The target that holds `slot`; waits where the file's iodtab is newer than the map.
    pub async fn locate(&self, dist: &Distribution, slot: Slot) -> TargetId {
        let mut pause = REFRESH_PAUSE_MIN;
        loop {
            if let Some(target) = self.view.borrow().target(dist, slot) {
                return target;
            }
            self.refresh().await;
            if self.view.borrow().target(dist, slot).is_none() {
                warn!(iodtab = %dist.iodtab, "the mgr does not list the file's iodtab, asking on");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(REFRESH_PAUSE_MAX);
            }
        }
    }

    /// The iod of `target` has this client's memory, as far as is known now.
    pub fn lends(&self, target: TargetId) -> bool {
        self.view.borrow().peer(target).is_some_and(|peer| peer.lends())
    }

    /// Calls the iod of `target`, wherever it is, until answered. Refusals are the caller's to understand.
    pub async fn call<R: Request>(
        &self,
        target: TargetId,
        request: &R,
        payload: &[Bytes],
    ) -> Result<(R::Reply, Bytes), Refusal> {
        let mut reply = None;
        let body = encode(request);
        let payload =
            self.call_encoded(target, R::OP, &body, payload.into(), &mut read_into(&mut reply)).await?;
        Ok((read(reply), payload))
    }

    /// As [`TargetMap::call`], of a request that is encoded already; see [`Peer::call_encoded`].
    pub fn call_encoded<'a>(
        &'a self,
        target: TargetId,
        op: Op,
        body: &'a [u8],
        load: Load<'a>,
        read: ReadBody<'a>,
    ) -> BoxFuture<'a, Result<Bytes, Refusal>> {
        let call = self.call_wherever(target, op, body, load, read);
        Box::pin(waiting_for(WaitsFor::Target(target), call))
    }

    async fn call_wherever(
        &self,
        target: TargetId,
        op: Op,
        body: &[u8],
        load: Load<'_>,
        read: ReadBody<'_>,
    ) -> Result<Bytes, Refusal> {
        let mut views = self.view.subscribe();
        loop {
            let found = views.borrow_and_update().peer(target).cloned();
            let Some(peer) = found else {
                self.wanted.notify_one();
                let _ = views.changed().await;
                continue;
            };
            let mut call = peer.call_encoded(op, body.to_vec(), load, read);
            loop {
                tokio::select! {
                    biased;
                    answer = &mut call => return answer,
                    _ = views.changed() => {
                        let same = views.borrow_and_update().peer(target).is_some_and(|now| Arc::ptr_eq(now, &peer));
                        if !same {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Whether a target's iod is waited for, or was never heard of.
    fn is_one_away(&self) -> bool {
        let view = self.view();
        view.targets.iter().any(|target| view.peer(target.id).is_none_or(|peer| peer.waiting().is_some()))
    }

    /// Every iod's connection, with its address.
    pub fn peers(&self) -> Vec<(String, Arc<Peer>)> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut peers: Vec<_> = peers.iter().map(|(addr, peer)| (addr.clone(), Arc::clone(peer))).collect();
        peers.sort_by(|a, b| a.0.cmp(&b.0));
        peers
    }

    /// Takes the mgr's answer. True: something changed. A mgr that has just started has heard of no target yet: what
    /// was known stays good until it has.
    fn take(&self, answer: Targets) -> bool {
        let before = self.view();
        let mut known = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut peers = BTreeMap::new();
        for target in &answer.targets {
            let peer = if target.addr.is_empty() {
                before.peer(target.id).cloned()
            } else {
                let peer = known.entry(target.addr.clone()).or_insert_with(|| self.dial(&target.addr));
                Some(Arc::clone(peer))
            };
            peers.extend(peer.map(|peer| (target.id, peer)));
        }
        known.retain(|_, peer| peers.values().any(|used| Arc::ptr_eq(used, peer)));
        drop(known);
        let iodtabs = answer.iodtabs.into_iter().map(|iodtab| (iodtab.generation, iodtab.targets)).collect();
        let new = View { version: answer.version, targets: answer.targets, peers, iodtabs };
        let changed = self.view.borrow().version != new.version;
        self.view.send_replace(Arc::new(new));
        self.refreshed.send_modify(|n| *n += 1);
        changed
    }

    /// A new connection, watched: when it cannot be made, the iod may have moved.
    fn dial(&self, addr: &str) -> Arc<Peer> {
        let peer = self.dialer.peer(Role::Iod, vec![addr.to_owned()]);
        let (mut failures, wanted) = (peer.unreachable(), Arc::clone(&self.wanted));
        pvfs_env::task::spawn(async move {
            while failures.changed().await.is_ok() {
                wanted.notify_one();
            }
        });
        peer
    }
}

impl Core {
    /// Asks the mgr for the map.
    pub async fn load_targets(&self) -> Result<bool> {
        let answer = self.mgr.call(&GetTargets {}).await.map_err(refused::<GetTargets>)?;
        debug!(version = answer.version, targets = answer.targets.len(), "targets");
        Ok(self.targets.take(answer))
    }

    /// Refreshes the map whenever somebody wants it, at a bearable pace.
    pub async fn refresh_task(self: Arc<Self>) {
        let mut closed = self.closed.subscribe();
        let mut pause = REFRESH_PAUSE_MIN;
        loop {
            let due = async {
                tokio::select! {
                    biased;
                    () = self.targets.urgent.notified() => return true,
                    () = self.targets.wanted.notified() => {}
                }
                // An iod is away. Its address seldom changes, and the keep-alive tells of that too: if it is back by then, a
                // thousand clients have no need to ask the mgr.
                tokio::select! {
                    biased;
                    () = self.targets.urgent.notified() => true,
                    () = tokio::time::sleep(pause) => self.targets.is_one_away(),
                }
            };
            let is_due = tokio::select! {
                biased;
                () = shut_down(&mut closed) => return,
                is_due = due => is_due,
            };
            if !is_due {
                pause = REFRESH_PAUSE_MIN;
                continue;
            }
            match self.load_targets().await {
                Ok(true) => pause = REFRESH_PAUSE_MIN,
                Ok(false) => pause = (pause * 2).min(REFRESH_PAUSE_MAX),
                Err(error) => {
                    warn!(%error, "the map of targets was refused");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs_env::{Metrics, TcpTransport};
    use pvfs_net::Identity;
    use pvfs_types::TargetUuid;

    fn told(version: u64, addr: &str) -> Targets {
        let target = TargetInfo {
            id: TargetId(1),
            uuid: TargetUuid([1; 16]),
            addr: addr.into(),
            up: !addr.is_empty(),
            bytes_total: 0,
            bytes_free: 0,
            heard_ms_ago: None,
        };
        Targets { version, targets: vec![target], iodtabs: Vec::new() }
    }

    #[tokio::test]
    async fn a_mgr_that_has_not_heard_of_a_target_yet_takes_no_connection_away() {
        let identity = Identity {
            role: Role::Client,
            fs: None,
            client: [1; 16],
            label: "test".into(),
            cluster_secret: None,
            daemon_secret: None,
        };
        let map = TargetMap::new(Dialer::new(Arc::new(TcpTransport), identity, Metrics::new()));
        map.take(told(1, ""));
        assert!(map.view().peer(TargetId(1)).is_none(), "nobody has ever known it");
        map.take(told(2, "127.0.0.1:9"));
        map.take(told(3, ""));
        assert_eq!(map.view().peer(TargetId(1)).map(|peer| peer.addrs()), Some(vec!["127.0.0.1:9".into()]));
        map.take(told(4, "127.0.0.1:10"));
        assert_eq!(map.view().peer(TargetId(1)).map(|peer| peer.addrs()), Some(vec!["127.0.0.1:10".into()]));
        assert_eq!(map.peers().len(), 1, "the old address is given up");
    }
}
