//! `pvfs iod`: the I/O daemon.

use crate::{args::Global, cmd::mgr::print_ready, config::Cluster, error::CliError, runtime};
use std::{path::PathBuf, time::Duration};

/// Run an I/O daemon
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Serves one or more target directories. Runs in the foreground until SIGTERM or Ctrl-C. Prints `ready ADDRESS` on stdout \
when it listens; logs go to stderr (PVFS_LOG=debug shows more). Kill it at any moment: clients wait, and go on as soon as it \
listens again.

Examples:
  pvfs iod --cluster /srv/pvfs/cluster.toml --name iod0
  pvfs iod --listen 10.0.0.2:7335 --target /disk1/pvfs --target /disk2/pvfs")]
pub struct Args {
    /// Take targets and address from this [[local.iod]] entry of cluster.toml
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A target directory, made by `pvfs format`; may be given more than once
    #[arg(long = "target", value_name = "DIR")]
    targets: Vec<PathBuf>,
    /// Where to listen, HOST:PORT; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where clients reach it, where that is not the address it listens on
    #[arg(long, value_name = "ADDR")]
    advertise: Option<String>,
    /// Make durable every so many seconds what clients wrote; they keep it until then, to send it again should this
    /// machine lose its power
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    commit_seconds: u64,
    /// Serve counters in Prometheus text at http://ADDR/metrics
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
}

pub fn run(args: Args, global: &Global) -> Result<(), CliError> {
    let cluster = Cluster::locate(global.cluster.as_deref())?;
    let mut entry = None;
    if let Some(name) = &args.name {
        let all = cluster.local.iter().flat_map(|local| &local.iod);
        entry = all.clone().find(|iod| iod.name == *name);
        if entry.is_none() {
            let names: Vec<&str> = all.map(|iod| iod.name.as_str()).collect();
            let text = format!(
                "{} has no [[local.iod]] named {name:?} (it has: {})",
                cluster.file.display(),
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            );
            return Err(CliError::Usage { text });
        }
    }
    let targets =
        if args.targets.is_empty() { entry.map(|iod| iod.targets.clone()) } else { Some(args.targets) };
    let needed = |what: &str| CliError::Usage { text: format!("{what} is needed, or --name NAME") };
    let targets = targets.ok_or_else(|| needed("--target DIR"))?;
    let listen = args.listen.or_else(|| entry.map(|iod| iod.listen.clone()));
    let listen = listen.ok_or_else(|| needed("--listen ADDR"))?;
    let mut config =
        pvfs_iod::IodConfig::new(cluster.fs, cluster.cluster_secret()?, cluster.daemon_secret()?);
    config.targets = targets;
    config.mgr.clone_from(&cluster.mgr);
    if let Some(name) = args.name {
        config.label = name;
    }
    config.listen = listen;
    config.advertise = args.advertise;
    config.metrics_addr = args.metrics;
    config.commit_period = Duration::from_secs(args.commit_seconds);
    // For tests, which cannot stop the machine.
    config.boot_id = std::env::var_os("PVFS_BOOT_ID_FILE").map(PathBuf::from);
    runtime::block_on(2, async {
        let stop = runtime::stop_signal()?;
        pvfs_iod::run(config, stop, |addr| print_ready(&addr)).await.map_err(CliError::from)
    })
}
