//! A tool's client: connected to the cluster that its arguments name, asking as the user who runs it.

use crate::{
    args::Global,
    ask::{self, Asker},
    config::Cluster,
    error::CliError,
    runtime,
    spec::Spec,
};
use pvfs_client::{Client, ClientConfig, ClientError, CreateOptions, File};
use pvfs_types::{Attr, Cred, FileKind, Ino, LayoutHint, Name, NewMode};
use pvfs_wire::{Access, msg::session::Targets};
use rustix::{fs::Mode, process};
use std::{sync::Arc, time::Duration};

/// How long a tool that is done waits until the mgr knows that its session ends.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// A connected client and who uses it.
#[derive(Clone)]
pub struct Remote {
    pub client: Arc<Client>,
    pub cred: Cred,
    pub cluster: Arc<Cluster>,
    /// Permission bits that new files do not get.
    pub umask: u32,
}

/// Connects to the cluster of `specs`, does `work`, ends the session.
pub fn run<T>(
    global: &Global,
    specs: &[&Spec],
    work: impl AsyncFnOnce(Remote) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let cluster = cluster_of(global, specs)?;
    runtime::run_tool(async {
        let remote = Remote::connect(&cluster, global).await?;
        let client = Arc::clone(&remote.client);
        let result = work(remote).await;
        let closed = tokio::time::timeout(CLOSE_PATIENCE, client.shutdown()).await;
        match (result, closed) {
            (Ok(_), Ok(Err(error))) => Err(CliError::remote("at the end of the session")(error)),
            (result, _) => result,
        }
    })
}

/// The one cluster that all of `specs` are in.
fn cluster_of(global: &Global, specs: &[&Spec]) -> Result<Cluster, CliError> {
    let mut cluster = Cluster::locate(global.cluster.as_deref())?;
    let mut named = specs.iter().map(|spec| &spec.mgr).filter(|mgr| !mgr.is_empty());
    if let Some(first) = named.next() {
        if named.any(|other| other != first) {
            let text = "the paths are in different file systems: name one in a command";
            return Err(CliError::Usage { text: text.into() });
        }
        cluster.mgr.clone_from(first);
    }
    Ok(cluster)
}

impl Remote {
    async fn connect(cluster: &Cluster, global: &Global) -> Result<Remote, CliError> {
        let mut config = ClientConfig::new(cluster.mgr.clone(), cluster.cluster_secret()?);
        config.fs = Some(cluster.fs);
        config.connect_deadline = global.deadline();
        config.transport = global.transport().unwrap_or(config.transport);
        config.label =
            format!("pvfs {}, pid {}", std::env::args().nth(1).unwrap_or_default(), std::process::id());
        let client = Client::connect(config).await.map_err(|error| match error {
            ClientError::Unreachable { .. } => ask::unreachable(cluster, error.to_string()),
            ClientError::NotLetIn { .. } => {
                CliError::NotLetIn { cluster: cluster.file.clone(), source: error }
            }
            other => CliError::remote("at the start of the session")(other),
        })?;
        Ok(Remote { client, cred: own_cred(), cluster: Arc::new(cluster.clone()), umask: own_umask() })
    }

    /// The inode at `path`; a symbolic link at its end is followed only with `follow`.
    pub async fn attr(&self, path: &[u8], follow: bool) -> Result<Attr, ClientError> {
        self.client.resolve(&self.cred, path, follow).await
    }

    /// As [`Remote::attr`], `None` where there is nothing.
    pub async fn find(&self, path: &[u8], follow: bool) -> Result<Option<Attr>, ClientError> {
        match self.attr(path, follow).await {
            Ok(attr) => Ok(Some(attr)),
            Err(error) if error.errno() == pvfs_types::Errno::ENOENT => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The directory that `path` is in, and its name there.
    pub async fn parent(&self, path: &[u8]) -> Result<(Ino, Name), ClientError> {
        self.client.resolve_parent(&self.cred, path).await
    }

    /// Opens the file at `path` for writing, empty; makes it where it is not there. Tells whether it made it.
    pub async fn create(
        &self,
        path: &[u8],
        mode: u32,
        layout: LayoutHint,
    ) -> Result<(File, bool), ClientError> {
        let options = CreateOptions { access: Access::WRITE, mode, layout, ..CreateOptions::default() };
        let made = self.client.create_path(&self.cred, path, options).await?;
        Ok((made.file, made.created))
    }

    /// Where `source` goes when it is copied, moved or linked to `to`: into it, where it is a directory.
    pub async fn place(&self, source: &Spec, to: &Spec) -> Result<Spec, ClientError> {
        let into = self.find(&to.path, true).await?.is_some_and(|attr| attr.kind == FileKind::Dir);
        Ok(if into { to.join(source.file_name()) } else { to.clone() })
    }

    /// All targets and iodtabs, from the mgr.
    pub async fn targets(&self) -> Result<Targets, CliError> {
        let asker = Asker::new(&self.cluster, None)?;
        ask::first_mgr(&self.cluster, async |mgr| asker.targets(mgr).await).await.map(|(_, targets)| targets)
    }

    /// `mode` for something new, asked for under this process's umask.
    pub fn new_mode(&self, mode: u32) -> NewMode {
        NewMode::masked(mode, self.umask)
    }
}

fn own_cred() -> Cred {
    let mut groups: Vec<u32> =
        process::getgroups().unwrap_or_default().into_iter().map(rustix::process::Gid::as_raw).collect();
    groups.truncate(pvfs_types::limits::GROUPS_SENT_MAX);
    Cred { uid: process::geteuid().as_raw(), gid: process::getegid().as_raw(), groups }
}

/// Reading it means setting it; this process makes no local files in between.
fn own_umask() -> u32 {
    let old = process::umask(Mode::empty());
    process::umask(old);
    old.bits() & 0o777
}
