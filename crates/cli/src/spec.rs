//! How commands name things in PVFS: `/path`, `pvfs:/path`, `pvfs://host:port/path`.

use crate::{config::is_host_port, local::DEFAULT_PORT};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

/// A path in a PVFS file system, and maybe which one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The mgrs that `pvfs://` named; empty: those of the cluster in use.
    pub mgr: Vec<String>,
    /// Absolute, in bytes as the user gave it.
    pub path: Vec<u8>,
}

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Local(PathBuf),
    Pvfs(Spec),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("{text:?} is not a path in PVFS: write /path, pvfs:/path or pvfs://host:port/path")]
    NotAbsolute { text: String },
    #[error("{text:?} names no mgr: write pvfs://host:port/path")]
    Host { text: String },
}

impl Spec {
    /// Where only PVFS paths make sense: with or without `pvfs:`.
    pub fn parse(text: &OsStr) -> Result<Spec, SpecError> {
        let bytes = text.as_bytes();
        let shown = || text.to_string_lossy().into_owned();
        if let Some(rest) = bytes.strip_prefix(b"pvfs://") {
            let slash = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
            let hosts = String::from_utf8_lossy(&rest[..slash]);
            let mgr: Vec<String> = hosts.split(',').map(with_port).collect();
            if !mgr.iter().all(|addr| is_host_port(addr)) {
                return Err(SpecError::Host { text: shown() });
            }
            let path = if slash == rest.len() { b"/".to_vec() } else { rest[slash..].to_vec() };
            return Ok(Spec { mgr, path });
        }
        let path = bytes.strip_prefix(b"pvfs:").unwrap_or(bytes);
        if !path.starts_with(b"/") {
            return Err(SpecError::NotAbsolute { text: shown() });
        }
        Ok(Spec { mgr: Vec::new(), path: path.to_vec() })
    }

    /// For clap: takes any bytes.
    pub fn arg() -> impl clap::builder::TypedValueParser<Value = Spec> {
        OsStringValueParser::new().try_map(|text| Spec::parse(&text))
    }

    /// How messages show it.
    pub fn display(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }

    /// The last component, without slashes; empty for the root.
    pub fn file_name(&self) -> &[u8] {
        last_component(&self.path)
    }

    /// `name` below this path.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Spec {
        Spec { mgr: self.mgr.clone(), path: join(&self.path, name) }
    }
}

impl Place {
    /// Where both local and PVFS paths make sense: in PVFS is what starts with `pvfs:`.
    pub fn parse(text: &OsStr) -> Result<Place, SpecError> {
        if text.as_bytes().starts_with(b"pvfs:") {
            return Spec::parse(text).map(Place::Pvfs);
        }
        Ok(Place::Local(PathBuf::from(text)))
    }

    /// For clap: takes any bytes.
    pub fn arg() -> impl clap::builder::TypedValueParser<Value = Place> {
        OsStringValueParser::new().try_map(|text| Place::parse(&text))
    }
}

/// `host` or `host:port` as `host:port`.
fn with_port(host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    if has_port || host.is_empty() { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") }
}

/// The last component of a path, without slashes; empty for the root.
pub fn last_component(path: &[u8]) -> &[u8] {
    let len = path.iter().rposition(|&byte| byte != b'/').map_or(0, |at| at + 1);
    path[..len].rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

/// `name` below directory `dir`.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Bytes as the operating system's strings are.
pub fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<(String, String), SpecError> {
        Spec::parse(OsStr::new(text)).map(|spec| (spec.mgr.join(","), spec.display()))
    }

    fn pair(mgr: &str, path: &str) -> (String, String) {
        (mgr.into(), path.into())
    }

    #[test]
    fn a_path_names_its_cluster_or_leaves_it_open() {
        assert_eq!(spec("/a/b"), Ok(pair("", "/a/b")));
        assert_eq!(spec("pvfs:/a"), Ok(pair("", "/a")));
        assert_eq!(spec("pvfs://h:1/a"), Ok(pair("h:1", "/a")));
        assert_eq!(spec("pvfs://h:1,[::1]:2"), Ok(pair("h:1,[::1]:2", "/")));
        assert_eq!(spec("pvfs://h,[::1]/a"), Ok(pair("h:7334,[::1]:7334", "/a")));
    }

    #[test]
    fn what_names_no_absolute_path_is_refused() {
        assert!(matches!(spec("a"), Err(SpecError::NotAbsolute { .. })));
        assert!(matches!(spec("pvfs:a"), Err(SpecError::NotAbsolute { .. })));
        assert!(matches!(spec(""), Err(SpecError::NotAbsolute { .. })));
        assert!(matches!(spec("pvfs://h:/a"), Err(SpecError::Host { .. })));
        assert!(matches!(spec("pvfs://"), Err(SpecError::Host { .. })));
        assert!(matches!(spec("pvfs://h:70000/a"), Err(SpecError::Host { .. })));
    }

    #[test]
    fn in_a_copy_only_what_starts_with_pvfs_is_remote() {
        assert_eq!(Place::parse(OsStr::new("/a")), Ok(Place::Local("/a".into())));
        assert!(matches!(Place::parse(OsStr::new("pvfs:/a")), Ok(Place::Pvfs(_))));
        assert!(Place::parse(OsStr::new("pvfs:a")).is_err());
    }

    #[test]
    fn the_last_component_ignores_closing_slashes() {
        let name = |text: &str| Spec::parse(OsStr::new(text)).map(|spec| os(spec.file_name()));
        assert_eq!(name("/a/b//"), Ok("b".into()));
        assert_eq!(name("//"), Ok("".into()));
    }
}
