//! What is known of the targets: where they are, which of them report, how full they are. Learned from heartbeats;
//! only their numbers and the iodtabs are in the store. Also chooses where new files lie, by [`crate::placement`].

use crate::placement::{self, PlacementError, Seat};
use pvfs_meta::MetaError;
use pvfs_net::Peer;
use pvfs_types::{Distribution, IodtabGen, LayoutHint, Slot, TargetId, TargetUuid};
use pvfs_wire::msg::{
    admin::TargetReport,
    namespace::FsUsage,
    session::{Iodtab, TargetInfo, Targets as TargetMap},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tracing::{error, info, warn};

/// How many earlier processes of a target are remembered, to tell a second one on a copied directory.
const PROCESSES_REMEMBERED: usize = 16;

/// Makes the way to a target's iod.
pub type MakePeer = Box<dyn Fn(TargetId) -> Arc<Peer> + Send + Sync>;

/// All targets of the file system.
pub struct Targets {
    silence: Duration,
    started: Instant,
    make_peer: MakePeer,
    turn: AtomicUsize,
    table: Mutex<Table>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Table {
    targets: BTreeMap<TargetId, Target>,
    by_uuid: BTreeMap<TargetUuid, TargetId>,
    iodtabs: BTreeMap<IodtabGen, Vec<TargetId>>,
}

/// A machine's run, and the file system's number on it.
type Disk = (u64, u64);

struct Target {
    uuid: TargetUuid,
    peer: Arc<Peer>,
    /// Of the last heartbeat that was taken.
    addr: String,
    heard: Option<Instant>,
    up: bool,
    bytes_total: u64,
    bytes_free: u64,
    /// The disk whose room that is; `None`: not told.
    disk: Option<Disk>,
    /// The iod's latest (process, store generation).
    running: Option<(u64, u64)>,
    replaced_processes: Vec<u64>,
    confirmed_ms: u64,
    /// A refusal is logged once.
    refusal_logged: bool,
}

/// One slot of a file, on its target.
#[derive(Clone)]
pub struct Place {
    pub slot: Slot,
    pub target: TargetId,
    pub peer: Arc<Peer>,
}

impl Targets {
    /// `first_version`: above every version that an earlier mgr told.
    pub fn new(silence: Duration, first_version: u64, make_peer: MakePeer) -> Targets {
        Targets {
            silence,
            started: Instant::now(),
            make_peer,
            turn: AtomicUsize::new(0),
            table: Mutex::default(),
            version: watch::channel(first_version).0,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Tells of every change of [`Targets::version`].
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Takes over what the store holds, at the start and after a join.
    pub fn load(&self, targets: Vec<(TargetId, TargetUuid)>, iodtabs: Vec<Iodtab>) {
        let mut table = self.table();
        for (id, uuid) in targets {
            table.by_uuid.insert(uuid, id);
            table.targets.entry(id).or_insert_with(|| Target {
                uuid,
                peer: (self.make_peer)(id),
                addr: String::new(),
                heard: None,
                up: false,
                bytes_total: 0,
                bytes_free: 0,
                disk: None,
                running: None,
                replaced_processes: Vec::new(),
                confirmed_ms: 0,
                refusal_logged: false,
            });
        }
        table.iodtabs.extend(iodtabs.into_iter().map(|iodtab| (iodtab.generation, iodtab.targets)));
        drop(table);
        self.changed();
    }

    /// One target's part of a heartbeat from the iod at `addr`, which follows the mgr's time up to `confirmed_ms`.
    /// `None`: the target is refused (why is in the log), or not known.
    pub fn report(
        &self,
        addr: &str,
        report: &TargetReport,
        confirmed_ms: u64,
        stopping: bool,
    ) -> Option<TargetId> {
        let mut table = self.table();
        let id = table.by_uuid.get(&report.uuid).copied()?;
        let target = table.targets.get_mut(&id)?;
        if let Err(why) = target.check(report, confirmed_ms) {
            if !target.refusal_logged {
                error!(%id, uuid = %report.uuid, addr, why, "target refused");
                target.refusal_logged = true;
            }
            return None;
        }
        target.refusal_logged = false;
        target.heard = Some(Instant::now());
        target.confirmed_ms = target.confirmed_ms.max(confirmed_ms);
        (target.bytes_total, target.bytes_free) = (report.bytes_total, report.bytes_free);
        target.disk = report.device.map(|device| (report.generations.boot, device));
        let moved = target.addr != addr;
        if moved {
            addr.clone_into(&mut target.addr);
            target.peer.set_addrs(vec![addr.to_owned()]);
        }
        let turned = target.up == stopping;
        target.up = !stopping;
        drop(table);
        if moved || turned {
            info!(%id, addr, up = !stopping, "target reports");
            self.changed();
        }
        Some(id)
    }

    /// Counts those as down that have been silent for too long. Gives when the next one may be.
    pub fn note_silence(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut table = self.table();
        let (mut next, mut any_down) = (None, false);
        for (id, target) in table.targets.iter_mut().filter(|(_, target)| target.up) {
            let Some(heard) = target.heard else { continue };
            let deadline = heard + self.silence;
            if deadline <= now {
                warn!(%id, addr = target.addr, silent = ?(now - heard), "target is down");
                target.up = false;
                any_down = true;
            } else {
                next = Some(next.map_or(deadline, |next: Instant| next.min(deadline)));
            }
        }
        drop(table);
        if any_down {
            self.changed();
        }
        next
    }

    /// Whether targets that have not reported yet may be up: the mgr has only just started.
    fn is_early(&self) -> bool {
        self.started.elapsed() < self.silence
    }

    /// What clients are told.
    pub fn map(&self) -> TargetMap {
        // The version first: a change in between makes the clients ask once more than needed, never once less.
        let version = self.version();
        let table = self.table();
        let targets = table.targets.iter().map(|(&id, t)| TargetInfo {
            id,
            uuid: t.uuid,
            addr: t.addr.clone(),
            up: t.up,
            bytes_total: t.bytes_total,
            bytes_free: t.bytes_free,
            heard_ms_ago: t.heard.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
        });
        let iodtabs = table
            .iodtabs
            .iter()
            .map(|(&generation, targets)| Iodtab { generation, targets: targets.clone() });
        TargetMap { version, targets: targets.collect(), iodtabs: iodtabs.collect() }
    }

    /// The sums over the disks of all targets, as last reported. `None` while some have yet to report after the mgr's start.
    pub fn usage(&self, inodes: u64) -> Option<FsUsage> {
        let table = self.table();
        if self.is_early() && table.targets.values().any(|t| t.heard.is_none()) {
            return None;
        }
        let mut disks = BTreeSet::new();
        let mut usage = FsUsage { bytes_total: 0, bytes_free: 0, inodes, inodes_max: None };
        for target in table.targets.values() {
            if target.disk.is_none_or(|disk| disks.insert(disk)) {
                usage.bytes_total = usage.bytes_total.saturating_add(target.bytes_total);
                usage.bytes_free = usage.bytes_free.saturating_add(target.bytes_free);
            }
        }
        Some(usage)
    }

    pub fn is_known(&self, uuid: TargetUuid) -> bool {
        self.table().by_uuid.contains_key(&uuid)
    }

    pub fn ids(&self) -> Vec<TargetId> {
        self.table().targets.keys().copied().collect()
    }

    pub fn peer(&self, id: TargetId) -> Option<Arc<Peer>> {
        self.table().targets.get(&id).map(|t| Arc::clone(&t.peer))
    }

    pub fn is_up(&self, id: TargetId) -> bool {
        self.table().targets.get(&id).is_some_and(|t| t.up)
    }

    /// Whether the target is up and refuses all leases that ended by `until_ms`.
    pub fn refuses_leases_until(&self, id: TargetId, until_ms: u64) -> bool {
        self.table().targets.get(&id).is_some_and(|t| t.up && t.confirmed_ms >= until_ms)
    }

    /// Where the slots of a file lie; `None` where its iodtab is not known.
    pub fn places(&self, dist: &Distribution) -> Option<Vec<Place>> {
        let table = self.table();
        let iodtab = table.iodtabs.get(&dist.iodtab).filter(|iodtab| !iodtab.is_empty())?;
        dist.slots()
            .map(|slot| {
                let target = iodtab[dist.place(slot, iodtab.len())];
                Some(Place { slot, target, peer: Arc::clone(&table.targets.get(&target)?.peer) })
            })
            .collect()
    }

    /// Chooses where a new file lies.
    pub fn choose(&self, hint: LayoutHint) -> Result<Distribution, PlacementError> {
        let table = self.table();
        let Some((&iodtab, ids)) = table.iodtabs.last_key_value() else {
            return Err(PlacementError::NoTargets);
        };
        let is_early = self.is_early();
        let seats: Vec<Seat> = ids
            .iter()
            .map(|id| {
                table.targets.get(id).map_or(Seat { up: false, nearly_full: false }, |t| Seat {
                    up: t.up || (is_early && t.heard.is_none()),
                    nearly_full: placement::is_nearly_full(t.bytes_total, t.bytes_free),
                })
            })
            .collect();
        drop(table);
        placement::choose(iodtab, &seats, hint, self.turn.fetch_add(1, Ordering::Relaxed))
    }
}

impl pvfs_meta::Placement for Targets {
    fn choose(&self, hint: LayoutHint) -> pvfs_meta::Result<Distribution> {
        Targets::choose(self, hint).map_err(|error| match error {
            PlacementError::Layout(error) => MetaError::Layout(error),
            PlacementError::NoTargets => MetaError::NoTargets,
        })
    }
}

impl Target {
    /// Whether this is still the target that the mgr knows. Takes over its generations, if so.
    fn check(&mut self, report: &TargetReport, confirmed_ms: u64) -> Result<(), String> {
        let (process, store) = (report.generations.process, report.generations.store);
        if let Some((running, store_before)) = self.running {
            if store < store_before {
                return Err(format!(
                    "its store generation went back from {store_before} to {store}: an old copy of the directory?"
                ));
            }
            if self.replaced_processes.contains(&process) {
                return Err(
                    "two iods report it in turn: stop the one that runs on a copy of the directory".into()
                );
            }
            // A new process falls behind the time that was confirmed only where its machine died, and that raises the
            // store generation.
            if running != process && store == store_before && confirmed_ms < self.confirmed_ms {
                return Err(format!(
                    "it followed the mgr's time to {} before, now to {confirmed_ms}: an old copy of the directory?",
                    self.confirmed_ms
                ));
            }
            if running != process {
                // A process that has just started confirms what its predecessor did. So does a late report of a dead one:
                // only who confirms a newer time, or a raised store generation, has taken its place.
                if store == store_before && confirmed_ms == self.confirmed_ms {
                    return Ok(());
                }
                if self.replaced_processes.len() == PROCESSES_REMEMBERED {
                    self.replaced_processes.remove(0);
                }
                self.replaced_processes.push(running);
            }
        }
        self.running = Some((process, store));
        Ok(())
    }
}
