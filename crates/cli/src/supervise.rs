//! Child daemons of `pvfs up`: started, waited for until ready, started again when they die, stopped.
//!
//! Knows processes, not what the daemons do.

use rustix::process::{Pid, Signal};
use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
};

/// How long a daemon may take until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a daemon may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// One that lived longer than this did not die "again and again quickly".
const STABLE_AFTER: Duration = Duration::from_secs(5);
const BACKOFF_MS_FIRST: u64 = 100;
const BACKOFF_MS_MAX: u64 = 1_000;
/// How much of a log an error shows, in lines and bytes.
const TAIL_LINES: usize = 12;
const TAIL_BYTES: u64 = 8_000;

/// What to run, under which name.
#[derive(Clone, Debug)]
pub struct Program {
    pub name: String,
    pub args: Vec<std::ffi::OsString>,
    pub log: PathBuf,
    /// It may end by itself with status 0 (a mount that somebody unmounted); then it is left so.
    pub may_end: bool,
    /// Done before it is started again.
    pub before_restart: Option<fn(&Program)>,
}

/// A daemon that said `ready`.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pub pid: u32,
    /// What it said after `ready`: where it listens.
    pub addr: String,
    since: Instant,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot run {}: {source}", exe.display())]
    Spawn { exe: PathBuf, source: io::Error },
    #[error("cannot write the log {}: {source}", log.display())]
    Log { log: PathBuf, source: io::Error },
    #[error("{name} {ended} before it was ready; the end of its log {}:\n{tail}", log.display())]
    Ended { name: String, ended: String, log: PathBuf, tail: String },
    #[error("{name} is not ready after {READY_TIMEOUT:?}; the end of its log {}:\n{tail}", log.display())]
    Late { name: String, log: PathBuf, tail: String },
}

/// What happened to a daemon, for the user.
#[derive(Debug)]
pub enum Event {
    Died { name: String, ended: String, log: PathBuf },
    Back { name: String, pid: u32 },
    NotBack { name: String, error: StartError, again_in: Duration },
    EndedByItself { name: String },
}

impl Program {
    /// Starts it and waits until it is ready. To be called on the main thread: it lives no longer than the thread.
    pub async fn start(&self) -> Result<Running, StartError> {
        let log = |source| StartError::Log { log: self.log.clone(), source };
        let stderr = File::options().create(true).append(true).open(&self.log).map_err(log)?;
        let exe = std::env::current_exe().unwrap_or_else(|_| "pvfs".into());
        let mut command = Command::new(&exe);
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        // Its own group: a Ctrl-C at the terminal is for `up`, which stops the others in order.
        command.process_group(0).kill_on_drop(true);
        die_with_parent(&mut command);
        let mut child = command.spawn().map_err(|source| StartError::Spawn { exe, source })?;
        let pid = child.id().unwrap_or(0);
        let stdout = child.stdout.take();
        let since = Instant::now();
        let ready = async {
            let mut lines = BufReader::new(stdout?).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(addr) = line.strip_prefix("ready") {
                    // Read on to the end, so that the daemon never meets a closed or full pipe.
                    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                    return Some(addr.trim().to_owned());
                }
            }
            None
        };
        match tokio::time::timeout(READY_TIMEOUT, ready).await {
            Ok(Some(addr)) => Ok(Running { child, pid, addr, since }),
            Ok(None) => {
                let ended = child.wait().await.map_or_else(|error| error.to_string(), describe);
                let (name, log) = (self.name.clone(), self.log.clone());
                Err(StartError::Ended { name, ended, tail: log_tail(&log), log })
            }
            Err(_) => {
                child.kill().await.ok();
                let (name, log) = (self.name.clone(), self.log.clone());
                Err(StartError::Late { name, tail: log_tail(&log), log })
            }
        }
    }

    /// Keeps it running until `stop` says true, then stops it. Returns false where it had to be killed.
    pub async fn keep(
        &self,
        mut running: Running,
        mut stop: watch::Receiver<bool>,
        mut tell: impl FnMut(Event),
    ) -> bool {
        let mut backoff_ms = 0;
        loop {
            let status = tokio::select! {
                biased;
                () = stopped(&mut stop) => return running.stop().await,
                status = running.child.wait() => status,
            };
            if self.may_end && status.as_ref().is_ok_and(ExitStatus::success) {
                tell(Event::EndedByItself { name: self.name.clone() });
                return true;
            }
            // Somebody killed it: no sign that it will die again.
            let was_killed = status.as_ref().is_ok_and(|status| status.signal() == Some(libc::SIGKILL));
            let ended = status.map_or_else(|error| error.to_string(), describe);
            tell(Event::Died { name: self.name.clone(), ended, log: self.log.clone() });
            if was_killed || running.since.elapsed() >= STABLE_AFTER {
                backoff_ms = 0;
            }
            loop {
                let again_in = Duration::from_millis(backoff_ms);
                backoff_ms = (backoff_ms * 2).clamp(BACKOFF_MS_FIRST, BACKOFF_MS_MAX);
                let started = tokio::select! {
                    biased;
                    () = stopped(&mut stop) => return true,
                    started = async {
                        tokio::time::sleep(again_in).await;
                        self.before_restart.inspect(|prepare| prepare(self));
                        self.start().await
                    } => started,
                };
                match started {
                    Ok(again) => {
                        tell(Event::Back { name: self.name.clone(), pid: again.pid });
                        running = again;
                        break;
                    }
                    Err(error) => {
                        let again_in = Duration::from_millis(backoff_ms);
                        tell(Event::NotBack { name: self.name.clone(), error, again_in });
                    }
                }
            }
        }
    }
}

impl Running {
    /// SIGTERM, then, where that does not end it, SIGKILL. False where it took the latter.
    pub async fn stop(mut self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        // Not reaped yet, so the pid is still its own.
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, Signal::TERM).ok();
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_ok() {
            return true;
        }
        self.child.kill().await.ok();
        false
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Has the kernel send the child SIGTERM when the thread that starts it ends, however that comes.
#[expect(unsafe_code, reason = "a child sets this itself, between fork and exec")]
fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH)); // it died in between
        }
        Ok(())
    };
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// `exited with status 1`, `was killed by signal 9 (SIGKILL)`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("was killed by signal {signal} ({name})"),
            None => format!("was killed by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGTERM => "SIGTERM",
        _ => return None,
    })
}

/// The last lines of a log, indented.
fn log_tail(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let bytes = file.metadata()?.len();
        file.seek(io::SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        io::Result::Ok(String::from_utf8_lossy(&tail).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    last.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
