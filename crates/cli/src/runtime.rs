//! What every subcommand's `run` stands on: logs, the async runtime, the signals that end a process.

use crate::error::CliError;
use std::io::IsTerminal as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Logs go to stderr, a line an event. `PVFS_LOG` says which (as `RUST_LOG` does elsewhere).
pub fn start_logs(is_daemon: bool) {
    let default = if is_daemon { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("PVFS_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let to_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(to_terminal)
        .with_target(false)
        .init();
}

/// Runs `work` to its end on a runtime of `threads` threads.
pub fn block_on<T>(threads: usize, work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|source| CliError::Runtime { source })?;
    let done = runtime.block_on(work);
    // What still waits for a dead daemon must not hold the exit.
    runtime.shutdown_background();
    done
}

/// Runs `work` on the calling thread alone. Children started in it live as long as this thread (see
/// `supervise::die_with_parent`), so no worker thread may start them.
pub fn block_on_this_thread<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Runtime { source })?;
    runtime.block_on(work)
}

/// Runs a tool's work; Ctrl-C ends it, whatever it waits for.
pub fn run_tool<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    block_on(2, async {
        let stop = stop_signal()?;
        tokio::select! {
            biased;
            done = work => done,
            () = stop => Err(CliError::Interrupted),
        }
    })
}

/// Ends with the first SIGINT or SIGTERM. Signals count from the call on, not only from the first poll.
pub fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static, CliError> {
    let wrong = |source| CliError::Runtime { source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(wrong)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(wrong)?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
