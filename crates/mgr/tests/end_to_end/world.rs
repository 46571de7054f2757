//! A mgr on loopback over a store in memory, clients, and iods that only remember which objects they hold.

use pvfs_env::{Metrics, TcpTransport};
use pvfs_kv::MemStore;
use pvfs_mgr::{MgrConfig, MgrError, format_engine, serve};
use pvfs_net::{Dialer, Identity, Incoming, Peer, Replier, Server, Service};
use pvfs_types::{Attr, Cred, FsId, Ino, LayoutHint, Name, ObjectId, SessionId, TargetId, TargetUuid};
use pvfs_wire::{
    Access, Op, Refusal, Request, Status,
    msg::{
        admin::{Heartbeat, HeartbeatAnswer, TargetReport},
        data::{Generations, ObjectStat, ObjectStats, RemoveObjects, StatObjects, TruncateObjects},
        file::{Open, Opened, ReportSize},
        hello::{Role, Secret},
        namespace::{Create, Created, Entry, GetAttr, Unlink, Unlinked},
        session::{Caller, Done, KeepAlive, KeptAlive, Mutator, OpenSession, SessionOpened},
    },
};
use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinHandle,
};

const CLUSTER: Secret = Secret([1; 32]);
const DAEMONS: Secret = Secret([2; 32]);

/// Waits until `probe` gives something; fails the test after a while.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let patience = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), patience)
        .await
        .unwrap_or_else(|_| panic!("{what}: never came"))
}

/// The file system: what outlives a mgr.
pub struct World {
    pub fs: FsId,
    pub store: MemStore,
    pub lease_ms: u64,
    pub target_silence: Duration,
}

impl World {
    pub fn new() -> World {
        let world = World {
            fs: FsId::random(),
            store: MemStore::new(usize::MAX),
            lease_ms: 60_000,
            target_silence: Duration::from_mins(1),
        };
        let engine = world.store.open().expect("nobody else has it open");
        format_engine(&engine, world.fs, &[]).expect("formats");
        world
    }

    pub fn config(&self) -> MgrConfig {
        let mut config = MgrConfig::new(self.fs, "/nowhere", CLUSTER, DAEMONS);
        config.listen = "127.0.0.1:0".into();
        config.lease_ms = self.lease_ms;
        config.target_silence = self.target_silence;
        config
    }

    pub async fn start_mgr(&self) -> TestMgr {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let engine = Arc::new(self.store.open().expect("the last mgr has let go"));
        let config = self.config();
        let metrics = config.metrics.clone();
        let task = tokio::spawn(serve(
            config,
            engine,
            async {
                let _ = stopped.await;
            },
            |addr| tell.send(addr).expect("the test waits"),
        ));
        TestMgr { addr: told.await.expect("serves"), metrics, stop, task }
    }

    fn dialer(&self, role: Role, client: [u8; 16]) -> Arc<Dialer> {
        let identity = Identity {
            role,
            fs: Some(self.fs),
            client,
            label: "test".into(),
            cluster_secret: Some(CLUSTER),
            daemon_secret: Some(DAEMONS),
        };
        Dialer::new(Arc::new(TcpTransport), identity, Metrics::new())
    }

    pub fn peer(&self, mgr: &TestMgr, role: Role) -> Arc<Peer> {
        self.dialer(role, pvfs_env::random::bytes()).peer(Role::Mgr, vec![mgr.addr.clone()])
    }

    /// A client with a session.
    pub async fn client(&self, mgr: &TestMgr) -> TestClient {
        self.client_with(mgr, None).await
    }

    /// As [`World::client`]; with `delegations`, one that takes some.
    pub async fn client_with(&self, mgr: &TestMgr, delegations: Option<bool>) -> TestClient {
        let client = pvfs_env::random::bytes();
        let peer = self.dialer(Role::Client, client).peer(Role::Mgr, vec![mgr.addr.clone()]);
        let opened = peer
            .call(&OpenSession { client, incarnation: 1, label: "test".into(), delegations })
            .await
            .expect("opens");
        TestClient { client, peer, opened, next: AtomicU64::new(1) }
    }

