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
use pvfs_fuse::{
    MountConfig, MountOptions, OptionError, Takeover, daemon,
    keeper::{self, Worker},
};
use pvfs_wire::msg::hello::Secret;
use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Mount a file system on a directory
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Returns when the mount is live; a daemon in the background serves it until `pvfs umount DIR`. It is two processes: a keeper, \
and the worker that it starts again whenever that dies, so that programs in the mount see a pause. Root mounts by itself, and \
for all users; others through fusermount3 (Debian: apt install fuse3), for themselves unless allow_other.

Options of -o: ro, nosuid, nodev, noexec, noatime, sync, dirsync and their opposites; relatime, strictatime, nodiratime (times of access are kept, a little late; default: they are not); allow_other; hard (default: a \
call waits for a dead server for ever, or until a signal) or soft,timeo=SECONDS (it then fails with EIO); locks=cluster (default: \
fcntl and flock hold over all mounts) or locks=local (over this one only, without a message); cache=coherent (default: what a call \
returned on one mount is what the next one on any other sees), cache=open (what others wrote and closed is seen by the next open, else \
within a second), cache=none (every call asks the servers, and sees what the last one on any mount did) or cache=private (this mount \
alone uses the tree: another one's changes may be seen a minute late); io_uring (default: requests come through rings where the kernel \
offers that, Linux 6.14 with /sys/module/fuse/parameters/enable_uring set, else by the device) or no_io_uring; cluster=FILE (as \
--cluster); secret=FILE (cluster.key, where there is no cluster.toml); log=FILE; metrics=ADDR; held_target=SIZE, held_total=SIZE (how \
much of what was written is kept until it is durable, by target and in all: 64M and 128M; a target has at most half of what the \
others leave). What only fstab needs (_netdev, \
noauto, user, nofail, x-…) is ignored. Called as mount.pvfs this command serves `mount -t pvfs` and fstab; as mount.fuse.pvfs \
(make both links to it in /sbin) `mount -o remount` too, which changes ro, suid, dev, exec, atime, sync and dirsync:
  pvfs://mgr1:7334/  /scratch  pvfs  _netdev,noatime,cluster=/etc/pvfs/cluster.toml  0 0

Examples:
  pvfs mount pvfs://mgr1:7334/ /scratch
  pvfs mount pvfs://mgr1:7334/projects/x ~/x -o ro,log=/tmp/x.log
  pvfs mount / /mnt --foreground               of the cluster in use, until Ctrl-C
  pvfs mount -o remount,ro /scratch            read only from now on
  pvfs mount --upgrade /scratch                go on with this program, under running jobs")]
pub struct Args {
    /// What to mount: pvfs://HOST:PORT/PATH, or /PATH in the cluster in use
    #[arg(value_name = "SPEC", value_parser = Spec::arg(), required_unless_present = "upgrade")]
    spec: Option<Spec>,
    /// Where to mount it
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Have the mount on DIR go on with this very program (a newer one), under running applications
    #[arg(long, value_name = "DIR", conflicts_with_all = ["spec", "dir", "options", "foreground", "metrics", "log"])]
    upgrade: Option<PathBuf>,
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
    if let Some(dir) = &args.upgrade {
        let program = std::env::current_exe().map_err(|source| CliError::Runtime { source })?;
        return Ok(pvfs_fuse::upgrade(dir, &program)?);
    }
    let options = MountOptions::parse(&args.options.join(","))
        .map_err(|error| CliError::Usage { text: error.to_string() })?;
    if options.remount {
        return remount(args);
    }
    let (Some(spec), Some(dir)) = (&args.spec, &args.dir) else {
        return Err(CliError::Usage { text: "name what to mount, and where".into() });
    };
    if let Some(worker) = Worker::find().map_err(|source| CliError::Runtime { source })? {
        return work(worker, args, Mount { spec, dir, options }, global);
    }
    // As this process was started, for another one to be started so.
    let same: Vec<OsString> = args::helper_form(std::env::args_os()).into_iter().skip(1).collect();
    if args.foreground {
        return keep(&same, print_ready);
    }
    let Some(parent) = daemon::Parent::find().map_err(|source| CliError::Runtime { source })? else {
        let log = args.log.as_ref().or(options.log.as_ref());
        return Ok(daemon::launch(same, log.map(PathBuf::as_path))?);
    };
    let mut parent = Some(parent);
    let done = keep(&same, |_| {
        if let Some(parent) = parent.take() {
            parent.live();
        }
    });
    if let (Err(error), Some(parent)) = (&done, parent) {
        parent.failed(&error.text().unwrap_or_default());
    }
    done
}

/// `-o remount,… DIR`, as people write it, or `SPEC DIR`, as mount(8) calls it.
fn remount(args: &Args) -> Result<(), CliError> {
    let named = args.spec.as_ref().map(|spec| Path::new(OsStr::from_bytes(&spec.path)));
    let dir = args.dir.as_deref().or(named);
    let dir = dir.ok_or_else(|| CliError::Usage { text: "name the mount to change".into() })?;
    Ok(pvfs_fuse::remount(dir, &args.options.join(","))?)
}

/// Keeps a worker running until a signal or an unmount.
fn keep(same: &[OsString], ready: impl FnOnce(&Path)) -> Result<(), CliError> {
    runtime::block_on_this_thread(async {
        let stop = runtime::stop_signal()?;
        Ok(keeper::keep(same, stop, ready).await?)
    })
}

/// What to mount where.
struct Mount<'a> {
    spec: &'a Spec,
    dir: &'a Path,
    options: MountOptions,
}

