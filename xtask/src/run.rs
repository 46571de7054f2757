//! Running other programs: no stdin, a deadline, and a mark by which everything they start is found again.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The environment variable that marks all processes of this run, however deep.
pub const MARK: &str = "PVFS_XTASK_RUN";

/// What a step gives: nothing, or why it failed, for people.
pub type Outcome = Result<(), String>;

/// The value of [`MARK`] for this run.
pub fn mark() -> String {
    format!("xtask-{}", std::process::id())
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_path_buf()
}

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// `program args…`, at the root, without stdin. Words are split at spaces: no argument here holds one.
pub fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = program(words.next().expect("a program"));
    command.args(words);
    command
}

/// `program` without arguments, at the root, without stdin.
pub fn program(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.current_dir(root()).stdin(Stdio::null()).env(MARK, mark());
    command
}

/// Runs it to its end. An error names the command and how it ended.
pub fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|e| format!("{} does not start: {e}", shown(command)))?;
    judged(command, status)
}

/// Runs it within `deadline`; past that it is killed, and that is an error.
pub fn run_within(command: &mut Command, deadline: Duration) -> Outcome {
    let mut child = command.spawn().map_err(|e| format!("{} does not start: {e}", shown(command)))?;
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return judged(command, status);
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{} took more than {} s", shown(command), deadline.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs it and returns what it printed.
pub fn output(command: &mut Command) -> Result<String, String> {
    let out = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("{} does not start: {e}", shown(command)))?;
    judged(command, out.status)?;
    String::from_utf8(out.stdout).map_err(|e| format!("{}: {e}", shown(command)))
}

/// Runs it, passes on what it prints, and returns those of its stderr's lines that `keep` wants.
pub fn run_keeping(command: &mut Command, keep: fn(&str) -> bool) -> (Outcome, Vec<String>) {
    let mut child: Child = match command.stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(e) => return (Err(format!("{} does not start: {e}", shown(command))), Vec::new()),
    };
    let (send, receive) = mpsc::channel();
    if let Some(stderr) = child.stderr.take() {
        // Not joined: a process that outlives its parent may hold the pipe open.
        std::thread::spawn(move || pass_on(stderr, keep, &send));
    }
    let status = child.wait();
    let mut kept = Vec::new();
    while let Ok(line) = receive.recv_timeout(Duration::from_secs(2)) {
        kept.push(line);
    }
    (status.map_err(|e| e.to_string()).and_then(|status| judged(command, status)), kept)
}

fn pass_on(from: impl Read, keep: fn(&str) -> bool, kept: &mpsc::Sender<String>) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        eprintln!("{line}");
        if keep(&line) {
            let _ = kept.send(line);
        }
    }
}

/// Builds the product as it is shipped; where it is then, see [`release`].
pub fn build_release() -> Outcome {
    run(&mut command("cargo build --quiet --release --locked --package pvfs-cli --bin pvfs"))
}

/// The program that [`build_release`] makes.
pub fn release() -> PathBuf {
    target_dir().join("release/pvfs")
}

/// # Errors
/// One of `programs` is missing: Debian has them in `packages`.
pub fn need(programs: &[&str], packages: &str) -> Outcome {
    match programs.iter().find(|name| !is_installed(name)) {
        Some(missing) => Err(format!("{missing} is missing: apt install {packages}")),
        None => Ok(()),
    }
}

/// Whether `program` is in the `PATH`.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn judged(command: &Command, status: ExitStatus) -> Outcome {
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", shown(command))) }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
