//! `pvfs format`: makes a cluster's files, or one more target of it.

use crate::{args::Global, config::Cluster, context::default_dir, error::CliError, local, out, row, show};
use std::path::{Path, PathBuf};

/// Make a new file system, or one more target of it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --target, makes in DIR all that a file system on one machine needs: the metadata store (mgr/), targets (iod0/, \
iod1/, …), the secrets (cluster.key for clients, daemon.key for daemons only) and cluster.toml. `pvfs up` does this by \
itself on its first use.

For several machines: format on the one that runs the mgr, write its address as other machines see it into `mgr`, copy \
cluster.toml and the keys to the others (daemon.key only to those that run daemons), make their targets with --target, \
and start `pvfs mgr` and `pvfs iod` there.

A whole cluster.toml:
  fs = \"0d5c…-uuid\"
  mgr = [\"node1:7334\"]
  secret_file = \"cluster.key\"
  daemon_secret_file = \"daemon.key\"   # only where daemons run
  [local.mgr]                         # what `pvfs up` starts here, if anything
  store = \"mgr\"
  listen = \"127.0.0.1:7334\"
  [[local.iod]]
  name = \"iod0\"
  listen = \"127.0.0.1:7335\"
  targets = [\"iod0\"]

Examples:
  pvfs format --dir /srv/pvfs --iods 2
  pvfs format --target /disk2/pvfs --cluster /etc/pvfs/cluster.toml")]
pub struct Args {
    /// Where everything goes [default: the user's data directory, ~/.local/share/pvfs]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How many iods, with one target each
    #[arg(long, value_name = "N", default_value_t = local::DEFAULT_IODS, value_parser = clap::value_parser!(u16).range(1..=1000))]
    iods: u16,
    /// The mgr's port; the iods have those that follow
    #[arg(long, default_value_t = local::DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Make DIR one more target of the cluster in use, for an iod to serve
    #[arg(long, value_name = "DIR", conflicts_with_all = ["dir", "iods", "port"])]
    target: Option<PathBuf>,
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    if let Some(target) = &args.target {
        let cluster = Cluster::locate(global.cluster.as_deref())?;
        let uuid = local::format_target(target, cluster.fs)?;
        out::line(format_args!("{} is now target {uuid} of file system {}.", target.display(), cluster.fs))?;
        return out::line(format_args!(
            "It joins when its iod starts: pvfs iod --listen HOST:PORT --target {}",
            target.display()
        ));
    }
    let dir = dir_or_default(args.dir.as_deref())?;
    let fs = local::format(&dir, args.iods, args.port)?;
    let rows = vec![
        row!["file system", fs],
        row!["directory", dir.display()],
        row!["targets", args.iods],
        row!["secrets", "cluster.key (clients), daemon.key (daemons only)"],
    ];
    out::write(show::table(&rows, &[]))?;
    out::line(format_args!("Start it: pvfs up --dir {} MOUNTPOINT", dir.display()))
}

/// `dir`, or the user's data directory; absolute.
pub fn dir_or_default(dir: Option<&Path>) -> Result<PathBuf, CliError> {
    match dir {
        Some(dir) => std::path::absolute(dir).map_err(CliError::local(dir)),
        None => default_dir().ok_or_else(|| CliError::Usage {
            text: "neither XDG_DATA_HOME nor HOME is set: name a directory with --dir DIR".into(),
        }),
    }
}
