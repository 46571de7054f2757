//! What is mounted where, from `/proc/self/mountinfo`; and who uses it. Never touches the mounts themselves: a dead
//! one must not hang who looks.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// The type under which the kernel knows our mounts.
pub const FSTYPE: &str = "fuse.pvfs";

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The device number `major:minor`.
    pub device: String,
    pub dir: PathBuf,
    pub fstype: String,
    /// What is mounted: for ours, the SPEC.
    pub source: String,
    /// Flags of this mount, then those of the whole file system, as `mount -o` takes them.
    pub options: String,
}

/// All mounts this process sees, later ones over earlier ones.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// The mount that is on top at exactly `dir`, an absolute path without links.
pub fn find_mount(dir: &Path) -> io::Result<Option<Mount>> {
    Ok(mounts()?.into_iter().rfind(|mount| mount.dir == dir))
}

/// The absolute path of `dir` by its parent, so that `dir` itself, maybe a dead mount, is not touched.
pub fn resolve(dir: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(dir)?;
    if mounts()?.iter().any(|mount| mount.dir == absolute) {
        return Ok(absolute);
    }
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Ok(absolute);
    };
    let by_parent = parent.canonicalize()?.join(name);
    if mounts()?.iter().any(|mount| mount.dir == by_parent) {
        return Ok(by_parent);
    }
    by_parent.canonicalize()
}

/// Who has its current directory, root, program, an open file or a mapping under `dir`, as `name (pid N)`. As far as
/// /proc tells this user, and within `at_most`: a look at a process can hang as long as that process hangs in a dead
/// mount (it holds locks that the look needs).
pub fn holders(dir: &Path, at_most: Duration) -> Vec<String> {
    let (tell, told) = mpsc::channel();
    let dir = dir.to_owned();
    // Left to itself when it hangs; it ends with what it hangs on, or with this process.
    let looking = thread::Builder::new().name("holders".to_owned()).spawn(move || look(&dir, &tell));
    let deadline = Instant::now() + at_most;
    let mut holders = Vec::new();
    if looking.is_ok() {
        while let Ok(holder) = told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            holders.push(holder);
        }
    }
    holders
}

fn look(dir: &Path, tell: &mpsc::Sender<String>) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let is_pid = process.file_name().as_bytes().iter().all(u8::is_ascii_digit);
        if is_pid && holds(&process.path(), dir) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let pid = process.file_name();
            if tell.send(format!("{} (pid {})", name.trim_end(), pid.display())).is_err() {
                return;
            }
        }
    }
}

fn holds(process: &Path, dir: &Path) -> bool {
    let under = |link: PathBuf| fs::read_link(link).is_ok_and(|to| to.starts_with(dir));
    let open = || {
        let open = fs::read_dir(process.join("fd"));
        open.is_ok_and(|mut fds| fds.any(|fd| fd.is_ok_and(|fd| under(fd.path()))))
    };
    let mapped = || {
        fs::read(process.join("maps")).is_ok_and(|maps| {
            maps.split(|&b| b == b'\n').any(|line| {
                let path = line.iter().position(|&b| b == b'/').map(|at| &line[at..]);
                path.is_some_and(|p| Path::new(OsStr::from_bytes(p)).starts_with(dir))
            })
        })
    };
    ["cwd", "root", "exe"].iter().any(|link| under(process.join(link))) || open() || mapped()
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /dir opts [fields…] - fstype source superopts`, with spaces in names as `\040`.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(&unescape(bytes)).into_owned();
    Some(Mount {
        device: text(fields.get(2)?),
        dir: OsString::from_vec(unescape(fields.get(4)?)).into(),
        fstype: text(fields.get(dash + 1)?),
        source: text(fields.get(dash + 2)?),
        options: format!("{},{}", text(fields.get(5)?), text(fields.get(dash + 3)?)),
    })
}

/// Undoes the kernel's `\ooo`.
fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                out.push(byte);
                rest = &after[3..];
            }
            _ => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood_with_escapes_and_optional_fields() {
        let text = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            90 27 0:45 / /mnt/a\\040b rw shared:1 master:2 - fuse.pvfs pvfs://h:1/x rw,user_id=0\n\
            garbage\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(
            mounts[1],
            Mount {
                device: "0:45".into(),
                dir: "/mnt/a b".into(),
                fstype: FSTYPE.into(),
                source: "pvfs://h:1/x".into(),
                options: "rw,rw,user_id=0".into(),
            }
        );
    }

    #[test]
    fn a_process_with_an_open_file_there_holds_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().canonicalize().expect("it is there");
        let me = Path::new("/proc/self");
        assert!(!holds(me, &path));
        let _open = fs::File::create(path.join("f")).expect("a file");
        assert!(holds(me, &path));
        assert!(holders(&path, Duration::ZERO).len() <= 1, "however long a look takes");
    }

    #[test]
    fn what_is_no_mount_is_not_found() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(find_mount(dir.path()).expect("mountinfo is there"), None);
    }
}
