//! `pvfs fsck`: does everything fit together?

use crate::{
    args::Global,
    ask::{Asker, first_mgr, reason},
    config::Cluster,
    error::CliError,
    fsck::{Checker, Outcome, Progress, to_json, to_text},
    out, runtime,
};
use indicatif::{ProgressBar, ProgressDrawTarget};
use pvfs_net::CallError;
use pvfs_types::{Cred, Errno};
use pvfs_wire::Status;
use std::{io::IsTerminal as _, time::Duration};

/// Check the whole file system while it is in use
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Holds the mgr's records against each other (names, link counts, directories, sessions, lists of orphans and garbage), every \
file against its objects, and every object against the files. Nothing has to be stopped: what changes meanwhile is \
left out or looked at again. For root, and for who owns the root directory.

--repair mends what can be mended without a doubt: objects that are nobody's are removed, link counts become what the names \
say, a file becomes as long as its objects reach, and a metadata store that was put back from a backup goes on. Lost \
bytes are told, never made up.

Exit status: 0 nothing is wrong, 1 errors are left (or a target could not be looked at), 2 the check could not run.

Examples:
  pvfs fsck
  pvfs fsck --repair
  pvfs fsck --json | jq '.findings[]'")]
pub struct Args {
    /// Mend what can be mended safely
    #[arg(long)]
    repair: bool,
    /// As JSON, with every finding
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let outcome = check(args, global).map_err(|error| CliError::NotChecked { source: Box::new(error) })?;
    if args.json {
        out::line(format_args!("{:#}", to_json(&outcome)))?;
    } else {
        out::write(to_text(&outcome, args.repair))?;
    }
    if outcome.errors_left() == 0 && outcome.silent.is_empty() { Ok(()) } else { Err(CliError::Told) }
}

fn check(args: &Args, global: &Global) -> Result<Outcome, CliError> {
    let cluster = Cluster::locate(global.cluster.as_deref())?;
    let shown = Shown::new();
    let cred = Cred {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        groups: Vec::new(),
    };
    runtime::run_tool(async {
        let asker = Asker::new(&cluster, global.transport())?;
        let (mgr, known) = first_mgr(&cluster, async |mgr| asker.targets(mgr).await).await?;
        // Its connection would be fenced by the checker's.
        let asker = Asker::new(&cluster, global.transport())?;
        let checked = Checker::new(&asker, &mgr, known, cred, &shown).run(args.repair).await;
        shown.0.finish_and_clear();
        checked.map_err(|error| match error {
            CallError::Refused(refusal) if refusal.status == Status::Errno(Errno::EPERM) => CliError::Usage {
                text: "only root and the owner of the root directory may check the file system".into(),
            },
            error => crate::ask::unreachable(&cluster, reason(&error)),
        })
    })
}

/// How far it is, on a terminal.
struct Shown(ProgressBar);

impl Shown {
    fn new() -> Shown {
        if !std::io::stderr().is_terminal() {
            return Shown(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        bar.enable_steady_tick(Duration::from_millis(200));
        Shown(bar)
    }
}

impl Progress for Shown {
    fn at(&self, what: &str, done: u64) {
        self.0.set_message(if done == 0 {
            format!("checking {what}")
        } else {
            format!("checking {what}: {done}")
        });
    }
}
