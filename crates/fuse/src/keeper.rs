//! The keeper of a mount: holds the kernel's session and the book, starts the worker that serves them, and starts it again
//! when it dies. Programs in the mount see a pause.
//!
//! Does nothing else, so that nothing else can go wrong with it. It knows the worker's command line and no file system. If it is
//! killed itself, the worker and the mount end with it.

use crate::{
    MountError,
    book::Book,
    control::{Control, Upgrade},
    device::{self, Unmount},
    line::{Line, Word},
};
use rustix::process::{Pid, Signal};
use std::{
    env, fs,
    future::Future,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    pin::pin,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::{info, warn};

/// Says that standard input is the line to the keeper, whose process id is the value.
const WORKER: &str = "PVFS_MOUNT_WORKER";
/// One that served for longer did not die at once again.
const STABLE_AFTER: Duration = Duration::from_millis(100);
const BACKOFF_MIN: Duration = Duration::from_millis(1);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How often to look whether a worker that has let go of everything is dead.
const END_POLL: Duration = Duration::from_millis(5);
/// How long a worker that makes room for its successor may take over the requests it has begun.
const DRAIN: Duration = Duration::from_secs(5);
/// Which signal asks a worker to make room.
pub(crate) const DRAIN_SIGNAL: Signal = Signal::USR1;

/// The program that this process runs, also when its file was replaced since.
const SAME_PROGRAM: &str = "/proc/self/exe";

/// Keeps a mount: starts this program again with `args` (without its name) as the worker, as often as need be, calls `ready`
/// with the directory when the mount is live, and returns when it has ended. `stop` has it unmounted.
///
/// To be called on a thread that lives as long as the mount: the worker dies with it.
pub async fn keep(
    args: &[std::ffi::OsString],
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(&Path),
) -> Result<(), MountError> {
    let start = |source| MountError::Start { source };
    let keeper = Keeper {
        args: args.to_vec(),
        program: PathBuf::from(SAME_PROGRAM),
        book: Book::create().map_err(start)?,
        rings: ring_memory().map_err(start)?,
        session: None,
        control: None,
        upgrades: mpsc::channel(1),
        ready: Some(ready),
    };
    keeper.run(stop).await
}

struct Keeper<R> {
    args: Vec<std::ffi::OsString>,
    program: PathBuf,
    book: fs::File,
    /// What requests lie in that come over rings.
    rings: OwnedFd,
    session: Option<Kept>,
    control: Option<Control>,
    upgrades: (mpsc::Sender<Upgrade>, mpsc::Receiver<Upgrade>),
    ready: Option<R>,
}

/// The kernel's session.
struct Kept {
    fd: OwnedFd,
    dir: PathBuf,
}

/// What goes on with a worker.
enum Event {
    Said(Option<Word>),
    Ended(io::Result<ExitStatus>),
    Stop,
    Upgrade(Upgrade),
}

/// How a worker ended.
enum End {
    /// The mount is over.
    Unmounted,
    /// It died, or never came up: why, as far as it said, and for how long it had served.
    Died { said: Option<String>, served: Option<Duration> },
    /// It made room.
    Replaced(Upgrade),
}

impl<R: FnOnce(&Path)> Keeper<R> {
    async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), MountError> {
        let mut stop = pin!(stop);
        let mut stopping = false;
        let mut backoff = BACKOFF_MIN;
        // An upgrade that waits for its worker to be live, and what to go back to.
        let mut upgrade: Option<(Upgrade, PathBuf)> = None;
        loop {
            match self.one_worker(stop.as_mut(), &mut stopping, &mut upgrade).await {
                End::Unmounted => return Ok(()),
                End::Replaced(wanted) => {
                    let former = std::mem::replace(&mut self.program, wanted.program.clone());
                    upgrade = Some((wanted, former));
                    continue;
                }
                End::Died { said, served } => {
                    if let Some((wanted, former)) = upgrade.take() {
                        self.program = former;
                        wanted.failed(said.as_deref().unwrap_or("the new worker died at once"));
                        continue;
                    }
                    let never = self.ready.is_some();
                    if never || stopping {
                        self.clear_away().await;
                    }
                    if stopping {
                        return Ok(());
                    }
                    if never {
                        return Err(match said {
                            Some(said) => MountError::Daemon { said },
                            None => MountError::DaemonDied,
                        });
                    }
                    if served.is_some_and(|served| served >= STABLE_AFTER) {
                        backoff = BACKOFF_MIN;
                    }
                    warn!(said, again_in = ?backoff, "the mount's worker died and is started again");
                }
            }
            tokio::select! {
                biased;
                () = stop.as_mut() => {
                    self.clear_away().await;
                    return Ok(());
                }
                () = sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Runs one worker to its end.
    async fn one_worker(
        &mut self,
        mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
        stopping: &mut bool,
        upgrade: &mut Option<(Upgrade, PathBuf)>,
    ) -> End {
        let (mut child, mut words) = match self.start() {
            Ok(started) => started,
            Err(error) => {
                let said = Some(format!("cannot run {}: {error}", self.program.display()));
                return End::Died { said, served: None };
            }
        };
        let (mut said, mut live) = (None, None);
        loop {
            let event = tokio::select! {
                biased;
                word = words.recv() => Event::Said(word),
                ended = child.wait() => Event::Ended(ended),
                () = stop.as_mut(), if !*stopping => Event::Stop,
                Some(upgrade) = self.upgrades.1.recv(), if live.is_some() => Event::Upgrade(upgrade),
            };
            match event {
                Event::Said(Some(Word::Mounted { fd, device, dir })) => {
                    self.control = Control::listen(&device, Some(self.upgrades.0.clone()))
                        .inspect_err(|error| warn!(%error, "no control socket: umount will not wait"))
                        .ok();
                    self.session = Some(Kept { fd, dir: dir.into() });
                }
                Event::Said(Some(Word::Live)) => {
                    live = Some(Instant::now());
                    if let (Some(ready), Some(session)) = (self.ready.take(), &self.session) {
                        ready(&session.dir);
                    }
                    if let Some((upgrade, _)) = upgrade.take() {
                        info!(program = %self.program.display(), "the mount has a new worker");
                        upgrade.done();
                    }
                }
                Event::Said(Some(Word::Failed(why))) => said = Some(why),
                Event::Said(Some(Word::Begin { .. })) => {}
                Event::Said(None) => {
                    let ended = end(child).await;
                    return end_of(&ended, said, live);
                }
                Event::Ended(ended) => {
                    // Its last words may have come after its end was seen.
                    while let Ok(word) = words.try_recv() {
                        if let Word::Failed(why) = word {
                            said = Some(why);
                        }
                    }
                    return end_of(&ended, said, live);
                }
                Event::Stop => {
                    *stopping = true;
                    signal(&child, Signal::TERM);
                }
                Event::Upgrade(upgrade) => {
                    signal(&child, DRAIN_SIGNAL);
                    if timeout(DRAIN, silence(&mut words)).await.is_err() {
                        warn!("the worker does not come to rest: its requests go to the next one");
                        signal(&child, Signal::KILL);
                        silence(&mut words).await;
                    }
                    let _ = end(child).await;
                    return End::Replaced(upgrade);
                }
            }
        }
    }

    /// Starts a worker. What it says comes over the channel, which ends with it.
    fn start(&self) -> io::Result<(Child, mpsc::Receiver<Word>)> {
        let (ours, theirs) = Line::pair()?;
        let child = Command::new(&self.program)
            .args(&self.args)
            .env(WORKER, std::process::id().to_string())
            .stdin(Stdio::from(theirs.into_fd()))
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        // One that is dead already does not hear it; its end is seen next.
        let device = self.session.as_ref().map(|session| session.fd.as_fd());
        let _ = ours.say_begin(self.book.as_fd(), self.rings.as_fd(), device);
        let (tell, words) = mpsc::channel(8);
        tokio::task::spawn_blocking(move || {
            while let Ok(Some(word)) = ours.hear() {
                if tell.blocking_send(word).is_err() {
                    return;
                }
            }
        });
        Ok((child, words))
    }

    /// Nobody will serve the mount any more.
    async fn clear_away(&mut self) {
        if let Some(Kept { fd, dir }) = self.session.take() {
            let done = tokio::task::spawn_blocking(move || {
                let unmounted = device::unmount(&dir, Unmount::Abort);
                drop(fd);
                unmounted
            });
            if let Ok(Err(refused)) = done.await {
                warn!(?refused, "the mount could not be taken away");
            }
        }
    }
}

/// An empty file in memory for rings.
pub(crate) fn ring_memory() -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create("pvfs-rings", rustix::fs::MemfdFlags::CLOEXEC)?)
}

/// Waits until the worker has let go of the line, which all of it does that can still do anything.
async fn silence(words: &mut mpsc::Receiver<Word>) {
    while words.recv().await.is_some() {}
}

/// How a worker ended that has let go of the line.
///
/// A thread of it may still wait in the kernel, for an answer that only its successor can give
/// ([`pvfs_kfuse::Notifier::apart`]). So a process that is dead but for such threads has ended: killed.
async fn end(mut child: Child) -> io::Result<ExitStatus> {
    loop {
        if let Ok(ended) = timeout(END_POLL, child.wait()).await {
            return ended;
        }
        if child.id().is_some_and(is_dead) {
            // Reaped when its last thread is free.
            tokio::spawn(async move { child.wait().await });
            return Ok(ExitStatus::from_raw(Signal::KILL.as_raw()));
        }
    }
}

/// Whether the first thread of the process `pid` has ended, which is not reaped yet.
fn is_dead(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which may hold anything, comes the state.
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

fn end_of(ended: &io::Result<ExitStatus>, said: Option<String>, live: Option<Instant>) -> End {
    match ended {
        Ok(status) if status.success() => End::Unmounted,
        Ok(_) | Err(_) => End::Died { said, served: live.map(|live| live.elapsed()) },
    }
}

/// Not reaped yet, so its number is still its own.
fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// A worker's beginning.
#[derive(Debug)]
pub struct Worker {
    pub(crate) line: Line,
    pub(crate) book: fs::File,
    pub(crate) session: Option<OwnedFd>,
    pub(crate) rings: OwnedFd,
}

impl Worker {
    /// In a process that [`keep`] started: takes what the keeper gives, and ends with it. `None` in any other process.
    pub fn find() -> io::Result<Option<Worker>> {
        let Some(keeper) = env::var_os(WORKER) else { return Ok(None) };
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
        if keeper.to_str() != parent.as_deref() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the mount's keeper is gone"));
        }
        let line = Line::from_fd(io::stdin().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
        match line.hear()? {
            Some(Word::Begin { book, rings, device }) => {
                Ok(Some(Worker { line, book: book.into(), session: device, rings }))
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The way to tell the keeper how it went, also after the worker was given away.
    pub fn teller(&self) -> io::Result<Teller> {
        Ok(Teller(self.line.try_clone()?))
    }
}

/// Tells a keeper why its worker ends.
#[derive(Debug)]
pub struct Teller(Line);

impl Teller {
    /// It will not serve: why.
    pub fn failed(&self, why: &str) {
        let _ = self.0.say_failed(why);
    }
}
