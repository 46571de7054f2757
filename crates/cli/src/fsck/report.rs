//! What was found, for people and as JSON.

use super::{Finding, Outcome, Severity};
use crate::{row, show, unit};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Findings of one kind that are shown one by one.
const SHOWN_MAX: usize = 20;

pub fn to_text(outcome: &Outcome, repair: bool) -> String {
    let mut rows = vec![row!["LOOKED AT", "", "OF THESE"]];
    rows.push(row!["inodes", outcome.inodes, format!("{} files", outcome.files)]);
    rows.push(row![
        "",
        "",
        format!("{} files in use, their sizes not held against their objects", outcome.busy)
    ]);
    rows.push(row!["", "", format!("{} unlinked and still open", outcome.orphans)]);
    rows.push(row!["objects", outcome.objects, format!("{} to be removed", outcome.garbage_seen)]);
    rows.push(row!["sessions", outcome.sessions, format!("{} writers' records", outcome.writers)]);
    rows.push(row!["truncations under way", outcome.intents, ""]);
    let mut text = show::table(&rows, &[1]);
    text.push('\n');
    for (target, why) in &outcome.silent {
        writeln!(text, "NOT LOOKED AT: {target}: {why}").ok();
    }
    let mut kinds: Vec<&str> = outcome.findings.iter().map(|finding| finding.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let of_kind: Vec<&Finding> = outcome.findings.iter().filter(|finding| finding.kind == kind).collect();
        for finding in of_kind.iter().take(SHOWN_MAX) {
            writeln!(text, "{}: {kind}: {}: {}", state(finding), finding.about, finding.text).ok();
        }
        if of_kind.len() > SHOWN_MAX {
            writeln!(text, "… and {} more of this kind (--json lists all)", of_kind.len() - SHOWN_MAX).ok();
        }
    }
    text += &verdict(outcome, repair);
    text
}

fn state(finding: &Finding) -> &'static str {
    match (finding.severity, finding.mended) {
        (_, true) => "mended",
        (Severity::Error, false) => "ERROR",
        (Severity::Doubt, false) => "doubt",
    }
}

fn verdict(outcome: &Outcome, repair: bool) -> String {
    let (left, mended) =
        (outcome.errors_left(), outcome.findings.iter().filter(|finding| finding.mended).count());
    let doubts = outcome.findings.iter().filter(|finding| finding.severity == Severity::Doubt).count();
    let mut text = if left == 0 && outcome.silent.is_empty() {
        "Clean: all that was looked at fits together.".to_owned()
    } else if left == 0 {
        "No errors where it could look; some targets did not answer.".to_owned()
    } else {
        format!("{left} {} left.", unit::plural(left, "error"))
    };
    if mended > 0 {
        write!(text, " {mended} mended.").ok();
    }
    if doubts > 0 {
        write!(
            text,
            " {doubts} {}: look at them, they may be as you made them.",
            unit::plural(doubts, "doubt")
        )
        .ok();
    }
    let mendable = outcome.findings.iter().any(|finding| finding.is_error_left() && finding.fix.is_some());
    if mendable && !repair {
        text += " `pvfs fsck --repair` mends what can be mended safely.";
    } else if mendable {
        text += " Run `pvfs fsck --repair` once more for what this run left.";
    }
    text + "\n"
}

pub fn to_json(outcome: &Outcome) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "severity": match finding.severity { Severity::Error => "error", Severity::Doubt => "doubt" },
            "kind": finding.kind,
            "about": finding.about,
            "text": finding.text,
            "can_be_mended": finding.fix.is_some(),
            "mended": finding.mended,
        })
    };
    json!({
        "clean": outcome.errors_left() == 0 && outcome.silent.is_empty(),
        "errors_left": outcome.errors_left(),
        "inodes": outcome.inodes,
        "files": outcome.files,
        "files_in_use": outcome.busy,
        "orphans": outcome.orphans,
        "objects": outcome.objects,
        "garbage": outcome.garbage,
        "garbage_seen": outcome.garbage_seen,
        "sessions": outcome.sessions,
        "writers": outcome.writers,
        "truncations": outcome.intents,
        "old_store": outcome.rolled_back.is_some(),
        "silent_targets": outcome.silent.iter()
            .map(|(target, why)| json!({ "id": target.0, "why": why })).collect::<Vec<_>>(),
        "findings": outcome.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}
