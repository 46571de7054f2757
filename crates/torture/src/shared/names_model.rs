//! A tree of names through all mounts in turn: every answer, the errors too, is what the model says, and so is everything that
//! can be asked about a name on any mount at once afterwards.

use super::{
    InTurn, SharedPlan,
    history::History,
    names::{Id, Kind, Node, ROOT, RenameMode, Tree},
    part::{At, Checked, Part, Wrong, unless_stale},
};
use fastrand::Rng;
use rustix::{
    fs::{CWD, RenameFlags, XattrFlags, getxattr, renameat_with, setxattr},
    io::Errno,
};
use std::{
    collections::BTreeMap,
    fs::{self, File, FileTimes, Metadata},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::PathBuf,
    time::{Duration, SystemTime},
};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const DEPTH_MAX: usize = 3;
const BYTES_MAX: usize = 6000;
const HANDLES_MAX: usize = 6;
const XATTR: &str = "user.torture";

pub(super) struct NamesTurns {
    roots: Vec<PathBuf>,
    rng: Rng,
    times: bool,
    history: History,
    stale: u64,
    tree: Tree,
    /// Files that are open, on whatever mount, with a name or without.
    handles: Vec<(usize, File, Id)>,
}

impl InTurn for NamesTurns {
    const PART: Part = Part::Names;

    fn new(roots: Vec<PathBuf>, seed: u64, plan: &SharedPlan) -> NamesTurns {
        let rng = Rng::with_seed(seed.rotate_left(32));
        NamesTurns {
            roots,
            rng,
            times: plan.times,
            history: History::default(),
            stale: 0,
            tree: Tree::default(),
            handles: Vec::new(),
        }
    }

    fn step(&mut self) -> Checked {
        match self.rng.u32(..100) {
            0..12 => self.create(),
            12..20 => self.mkdir(),
            20..23 => self.symlink(),
            23..30 => self.link(),
            30..45 => self.rename(),
            45..53 => self.unlink(),
            53..58 => self.rmdir(),
            58..63 => self.rewrite(),
            63..68 => self.read(),
            68..71 => self.chmod(),
            71..73 => self.utimens(),
            73..77 => self.xattr(),
            77..80 => self.open(),
            80..84 => self.look_at_open(),
            84..90 => self.list(),
            _ => self.stat(),
        }
    }

    fn history(&self) -> String {
        self.history.text()
    }

    fn stale(&self) -> u64 {
        self.stale
    }
}

impl NamesTurns {
    fn any_mount(&mut self) -> usize {
        self.rng.usize(..self.roots.len())
    }

    fn any_path(&mut self) -> String {
        let depth = self.rng.usize(1..=DEPTH_MAX);
        let names: Vec<&str> = (0..depth).map(|_| NAMES[self.rng.usize(..NAMES.len())]).collect();
        names.join("/")
    }

    /// A mount, a path, and where that is.
    fn begin(&mut self, what: &str) -> (String, PathBuf) {
        let (mount, path) = (self.any_mount(), self.any_path());
        self.history.add(format!("mount {mount} {what} {path}"));
        let place = self.roots[mount].join(&path);
        (path, place)
    }

    /// After a change, any mount must show what became of it, at once.
    fn shows(&mut self, paths: &[&str]) -> Checked {
        for path in paths {
            let mount = self.any_mount();
            self.look(mount, path)?;
        }
        Ok(())
    }

    fn create(&mut self) -> Checked {
        let (path, place) = self.begin("create");
        let mode = [0o600, 0o640, 0o644][self.rng.usize(..3)];
        let bytes = vec![self.rng.u8(1..); self.rng.usize(..BYTES_MAX)];
        let made = File::options().write(true).create_new(true).mode(mode).open(&place);
        let expected = self.tree.make(&path, Kind::File(bytes.clone()), mode);
        if let Some(mut file) = agree(made, expected)? {
            file.set_permissions(PermissionsExt::from_mode(mode)).at("chmod")?;
            file.write_all(&bytes).at("write")?;
        }
        self.shows(&[&path])
    }

