//! A file system of one mgr and four iods in this process, and mounts of it.

use pvfs_client::{Client, ClientConfig};
use pvfs_fuse::{MountConfig, MountError, Mounted, run};
use pvfs_iod::IodConfig;
use pvfs_mgr::MgrConfig;
use pvfs_store::format_target;
use pvfs_types::FsId;
use pvfs_wire::msg::hello::Secret;
use std::{future::Future, path::Path, sync::Arc};
use tokio::{sync::oneshot, task::JoinHandle};

const CLUSTER: Secret = Secret([1; 32]);
const DAEMONS: Secret = Secret([2; 32]);
const IODS: usize = 4;

/// A running file system. Its daemons end with the runtime.
pub struct World {
    pub dir: tempfile::TempDir,
    pub mgr: String,
}

impl World {
    /// `None`, and says why, where this machine lets nobody mount.
    pub async fn start() -> Option<World> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("skipped: this test mounts, which needs root and /dev/fuse");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        // Callers without rights go through it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).expect("may");
        let fs = FsId::random();
        let targets: Vec<_> = (0..IODS).map(|n| dir.path().join(format!("iod{n}"))).collect();
        let uuids: Vec<_> = targets.iter().map(|t| format_target(t, fs).expect("formats")).collect();
        let store = dir.path().join("mgr");
        pvfs_mgr::format(&store, fs, &uuids).expect("formats");
        let mut config = MgrConfig::new(fs, store, CLUSTER, DAEMONS);
        config.listen = "127.0.0.1:0".into();
        let mgr = started(|ready| pvfs_mgr::run(config, std::future::pending(), ready)).await;
        for target in targets {
            let mut config = IodConfig::new(fs, CLUSTER, DAEMONS);
            config.targets = vec![target];
            config.mgr = vec![mgr.clone()];
            started(|ready| pvfs_iod::run(config, std::future::pending(), ready)).await;
        }
        Some(World { dir, mgr })
    }

    pub async fn client(&self) -> Arc<Client> {
        Client::connect(ClientConfig::new(vec![self.mgr.clone()], CLUSTER)).await.expect("connects")
    }

    /// Mounts `path` of the file system, as `pvfs mount` does.
    pub async fn mount(&self, name: &str, path: &str, options: &str) -> TestMount {
        let client = self.client().await;
        let dir = self.dir.path().join(name);
        std::fs::create_dir(&dir).expect("makes the mount point");
        let mut config = MountConfig::new(format!("pvfs://{}{path}", self.mgr), &dir);
        config.path = path.into();
        config.options = pvfs_fuse::MountOptions::parse(options).expect("options");
        let (stop, stopped) = oneshot::channel::<()>();
        let (live, is_live) = oneshot::channel();
        let ready = |mounted: &Mounted| live.send(mounted.dir().to_owned()).expect("the test waits");
        let stopped = async {
            stopped.await.ok();
        };
        let task = tokio::spawn(run(Arc::clone(&client), config, stopped, ready));
        TestMount { dir: is_live.await.expect("mounts"), client, stop: Some(stop), task }
    }
}

/// Starts a daemon and gives its address once it listens.
async fn started<E: std::fmt::Debug + Send + 'static, F: Future<Output = Result<(), E>> + Send + 'static>(
    run: impl FnOnce(Box<dyn FnOnce(String) + Send>) -> F,
) -> String {
    let (tell, told) = oneshot::channel();
    let daemon = run(Box::new(|addr| tell.send(addr).expect("the test waits")));
    tokio::spawn(async { daemon.await.expect("the daemon runs") });
    told.await.expect("the daemon starts")
}

/// A live mount, taken away when dropped, also by a panic.
pub struct TestMount {
    pub dir: std::path::PathBuf,
    pub client: Arc<Client>,
    stop: Option<oneshot::Sender<()>>,
    pub task: JoinHandle<Result<(), MountError>>,
}

impl TestMount {
    /// Stops it as SIGTERM would.
    pub async fn stop(mut self) -> Result<(), MountError> {
        drop(self.stop.take());
        (&mut self.task).await.expect("no panic")
    }

    /// Waits for its end, which somebody else brings about.
    pub async fn ended(mut self) -> Result<(), MountError> {
        (&mut self.task).await.expect("no panic")
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        // Fails where it is unmounted already.
        let _ = rustix::mount::unmount(
            &self.dir,
            rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::FORCE,
        );
    }
}

/// Runs what uses a mount where it may block.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}
