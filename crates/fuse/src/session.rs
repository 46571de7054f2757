//! A live mount: the kernel's session, the jobs in it, and its end.

use crate::{
    Adapter, MountError, MountOptions,
    adapter::{REQUEST_BYTES_MAX, SESSION_THREADS, wanted},
    control::Control,
    device::{self, Refused, Unmount},
    keeper, memory, mountinfo,
    ops::Filesystem,
};
use pvfs_env::{Metrics, memory::Arena};
use pvfs_kfuse::{Notifier, Session};
use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{SetOnce, mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tracing::{debug, info, warn};

/// How long requests may still work after the mount is gone, before they are given up.
const JOBS_GRACE: Duration = Duration::from_secs(10);
/// How long the kernel may take to end a session whose mount was taken away.
const ABORT_GRACE: Duration = Duration::from_secs(2);
/// How long to look for who holds a busy mount.
const LOOK: Duration = Duration::from_secs(2);
/// How often to look whether a busy mount is free.
const BUSY_POLL: Duration = Duration::from_millis(100);

/// A mount that is served. Dropped while live, it is taken away from whoever uses it.
#[derive(Debug)]
pub struct Mounted {
    dir: PathBuf,
    ended: watch::Receiver<Option<Result<(), Arc<io::Error>>>>,
    held: Held,
    notifier: Notifier,
}

/// Mounts `fs` on `dir` and serves it until it is unmounted. `source` is what mount tables show. Live on return. Requests are
/// counted in `metrics`.
pub async fn mount<F: Filesystem>(
    fs: Arc<F>,
    source: &str,
    dir: &Path,
    options: &MountOptions,
    metrics: &Metrics,
    memory: Option<&Arc<Arena>>,
) -> Result<Mounted, MountError> {
    let rings = keeper::ring_memory().map_err(|source| MountError::Start { source })?;
    let begun = begin(source, dir, options, rings).await?;
    let control = Control::listen(&begun.device, None)
        .inspect_err(|error| debug!(%error, "no control socket: umount will not wait for this daemon"))
        .ok();
    info!(dir = %begun.dir.display(), source, io_uring = begun.session.is_over_rings(), "mounted");
    let fs = Arc::new(SetOnce::new_with(Some(fs)));
    serve(fs, begun.session, begun.dir, Held::ByThis { _control: control }, metrics, memory)
        .map(|(mounted, _)| mounted)
}

/// Mounts and agrees with the kernel on how to talk; serves nothing yet.
pub(crate) async fn begin(
    source: &str,
    dir: &Path,
    options: &MountOptions,
    rings: OwnedFd,
) -> Result<Begun, MountError> {
    let start = Start { source: source.to_owned(), dir: dir.to_owned(), options: options.clone(), rings };
    let begun = tokio::task::spawn_blocking(move || start.run()).await;
    begun.map_err(|e| MountError::Start { source: io::Error::other(e) })?
}

/// Who ends the mount when its [`Mounted`] is dropped.
#[derive(Debug)]
pub(crate) enum Held {
    /// That does. Whoever unmounts waits for the end of the control.
    ByThis { _control: Option<Control> },
    /// A keeper, if it wants to.
    ByKeeper,
}

/// Serves `fs` in `session`, which is mounted on `dir`. Until there is an `fs`, requests wait for it.
pub(crate) fn serve<F: Filesystem>(
    fs: Arc<SetOnce<Arc<F>>>,
    mut session: Session,
    dir: PathBuf,
    held: Held,
    metrics: &Metrics,
    memory: Option<&Arc<Arena>>,
) -> Result<(Mounted, oneshot::Receiver<pvfs_kfuse::Control>), MountError> {
    let (tell, ended) = watch::channel(None);
    let (alive, jobs) = mpsc::channel(1);
    session.mounted_on(&dir);
    let notifier = session.notifier();
    let adapter = Arc::new(Adapter::new(fs, alive, notifier.clone(), metrics));
    let runtime = tokio::runtime::Handle::current();
    let (over, session_over) = oneshot::channel();
    let (began, has_begun) = oneshot::channel();
    let (begins, begun) = oneshot::channel();
    let memory = memory::of(memory);
    std::thread::Builder::new()
        .name("fuse-0".to_owned())
        .spawn(move || {
            let began = |control: pvfs_kfuse::Control| {
                let _ = (began.send(control.clone()), begins.send(control));
            };
            over.send(session.run(adapter, runtime, SESSION_THREADS, memory, began))
        })
        .map_err(|source| MountError::Start { source })?;
    tokio::spawn(async move {
        let end = session_over.await.unwrap_or_else(|_| Err(io::Error::other("the session died")));
        finish_jobs(jobs, has_begun).await;
        tell.send_replace(Some(end.map_err(Arc::new)));
    });
    Ok((Mounted { dir, ended, held, notifier }, begun))
}

/// Waits for the last requests; gives them up after a while.
async fn finish_jobs(mut jobs: mpsc::Receiver<()>, control: oneshot::Receiver<pvfs_kfuse::Control>) {
    if timeout(JOBS_GRACE, jobs.recv()).await.is_err() {
        warn!(waited_s = JOBS_GRACE.as_secs(), "requests given up: their servers do not answer");
        if let Ok(control) = control.await {
            control.give_up();
        }
        jobs.recv().await;
    }
}

/// The part of mounting that blocks.
struct Start {
    source: String,
    dir: PathBuf,
    options: MountOptions,
    /// Memory for rings.
    rings: OwnedFd,
}

/// A mount that waits to be served.
pub(crate) struct Begun {
    pub session: Session,
    pub dir: PathBuf,
    /// `major:minor`.
    pub device: String,
}

impl Start {
    fn run(self) -> Result<Begun, MountError> {
        let dir = device::check_dir(&self.dir)?;
        let fd = device::mount(&self.source, &dir, &self.options)?;
        match Self::shake_hands(fd, &dir, &self.options, &self.rings) {
            Ok((session, device)) => Ok(Begun { session, dir, device }),
            Err(source) => {
                // Nobody serves it: it must not stay.
                let _ = device::unmount(&dir, Unmount::Abort);
                Err(MountError::Handshake { dir, source })
            }
        }
    }

    fn shake_hands(
        fd: OwnedFd,
        dir: &Path,
        options: &MountOptions,
        rings: &OwnedFd,
    ) -> io::Result<(Session, String)> {
        let session = Session::handshake(fd, &wanted(options), Some(rings))?;
        let mount = mountinfo::find_mount(dir)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it was unmounted at once"))?;
        if let Err(error) = device::set_read_ahead(&mount.device, REQUEST_BYTES_MAX / 1024) {
            debug!(%error, "the kernel's own read-ahead stays");
        }
        Ok((session, mount.device))
    }
}

impl Mounted {
    /// The directory, absolute and without links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What takes back from the kernel what it was told.
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    pub fn is_live(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// Waits until the mount is gone, whoever unmounted it, and its last request is answered.
    pub async fn ended(&self) -> Result<(), MountError> {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await.map(|end| end.clone());
        match end {
            Ok(Some(Err(source))) => Err(MountError::Session {
                dir: self.dir.clone(),
                source: io::Error::new(source.kind(), source.to_string()),
            }),
            // An error here: the runtime is going down.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Unmounts, waiting up to `grace` for those who use it; then takes it away from them.
    pub async fn unmount(&self, grace: Duration) -> Result<(), MountError> {
        let started = Instant::now();
        let mut told = false;
        while self.is_live() {
            match self.try_unmount(Unmount::Idle).await {
                Ok(()) | Err(Refused::NotMounted) => return self.ended().await,
                Err(refused) => {
                    if !told {
                        told = true;
                        self.tell_holders(refused);
                    }
                }
            }
            if started.elapsed() >= grace {
                return self.abort().await;
            }
            let _ = timeout(BUSY_POLL, self.ended()).await;
        }
        self.ended().await
    }

    /// Logs who holds the mount, beside everything else.
    fn tell_holders(&self, refused: Refused) {
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || {
            let holders = mountinfo::holders(&dir, LOOK).join(", ");
            warn!(dir = %dir.display(), holders, ?refused, "still in use");
        });
    }

    async fn abort(&self) -> Result<(), MountError> {
        warn!(dir = %self.dir.display(), "taken away from those who use it");
        if let Err(refused) = self.try_unmount(Unmount::Abort).await {
            debug!(?refused, "not detached");
        }
        // Where only root may abort a session, it ends with this process.
        timeout(JOBS_GRACE + ABORT_GRACE, self.ended()).await.unwrap_or(Ok(()))
    }

    /// On another thread: the unmount waits for answers of this very mount.
    async fn try_unmount(&self, how: Unmount) -> Result<(), Refused> {
        let dir = self.dir.clone();
        let done = tokio::task::spawn_blocking(move || device::unmount(&dir, how)).await;
        done.unwrap_or_else(|e| Err(Refused::Error(io::Error::other(e))))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_live() && matches!(self.held, Held::ByThis { .. }) {
            let _ = device::unmount(&self.dir, Unmount::Abort);
        }
    }
}
