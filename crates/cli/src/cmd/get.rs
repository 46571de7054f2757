//! `pvfs get`: copies files and directories out of PVFS.

use crate::{
    args::Global,
    copy::{self, CopyArgs},
    error::CliError,
    remote,
    spec::{Place, Spec},
};
use pvfs_types::LayoutHint;
use std::path::PathBuf;

/// Copy files out of PVFS
#[derive(Debug, clap::Args)]
#[command(after_help = "\
All but the last path are in PVFS, the last is local. Several sources need a directory as the last. Mode and modification \
time are kept.

Examples:
  pvfs get /results.h5 .
  pvfs get -r /backup/src /tmp/src
  pvfs get /a /b /c /tmp/")]
pub struct Args {
    /// Files or directories in PVFS: /path, pvfs:/path or pvfs://host:port/path
    #[arg(required = true, value_name = "REMOTE", value_parser = Spec::arg())]
    sources: Vec<Spec>,
    /// A local path
    #[arg(value_name = "LOCAL")]
    target: PathBuf,
    #[command(flatten)]
    copy: CopyArgs,
}

pub fn run(args: Args, global: &Global) -> Result<(), CliError> {
    let specs = args.sources.clone();
    remote::run(global, &specs.iter().collect::<Vec<_>>(), async |remote| {
        let sources: Vec<Place> = args.sources.into_iter().map(Place::Pvfs).collect();
        let options = args.copy.options(LayoutHint::default());
        copy::run("get", &remote, &sources, &Place::Local(args.target), options).await
    })
}
