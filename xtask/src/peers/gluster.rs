//! `GlusterFS`: a distributed volume over four bricks, mounted by its FUSE client.

use super::{HOST, PATIENCE, Place, SERVERS, mount_memory, quietly, wait_until};
use crate::run::{self, Outcome};
use serde_json::Value;
use std::{fs, path::Path, process::Command};

pub const NAME: &str = "GlusterFS";
const VOLUME: &str = "peers";

/// What the volume has that is not there by itself: the group `metadata-cache`, which the project's papers want for small files.
const OPTIONS: [(&str, &str); 6] = [
    ("features.cache-invalidation", "on"),
    ("features.cache-invalidation-timeout", "600"),
    ("performance.stat-prefetch", "on"),
    ("performance.cache-invalidation", "on"),
    ("performance.md-cache-timeout", "600"),
    ("network.inode-lru-limit", "200000"),
];

/// The management daemon, the bricks and the mount, with files below `dir`.
pub fn start(dir: &Path) -> Result<Place, String> {
    let (mnt, log) = (dir.join("mnt"), dir.join("log"));
    fs::create_dir_all(&mnt).map_err(|e| format!("{}: {e}", dir.display()))?;
    // Where it keeps its own, whatever it is told.
    for own in ["/var/lib/glusterd", "/var/log/glusterfs"] {
        mount_memory(Path::new(own), "10%")?;
    }
    fs::create_dir_all("/run/gluster").map_err(|e| format!("/run/gluster: {e}"))?;
    let mut glusterd = run::program("glusterd");
    quietly(glusterd.arg("--log-file").arg(dir.join("glusterd.log")), &log)?;
    wait_until("glusterd", || quietly(&mut gluster("volume list"), &log).is_ok())?;
    let bricks: Vec<String> =
        (0..SERVERS).map(|number| format!("{HOST}:{}/brick{number}", dir.display())).collect();
    // By force, because the bricks are no mounts of their own.
    quietly(&mut gluster(&format!("volume create {VOLUME} {} force", bricks.join(" "))), &log)?;
    for (option, value) in OPTIONS {
        quietly(&mut gluster(&format!("volume set {VOLUME} {option} {value}")), &log)?;
    }
    quietly(&mut gluster(&format!("volume start {VOLUME}")), &log)?;
    mount(dir, &mnt, &log)?;
    Ok(Place { name: NAME, dir: mnt, programs: &["glusterfsd"] })
}

fn mount(dir: &Path, mnt: &Path, log: &Path) -> Outcome {
    let mut mount = run::program("glusterfs");
    mount.args(["--volfile-server", HOST, "--volfile-id", VOLUME, "--log-file"]).arg(dir.join("mount.log"));
    quietly(mount.arg(mnt), log)?;
    // Until the client has found all bricks it refuses every call.
    wait_until("GlusterFS' mount", || fs::create_dir(mnt.join("is-there")).is_ok())?;
    fs::remove_dir(mnt.join("is-there")).map_err(|e| format!("{}: {e}", mnt.display()))
}

fn gluster(words: &str) -> Command {
    let mut gluster = run::program("gluster");
    gluster.args(["--mode=script", &format!("--timeout={}", PATIENCE.as_secs())]);
    gluster.args(words.split(' '));
    gluster
}

pub fn about() -> Result<Value, String> {
    let set: Vec<String> = OPTIONS.iter().map(|(option, value)| format!("{option} {value}")).collect();
    let settings = format!(
        "a distributed volume of {SERVERS} bricks, so a file is whole on one of them; its metadata-cache group ({}); all else as it \
         comes: two event threads, client-io-threads, write-behind, open-behind and quick-read on, read-ahead and io-cache off.",
        set.join(", ")
    );
    super::about(NAME, "glusterfs-server", &settings)
}
