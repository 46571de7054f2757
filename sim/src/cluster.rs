//! The cluster of a run: one mgr, some iods, each on its own machine, started again whenever it dies.

use crate::{
    clock::SimClock,
    disk::DiskImage,
    engine::EngineImage,
    net::Net,
    process::{MachineId, Process},
    random::Random,
    trace::{Trace, event},
};
use pvfs_env::{disk::Disk, task};
use pvfs_iod::IodConfig;
use pvfs_kv::Overlay;
use pvfs_meta::superblock;
use pvfs_mgr::{MgrConfig, sequencer};
use pvfs_store::{Store, StoreOptions};
use pvfs_types::{Cred, FsId, Timestamp};
use pvfs_wire::msg::hello::Secret;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

pub const FS: FsId = FsId([0xF5; 16]);
pub const CLUSTER_SECRET: Secret = Secret([1; 32]);
const DAEMON_SECRET: Secret = Secret([2; 32]);
/// The mgr's machine; iods follow, then clients.
const MGR_MACHINE: MachineId = 0;
/// More than any run writes.
const DISK_BYTES: u64 = 1 << 30;

pub fn mgr_addr() -> String {
    format!("m{MGR_MACHINE}:7334")
}

/// What all parts of a run share.
pub struct Cluster {
    pub trace: Trace,
    pub net: Net,
    pub engine: EngineImage,
    pub daemons: Vec<Arc<Daemon>>,
    pub iods: usize,
    /// Whether daemons may fail to do what they are asked, for their disks' sake.
    pub disks_fail: AtomicBool,
    seed: u64,
}

/// A daemon's place: its machine and what it starts from.
pub struct Daemon {
    pub name: String,
    pub machine: MachineId,
    pub clock: SimClock,
    /// Iods: their target.
    pub disk: Option<DiskImage>,
    process: Mutex<Option<Arc<Process>>>,
    power: watch::Sender<bool>,
    starts: AtomicU64,
}

impl Daemon {
    /// The process that runs now, or ran last.
    pub fn process(&self) -> Option<Arc<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has_power(&self) -> bool {
        *self.power.borrow()
    }

    pub fn switch_on(&self, net: &Net) {
        if !self.power.send_replace(true) {
            net.machine_up(self.machine);
        }
    }
}

impl Cluster {
    /// Formats and starts one mgr and `iods` iods.
    pub fn start(seed: u64, iods: usize, trace: &Trace) -> Arc<Cluster> {
        let (random, start) = (Random::of(seed, "cluster"), Instant::now());
        let daemon = |name: String, machine| {
            let clock = SimClock::new(start, i64::try_from(random.between(0..=4000)).unwrap_or(0) - 2000);
            let disk = (machine != MGR_MACHINE).then(|| {
                let random = Random::of(seed, &format!("disk of {name}"));
                DiskImage::new(&format!("disk{machine}"), DISK_BYTES, random, Arc::new(clock.clone()), trace)
            });
            let (process, power) = (Mutex::new(None), watch::channel(true).0);
            Arc::new(Daemon { name, machine, clock, disk, process, power, starts: AtomicU64::new(0) })
        };
        let daemons: Vec<Arc<Daemon>> = std::iter::once(daemon("mgr".into(), MGR_MACHINE))
            .chain((1..=iods).map(|machine| daemon(format!("iod{machine}"), machine)))
            .collect();
        let cluster = Arc::new(Cluster {
            trace: trace.clone(),
            net: Net::new(Random::of(seed, "net"), trace),
            engine: EngineImage::new(Random::of(seed, "engine")),
            daemons,
            iods,
            disks_fail: AtomicBool::new(false),
            seed,
        });
        cluster.format();
        for daemon in &cluster.daemons {
            tokio::spawn(Arc::clone(&cluster).keep_running(Arc::clone(daemon)));
        }
        cluster
    }

    fn format(&self) {
        let formatter = Process::start("format", MGR_MACHINE, &Random::of(self.seed, "format"), &self.trace);
        let targets = self.daemons.iter().filter_map(|daemon| daemon.disk.as_ref()).map(|disk| {
            pvfs_store::format_disk(&disk.open(&formatter), FS).expect("an empty disk can be formatted")
        });
        let view = self.engine.view();
        let mut txn = Overlay::new(&view);
        superblock::init(&mut txn, FS, &targets.collect::<Vec<_>>(), &Cred::root(), Timestamp::default())
            .expect("an empty store can be formatted");
        self.engine.apply(&txn.into_set());
    }

