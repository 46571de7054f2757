//! The house rules that a program can check. Each rule gives findings: where, and what to do.

mod edges;
mod metrics;
mod papers;
mod sources;

use crate::run::{self, Outcome};
use std::path::{Path, PathBuf};

/// Checks all rules; fails with every finding.
pub fn run() -> Outcome {
    let root = run::root();
    let mut findings = edges::check(&root)?;
    findings.extend(sources::check(&root)?);
    findings.extend(papers::check(&root)?);
    findings.extend(metrics::check(&root)?);
    findings.extend(crate::bench::check_page(&root).err());
    findings.extend(crate::links::check_page(&root).err());
    findings.extend(crate::peers::check_page(&root).err());
    if findings.is_empty() {
        return Ok(());
    }
    Err(format!("{} findings:\n  {}", findings.len(), findings.join("\n  ")))
}

/// All files below `root` whose name ends with `ending`, in order; nothing below `target` or a dot directory.
fn files(root: &Path, ending: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))? {
            let entry = entry.map_err(|e| e.to_string())?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if name != "target" && !name.starts_with('.') {
                    dirs.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// `path` as seen from `root`.
fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

/// The cells of a Markdown table's row; `None` where the line is none.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_repository_is_tidy() {
        super::run().expect("see the findings");
    }
}
