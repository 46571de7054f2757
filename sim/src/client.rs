//! A client process: the real client core with the files it has open, which all go when it is killed.

use crate::{
    cluster::{CLUSTER_SECRET, Cluster, FS, mgr_addr},
    desk::Desk,
    process::{MachineId, Process},
    random::Random,
    trace::event,
};
use pvfs_client::{Client, ClientConfig, ClientError, Delegating, File, Held};
use pvfs_env::task;
use pvfs_types::Cred;
use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

/// From this seed on, clients take delegations.
pub const DELEGATING_FROM: u64 = 1_000_000;
/// From this seed on, a client process goes on where the last one of its seat was killed, as a mount's worker does, and so
/// gathers small writes.
pub const INHERITING_FROM: u64 = 2_000_000;

/// A machine with one client process on it, and another when that is dead.
pub struct ClientSeat {
    pub name: String,
    pub machine: MachineId,
    cluster: Arc<Cluster>,
    seed: u64,
    desk: Option<Arc<Desk>>,
    running: Mutex<Option<Arc<Running>>>,
    /// Bytes that its dead processes had said to be lost.
    declared_by_dead: AtomicU64,
    /// One at a time connects.
    starting: tokio::sync::Mutex<u64>,
}

struct Running {
    /// Counts the processes of its seat.
    run: u64,
    process: Arc<Process>,
    client: Arc<Client>,
    desk: Option<Arc<Desk>>,
    files: Mutex<BTreeMap<u64, Arc<File>>>,
}

/// Why a call has no result.
#[derive(Debug)]
pub enum CallError {
    /// The client process died meanwhile, or the program gave up waiting: nobody knows whether it was done.
    Died,
    Refused(ClientError),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::Died => f.write_str("nobody knows"),
            CallError::Refused(error) => write!(f, "{error}"),
        }
    }
}

/// What a call works with.
#[derive(Clone)]
pub struct Hands {
    running: Arc<Running>,
}

impl Running {
    fn declared_lost(&self) -> u64 {
        self.client.metrics().counter("pvfs_client_lost_bytes_total", &[]).get()
    }
}

