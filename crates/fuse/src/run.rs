//! From a client to a mount that is served until it is told to stop or is unmounted, and everything told to the servers.

use crate::{
    MountError, MountOptions, Mounted, PvfsFs,
    book::{Book, OpenRecord},
    keeper::{DRAIN_SIGNAL, Worker},
    mount,
    report::Reports,
    session::{self, Held},
};
use pvfs_client::{Client, ClientConfig};
use pvfs_env::{BoxFuture, Metrics, memory::Arena};
use pvfs_kfuse::Session;
use pvfs_types::{Cred, FileKind, Ino};
use std::{future::Future, io, os::fd::AsFd, path::PathBuf, pin::pin, sync::Arc, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{SetOnce, oneshot},
    time::{Instant, timeout},
};
use tracing::{info, warn};

/// How long to tell the mgr of the end before leaving that to the lease.
const GOODBYE: Duration = Duration::from_secs(10);

/// How long requests may still work before the next worker gets them.
const DRAIN: Duration = Duration::from_secs(2);
const DRAIN_POLL: Duration = Duration::from_millis(2);

/// What to mount where.
#[derive(Clone, Debug)]
pub struct MountConfig {
    /// What mount tables show: the SPEC.
    pub source: String,
    /// The directory of the file system that becomes the mount's root: `/` or a path below.
    pub path: Vec<u8>,
    pub dir: PathBuf,
    pub options: MountOptions,
    /// How long to wait at a stop for those who use the mount, before it is taken away from them.
    pub stop_grace: Duration,
    /// Requests are read into it: the memory of the client's transport.
    pub memory: Option<Arc<Arena>>,
}

impl MountConfig {
    /// The whole of the file system `source` on `dir`.
    pub fn new(source: impl Into<String>, dir: impl Into<PathBuf>) -> MountConfig {
        MountConfig {
            source: source.into(),
            path: b"/".to_vec(),
            dir: dir.into(),
            options: MountOptions::default(),
            stop_grace: Duration::from_secs(5),
            memory: None,
        }
    }
}

/// Mounts, and gives a handle to the live mount. Ending the client stays with the caller.
pub fn mount_client(client: Arc<Client>, config: &MountConfig) -> BoxFuture<'_, Result<Mounted, MountError>> {
    // Boxed, so that the adapter is compiled here, once, and not by all who mount.
    Box::pin(mount_here(client, config))
}

async fn mount_here(client: Arc<Client>, config: &MountConfig) -> Result<Mounted, MountError> {
    let root = load_root(&client, &config.path).await?;
    let (metrics, memory) = (client.metrics(), client.arena().cloned());
    let fs = Arc::new(PvfsFs::new(client, root, config.options.cache).with_atimes(&config.options));
    let (source, dir, options) = (&config.source, &config.dir, &config.options);
    let mounted = mount(Arc::clone(&fs), source, dir, options, &metrics, memory.as_ref()).await?;
    fs.set_notifier(mounted.notifier());
    Ok(mounted)
}

/// Mounts, calls `ready` when the mount is live, serves it until `shutdown` ends or somebody unmounts it; then tells the
/// servers everything and ends the client's session.
pub async fn run(
    client: Arc<Client>,
    config: MountConfig,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(&Mounted),
) -> Result<(), MountError> {
    let mounted = mount_client(Arc::clone(&client), &config).await?;
    let _reports = tell_who_waits(&client, &mounted);
    ready(&mounted);
    let ended = tokio::select! {
        biased;
        ended = mounted.ended() => ended,
        () = shutdown => mounted.unmount(config.stop_grace).await,
    };
    goodbye(&client).await;
    info!(dir = %mounted.dir().display(), "unmounted");
    // Whoever waits for this mount's end hears of it now.
    drop(mounted);
    ended
}

/// What a worker starts with: who it is at the servers, and what its predecessor had open.
#[derive(Debug)]
pub struct Takeover {
    book: Arc<Book>,
    open: Vec<OpenRecord>,
}

impl Takeover {
    /// Takes over what the keeper of `worker` has.
    ///
    /// # Errors
    /// The mount was begun by a version that wrote it down in another way.
    pub fn begin(worker: &Worker) -> Result<Takeover, MountError> {
        let start = |source| MountError::Start { source };
        let (book, open) = Book::take_over(worker.book.try_clone().map_err(start)?).map_err(start)?;
        Ok(Takeover { book, open })
    }

    /// What the first worker noted for the others; `None`: this is the first.
    pub fn note(&self) -> Option<Vec<u8>> {
        self.book.note()
    }

    /// Notes it.
    ///
    /// # Errors
    /// It is longer than 8 KiB.
    pub fn set_note(&self, note: &[u8]) -> Result<(), MountError> {
        self.book.set_note(note).map_err(|source| MountError::Start { source })
    }

    /// Sets `config` up to go on as the same client.
    pub fn prepare(&self, config: &mut ClientConfig) {
        config.estate = Some(self.book.estate());
        if self.book.workers() > 1 {
            // Programs wait for it.
            config.connect_deadline = None;
        }
    }
}

