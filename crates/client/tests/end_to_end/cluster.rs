//! A cluster in this process: daemons can be stopped and started again at the same address.

use crate::{
    faulty_disk::{Faults, FaultyDisk},
    faulty_store::FaultyStore,
};
use pvfs_client::{Client, ClientConfig, CreateOptions, File};
use pvfs_env::{Metrics, memory::Board};
use pvfs_iod::IodConfig;
use pvfs_mgr::MgrConfig;
use pvfs_store::{Store, StoreOptions};
use pvfs_types::{Cred, FsId, Ino, LayoutHint, Name, TargetUuid};
use pvfs_wire::msg::hello::Secret;
use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

const CLUSTER_SECRET: Secret = Secret([1; 32]);
const DAEMON_SECRET: Secret = Secret([2; 32]);
/// Whatever is waited for in a test comes within this, or the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// How quick the mgr's clockwork is.
#[derive(Clone, Copy)]
pub struct Pace {
    pub lease_ms: u64,
    pub keep_alive_ms: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { lease_ms: 30_000, keep_alive_ms: 50 }
    }
}

pub struct Cluster {
    dir: Arc<TempDir>,
    fs: FsId,
    pace: Pace,
    engine: Arc<FaultyStore>,
    mgr: Daemon,
    iods: Vec<Daemon>,
    /// `None`: the iods' disks are real, and pass descriptors.
    faults: Option<Arc<Faults>>,
}

/// A daemon that runs, or one that ran at `addr`.
struct Daemon {
    addr: String,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    metrics: Metrics,
}

impl Daemon {
    async fn start<F>(
        metrics: Metrics,
        run: impl FnOnce(oneshot::Receiver<()>, oneshot::Sender<String>) -> F,
    ) -> Daemon
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let (ready, addr) = oneshot::channel();
        let task = tokio::spawn(run(stopped, ready));
        let addr = tokio::time::timeout(PATIENCE, addr).await.expect("in time").expect("the daemon starts");
        Daemon { addr, running: Some((stop, task)), metrics }
    }

    async fn stop(&mut self) {
        let (stop, task) = self.running.take().expect("runs");
        stop.send(()).expect("runs");
        task.await.expect("stops without panic");
    }
}

impl Cluster {
    pub async fn start(iods: usize) -> Cluster {
        Cluster::with_pace(iods, Pace::default()).await
    }

    /// With iods that let clients read objects by themselves.
    pub async fn start_near(iods: usize) -> Cluster {
        Cluster::start_on(iods, Pace::default(), None).await
    }

    pub async fn with_pace(iods: usize, pace: Pace) -> Cluster {
        Cluster::start_on(iods, pace, Some(Arc::default())).await
    }

    async fn start_on(iods: usize, pace: Pace, faults: Option<Arc<Faults>>) -> Cluster {
        let (dir, fs) = (Arc::new(TempDir::new().unwrap()), FsId::random());
        let target_dirs: Vec<PathBuf> = (0..iods).map(|n| dir.path().join(format!("iod{n}"))).collect();
        let targets: Vec<TargetUuid> =
            target_dirs.iter().map(|dir| pvfs_store::format_target(dir, fs).unwrap()).collect();
        let engine = Arc::new(FaultyStore::default());
        pvfs_mgr::format_engine(&*engine, fs, &targets).unwrap();
        let mgr = start_mgr(fs, pace, &engine, "127.0.0.1:0").await;
        let mut cluster = Cluster { dir, fs, pace, engine, mgr, iods: Vec::new(), faults };
        for n in 0..iods {
            let iod = cluster.run_iod(n, "127.0.0.1:0").await;
            cluster.iods.push(iod);
        }
        in_time(cluster.all_targets_up()).await;
        cluster
    }

