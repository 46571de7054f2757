//! The shadow model: what a directory tree must look like after the operations that were acknowledged. Pure.

use pvfs_types::{Errno, Ino};
use pvfs_wire::msg::namespace::RenameMode;
use std::collections::{BTreeMap, BTreeSet};

pub type NodeId = u64;

/// One actor's tree.
#[derive(Clone)]
pub struct Model {
    nodes: BTreeMap<NodeId, Node>,
    next: NodeId,
}

#[derive(Clone)]
pub struct Node {
    pub ino: Ino,
    pub names: u32,
    /// Handles.
    pub opens: u32,
    pub body: Body,
}

#[derive(Clone)]
pub enum Body {
    Dir(BTreeMap<String, NodeId>),
    File(Content),
}

/// What a file may hold.
#[derive(Clone, Default)]
pub struct Content {
    /// As acknowledged.
    pub bytes: Vec<u8>,
    /// What it held at earlier moments since the last one at which all of it was durable.
    pub earlier: Vec<Vec<u8>>,
    /// The clients that have changed it since then.
    pub writers: BTreeSet<usize>,
    /// One of these has died since, and will not send again what it wrote.
    pub abandoned: bool,
    /// The disks' losses until its first change since then.
    losses_before: u64,
    /// Each byte may be that of any earlier moment, or none.
    pub loose: bool,
    /// Nothing is known of it any more.
    pub unknown: bool,
}

impl Content {
    /// Takes note of a change to come, by the client `writer`, after `losses` losses of disks.
    pub fn begin_change(&mut self, writer: usize, losses: u64) {
        if self.earlier.is_empty() {
            self.losses_before = losses;
            self.abandoned = false;
            self.writers.clear();
        }
        self.earlier.push(self.bytes.clone());
        self.writers.insert(writer);
    }

    /// Whether a disk may have lost some of it.
    fn was_lost(&self, losses: u64) -> bool {
        !self.earlier.is_empty() && losses > self.losses_before
    }

    /// Whether the client `seat` may find less than what was written: what a disk has lost its writer sends again, but
    /// for that it must live, and others may be quicker than it.
    pub fn may_lack(&self, seat: usize, losses: u64) -> bool {
        self.was_lost(losses) && (self.abandoned || self.writers.iter().any(|&writer| writer != seat))
    }

    pub fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(data);
    }

    /// All of it is durable.
    pub fn synced(&mut self) {
        if !self.loose {
            self.earlier.clear();
            self.writers.clear();
        }
    }

    /// The shortest and the longest that it may be.
    pub fn lengths(&self) -> (usize, usize) {
        if self.unknown {
            return (0, usize::MAX);
        }
        let len = self.bytes.len();
        if !self.loose {
            return (len, len);
        }
        let all = self.earlier.iter().map(Vec::len).chain([len]);
        all.fold((len, len), |(least, most), len| (least.min(len), most.max(len)))
    }

    /// What is wrong with `found` at `offset`, if something is.
    pub fn check(&self, offset: usize, found: &[u8]) -> Result<(), String> {
        let wrong = found.iter().enumerate().position(|(i, &byte)| !self.allows(offset + i, byte));
        let Some(at) = wrong.map(|i| offset + i) else { return Ok(()) };
        let run = found[at - offset..]
            .iter()
            .enumerate()
            .take_while(|&(i, &byte)| !self.allows(at + i, byte))
            .count();
        let (got, wanted) = (found[at - offset], self.bytes.get(at));
        Err(format!("{run} wrong bytes from {at}: {got:#04x} where {wanted:02x?} was written"))
    }

    fn allows(&self, at: usize, byte: u8) -> bool {
        if self.unknown {
            return true;
        }
        let at_moment = |bytes: &Vec<u8>| bytes.get(at).copied().unwrap_or(0) == byte;
        at_moment(&self.bytes) || (self.loose && (byte == 0 || self.earlier.iter().any(at_moment)))
    }

    /// What was loose has turned out to be `found`.
    pub fn settle(&mut self, found: Vec<u8>) {
        *self = Content { bytes: found, ..Content::default() };
    }
}

