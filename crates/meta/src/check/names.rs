//! Inodes and their names: link counts, parents, one tree.

use super::{Findings, content::Content};
use crate::record::Inode;
use pvfs_types::{FileKind, Ino, mode};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(content: &Content, findings: &mut Findings) {
    numbers(content, findings);
    for inode in content.inodes.values() {
        kind(content, inode, findings);
    }
    entries(content, findings);
    links(content, findings);
    tree(content, findings);
}

fn numbers(content: &Content, findings: &mut Findings) {
    findings.expect(content.superblock.is_some(), "superblock", "is missing");
    findings.expect(content.inodes.contains_key(&Ino::ROOT), "inode 1", "the root directory is missing");
    let Some(numbers) = content.inode_numbers else {
        return findings.add("inode numbers", "are missing");
    };
    let in_use = content.inodes.len() as u64;
    let text = format!("say {} inodes, there are {in_use}", numbers.in_use);
    findings.expect(numbers.in_use == in_use, "inode numbers", text);
    if let Some((last, _)) = content.inodes.last_key_value() {
        findings.expect(last.0 < numbers.next, format!("inode {last}"), "has a number not dealt out yet");
    }
}

/// What each kind has, and no other.
fn kind(content: &Content, inode: &Inode, findings: &mut Findings) {
    let about = format!("inode {}", inode.ino);
    let is = |kind| inode.kind == kind;
    findings.expect(inode.dist.is_some() == is(FileKind::File), &about, "distribution and kind differ");
    findings.expect(inode.parent.is_some() == is(FileKind::Dir), &about, "parent and kind differ");
    findings.expect(inode.target.is_some() == is(FileKind::Symlink), &about, "link target and kind differ");
    findings.expect(inode.mode & !mode::ALL == 0, &about, "the mode has bits that are none");
    findings.expect(inode.layout.is_none() || is(FileKind::Dir), &about, "layout and kind differ");
    let is_orphan = inode.orphan_seq.is_some();
    findings.expect(is_orphan == (inode.nlink == 0), &about, "a name and a place among the orphans");
    findings.expect(!is_orphan || is(FileKind::File), &about, "an orphan that is no file");
    match inode.kind {
        FileKind::File => {}
        FileKind::Symlink => {
            let len = inode.target.as_ref().map(|target| target.len() as u64);
            findings.expect(len == Some(inode.size), &about, "the size is not the link target's length");
        }
        FileKind::Dir | FileKind::Fifo | FileKind::Socket | FileKind::CharDev | FileKind::BlockDev => {
            findings.expect(inode.size == 0, &about, "has a size");
        }
    }
    if let Some(dist) = inode.dist {
        let targets = content.iodtabs.get(&dist.iodtab.0).map_or(0, Vec::len);
        let fits = (1..=targets).contains(&usize::from(dist.pcount)) && usize::from(dist.base) < targets;
        findings.expect(fits, &about, format!("its distribution does not fit {}", dist.iodtab));
    }
}

fn entries(content: &Content, findings: &mut Findings) {
    for (dir, name, entry) in &content.dentries {
        let about = format!("{name} in directory {dir}");
        let in_dir = content.inodes.get(dir).is_some_and(Inode::is_dir);
        findings.expect(in_dir, &about, "there is no such directory");
        match content.inodes.get(&entry.ino) {
            None => findings.add(&about, format!("there is no inode {}", entry.ino)),
            Some(inode) => {
                findings.expect(inode.kind == entry.kind, &about, "is of another kind than its inode");
                let fits = inode.parent.is_none_or(|parent| parent == *dir);
                findings.expect(fits, &about, "the directory names another parent");
                findings.expect(inode.ino != Ino::ROOT, &about, "is the root directory");
            }
        }
    }
}

fn links(content: &Content, findings: &mut Findings) {
    let (names, right) = (count_names(content), right_links(content));
    for (ino, inode) in &content.inodes {
        let about = format!("inode {ino}");
        let links = right.get(ino).copied().unwrap_or_default();
        findings.expect(inode.nlink == links, &about, format!("counts {} links, has {links}", inode.nlink));
        if inode.is_dir() {
            let named = names.get(ino).copied().unwrap_or_default();
            let right = u32::from(*ino != Ino::ROOT);
            findings.expect(named == right, &about, format!("a directory with {named} names"));
        }
    }
}

fn count_names(content: &Content) -> BTreeMap<Ino, u32> {
    let mut names = BTreeMap::new();
    for (_, _, entry) in &content.dentries {
        *names.entry(entry.ino).or_default() += 1;
    }
    names
}

/// What each inode's link count is to be: its names; of a directory 2 + its subdirectories.
pub(super) fn right_links(content: &Content) -> BTreeMap<Ino, u32> {
    let names = count_names(content);
    let mut subdirs: BTreeMap<Ino, u32> = BTreeMap::new();
    for (dir, _, entry) in &content.dentries {
        if entry.kind == FileKind::Dir {
            *subdirs.entry(*dir).or_default() += 1;
        }
    }
    let links = content.inodes.values().map(|inode| {
        let of = |counts: &BTreeMap<Ino, u32>| counts.get(&inode.ino).copied().unwrap_or_default();
        (inode.ino, if inode.is_dir() { 2 + of(&subdirs) } else { of(&names) })
    });
    links.collect()
}

/// Every directory leads to the root.
fn tree(content: &Content, findings: &mut Findings) {
    let mut rooted: BTreeSet<Ino> = BTreeSet::from([Ino::ROOT]);
    for start in content.inodes.values().filter(|inode| inode.is_dir()) {
        let mut path = BTreeSet::new();
        let mut at = start.ino;
        while !rooted.contains(&at) && path.insert(at) {
            match content.inodes.get(&at).and_then(|inode| inode.parent) {
                Some(parent) => at = parent,
                None => break,
            }
        }
        if rooted.contains(&at) {
            rooted.append(&mut path);
        } else {
            findings.add(format!("inode {}", start.ino), "does not lead to the root");
        }
    }
    let root_parent = content.inodes.get(&Ino::ROOT).and_then(|root| root.parent);
    findings.expect(root_parent == Some(Ino::ROOT), "inode 1", "the root's parent is another directory");
}
