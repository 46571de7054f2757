//! Why a command failed: what, where, and what to do. Its exit status.

use crate::{cmd, config::ConfigError, spec::SpecError, supervise::StartError};
use pvfs_client::ClientError;
use pvfs_types::Errno;
use std::{io, path::PathBuf, process::ExitCode};

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A file of this machine.
    #[error("{}: {}", path.display(), io_text(source))]
    Local { path: PathBuf, source: io::Error },
    /// Something in PVFS.
    #[error("{path}: {}", client_text(source))]
    Remote { path: String, source: ClientError },
    #[error("cannot reach the cluster of {}: {reason}: {advice}", cluster.display())]
    Unreachable { cluster: PathBuf, reason: String, advice: String },
    #[error(
        "{source}: the secrets of this cluster may have changed: copy cluster.toml and cluster.key anew from where `pvfs format` ran (in use: {})",
        cluster.display()
    )]
    NotLetIn { cluster: PathBuf, source: ClientError },
    #[error(transparent)]
    Format(#[from] crate::local::FormatError),
    #[error(transparent)]
    Up(#[from] cmd::up::UpError),
    #[error(transparent)]
    Down(#[from] cmd::down::DownError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Mgr(#[from] pvfs_mgr::MgrError),
    #[error(transparent)]
    Iod(#[from] pvfs_iod::IodError),
    #[error("{}: is a directory: copy it with -r", path.display())]
    NeedsRecursive { path: PathBuf },
    #[error("{path}: is a directory: -r removes it with all that is in it")]
    RemoveNeedsRecursive { path: String },
    #[error("{}: is not a directory", path.display())]
    NotADir { path: PathBuf },
    #[error("{}: is where the copy goes: a directory cannot be copied into itself", path.display())]
    IntoItself { path: PathBuf },
    #[error("{}: source and target are the same file", path.display())]
    SameFile { path: PathBuf },
    #[error("{}: is a {kind}: not copied", path.display())]
    NotCopied { path: PathBuf, kind: &'static str },
    #[error(transparent)]
    Bench(#[from] pvfs_bench::BenchError),
    #[error(transparent)]
    Torture(#[from] cmd::torture::TortureCmdError),
    #[error(transparent)]
    Mount(#[from] pvfs_fuse::MountError),
    #[error(transparent)]
    Umount(#[from] pvfs_fuse::UmountError),
    #[error("not checked: {source}")]
    NotChecked { source: Box<CliError> },
    #[error("cannot write the output: {source}")]
    Output { source: io::Error },
    #[error("cannot start: {source}")]
    Runtime { source: io::Error },
    /// The arguments do not go together in a way that clap cannot see.
    #[error("{text}")]
    Usage { text: String },
    #[error("interrupted")]
    Interrupted,
    /// What went wrong is printed already, one line a file.
    #[error("failed")]
    Told,
}

impl CliError {
    pub fn local(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> CliError {
        let path = path.into();
        move |source| CliError::Local { path, source }
    }

    pub fn remote(path: impl Into<String>) -> impl FnOnce(ClientError) -> CliError {
        let path = path.into();
        move |source| CliError::Remote { path, source }
    }

    pub fn is_not_found(&self) -> bool {
        match self {
            CliError::Local { source, .. } => source.kind() == io::ErrorKind::NotFound,
            CliError::Remote { source, .. } => source.errno() == Errno::ENOENT,
            _ => false,
        }
    }

    /// What to print, if anything.
    pub fn text(&self) -> Option<String> {
        match self {
            CliError::Told => None,
            // The reader of a pipe went away: `pvfs cat … | head`.
            CliError::Output { source } if source.kind() == io::ErrorKind::BrokenPipe => None,
            other => Some(other.to_string()),
        }
    }

    pub fn exit_code(&self) -> ExitCode {
        match self {
            CliError::Usage { .. } | CliError::NotChecked { .. } => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// `No such file or directory`, without Rust's `(os error 2)`.
pub fn io_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// As `ls` and `rm` say it; with the daemon's own words where the errno leaves open what is meant.
fn client_text(error: &ClientError) -> String {
    match error {
        ClientError::Refused { errno, text, .. } if text.is_empty() || says_it_all(*errno) => {
            errno.text().to_owned()
        }
        ClientError::Refused { errno, text, .. } => format!("{}: {text}", errno.text()),
        ClientError::NotDirectory { .. }
        | ClientError::IsDirectory { .. }
        | ClientError::Exists { .. }
        | ClientError::SymlinkLoop { .. } => error.errno().text().to_owned(),
        other => other.to_string(),
    }
}

fn says_it_all(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOENT
            | Errno::EEXIST
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::ENOTEMPTY
            | Errno::EACCES
            | Errno::ELOOP
    )
}