    fn mkdir(&mut self) -> Checked {
        let (path, place) = self.begin("mkdir");
        let made = fs::DirBuilder::new().mode(0o700).create(&place);
        agree(made, self.tree.make(&path, Kind::Dir(BTreeMap::new()), 0o700))?;
        self.shows(&[&path])
    }

    fn symlink(&mut self) -> Checked {
        let (path, place) = self.begin("symlink");
        let to = format!("nowhere-{}", self.rng.u32(..));
        let made = std::os::unix::fs::symlink(&to, &place);
        agree(made, self.tree.make(&path, Kind::Symlink(to), 0o777))?;
        self.shows(&[&path])
    }

    fn link(&mut self) -> Checked {
        let (mount, from, to) = (self.any_mount(), self.any_path(), self.any_path());
        self.history.add(format!("mount {mount} link {from} {to}"));
        let root = &self.roots[mount];
        agree(fs::hard_link(root.join(&from), root.join(&to)), self.tree.link(&from, &to))?;
        self.shows(&[&from, &to])
    }

    fn rename(&mut self) -> Checked {
        let (mount, from, to) = (self.any_mount(), self.any_path(), self.any_path());
        let (mode, flags) = match self.rng.u8(..6) {
            0 => (RenameMode::NoReplace, RenameFlags::NOREPLACE),
            1 => (RenameMode::Exchange, RenameFlags::EXCHANGE),
            _ => (RenameMode::Over, RenameFlags::empty()),
        };
        self.history.add(format!("mount {mount} rename {from} {to} ({mode:?})"));
        let (source, place) = (self.roots[mount].join(&from), self.roots[mount].join(&to));
        // Linux cannot move its old idea of a directory, which another mount has renamed and something here has in use, while
        // it renames. Whoever looks at the name first finds it.
        let done = unless_stale(&mut self.stale, || {
            let done = renameat_with(CWD, &source, CWD, &place, flags);
            if done == Err(Errno::STALE) {
                let _ = (fs::symlink_metadata(&source), fs::symlink_metadata(&place));
            }
            Ok(done?)
        });
        agree(done, self.tree.rename(&from, &to, mode))?;
        self.shows(&[&from, &to])
    }

    fn unlink(&mut self) -> Checked {
        let (path, place) = self.begin("unlink");
        agree(fs::remove_file(place), self.tree.unlink(&path))?;
        self.shows(&[&path])
    }

    fn rmdir(&mut self) -> Checked {
        let (path, place) = self.begin("rmdir");
        agree(fs::remove_dir(place), self.tree.rmdir(&path))?;
        self.shows(&[&path])
    }

    /// Other bytes, as many or not.
    fn rewrite(&mut self) -> Checked {
        let (path, place) = self.begin("rewrite");
        let bytes = vec![self.rng.u8(1..); self.rng.usize(..BYTES_MAX)];
        let expected = self.tree.follow_to_file(&path);
        if let Some((file, id)) = both(File::options().write(true).open(place), expected)? {
            file.write_all_at(&bytes, 0).at("write")?;
            file.set_len(bytes.len() as u64).at("truncate")?;
            if let Some(node) = self.tree.node_mut(id) {
                (node.kind, node.mtime) = (Kind::File(bytes), None);
            }
        }
        self.shows(&[&path])
    }

    fn read(&mut self) -> Checked {
        let (path, place) = self.begin("read");
        let Some((found, id)) = both(fs::read(place), self.tree.follow_to_file(&path))? else {
            return Ok(());
        };
        self.check_bytes(id, &found)
    }

    fn check_bytes(&self, id: Id, found: &[u8]) -> Checked {
        let Kind::File(expected) = &self.tree.node(id).kind else { return Ok(()) };
        if found == expected {
            return Ok(());
        }
        let what = |bytes: &[u8]| format!("{} bytes of {:?}", bytes.len(), bytes.first());
        Err(Wrong::lost(format!("read {}, must be {}", what(found), what(expected))))
    }

