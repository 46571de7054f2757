//! A mgr's life: open the store, check that it is the right one, serve, stop.

use crate::{
    MgrConfig, MgrError, config,
    delegations::Delegations,
    heartbeat::load_targets,
    locks::Locks,
    mgr::Mgr,
    quota_ops::WritesSince,
    rollback::Rollback,
    sequencer::{self, Sequencer},
    service::MgrService,
    sessions::Sessions,
    status,
    targets::Targets,
    time::MgrTime,
    workers::{self, Wakes, garbage, timekeeper, truncater},
};
use pvfs_env::{BoxFuture, Metrics};
use pvfs_kv::{Durability, Engine, LmdbEngine, Overlay};
use pvfs_meta::{MetaError, intent, mgr_time, quota, rollback, session, superblock};
use pvfs_net::{Dialer, Identity, Server};
use pvfs_types::{Cred, FsId, TargetUuid, Timestamp, limits::INLINE_BYTES_MAX};
use pvfs_wire::{MacKey, msg::hello::Role};
use std::{
    convert::Infallible,
    future::Future,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tracing::{info, warn};

/// Is told where it listens.
type Ready<'a> = Box<dyn FnOnce(String) + Send + 'a>;

/// Of [`time_step`], however short leases are.
const TIME_STEP_MIN: Duration = Duration::from_millis(100);
/// How long requests that are being dropped may take to let go of the store.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(5);
/// More connections than one target's way has in a millisecond.
const CONNECTIONS_PER_MS: u64 = 1000;
/// How often what is counted by looking is looked at, where metrics are served.
const GAUGES_PERIOD: Duration = Duration::from_secs(5);

/// Makes the metadata store of file system `fs` in `dir`, with these targets in the first iodtab. Leaves a store that
/// is there alone.
pub fn format(dir: &Path, fs: FsId, targets: &[TargetUuid]) -> Result<(), MgrError> {
    let engine = LmdbEngine::open(dir, config::MAP_BYTES, Durability::Sync)?;
    format_engine(&engine, fs, targets).map_err(|error| match error {
        MgrError::Meta(MetaError::FormattedAlready) => MgrError::FormattedAlready { dir: dir.to_path_buf() },
        other => other,
    })
}

/// Who owns the root directory: whoever formats.
fn owner() -> Cred {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Cred { uid, gid, groups: Vec::new() }
}

/// As [`format()`], in an open store.
pub fn format_engine(engine: &dyn Engine, fs: FsId, targets: &[TargetUuid]) -> Result<(), MgrError> {
    let now = Timestamp::from_system(SystemTime::now());
    let snapshot = engine.snapshot()?;
    let mut txn = Overlay::new(&*snapshot);
    superblock::init(&mut txn, fs, targets, &owner(), now)?;
    let changes = txn.into_set();
    drop(snapshot);
    Ok(engine.commit(&changes)?)
}

/// Runs a mgr on the store in `config.dir` until `shutdown`. `ready` is told the address once it listens.
pub async fn run(
    config: MgrConfig,
    shutdown: impl Future<Output = ()> + Send,
    ready: impl FnOnce(String) + Send,
) -> Result<(), MgrError> {
    // Opening would make what is not there; the mgr makes nothing.
    if !config.dir.join("data.mdb").exists() {
        return Err(MgrError::NotFormatted { dir: config.dir });
    }
    let engine = LmdbEngine::open(&config.dir, config.map_bytes, config.durability)?;
    serve(config, Arc::new(engine), shutdown, ready).await
}

/// As [`run`], on an open store. Whoever else holds the engine holds it longer; the mgr has let go on return.
pub async fn serve(
    config: MgrConfig,
    engine: Arc<dyn Engine>,
    shutdown: impl Future<Output = ()> + Send,
    ready: impl FnOnce(String) + Send,
) -> Result<(), MgrError> {
    serve_boxed(config, engine, Box::pin(shutdown), Box::new(ready)).await
}

/// Of no generic types, so that the mgr is compiled here, once, and not by all who run one.
fn serve_boxed<'a>(
    config: MgrConfig,
    engine: Arc<dyn Engine>,
    shutdown: BoxFuture<'a, ()>,
    ready: Ready<'a>,
) -> BoxFuture<'a, Result<(), MgrError>> {
    Box::pin(serve_here(config, engine, shutdown, ready))
}

