//! Mount options, as `mount -o` and fstab write them. Pure.

use crate::CacheMode;
use std::{path::PathBuf, time::Duration};

/// How long a soft mount waits where no `timeo` is given.
const TIMEO_DEFAULT: Duration = Duration::from_mins(1);

/// Which reads move times of access, as mount(8) has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Atimes {
    #[default]
    No,
    /// `relatime`
    Relative,
    /// `strictatime`
    Strict,
}

/// What `-o` says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of mount(2)")]
pub struct MountOptions {
    pub read_only: bool,
    pub suid: bool,
    pub dev: bool,
    pub exec: bool,
    pub atime: bool,
    /// Which reads this mount tells the mgr of.
    pub atimes: Atimes,
    /// Listings count as reads of directories then.
    pub diratime: bool,
    /// Every write waits for the disk, as `mount -o sync` has it.
    pub sync: bool,
    pub dirsync: bool,
    /// Users other than the one who mounts may enter. Root's mounts are always so.
    pub allow_other: bool,
    /// A call that waits too long for a server fails (`EIO`) instead of waiting for ever.
    pub soft: bool,
    /// Locks hold among the processes of this mount only; no server hears of them.
    pub local_locks: bool,
    /// Requests come over `io_uring`, where the kernel offers that.
    pub io_uring: bool,
    /// What the kernel may keep of names, attributes and bytes.
    pub cache: CacheMode,
    /// How long that is.
    pub timeo: Option<Duration>,
    /// The cluster's `cluster.toml`.
    pub cluster: Option<PathBuf>,
    /// The file with the cluster's secret.
    pub secret: Option<PathBuf>,
    /// How much of what was written and may not be durable yet is kept, in bytes: for one target, and for all.
    pub held_target: Option<u64>,
    pub held_total: Option<u64>,
    /// Where the mount's daemon logs to.
    pub log: Option<PathBuf>,
    /// Changes the flags of a mount that is there ([`crate::remount()`]).
    pub remount: bool,
    /// Where the mount's daemon shows its counters (`/metrics`), as `host:port`.
    pub metrics: Option<String>,
}

impl Default for MountOptions {
    fn default() -> MountOptions {
        MountOptions {
            read_only: false,
            suid: true,
            dev: true,
            exec: true,
            atime: true,
            atimes: Atimes::No,
            diratime: true,
            sync: false,
            dirsync: false,
            allow_other: false,
            soft: false,
            local_locks: false,
            io_uring: true,
            cache: CacheMode::default(),
            timeo: None,
            cluster: None,
            secret: None,
            held_target: None,
            held_total: None,
            log: None,
            remount: false,
            metrics: None,
        }
    }
}

/// Why text is not a list of mount options.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error(
        "unknown mount option `{option}`; known are ro, rw, suid, nosuid, dev, nodev, exec, noexec, atime, noatime, \
         relatime, strictatime, diratime, nodiratime, sync, async, dirsync, allow_other, hard, soft, timeo=SECONDS, locks=cluster, locks=local, cache=coherent, cache=open, cache=none, cache=private, io_uring, no_io_uring, cluster=FILE, secret=FILE, log=FILE, \
         metrics=HOST:PORT, held_target=SIZE, held_total=SIZE"
    )]
    Unknown { option: String },
    #[error("the mount option `{option}` needs a value: {option}=…")]
    NoValue { option: String },
    #[error("the mount option `{option}` is a size of at least 1M, as 64M or 2G")]
    Size { option: String },
    #[error("the mount option `{option}` takes no value")]
    Value { option: String },
    #[error("the mount option timeo={value} is no number of seconds (as 30 or 0.5)")]
    Timeo { value: String },
    #[error("the mount option locks={value} is neither locks=cluster nor locks=local")]
    Locks { value: String },
    #[error(
        "the mount option cache={value} is none of cache=coherent, cache=open, cache=none and cache=private"
    )]
    Cache { value: String },
    #[error("the mount option `timeo` means something only with `soft`: a hard mount waits for ever")]
    TimeoWithoutSoft,
    #[error(
        "a remount changes only ro, suid, dev, exec, atime, sync, dirsync and their opposites: for anything else unmount \
         it, then mount it with the new options"
    )]
    Remount,
}

impl MountOptions {
    /// Parses a comma separated list; later ones win.
    pub fn parse(text: &str) -> Result<MountOptions, OptionError> {
        let mut options = MountOptions::default();
        options.add(text)?;
        if options.timeo.is_some() && !options.soft {
            return Err(OptionError::TimeoWithoutSoft);
        }
        if options.remount && !options.are_flags_only() {
            return Err(OptionError::Remount);
        }
        Ok(options)
    }