/// A name in a directory.
pub type Place<'a> = (NodeId, &'a str);

impl Model {
    pub const ROOT: NodeId = 0;

    pub fn new(root: Ino) -> Model {
        let node = Node { ino: root, names: 1, opens: 0, body: Body::Dir(BTreeMap::new()) };
        Model { nodes: BTreeMap::from([(Model::ROOT, node)]), next: 1 }
    }

    /// A copy with all names, and no bytes: to try on it how an operation on names must end.
    pub fn names(&self) -> Model {
        let without_bytes = |node: &Node| Node {
            body: match &node.body {
                Body::Dir(entries) => Body::Dir(entries.clone()),
                Body::File(_) => Body::File(Content::default()),
            },
            ..*node
        };
        let nodes = self.nodes.iter().map(|(id, node)| (*id, without_bytes(node))).collect();
        Model { nodes, ..*self }
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    pub fn has(&self, id: NodeId) -> bool {
        self.nodes.contains_key(&id)
    }

    pub fn ino(&self, id: NodeId) -> Ino {
        self.node(id).ino
    }

    pub fn file(&mut self, id: NodeId) -> &mut Content {
        match &mut self.nodes.get_mut(&id).expect("a node of this model").body {
            Body::File(content) => content,
            Body::Dir(_) => unreachable!("only files are opened"),
        }
    }

    pub fn content(&self, id: NodeId) -> Option<&Content> {
        match &self.node(id).body {
            Body::File(content) => Some(content),
            Body::Dir(_) => None,
        }
    }

    pub fn entries(&self, dir: NodeId) -> &BTreeMap<String, NodeId> {
        match &self.node(dir).body {
            Body::Dir(entries) => entries,
            Body::File(_) => unreachable!("only directories are listed"),
        }
    }

    fn entries_mut(&mut self, dir: NodeId) -> &mut BTreeMap<String, NodeId> {
        match &mut self.nodes.get_mut(&dir).expect("a node of this model").body {
            Body::Dir(entries) => entries,
            Body::File(_) => unreachable!("only directories hold names"),
        }
    }

    /// All directories that have a name, in order.
    pub fn dirs(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, node)| matches!(node.body, Body::Dir(_))).map(|(id, _)| *id).collect()
    }

    /// All files, those without a name too.
    pub fn files(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, node)| matches!(node.body, Body::File(_))).map(|(id, _)| *id).collect()
    }

    pub fn find(&self, (dir, name): Place<'_>) -> Option<NodeId> {
        self.entries(dir).get(name).copied()
    }

    fn is_dir(&self, id: NodeId) -> bool {
        matches!(self.node(id).body, Body::Dir(_))
    }

    pub fn opened(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).expect("a node of this model").opens += 1;
    }

    pub fn closed(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).expect("a node of this model").opens -= 1;
        self.drop_if_gone(id);
    }

    fn drop_if_gone(&mut self, id: NodeId) {
        if self.nodes.get(&id).is_some_and(|node| node.names == 0 && node.opens == 0) {
            self.nodes.remove(&id);
        }
    }

    fn add(&mut self, (dir, name): Place<'_>, ino: Ino, body: Body) -> NodeId {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, Node { ino, names: 1, opens: 0, body });
        self.entries_mut(dir).insert(name.to_owned(), id);
        id
    }

    /// Whether a file or a directory can be made at `place`.
    pub fn may_make(&self, place: Place<'_>) -> Result<(), Errno> {
        if self.find(place).is_some() { Err(Errno::EEXIST) } else { Ok(()) }
    }

    pub fn make_dir(&mut self, place: Place<'_>, ino: Ino) {
        self.add(place, ino, Body::Dir(BTreeMap::new()));
    }

    pub fn make_file(&mut self, place: Place<'_>, ino: Ino) -> NodeId {
        self.add(place, ino, Body::File(Content::default()))
    }

    pub fn unlink(&mut self, place: Place<'_>) -> Result<(), Errno> {
        let id = self.find(place).ok_or(Errno::ENOENT)?;
        if self.is_dir(id) {
            return Err(Errno::EISDIR);
        }
        self.entries_mut(place.0).remove(place.1);
        self.lose_name(id);
        Ok(())
    }

    fn lose_name(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).expect("a node of this model").names -= 1;
        self.drop_if_gone(id);
    }

    pub fn remove_dir(&mut self, place: Place<'_>) -> Result<(), Errno> {
        let id = self.find(place).ok_or(Errno::ENOENT)?;
        if !self.is_dir(id) {
            return Err(Errno::ENOTDIR);
        }
        if !self.entries(id).is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.entries_mut(place.0).remove(place.1);
        self.lose_name(id);
        Ok(())
    }

    pub fn link(&mut self, id: NodeId, place: Place<'_>) -> Result<(), Errno> {
        self.may_make(place)?;
        self.entries_mut(place.0).insert(place.1.to_owned(), id);
        self.nodes.get_mut(&id).expect("a node of this model").names += 1;
        Ok(())
    }

    /// Whether `dir` is `top` or below it.
    fn is_within(&self, dir: NodeId, top: NodeId) -> bool {
        dir == top
            || self.is_dir(top)
                && self.entries(top).values().any(|&child| self.is_dir(child) && self.is_within(dir, child))
    }

    pub fn rename(&mut self, from: Place<'_>, to: Place<'_>, mode: RenameMode) -> Result<(), Errno> {
        let moved = self.find(from).ok_or(Errno::ENOENT)?;
        let there = self.find(to);
        match (mode, there) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (RenameMode::Exchange, None) => return Err(Errno::ENOENT),
            _ => {}
        }
        let into_itself = |id, dir| self.is_dir(id) && self.is_within(dir, id);
        if into_itself(moved, to.0) {
            return Err(Errno::EINVAL);
        }
        if there.is_some_and(|there| into_itself(there, from.0)) {
            return Err(if mode == RenameMode::Exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        if mode == RenameMode::Exchange {
            let there = there.ok_or(Errno::ENOENT)?;
            self.entries_mut(from.0).insert(from.1.to_owned(), there);
            self.entries_mut(to.0).insert(to.1.to_owned(), moved);
            return Ok(());
        }
        if let Some(there) = there {
            match (self.is_dir(moved), self.is_dir(there)) {
                _ if there == moved => return Ok(()),
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (true, true) if !self.entries(there).is_empty() => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
            self.entries_mut(to.0).remove(to.1);
            self.lose_name(there);
        }
        self.entries_mut(from.0).remove(from.1);
        self.entries_mut(to.0).insert(to.1.to_owned(), moved);
        Ok(())
    }

    /// The client `seat` has died.
    pub fn abandoned(&mut self, seat: usize) {
        for content in self.contents() {
            content.abandoned |= !content.earlier.is_empty() && content.writers.contains(&seat);
        }
    }

    /// Disks have had `losses` losses by now, and the clients `declared` have said that bytes could not be sent again;
    /// `clients` use it in all.
    pub fn lost(&mut self, losses: u64, declared: &BTreeSet<usize>, clients: usize) {
        for content in self.contents() {
            let was_lost = content.was_lost(losses);
            let is_declared = !content.earlier.is_empty() && !content.writers.is_disjoint(declared);
            content.loose |= was_lost && content.abandoned;
            // Several clients send again each what it wrote, in an order that nobody knows; some are not done yet.
            let unclear = content.writers.len() > 1 || (content.loose && clients > 1);
            // What is lost for good may be in a page cache for now, where a sync takes it for clean, and go with the power.
            content.unknown |= is_declared || (was_lost && unclear);
            content.loose &= !content.unknown;
        }
    }

    fn contents(&mut self) -> impl Iterator<Item = &mut Content> {
        self.nodes.values_mut().filter_map(|node| match &mut node.body {
            Body::File(content) => Some(content),
            Body::Dir(_) => None,
        })
    }
}
