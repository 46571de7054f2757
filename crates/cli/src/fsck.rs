//! The check of a whole file system while it is in use: what is found, and what of it can be mended. [`walk`] asks,
//! [`judge`] decides, [`report`] shows.

mod judge;
mod report;
mod walk;

pub use report::{to_json, to_text};
pub use walk::{Checker, Progress};

use pvfs_types::{ObjectId, TargetId};
use pvfs_wire::msg::fsck::{Fix, RolledBack};

/// How sure it is that something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    /// It may be as the user made it.
    Doubt,
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub kind: &'static str,
    /// An inode, an object, a target.
    pub about: String,
    pub text: String,
    /// What mends it, where that is safe.
    pub fix: Option<Fix>,
    pub mended: bool,
}

impl Finding {
    fn error(
        kind: &'static str,
        about: impl Into<String>,
        text: impl Into<String>,
        fix: Option<Fix>,
    ) -> Finding {
        let severity = Severity::Error;
        Finding { severity, kind, about: about.into(), text: text.into(), fix, mended: false }
    }

    fn doubt(kind: &'static str, about: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding { severity: Severity::Doubt, ..Finding::error(kind, about, text, None) }
    }

    pub fn is_error_left(&self) -> bool {
        self.severity == Severity::Error && !self.mended
    }
}

/// What was looked at, and what came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub inodes: u64,
    pub files: u64,
    /// Files with writers or a truncation under way: their sizes are not held against their objects.
    pub busy: u64,
    pub objects: u64,
    pub garbage_seen: u64,
    pub sessions: u64,
    pub writers: u64,
    pub orphans: u64,
    pub garbage: u64,
    pub intents: u64,
    pub rolled_back: Option<RolledBack>,
    /// Targets that did not answer, and why: what they hold was not looked at.
    pub silent: Vec<(TargetId, String)>,
    pub findings: Vec<Finding>,
}

impl Outcome {
    pub fn errors_left(&self) -> usize {
        self.findings.iter().filter(|finding| finding.is_error_left()).count()
    }
}

fn on(object: ObjectId, target: TargetId) -> String {
    format!("object {object} on {target}")
}
