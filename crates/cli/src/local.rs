//! A cluster on this machine, as files: made whole or not at all, grown by targets, given other ports.
//!
//! `DIR` holds `cluster.toml`, `cluster.key`, `daemon.key`, `mgr/` (the metadata store), `iod0/`, `iod1/`, …
//! (targets) and `log/`. The `cluster.toml` comes last: where it is, all is.

use crate::config::{ClusterFile, ConfigError, Local, LocalIod, LocalMgr, write_new_key};
use pvfs_types::{FsId, TargetUuid};
use std::{
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

pub const CLUSTER_TOML: &str = "cluster.toml";
pub const DEFAULT_PORT: u16 = 7334;
pub const DEFAULT_IODS: u16 = 4;
const STAGE: &str = ".format";

#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} holds a file system already: nothing was changed", dir.display())]
    Exists { dir: PathBuf },
    #[error(
        "{} holds {what} but no {CLUSTER_TOML}: it is not known what that is, so nothing was changed; move it away or choose another --dir",
        dir.display()
    )]
    Remains { dir: PathBuf, what: String },
    #[error(
        "{} was formatted with {have} iods, not {want}: fewer would lose their files; use --iods {have} (or leave it out), or another --dir",
        dir.display()
    )]
    Fewer { dir: PathBuf, have: usize, want: u16 },
    #[error("{}: the cluster's iods are not all of this machine's making (no `[local]` table with a mgr and iods): start its daemons with `pvfs mgr` and `pvfs iod`", file.display())]
    NotLocal { file: PathBuf },
    #[error("port {first} is too high for {count} daemons in a row: the last would be above 65535")]
    Ports { first: u16, count: usize },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot format the metadata store: {0}")]
    Mgr(#[from] pvfs_mgr::MgrError),
    #[error("cannot format a target: {0}")]
    Store(#[from] pvfs_store::StoreError),
}

/// Makes a cluster of one mgr and `iods` iods with a target each, listening on loopback from `port` on.
pub fn format(dir: &Path, iods: u16, port: u16) -> Result<FsId, FormatError> {
    make_dir(dir)?;
    if dir.join(CLUSTER_TOML).exists() {
        return Err(FormatError::Exists { dir: dir.to_owned() });
    }
    let names = || {
        let fixed = ["cluster.key", "daemon.key", "mgr"].map(str::to_owned);
        fixed.into_iter().chain((0..iods).map(iod_name))
    };
    if let Some(what) = names().find(|name| dir.join(name).exists()) {
        return Err(FormatError::Remains { dir: dir.to_owned(), what });
    }
    let stage = fresh_stage(dir)?;
    let fs = FsId::random();
    let targets: Vec<TargetUuid> =
        (0..iods).map(|place| format_target(&stage.join(iod_name(place)), fs)).collect::<Result<_, _>>()?;
    let store = stage.join("mgr");
    make_dir(&store)?;
    pvfs_mgr::format(&store, fs, &targets)?;
    for key in ["cluster.key", "daemon.key"] {
        write_new_key(&stage.join(key))?;
    }
    for name in names() {
        rename(&stage.join(&name), &dir.join(&name))?;
    }
    std::fs::remove_dir(&stage).ok();
    let file = ClusterFile {
        fs: fs.to_string(),
        mgr: vec![loopback(port, 0, usize::from(iods))?],
        secret_file: "cluster.key".into(),
        daemon_secret_file: Some("daemon.key".into()),
        local: Some(Local {
            mgr: Some(LocalMgr { store: "mgr".into(), listen: loopback(port, 0, usize::from(iods))? }),
            iod: (0..iods).map(|place| local_iod(place, port)).collect::<Result<_, _>>()?,
        }),
    };
    file.write(&dir.join(CLUSTER_TOML))?;
    Ok(fs)
}

/// What [`adapt`] changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adapted {
    pub iods_added: usize,
    pub ports_changed: bool,
}

