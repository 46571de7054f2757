//! The keyspace checker: reads everything and tells what does not fit together. Every property test ends with it.

mod content;
mod inline;
mod lists;
mod names;
mod quotas;
mod xattrs;

use crate::record::{self, InodeNumbers};
use crate::{Result, inode, keys};
use content::Content;
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::Timestamp;
use std::fmt;

/// Something that does not fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: a key, escaped, or an inode, session or target.
    pub about: String,
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.text)
    }
}

/// What does not fit together in the whole key space; empty: all does. Holds every key in memory.
///
/// # Errors
/// Only the store's own; records that cannot be read are findings.
pub fn check(txn: &(impl Read + ?Sized)) -> Result<Vec<Finding>> {
    Ok(check_and_count(txn)?.0)
}

/// How many records of some kinds there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub inodes: u64,
    pub sessions: u64,
    pub writers: u64,
    pub orphans: u64,
    pub garbage: u64,
    pub intents: u64,
}

/// As [`check`], and tells how many records it saw.
pub fn check_and_count(txn: &(impl Read + ?Sized)) -> Result<(Vec<Finding>, Counts)> {
    let mut findings = Findings::default();
    let content = Content::load(txn, &mut findings)?;
    names::check(&content, &mut findings);
    lists::check(&content, &mut findings);
    xattrs::check(&content, &mut findings);
    inline::check(&content, &mut findings);
    quotas::check(&content, &mut findings);
    let counts = Counts {
        inodes: content.inodes.len() as u64,
        sessions: content.sessions.len() as u64,
        writers: content.writers.len() as u64,
        orphans: content.orphans.len() as u64,
        garbage: content.garbage.len() as u64,
        intents: content.intents.len() as u64,
    };
    Ok((findings.0, counts))
}

/// Makes link counts, and the count of inodes, what the names say; and what is counted of attributes what there are, those of
/// no inode taken away, and bytes that are kept of none; and what owners use. An inode that no name leads to is left alone: which
/// one it had nobody knows. Gives how many records changed. Holds every key in memory.
pub fn mend_counts(txn: &mut impl WriteTxn, now: Timestamp) -> Result<u64> {
    let mut changed = 0;
    let content = Content::load(txn, &mut Findings::default())?;
    for (ino, links) in names::right_links(&content) {
        let Some(inode) = content.inodes.get(&ino).filter(|inode| inode.orphan_seq.is_none()) else {
            continue;
        };
        if inode.nlink != links && links > 0 {
            let mut mended = inode.clone();
            mended.nlink = links;
            mended.touch(now);
            inode::put(txn, &mended)?;
            changed += 1;
        }
    }
    changed += xattrs::mend(txn, &content, now)?;
    changed += inline::mend(txn, &content);
    changed += quotas::mend(txn, &content)?;
    let in_use = content.inodes.len() as u64;
    if let Some(numbers) = content.inode_numbers.filter(|numbers| numbers.in_use != in_use) {
        record::put(txn, &keys::inode_numbers(), &InodeNumbers { in_use, ..numbers });
        changed += 1;
    }
    Ok(changed)
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, about: impl fmt::Display, text: impl Into<String>) {
        self.0.push(Finding { about: about.to_string(), text: text.into() });
    }

    fn expect(&mut self, fits: bool, about: impl fmt::Display, text: impl Into<String>) {
        if !fits {
            self.add(about, text);
        }
    }
}
