//! Random operations against a small model in memory: the same errnos, names, link counts, sizes and counts of use.

use crate::world::{ROOT, World};
use proptest::prelude::*;
use pvfs_meta::{Outcome, Result, quota};
use pvfs_types::{Errno, FileKind, Ino, QuotaOwner, SessionId, SetAttr};
use pvfs_wire::Access;
use pvfs_wire::msg::namespace::RenameMode;
use std::collections::BTreeMap;

/// Which directory and name: the indexes count among what there is.
#[derive(Clone, Copy, Debug)]
struct Place {
    dir: usize,
    name: usize,
}

#[derive(Clone, Debug)]
enum Step {
    Create(Place),
    MkDir(Place),
    SymLink(Place),
    Link(usize, Place),
    Unlink(Place),
    RmDir(Place),
    Rename(Place, Place, RenameMode),
    Truncate(usize, u64),
    OpenForWriting(usize, usize),
    Report(usize, usize, u64, bool),
    ReapAll,
    Chown(usize, u32),
    Limit(u32),
    SetTree(usize, bool),
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const SESSIONS: usize = 2;

fn any_place() -> impl Strategy<Value = Place> {
    (0..8usize, 0..NAMES.len()).prop_map(|(dir, name)| Place { dir, name })
}

fn any_step() -> impl Strategy<Value = Step> {
    let mode = prop::sample::select(vec![RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange]);
    let size = prop::sample::select(vec![0u64, 1, 100, 5000]);
    prop_oneof![
        4 => any_place().prop_map(Step::Create),
        4 => any_place().prop_map(Step::MkDir),
        1 => any_place().prop_map(Step::SymLink),
        2 => (0..8usize, any_place()).prop_map(|(file, to)| Step::Link(file, to)),
        2 => any_place().prop_map(Step::Unlink),
        2 => any_place().prop_map(Step::RmDir),
        6 => (any_place(), any_place(), mode).prop_map(|(from, to, mode)| Step::Rename(from, to, mode)),
        2 => (0..8usize, size.clone()).prop_map(|(file, size)| Step::Truncate(file, size)),
        2 => (0..8usize, 0..SESSIONS).prop_map(|(file, session)| Step::OpenForWriting(file, session)),
        2 => (0..8usize, 0..3u32).prop_map(|(file, uid)| Step::Chown(file, uid)),
        1 => (1..3u32).prop_map(Step::Limit),
        1 => (0..8usize, prop::bool::weighted(0.7)).prop_map(|(dir, set)| Step::SetTree(dir, set)),
        3 => (0..8usize, 0..SESSIONS, size, any::<bool>())
            .prop_map(|(file, session, size, close)| Step::Report(file, session, size, close)),
        1 => Just(Step::ReapAll),
    ]
}

#[derive(Clone, Debug)]
struct Node {
    kind: FileKind,
    size: u64,
    entries: BTreeMap<&'static str, Ino>,
    parent: Ino,
    uid: u32,
    tree: Option<Ino>,
}

/// What there should be. Link counts and use are not kept but counted.
struct Model {
    nodes: BTreeMap<Ino, Node>,
    /// A limit was set.
    counted: bool,
}

impl Model {
    fn new() -> Model {
        let root =
            Node { kind: FileKind::Dir, size: 0, entries: BTreeMap::new(), parent: ROOT, uid: 0, tree: None };
        Model { nodes: BTreeMap::from([(ROOT, root)]), counted: false }
    }

    fn nth(&self, kind: FileKind, n: usize) -> Option<Ino> {
        let all: Vec<_> =
            self.nodes.iter().filter(|(_, node)| node.kind == kind).map(|(ino, _)| *ino).collect();
        (!all.is_empty()).then(|| all[n % all.len()])
    }

    fn place(&self, place: Place) -> (Ino, &'static str) {
        (self.nth(FileKind::Dir, place.dir).expect("the root is there"), NAMES[place.name])
    }