/// Brings a formatted `dir` to `iods` iods (more: formats and adds targets; fewer: an error) and to ports from `port`
/// on, where these are told.
pub fn adapt(dir: &Path, iods: Option<u16>, port: Option<u16>) -> Result<Adapted, FormatError> {
    let path = dir.join(CLUSTER_TOML);
    let mut file = ClusterFile::read(&path)?;
    let not_local = || FormatError::NotLocal { file: path.clone() };
    let fs: FsId = file.fs.parse().map_err(|_| not_local())?;
    let local = file.local.as_mut().ok_or_else(not_local)?;
    let mgr = local.mgr.as_mut().ok_or_else(not_local)?;
    let have = local.iod.len();
    if have == 0 {
        return Err(not_local());
    }
    let mut adapted = Adapted::default();
    let first = port.unwrap_or_else(|| port_of(&mgr.listen).unwrap_or(DEFAULT_PORT));
    if let Some(want) = iods {
        if usize::from(want) < have {
            return Err(FormatError::Fewer { dir: dir.to_owned(), have, want });
        }
        for place in u16::try_from(have).unwrap_or(u16::MAX)..want {
            let name = iod_name(place);
            if dir.join(&name).exists() {
                return Err(FormatError::Remains { dir: dir.to_owned(), what: name });
            }
            let stage = fresh_stage(dir)?;
            format_target(&stage.join(&name), fs)?;
            rename(&stage.join(&name), &dir.join(&name))?;
            std::fs::remove_dir(&stage).ok();
            local.iod.push(local_iod(place, first)?);
            adapted.iods_added += 1;
        }
    }
    if port.is_some_and(|port| port_of(&mgr.listen) != Some(port)) {
        mgr.listen = loopback(first, 0, local.iod.len())?;
        file.mgr = vec![mgr.listen.clone()];
        let count = local.iod.len();
        for (place, iod) in local.iod.iter_mut().enumerate() {
            iod.listen = loopback(first, place + 1, count)?;
        }
        adapted.ports_changed = true;
    }
    if adapted != Adapted::default() {
        file.write(&path)?;
    }
    Ok(adapted)
}

/// Makes `dir` a target of file system `fs`. It joins with its iod's first heartbeat.
pub fn format_target(dir: &Path, fs: FsId) -> Result<TargetUuid, FormatError> {
    make_dir(dir)?;
    Ok(pvfs_store::format_target(dir, fs)?)
}

pub fn make_dir(dir: &Path) -> Result<(), FormatError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| FormatError::Io { path: dir.to_owned(), source })
}

/// An empty directory in `dir` where things are made before they get their names.
fn fresh_stage(dir: &Path) -> Result<PathBuf, FormatError> {
    let stage = dir.join(STAGE);
    match std::fs::remove_dir_all(&stage) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(FormatError::Io { path: stage, source });
        }
        _ => make_dir(&stage)?,
    }
    Ok(stage)
}

fn rename(from: &Path, to: &Path) -> Result<(), FormatError> {
    std::fs::rename(from, to).map_err(|source| FormatError::Io { path: to.to_owned(), source })
}

fn iod_name(place: u16) -> String {
    format!("iod{place}")
}

fn local_iod(place: u16, port: u16) -> Result<LocalIod, FormatError> {
    let name = iod_name(place);
    let listen = loopback(port, usize::from(place) + 1, usize::from(place) + 1)?;
    Ok(LocalIod { targets: vec![PathBuf::from(&name)], name, listen })
}

/// The address of the daemon at `place` of 1 + `iods` in a row.
fn loopback(first: u16, place: usize, iods: usize) -> Result<String, FormatError> {
    let port = u16::try_from(place).ok().and_then(|place| first.checked_add(place));
    let port = port.ok_or(FormatError::Ports { first, count: iods + 1 })?;
    Ok(format!("127.0.0.1:{port}"))
}

/// The port of `host:port`.
pub fn port_of(addr: &str) -> Option<u16> {
    addr.rsplit_once(':')?.1.parse().ok()
}
