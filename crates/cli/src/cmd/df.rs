//! `pvfs df`: how much room there is, in all and by target.

use crate::{
    args::Global,
    ask::{Asker, first_mgr},
    config::Cluster,
    error::CliError,
    out, row, runtime, show,
    unit::show_bytes,
};
use serde_json::json;
use std::sync::Arc;

/// Show how much room there is, in all and by target
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pvfs df\n  pvfs df --json | jq .total.bytes_free")]
pub struct Args {
    /// As JSON, in bytes
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let cluster = Cluster::locate(global.cluster.as_deref())?;
    runtime::run_tool(async {
        let asker = Arc::new(Asker::new(&cluster, global.transport())?);
        let (mgr, usage) = first_mgr(&cluster, async |mgr| asker.usage(mgr).await).await?;
        let (_, known) = first_mgr(&cluster, async |mgr| asker.targets(mgr).await).await?;
        if args.json {
            let targets: Vec<_> = known.targets.iter().map(super::status::target_json).collect();
            let total = json!({
                "bytes_total": usage.bytes_total, "bytes_free": usage.bytes_free, "inodes": usage.inodes,
            });
            return out::line(format_args!(
                "{:#}",
                json!({ "mgr": mgr, "total": total, "targets": targets })
            ));
        }
        let line = |name: String, total: u64, free: u64, note: &str| {
            let used = total.saturating_sub(free);
            let percent = (used * 100).checked_div(total).unwrap_or(0);
            row![name, show_bytes(total), show_bytes(used), show_bytes(free), format!("{percent}%"), note]
        };
        let mut rows = vec![row!["TARGET", "SIZE", "USED", "FREE", "USE", ""]];
        for target in &known.targets {
            let note = if target.up { target.addr.clone() } else { format!("{} (down)", target.addr) };
            rows.push(line(target.id.to_string(), target.bytes_total, target.bytes_free, &note));
        }
        let note = format!("{} inodes", usage.inodes);
        rows.push(line("all".into(), usage.bytes_total, usage.bytes_free, &note));
        out::write(show::table(&rows, &[1, 2, 3, 4]))
    })
}
