//! The context: what `pvfs up` leaves so that the other commands find its cluster with no argument.

use crate::config::write_whole;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The last `pvfs up` of this user that still runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The absolute path of its cluster.toml.
    pub cluster: PathBuf,
    /// The directory that `up` keeps everything in.
    pub dir: PathBuf,
    /// Where it is mounted, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<PathBuf>,
    pub pid: u32,
}

impl Context {
    /// What is there; nothing where it cannot be read or makes no sense (then `up` is started again and writes it
    /// anew).
    pub fn load() -> Option<Context> {
        toml::from_str(&std::fs::read_to_string(context_file()?).ok()?).ok()
    }

    pub fn store(&self) -> std::io::Result<()> {
        let file = context_file().ok_or_else(|| {
            std::io::Error::other("neither XDG_RUNTIME_DIR nor HOME is set: no place for the context file")
        })?;
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let text = toml::to_string(self).map_err(std::io::Error::other)?;
        write_whole(&file, text.as_bytes(), 0o600)
    }

    /// Takes the context away if it is still this one.
    pub fn remove(&self) {
        if let Some(file) = context_file()
            && Context::load().is_some_and(|now| now.pid == self.pid && now.dir == self.dir)
        {
            std::fs::remove_file(file).ok();
        }
    }
}

fn context_file() -> Option<PathBuf> {
    let dir = match dir_of("XDG_RUNTIME_DIR") {
        Some(dir) => dir,
        None => dir_of("HOME")?.join(".local/state"),
    };
    Some(dir.join("pvfs/context.toml"))
}

/// Where `up` keeps its data when it is not told: the user's data directory.
pub fn default_dir() -> Option<PathBuf> {
    let dir = match dir_of("XDG_DATA_HOME") {
        Some(dir) => dir,
        None => dir_of("HOME")?.join(".local/share"),
    };
    Some(dir.join("pvfs"))
}

fn dir_of(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|dir| dir.is_absolute())
}
