//! `pvfs cat`: writes files to the standard output.

use crate::{args::Global, error::CliError, remote, remote::Remote, spec::Spec};
use bytes::Bytes;
use pvfs_client::OpenOptions;
use std::{collections::VecDeque, io::Write as _, sync::Arc};

const CHUNK_BYTES: u64 = 4 << 20;
/// Chunks asked for ahead of the one that is written.
const AHEAD: usize = 4;

/// Write files to the standard output
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pvfs cat /results.txt | less\n  pvfs cat /part1 /part2 > whole")]
pub struct Args {
    /// /path, pvfs:/path or pvfs://host:port/path
    #[arg(required = true, value_name = "PATH", value_parser = Spec::arg())]
    paths: Vec<Spec>,
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let specs: Vec<&Spec> = args.paths.iter().collect();
    remote::run(global, &specs, async |remote| {
        let mut failed = false;
        for spec in &args.paths {
            match cat(&remote, spec).await {
                Ok(()) => {}
                Err(error @ CliError::Output { .. }) => return Err(error),
                Err(error) => {
                    eprintln!("pvfs cat: {error}");
                    failed = true;
                }
            }
        }
        if failed { Err(CliError::Told) } else { Ok(()) }
    })
}

async fn cat(remote: &Remote, spec: &Spec) -> Result<(), CliError> {
    let opened = remote.client.open_path(&remote.cred, &spec.path, OpenOptions::READ).await;
    let file = Arc::new(opened.map_err(CliError::remote(spec.display()))?);
    let mut asked = VecDeque::new();
    let mut at = 0;
    loop {
        while asked.len() < AHEAD {
            let (file, start) = (Arc::clone(&file), at);
            asked.push_back(tokio::spawn(async move { file.read_at(start, CHUNK_BYTES).await }));
            at += CHUNK_BYTES;
        }
        let Some(next) = asked.pop_front() else { return Ok(()) };
        let bytes: Bytes =
            next.await.unwrap_or(Ok(Bytes::new())).map_err(CliError::remote(spec.display()))?;
        std::io::stdout().write_all(&bytes).map_err(|source| CliError::Output { source })?;
        if (bytes.len() as u64) < CHUNK_BYTES {
            return Ok(());
        }
    }
}