    /// An iod with one target, which listens but has not reported yet.
    pub async fn iod(&self) -> TestIod {
        let identity = Identity {
            role: Role::Iod,
            fs: Some(self.fs),
            client: pvfs_env::random::bytes(),
            label: "iod".into(),
            cluster_secret: Some(CLUSTER),
            daemon_secret: Some(DAEMONS),
        };
        let metrics = Metrics::new();
        let server = Server::bind(Arc::new(TcpTransport), "127.0.0.1:0", identity, metrics.clone())
            .await
            .expect("binds");
        let addr = server.local_addr();
        let objects = Arc::new(Objects::default());
        let task = tokio::spawn(server.run(Arc::clone(&objects), std::future::pending()));
        TestIod {
            addr,
            uuid: TargetUuid::random(),
            objects,
            metrics,
            mgr_time_ms: AtomicU64::new(0),
            device: None,
            task,
        }
    }
}

pub struct TestMgr {
    pub addr: String,
    pub metrics: Metrics,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), MgrError>>,
}

impl TestMgr {
    /// How many requests of that kind it sent to iods.
    pub fn sent(&self, op: &str) -> u64 {
        let labels = [("dir", "sent"), ("kind", "request"), ("op", op), ("peer", "iod")];
        self.metrics.counter("pvfs_messages_total", &labels).get()
    }

    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.expect("no panic").expect("no error");
    }
}

pub struct TestClient {
    pub client: [u8; 16],
    pub peer: Arc<Peer>,
    pub opened: SessionOpened,
    next: AtomicU64,
}

impl TestClient {
    pub fn session(&self) -> SessionId {
        self.opened.session
    }

    /// Goes on with another mgr.
    pub fn follow(&self, mgr: &TestMgr) {
        self.peer.set_addrs(vec![mgr.addr.clone()]);
    }

    /// Has no mgr to go to until it is told one.
    pub fn follow_later(&self) {
        self.peer.set_addrs(Vec::new());
    }

    /// Opens the session again, or a new one under a higher incarnation.
    pub async fn reopen(&self, incarnation: u64) -> Result<SessionOpened, Refusal> {
        self.peer
            .call(&OpenSession { client: self.client, incarnation, label: "test".into(), delegations: None })
            .await
    }

    pub async fn reports_size(&self, attr: &Attr, size: u64, close: bool) {
        let (by, ino, size_epoch) = (self.by(), attr.ino, attr.size_epoch);
        let report = ReportSize { by, ino, size, size_epoch, mtime: None, close, allocated: None };
        self.peer.call(&report).await.expect("is taken");
    }

    pub fn caller(&self) -> Caller {
        Caller { session: self.session(), cred: Cred::root() }
    }

    /// The next number, in slot 0.
    pub fn by(&self) -> Mutator {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        Mutator { session: self.session(), slot: 0, seq, cred: Cred::root() }
    }

    pub fn create(&self, name: &str) -> Create {
        Create {
            by: self.by(),
            dir: Ino::ROOT,
            name: Name::new(name).expect("a name"),
            mode: 0o644,
            exclusive: true,
            open: Some(Access::READ_WRITE),
            truncate: false,
            layout: LayoutHint::default(),
            unmasked: None,
        }
    }

    pub async fn created(&self, name: &str) -> Created {
        self.peer.call(&self.create(name)).await.expect("creates")
    }

    pub async fn unlink(&self, name: &str) -> Unlinked {
        let name = Name::new(name).expect("a name");
        self.peer.call(&Unlink { by: self.by(), dir: Ino::ROOT, name }).await.expect("unlinks")
    }

    pub async fn getattr(&self, ino: Ino) -> Result<Entry, Refusal> {
        self.peer.call(&GetAttr { caller: self.caller(), ino }).await
    }

    pub async fn attr(&self, ino: Ino) -> Attr {
        self.getattr(ino).await.expect("is there").attr
    }

    pub async fn open(&self, ino: Ino, access: Access, truncate: bool) -> Result<Opened, Refusal> {
        self.peer.call(&Open { by: self.by(), ino, access, truncate, again: false, grow_to: None }).await
    }

    /// Has seen the orphans up to `orphans_seen`, claims and releases.
    pub async fn keep_alive(
        &self,
        orphans_seen: u64,
        claims: &[Ino],
        releases: &[Ino],
    ) -> Result<KeptAlive, Refusal> {
        let (claims, releases) = (claims.to_vec(), releases.to_vec());
        self.peer.call(&KeepAlive { session: self.session(), orphans_seen, claims, releases }).await
    }
}