    fn chmod(&mut self) -> Checked {
        let (path, place) = self.begin("chmod");
        let mode = [0o700, 0o755, 0o711][self.rng.usize(..3)];
        let done = fs::set_permissions(place, PermissionsExt::from_mode(mode));
        if let Some(((), id)) = both(done, self.tree.follow(&path))?
            && let Some(node) = self.tree.node_mut(id)
        {
            node.mode = mode;
        }
        self.shows(&[&path])
    }

    fn utimens(&mut self) -> Checked {
        let (path, place) = self.begin("utimens");
        let (secs, nanos) = (self.rng.u32(..2_000_000_000), self.rng.u32(..1_000_000_000));
        let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::new(secs.into(), nanos));
        if let Some((file, id)) = both(File::open(place), self.tree.follow(&path))? {
            file.set_times(times).at("utimens")?;
            if let Some(node) = self.tree.node_mut(id) {
                node.mtime = self.times.then_some((secs.into(), nanos.into()));
            }
        }
        self.shows(&[&path])
    }

    fn xattr(&mut self) -> Checked {
        if self.rng.bool() {
            let (path, place) = self.begin("setxattr");
            let value = self.rng.u64(..).to_le_bytes().to_vec();
            let done = setxattr(place, XATTR, &value, XattrFlags::empty()).map_err(io::Error::from);
            if let Some(((), id)) = both(done, self.tree.follow(&path))?
                && let Some(node) = self.tree.node_mut(id)
            {
                node.xattr = Some(value);
            }
            return Ok(());
        }
        let (path, place) = self.begin("getxattr");
        let mut value = [0; 64];
        let found = getxattr(place, XATTR, &mut value[..]).map_err(io::Error::from);
        let expected =
            self.tree.follow(&path).and_then(|id| self.tree.node(id).xattr.clone().ok_or(Errno::NODATA));
        match both(found, expected)? {
            Some((len, expected)) if value[..len] != expected => {
                Err(Wrong::lost(format!("getxattr gave {:?}, must be {expected:?}", &value[..len])))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn open(&mut self) -> Checked {
        let (mount, path) = (self.any_mount(), self.any_path());
        self.history.add(format!("mount {mount} open {path} and keep it"));
        let opened = File::options().read(true).write(true).open(self.roots[mount].join(&path));
        if let Some((file, id)) = both(opened, self.tree.follow_to_file(&path))? {
            if self.handles.len() == HANDLES_MAX {
                self.handles.swap_remove(self.rng.usize(..HANDLES_MAX));
            }
            self.handles.push((mount, file, id));
        }
        Ok(())
    }

    /// Whatever became of its names.
    fn look_at_open(&mut self) -> Checked {
        let Some((mount, file, id)) = self.handles.get(self.rng.usize(..self.handles.len().max(1))) else {
            return Ok(());
        };
        self.history.add(format!("mount {mount} look at an open file with {} names", self.tree.links(*id)));
        let found = file.metadata().at("fstat")?;
        let Kind::File(expected) = &self.tree.node(*id).kind else { return Ok(()) };
        let mut bytes = vec![0; expected.len()];
        file.read_exact_at(&mut bytes, 0).at("read an open file")?;
        self.check_bytes(*id, &bytes)?;
        let id = *id;
        self.check_stat(id, &found)
    }

    fn list(&mut self) -> Checked {
        let (mut path, mut place) = self.begin("list");
        if self.rng.u8(..3) == 0 {
            place = place.ancestors().nth(path.split('/').count()).unwrap_or(&place).to_owned();
            path = String::new();
        }
        let list = || {
            let entries = fs::read_dir(&place)?;
            let mut found = Vec::new();
            for entry in entries {
                let entry = entry?;
                let kind = entry.file_type()?;
                let kind = if kind.is_dir() {
                    'd'
                } else if kind.is_symlink() {
                    'l'
                } else {
                    'f'
                };
                found.push((entry.file_name().to_string_lossy().into_owned(), kind));
            }
            found.sort();
            Ok(found)
        };
        match both(list(), self.tree.list(&path))? {
            Some((found, expected)) if found != expected => {
                let doubled = found.windows(2).any(|pair| pair[0].0 == pair[1].0);
                let text = format!("the list of '{path}' is {found:?}, must be {expected:?}");
                Err(if doubled {
                    Wrong::doubled(text)
                } else if found.len() < expected.len() {
                    Wrong::lost(text)
                } else {
                    Wrong::other(text)
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn stat(&mut self) -> Checked {
        let path = self.any_path();
        let mount = self.any_mount();
        self.look(mount, &path)
    }

    /// Everything about a name.
    fn look(&mut self, mount: usize, path: &str) -> Checked {
        self.history.add(format!("mount {mount} stat {path}"));
        let place = self.roots[mount].join(path);
        let Some((found, id)) = both(fs::symlink_metadata(&place), self.tree.find(path))? else {
            return Ok(());
        };
        if let Kind::Symlink(expected) = &self.tree.node(id).kind {
            let to = fs::read_link(&place).at("readlink")?;
            if to.as_os_str() != expected.as_str() {
                return Err(Wrong::other(format!("{path} leads to {}, must be {expected}", to.display())));
            }
        }
        self.check_stat(id, &found)
    }

    fn check_stat(&mut self, id: Id, found: &Metadata) -> Checked {
        let links = self.tree.links(id);
        let Some(node) = self.tree.node_mut(id).filter(|_| id != ROOT) else { return Ok(()) };
        let told = told(found);
        let expected = expected(node, links, &told);
        if told != expected {
            return Err(Wrong::other(format!("stat gave {told:?}, must be {expected:?}")));
        }
        node.ino = Some(told.ino);
        if self.times {
            node.mtime = Some(told.mtime);
        }
        Ok(())
    }
}

/// What stat(2) tells.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    kind: char,
    mode: u32,
    links: u64,
    /// Of a directory: anything.
    size: u64,
    ino: u64,
    mtime: (i64, i64),
}

fn told(found: &Metadata) -> Told {
    let kind = found.file_type();
    Told {
        kind: if kind.is_dir() {
            'd'
        } else if kind.is_symlink() {
            'l'
        } else {
            'f'
        },
        mode: found.mode() & 0o7777,
        links: found.nlink(),
        size: if kind.is_dir() { 0 } else { found.len() },
        ino: found.ino(),
        mtime: (found.mtime(), found.mtime_nsec()),
    }
}

/// What must be told; what the model does not know is as it was `told`.
fn expected(node: &Node, links: u64, told: &Told) -> Told {
    let (kind, size) = match &node.kind {
        Kind::File(bytes) => ('f', bytes.len() as u64),
        Kind::Dir(_) => ('d', 0),
        Kind::Symlink(to) => ('l', to.len() as u64),
    };
    let (ino, mtime) = (node.ino.unwrap_or(told.ino), node.mtime.unwrap_or(told.mtime));
    Told { kind, mode: node.mode, links, size, ino, mtime }
}

/// Both did it, or both gave the same error.
fn both<T, U>(found: io::Result<T>, expected: Result<U, Errno>) -> Checked<Option<(T, U)>> {
    match (found, expected) {
        (Ok(found), Ok(expected)) => Ok(Some((found, expected))),
        (Err(found), Err(expected)) if found.raw_os_error() == Some(expected.raw_os_error()) => Ok(None),
        (Ok(_), Err(expected)) => Err(Wrong::other(format!("it was done, must be refused: {expected}"))),
        (Err(found), Err(expected)) => {
            Err(Wrong::other(format!("it was refused with: {found}, must be: {expected}")))
        }
        (Err(found), Ok(_)) => match found.kind() {
            io::ErrorKind::NotFound => Err(Wrong::lost(format!("{found}, must be done"))),
            io::ErrorKind::AlreadyExists => Err(Wrong::doubled(format!("{found}, must be done"))),
            _ => Err(Wrong::from(found)),
        },
    }
}

fn agree<T>(found: io::Result<T>, expected: Result<(), Errno>) -> Checked<Option<T>> {
    Ok(both(found, expected)?.map(|(found, ())| found))
}
