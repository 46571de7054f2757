//! A running iod, a mgr that is only a heartbeat's other end, and a client, all in this process on loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test file uses its part")]

use bytes::Bytes;
use pvfs_env::{Metrics, TcpTransport};
use pvfs_iod::{IodConfig, IodError};
use pvfs_net::{Dialer, Identity, Incoming, Peer, Replier, Server, Service};
use pvfs_store::format_target;
use pvfs_types::{
    DataGen, Distribution, FsId, Ino, IodtabGen, ObjectId, ObjectOffset, SessionId, Slot, TargetId,
};
use pvfs_wire::{
    Access, Capability, Lease, MacKey, Op, Refusal, Status,
    cap::Grant,
    msg::{
        admin::{Heartbeat, HeartbeatAnswer},
        data::{Acked, Generations, Pass, Ranges, Read, ReadDone, Run, Write, Written},
        hello::{Role, Secret},
    },
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    runtime::{Handle, Runtime, RuntimeFlavor},
    sync::{oneshot, watch},
};

pub const FS: FsId = FsId([7; 16]);
pub const TARGET: TargetId = TargetId(3);
const CLUSTER_SECRET: Secret = Secret([1; 32]);
const DAEMON_SECRET: Secret = Secret([2; 32]);
const PATIENCE: Duration = Duration::from_secs(20);

pub fn key() -> MacKey {
    MacKey::from_daemon_secret(&DAEMON_SECRET.0)
}

pub fn identity(role: Role) -> Identity {
    Identity {
        role,
        fs: Some(FS),
        client: pvfs_env::random::bytes(),
        label: "test".into(),
        cluster_secret: Some(CLUSTER_SECRET),
        daemon_secret: Some(DAEMON_SECRET),
    }
}

/// Answers heartbeats with a time and numbers that the test sets, and keeps what it hears.
pub struct FakeMgr {
    pub addr: String,
    pub answer: Arc<Mutex<HeartbeatAnswer>>,
    heard: watch::Receiver<Option<Heartbeat>>,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

struct FakeService {
    answer: Arc<Mutex<HeartbeatAnswer>>,
    heard: watch::Sender<Option<Heartbeat>>,
}

impl Service for FakeService {
    async fn serve(self: Arc<Self>, request: Incoming, reply: Replier) {
        let heartbeat: Heartbeat = request.decode().expect("an iod sends heartbeats only");
        let answer = self.answer.lock().unwrap().clone();
        reply.ok(&answer).await;
        self.heard.send_replace(Some(heartbeat));
    }

    fn fences(&self, _: Op) -> bool {
        false
    }
}

impl FakeMgr {
    pub async fn start(time_ms: u64) -> FakeMgr {
        FakeMgr::start_at("127.0.0.1:0", time_ms).await
    }

    pub async fn start_at(addr: &str, time_ms: u64) -> FakeMgr {
        let server =
            Server::bind(Arc::new(TcpTransport), addr, identity(Role::Mgr), Metrics::new()).await.unwrap();
        let addr = server.local_addr();
        let answer = Arc::new(Mutex::new(HeartbeatAnswer {
            mgr_time_ms: time_ms,
            targets: vec![Some(TARGET)],
            writes_since_ms: None,
        }));
        let (heard_sender, heard) = watch::channel(None);
        let service = FakeService { answer: Arc::clone(&answer), heard: heard_sender };
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(server.run(Arc::new(service), async {
            let _ = stopped.await;
        }));
        FakeMgr { addr, answer, heard, stop, ended }
    }

    /// Stops it and gives its address back.
    pub async fn stop(self) -> String {
        drop(self.stop);
        self.ended.await.unwrap();
        self.addr
    }

    /// Waits for one more heartbeat.
    pub async fn hears_next(&self) -> Heartbeat {
        let mut heard = self.heard.clone();
        heard.mark_unchanged();
        tokio::time::timeout(PATIENCE, heard.changed()).await.expect("it comes").unwrap();
        let beat = heard.borrow().clone();
        beat.expect("one came")
    }

    /// Waits for a heartbeat that fits.
    pub async fn hears(&self, fits: impl FnMut(&Heartbeat) -> bool) -> Heartbeat {
        let (mut heard, mut fits) = (self.heard.clone(), fits);
        let found = heard.wait_for(|beat| beat.as_ref().is_some_and(&mut fits));
        let found = tokio::time::timeout(PATIENCE, found).await.expect("such a heartbeat comes");
        found.unwrap().clone().expect("fits only one that is there")
    }
}

/// A running iod, on a runtime of its own where the test's is multi-threaded.
pub struct TestIod {
    pub addr: String,
    pub metrics: Metrics,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<Result<(), IodError>>,
    runtime: OwnRuntime,
}

/// Everything that runs on it ends with it.
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn new() -> OwnRuntime {
        let multi = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
        OwnRuntime(multi.then(|| Runtime::new().unwrap()))
    }

    fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

pub fn config(dirs: &[PathBuf], mgr: &str) -> IodConfig {
    IodConfig {
        targets: dirs.to_vec(),
        mgr: vec![mgr.to_owned()],
        heartbeat: Duration::from_millis(20),
        ..IodConfig::new(FS, CLUSTER_SECRET, DAEMON_SECRET)
    }
}

impl TestIod {
    pub async fn start(dirs: &[PathBuf], mgr: &str) -> TestIod {
        TestIod::start_with(config(dirs, mgr)).await
    }

