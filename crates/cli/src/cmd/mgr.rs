//! `pvfs mgr`: the metadata manager daemon.

use crate::{args::Global, config::Cluster, error::CliError, runtime};
use std::{io::Write as _, path::PathBuf};

/// Run the metadata manager daemon
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs in the foreground until SIGTERM or Ctrl-C. Prints `ready ADDRESS` on stdout when it listens; logs go to stderr \
(PVFS_LOG=debug shows more). Kill it at any moment: a mgr started again goes on where this one stopped.

Examples:
  pvfs mgr --cluster /srv/pvfs/cluster.toml
  pvfs mgr --store /srv/pvfs/mgr --listen 10.0.0.1:7334 --metrics 127.0.0.1:9334")]
pub struct Args {
    /// The directory of the metadata store, made by `pvfs format` [default: [local.mgr] of cluster.toml]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Where to listen, HOST:PORT; port 0 takes a free one [default: [local.mgr] of cluster.toml]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// How long a client that is not heard of keeps what others wait for, as the bytes of unlinked files that it has open
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    lease_seconds: u64,
    /// Keep files of up to so many bytes in the metadata store: closing one is one message, reading it another; 0 keeps none
    #[arg(long, value_name = "BYTES", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(0..=4096))]
    inline_bytes: u32,
    /// Serve counters in Prometheus text at http://ADDR/metrics
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
}

pub fn run(args: Args, global: &Global) -> Result<(), CliError> {
    let cluster = Cluster::locate(global.cluster.as_deref())?;
    let local = cluster.local.as_ref().and_then(|local| local.mgr.as_ref());
    let needed = |what: &str| CliError::Usage {
        text: format!(
            "{what} is needed: {} has no [local.mgr] table to take it from",
            cluster.file.display()
        ),
    };
    let store =
        args.store.or_else(|| local.map(|mgr| mgr.store.clone())).ok_or_else(|| needed("--store DIR"))?;
    let listen =
        args.listen.or_else(|| local.map(|mgr| mgr.listen.clone())).ok_or_else(|| needed("--listen ADDR"))?;
    let mut config =
        pvfs_mgr::MgrConfig::new(cluster.fs, store, cluster.cluster_secret()?, cluster.daemon_secret()?);
    config.listen = listen;
    config.metrics_addr = args.metrics;
    config.lease_ms = args.lease_seconds * 1000;
    config.inline_bytes_max = usize::try_from(args.inline_bytes).unwrap_or(0);
    // Several of them must fit into a lease.
    config.keep_alive_ms = config.keep_alive_ms.min(config.lease_ms / 5);
    runtime::block_on(2, async {
        let stop = runtime::stop_signal()?;
        pvfs_mgr::run(config, stop, |addr| print_ready(&addr)).await.map_err(CliError::from)
    })
}

/// Tells whoever started this daemon that it listens on `addr`.
pub fn print_ready(addr: &str) {
    let mut stdout = std::io::stdout();
    // Whoever started it may have closed the pipe; the daemon runs all the same.
    writeln!(stdout, "ready {addr}").and_then(|()| stdout.flush()).ok();
}
