//! What names mean: a small tree, and which error Linux gives where something cannot be. Pure.

use rustix::io::Errno;
use std::collections::BTreeMap;

pub(super) type Id = u64;
pub(super) const ROOT: Id = 0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File(Vec<u8>),
    Dir(BTreeMap<String, Id>),
    /// It leads nowhere.
    Symlink(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub kind: Kind,
    pub mode: u32,
    /// Names of a file or link.
    pub names: u64,
    pub xattr: Option<Vec<u8>>,
    /// As it was told once.
    pub ino: Option<u64>,
    pub mtime: Option<(i64, i64)>,
}

impl Node {
    fn new(kind: Kind, mode: u32) -> Node {
        Node { kind, mode, names: 1, xattr: None, ino: None, mtime: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RenameMode {
    Over,
    NoReplace,
    Exchange,
}

pub(super) struct Tree {
    nodes: BTreeMap<Id, Node>,
    last: Id,
}

impl Default for Tree {
    fn default() -> Tree {
        let root = Node::new(Kind::Dir(BTreeMap::new()), 0o755);
        Tree { nodes: [(ROOT, root)].into(), last: ROOT }
    }
}

/// A name's place: the directory, and what is there.
struct Place {
    dir: Id,
    found: Option<Id>,
}

impl Tree {
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[&id]
    }

    pub fn node_mut(&mut self, id: Id) -> Option<&mut Node> {
        self.nodes.get_mut(&id)
    }

    fn children(&self, id: Id) -> Option<&BTreeMap<String, Id>> {
        match &self.nodes.get(&id)?.kind {
            Kind::Dir(children) => Some(children),
            Kind::File(_) | Kind::Symlink(_) => None,
        }
    }

    fn children_mut(&mut self, id: Id) -> Option<&mut BTreeMap<String, Id>> {
        match &mut self.nodes.get_mut(&id)?.kind {
            Kind::Dir(children) => Some(children),
            Kind::File(_) | Kind::Symlink(_) => None,
        }
    }

    /// The directories on the way to `path`, from the root on, without what `path` itself is.
    fn way(&self, path: &str) -> Result<Vec<Id>, Errno> {
        let mut way = vec![ROOT];
        let mut parts: Vec<&str> = path.split('/').collect();
        parts.pop();
        for part in parts {
            let children = way.last().and_then(|&dir| self.children(dir)).ok_or(Errno::NOTDIR)?;
            let id = *children.get(part).ok_or(Errno::NOENT)?;
            match self.node(id).kind {
                Kind::Dir(_) => way.push(id),
                Kind::File(_) => return Err(Errno::NOTDIR),
                Kind::Symlink(_) => return Err(Errno::NOENT),
            }
        }
        Ok(way)
    }

    fn place(&self, path: &str) -> Result<Place, Errno> {
        let dir = self.way(path)?.pop().unwrap_or(ROOT);
        let found = self.children(dir).and_then(|children| children.get(last(path)).copied());
        Ok(Place { dir, found })
    }

    /// What `path` is itself, as lstat(2) has it.
    pub fn find(&self, path: &str) -> Result<Id, Errno> {
        if path.is_empty() {
            return Ok(ROOT);
        }
        self.place(path)?.found.ok_or(Errno::NOENT)
    }

    /// As [`Tree::find`], but a link is followed, to nowhere.
    pub fn follow(&self, path: &str) -> Result<Id, Errno> {
        let id = self.find(path)?;
        if matches!(self.node(id).kind, Kind::Symlink(_)) { Err(Errno::NOENT) } else { Ok(id) }
    }

    /// A file, to be written.
    pub fn follow_to_file(&self, path: &str) -> Result<Id, Errno> {
        let id = self.follow(path)?;
        if matches!(self.node(id).kind, Kind::Dir(_)) { Err(Errno::ISDIR) } else { Ok(id) }
    }

    pub fn links(&self, id: Id) -> u64 {
        match &self.node(id).kind {
            Kind::Dir(children) => {
                let dirs = children.values().filter(|id| self.children(**id).is_some()).count();
                2 + dirs as u64
            }
            Kind::File(_) | Kind::Symlink(_) => self.node(id).names,
        }
    }

    /// A name's modification time is told anew by whoever asks.
    fn touched(&mut self, dir: Id) {
        if let Some(node) = self.nodes.get_mut(&dir) {
            node.mtime = None;
        }
    }

    fn put(&mut self, dir: Id, name: &str, id: Id) {
        if let Some(children) = self.children_mut(dir) {
            children.insert(name.to_owned(), id);
        }
        self.touched(dir);
    }

    fn take(&mut self, dir: Id, name: &str) {
        if let Some(children) = self.children_mut(dir) {
            children.remove(name);
        }
        self.touched(dir);
    }

    pub fn make(&mut self, path: &str, kind: Kind, mode: u32) -> Result<(), Errno> {
        let place = self.place(path)?;
        if place.found.is_some() {
            return Err(Errno::EXIST);
        }
        self.last += 1;
        self.nodes.insert(self.last, Node::new(kind, mode));
        self.put(place.dir, last(path), self.last);
        Ok(())
    }

    pub fn unlink(&mut self, path: &str) -> Result<(), Errno> {
        let place = self.place(path)?;
        let id = place.found.ok_or(Errno::NOENT)?;
        if matches!(self.node(id).kind, Kind::Dir(_)) {
            return Err(Errno::ISDIR);
        }
        self.take(place.dir, last(path));
        self.loses_name(id);
        Ok(())
    }

    fn loses_name(&mut self, id: Id) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.names = node.names.saturating_sub(1);
        }
    }

