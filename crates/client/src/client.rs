//! The client as a whole: how it begins and ends.

use crate::{
    ClientConfig, ClientError, Delegating,
    appends::Appends,
    delegations::{Delegation, Delegations, OnChange},
    ends::Ends,
    error::{Answer, Result},
    gathers::Gathers,
    holds::{Bounds, Holds},
    inode::Inodes,
    locks::LockTable,
    near,
    open::Crossings,
    session::{Session, Who},
    targets::TargetMap,
    waits::Waits,
};
use pvfs_env::{BoxFuture, Counter, Metrics, memory::Arena, task};
use pvfs_net::{Dialer, Identity, Peer};
use pvfs_types::{Attr, Cred, Ino, Timestamp};
use pvfs_wire::msg::hello::Role;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, SetOnce, watch},
    time::{Instant, timeout},
};
use tracing::{info, warn};

/// How long a client that ends waits for targets to make durable what it wrote.
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);

/// A client of one file system: its session with the mgr, its connections, its open files.
///
/// Every call waits for the daemons it needs, for ever unless [`ClientConfig::timeo`] says otherwise; to give up, drop the
/// future. What such a call was about to
/// change is then done, or not: a name operation is brought to its end in the background, a write may have been done
/// in part.
pub struct Client {
    pub(crate) core: Arc<Core>,
    pub(crate) tasks: Arc<Tasks>,
}

/// What handles and background tasks share.
pub(crate) struct Core {
    pub mgr: Arc<Peer>,
    pub session: Session,
    pub targets: TargetMap,
    pub inodes: Inodes,
    pub closes: Crossings,
    /// Truncations to nothing: the mgr may answer them with new objects for the file, and have the old ones removed.
    pub emptyings: Crossings,
    pub ends: Ends,
    pub locks: Arc<LockTable>,
    pub appends: Appends,
    pub gathers: Gathers,
    pub delegations: Arc<Delegations>,
    /// Has others forget what is recalled; `None`: there are none.
    pub forgetter: Option<SetOnce<Forgetter>>,
    pub holds: Holds,
    /// What iods of this machine can get at.
    pub arena: Option<Arc<Arena>>,
    /// How many more objects of theirs may be open here.
    pub near_permits: Arc<Semaphore>,
    pub waits: Waits,
    /// How long a call may wait; see [`ClientConfig::timeo`].
    pub timeo: Option<Duration>,
    pub metrics: Metrics,
    pub counters: Counters,
    /// The client was shut down.
    pub closed: watch::Sender<bool>,
    pub started: Instant,
    pub label: String,
}

/// Ends when nothing is gone by any more that was known of these inodes.
pub type Forgetter = Box<dyn Fn(Vec<Ino>) -> BoxFuture<'static, ()> + Send + Sync>;

/// What this client counts itself; messages are counted by `pvfs-net`.
pub(crate) struct Counters {
    pub bytes_read: Counter,
    pub near_reads: Counter,
    pub bytes_written: Counter,
    pub resent: Counter,
}

/// Ends the background tasks with the last user of the client.
pub(crate) struct Tasks {
    core: Arc<Core>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.core.closed.send_replace(true);
    }
}

