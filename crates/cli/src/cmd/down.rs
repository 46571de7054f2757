//! `pvfs down`: stops what `pvfs up` runs.

use crate::{cmd::format::dir_or_default, context::Context, error::CliError, out, running};
use std::{
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

/// How long `up` may take to unmount and stop its daemons.
const PATIENCE: Duration = Duration::from_secs(40);

/// Stop what `pvfs up` started
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Stops the last `pvfs up` of this user, or that of --dir: unmounts, stops the daemons, waits for their end. The data stays; \
the next `pvfs up` finds it.

Examples:
  pvfs down
  pvfs down --dir /srv/pvfs")]
pub struct Args {
    /// The directory given to `pvfs up`
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum DownError {
    #[error("no `pvfs up` runs from {}: name its directory with --dir DIR, if it has another", dir.display())]
    NotRunning { dir: PathBuf },
    #[error("{}: {source}", dir.display())]
    Lock { dir: PathBuf, source: io::Error },
    #[error(
        "`pvfs up` (pid {pid}) did not end within {PATIENCE:?}; its mount may be in use (see {}), or its log says more: {}",
        "`fuser -vm MOUNTPOINT`", log.display()
    )]
    Late { pid: u32, log: PathBuf },
}

pub fn run(args: &Args) -> Result<(), CliError> {
    let dir = match (&args.dir, Context::load()) {
        (None, Some(context)) => context.dir,
        (dir, _) => dir_or_default(dir.as_deref())?,
    };
    let lock = |source| DownError::Lock { dir: dir.clone(), source };
    let Some(pid) = running::find(&dir).map_err(lock)? else {
        return Err(DownError::NotRunning { dir }.into());
    };
    let begin = Instant::now();
    running::terminate(&dir, pid).map_err(lock)?;
    while running::find(&dir).map_err(lock)? == Some(pid) {
        if begin.elapsed() > PATIENCE {
            return Err(DownError::Late { pid, log: dir.join("log/up.log") }.into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    out::line(format_args!("pvfs up (pid {pid}) has stopped; the data stays in {}.", dir.display()))
}
