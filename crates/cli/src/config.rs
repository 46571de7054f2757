//! `cluster.toml`: which file system, where its mgr is, where the secrets lie. What a client or daemon must know.
//!
//! Owns the file's format and how it is found. Knows nothing of what the daemons do with it.

use crate::context::Context;
use pvfs_types::FsId;
use pvfs_wire::msg::hello::Secret;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// The place that is looked at last.
pub const ETC_FILE: &str = "/etc/pvfs/cluster.toml";
pub const ENV_CLUSTER: &str = "PVFS_CLUSTER";

/// The file as it is written. Paths in it are relative to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// The file system's UUID.
    pub fs: String,
    /// `host:port` of each mgr.
    pub mgr: Vec<String>,
    pub secret_file: PathBuf,
    /// Only where daemons run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon_secret_file: Option<PathBuf>,
    /// The daemons that run on this machine: what `pvfs up` starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Local>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Local {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mgr: Option<LocalMgr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub iod: Vec<LocalIod>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalMgr {
    /// The directory of the metadata store.
    pub store: PathBuf,
    pub listen: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalIod {
    pub name: String,
    pub listen: String,
    /// The target directories it owns.
    pub targets: Vec<PathBuf>,
}

/// How a cluster file came to be the one in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    Flag,
    Env,
    Context,
    Etc,
}

/// A checked `cluster.toml`, its paths made absolute.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub file: PathBuf,
    pub fs: FsId,
    pub mgr: Vec<String>,
    pub local: Option<Local>,
    /// What `up` left behind, where that led here.
    pub context: Option<Context>,
    secret_file: PathBuf,
    daemon_secret_file: Option<PathBuf>,
}

/// What is wrong with a configuration, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "no cluster is known here: start one with `pvfs up`, or name its cluster.toml with --cluster FILE or {ENV_CLUSTER}=FILE, or put it at {ETC_FILE}"
    )]
    NoCluster,
    #[error("{}: cannot read this file ({}): {source}: {advice}", file.display(), found_by)]
    Read { file: PathBuf, found_by: FoundBy, advice: &'static str, source: std::io::Error },
    #[error(
        "{}:{line}: {message}: correct or remove that line (keys: fs, mgr, secret_file, daemon_secret_file, local; `pvfs format --help` shows a whole file)",
        file.display()
    )]
    Syntax { file: PathBuf, line: usize, message: String },
    #[error("{}: the key `{key}` is {what}: {advice}", file.display())]
    Value { file: PathBuf, key: &'static str, what: String, advice: &'static str },
    #[error(
        "{}: the key `daemon_secret_file` is missing: daemons need it; copy daemon.key and this key from a machine where a daemon runs",
        file.display()
    )]
    NoDaemonSecret { file: PathBuf },
    #[error(
        "{}: cannot read this key file ({key} of {}): {source}: copy it from the machine where `pvfs format` ran, readable only to you",
        key_file.display(), file.display()
    )]
    ReadKey { file: PathBuf, key: &'static str, key_file: PathBuf, source: std::io::Error },
    #[error(
        "{}: this key file does not hold 64 hexadecimal digits: copy it anew from the machine where `pvfs format` ran",
        key_file.display()
    )]
    BadKey { key_file: PathBuf },
    #[error("{}: cannot write this file: {source}", file.display())]
    Write { file: PathBuf, source: std::io::Error },
}

impl fmt::Display for FoundBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FoundBy::Flag => "named by --cluster",
            FoundBy::Env => "named by PVFS_CLUSTER",
            FoundBy::Context => "named by the context that `pvfs up` left",
            FoundBy::Etc => "the default place",
        })
    }
}

