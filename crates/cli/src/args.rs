//! The command line as a whole: what all subcommands share, their list, and the form in which `mount(8)` calls.

use crate::cmd;
use clap::{Parser, Subcommand};
use pvfs_env::{TcpTransport, Transport};
use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

#[derive(Debug, Parser)]
#[command(
    name = "pvfs",
    version,
    about = "A parallel virtual file system",
    long_about = "A parallel virtual file system: one name space, file data striped over I/O daemons, many clients \
                  reading and writing the same files at once.",
    after_help = "Start here:\n  \
        pvfs up /mnt/pvfs       a whole file system on this machine, mounted\n  \
        pvfs status             what runs, and how it is\n  \
        pvfs ls -l /            look into it without a mount\n  \
        pvfs help COMMAND       options and examples\n\n\
        Exit status: 0 done, 1 failed, 2 wrong usage.",
    propagate_version = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every subcommand takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// The cluster's cluster.toml. Else the variable `PVFS_CLUSTER`, else the context that `pvfs up` left, else
    /// /etc/pvfs/cluster.toml
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    pub cluster: Option<PathBuf>,
    /// How long to try to reach the cluster at first, in seconds; 0: for ever. (Once it was reached, commands wait for
    /// a daemon that went away until it is back or Ctrl-C)
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10, help_heading = "Cluster")]
    pub timeout: u64,
    /// Reach daemons of this machine as those of others are reached: over TCP, sharing no memory with them
    #[arg(long, global = true, help_heading = "Cluster")]
    pub tcp: bool,
}

impl Global {
    /// `None`: for ever.
    pub fn deadline(&self) -> Option<Duration> {
        (self.timeout != 0).then(|| Duration::from_secs(self.timeout))
    }

    /// How a client is to reach daemons, where that is said.
    pub fn transport(&self) -> Option<Arc<dyn Transport>> {
        self.tcp.then(|| Arc::new(TcpTransport) as _)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Up(cmd::up::Args),
    Down(cmd::down::Args),
    Format(cmd::format::Args),
    Mgr(cmd::mgr::Args),
    Iod(cmd::iod::Args),
    Mount(cmd::mount::Args),
    Umount(cmd::umount::Args),
    Status(cmd::status::Args),
    Fsck(cmd::fsck::Args),
    Ping(cmd::ping::Args),
    Df(cmd::df::Args),
    Ls(cmd::ls::Args),
    Stat(cmd::stat::Args),
    Cat(cmd::cat::Args),
    Put(cmd::put::Args),
    Get(cmd::get::Args),
    Cp(cmd::cp::Args),
    Rm(cmd::rm::Args),
    Mkdir(cmd::mkdir::Args),
    Mv(cmd::mv::Args),
    Ln(cmd::ln::Args),
    Layout(cmd::layout::Args),
    Quota(cmd::quota::Args),
    Bench(cmd::bench::Args),
    Torture(cmd::torture::Args),
    Completions(cmd::completions::Args),
}

impl Command {
    pub fn name(&self) -> &'static str {
        match self {
            Command::Up(_) => "up",
            Command::Down(_) => "down",
            Command::Format(_) => "format",
            Command::Mgr(_) => "mgr",
            Command::Iod(_) => "iod",
            Command::Mount(_) => "mount",
            Command::Umount(_) => "umount",
            Command::Status(_) => "status",
            Command::Fsck(_) => "fsck",
            Command::Ping(_) => "ping",
            Command::Df(_) => "df",
            Command::Ls(_) => "ls",
            Command::Stat(_) => "stat",
            Command::Cat(_) => "cat",
            Command::Put(_) => "put",
            Command::Get(_) => "get",
            Command::Cp(_) => "cp",
            Command::Rm(_) => "rm",
            Command::Mkdir(_) => "mkdir",
            Command::Mv(_) => "mv",
            Command::Ln(_) => "ln",
            Command::Layout(_) => "layout",
            Command::Quota(_) => "quota",
            Command::Bench(_) => "bench",
            Command::Torture(_) => "torture",
            Command::Completions(_) => "completions",
        }
    }

    /// Daemons tell of their starts, stops and reconnects; tools only of what is wrong.
    pub fn is_daemon(&self) -> bool {
        matches!(self, Command::Mgr(_) | Command::Iod(_) | Command::Mount(_))
    }
}

/// Called as `mount.pvfs` or `mount.fuse.pvfs SPEC DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]`, as `mount(8)` does, the command line
/// becomes `pvfs mount SPEC DIR -o OPTIONS`. Any other is left as it is.
pub fn helper_form(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let program = args.next().unwrap_or_else(|| "pvfs".into());
    let is_helper = std::path::Path::new(&program)
        .file_name()
        .is_some_and(|name| name == "mount.pvfs" || name == "mount.fuse.pvfs");
    if !is_helper {
        return std::iter::once(program).chain(args).collect();
    }
    let mut out: Vec<OsString> = vec!["pvfs".into(), "mount".into()];
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("-o") => out.extend(["-o".into()].into_iter().chain(args.next())),
            Some("-N" | "-t") => {
                args.next();
            }
            // -s tolerate options, -n no mtab, -v verbose: nothing to do here. (-f, "fake", mount(8) handles itself.)
            Some(flags) if flags.starts_with('-') && flags[1..].chars().all(|flag| "snv".contains(flag)) => {}
            _ => out.push(arg),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed_and_every_command_has_examples() {
        let command = Cli::command();
        for sub in command.get_subcommands() {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "`pvfs {} --help` shows no examples", sub.get_name());
            assert!(sub.get_about().is_some(), "`pvfs {}` says nothing of itself", sub.get_name());
        }
        command.debug_assert();
    }

    #[test]
    fn the_mount_helper_form_becomes_a_mount_command() {
        let form = |line: &str| {
            let args = helper_form(line.split(' ').map(OsString::from));
            args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            form("/sbin/mount.pvfs pvfs://h:1/ /mnt -sn -v -t pvfs -o ro,noatime"),
            "pvfs mount pvfs://h:1/ /mnt -o ro,noatime"
        );
        assert_eq!(
            form("/sbin/mount.fuse.pvfs pvfs://h:1/ /mnt -o ro,remount,user_id=0 -t fuse.pvfs"),
            "pvfs mount pvfs://h:1/ /mnt -o ro,remount,user_id=0"
        );
        assert_eq!(form("pvfs ls -n /"), "pvfs ls -n /");
    }
}
