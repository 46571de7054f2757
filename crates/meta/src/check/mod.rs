//! The keyspace checker: reads everything and tells what does not fit together. Every property test ends with it.

mod content;
mod lists;
mod names;

use crate::Result;
use content::Content;
use pvfs_kv::Read;
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
    let mut findings = Findings::default();
    let content = Content::load(txn, &mut findings)?;
    names::check(&content, &mut findings);
    lists::check(&content, &mut findings);
    Ok(findings.0)
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