impl Cluster {
    /// Finds the cluster: `flag`, else the environment, else what `up` left, else `/etc`.
    pub fn locate(flag: Option<&Path>) -> Result<Cluster, ConfigError> {
        if let Some(file) = flag {
            return Cluster::load(file, FoundBy::Flag);
        }
        if let Some(file) = std::env::var_os(ENV_CLUSTER).filter(|value| !value.is_empty()) {
            return Cluster::load(Path::new(&file), FoundBy::Env);
        }
        if let Some(context) = Context::load() {
            let mut cluster = Cluster::load(&context.cluster, FoundBy::Context)?;
            cluster.context = Some(context);
            return Ok(cluster);
        }
        match Cluster::load(Path::new(ETC_FILE), FoundBy::Etc) {
            Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(ConfigError::NoCluster)
            }
            other => other,
        }
    }

    pub fn load(file: &Path, found_by: FoundBy) -> Result<Cluster, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Read {
            file: file.to_owned(),
            found_by,
            advice: match found_by {
                FoundBy::Flag => "give the path of a cluster.toml",
                FoundBy::Env => "set it to the path of a cluster.toml, or unset it",
                FoundBy::Context => "start the cluster with `pvfs up`, or name another with --cluster FILE",
                FoundBy::Etc => "make it readable, or name another with --cluster FILE",
            },
            source,
        })?;
        Cluster::parse(file, &text)
    }

    fn parse(file: &Path, text: &str) -> Result<Cluster, ConfigError> {
        let raw: ClusterFile = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            file: file.to_owned(),
            line: error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1),
            message: error.message().to_owned(),
        })?;
        let bad = |key, what: String, advice| ConfigError::Value { file: file.to_owned(), key, what, advice };
        let fs = raw.fs.parse().map_err(|error| {
            bad(
                "fs",
                format!("{:?}, not a UUID ({error})", raw.fs),
                "write the UUID that `pvfs format` showed",
            )
        })?;
        if raw.mgr.is_empty() {
            return Err(bad("mgr", "an empty list".into(), "write mgr = [\"host:port\"]"));
        }
        let listens = raw.local.iter().flat_map(|local| {
            local.mgr.iter().map(|mgr| &mgr.listen).chain(local.iod.iter().map(|iod| &iod.listen))
        });
        for addr in raw.mgr.iter().chain(listens) {
            if !is_host_port(addr) {
                let key = if raw.mgr.contains(addr) { "mgr" } else { "local…listen" };
                return Err(bad(key, format!("{addr:?}, not host:port"), "write it as \"host:7334\""));
            }
        }
        let dir = std::path::absolute(file)
            .ok()
            .and_then(|file| file.parent().map(Path::to_owned))
            .unwrap_or_else(|| PathBuf::from("/"));
        let local = raw.local.map(|mut local| {
            if let Some(mgr) = &mut local.mgr {
                mgr.store = dir.join(&mgr.store);
            }
            for target in local.iod.iter_mut().flat_map(|iod| &mut iod.targets) {
                *target = dir.join(&*target);
            }
            local
        });
        Ok(Cluster {
            file: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
            fs,
            mgr: raw.mgr,
            local,
            context: None,
            secret_file: dir.join(raw.secret_file),
            daemon_secret_file: raw.daemon_secret_file.map(|key| dir.join(key)),
        })
    }

    /// What clients prove to know.
    pub fn cluster_secret(&self) -> Result<Secret, ConfigError> {
        self.read_key("secret_file", &self.secret_file)
    }

    /// What daemons prove to each other.
    pub fn daemon_secret(&self) -> Result<Secret, ConfigError> {
        let Some(key_file) = &self.daemon_secret_file else {
            return Err(ConfigError::NoDaemonSecret { file: self.file.clone() });
        };
        self.read_key("daemon_secret_file", key_file)
    }

    fn read_key(&self, key: &'static str, key_file: &Path) -> Result<Secret, ConfigError> {
        let text = std::fs::read_to_string(key_file).map_err(|source| ConfigError::ReadKey {
            file: self.file.clone(),
            key,
            key_file: key_file.to_owned(),
            source,
        })?;
        if let Ok(meta) = key_file.metadata()
            && meta.permissions().mode() & 0o077 != 0
        {
            tracing::warn!(file = %key_file.display(), "others can read this key file: chmod 600 it");
        }
        parse_hex(text.trim())
            .map(Secret)
            .ok_or_else(|| ConfigError::BadKey { key_file: key_file.to_owned() })
    }
}