/// Mounts, or goes on for a worker that died, and serves until a signal or an unmount.
fn work(worker: Worker, args: &Args, mount: Mount, global: &Global) -> Result<(), CliError> {
    let told = worker.teller().map_err(|source| CliError::Runtime { source })?;
    let done = serve(worker, args, mount, global);
    if let Err(error) = &done {
        told.failed(&error.text().unwrap_or_default());
        // The keeper says it.
        return Err(CliError::Told);
    }
    done
}

fn serve(worker: Worker, args: &Args, mount: Mount, global: &Global) -> Result<(), CliError> {
    let Mount { spec, dir, mut options } = mount;
    let metrics = args.metrics.clone().or(options.metrics.take());
    let takeover = Takeover::begin(&worker)?;
    let place = if let Some(note) = takeover.note() {
        Place::read(&note)?
    } else {
        let place = Place::find(spec, dir, &options, global)?;
        takeover.set_note(&place.written())?;
        place
    };
    let source = format!("pvfs://{}{}", place.mgr.join(","), spec.display());
    let mut config = MountConfig::new(source, &place.dir);
    config.path.clone_from(&spec.path);
    let mut client = place.client(global)?;
    client.timeo = options.patience();
    client.held_bytes_target = options.held_target.unwrap_or(client.held_bytes_target);
    client.held_bytes_client = options.held_total.unwrap_or(client.held_bytes_client);
    client.delegations = options.cache.delegating();
    takeover.prepare(&mut client);
    config.memory = client.transport.memory().cloned();
    config.options = options;
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    runtime::block_on(threads, async {
        let (stop, stop_early) = (runtime::stop_signal()?, runtime::stop_signal()?);
        let (counted, shown) = (client.metrics.clone(), client.metrics.clone());
        let connect = async {
            tokio::select! {
                biased;
                () = stop_early => Err(CliError::Interrupted),
                client = place.connect(client) => client,
            }
        };
        let serve_metrics = async {
            let Some(addr) = metrics else { return std::future::pending().await };
            shown.serve(&addr, |_| {}).await.map_err(CliError::local(format!("--metrics {addr}")))
        };
        tokio::select! {
            biased;
            failed = serve_metrics => failed,
            done = pvfs_fuse::run_worker(worker, takeover, connect, &counted, config, stop) => done,
        }
    })
}