    /// Waits for every iod's first heartbeat. A client learns the map as it connects, and again with its keep-alives,
    /// which `pace` may put far off: each look is a new client's.
    async fn all_targets_up(&self) {
        loop {
            let client = self.client().await;
            let up = client.status().targets.iter().filter(|target| target.up).count();
            client.shutdown().await.unwrap();
            if up == self.iods.len() {
                // What the mgr grants in the millisecond in which an iod first heard of it makes no objects there.
                tokio::time::sleep(Duration::from_millis(2)).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn run_iod(&self, number: usize, listen: &str) -> Daemon {
        let metrics = Metrics::new();
        let mut config = IodConfig::new(self.fs, CLUSTER_SECRET, DAEMON_SECRET);
        config.listen = listen.to_owned();
        config.targets = vec![self.dir.path().join(format!("iod{number}"))];
        config.mgr = vec![self.mgr.addr.clone()];
        config.metrics = metrics.clone();
        let dir = Arc::clone(&self.dir);
        let store = if let Some(faults) = &self.faults {
            let disk = FaultyDisk::new(&config.targets[0], faults);
            Store::open_disk(Arc::new(disk), self.fs, &StoreOptions::default()).unwrap()
        } else {
            let board = Some(Arc::new(Board::new().unwrap()));
            let options = StoreOptions { board, ..StoreOptions::default() };
            Store::open(&config.targets[0], self.fs, &options).unwrap()
        };
        Daemon::start(metrics, |stopped, ready| async move {
            let _dir = dir;
            let stopped = async { drop(stopped.await) };
            pvfs_iod::serve(config, vec![store], stopped, |addr| ready.send(addr).unwrap()).await.unwrap();
        })
        .await
    }

    pub async fn stop_iod(&mut self, number: usize) {
        self.iods[number].stop().await;
    }

    pub async fn start_iod(&mut self, number: usize) {
        let listen = self.iods[number].addr.clone();
        self.iods[number] = self.run_iod(number, &listen).await;
    }

    /// Starts it at another port.
    pub async fn move_iod(&mut self, number: usize) {
        self.iods[number] = self.run_iod(number, "127.0.0.1:0").await;
    }

    pub async fn stop_mgr(&mut self) {
        self.mgr.stop().await;
    }

    pub async fn start_mgr(&mut self) {
        let addr = self.mgr.addr.clone();
        self.mgr = start_mgr(self.fs, self.pace, &self.engine, &addr).await;
    }

    /// What goes wrong with the disks of all iods.
    pub fn faults(&self) -> &Faults {
        self.faults.as_ref().expect("the disks are not real")
    }

    /// The mgr's store refuses changes from now on, or takes them again.
    pub fn store_fails(&self, fails: bool) {
        self.engine.fails(fails);
    }

    pub fn mgr_addr(&self) -> &str {
        &self.mgr.addr
    }

    pub fn fs(&self) -> FsId {
        self.fs
    }

    pub fn config(&self) -> ClientConfig {
        ClientConfig::new(vec![self.mgr.addr.clone()], CLUSTER_SECRET)
    }

    pub async fn client(&self) -> Arc<Client> {
        Client::connect(self.config()).await.unwrap()
    }

    /// Requests that the mgr received, but for what iods send.
    pub fn mgr_received_from_clients(&self) -> u64 {
        let counts = |name: &str| {
            name.starts_with("pvfs_messages_total")
                && name.contains("dir=\"received\"")
                && name.contains("kind=\"request\"")
                && !["heartbeat", "hello", "prove"].iter().any(|op| name.contains(&format!("op=\"{op}\"")))
        };
        self.mgr.metrics.snapshot().iter().filter(|(name, _)| counts(name)).map(|(_, n)| n).sum()
    }

    /// Heartbeats that the mgr received.
    pub fn heartbeats(&self) -> u64 {
        count(&self.mgr.metrics, "received", "heartbeat")
    }

    /// Requests of that operation that all iods received.
    pub fn iods_received(&self, op: &str) -> u64 {
        self.iods.iter().map(|iod| count(&iod.metrics, "received", op)).sum()
    }
}

async fn start_mgr(fs: FsId, pace: Pace, engine: &Arc<FaultyStore>, listen: &str) -> Daemon {
    let metrics = Metrics::new();
    let mut config = MgrConfig::new(fs, "unused", CLUSTER_SECRET, DAEMON_SECRET);
    config.listen = listen.to_owned();
    config.lease_ms = pace.lease_ms;
    config.keep_alive_ms = pace.keep_alive_ms;
    config.metrics = metrics.clone();
    let engine = Arc::clone(engine);
    Daemon::start(metrics, |stopped, ready| async move {
        let stopped = async { drop(stopped.await) };
        pvfs_mgr::serve(config, engine, stopped, |addr| ready.send(addr).unwrap()).await.unwrap();
    })
    .await
}

fn count(metrics: &Metrics, dir: &str, op: &str) -> u64 {
    let (dir, op) = (format!("dir=\"{dir}\""), format!("op=\"{op}\""));
    let wanted = |name: &str| {
        name.starts_with("pvfs_messages_total")
            && name.contains(&dir)
            && name.contains(&op)
            && name.contains("kind=\"request\"")
    };
    metrics.snapshot().iter().filter(|(name, _)| wanted(name)).map(|(_, n)| n).sum()
}

/// Requests that a client sent since an earlier moment, keep-alives, maps and commits apart: `(to the mgr, to iods)`.
pub struct Sent {
    client: Arc<Client>,
    before: (u64, u64),
}

impl Sent {
    pub fn since_now(client: &Arc<Client>) -> Sent {
        Sent { client: Arc::clone(client), before: sent(client) }
    }

    pub fn get(&self) -> (u64, u64) {
        let now = sent(&self.client);
        (now.0 - self.before.0, now.1 - self.before.1)
    }
}

fn sent(client: &Client) -> (u64, u64) {
    let to = |peer: &str| {
        let peer = format!("peer=\"{peer}\"");
        let counts = |name: &str| {
            name.starts_with("pvfs_messages_total")
                && name.contains("dir=\"sent\"")
                && name.contains("kind=\"request\"")
                && name.contains(&peer)
                && !["keep_alive", "await_recalls", "get_targets", "hello", "prove", "commit"]
                    .iter()
                    .any(|op| name.contains(&format!("op=\"{op}\"")))
        };
        client.metrics().snapshot().iter().filter(|(name, _)| counts(name)).map(|(_, n)| n).sum()
    };
    (to("mgr"), to("iod"))
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let all = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Fails instead of hanging.
pub async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

pub static ROOT: Cred = Cred::root();

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn layout(pcount: u16, ssize: u32) -> CreateOptions {
    let layout = LayoutHint { base: None, pcount: Some(pcount), ssize: Some(ssize) };
    CreateOptions { layout, ..CreateOptions::default() }
}

/// A new file in the root directory.
pub async fn create(client: &Client, file: &str, options: CreateOptions) -> File {
    client.create(&ROOT, Ino::ROOT, &name(file), options).await.unwrap().file
}

/// `len` bytes that tell their place and their writer.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A way to the mgr without a session.
fn stranger(cluster: &Cluster) -> Arc<pvfs_net::Peer> {
    use pvfs_wire::msg::hello::Role;
    let config = cluster.config();
    let identity = pvfs_net::Identity {
        role: Role::Client,
        fs: Some(cluster.fs()),
        client: [9; 16],
        label: "saboteur".into(),
        cluster_secret: Some(config.cluster_secret),
        daemon_secret: None,
    };
    let dialer = pvfs_net::Dialer::new(config.transport, identity, config.metrics);
    dialer.peer(Role::Mgr, vec![cluster.mgr_addr().to_owned()])
}

/// Ends the client's session behind its back.
pub async fn forget_session(cluster: &Cluster, client: &Client) {
    let session = client.status().session;
    stranger(cluster).call(&pvfs_wire::msg::session::CloseSession { session }).await.unwrap();
}

/// How many sessions the mgr knows.
pub async fn sessions(cluster: &Cluster) -> usize {
    stranger(cluster).call(&pvfs_wire::msg::admin::GetStatus {}).await.unwrap().sessions.len()
}