    /// Whether nothing is asked for that the mount's daemon would have to know.
    fn are_flags_only(&self) -> bool {
        let flags = MountOptions {
            read_only: self.read_only,
            suid: self.suid,
            dev: self.dev,
            exec: self.exec,
            atime: self.atime,
            // The kernel shows `relatime` of any mount, and mount(8) gives that back.
            atimes: if self.atimes == Atimes::Strict { Atimes::No } else { self.atimes },
            diratime: self.diratime,
            sync: self.sync,
            dirsync: self.dirsync,
            allow_other: self.allow_other,
            remount: self.remount,
            ..MountOptions::default()
        };
        *self == flags
    }

    /// How long a call may wait; `None`: for ever.
    pub fn patience(&self) -> Option<Duration> {
        self.soft.then(|| self.timeo.unwrap_or(TIMEO_DEFAULT))
    }

    /// Adds a comma separated list; later ones win. (`-o` may be given several times.)
    pub fn add(&mut self, text: &str) -> Result<(), OptionError> {
        text.split(',').map(str::trim).filter(|option| !option.is_empty()).try_for_each(|o| self.set(o))
    }

    fn set(&mut self, option: &str) -> Result<(), OptionError> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        if is_for_others(name) {
            return Ok(());
        }
        if let Some(slot) = self.valued(name) {
            let text = value.filter(|v| !v.is_empty());
            *slot = Some(text.ok_or_else(|| OptionError::NoValue { option: name.to_owned() })?.into());
            return Ok(());
        }
        if name == "metrics" {
            let text = value.filter(|v| !v.is_empty());
            self.metrics =
                Some(text.ok_or_else(|| OptionError::NoValue { option: name.to_owned() })?.to_owned());
            return Ok(());
        }
        if name == "timeo" {
            let text = value.filter(|v| !v.is_empty());
            let text = text.ok_or_else(|| OptionError::NoValue { option: name.to_owned() })?;
            let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
            let timeo = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            self.timeo = Some(timeo.ok_or_else(|| OptionError::Timeo { value: text.to_owned() })?);
            return Ok(());
        }
        if name == "locks" {
            self.local_locks = match value {
                Some("cluster") => false,
                Some("local") => true,
                None | Some("") => return Err(OptionError::NoValue { option: name.to_owned() }),
                Some(other) => return Err(OptionError::Locks { value: other.to_owned() }),
            };
            return Ok(());
        }
        if name == "cache" {
            let text = value.filter(|v| !v.is_empty());
            let text = text.ok_or_else(|| OptionError::NoValue { option: name.to_owned() })?;
            self.cache =
                CacheMode::parse(text).ok_or_else(|| OptionError::Cache { value: text.to_owned() })?;
            return Ok(());
        }
        if let Some(held) = match name {
            "held_target" => Some(&mut self.held_target),
            "held_total" => Some(&mut self.held_total),
            _ => None,
        } {
            let bytes = value.and_then(size).filter(|&bytes| bytes >= 1 << 20);
            *held = Some(bytes.ok_or_else(|| OptionError::Size { option: name.to_owned() })?);
            return Ok(());
        }
        self.set_flag(name)?;
        if value.is_some() {
            return Err(OptionError::Value { option: name.to_owned() });
        }
        Ok(())
    }

    fn valued(&mut self, name: &str) -> Option<&mut Option<PathBuf>> {
        match name {
            "cluster" => Some(&mut self.cluster),
            "secret" => Some(&mut self.secret),
            "log" => Some(&mut self.log),
            _ => None,
        }
    }

    fn set_flag(&mut self, name: &str) -> Result<(), OptionError> {
        match name {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "suid" => self.suid = true,
            "nosuid" => self.suid = false,
            "dev" => self.dev = true,
            "nodev" => self.dev = false,
            "exec" => self.exec = true,
            "noexec" => self.exec = false,
            "atime" => self.atime = true,
            "noatime" => (self.atime, self.atimes) = (false, Atimes::No),
            "relatime" => (self.atime, self.atimes) = (true, Atimes::Relative),
            "strictatime" => (self.atime, self.atimes) = (true, Atimes::Strict),
            "norelatime" | "nostrictatime" => self.atimes = Atimes::No,
            "diratime" => self.diratime = true,
            "nodiratime" => self.diratime = false,
            "sync" => self.sync = true,
            "async" => self.sync = false,
            "dirsync" => self.dirsync = true,
            "allow_other" => self.allow_other = true,
            "soft" => self.soft = true,
            "io_uring" => self.io_uring = true,
            "no_io_uring" => self.io_uring = false,
            "hard" => (self.soft, self.timeo) = (false, None),
            "defaults" => {
                (self.read_only, self.suid, self.dev, self.exec) = (false, true, true, true);
            }
            // Always so, and harmless to say.
            "default_permissions" | "lazytime" | "nolazytime" | "silent" | "loud" => {}
            "remount" => self.remount = true,
            _ => return Err(OptionError::Unknown { option: name.to_owned() }),
        }
        Ok(())
    }
}

