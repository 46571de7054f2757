//! `pvfs umount`: ends a mount, and nothing is lost.

use crate::error::CliError;
use pvfs_fuse::{Umounted, umount};
use std::path::PathBuf;

/// Unmount a file system
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Returns when the mount's daemon has told the servers everything and is gone. A mount that is in use is refused, with the \
programs that use it. `umount DIR` and `fusermount3 -u DIR` do as well, but do not wait for the daemon.

Examples:
  pvfs umount /scratch
  pvfs umount --lazy /scratch      away now; it ends when the last program is done with it")]
pub struct Args {
    /// Where it is mounted
    #[arg(value_name = "DIR", required = true)]
    dirs: Vec<PathBuf>,
    /// Take it out of the tree now, whoever uses it, and wait for nothing
    #[arg(long, short)]
    lazy: bool,
}

pub fn run(args: &Args) -> Result<(), CliError> {
    let mut all_done = true;
    for dir in &args.dirs {
        match umount(dir, args.lazy) {
            Ok(Umounted::Done | Umounted::Detached) => {}
            Ok(Umounted::DaemonWasGone) => {
                eprintln!("pvfs umount: {}: its daemon had been gone before", dir.display());
            }
            Err(error) if args.dirs.len() == 1 => return Err(error.into()),
            Err(error) => {
                eprintln!("pvfs umount: {error}");
                all_done = false;
            }
        }
    }
    if all_done { Ok(()) } else { Err(CliError::Told) }
}