impl Client {
    /// Finds the mgr, proves knowledge of the secret, opens a session.
    ///
    /// # Errors
    /// [`ClientError::NotLetIn`] wrong secret, wrong file system, no common protocol version;
    /// [`ClientError::Unreachable`] nobody answered within `config.connect_deadline`.
    pub fn connect(config: ClientConfig) -> Answer<'static, Arc<Client>> {
        Box::pin(Client::connect_here(config))
    }

    async fn connect_here(config: ClientConfig) -> Result<Arc<Client>> {
        let begin = Instant::now();
        let client_id = match &config.estate {
            Some(estate) => estate.client,
            None => pvfs_env::random::bytes(),
        };
        let bounds = Bounds { target: config.held_bytes_target, client: config.held_bytes_client };
        let identity = Identity {
            role: Role::Client,
            fs: config.fs,
            client: client_id,
            label: config.label.clone(),
            cluster_secret: Some(config.cluster_secret),
            daemon_secret: None,
        };
        let from = config.estate.as_ref().map_or(1, |estate| estate.connections_from);
        let dialer = Dialer::numbered(Arc::clone(&config.transport), identity, config.metrics.clone(), from);
        let mgr = dialer.peer(Role::Mgr, config.mgr.clone());
        let journal = config.estate.as_ref().map(|estate| Arc::clone(&estate.journal));
        let marks = config.estate.iter().flat_map(|estate| &estate.marks);
        let last_session = marks.map(|mark| mark.session).max().unwrap_or_default();
        let left = config.estate.as_ref().map(|estate| (&estate.locks[..], &estate.appends[..]));
        let (locks, appends) = left.unwrap_or_default();
        let locks = LockTable::new(journal.clone(), locks);
        let appends = Appends::new(journal.clone(), appends);
        let gathered = config.estate.as_ref().map(|estate| estate.gathered.clone()).unwrap_or_default();
        let who = Who {
            client: client_id,
            label: config.label.clone(),
            delegations: config.delegations != Delegating::No,
        };
        let session = Session::open(&mgr, who, config.connect_deadline, config.estate).await?;
        let core = Arc::new(Core {
            session,
            targets: TargetMap::new(dialer),
            inodes: Inodes::default(),
            closes: Crossings::default(),
            emptyings: Crossings::default(),
            ends: Ends::default(),
            locks: Arc::new(locks),
            appends,
            gathers: Gathers::new(journal, &gathered, &config.metrics),
            delegations: Delegations::new(config.delegations != Delegating::No),
            forgetter: (config.delegations == Delegating::ForKernel).then(SetOnce::new),
            holds: Holds::new(bounds, &config.metrics),
            arena: config.transport.memory().cloned(),
            near_permits: near::permits(),
            waits: Waits::default(),
            timeo: config.timeo,
            counters: Counters::new(&config.metrics),
            metrics: config.metrics,
            closed: watch::channel(false).0,
            started: Instant::now(),
            label: config.label,
            mgr,
        });
        // The session in which a predecessor took locks, or wrote, is the one with its last change.
        if core.session.standing().id != last_session {
            core.locks_lost();
            core.appends.session_lost();
        }
        within(begin, config.connect_deadline, &core.mgr, core.load_targets()).await?;
        if core.session.is_inherited() {
            match within(begin, config.connect_deadline, &core.mgr, core.hold_left()).await {
                Ok(left) => drop(task::spawn(Arc::clone(&core).left_task(left))),
                // It has ended the session since, and what that wrote is settled; or it is an older one.
                Err(error @ ClientError::Rejected { .. }) => info!(%error, "what is left open is not told"),
                Err(error) => return Err(error),
            }
            task::spawn(Arc::clone(&core).settle_inheritance());
            core.give_inherited_append_locks_up();
            core.inherit_gathers(gathered);
        }
        task::spawn(Arc::clone(&core).keep_alive_task());
        if core.delegations.is_on() {
            task::spawn(Arc::clone(&core).recalls_task());
            // The lease counts from a keep-alive.
            core.session.check_in_now();
        }
        task::spawn(Arc::clone(&core).refresh_task());
        task::spawn(Arc::clone(&core).ends_task());
        task::spawn(Arc::clone(&core).trim_memory());
        task::spawn(Arc::clone(&core).gathers_task());
        info!(session = %core.session.standing().id, mgr = core.mgr.name(), "connected to the file system");
        Ok(Arc::new(Client { tasks: Arc::new(Tasks { core: Arc::clone(&core) }), core }))
    }

    /// Memory that iods of this machine can get at: what is written from there goes to them without a copy.
    pub fn arena(&self) -> Option<&Arc<Arena>> {
        self.core.arena.as_ref()
    }

    /// How the kernel is made to forget what is recalled. To be said once, with [`Delegating::ForKernel`].
    pub fn on_recall(&self, forgetter: Forgetter) {
        if let Some(unset) = &self.core.forgetter {
            let _ = unset.set(forgetter);
        }
    }

    /// `told` learns of the inodes of each change of this client's own before the call that makes it returns. To be said once.
    pub fn on_own_change(&self, told: OnChange) {
        self.core.delegations.on_change(told);
    }

    /// The delegation of the inode of `attr`, if these are its attributes now, but for what is written here.
    pub fn stands(&self, attr: &Attr) -> Option<Delegation> {
        self.core.delegations.of_attr(attr)
    }

    /// What of `ino` is delegated to this client; `None`: somebody else may change it unnoticed.
    pub fn delegation(&self, ino: Ino) -> Option<Delegation> {
        self.core.delegations.of(ino)
    }

    /// Whether `cred` may read the file `ino`, if that is certain without a question to the mgr.
    pub fn may_read(&self, cred: &Cred, ino: Ino) -> bool {
        self.core.delegations.may_read(cred, ino)
    }

    /// Counters and gauges of this client, messages sent and received among them.
    pub fn metrics(&self) -> Metrics {
        self.core.metrics.clone()
    }

    /// The mgr's wall clock: the one authority for file times.
    pub fn now(&self) -> Timestamp {
        self.core.session.now()
    }

    /// Tells the mgr of everything written, has it made durable (for a few seconds at most) and ends the session. Calls still running, and later ones that need a
    /// daemon, may fail with [`ClientError::ShutDown`].
    ///
    /// Waits for the daemons it needs; dropped, it leaves the session to end with its lease, and the mgr to learn
    /// sizes from the targets.
    pub fn shutdown(&self) -> Answer<'_, ()> {
        Box::pin(self.shut_down_here())
    }

    async fn shut_down_here(&self) -> Result<()> {
        let mut result = Ok(());
        // Else others could append while bytes are under way.
        self.core.appends.all_over().await;
        for inode in self.core.inodes.all() {
            // A report under way counts as told, but must not come after the session's end: that drops the writer's
            // record, and with it the mgr's knowledge that it does not know the size.
            drop(inode.record.lock().await);
            if let Err(error) = self.core.report(&inode, None).await
                && !matches!(error, ClientError::Gone { .. })
            {
                warn!(ino = %inode.ino, %error, "the size of an open file could not be told");
                result = Err(error);
            }
        }
        // From now on nobody could send it again.
        if timeout(COMMIT_PATIENCE, self.core.holds.emptied()).await.is_err() {
            let bytes = self.core.holds.bytes();
            warn!(
                bytes,
                "a target has not yet made durable what was written; its machine should not stop now"
            );
        }
        self.core.locks.end();
        let closed = self.core.close_session().await;
        self.core.closed.send_replace(true);
        info!(after = ?self.core.started.elapsed(), "session closed");
        result.and(closed)
    }
}

impl Counters {
    fn new(metrics: &Metrics) -> Counters {
        Counters {
            bytes_read: metrics.counter("pvfs_client_read_bytes_total", &[]),
            near_reads: metrics.counter("pvfs_client_near_reads_total", &[]),
            bytes_written: metrics.counter("pvfs_client_written_bytes_total", &[]),
            resent: metrics.counter("pvfs_client_resent_total", &[]),
        }
    }
}

/// Ends `work` when `deadline` after `begin` is reached.
async fn within<T>(
    begin: Instant,
    deadline: Option<Duration>,
    mgr: &Peer,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(deadline) = deadline else { return work.await };
    tokio::time::timeout_at(begin + deadline, work).await.unwrap_or_else(|_| {
        let text = mgr.waiting().map(|waiting| waiting.error).unwrap_or_default();
        Err(ClientError::Unreachable { servers: mgr.addrs().join(", "), after: deadline, text })
    })
}
