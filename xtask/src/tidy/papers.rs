//! Links in the papers lead somewhere, and tests that they name exist.
//!
//! A table whose last column is headed `test` promises: each row's last cell names, in backticks, one test or more,
//! or says `no test yet`, or begins with `does not apply` and says why.

use std::collections::HashSet;
use std::path::Path;

const NO_TEST: &str = "no test yet";
const NO_PART: &str = "does not apply";

pub fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut functions = HashSet::new();
    for path in super::files(root, ".rs")? {
        functions.extend(function_names(&super::read(&path)?));
    }
    let mut findings = Vec::new();
    for path in super::files(root, ".md")? {
        let (text, shown) = (super::read(&path)?, super::shown(root, &path));
        let dir = path.parent().unwrap_or(root);
        for link in links(&text).into_iter().filter(|link| !dir.join(link).exists()) {
            findings.push(format!("{shown}: the link to {link} leads nowhere"));
        }
        findings.extend(missing_tests(&text, &functions).into_iter().map(|text| format!("{shown}: {text}")));
    }
    Ok(findings)
}

/// Where relative links lead, without their anchors. Code blocks are no text.
fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        in_code ^= line.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                found.push(target);
            }
        }
    }
    found
}

/// What is wrong with the last cells of `text`'s test tables.
fn missing_tests(text: &str, functions: &HashSet<String>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut in_table = false;
    for line in text.lines() {
        let Some(cells) = super::cells(line) else {
            in_table = false;
            continue;
        };
        let last = cells.last().copied().unwrap_or_default();
        if last == "test" {
            in_table = true;
        } else if in_table && !last.starts_with("---") && last != NO_TEST && !last.starts_with(NO_PART) {
            let named: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
            if named.is_empty() {
                findings.push(format!(
                    "this row names no test, nor says `{NO_TEST}` or why it `{NO_PART}`: {line}"
                ));
            }
            for test in named.into_iter().filter(|test| !functions.contains(*test)) {
                findings.push(format!("there is no test `{test}`"));
            }
        }
    }
    findings
}

/// The names after `fn ` in a source.
fn function_names(source: &str) -> Vec<String> {
    let name = |rest: &str| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_string);
    source.split("fn ").skip(1).filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_links_are_found_and_others_not() {
        let text = "[a](docs/a.md) [b](https://x.y/z) [c](b.md#part)\n```\n[d](no.md)\n```\n[e](#here)";
        assert_eq!(links(text), ["docs/a.md", "b.md"]);
    }

    #[test]
    fn a_row_that_names_a_missing_test_or_none_is_found() {
        let functions = HashSet::from(["it_works".to_string()]);
        let text = "| promise | test |\n|---|---|\n| a | `it_works` |\n| b | `gone` |\n| c | none |\n| d | no test yet |\n\
                    | e | does not apply: no locks |\n";
        let findings = missing_tests(text, &functions);
        assert_eq!(findings.len(), 2, "{findings:?}");
    }

    #[test]
    fn functions_are_found_by_name() {
        assert_eq!(function_names("fn a() {}\n    async fn b_c<T>() {}"), ["a", "b_c"]);
    }
}
