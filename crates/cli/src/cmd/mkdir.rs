//! `pvfs mkdir`: makes directories.

use crate::{args::Global, error::CliError, remote, remote::Remote, spec::Spec};
use pvfs_client::ClientError;
use pvfs_types::{Errno, FileKind};

/// Make directories
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pvfs mkdir /data\n  pvfs mkdir -p /a/b/c\n  pvfs mkdir -m 1777 /tmp")]
pub struct Args {
    /// /path, pvfs:/path or pvfs://host:port/path
    #[arg(required = true, value_name = "PATH", value_parser = Spec::arg())]
    paths: Vec<Spec>,
    /// Make missing parents too; no error where the directory is there
    #[arg(short, long)]
    parents: bool,
    /// Permission bits, in octal [default: 777 without the umask]
    #[arg(short, long, value_name = "MODE", value_parser = parse_mode)]
    mode: Option<u32>,
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| format!("{text:?} is no mode: write it in octal, as 755"))
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let specs: Vec<&Spec> = args.paths.iter().collect();
    remote::run(global, &specs, async |remote| {
        for spec in &args.paths {
            let made =
                if args.parents { with_parents(&remote, spec).await } else { one(&remote, &spec.path).await };
            made.map_err(CliError::remote(spec.display()))?;
            if let Some(mode) = args.mode {
                set_mode(&remote, spec, mode).await.map_err(CliError::remote(spec.display()))?;
            }
        }
        Ok(())
    })
}

async fn one(remote: &Remote, path: &[u8]) -> Result<(), ClientError> {
    let (dir, name) = remote.parent(path).await?;
    remote.client.mkdir(&remote.cred, dir, &name, remote.new_mode(0o777)).await?;
    Ok(())
}

/// Makes each directory on the way that is not there.
async fn with_parents(remote: &Remote, spec: &Spec) -> Result<(), ClientError> {
    let ends = spec.path.iter().enumerate().skip(1).filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
    for end in ends.chain([spec.path.len()]) {
        let path = &spec.path[..end];
        if path.ends_with(b"/") {
            continue;
        }
        match one(remote, path).await {
            Err(error) if error.errno() == Errno::EEXIST => {
                if remote.attr(path, true).await?.kind != FileKind::Dir {
                    return Err(error);
                }
            }
            done => done?,
        }
    }
    Ok(())
}

async fn set_mode(remote: &Remote, spec: &Spec, mode: u32) -> Result<(), ClientError> {
    let attr = remote.attr(&spec.path, true).await?;
    let changes = pvfs_types::SetAttr { mode: Some(mode), ..Default::default() };
    remote.client.setattr(&remote.cred, attr.ino, changes, None).await?;
    Ok(())
}
