//! Every dependency's licence is one that deny.toml allows. Works offline and without cargo-deny.

use crate::run::{self, Outcome};
use serde_json::Value;

pub fn run() -> Outcome {
    let deny =
        std::fs::read_to_string(run::root().join("deny.toml")).map_err(|e| format!("deny.toml: {e}"))?;
    let allowed = allowed(&deny);
    let text = run::output(&mut run::command(
        "cargo metadata --format-version 1 --locked --filter-platform x86_64-unknown-linux-gnu",
    ))?;
    let metadata: Value = serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let mut refused = Vec::new();
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none named");
        if !is_allowed(licence, &allowed) {
            refused.push(format!("{} {}: {licence}", package["name"], package["version"]));
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    Err(format!("licences that deny.toml does not allow:\n  {}", refused.join("\n  ")))
}

/// The quoted words of deny.toml's list `allow`.
fn allowed(deny: &str) -> Vec<String> {
    let list = deny.split("allow = [").nth(1).and_then(|rest| rest.split(']').next()).unwrap_or_default();
    list.split('"').skip(1).step_by(2).map(str::to_string).collect()
}

/// Whether one of the alternatives of an SPDX expression is allowed. `/` is the old way to write `OR`.
///
/// Of parentheses only the form `(A OR B) AND C` is understood.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    if let Some((head, tail)) = expression.split_once(") AND ") {
        return is_allowed(head.trim_start_matches('('), allowed) && is_allowed(tail, allowed);
    }
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    plain.split(" OR ").any(|one| one.split(" AND ").all(|part| allowed.iter().any(|a| a == part.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_allowed_alternative_is_enough_and_every_part_of_it_is_needed() {
        let allowed = allowed("[licenses]\nallow = [\n \"MIT\",\n \"Unicode-3.0\",\n]\n");
        assert_eq!(allowed, ["MIT", "Unicode-3.0"]);
        for good in ["MIT", "MIT OR Apache-2.0", "GPL-3.0/MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND GPL-3.0", "none named"] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }
}
