//! `pvfs mv`: moves and renames.

use crate::{args::Global, error::CliError, remote, spec::Spec};
use pvfs_types::FileKind;
use pvfs_wire::msg::namespace::RenameMode;

/// Move or rename files and directories within PVFS
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Into TARGET where that is a directory, else to that name; what has the name is replaced in one step, as rename(2) does.

Examples:
  pvfs mv /a /b
  pvfs mv /a /b /c /dir
  pvfs mv -n /new /old            not if /old is there
  pvfs mv --exchange /new /old    swap the two")]
pub struct Args {
    /// What to move
    #[arg(required = true, value_name = "SOURCE", value_parser = Spec::arg())]
    sources: Vec<Spec>,
    /// Where to
    #[arg(value_name = "TARGET", value_parser = Spec::arg())]
    target: Spec,
    /// Fail rather than replace what is there
    #[arg(short, long, conflicts_with = "exchange")]
    no_clobber: bool,
    /// Swap the two names
    #[arg(long)]
    exchange: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let specs: Vec<&Spec> = args.sources.iter().chain([&args.target]).collect();
    remote::run(global, &specs, async |remote| {
        let mode = match (args.no_clobber, args.exchange) {
            (_, true) => RenameMode::Exchange,
            (true, false) => RenameMode::NoReplace,
            (false, false) => RenameMode::Replace,
        };
        let there =
            remote.find(&args.target.path, true).await.map_err(CliError::remote(args.target.display()))?;
        if args.sources.len() > 1 && there.is_none_or(|attr| attr.kind != FileKind::Dir) {
            let text =
                format!("{} is not a directory: several sources go into a directory", args.target.display());
            return Err(CliError::Usage { text });
        }
        for source in &args.sources {
            let moved = async {
                let to = if args.exchange {
                    args.target.clone()
                } else {
                    remote.place(source, &args.target).await?
                };
                let (dir, name) = remote.parent(&source.path).await?;
                let (new_dir, new_name) = remote.parent(&to.path).await?;
                remote.client.rename(&remote.cred, (dir, &name), (new_dir, &new_name), mode).await
            };
            let shown = format!("{} to {}", source.display(), args.target.display());
            moved.await.map_err(CliError::remote(shown))?;
        }
        Ok(())
    })
}
