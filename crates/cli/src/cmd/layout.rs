//! `pvfs layout`: the distribution of files, and what new files in a directory get.

use crate::{args::Global, cmd::stat, copy::LayoutArgs, error::CliError, out, remote, show, spec::Spec};
use pvfs_types::{FileKind, LayoutHint};

/// Show or set how files are striped
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A file's distribution is set when it is made and never changes; a directory's layout is what files made in it later get. \
Directories made in it inherit the layout. To give a file another distribution, copy it: pvfs cp --pcount N pvfs:/a pvfs:/b

Examples:
  pvfs layout get /data/big.dat
  pvfs layout set /data --strip-size 64K --pcount 2
  pvfs layout set /data                       back to the system's choice")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show a file's distribution or a directory's layout
    Get {
        /// /path, pvfs:/path or pvfs://host:port/path
        #[arg(required = true, value_name = "PATH", value_parser = Spec::arg())]
        paths: Vec<Spec>,
    },
    /// Set what files made in a directory get; what is not named goes back to the system's choice
    Set {
        /// A directory: /path, pvfs:/path or pvfs://host:port/path
        #[arg(value_name = "DIR", value_parser = Spec::arg())]
        dir: Spec,
        #[command(flatten)]
        layout: LayoutArgs,
    },
}

pub fn run(args: Args, global: &Global) -> Result<(), CliError> {
    match args.what {
        What::Get { paths } => remote::run(global, &paths.iter().collect::<Vec<_>>(), async |remote| {
            for spec in &paths {
                let attr = remote.attr(&spec.path, true).await.map_err(CliError::remote(spec.display()))?;
                let text = match attr.kind {
                    FileKind::File => {
                        let placed = stat::targets_of(&remote, &attr).await;
                        show::table(&stat::distribution_rows(&attr, &placed), &[])
                    }
                    FileKind::Dir => match attr.layout {
                        Some(layout) if layout != LayoutHint::default() => stat::layout_text(layout) + "\n",
                        _ => "none set: new files get the system's choice\n".to_owned(),
                    },
                    other => format!("a {} has no distribution\n", show::kind_text(other)),
                };
                out::write(format_args!("{}:\n{text}", spec.display()))?;
            }
            Ok(())
        }),
        What::Set { dir, layout } => remote::run(global, &[&dir], async |remote| {
            let set = async {
                let attr = remote.attr(&dir.path, true).await?;
                remote.client.set_layout(&remote.cred, attr.ino, layout.hint()).await
            };
            set.await.map(drop).map_err(CliError::remote(dir.display()))
        }),
    }
}
