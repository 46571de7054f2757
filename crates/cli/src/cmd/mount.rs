//! `pvfs mount`: the file system as a directory.

use crate::{
    args::{self, Global},
    ask,
    config::{self, Cluster, ConfigError},
    error::CliError,
    runtime,
    spec::Spec,
};
use pvfs_client::{Client, ClientConfig, ClientError};
use pvfs_fuse::{MountConfig, MountOptions, OptionError, daemon};
use pvfs_wire::msg::hello::Secret;
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Mount a file system on a directory
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Returns when the mount is live; a daemon in the background serves it until `pvfs umount DIR`. Root mounts by itself, and \
for all users; others through fusermount3 (Debian: apt install fuse3), for themselves unless allow_other.

Options of -o: ro, nosuid, nodev, noexec, noatime, sync, dirsync and their opposites; allow_other; hard (default: a \
call waits for a dead server for ever, or until a signal) or soft,timeo=SECONDS (it then fails with EIO); cluster=FILE (as \
--cluster); secret=FILE (cluster.key, where there is no cluster.toml); log=FILE; metrics=ADDR. What only fstab needs (_netdev, \
noauto, user, nofail, x-…) is ignored. Called as mount.pvfs this command serves `mount -t pvfs` and fstab:
  pvfs://mgr1:7334/  /scratch  pvfs  _netdev,noatime,cluster=/etc/pvfs/cluster.toml  0 0

Examples:
  pvfs mount pvfs://mgr1:7334/ /scratch
  pvfs mount pvfs://mgr1:7334/projects/x ~/x -o ro,log=/tmp/x.log
  pvfs mount / /mnt --foreground               of the cluster in use, until Ctrl-C")]
pub struct Args {
    /// What to mount: pvfs://HOST:PORT/PATH, or /PATH in the cluster in use
    #[arg(value_name = "SPEC", value_parser = Spec::arg())]
    spec: Spec,
    /// Where to mount it
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Mount options, comma separated; may be given more than once
    #[arg(short, value_name = "OPTIONS", value_parser = checked_options)]
    options: Vec<String>,
    /// Stay in the foreground until SIGTERM, Ctrl-C or an unmount; print `ready DIR` on stdout when the mount is live
    #[arg(long, short)]
    foreground: bool,
    /// Serve counters in Prometheus text at http://ADDR/metrics
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
    /// Let the daemon in the background write its log to FILE
    #[arg(long, value_name = "FILE", conflicts_with = "foreground")]
    log: Option<PathBuf>,
}

fn checked_options(text: &str) -> Result<String, OptionError> {
    MountOptions::default().add(text).map(|()| text.to_owned())
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let options = MountOptions::parse(&args.options.join(","))
        .map_err(|error| CliError::Usage { text: error.to_string() })?;
    if args.foreground {
        return serve(args, options, global, print_ready);
    }
    let Some(parent) = daemon::Parent::find().map_err(|source| CliError::Runtime { source })? else {
        let log = args.log.as_ref().or(options.log.as_ref());
        let same = args::helper_form(std::env::args_os()).into_iter().skip(1);
        return Ok(daemon::launch(same, log.map(PathBuf::as_path))?);
    };
    let mut parent = Some(parent);
    let done = serve(args, options, global, |_| {
        if let Some(parent) = parent.take() {
            parent.live();
        }
    });
    if let (Err(error), Some(parent)) = (&done, parent) {
        parent.failed(&error.text().unwrap_or_default());
    }
    done
}

/// Mounts, and serves until a signal or an unmount.
fn serve(
    args: &Args,
    mut options: MountOptions,
    global: &Global,
    ready: impl FnOnce(&Path),
) -> Result<(), CliError> {
    let metrics = args.metrics.clone().or(options.metrics.take());
    let cluster = cluster_of(&args.spec, &options, global)?;
    let source = format!("pvfs://{}{}", cluster.mgr.join(","), args.spec.display());
    let mut config = MountConfig::new(source, &args.dir);
    config.path.clone_from(&args.spec.path);
    let timeo = options.patience();
    config.options = options;
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    runtime::block_on(threads, async {
        let mut stop = Box::pin(runtime::stop_signal()?);
        let client = tokio::select! {
            biased;
            () = &mut stop => return Err(CliError::Interrupted),
            client = cluster.connect(&args.dir, global, timeo) => client?,
        };
        let shown = client.metrics();
        let serve_metrics = async {
            let Some(addr) = metrics else { return std::future::pending().await };
            shown.serve(&addr, |_| {}).await.map_err(CliError::local(format!("--metrics {addr}")))
        };
        tokio::select! {
            biased;
            failed = serve_metrics => failed,
            done = pvfs_fuse::run(client, config, stop, |mounted| ready(mounted.dir())) => Ok(done?),
        }
    })
}

/// What a mount must know of its cluster.
struct MountCluster {
    mgr: Vec<String>,
    secret: Secret,
    /// Unless only a secret is known.
    cluster: Option<Cluster>,
}

/// The options say more than the command's general arguments, and those more than what lies about.
fn cluster_of(spec: &Spec, options: &MountOptions, global: &Global) -> Result<MountCluster, CliError> {
    if let Some(secret) = &options.secret {
        if spec.mgr.is_empty() {
            let text = "with -o secret=FILE, name the mgr: pvfs://HOST:PORT/PATH";
            return Err(CliError::Usage { text: text.into() });
        }
        return Ok(MountCluster { mgr: spec.mgr.clone(), secret: read_secret(secret)?, cluster: None });
    }
    let cluster = Cluster::locate(options.cluster.as_deref().or(global.cluster.as_deref()))?;
    let mgr = if spec.mgr.is_empty() { cluster.mgr.clone() } else { spec.mgr.clone() };
    Ok(MountCluster { mgr, secret: cluster.cluster_secret()?, cluster: Some(cluster) })
}

fn read_secret(key_file: &Path) -> Result<Secret, CliError> {
    let text = std::fs::read_to_string(key_file).map_err(CliError::local(key_file))?;
    let key = config::parse_hex(text.trim());
    Ok(key.map(Secret).ok_or_else(|| ConfigError::BadKey { key_file: key_file.to_owned() })?)
}

impl MountCluster {
    async fn connect(
        &self,
        dir: &Path,
        global: &Global,
        timeo: Option<Duration>,
    ) -> Result<Arc<Client>, CliError> {
        let mut config = ClientConfig::new(self.mgr.clone(), self.secret);
        config.fs = self.cluster.as_ref().map(|cluster| cluster.fs);
        config.connect_deadline = global.deadline();
        config.timeo = timeo;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        config.label = format!("mount {host}:{}, pid {}", dir.display(), std::process::id());
        Client::connect(config).await.map_err(|error| match (&self.cluster, error) {
            (Some(cluster), error @ ClientError::Unreachable { .. }) => {
                ask::unreachable(cluster, error.to_string())
            }
            (Some(cluster), source @ ClientError::NotLetIn { .. }) => {
                CliError::NotLetIn { cluster: cluster.file.clone(), source }
            }
            (_, error) => CliError::remote("at the start of the session")(error),
        })
    }
}

fn print_ready(dir: &Path) {
    let mut stdout = std::io::stdout();
    // Whoever started it may have closed the pipe; the mount is live all the same.
    writeln!(stdout, "ready {}", dir.display()).and_then(|()| stdout.flush()).ok();
}
