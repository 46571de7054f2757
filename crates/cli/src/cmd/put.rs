//! `pvfs put`: copies local files and directories into PVFS.

use crate::{
    args::Global,
    copy::{self, CopyArgs, LayoutArgs},
    error::CliError,
    remote,
    spec::{Place, Spec},
};
use std::path::PathBuf;

/// Copy local files into PVFS
#[derive(Debug, clap::Args)]
#[command(after_help = "\
All but the last path are local, the last is in PVFS. Several sources need a directory as the last. Mode and modification \
time are kept. Files that are there are overwritten and keep their distribution.

Examples:
  pvfs put results.h5 /
  pvfs put -r src /backup
  pvfs put --strip-size 64K --pcount 2 big.dat /data/big.dat
  pvfs put data.bin pvfs://node1:7334/data.bin")]
pub struct Args {
    /// Local files or directories
    #[arg(required = true, value_name = "LOCAL")]
    sources: Vec<PathBuf>,
    /// /path, pvfs:/path or pvfs://host:port/path
    #[arg(value_name = "REMOTE", value_parser = Spec::arg())]
    target: Spec,
    #[command(flatten)]
    copy: CopyArgs,
    #[command(flatten)]
    layout: LayoutArgs,
}

pub fn run(args: Args, global: &Global) -> Result<(), CliError> {
    let spec = args.target.clone();
    remote::run(global, &[&spec], async |remote| {
        let sources: Vec<Place> = args.sources.into_iter().map(Place::Local).collect();
        let options = args.copy.options(args.layout.hint());
        copy::run("put", &remote, &sources, &Place::Pvfs(args.target), options).await
    })
}