    pub async fn start_with(config: IodConfig) -> TestIod {
        let metrics = config.metrics.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, readied) = oneshot::channel();
        // Only a told stop is one: an iod that a test lets go of ends like a killed one, and writes nothing more.
        let shutdown = async {
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let runtime = OwnRuntime::new();
        let run = pvfs_iod::run(config, shutdown, |addr| ready.send(addr).unwrap());
        let ended = runtime.handle().spawn(run);
        TestIod { addr: readied.await.expect("starts"), metrics, stop, ended, runtime }
    }

    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.ended.await.unwrap().expect("stops cleanly");
    }

    /// Ends all of it at once without any farewell, as a kill would.
    pub async fn kill(mut self) {
        let runtime = self.runtime.0.take().expect("only on a multi-threaded runtime");
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
    }

    pub fn peer(&self, role: Role) -> Arc<Peer> {
        let dialer = Dialer::new(Arc::new(TcpTransport), identity(role), Metrics::new());
        dialer.peer(Role::Iod, vec![self.addr.clone()])
    }

    pub fn client(&self) -> Client {
        Client { peer: self.peer(Role::Client) }
    }

    pub fn count(&self, series: &str) -> u64 {
        let found = self.metrics.snapshot().into_iter().find(|(name, _)| name == series);
        found.map_or(0, |(_, count)| count)
    }
}

/// A new target directory with an iod that has joined a mgr, whose time is 1,000.
pub struct Joined {
    pub mgr: FakeMgr,
    pub iod: TestIod,
    pub client: Client,
    /// Goes last: nobody writes to it any more.
    pub dir: tempfile::TempDir,
}

impl Joined {
    pub async fn start() -> Joined {
        let dir = tempfile::tempdir().unwrap();
        format_target(dir.path(), FS).unwrap();
        let mgr = FakeMgr::start(1000).await;
        let iod = TestIod::start(&[dir.path().to_owned()], &mgr.addr).await;
        mgr.hears(|beat| beat.mgr_time_ms >= 1000).await;
        let client = iod.client();
        Joined { mgr, iod, client, dir }
    }

    /// Lets the mgr give the target this number, and the iod take it.
    pub async fn mgr_tells(&self, id: Option<TargetId>) {
        self.mgr.answer.lock().unwrap().targets = vec![id];
        // The second heartbeat from now on follows an answer with the new number.
        for _ in 0..2 {
            self.mgr.hears_next().await;
        }
    }
}

pub fn grant(access: Access) -> Grant {
    let dist = Distribution { iodtab: IodtabGen(1), base: 0, pcount: 4, ssize: 4096 };
    Grant {
        session: SessionId(5),
        ino: Ino(9),
        data_gen: DataGen(0),
        dist,
        access,
        granted_ms: None,
        size_max: None,
    }
}

/// Good until 2,000.
pub fn pass(access: Access) -> Pass {
    Pass {
        capability: Capability::sign(grant(access), &key()),
        lease: Lease::sign(SessionId(5), 2000, &key()),
        store: None,
    }
}

pub fn object(slot: u16) -> ObjectId {
    ObjectId { ino: Ino(9), data_gen: DataGen(0), slot: Slot(slot) }
}

pub fn list(runs: &[(u64, u32)]) -> Ranges {
    Ranges::List(runs.iter().map(|&(offset, len)| Run { offset: ObjectOffset(offset), len }).collect())
}

pub struct Client {
    pub peer: Arc<Peer>,
}

impl Client {
    pub async fn write_with(
        &self,
        pass: Pass,
        slot: u16,
        ranges: Ranges,
        bytes: &[u8],
    ) -> Result<Generations, Refusal> {
        let req = Write { target: TARGET, pass, slot: Slot(slot), ranges, again: None };
        let payload = [Bytes::copy_from_slice(bytes)];
        let written = self.peer.call_payload(&req, &payload);
        tokio::time::timeout(PATIENCE, written).await.expect("an answer").map(|(done, _)| done.generations)
    }

    pub async fn read_with(
        &self,
        pass: Pass,
        slot: u16,
        ranges: Ranges,
    ) -> Result<(ReadDone, Bytes), Refusal> {
        let req = Read { target: TARGET, pass, slot: Slot(slot), ranges };
        tokio::time::timeout(PATIENCE, self.peer.call_payload(&req, &[])).await.expect("an answer")
    }

    /// Writes at the start of slot 1, maybe once more; gives all that the answer tells.
    pub async fn write_told(&self, bytes: &[u8], again: Option<Acked>) -> Result<Written, Refusal> {
        let ranges = list(&[(0, u32::try_from(bytes.len()).unwrap())]);
        let req = Write { target: TARGET, pass: pass(Access::WRITE), slot: Slot(1), ranges, again };
        let payload = [Bytes::copy_from_slice(bytes)];
        let written = self.peer.call_payload(&req, &payload);
        tokio::time::timeout(PATIENCE, written).await.expect("an answer").map(|(done, _)| done)
    }

    /// Writes to slot 1.
    pub async fn write(&self, offset: u64, bytes: &[u8]) -> Result<Generations, Refusal> {
        let len = u32::try_from(bytes.len()).unwrap();
        self.write_with(pass(Access::WRITE), 1, list(&[(offset, len)]), bytes).await
    }

    /// Reads from slot 1.
    pub async fn read(&self, offset: u64, len: u32) -> Result<Bytes, Refusal> {
        Ok(self.read_with(pass(Access::READ), 1, list(&[(offset, len)])).await?.1)
    }
}

/// The status of a refusal.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> Status {
    answer.expect_err("refused").status
}
