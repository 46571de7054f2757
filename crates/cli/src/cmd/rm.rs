//! `pvfs rm`: removes files and trees, many names at once.

use crate::{args::Global, error::CliError, remote, remote::Remote, spec::Spec};
use pvfs_types::{FileKind, Ino, Name};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::task::JoinSet;

/// Removals in flight.
const AT_ONCE: usize = 32;

/// Remove files, and with -r directories
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pvfs rm /old.dat\n  pvfs rm -r /scratch/job17\n  pvfs rm -f /maybe-there"
)]
pub struct Args {
    /// /path, pvfs:/path or pvfs://host:port/path
    #[arg(required = true, value_name = "PATH", value_parser = Spec::arg())]
    paths: Vec<Spec>,
    /// Remove directories with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// No error for what is not there
    #[arg(short, long)]
    force: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let specs: Vec<&Spec> = args.paths.iter().collect();
    remote::run(global, &specs, async |remote| {
        let remove = Arc::new(Remove { remote, force: args.force, failed: AtomicBool::new(false) });
        for spec in &args.paths {
            let removed = remove.path(spec, args.recursive).await;
            remove.told(removed);
        }
        if remove.failed.load(Ordering::Relaxed) { Err(CliError::Told) } else { Ok(()) }
    })
}

struct Remove {
    remote: Remote,
    force: bool,
    failed: AtomicBool,
}

/// A directory to be removed once it is empty: its place, its own number, how messages name it.
struct Dir {
    parent: Ino,
    name: Name,
    ino: Ino,
    shown: String,
}

impl Remove {
    async fn path(self: &Arc<Self>, spec: &Spec, recursive: bool) -> Result<(), CliError> {
        let wrong = || CliError::remote(spec.display());
        let (client, cred) = (&self.remote.client, &self.remote.cred);
        let (parent, name) = self.remote.parent(&spec.path).await.map_err(wrong())?;
        let attr = client.lookup(cred, parent, &name).await.map_err(wrong())?;
        if attr.kind != FileKind::Dir {
            return client.unlink(cred, parent, &name).await.map_err(wrong());
        }
        if !recursive {
            return Err(CliError::RemoveNeedsRecursive { path: spec.display() });
        }
        self.tree(Dir { parent, name, ino: attr.ino, shown: spec.display() }).await;
        Ok(())
    }

    /// Removes what is in `root`, level by level, then the directories, the deepest first.
    async fn tree(self: &Arc<Self>, root: Dir) {
        let (client, cred) = (&self.remote.client, &self.remote.cred);
        let mut left = VecDeque::from([root]);
        let mut dirs = Vec::new();
        let mut running = JoinSet::new();
        while let Some(dir) = left.pop_front() {
            match client.readdir_all(cred, dir.ino, false).await {
                Err(error) => self.told(Err(CliError::remote(&dir.shown)(error))),
                Ok(items) => {
                    for item in items {
                        let shown = format!("{}/{}", dir.shown.trim_end_matches('/'), item.name);
                        if item.kind == FileKind::Dir {
                            left.push_back(Dir { parent: dir.ino, name: item.name, ino: item.ino, shown });
                            continue;
                        }
                        if running.len() >= AT_ONCE {
                            running.join_next().await;
                        }
                        let (remove, parent) = (Arc::clone(self), dir.ino);
                        running.spawn(async move {
                            let removed =
                                remove.remote.client.unlink(&remove.remote.cred, parent, &item.name).await;
                            remove.told(removed.map_err(CliError::remote(shown)));
                        });
                    }
                }
            }
            dirs.push(dir);
        }
        running.join_all().await;
        for dir in dirs.into_iter().rev() {
            let removed = client.rmdir(cred, dir.parent, &dir.name).await;
            self.told(removed.map_err(CliError::remote(dir.shown)));
        }
    }

    fn told(&self, result: Result<(), CliError>) {
        match result {
            Ok(()) => {}
            Err(error) if self.force && error.is_not_found() => {}
            Err(error) => {
                self.failed.store(true, Ordering::Relaxed);
                eprintln!("pvfs rm: {error}");
            }
        }
    }
}