impl ClusterFile {
    /// Reads the file back as it is written, for a change.
    pub fn read(file: &Path) -> Result<ClusterFile, ConfigError> {
        Cluster::load(file, FoundBy::Flag)?; // for its messages
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Write { file: file.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            file: file.to_owned(),
            line: 1,
            message: error.message().to_owned(),
        })
    }

    /// Writes the file whole or not at all.
    pub fn write(&self, file: &Path) -> Result<(), ConfigError> {
        let wrong = |source| ConfigError::Write { file: file.to_owned(), source };
        let body = toml::to_string(self).map_err(|error| wrong(std::io::Error::other(error)))?;
        let text = format!("# A PVFS cluster. Paths are relative to this file.\n{body}");
        write_whole(file, text.as_bytes(), 0o644).map_err(wrong)
    }
}

/// Draws a new secret and writes it to a file that only its owner can read.
pub fn write_new_key(file: &Path) -> Result<(), ConfigError> {
    let wrong = |source| ConfigError::Write { file: file.to_owned(), source };
    let mut key = [0u8; 32];
    getrandom::fill(&mut key).map_err(|error| wrong(std::io::Error::other(error)))?;
    let mut text = key.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    text.push('\n');
    write_whole(file, text.as_bytes(), 0o600).map_err(wrong)
}

/// Writes `file` through a temporary one beside it, durably.
pub fn write_whole(file: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut temp = file.as_os_str().to_owned();
    temp.push(format!(".{}", std::process::id()));
    let mut out =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temp)?;
    let done = out.write_all(bytes).and_then(|()| out.sync_all()).and_then(|()| std::fs::rename(&temp, file));
    if done.is_err() {
        std::fs::remove_file(&temp).ok();
    }
    done
}

/// Whether `addr` has the form `host:port`.
pub fn is_host_port(addr: &str) -> bool {
    addr.rsplit_once(':').is_some_and(|(host, port)| {
        let plain = !host.contains([':', '/', ' ']);
        !host.is_empty()
            && (plain || host.starts_with('[') && host.ends_with(']'))
            && port.parse::<u16>().is_ok()
    })
}

/// The key in a key file.
pub fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "fs = \"6f1f2a3e-0000-4000-8000-000000000001\"\nmgr = [\"localhost:7334\"]\nsecret_file = \"cluster.key\"\n";

    fn error_of(text: &str) -> String {
        Cluster::parse(Path::new("/c/cluster.toml"), text).expect_err("must be refused").to_string()
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let cluster = Cluster::parse(Path::new("/c/cluster.toml"), GOOD).unwrap();
        assert_eq!(cluster.secret_file, Path::new("/c/cluster.key"));
        let absolute = GOOD.replace("cluster.key", "/k/cluster.key");
        let cluster = Cluster::parse(Path::new("/c/cluster.toml"), &absolute).unwrap();
        assert_eq!(cluster.secret_file, Path::new("/k/cluster.key"));
    }

    #[test]
    fn errors_name_the_file_the_line_and_the_key() {
        let error = error_of(&format!("{GOOD}metrics = \"x\"\n"));
        assert!(error.starts_with("/c/cluster.toml:4: unknown field `metrics`"), "{error}");
        let error = error_of(&GOOD.replace("mgr = [\"localhost:7334\"]\n", ""));
        assert!(error.contains("missing field `mgr`"), "{error}");
        let error = error_of(&GOOD.replace("localhost:7334", "localhost"));
        assert!(error.contains("`mgr` is \"localhost\", not host:port"), "{error}");
        let error = error_of(&GOOD.replace("[\"localhost:7334\"]", "[]"));
        assert!(error.contains("`mgr` is an empty list"), "{error}");
        let error = error_of(&GOOD.replace("6f1f2a3e", "zzz"));
        assert!(error.contains("`fs` is") && error.contains("not a UUID"), "{error}");
    }

    #[test]
    fn clients_need_no_daemon_secret_and_daemons_are_told_of_it() {
        let cluster = Cluster::parse(Path::new("/c/cluster.toml"), GOOD).unwrap();
        let error = cluster.daemon_secret().expect_err("there is none").to_string();
        assert!(error.contains("`daemon_secret_file` is missing"), "{error}");
    }

    #[test]
    fn keys_are_64_hex_digits_and_nothing_else() {
        assert_eq!(parse_hex(&"0f".repeat(32)), Some([15; 32]));
        for bad in ["", "0f", &"0g".repeat(32), &"0f".repeat(33), &"é".repeat(32)] {
            assert_eq!(parse_hex(bad), None, "{bad}");
        }
    }
}
