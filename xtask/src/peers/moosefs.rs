//! `MooseFS`: a master, four chunk servers, its FUSE client.

use super::{HOST, Place, SERVERS, quietly, wait_until};
use crate::run::{self, Outcome};
use serde_json::Value;
use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

pub const NAME: &str = "MooseFS";
/// Of the first chunk server.
const PORT: u16 = 9500;
/// For master and chunk servers: the same priority as everybody's, and nothing that reaches beyond the process.
const SETTINGS: &str = "\
WORKING_USER = root
WORKING_GROUP = root
NICE_LEVEL = 0
DISABLE_OOM_KILLER = 0
";
/// The least there is: room that removed files had comes back before the machine is full.
const CHUNKS_LOOP_MIN_SECS: u32 = 60;

/// All daemons and the mount, with files below `dir`.
pub fn start(dir: &Path) -> Result<Place, String> {
    let log = dir.join("log");
    let mnt = made(dir.join("mnt"))?;
    start_master(dir, &log)?;
    for number in 0..SERVERS {
        start_chunk_server(&dir.join(format!("chunks{number}")), PORT + number, &log)?;
    }
    let mut mount = run::program("mfsmount");
    mount.arg("-c").arg(written(dir.join("mount.cfg"), "\n")?).args(["-H", HOST]);
    quietly(mount.args(["-o", "mfsnice=0,mfsallowoomkiller"]).arg(&mnt), &log)?;
    // They register one after another, some before they know their disks.
    wait_until("MooseFS' chunk servers", || bytes(&mnt) > u64::from(SERVERS - 1) * bytes(dir))?;
    // One copy; and what is removed is gone.
    quietly(run::command("mfssetgoal 1").arg(&mnt), &log)?;
    quietly(run::command("mfssettrashtime 0").arg(&mnt), &log)?;
    Ok(Place { name: NAME, dir: mnt, programs: &["mfsmaster", "mfschunkserver", "mfsmount"] })
}

fn start_master(dir: &Path, log: &Path) -> Outcome {
    let data = made(dir.join("master"))?;
    // A name space with nothing in it: the package brings one.
    let empty = "/var/lib/mfs/metadata.mfs.empty";
    fs::copy(empty, data.join("metadata.mfs")).map_err(|e| format!("{empty}: {e}"))?;
    let exports = written(dir.join("exports.cfg"), "* / rw,alldirs,admin,maproot=0:0\n")?;
    let topology = written(dir.join("topology.cfg"), "\n")?;
    let settings = format!(
        "{SETTINGS}DATA_PATH = {}\nEXPORTS_FILENAME = {}\nTOPOLOGY_FILENAME = {}\nCHUNKS_LOOP_MIN_TIME = {CHUNKS_LOOP_MIN_SECS}\n",
        data.display(),
        exports.display(),
        topology.display()
    );
    let config = written(dir.join("master.cfg"), &settings)?;
    quietly(run::program("mfsmaster").arg("-c").arg(config).arg("start"), log)
}

fn start_chunk_server(dir: &Path, port: u16, log: &Path) -> Outcome {
    let (data, disk) = (made(dir.join("data"))?, made(dir.join("disk"))?);
    let disks = written(dir.join("disks.cfg"), format!("{}\n", disk.display()))?;
    let settings = format!(
        "{SETTINGS}DATA_PATH = {}\nHDD_CONF_FILENAME = {}\nMASTER_HOST = {HOST}\nCSSERV_LISTEN_PORT = {port}\n",
        data.display(),
        disks.display()
    );
    let config = written(dir.join("chunks.cfg"), settings)?;
    quietly(run::program("mfschunkserver").arg("-c").arg(config).arg("start"), log)
}

/// How much there is room for in all.
fn bytes(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(0, |found| found.f_blocks * found.f_frsize)
}

fn made(dir: PathBuf) -> Result<PathBuf, String> {
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir)
}

fn written(file: PathBuf, text: impl Display) -> Result<PathBuf, String> {
    fs::write(&file, text.to_string()).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(file)
}

pub fn about() -> Result<Value, String> {
    let settings = format!(
        "{SERVERS} chunk servers, goal 1 (a copy), so 64 MiB in a row are on one of them; trash time 0; no sync of chunks, its log of changes \
         written in the background, as it comes; the priority of all others (it would take nice -19); a chunk loop of {CHUNKS_LOOP_MIN_SECS} s, \
         so that removed files make room; all else as it comes."
    );
    super::about(NAME, "moosefs-master", &settings)
}