async fn serve_here(
    config: MgrConfig,
    engine: Arc<dyn Engine>,
    shutdown: BoxFuture<'_, ()>,
    ready: Ready<'_>,
) -> Result<(), MgrError> {
    let stored_ms = check_store(&config, &*engine)?;
    let identity = Identity {
        role: Role::Mgr,
        fs: Some(config.fs),
        client: pvfs_env::random::bytes(),
        label: config.label.clone(),
        cluster_secret: Some(config.cluster_secret),
        daemon_secret: Some(config.daemon_secret),
    };
    let server =
        Server::bind(Arc::clone(&config.transport), &config.listen, identity.clone(), config.metrics.clone())
            .await?;
    let (mgr, mut parts) = start(&config, engine, &identity, stored_ms, server.process())?;
    let result = tokio::select! {
        biased;
        result = serve_started(&config, &mgr, parts.intents, parts.stop, server, shutdown, ready) => result,
        _ = parts.sequencer_ended.changed() => Err(MgrError::PartDied { part: "the sequencer" }),
    };
    mgr.sequencer.stop();
    drop(mgr);
    let mut all_gone = parts.all_gone;
    let let_go = async {
        // The last requests let go of the mgr, the thread of the engine.
        all_gone.recv().await;
        let _ = parts.sequencer_ended.changed().await;
    };
    if tokio::time::timeout(LET_GO_TIMEOUT, let_go).await.is_err() {
        warn!("requests still hold the metadata store; it closes with the process");
    }
    info!("mgr stopped");
    result
}

/// Whether the store is the one that the configuration means. Gives the stored high-water of the mgr's time.
fn check_store(config: &MgrConfig, engine: &dyn Engine) -> Result<u64, MgrError> {
    let snapshot = engine.snapshot()?;
    let dir = || config.dir.clone();
    let found = match superblock::load(&*snapshot) {
        Err(MetaError::NotFormatted) => return Err(MgrError::NotFormatted { dir: dir() }),
        found => found?,
    };
    if found.fs != config.fs {
        return Err(MgrError::OtherFs { dir: dir(), found: found.fs, wanted: config.fs });
    }
    if !superblock::is_known(found.format) {
        return Err(MgrError::OtherFormat { dir: dir(), found: found.format, wanted: superblock::FORMAT });
    }
    Ok(mgr_time::get(&*snapshot)?)
}

/// What [`serve`] keeps of a started mgr.
struct Parts {
    intents: truncater::Inbox,
    stop: watch::Sender<bool>,
    all_gone: mpsc::Receiver<Infallible>,
    sequencer_ended: watch::Receiver<()>,
}

fn start(
    config: &MgrConfig,
    engine: Arc<dyn Engine>,
    identity: &Identity,
    stored_ms: u64,
    process: u64,
) -> Result<(Arc<Mgr>, Parts), MgrError> {
    let started = Timestamp::from_system(config.clock.wall());
    let (rolled_back, counted) = {
        let snapshot = engine.snapshot()?;
        (rollback::find(&*snapshot)?, quota::is_on(&*snapshot)?)
    };
    let time = MgrTime::start(wall_ms(started), stored_ms, time_step(config));
    let sessions = Sessions::new(config.lease_ms, time.start_ms());
    let make_peer = make_peer(config, identity.clone(), time.start_ms());
    // Versions of an earlier mgr started at its own start, and do not rise once a millisecond.
    let targets = Arc::new(Targets::new(config.target_silence, time.start_ms(), make_peer));
    let (truncater, intents) = truncater::Queue::new();
    let (stop, stopping) = watch::channel(false);
    let (alive, all_gone) = mpsc::channel(1);
    let delegations = Delegations::new(process);
    let (sequencer, sequencer_ended) = Sequencer::start(sequencer::Parts {
        engine: Arc::clone(&engine),
        clock: Arc::clone(&config.clock),
        placement: targets.clone(),
        metrics: config.metrics.clone(),
        delegations: Arc::clone(&delegations),
        home: config.sequencer,
    })
    .map_err(|source| MgrError::Thread { source })?;
    let mgr = Arc::new(Mgr {
        engine,
        sequencer,
        sessions,
        locks: Locks::new(process),
        delegations,
        targets,
        rollback: Rollback::new(stored_ms, rolled_back),
        writes_since: WritesSince::start(counted, time.start_ms()),
        wakes: Wakes {
            reaper: Notify::new(),
            settler: Notify::new(),
            locks: Notify::new(),
            garbage: garbage::Wake::default(),
            truncater,
        },
        clock: Arc::clone(&config.clock),
        key: MacKey::from_daemon_secret(&config.daemon_secret.0),
        metrics: config.metrics.clone(),
        keep_alive_ms: config.keep_alive_ms,
        inline_bytes_max: config.inline_bytes_max.min(INLINE_BYTES_MAX),
        process,
        started,
        started_at: Instant::now(),
        time,
        stopping,
        _alive: alive,
    });
    Ok((mgr, Parts { intents, stop, all_gone, sequencer_ended }))
}