impl Hands {
    pub fn client(&self) -> &Client {
        &self.running.client
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<File>>> {
        self.running.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `file` open under `handle`.
    pub fn keep(&self, handle: u64, file: File) {
        if let Some(desk) = &self.running.desk {
            desk.opened(handle, file.ino(), file.access());
        }
        self.files().insert(handle, Arc::new(file));
    }

    pub fn file(&self, handle: u64) -> Arc<File> {
        Arc::clone(self.files().get(&handle).expect("the handle is open in this client"))
    }

    /// Whatever came of its opening or closing: it is not open any more.
    pub fn discard(&self, handle: u64) {
        self.files().remove(&handle);
    }

    /// # Errors
    /// Of the close; it is not open any more all the same.
    pub async fn close(&self, handle: u64) -> Result<(), ClientError> {
        let file = self.files().remove(&handle).expect("the handle is open in this client");
        let closed = file.close().await;
        if let Some(desk) = &self.running.desk {
            desk.closed(handle);
        }
        closed
    }
}

impl ClientSeat {
    pub fn new(cluster: &Arc<Cluster>, number: usize, seed: u64) -> Arc<ClientSeat> {
        let name = format!("client{number}");
        Arc::new(ClientSeat {
            desk: (seed >= INHERITING_FROM).then(|| Desk::new(&name)),
            name,
            machine: cluster.first_free_machine() + number,
            cluster: Arc::clone(cluster),
            seed,
            running: Mutex::new(None),
            declared_by_dead: AtomicU64::new(0),
            starting: tokio::sync::Mutex::new(0),
        })
    }

    fn running(&self) -> Option<Arc<Running>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        running.filter(|running| running.process.is_alive())
    }

    /// Which process it is; another number than before: everything that was open is closed.
    pub async fn run(&self) -> Result<u64, CallError> {
        Ok(self.started().await?.run)
    }

    /// The process, started where it is dead.
    async fn started(&self) -> Result<Arc<Running>, CallError> {
        if let Some(running) = self.running() {
            return Ok(running);
        }
        let mut runs = self.starting.lock().await;
        if let Some(running) = self.running() {
            return Ok(running);
        }
        self.forget();
        *runs += 1;
        let random = Random::of(self.seed, &format!("{} {runs}", self.name));
        let process = Process::start(&self.name, self.machine, &random, &self.cluster.trace);
        event!(self.cluster.trace, self.name, "starts");
        let (estate, left_open) = self.desk.as_ref().map(|desk| desk.take_over(&process)).unzip();
        let left_open = left_open.unwrap_or_default();
        let config = ClientConfig {
            fs: Some(FS),
            estate,
            label: self.name.clone(),
            delegations: if self.seed >= DELEGATING_FROM { Delegating::Yes } else { Delegating::No },
            transport: self.cluster.net.transport(&process),
            ..ClientConfig::new(vec![mgr_addr()], CLUSTER_SECRET)
        };
        let net = self.cluster.net.clone();
        tokio::spawn({
            let process = Arc::clone(&process);
            async move {
                process.died().await;
                net.process_died(&process);
            }
        });
        let begin = async move {
            let client = Client::connect(config).await?;
            let held: Vec<Held> = left_open.iter().map(|&(ino, access)| client.hold(ino, access)).collect();
            Ok((client, held, left_open))
        };
        let (client, held, left_open) = run_in(&process, begin).await?;
        let desk = self.desk.clone();
        if let Some(desk) = desk.clone().filter(|_| !held.is_empty()) {
            let client = Arc::clone(&client);
            task::spawn_as(Arc::clone(&process) as _, async move {
                for held in &held {
                    close_left(&client, held).await;
                }
                desk.all_closed(&left_open);
            });
        }
        let running = Arc::new(Running { run: *runs, process, client, desk, files: Mutex::default() });
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&running));
        Ok(running)
    }

    /// Has the client process do `work`, if it is still the one of `run`.
    pub async fn call<T, W>(&self, run: u64, work: impl FnOnce(Hands) -> W) -> Result<T, CallError>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, ClientError>> + Send + 'static,
    {
        let running = self.started().await?;
        if running.run != run {
            return Err(CallError::Died);
        }
        let process = Arc::clone(&running.process);
        run_in(&process, work(Hands { running })).await
    }

    pub fn kill(&self) {
        if let Some(running) = self.running() {
            running.process.kill();
        }
        self.forget();
    }

    /// Has it die at its `effects`th effect from now on.
    pub fn light_fuse(&self, effects: u64) {
        if let Some(running) = self.running() {
            running.process.light_fuse(effects);
        }
    }

    /// Lets go of the process: what it held is dropped as the process's own.
    fn forget(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = running.take() {
            self.declared_by_dead.fetch_add(last.declared_lost(), Ordering::SeqCst);
            task::spawn_as(Arc::clone(&last.process) as _, async move { drop(last) });
        }
    }

    /// Closes the session and ends the process. It must have no files open.
    pub async fn shut_down(&self) -> Result<(), CallError> {
        let Some(running) = self.running() else { return Ok(()) };
        let open = running.files.lock().unwrap_or_else(PoisonError::into_inner).len();
        let client = Arc::clone(&running.client);
        let process = Arc::clone(&running.process);
        run_in(&process, async move { client.shutdown().await }).await?;
        // What tells the mgr on in the background notices at its next turn.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let open_in_core = running.client.status().open_files;
        if open > 0 || open_in_core > 0 {
            self.cluster
                .trace
                .fail(format!("{} has {open_in_core} files open after its shutdown", self.name));
        }
        drop(running);
        self.forget();
        tokio::time::sleep(Duration::from_secs(1)).await;
        process.kill();
        Ok(())
    }

    /// Bytes that its processes have said to be lost, the dead ones too.
    pub fn declared_lost(&self) -> u64 {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let by_last = running.as_ref().map_or(0, |last| last.declared_lost());
        self.declared_by_dead.load(Ordering::SeqCst) + by_last
    }

    /// Whether its process has said bytes to be lost.
    pub fn has_declared(&self) -> bool {
        self.running().is_some_and(|running| running.declared_lost() > 0)
    }

    /// Whether its process may have acknowledged bytes that it can send no more: the session is gone in which it kept them.
    pub fn keeps_in_vain(&self) -> bool {
        let Some(desk) = &self.desk else { return false };
        let view = self.cluster.engine.view();
        let is_gone = |session| matches!(pvfs_meta::session::find(&view, session), Ok(None));
        desk.gathered_in().into_iter().any(is_gone)
    }

    /// Waits until no change is under way, of a call that was given up say.
    pub async fn changes_ended(&self) {
        while self.running().is_some_and(|running| running.client.status().changes_in_flight > 0) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Whom it waits for, for people.
    pub fn waiting(&self) -> String {
        let Some(running) = self.running() else { return "not running".into() };
        let status = running.client.status();
        let servers = status.servers.iter().filter_map(|server| {
            let waiting = server.waiting.as_ref()?;
            Some(format!("{:?} since {:?}: {}", server.addrs, waiting.since, waiting.error))
        });
        format!("{} changes in flight; waits for {:?}", status.changes_in_flight, servers.collect::<Vec<_>>())
    }
}

/// Closes what the last process had open: whoever used it is gone, too.
async fn close_left(client: &Client, held: &Held) {
    loop {
        match client.open_held(&Cred::root(), held).await {
            Ok(file) => return drop(file.close().await),
            Err(ClientError::Gone { .. }) => return,
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

/// Runs `work` as a task of `process`, to its end or the process's.
async fn run_in<T: Send + 'static>(
    process: &Arc<Process>,
    work: impl Future<Output = Result<T, ClientError>> + Send + 'static,
) -> Result<T, CallError> {
    let mut task = AbortOnDrop(task::spawn_as(Arc::clone(process) as _, work));
    tokio::select! {
        biased;
        () = process.died() => Err(CallError::Died),
        done = &mut task.0 => match done {
            Ok(done) => done.map_err(CallError::Refused),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(CallError::Died),
        },
    }
}

/// A call whose program gives up ends, as a process's system call does at a signal.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