/// Bytes, or as many K, M or G.
fn size(text: &str) -> Option<u64> {
    let (number, unit) = match text.char_indices().last()? {
        (at, 'K' | 'k') => (&text[..at], 1 << 10),
        (at, 'M' | 'm') => (&text[..at], 1 << 20),
        (at, 'G' | 'g') => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// Options that fstab carries for mount(8), systemd and whoever else reads it.
fn is_for_others(name: &str) -> bool {
    matches!(
        name,
        "_netdev"
            | "auto"
            | "noauto"
            | "user"
            | "nouser"
            | "users"
            | "owner"
            | "group"
            | "nofail"
            | "comment"
            // As the kernel shows our mounts, and mount(8) gives that back at a remount.
            | "user_id"
            | "group_id"
    ) || name.starts_with("x-")
        || name.starts_with("X-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> MountOptions {
        MountOptions::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn options_are_taken_and_later_ones_win() {
        assert_eq!(parsed(""), MountOptions::default());
        assert!(parsed("ro").read_only);
        assert!(!parsed("ro,rw").read_only);
        let strict = parsed("ro,nosuid,nodev,noexec,noatime,allow_other");
        assert!(strict.read_only && strict.allow_other);
        assert!(!strict.suid && !strict.dev && !strict.exec && !strict.atime);
        assert!(parsed("noexec,defaults").exec);
        let atimes = |text| (parsed(text).atime, parsed(text).atimes);
        assert_eq!(atimes(""), (true, Atimes::No));
        assert_eq!(atimes("noatime,relatime"), (true, Atimes::Relative));
        assert_eq!(atimes("relatime,strictatime"), (true, Atimes::Strict));
        assert_eq!(atimes("strictatime,noatime"), (false, Atimes::No));
        assert!(!parsed("relatime,nodiratime").diratime);
        assert_eq!(parsed("cluster=/etc/c.toml").cluster, Some("/etc/c.toml".into()));
        assert_eq!(parsed("held_target=16M").held_target, Some(16 << 20));
        assert_eq!(parsed("held_total=2g").held_total, Some(2 << 30));
        assert_eq!(parsed("secret=a=b").secret, Some("a=b".into()));
        assert!(parsed("locks=local").local_locks);
        assert!(!parsed("locks=local,locks=cluster").local_locks);
        assert!(parsed("").io_uring && !parsed("no_io_uring").io_uring);
        assert_eq!(parsed("").cache, CacheMode::Coherent);
        assert_eq!(parsed("cache=private,cache=none").cache, CacheMode::None);
        assert_eq!(parsed("metrics=127.0.0.1:9").metrics.as_deref(), Some("127.0.0.1:9"));
    }

    #[test]
    fn a_mount_waits_for_ever_unless_it_is_soft() {
        assert_eq!(parsed("").patience(), None);
        assert_eq!(parsed("hard").patience(), None);
        assert_eq!(parsed("soft").patience(), Some(TIMEO_DEFAULT));
        assert_eq!(parsed("timeo=2.5,soft").patience(), Some(Duration::from_millis(2500)));
        assert_eq!(parsed("soft,timeo=30,hard").patience(), None, "the later one wins");
    }

    #[test]
    fn options_of_fstab_for_others_are_ignored() {
        let fstab = "_netdev,noauto,user,nofail,x-systemd.automount,x-foo=bar,comment=hello,defaults";
        assert_eq!(parsed(fstab), MountOptions::default());
    }

    #[test]
    fn a_remount_takes_flags_and_what_mount_8_adds_to_them() {
        let options =
            parsed("rw,relatime,remount,noexec,user_id=0,group_id=0,default_permissions,allow_other");
        assert!(options.remount && !options.exec && !options.read_only && options.allow_other);
    }

    #[test]
    fn what_is_no_option_is_refused_with_the_reason() {
        let refused = |text: &str, says: &str| {
            let error = MountOptions::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        };
        refused("timeo=3", "only with `soft`");
        refused("soft,timeo", "needs a value");
        for no_time in ["x", "-1", "0", "nan", "inf", "1e30"] {
            refused(&format!("soft,timeo={no_time}"), "no number of seconds");
        }
        refused("ro,frobnicate", "unknown mount option `frobnicate`; known are ro, rw");
        refused("max_read=4096", "`max_read`");
        refused("cluster", "`cluster` needs a value");
        refused("secret=", "`secret` needs a value");
        refused("locks", "`locks` needs a value");
        refused("locks=none", "neither locks=cluster nor locks=local");
        refused("cache", "`cache` needs a value");
        refused("cache=some", "none of cache=coherent");
        refused("held_target=1K", "`held_target` is a size of at least 1M");
        refused("held_total=many", "`held_total` is a size");
        refused("ro=1", "`ro` takes no value");
        refused("remount,ro,soft", "a remount changes only");
        refused("remount,strictatime", "a remount changes only");
        refused("remount,locks=local", "a remount changes only");
    }
}
