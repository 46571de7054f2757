//! `pvfs completions`: writes the completion script of a shell.

use crate::{args::Cli, error::CliError};
use clap::CommandFactory as _;
use std::io::Write as _;

/// Print a shell's completion script
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pvfs completions bash > /etc/bash_completion.d/pvfs\n  \
    pvfs completions fish > ~/.config/fish/completions/pvfs.fish")]
pub struct Args {
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pvfs", &mut script);
    std::io::stdout().write_all(&script).map_err(|source| CliError::Output { source })
}
