//! `pvfs ln`: makes hard and symbolic links.

use crate::{args::Global, error::CliError, remote, spec::Spec};
use std::{ffi::OsString, os::unix::ffi::OsStrExt as _};

/// Make hard or symbolic links within PVFS
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pvfs ln /a /second-name-of-a\n  pvfs ln -s ../data /jobs/data")]
pub struct Args {
    /// What the link leads to; with -s any text
    #[arg(value_name = "TARGET")]
    target: OsString,
    /// The name to make; in it, where it is a directory
    #[arg(value_name = "LINK", value_parser = Spec::arg())]
    link: Spec,
    /// A symbolic link
    #[arg(short, long)]
    symbolic: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let target = if args.symbolic {
        Spec { mgr: Vec::new(), path: args.target.as_bytes().to_vec() }
    } else {
        Spec::parse(&args.target)?
    };
    remote::run(global, &[&target, &args.link], async |remote| {
        let made = async {
            let link = remote.place(&target, &args.link).await?;
            let (dir, name) = remote.parent(&link.path).await?;
            if args.symbolic {
                remote.client.symlink(&remote.cred, dir, &name, &target.path).await
            } else {
                let attr = remote.attr(&target.path, false).await?;
                remote.client.link(&remote.cred, attr.ino, dir, &name).await
            }
        };
        made.await.map(drop).map_err(CliError::remote(args.link.display()))
    })
}