fn wall_ms(now: Timestamp) -> u64 {
    u64::try_from(now.secs).unwrap_or(0).saturating_mul(1000).saturating_add(u64::from(now.nanos / 1_000_000))
}

/// How long the mgr's time runs on without a sign that this process does: little of a lease.
fn time_step(config: &MgrConfig) -> Duration {
    Duration::from_millis(config.lease_ms / 10).max(TIME_STEP_MIN)
}

/// Each target's way has an identity of its own: two connections of one to the same iod would fence each other. It is the
/// same under every mgr of this store, with connections numbered above all of the mgrs before, which started earlier in the
/// mgr's time: what a dead one had sent, a cut say, cannot land after what this one and then the clients have done.
fn make_peer(config: &MgrConfig, identity: Identity, start_ms: u64) -> crate::targets::MakePeer {
    let (transport, metrics): (_, Metrics) = (Arc::clone(&config.transport), config.metrics.clone());
    let first = start_ms.saturating_mul(CONNECTIONS_PER_MS);
    Box::new(move |target| {
        let identity = Identity { client: u128::from(target.0).to_be_bytes(), ..identity.clone() };
        let dialer = Dialer::numbered(Arc::clone(&transport), identity, metrics.clone(), first);
        dialer.peer(Role::Iod, Vec::new())
    })
}

async fn serve_started(
    config: &MgrConfig,
    mgr: &Arc<Mgr>,
    intents: truncater::Inbox,
    stop: watch::Sender<bool>,
    server: Server,
    shutdown: BoxFuture<'_, ()>,
    ready: Ready<'_>,
) -> Result<(), MgrError> {
    let to_error = |error: sequencer::JobError| MgrError::Time { text: error.to_string() };
    timekeeper::store_high_water(mgr).await.map_err(to_error)?;
    recover(mgr)?;
    let mut workers = workers::start(mgr, intents);
    let addr = server.local_addr();
    info!(addr, fs = %config.fs, dir = %config.dir.display(), "mgr serves");
    ready(addr);
    let service = Arc::new(MgrService { mgr: Arc::clone(mgr) });
    // Requests that wait for targets give up first; the others end while the server lets its last requests end.
    let shutdown = async {
        shutdown.await;
        let _ = stop.send(true);
        mgr.delegations.stop();
    };
    let metrics = serve_metrics(config, mgr);
    let result = tokio::select! {
        biased;
        () = server.run(service, shutdown) => Ok(()),
        error = metrics => Err(error),
        _ = workers.join_next() => Err(MgrError::PartDied { part: "a background worker" }),
    };
    workers.shutdown().await;
    result
}

/// Takes up what an earlier mgr left: its sessions, each with a full lease from now on, targets, and the truncations
/// under way.
fn recover(mgr: &Mgr) -> Result<(), MgrError> {
    load_targets(mgr)?;
    if mgr.rollback.is_noted() {
        warn!(
            "the store was found to be an old one: nothing is changed before `pvfs fsck --repair` has settled it"
        );
    }
    let sessions = mgr.read(|txn| session::list(txn))?;
    let now_ms = mgr.time.now_ms();
    for (id, session) in &sessions {
        mgr.sessions.admit(*id, &session.label, 0, now_ms);
        if session.delegations == Some(true) {
            mgr.delegations.admit(*id, false);
        }
    }
    let intents = mgr.read(|txn| intent::list(txn))?;
    for intent in &intents {
        mgr.wakes.truncater.carry_out(intent.ino);
    }
    mgr.wakes.garbage.all();
    if !sessions.is_empty() || !intents.is_empty() {
        warn!(sessions = sessions.len(), truncations = intents.len(), "an earlier mgr's work goes on");
    }
    Ok(())
}

/// Ends only with an error.
async fn serve_metrics(config: &MgrConfig, mgr: &Mgr) -> MgrError {
    let Some(addr) = &config.metrics_addr else { return std::future::pending().await };
    let gauges = async {
        loop {
            status::set_gauges(mgr);
            tokio::time::sleep(GAUGES_PERIOD).await;
        }
    };
    let served = config.metrics.clone().serve(addr, |bound| info!(%bound, "metrics served"));
    tokio::select! {
        biased;
        served = served => match served {
            Err(source) => MgrError::Metrics { addr: addr.clone(), source },
            Ok(()) => std::future::pending().await,
        },
        () = gauges => std::future::pending().await,
    }
}
