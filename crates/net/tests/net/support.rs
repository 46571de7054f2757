//! A daemon for the tests: answers `GetTargets` with how often it was asked, `Write` with what a script says.

use bytes::Bytes;
use pvfs_env::{Metrics, TcpTransport};
use pvfs_net::{Dialer, Identity, Incoming, Peer, Replier, Server, Service};
use pvfs_types::FsId;
use pvfs_wire::{
    Op, Refusal, Status,
    msg::{
        hello::{Role, Secret},
        session::{GetTargets, Targets},
    },
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};
use tokio::{runtime::Runtime, sync::Semaphore};

pub const FS: FsId = FsId([7; 16]);
pub const SECRET: Secret = Secret([1; 32]);
pub const DAEMON_SECRET: Secret = Secret([2; 32]);

pub fn identity(role: Role) -> Identity {
    Identity {
        role,
        fs: Some(FS),
        client: pvfs_env::random::bytes(),
        label: "test".into(),
        cluster_secret: Some(SECRET),
        daemon_secret: Some(DAEMON_SECRET),
    }
}

/// What the test daemon keeps.
#[derive(Default)]
pub struct Desk {
    pub asked: AtomicU64,
    /// Payloads of `Write`s that were done, in order.
    pub written: Mutex<Vec<Bytes>>,
    /// `NotNow` is answered this many times first.
    pub not_now: AtomicU64,
    /// When set, a write is done only once a permit is there.
    pub gate: Mutex<Option<Arc<Semaphore>>>,
    /// Writes that were begun.
    pub begun: AtomicU64,
    /// Drop requests without an answer this many times first.
    pub forgetful: AtomicU64,
    /// Leave requests unanswered this many times first.
    pub silent: AtomicU64,
    /// Those that were.
    pub unanswered: Mutex<Vec<Replier>>,
}

fn take(counter: &AtomicU64) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

impl Service for Desk {
    async fn serve(self: Arc<Self>, request: Incoming, reply: Replier) {
        if take(&self.forgetful) {
            return;
        }
        if take(&self.silent) {
            self.unanswered.lock().unwrap().push(reply);
            return;
        }
        if take(&self.not_now) {
            return reply.refuse(Refusal::new(Status::NotNow, "starting")).await;
        }
        match request.op {
            Op::GetTargets => match request.decode::<GetTargets>() {
                Ok(_) => {
                    let version = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
                    reply.ok(&Targets { version, targets: vec![], iodtabs: vec![] }).await;
                }
                Err(refusal) => reply.refuse(refusal).await,
            },
            Op::Write => {
                tokio::spawn(async move {
                    self.begun.fetch_add(1, Ordering::SeqCst);
                    let gate = self.gate.lock().unwrap().clone();
                    if let Some(gate) = gate {
                        gate.acquire().await.expect("never closed").forget();
                    }
                    self.written.lock().unwrap().push(request.payload);
                    reply.ok(&0u8).await;
                });
            }
            _ => reply.refuse(Refusal::new(Status::BadRequest, "not in this test")).await,
        }
    }

    fn fences(&self, op: Op) -> bool {
        op == Op::Write
    }
}

pub struct Daemon {
    pub addr: String,
    pub desk: Arc<Desk>,
    pub metrics: Metrics,
    /// Its own, so that it can die with all that runs in it.
    runtime: Option<Runtime>,
}

impl Daemon {
    pub async fn start() -> Daemon {
        Daemon::start_at("127.0.0.1:0", Arc::default()).await
    }

    pub async fn start_at(addr: &str, desk: Arc<Desk>) -> Daemon {
        let metrics = Metrics::new();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bound = runtime.spawn({
            let (addr, metrics) = (addr.to_owned(), metrics.clone());
            async move { Server::bind(Arc::new(TcpTransport), &addr, identity(Role::Mgr), metrics).await }
        });
        let server = bound.await.unwrap().expect("binds");
        let addr = server.local_addr();
        runtime.spawn(server.run(Arc::clone(&desk), std::future::pending()));
        Daemon { addr, desk, metrics, runtime: Some(runtime) }
    }

    /// Gone at once, connections and all, as by kill -9.
    pub fn kill(mut self) -> (String, Arc<Desk>) {
        self.stop();
        (self.addr.clone(), Arc::clone(&self.desk))
    }

    fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Elsewhere, for a runtime cannot wait for another one's end; and waited for, so that the port is free.
            std::thread::spawn(move || drop(runtime)).join().expect("the runtime ends");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn dialer(identity: Identity) -> Arc<Dialer> {
    Dialer::new(Arc::new(TcpTransport), identity, Metrics::new())
}

pub fn client(addr: &str) -> Arc<Peer> {
    dialer(identity(Role::Client)).peer(Role::Mgr, vec![addr.to_owned()])
}

/// Waits until `condition` holds; the test's own time limit is the only bound.
pub async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}
