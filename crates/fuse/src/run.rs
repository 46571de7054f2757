//! From a client to a mount that is served until it is told to stop or is unmounted, and everything told to the servers.

use crate::{MountError, MountOptions, Mounted, PvfsFs, mount, report::Reports};
use pvfs_client::Client;
use pvfs_types::{Cred, FileKind, Ino};
use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};
use tokio::time::timeout;
use tracing::{info, warn};

/// How long to tell the mgr of the end before leaving that to the lease.
const GOODBYE: Duration = Duration::from_secs(10);

/// What to mount where.
#[derive(Clone, Debug)]
pub struct MountConfig {
    /// What mount tables show: the SPEC.
    pub source: String,
    /// The directory of the file system that becomes the mount's root: `/` or a path below.
    pub path: Vec<u8>,
    pub dir: PathBuf,
    pub options: MountOptions,
    /// How long to wait at a stop for those who use the mount, before it is taken away from them.
    pub stop_grace: Duration,
}

impl MountConfig {
    /// The whole of the file system `source` on `dir`.
    pub fn new(source: impl Into<String>, dir: impl Into<PathBuf>) -> MountConfig {
        MountConfig {
            source: source.into(),
            path: b"/".to_vec(),
            dir: dir.into(),
            options: MountOptions::default(),
            stop_grace: Duration::from_secs(5),
        }
    }
}

/// Mounts, and gives a handle to the live mount. Ending the client stays with the caller.
pub async fn mount_client(client: Arc<Client>, config: &MountConfig) -> Result<Mounted, MountError> {
    let root = load_root(&client, &config.path).await?;
    let metrics = client.metrics();
    let fs = Arc::new(PvfsFs::new(client, root));
    mount(fs, &config.source, &config.dir, &config.options, &metrics).await
}

/// Mounts, calls `ready` when the mount is live, serves it until `shutdown` ends or somebody unmounts it; then tells the
/// servers everything and ends the client's session.
pub async fn run(
    client: Arc<Client>,
    config: MountConfig,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(&Mounted),
) -> Result<(), MountError> {
    let mounted = mount_client(Arc::clone(&client), &config).await?;
    let _reports = Reports::start(&client, mounted.dir())
        .inspect_err(|error| warn!(%error, "`pvfs status` will not show this mount's waiting calls"))
        .ok();
    ready(&mounted);
    let ended = tokio::select! {
        biased;
        ended = mounted.ended() => ended,
        () = shutdown => mounted.unmount(config.stop_grace).await,
    };
    goodbye(&client).await;
    info!(dir = %mounted.dir().display(), "unmounted");
    // Whoever waits for this mount's end hears of it now.
    drop(mounted);
    ended
}

async fn goodbye(client: &Client) {
    match timeout(GOODBYE, client.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "the session did not end cleanly; the mgr will settle it"),
        Err(_) => warn!(waited_s = GOODBYE.as_secs(), "no mgr to say goodbye to; it will settle the session"),
    }
}

/// # Errors
/// [`MountError::Root`]: there is no such directory.
async fn load_root(client: &Client, path: &[u8]) -> Result<Ino, MountError> {
    let wrong = |source| MountError::Root { path: path.escape_ascii().to_string(), source };
    let attr = client.resolve(&Cred::root(), path, true).await.map_err(|e| wrong(e.errno()))?;
    if attr.kind != FileKind::Dir {
        return Err(wrong(pvfs_types::Errno::ENOTDIR));
    }
    Ok(attr.ino)
}
