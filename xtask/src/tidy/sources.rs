//! Source files say first what they own, stay short, and have a name that says something.

use std::path::Path;

/// Beyond this a file is split.
const LINES_MAX: usize = 800;
/// Names that say nothing: what is in such a file lives beside its one user, or has a name of its own.
const EMPTY_NAMES: [&str; 6] = ["common", "util", "utils", "helper", "helpers", "misc"];

pub fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut findings = Vec::new();
    for path in super::files(root, ".rs")? {
        let (text, shown) = (super::read(&path)?, super::shown(root, &path));
        findings.extend(faults(&text).into_iter().map(|fault| format!("{shown}: {fault}")));
        if Path::new(&shown).with_extension("").iter().any(|part| EMPTY_NAMES.iter().any(|n| part == *n)) {
            findings.push(format!("{shown}: its name says nothing about what it owns"));
        }
    }
    Ok(findings)
}

fn faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//! ") {
        faults.push("its first line is not `//! ` and what the file owns".to_string());
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        faults.push(format!("{lines} lines, more than {LINES_MAX}: split it"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_head_and_a_long_one_are_found() {
        assert_eq!(faults("//! Owns x.\nfn a() {}\n").len(), 0);
        assert_eq!(faults("fn a() {}\n").len(), 1);
        assert_eq!(faults(&format!("//! Owns x.\n{}", "\n".repeat(LINES_MAX))).len(), 1);
    }
}