pub struct TestIod {
    pub addr: String,
    pub uuid: TargetUuid,
    pub objects: Arc<Objects>,
    pub metrics: Metrics,
    /// What it follows of the mgr's time.
    pub mgr_time_ms: AtomicU64,
    /// The disk that it tells of.
    pub device: Option<u64>,
    task: JoinHandle<()>,
}

impl Drop for TestIod {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestIod {
    /// One heartbeat as it is.
    pub async fn report(&self, mgr: &Peer, generations: Generations, stopping: bool) -> HeartbeatAnswer {
        let report = TargetReport {
            uuid: self.uuid,
            generations,
            bytes_total: 1 << 40,
            bytes_free: 1 << 39,
            device: self.device,
        };
        let mgr_time_ms = self.mgr_time_ms.load(Ordering::Relaxed);
        let heartbeat = Heartbeat { addr: self.addr.clone(), targets: vec![report], mgr_time_ms, stopping };
        let answer = mgr.call(&heartbeat).await.expect("is taken");
        self.mgr_time_ms.fetch_max(answer.mgr_time_ms, Ordering::Relaxed);
        answer
    }

    /// Reports twice: the second one confirms the time that the first one's answer told.
    pub async fn reports(&self, mgr: &Peer) -> TargetId {
        self.report(mgr, GENERATIONS, false).await;
        self.report(mgr, GENERATIONS, false).await.targets[0].expect("not refused")
    }
}

pub const GENERATIONS: Generations = Generations { process: 1, boot: 1, store: 1 };

/// The objects of one iod, and how long they are.
#[derive(Default)]
pub struct Objects {
    pub lengths: Mutex<BTreeMap<ObjectId, u64>>,
    /// Set: answers every request with `NotNow`, as an iod does that is not ready.
    pub balks: std::sync::atomic::AtomicBool,
    /// Set: truncations begin with a permit.
    pub gate: Mutex<Option<Arc<Semaphore>>>,
    /// How many truncations have come.
    pub truncations: AtomicU64,
}

impl Objects {
    pub fn put(&self, object: ObjectId, len: u64) {
        self.lengths.lock().expect("no panic").insert(object, len);
    }

    pub fn all(&self) -> Vec<(ObjectId, u64)> {
        self.lengths.lock().expect("no panic").iter().map(|(object, len)| (*object, *len)).collect()
    }

    fn handle(&self, request: &Incoming) -> Result<Vec<u8>, Refusal> {
        fn reply<R: Request>(_: &R, reply: &R::Reply) -> Vec<u8> {
            pvfs_wire::encode(reply)
        }
        if self.balks.load(Ordering::Acquire) {
            return Err(Refusal::new(Status::NotNow, "not ready"));
        }
        let mut lengths = self.lengths.lock().expect("no panic");
        Ok(match request.op {
            Op::RemoveObjects => {
                let req: RemoveObjects = request.decode()?;
                lengths.retain(|object, _| !req.objects.contains(object));
                reply(&req, &Done {})
            }
            Op::TruncateObjects => {
                let req: TruncateObjects = request.decode()?;
                for (object, len) in &req.objects {
                    if let Some(length) = lengths.get_mut(object) {
                        *length = (*length).min(*len);
                    }
                }
                reply(&req, &Done {})
            }
            Op::StatObjects => {
                let req: StatObjects = request.decode()?;
                let stat = |object| {
                    let len = *lengths.get(object)?;
                    Some(ObjectStat {
                        len,
                        allocated: len,
                        mtime: pvfs_types::Timestamp { secs: 77, nanos: 0 },
                    })
                };
                let objects = req.objects.iter().map(stat).collect();
                reply(&req, &ObjectStats { generations: GENERATIONS, objects })
            }
            _ => return Err(Refusal::new(Status::BadRequest, "not faked")),
        })
    }
}

impl Service for Objects {
    async fn serve(self: Arc<Self>, request: Incoming, reply: Replier) {
        if request.op == Op::TruncateObjects {
            self.truncations.fetch_add(1, Ordering::SeqCst);
            let gate = self.gate.lock().expect("no panic").clone();
            if let Some(gate) = gate {
                gate.acquire().await.expect("is not closed").forget();
            }
        }
        match self.handle(&request) {
            Ok(body) => reply.ok_encoded(&body, &[]).await,
            Err(refusal) => reply.refuse(refusal).await,
        }
    }

    fn fences(&self, op: Op) -> bool {
        op == Op::TruncateObjects
    }
}
