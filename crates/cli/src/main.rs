//! The `pvfs` binary: reads the arguments, runs the subcommand, turns its end into an exit status (0 done, 1 failed,
//! 2 usage).

#![allow(clippy::doc_markdown, reason = "doc comments of arguments are help text, printed as they stand")]
#![deny(clippy::print_stdout, reason = "it panics when nobody reads any more: see `out`")]
#![allow(clippy::struct_excessive_bools, reason = "a command's flags are independent of each other")]

mod args;
mod ask;
mod cmd;
mod config;
mod context;
mod copy;
mod error;
mod family;
mod fsck;
mod local;
mod mountpoint;
mod mounts;
mod out;
mod remote;
mod running;
mod runtime;
mod show;
mod spec;
mod supervise;
mod unit;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse_from(args::helper_form(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    runtime::start_logs(cli.command.is_daemon());
    let name = cli.command.name();
    match cmd::run(cli.command, &cli.global) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(text) = error.text() {
                eprintln!("pvfs {name}: {text}");
            }
            error.exit_code()
        }
    }
}