    /// The first machine that is no daemon's.
    pub fn first_free_machine(&self) -> MachineId {
        self.daemons.len()
    }

    /// How often disks may have lost unsynced bytes.
    pub fn losses(&self) -> u64 {
        self.daemons.iter().filter_map(|daemon| daemon.disk.as_ref()).map(DiskImage::losses).sum()
    }

    /// Starts the daemon, and starts it again when it is dead.
    async fn keep_running(self: Arc<Self>, daemon: Arc<Daemon>) {
        let pauses = Random::of(self.seed, &format!("restarts of {}", daemon.name));
        loop {
            let mut power = daemon.power.subscribe();
            // The sender lives as long as the daemon's place.
            let _ = power.wait_for(|on| *on).await;
            let run = daemon.starts.fetch_add(1, Ordering::Relaxed);
            let random = Random::of(self.seed, &format!("{} {run}", daemon.name));
            let process = Process::start(&daemon.name, daemon.machine, &random, &self.trace);
            *daemon.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&process));
            event!(self.trace, daemon.name, "starts");
            let work = match &daemon.disk {
                None => task::spawn_as(
                    Arc::clone(&process) as _,
                    run_mgr(self.mgr_config(&daemon, &process), self.engine.open(&process, &self.trace)),
                ),
                Some(disk) => task::spawn_as(
                    Arc::clone(&process) as _,
                    run_iod(self.iod_config(&daemon, &process), disk.open(&process)),
                ),
            };
            tokio::select! {
                biased;
                () = process.died() => {}
                ended = work => {
                    let why = ended.unwrap_or_else(|error| format!("panic: {error}"));
                    event!(self.trace, daemon.name, "ends by itself: {why}");
                    if !self.disks_fail.load(Ordering::SeqCst) {
                        self.trace.fail(format!("{} ended by itself: {why}", daemon.name));
                    }
                    process.kill();
                }
            }
            if daemon.has_power() {
                self.net.process_died(&process);
            }
            let pause = if pauses.one_in(8) { pauses.millis(3000..=45_000) } else { pauses.millis(0..=500) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes the power from a daemon's machine for `off`.
    pub async fn lose_power(&self, daemon: &Daemon, off: Duration) {
        if !daemon.power.send_replace(false) {
            return;
        }
        event!(self.trace, daemon.name, "power off for {off:?}");
        self.net.machine_down(daemon.machine);
        if let Some(process) = daemon.process() {
            process.kill();
        }
        if let Some(disk) = &daemon.disk {
            disk.power_loss();
        }
        tokio::time::sleep(off).await;
        daemon.switch_on(&self.net);
    }

    fn mgr_config(&self, daemon: &Daemon, process: &Arc<Process>) -> MgrConfig {
        MgrConfig {
            listen: mgr_addr(),
            transport: self.net.transport(process),
            clock: Arc::new(daemon.clock.clone()),
            sequencer: sequencer::Home::Task,
            ..MgrConfig::new(FS, "simulated", CLUSTER_SECRET, DAEMON_SECRET)
        }
    }

    fn iod_config(&self, daemon: &Daemon, process: &Arc<Process>) -> IodConfig {
        IodConfig {
            listen: format!("m{}:7335", daemon.machine),
            mgr: vec![mgr_addr()],
            label: daemon.name.clone(),
            transport: self.net.transport(process),
            clock: Arc::new(daemon.clock.clone()),
            ..IodConfig::new(FS, CLUSTER_SECRET, DAEMON_SECRET)
        }
    }
}

async fn run_mgr(config: MgrConfig, engine: crate::engine::SimEngine) -> String {
    let ended = pvfs_mgr::serve(config, Arc::new(engine), std::future::pending(), |_| {}).await;
    ended.err().map_or_else(|| "without an error".into(), |error| error.to_string())
}

async fn run_iod(config: IodConfig, disk: impl Disk) -> String {
    // Few descriptors, so that they are taken from each other.
    let options =
        StoreOptions { open_objects_max: 8, metrics: config.metrics.clone(), ..StoreOptions::default() };
    let store = match Store::open_disk(Arc::new(disk), FS, &options) {
        Ok(store) => store,
        Err(error) => return error.to_string(),
    };
    let ended = pvfs_iod::serve(config, vec![store], std::future::pending(), |_| {}).await;
    ended.err().map_or_else(|| "without an error".into(), |error| error.to_string())
}