/// What a mount must know of where it is and of its cluster. The first worker finds it out; the others go by that, whatever
/// has become of files, of directories, and of the cluster in use.
#[derive(serde::Serialize, serde::Deserialize)]
struct Place {
    dir: PathBuf,
    mgr: Vec<String>,
    secret: [u8; 32],
    /// Unless only a secret is known.
    fs: Option<String>,
    /// Its `cluster.toml`, for messages.
    cluster: Option<PathBuf>,
}

impl Place {
    /// The options say more than the command's general arguments, and those more than what lies about.
    fn find(spec: &Spec, dir: &Path, options: &MountOptions, global: &Global) -> Result<Place, CliError> {
        // What is wrong with it is found when it is mounted on.
        let dir = dir.canonicalize().or_else(|_| std::path::absolute(dir)).map_err(CliError::local(dir))?;
        if let Some(secret) = &options.secret {
            if spec.mgr.is_empty() {
                let text = "with -o secret=FILE, name the mgr: pvfs://HOST:PORT/PATH";
                return Err(CliError::Usage { text: text.into() });
            }
            let Secret(secret) = read_secret(secret)?;
            return Ok(Place { dir, mgr: spec.mgr.clone(), secret, fs: None, cluster: None });
        }
        let cluster = Cluster::locate(options.cluster.as_deref().or(global.cluster.as_deref()))?;
        let mgr = if spec.mgr.is_empty() { cluster.mgr.clone() } else { spec.mgr.clone() };
        let Secret(secret) = cluster.cluster_secret()?;
        Ok(Place { dir, mgr, secret, fs: Some(cluster.fs.to_string()), cluster: Some(cluster.file) })
    }

    fn written(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn read(note: &[u8]) -> Result<Place, CliError> {
        let wrong = |error| CliError::Runtime { source: std::io::Error::other(error) };
        serde_json::from_slice(note).map_err(wrong)
    }

    /// How to be a client there.
    fn client(&self, global: &Global) -> Result<ClientConfig, CliError> {
        let wrong = |what: &str| CliError::Runtime { source: std::io::Error::other(what.to_owned()) };
        let mut config = ClientConfig::new(self.mgr.clone(), Secret(self.secret));
        if let Some(fs) = &self.fs {
            config.fs = Some(fs.parse().map_err(|_| wrong("no file system is noted"))?);
        }
        config.connect_deadline = global.deadline();
        config.transport = global.transport().unwrap_or(config.transport);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        config.label = format!("mount {host}:{}, pid {}", self.dir.display(), std::process::id());
        Ok(config)
    }

    async fn connect(&self, config: ClientConfig) -> Result<Arc<Client>, CliError> {
        Client::connect(config).await.map_err(|error| match (&self.cluster, error) {
            (Some(file), error @ ClientError::Unreachable { .. }) => match Cluster::locate(Some(file)) {
                Ok(cluster) => ask::unreachable(&cluster, error.to_string()),
                Err(_) => CliError::remote("at the start of the session")(error),
            },
            (Some(file), source @ ClientError::NotLetIn { .. }) => {
                CliError::NotLetIn { cluster: file.clone(), source }
            }
            (_, error) => CliError::remote("at the start of the session")(error),
        })
    }
}

fn read_secret(key_file: &Path) -> Result<Secret, CliError> {
    let text = std::fs::read_to_string(key_file).map_err(CliError::local(key_file))?;
    let key = config::parse_hex(text.trim());
    Ok(key.map(Secret).ok_or_else(|| ConfigError::BadKey { key_file: key_file.to_owned() })?)
}

fn print_ready(dir: &Path) {
    let mut stdout = std::io::stdout();
    // Whoever started it may have closed the pipe; the mount is live all the same.
    writeln!(stdout, "ready {}", dir.display()).and_then(|()| stdout.flush()).ok();
}