    fn at(&self, (dir, text): (Ino, &'static str)) -> Option<Ino> {
        self.nodes[&dir].entries.get(text).copied()
    }

    fn is_dir(&self, ino: Ino) -> bool {
        self.nodes[&ino].kind == FileKind::Dir
    }

    fn put(&mut self, (dir, text): (Ino, &'static str), ino: Ino) {
        self.nodes.get_mut(&dir).expect("is there").entries.insert(text, ino);
        self.nodes.get_mut(&ino).expect("is there").parent = dir;
    }

    fn take(&mut self, (dir, text): (Ino, &'static str)) {
        self.nodes.get_mut(&dir).expect("is there").entries.remove(text);
    }

    fn names_of(&self, ino: Ino) -> usize {
        self.nodes.values().flat_map(|node| node.entries.values()).filter(|entry| **entry == ino).count()
    }

    /// Forgets nodes without a name: all, or all but files (which stay as orphans).
    fn sweep(&mut self, orphans_too: bool) {
        let goes = |ino, node: &Node| {
            ino != ROOT && self.names_of(ino) == 0 && (orphans_too || node.kind != FileKind::File)
        };
        let gone: Vec<_> =
            self.nodes.iter().filter(|(ino, node)| goes(**ino, node)).map(|(ino, _)| *ino).collect();
        for ino in gone {
            self.nodes.remove(&ino);
        }
    }

    fn is_below(&self, dir: Ino, top: Ino) -> bool {
        dir == top || (dir != ROOT && self.is_below(self.nodes[&dir].parent, top))
    }

    fn make(
        &mut self,
        at: (Ino, &'static str),
        kind: FileKind,
        size: u64,
        made: &Result<Ino>,
    ) -> std::result::Result<(), TestCaseError> {
        let expect = if self.at(at).is_some() { Err(Errno::EEXIST) } else { Ok(()) };
        prop_assert_eq!(made.as_ref().map(drop).map_err(pvfs_meta::MetaError::errno), expect);
        if let Ok(ino) = *made {
            let tree = self.nodes[&at.0].tree;
            let node = Node { kind, size, entries: BTreeMap::new(), parent: at.0, uid: 0, tree };
            prop_assert!(self.nodes.insert(ino, node).is_none(), "inode {} twice", ino);
            self.put(at, ino);
        }
        Ok(())
    }

    fn unlink(&mut self, at: (Ino, &'static str), dirs: bool) -> std::result::Result<(), Errno> {
        let ino = self.at(at).ok_or(Errno::ENOENT)?;
        match (self.is_dir(ino), dirs) {
            (true, false) => return Err(Errno::EISDIR),
            (false, true) => return Err(Errno::ENOTDIR),
            (true, true) if !self.nodes[&ino].entries.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.take(at);
        self.sweep(false);
        Ok(())
    }

    fn rename(
        &mut self,
        from: (Ino, &'static str),
        to: (Ino, &'static str),
        mode: RenameMode,
    ) -> std::result::Result<(), Errno> {
        let source = self.at(from).ok_or(Errno::ENOENT)?;
        let there = self.at(to);
        match (mode, there) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (RenameMode::Exchange, None) => return Err(Errno::ENOENT),
            _ => {}
        }
        if self.is_dir(source) && self.is_below(to.0, source) {
            return Err(Errno::EINVAL);
        }
        let exchange = mode == RenameMode::Exchange;
        if let Some(there) = there {
            if self.is_dir(there) && self.is_below(from.0, there) {
                return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
            }
            if source == there {
                return Ok(());
            }
        }
        if self.nodes[&from.0].tree != self.nodes[&to.0].tree {
            return Err(Errno::EXDEV);
        }
        if let Some(there) = there.filter(|_| !exchange) {
            match (self.is_dir(source), self.is_dir(there)) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (true, true) if !self.nodes[&there].entries.is_empty() => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
        }
        self.take(from);
        self.put(to, source);
        if exchange && let Some(there) = there {
            self.put(from, there);
        }
        self.sweep(false);
        Ok(())
    }

    /// `top` and all below it, each as often as it has names there.
    fn below(&self, top: Ino) -> Vec<Ino> {
        let (mut all, mut dirs) = (vec![top], vec![top]);
        while let Some(dir) = dirs.pop() {
            for ino in self.nodes[&dir].entries.values() {
                all.push(*ino);
                dirs.extend(self.is_dir(*ino).then_some(*ino));
            }
        }
        all
    }

    fn set_tree(&mut self, top: Ino, set: bool) -> std::result::Result<(), Errno> {
        let (from, to) = (self.nodes[&top].tree, set.then_some(top));
        if from == to {
            return Ok(());
        }
        if from.is_some_and(|tree| tree != top) {
            return Err(Errno::EINVAL);
        }
        let below = self.below(top);
        if below.iter().any(|ino| self.nodes[ino].tree.is_some() && self.nodes[ino].tree != from) {
            return Err(Errno::EINVAL);
        }
        let names_here = |ino: &Ino| below.iter().filter(|other| *other == ino).count();
        if below.iter().any(|ino| !self.is_dir(*ino) && names_here(ino) != self.names_of(*ino)) {
            return Err(Errno::EXDEV);
        }
        for ino in below {
            self.nodes.get_mut(&ino).expect("is there").tree = to;
        }
        self.counted |= set;
        Ok(())
    }

    fn compare_use(&self, w: &World) -> std::result::Result<(), TestCaseError> {
        let mut right: BTreeMap<QuotaOwner, (u64, u128)> = BTreeMap::new();
        for node in self.nodes.values().filter(|_| self.counted) {
            let owners = [QuotaOwner::User(node.uid), QuotaOwner::Group(0)].into_iter();
            for owner in owners.chain(node.tree.map(QuotaOwner::Tree)) {
                let sum = right.entry(owner).or_default();
                let bytes = if node.kind == FileKind::File { node.size } else { 0 };
                *sum = (sum.0 + 1, sum.1 + u128::from(bytes));
            }
        }
        let trees = self.nodes.keys().map(|ino| QuotaOwner::Tree(*ino));
        for owner in (0..3).map(QuotaOwner::User).chain([QuotaOwner::Group(0)]).chain(trees) {
            let counted = w.read(|txn| quota::usage(txn, owner)).expect("counts");
            let expect = right.get(&owner).copied().unwrap_or_default();
            prop_assert_eq!((counted.inodes, counted.bytes), expect, "{}", owner);
        }
        Ok(())
    }

    fn compare(&self, w: &World) -> std::result::Result<(), TestCaseError> {
        for (ino, node) in &self.nodes {
            let attr = w.attr(*ino);
            prop_assert_eq!((attr.kind, attr.size), (node.kind, node.size), "inode {}", ino);
            if node.kind == FileKind::Dir {
                let names: Vec<_> = node.entries.keys().map(|text| (*text).to_owned()).collect();
                prop_assert_eq!(w.names(*ino), names);
                for (text, entry) in &node.entries {
                    prop_assert_eq!(w.lookup(*ino, text).expect("is there"), *entry);
                }
                let subdirs = node.entries.values().filter(|entry| self.is_dir(**entry)).count();
                prop_assert_eq!(attr.nlink as usize, 2 + subdirs, "directory {}", ino);
                prop_assert_eq!(w.parent(*ino).expect("is there"), node.parent);
            } else {
                prop_assert_eq!(attr.nlink as usize, self.names_of(*ino), "inode {}", ino);
            }
        }
        prop_assert_eq!(w.inodes_in_use(), self.nodes.len() as u64);
        self.compare_use(w)?;
        prop_assert_eq!(w.findings(), [""; 0]);
        Ok(())
    }
}

fn errno_of<T>(result: Result<T>) -> std::result::Result<(), Errno> {
    result.map(drop).map_err(|e| e.errno())
}

/// Truncates, with the targets' part done at once.
fn truncate(w: &World, ino: Ino, size: u64) -> Result<()> {
    let req = w.setattr_req(ino, SetAttr { size: Some(size), ..SetAttr::default() });
    if let Outcome::Pending(intent) = w.setattr(&req)? {
        w.finish(intent.ino);
        assert!(matches!(w.setattr(&req)?, Outcome::Done(_)), "nothing is left to do");
    }
    Ok(())
}

fn run(steps: &[Step]) -> std::result::Result<(), TestCaseError> {
    let mut w = World::new();
    let mut model = Model::new();
    let sessions: [SessionId; SESSIONS] = [w.session, w.open_session(2)];
    for step in steps {
        match step {
            Step::Create(place) => {
                let at = model.place(*place);
                model.make(at, FileKind::File, 0, &w.try_file(at.0, at.1, 0o644))?;
            }
            Step::MkDir(place) => {
                let at = model.place(*place);
                model.make(at, FileKind::Dir, 0, &w.mkdir(at.0, at.1, 0o755))?;
            }
            Step::SymLink(place) => {
                let at = model.place(*place);
                model.make(at, FileKind::Symlink, 3, &w.symlink(at.0, at.1, b"abc"))?;
            }
            Step::Link(file, place) => {
                let Some(ino) = model.nth(FileKind::File, *file) else { continue };
                let at = model.place(*place);
                let expect = match model.at(at) {
                    Some(_) => Err(Errno::EEXIST),
                    None if model.names_of(ino) == 0 => Err(Errno::ESTALE),
                    None if model.nodes[&at.0].tree != model.nodes[&ino].tree => Err(Errno::EXDEV),
                    None => Ok(()),
                };
                prop_assert_eq!(errno_of(w.link(ino, at.0, at.1)), expect);
                if expect.is_ok() {
                    model.put(at, ino);
                }
            }
            Step::Unlink(place) => {
                let at = model.place(*place);
                prop_assert_eq!(errno_of(w.unlink(at.0, at.1)), model.unlink(at, false));
            }
            Step::RmDir(place) => {
                let at = model.place(*place);
                prop_assert_eq!(errno_of(w.rmdir(at.0, at.1)), model.unlink(at, true));
            }
            Step::Rename(from, to, mode) => {
                let (from, to) = (model.place(*from), model.place(*to));
                prop_assert_eq!(errno_of(w.rename_as(from, to, *mode)), model.rename(from, to, *mode));
            }
            Step::Truncate(file, size) => {
                let Some(ino) = model.nth(FileKind::File, *file) else { continue };
                truncate(&w, ino, *size).expect("truncates");
                model.nodes.get_mut(&ino).expect("is there").size = *size;
            }
            Step::OpenForWriting(file, session) => {
                let Some(ino) = model.nth(FileKind::File, *file) else { continue };
                let opened = w.in_session(sessions[*session], |w| w.open(ino, Access::WRITE));
                let expect = if model.names_of(ino) == 0 { Err(Errno::ESTALE) } else { Ok(()) };
                prop_assert_eq!(errno_of(opened), expect);
            }
            Step::Report(file, session, size, close) => {
                let Some(ino) = model.nth(FileKind::File, *file) else { continue };
                let report = |w: &World| w.try_report(&w.report_req(ino, *size, *close));
                prop_assert!(matches!(w.in_session(sessions[*session], report), Ok(Outcome::Done(_))));
                let node = model.nodes.get_mut(&ino).expect("is there");
                node.size = node.size.max(*size);
            }
            Step::ReapAll => {
                let orphans = w.read(|txn| pvfs_meta::orphan::list_after(txn, 0, 1000)).expect("lists");
                for orphan in orphans {
                    prop_assert!(w.reap(orphan));
                }
                model.sweep(true);
            }
            Step::Chown(file, uid) => {
                let Some(ino) = model.nth(FileKind::File, *file) else { continue };
                w.chown(ino, Some(*uid), None).expect("root may");
                model.nodes.get_mut(&ino).expect("is there").uid = *uid;
            }
            Step::Limit(uid) => {
                w.set_quota(QuotaOwner::User(*uid), Some(1 << 40), None).expect("root may");
                model.counted = true;
            }
            Step::SetTree(dir, set) => {
                let top = model.nth(FileKind::Dir, *dir).expect("the root is there");
                let limit = set.then_some(1 << 40);
                prop_assert_eq!(
                    errno_of(w.set_quota(QuotaOwner::Tree(top), limit, None)),
                    model.set_tree(top, *set)
                );
            }
        }
    }
    model.compare(&w)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_leave_what_the_model_says(steps in prop::collection::vec(any_step(), 1..80)) {
        run(&steps)?;
    }
}