/// As [`run`], as the worker of a keeper. The first one connects and mounts; others serve at once, with requests waiting for
/// the client that `connect` makes. Returns too when it is asked to make room for another.
pub async fn run_worker<E: From<MountError>>(
    worker: Worker,
    takeover: Takeover,
    connect: impl Future<Output = Result<Arc<Client>, E>>,
    metrics: &Metrics,
    config: MountConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), E> {
    let start = |source| MountError::Start { source };
    let Takeover { book, open } = takeover;
    let mut shutdown = pin!(shutdown);
    let mut drain = signal(SignalKind::from_raw(DRAIN_SIGNAL.as_raw())).map_err(start)?;
    let fs = Arc::new(SetOnce::new());
    let (client, mounted, begun) = match (worker.session, book.agreed()) {
        (Some(fd), Some(agreed)) => {
            let session = Session::attach(fd, agreed, Some(&worker.rings)).map_err(start)?;
            let memory = config.memory.as_ref();
            let (mounted, begun) =
                serve(Arc::clone(&fs), session, config.dir, Held::ByKeeper, metrics, memory)?;
            let client = tokio::select! {
                biased;
                ended = mounted.ended() => return Ok(ended?),
                () = shutdown.as_mut() => return Ok(mounted.unmount(config.stop_grace).await?),
                client = connect => client?,
            };
            (client, mounted, begun)
        }
        (Some(_), None) => {
            return Err(start(io::Error::other("the mount's book does not say how to go on")).into());
        }
        (None, _) => {
            let client = connect.await?;
            book.set_root(load_root(&client, &config.path).await?);
            let begun = session::begin(&config.source, &config.dir, &config.options, worker.rings).await?;
            // First, so that whoever finds the session in the keeper's hands finds this too.
            book.set_agreed(begun.session.agreed());
            let fd = begun.session.descriptor().map_err(start)?;
            let shown = begun.dir.to_string_lossy();
            worker.line.say_mounted(fd.as_fd(), &begun.device, &shown).map_err(start)?;
            info!(dir = %shown, source = config.source, io_uring = begun.session.is_over_rings(), "mounted");
            let (session, memory) = (begun.session, config.memory.as_ref());
            let (mounted, begun) =
                serve(Arc::clone(&fs), session, begun.dir, Held::ByKeeper, metrics, memory)?;
            (client, mounted, begun)
        }
    };
    let root = book.root().ok_or_else(|| start(io::Error::other("the mount's book names no root")))?;
    let served = PvfsFs::inherited(Arc::clone(&client), root, config.options.cache, Arc::clone(&book), &open);
    let served = Arc::new(served.with_atimes(&config.options));
    served.set_notifier(mounted.notifier());
    let _ = fs.set(served);
    let control = begun.await.map_err(|e| start(io::Error::other(e)))?;
    // From now on this process holds no directory but the root.
    let _ = std::env::set_current_dir("/");
    let _reports = tell_who_waits(&client, &mounted);
    worker.line.say_live().map_err(start)?;
    let ended = tokio::select! {
        biased;
        ended = mounted.ended() => ended,
        () = shutdown.as_mut() => mounted.unmount(config.stop_grace).await,
        _ = drain.recv() => {
            control.drain();
            let begin = Instant::now();
            while control.in_flight() > 0 && begin.elapsed() < DRAIN {
                tokio::time::sleep(DRAIN_POLL).await;
            }
            info!(left = control.in_flight(), "makes room for the next worker");
            // Nothing is unmounted, no session is closed, nothing is told: the next one goes on with all of it.
            std::process::exit(0);
        }
    };
    goodbye(&client).await;
    info!(dir = %mounted.dir().display(), "unmounted");
    Ok(ended?)
}

/// As [`session::serve`], of no generic types: see [`mount_client`].
fn serve(
    fs: Arc<SetOnce<Arc<PvfsFs>>>,
    session: Session,
    dir: PathBuf,
    held: Held,
    metrics: &Metrics,
    memory: Option<&Arc<Arena>>,
) -> Result<(Mounted, oneshot::Receiver<pvfs_kfuse::Control>), MountError> {
    session::serve(fs, session, dir, held, metrics, memory)
}

/// As long as what this gives lives.
fn tell_who_waits(client: &Arc<Client>, mounted: &Mounted) -> Option<Reports> {
    let reports = Reports::start(client, mounted.dir());
    reports.inspect_err(|error| warn!(%error, "`pvfs status` will not show this mount's waiting calls")).ok()
}

async fn goodbye(client: &Client) {
    match timeout(GOODBYE, client.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "the session did not end cleanly; the mgr will settle it"),
        Err(_) => warn!(waited_s = GOODBYE.as_secs(), "no mgr to say goodbye to; it will settle the session"),
    }
}

/// # Errors
/// [`MountError::Root`]: there is no such directory.
async fn load_root(client: &Client, path: &[u8]) -> Result<Ino, MountError> {
    let wrong = |source| MountError::Root { path: path.escape_ascii().to_string(), source };
    let attr = client.resolve(&Cred::root(), path, true).await.map_err(|e| wrong(e.errno()))?;
    if attr.kind != FileKind::Dir {
        return Err(wrong(pvfs_types::Errno::ENOTDIR));
    }
    Ok(attr.ino)
}
