//! One child process: started, waited for until ready, killed by its own pid, its log kept.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// How long a daemon may take until it says `ready`, and until it ends after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);
/// How much of a log a failed test shows, in bytes.
const TAIL_BYTES: u64 = 6_000;

/// A daemon of the cluster under test.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts it and waits for the line `ready WHAT` on its stdout; stderr goes to `log_dir/NAME.log`.
    #[track_caller]
    pub fn start(
        name: &str,
        program: &Path,
        args: Vec<String>,
        envs: Vec<(String, String)>,
        log_dir: &Path,
    ) -> Process {
        let mut process = Process {
            name: name.to_owned(),
            program: program.to_owned(),
            args,
            envs,
            log: log_dir.join(format!("{name}.log")),
            child: None,
        };
        process.restart();
        process
    }

    /// Starts it (again), with the same arguments.
    #[track_caller]
    pub fn restart(&mut self) {
        let ready = self.spawn();
        if ready.recv_timeout(PATIENCE).is_err() {
            let state = self.child.as_mut().map(Child::try_wait);
            panic!("{} did not get ready ({state:?}); its log:\n{}", self.name, self.log_tail());
        }
    }

    /// Starts it and kills it so much later, whether it is ready or not.
    #[track_caller]
    pub fn start_and_kill9(&mut self, after: Duration) {
        let ready = self.spawn();
        ready.recv_timeout(after).ok();
        self.kill9();
    }

    /// Starts it; it tells when it is ready.
    #[track_caller]
    fn spawn(&mut self) -> mpsc::Receiver<()> {
        assert!(!self.is_running(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .envs(self.envs.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        let stdout = child.stdout.take().unwrap();
        self.child = Some(child);
        let (tell, ready) = mpsc::channel();
        // Reads to the end, so that the daemon never meets a closed or full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("ready") {
                    tell.send(()).ok();
                }
            }
        });
        ready
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The processes that it has started and that still run; of a mount, its worker.
    pub fn children(&self) -> Vec<u32> {
        let Some(me) = self.pid().map(|pid| pid.to_string()) else { return Vec::new() };
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_mine = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // After the name, which may hold anything: state, parent.
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
            fields.next().is_some_and(|state| state != "Z") && fields.next() == Some(&me)
        };
        pids.filter(is_mine).collect()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// SIGTERM; returns how it ended. Fails the test where it does not.
    #[track_caller]
    pub fn terminate(&mut self) -> Option<ExitStatus> {
        let ended = self.try_terminate();
        assert!(self.child.is_none(), "{} does not end after SIGTERM:\n{}", self.name, self.log_tail());
        ended
    }

    fn try_terminate(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.as_mut()?.try_wait().unwrap() {
                self.child = None;
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Sends it `signal` (say, `STOP` and `CONT`).
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).unwrap()));
        if let Some(pid) = pid {
            kill_process(pid, signal).ok();
        }
    }

    /// SIGSTOP; returns when none of its threads runs any more.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid().expect("it runs")));
        let is_stopped = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        };
        crate::wait_until("it has stopped", PATIENCE, || {
            std::fs::read_dir(&tasks).unwrap().flatten().all(is_stopped)
        });
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let Ok(mut file) = File::open(&self.log) else { return String::new() };
        let bytes = file.metadata().map_or(0, |meta| meta.len());
        file.seek(std::io::SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES))).ok();
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).ok();
        String::from_utf8_lossy(&tail).into_owned()
    }
}

impl Drop for Process {
    /// A clean end where that is quick (a mount unmounts), else SIGKILL.
    fn drop(&mut self) {
        if self.name.starts_with("mount") {
            self.try_terminate();
        }
        self.kill9();
    }
}
