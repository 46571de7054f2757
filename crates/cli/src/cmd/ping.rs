//! `pvfs ping`: how fast every daemon answers.

use crate::{
    args::Global,
    ask::{Asker, DEADLINE, reason},
    cmd::status,
    config::Cluster,
    error::CliError,
    out, runtime,
};
use std::{sync::Arc, time::Duration};

/// Measure how fast every daemon answers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks each daemon COUNT times, one after the other, and shows the shortest and the median time from question to answer. Exit \
status 1 if one does not answer.

Examples:
  pvfs ping
  pvfs ping -c 100 --interval-ms 0")]
pub struct Args {
    /// How many times to ask each
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// Pause between two questions to the same daemon, in milliseconds
    #[arg(long, default_value_t = 20)]
    interval_ms: u64,
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let cluster = Cluster::locate(global.cluster.as_deref())?;
    runtime::run_tool(async {
        let asker = Arc::new(Asker::new(&cluster, global.transport())?);
        let (daemons, _) = status::known_daemons(&asker, &cluster).await;
        let mut all_up = true;
        for (role, addr) in daemons {
            let peer = asker.peer(role, &addr);
            let name = status::role_text(role);
            let mut times = Vec::new();
            let mut failed = peer.ping(DEADLINE).await.err(); // with the time to connect: not counted
            for _ in 0..args.count {
                if failed.is_some() {
                    break;
                }
                match peer.ping(DEADLINE).await {
                    Ok(time) => times.push(time),
                    Err(error) => failed = Some(error),
                }
                tokio::time::sleep(Duration::from_millis(args.interval_ms)).await;
            }
            times.sort_unstable();
            match failed {
                None => out::line(format_args!(
                    "{name} {addr}: {} answers, shortest {:.0?}, median {:.0?}",
                    times.len(),
                    times.first().copied().unwrap_or_default(),
                    times.get(times.len() / 2).copied().unwrap_or_default()
                ))?,
                Some(error) => {
                    all_up = false;
                    out::line(format_args!("{name} {addr}: no answer: {}", reason(&error)))?;
                }
            }
        }
        if all_up { Ok(()) } else { Err(CliError::Told) }
    })
}
