//! Source files say first what they own, stay short, and have a name that says something.

use std::path::Path;

/// Beyond this a file is split.
const LINES_MAX: usize = 800;
/// Names that say nothing: what is in such a file lives beside its one user, or has a name of its own.
/// What the simulator runs: it must see every task, so that it can kill a process and repeat a run.
const SIMULATED: [&str; 5] =
    ["crates/net/src", "crates/store/src", "crates/mgr/src", "crates/iod/src", "crates/client/src"];
const EMPTY_NAMES: [&str; 6] = ["common", "util", "utils", "helper", "helpers", "misc"];

pub fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut findings = Vec::new();
    for path in super::files(root, ".rs")? {
        let (text, shown) = (super::read(&path)?, super::shown(root, &path));
        findings.extend(faults(&text).into_iter().map(|fault| format!("{shown}: {fault}")));
        if SIMULATED.iter().any(|dir| shown.starts_with(dir)) && !shown.ends_with("tests.rs") {
            findings.extend(unseen_tasks(&text).into_iter().map(|fault| format!("{shown}: {fault}")));
        }
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

/// Tasks that are spawned past `pvfs_env::task`; tests may.
fn unseen_tasks(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines = code.lines().enumerate().filter(|(_, line)| line.contains("tokio::spawn("));
    lines
        .map(|(at, _)| format!("line {}: spawn by `pvfs_env::task::spawn`, for the simulator", at + 1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_the_simulator_would_not_see_is_found() {
        assert_eq!(unseen_tasks("//! X.\n tokio::spawn(x);\n").len(), 1);
        assert_eq!(unseen_tasks("//! X.\n task::spawn(x);\n#[cfg(test)]\n tokio::spawn(x);\n").len(), 0);
    }

    #[test]
    fn a_file_without_a_head_and_a_long_one_are_found() {
        assert_eq!(faults("//! Owns x.\nfn a() {}\n").len(), 0);
        assert_eq!(faults("fn a() {}\n").len(), 1);
        assert_eq!(faults(&format!("//! Owns x.\n{}", "\n".repeat(LINES_MAX))).len(), 1);
    }
}