    pub fn rmdir(&mut self, path: &str) -> Result<(), Errno> {
        let place = self.place(path)?;
        let id = place.found.ok_or(Errno::NOENT)?;
        match &self.node(id).kind {
            Kind::Dir(children) if children.is_empty() => {}
            Kind::Dir(_) => return Err(Errno::NOTEMPTY),
            Kind::File(_) | Kind::Symlink(_) => return Err(Errno::NOTDIR),
        }
        self.take(place.dir, last(path));
        self.loses_name(id);
        Ok(())
    }

    pub fn link(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        let id = self.find(from)?;
        let place = self.place(to)?;
        if place.found.is_some() {
            return Err(Errno::EXIST);
        }
        if matches!(self.node(id).kind, Kind::Dir(_)) {
            return Err(Errno::PERM);
        }
        self.put(place.dir, last(to), id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.names += 1;
        }
        Ok(())
    }

    /// The checks in the order of Linux: whichever comes first decides the error.
    pub fn rename(&mut self, from: &str, to: &str, mode: RenameMode) -> Result<(), Errno> {
        let (from_way, to_way) = (self.way(from)?, self.way(to)?);
        let (source, target) = (self.place(from)?, self.place(to)?);
        let id = source.found.ok_or(Errno::NOENT)?;
        match (mode, target.found) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EXIST),
            (RenameMode::Exchange, None) => return Err(Errno::NOENT),
            (RenameMode::Over | RenameMode::NoReplace | RenameMode::Exchange, _) => {}
        }
        if to_way.contains(&id) {
            return Err(Errno::INVAL);
        }
        if target.found.is_some_and(|target| from_way.contains(&target)) {
            return Err(if mode == RenameMode::Exchange { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        let Some(over) = target.found else {
            self.take(source.dir, last(from));
            self.put(target.dir, last(to), id);
            return Ok(());
        };
        if over == id {
            return Ok(());
        }
        if mode == RenameMode::Exchange {
            self.put(source.dir, last(from), over);
            self.put(target.dir, last(to), id);
            return Ok(());
        }
        match (self.children(id).is_some(), self.children(over)) {
            (true, None) => return Err(Errno::NOTDIR),
            (false, Some(_)) => return Err(Errno::ISDIR),
            (true, Some(children)) if !children.is_empty() => return Err(Errno::NOTEMPTY),
            (true, Some(_)) | (false, None) => {}
        }
        self.loses_name(over);
        self.take(source.dir, last(from));
        self.put(target.dir, last(to), id);
        Ok(())
    }

    /// Names and kinds in a directory.
    pub fn list(&self, path: &str) -> Result<Vec<(String, char)>, Errno> {
        let id = self.follow(path)?;
        let children = self.children(id).ok_or(Errno::NOTDIR)?;
        let kind = |id: &Id| match self.node(*id).kind {
            Kind::File(_) => 'f',
            Kind::Dir(_) => 'd',
            Kind::Symlink(_) => 'l',
        };
        Ok(children.iter().map(|(name, id)| (name.clone(), kind(id))).collect())
    }

    /// All paths.
    #[cfg(test)]
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut left = vec![(String::new(), ROOT)];
        while let Some((path, id)) = left.pop() {
            for (name, &child) in self.children(id).into_iter().flatten() {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                out.push(path.clone());
                left.push((path, child));
            }
        }
        out.sort();
        out
    }
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_linux() {
        let mut tree = Tree::default();
        tree.make("d", Kind::Dir(BTreeMap::new()), 0o755).expect("makes");
        tree.make("d/e", Kind::Dir(BTreeMap::new()), 0o755).expect("makes");
        tree.make("f", Kind::File(Vec::new()), 0o644).expect("makes");
        tree.make("l", Kind::Symlink("nowhere".into()), 0o777).expect("makes");
        assert_eq!(tree.make("f", Kind::File(Vec::new()), 0o644), Err(Errno::EXIST));
        assert_eq!(tree.make("f/x", Kind::File(Vec::new()), 0o644), Err(Errno::NOTDIR));
        assert_eq!(tree.make("l/x", Kind::File(Vec::new()), 0o644), Err(Errno::NOENT));
        assert_eq!(tree.unlink("d"), Err(Errno::ISDIR));
        assert_eq!(tree.rmdir("d"), Err(Errno::NOTEMPTY));
        assert_eq!(tree.rmdir("f"), Err(Errno::NOTDIR));
        assert_eq!(tree.link("d", "x"), Err(Errno::PERM));
        assert_eq!(tree.link("d", "f"), Err(Errno::EXIST));
        let over = RenameMode::Over;
        assert_eq!(tree.rename("d", "d/e/x", over), Err(Errno::INVAL));
        assert_eq!(tree.rename("d/e", "d", over), Err(Errno::NOTEMPTY));
        assert_eq!(tree.rename("d/e", "d", RenameMode::Exchange), Err(Errno::INVAL));
        assert_eq!(tree.rename("d", "f", over), Err(Errno::NOTDIR));
        assert_eq!(tree.rename("f", "d", over), Err(Errno::ISDIR));
        assert_eq!(tree.rename("f", "d", RenameMode::NoReplace), Err(Errno::EXIST));
        assert_eq!(tree.rename("f", "x", RenameMode::Exchange), Err(Errno::NOENT));
        assert_eq!(tree.paths(), ["d", "d/e", "f", "l"], "no error changes anything");
        assert_eq!(tree.rename("d", "f", RenameMode::Exchange), Ok(()));
        assert_eq!(tree.paths(), ["d", "f", "f/e", "l"]);
        assert_eq!((tree.links(ROOT), tree.find("f").map(|id| tree.links(id))), (3, Ok(3)));
    }
}
