//! Starts an iod, lets it serve, stops it.

use crate::{
    IodConfig, IodError, committer, counters::Counters, heartbeat::Heart, mgr_time::MgrTime, service::Iod,
    target::Target,
};
use pvfs_env::{BoxFuture, disk::raise_descriptor_limit, memory::Board};
use pvfs_net::{Dialer, Identity, Server};
use pvfs_store::{Store, StoreOptions};
use pvfs_types::Timestamp;
use pvfs_wire::{MacKey, msg::hello::Role};
use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::Instant;
use tracing::{info, warn};

/// Descriptors kept for objects at most, over all targets, where nobody says otherwise.
const OPEN_OBJECTS_MAX: u64 = 16_384;
/// Is told where it listens.
type Ready<'a> = Box<dyn FnOnce(String) + Send + 'a>;

/// How long requests in work may take to end before the targets are closed.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs an iod on the targets in `config.targets` until `shutdown`. `ready` is told the address once it listens.
pub async fn run(
    config: IodConfig,
    shutdown: impl Future<Output = ()> + Send,
    ready: impl FnOnce(String) + Send,
) -> Result<(), IodError> {
    let stores = open_stores(&config)?;
    serve(config, stores, shutdown, ready).await
}

/// As [`run`], on stores that are open. They are closed on return.
pub async fn serve(
    config: IodConfig,
    stores: Vec<Store>,
    shutdown: impl Future<Output = ()> + Send,
    ready: impl FnOnce(String) + Send,
) -> Result<(), IodError> {
    serve_boxed(config, stores, Box::pin(shutdown), Box::new(ready)).await
}

/// Of no generic types, so that the iod is compiled here, once, and not by all who run one.
fn serve_boxed<'a>(
    config: IodConfig,
    stores: Vec<Store>,
    shutdown: BoxFuture<'a, ()>,
    ready: Ready<'a>,
) -> BoxFuture<'a, Result<(), IodError>> {
    Box::pin(serve_here(config, stores, shutdown, ready))
}

async fn serve_here(
    config: IodConfig,
    stores: Vec<Store>,
    shutdown: BoxFuture<'_, ()>,
    ready: Ready<'_>,
) -> Result<(), IodError> {
    if stores.is_empty() {
        return Err(IodError::NoTarget);
    }
    let identity = identity(&config);
    let transport = Arc::clone(&config.transport);
    let server = Server::bind(transport, &config.listen, identity.clone(), config.metrics.clone()).await?;
    let listening = server.local_addr();
    let addr = reachable(&config, &listening)?;
    let iod = Arc::new(assemble(&config, stores, server.process()));
    let dialer = Dialer::new(Arc::clone(&config.transport), identity, config.metrics.clone());
    let mgr = dialer.peer(Role::Mgr, config.mgr.clone());
    let heart = Heart { iod: Arc::clone(&iod), mgr, addr: addr.clone(), period: config.heartbeat };
    info!(iod = config.label, listening, addr, targets = iod.targets.len(), "iod started");
    ready(listening);
    let result = tokio::select! {
        biased;
        () = server.run(Arc::clone(&iod), shutdown) => Ok(()),
        error = serve_metrics(&config) => Err(error),
        () = heart.beat() => Ok(()),
        () = committer::commit_all(&iod, config.commit_period) => Ok(()),
    };
    heart.farewell().await;
    result.and(close(&iod).await)
}

fn identity(config: &IodConfig) -> Identity {
    Identity {
        role: Role::Iod,
        fs: Some(config.fs),
        client: pvfs_env::random::bytes(),
        label: config.label.clone(),
        cluster_secret: Some(config.cluster_secret),
        daemon_secret: Some(config.daemon_secret),
    }
}

fn open_stores(config: &IodConfig) -> Result<Vec<Store>, IodError> {
    let mut seen = HashSet::new();
    for dir in &config.targets {
        if !seen.insert(dir.canonicalize().unwrap_or_else(|_| dir.clone())) {
            return Err(IodError::TwiceTheTarget { dir: dir.clone() });
        }
    }
    let descriptors = raise_descriptor_limit();
    let most = usize::try_from((descriptors / 2).min(OPEN_OBJECTS_MAX)).unwrap_or(usize::MAX);
    let open_objects_max = config.open_objects_max.unwrap_or(most) / config.targets.len().max(1);
    let board = Board::new().map(Arc::new);
    let board = board
        .inspect_err(|error| warn!(%error, "no board: clients of this machine read nothing by themselves"));
    let options = StoreOptions {
        open_objects_max,
        boot_id: config.boot_id.clone(),
        board: board.ok(),
        metrics: config.metrics.clone(),
    };
    let open = |dir| Ok(Store::open(dir, config.fs, &options)?);
    config.targets.iter().map(|dir| open(dir)).collect()
}

/// Where clients reach this iod: an address that somebody can dial.
fn reachable(config: &IodConfig, listening: &str) -> Result<String, IodError> {
    if let Some(advertise) = &config.advertise {
        return Ok(advertise.clone());
    }
    match listening.parse::<SocketAddr>() {
        Ok(addr) if addr.ip().is_unspecified() => Err(IodError::NoAddress { listen: listening.to_owned() }),
        Ok(_) | Err(_) => Ok(listening.to_owned()),
    }
}

fn assemble(config: &IodConfig, stores: Vec<Store>, process: u64) -> Iod {
    // Each target's leases are held against the latest time that any of them followed; if one does not know its own
    // (its machine died), a mgr must tell it first.
    let times: Option<Vec<u64>> = stores.iter().map(Store::mgr_time_at_open).collect();
    let now_ms = times.and_then(|times| times.into_iter().max());
    if now_ms.is_none() {
        warn!(
            iod = config.label,
            "the machine stopped without warning: no data is served before a mgr is heard"
        );
    }
    // One for all of them.
    let board = stores.first().and_then(Store::board).cloned();
    if let (Some(board), Some(now_ms)) = (&board, now_ms) {
        board.follow(now_ms);
    }
    Iod {
        board,
        targets: stores.into_iter().map(|store| Target::new(store, process)).collect(),
        key: MacKey::from_daemon_secret(&config.daemon_secret.0),
        time: MgrTime::new(now_ms),
        counters: Counters::new(config.metrics.clone()),
        read_memory: Iod::read_memory(),
        commit_bytes: config.commit_bytes,
        label: config.label.clone(),
        process,
        started: Timestamp::from_system(config.clock.wall()),
        started_at: Instant::now(),
    }
}

/// Serves metrics where that is asked for; returns only when that fails.
async fn serve_metrics(config: &IodConfig) -> IodError {
    let Some(addr) = &config.metrics_addr else { return std::future::pending().await };
    let listening = |at| info!(%at, "metrics served");
    match config.metrics.clone().serve(addr, listening).await {
        Ok(()) => std::future::pending().await,
        Err(source) => IodError::Metrics { addr: addr.clone(), source },
    }
}

/// Syncs and closes the targets, unless requests are still in work.
async fn close(iod: &Iod) -> Result<(), IodError> {
    if tokio::time::timeout(END_TIMEOUT, iod.time.ended()).await.is_err() {
        return Err(IodError::Busy);
    }
    for target in &iod.targets {
        target.store.close()?;
    }
    info!(iod = iod.label, "iod stopped");
    Ok(())
}
