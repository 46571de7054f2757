//! The subcommands, one file each.

pub mod bench;
pub mod cat;
pub mod completions;
pub mod cp;
pub mod df;
pub mod down;
pub mod format;
pub mod fsck;
pub mod get;
pub mod iod;
pub mod layout;
pub mod ln;
pub mod ls;
pub mod mgr;
pub mod mkdir;
pub mod mount;
pub mod mv;
pub mod ping;
pub mod put;
pub mod quota;
pub mod rm;
pub mod stat;
pub mod status;
pub mod torture;
pub mod umount;
pub mod up;

use crate::{
    args::{Command, Global},
    error::CliError,
};

/// Runs a subcommand to its end.
pub fn run(command: Command, global: &Global) -> Result<(), CliError> {
    match command {
        Command::Up(args) => up::run(&args, global),
        Command::Down(args) => down::run(&args),
        Command::Format(args) => format::run(&args, global),
        Command::Mgr(args) => mgr::run(args, global),
        Command::Iod(args) => iod::run(args, global),
        Command::Mount(args) => mount::run(&args, global),
        Command::Umount(args) => umount::run(&args),
        Command::Status(args) => status::run(&args, global),
        Command::Fsck(args) => fsck::run(&args, global),
        Command::Ping(args) => ping::run(&args, global),
        Command::Df(args) => df::run(&args, global),
        Command::Ls(args) => ls::run(&args, global),
        Command::Stat(args) => stat::run(&args, global),
        Command::Cat(args) => cat::run(&args, global),
        Command::Put(args) => put::run(args, global),
        Command::Get(args) => get::run(args, global),
        Command::Cp(args) => cp::run(&args, global),
        Command::Rm(args) => rm::run(&args, global),
        Command::Mkdir(args) => mkdir::run(&args, global),
        Command::Mv(args) => mv::run(&args, global),
        Command::Ln(args) => ln::run(&args, global),
        Command::Layout(args) => layout::run(args, global),
        Command::Quota(args) => quota::run(args, global),
        Command::Bench(args) => bench::run(&args, global),
        Command::Torture(args) => torture::run(&args, global),
        Command::Completions(args) => completions::run(&args),
    }
}
