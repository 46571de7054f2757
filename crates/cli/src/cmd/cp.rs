//! `pvfs cp`: copies into, out of or within PVFS.

use crate::{
    args::Global,
    copy::{self, CopyArgs, LayoutArgs},
    error::CliError,
    remote,
    spec::{Place, Spec},
};

/// Copy files into, out of or within PVFS
#[derive(Debug, clap::Args)]
#[command(after_help = "\
One rule: a path that starts with `pvfs:` is in PVFS (pvfs:/path, or pvfs://host:port/path), every other path is local. (A \
local file with such a name is written ./pvfs:…) Sources are all local or all in PVFS. A copy within PVFS runs through this \
machine and may give files another distribution.

Examples:
  pvfs cp -r src pvfs:/backup
  pvfs cp pvfs:/results.h5 .
  pvfs cp --pcount 4 --strip-size 256K pvfs:/a pvfs:/a-striped-anew")]
pub struct Args {
    /// What to copy
    #[arg(required = true, value_name = "SOURCE", value_parser = Place::arg())]
    sources: Vec<Place>,
    /// Where to
    #[arg(value_name = "TARGET", value_parser = Place::arg())]
    target: Place,
    #[command(flatten)]
    copy: CopyArgs,
    #[command(flatten)]
    layout: LayoutArgs,
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let usage = |text: &str| Err(CliError::Usage { text: text.into() });
    let remote_count = args.sources.iter().filter(|place| matches!(place, Place::Pvfs(_))).count();
    if remote_count != 0 && remote_count != args.sources.len() {
        return usage("the sources are partly local and partly in PVFS: copy them by two commands");
    }
    if remote_count == 0 && matches!(args.target, Place::Local(_)) {
        return usage("none of these paths is in PVFS: paths in PVFS start with `pvfs:`");
    }
    let specs: Vec<Spec> = args.sources.iter().chain([&args.target]).filter_map(spec_of).collect();
    remote::run(global, &specs.iter().collect::<Vec<_>>(), async |remote| {
        let options = args.copy.options(args.layout.hint());
        copy::run("cp", &remote, &args.sources, &args.target, options).await
    })
}

fn spec_of(place: &Place) -> Option<Spec> {
    match place {
        Place::Pvfs(spec) => Some(spec.clone()),
        Place::Local(_) => None,
    }
}
