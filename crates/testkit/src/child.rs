//! An application under test as a process of its own: an ignored test of the same test program, started by name.
//!
//! It must not be a thread of the test: each time a process starts another, the copies of its descriptors are closed in
//! the new one, a close of a written file asks the mgr, and so a test with such a file open could not start a mgr.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

const PATHS: &str = "PVFS_TESTKIT_PATHS";
const MARK: &str = "pvfs-testkit: half";
const LIMIT: Duration = Duration::from_mins(1);

/// The test's end.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    go_on: ChildStdin,
    at_half: mpsc::Receiver<()>,
}

/// The application's end.
#[derive(Debug)]
pub struct Half {
    paths: Vec<PathBuf>,
}

impl Child {
    /// Starts the ignored test `name` of this test program; it finds `paths` in [`Half::path`], in order.
    #[track_caller]
    pub fn start(name: &str, paths: &[&Path]) -> Child {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env(PATHS, std::env::join_paths(paths).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (go_on, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (tell, at_half) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.ends_with(MARK) {
                    tell.send(()).ok();
                } else if line.contains("panicked") || line.contains("FAILED") {
                    eprintln!("{line}");
                }
            }
        });
        Child { process, go_on, at_half }
    }

    /// Waits until it says [`Half::wait`].
    #[track_caller]
    pub fn wait_until_half(&self) {
        self.at_half.recv_timeout(LIMIT).expect("the application gets that far");
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        (&self.go_on).write_all(b"\n").unwrap();
    }

    /// Waits for its end, which must be good.
    #[track_caller]
    pub fn end(mut self) {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                assert!(status.success(), "the application failed: {status}");
                return;
            }
            assert!(begin.elapsed() < LIMIT, "the application does not end within {LIMIT:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.process.kill().ok();
        // Not waited for here: it may hang in a call to a dead mount until that is taken away.
    }
}

impl Half {
    /// To be called first in the application.
    #[allow(clippy::new_without_default, reason = "it means something only in a child")]
    pub fn new() -> Half {
        let paths = std::env::var_os(PATHS).expect("started by Child::start");
        let mut paths: Vec<PathBuf> = std::env::split_paths(&paths).collect();
        paths.reverse();
        Half { paths }
    }

    /// The next path that the test gave.
    pub fn path(&mut self) -> PathBuf {
        self.paths.pop().expect("as many as the test gave")
    }

    /// Tells the test and waits until it may go on.
    pub fn wait(&mut self) {
        println!("\n{MARK}");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
    }
}
