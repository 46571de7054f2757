//! docs/metrics.md names the counters that are in the sources, and no others.

use std::collections::BTreeSet;
use std::path::Path;

const PAPER: &str = "docs/metrics.md";

pub fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut counted = BTreeSet::new();
    for path in super::files(&root.join("crates"), ".rs")? {
        if path.iter().any(|part| part == "src") {
            counted.extend(names_between(&super::read(&path)?, '"'));
        }
    }
    let paper: BTreeSet<String> = names_between(&super::read(&root.join(PAPER))?, '`').into_iter().collect();
    let missing = counted.difference(&paper).map(|name| format!("{PAPER}: the counter {name} is missing"));
    let gone = paper.difference(&counted).map(|name| format!("{PAPER}: there is no counter {name}"));
    Ok(missing.chain(gone).collect())
}

/// Names of counters that stand between two of `mark`.
fn names_between(text: &str, mark: char) -> Vec<String> {
    let start = format!("{mark}pvfs_");
    let names =
        text.split(start.as_str()).skip(1).filter_map(|rest| rest.split_once(mark).map(|(name, _)| name));
    let is_name = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    names.filter(is_name).map(|name| format!("pvfs_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_stand_alone_between_marks() {
        let source = r#"counter("pvfs_a_total", &[]); "pvfs_b c"; pvfs_net::x("pvfs_d")"#;
        assert_eq!(names_between(source, '"'), ["pvfs_a_total", "pvfs_d"]);
    }
}
