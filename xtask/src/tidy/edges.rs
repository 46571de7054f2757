//! The arrows between crates are those of ARCHITECTURE.md's table, and all point down.

use crate::run;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The line before the table.
const MARKER: &str = "<!-- the crates: checked by `cargo xtask tidy` -->";

/// One crate: its layer and the workspace's crates it uses, in order.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    layer: u32,
    uses: Vec<String>,
}

pub fn check(root: &Path) -> Result<Vec<String>, String> {
    let table = table(&super::read(&root.join("ARCHITECTURE.md"))?)?;
    let text =
        run::output(&mut run::command("cargo metadata --no-deps --offline --format-version 1 --quiet"))?;
    let metadata: Value = serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let mut findings = Vec::new();
    for package in packages {
        let name = short(package["name"].as_str().unwrap_or_default());
        let Some(row) = table.get(&name) else {
            findings.push(format!("ARCHITECTURE.md: its table has no row for the crate `{name}`"));
            continue;
        };
        let uses = used(package, &Value::Null);
        if uses != row.uses {
            findings.push(format!("crate `{name}` uses {uses:?}, ARCHITECTURE.md says {:?}", row.uses));
        }
        findings.extend(upward(&name, row, &uses, &table));
        // Tests may also use crates beside their own, and the kit made for tests.
        let tested_with = used(package, &Value::from("dev"));
        let others: Vec<String> = tested_with.into_iter().filter(|other| other != "testkit").collect();
        findings.extend(upward(&name, &Row { layer: row.layer + 1, uses: Vec::new() }, &others, &table));
    }
    for name in table.keys() {
        if !packages.iter().any(|package| short(package["name"].as_str().unwrap_or_default()) == *name) {
            findings.push(format!("ARCHITECTURE.md: its table has the crate `{name}`, which is not there"));
        }
    }
    Ok(findings)
}

fn upward(name: &str, row: &Row, uses: &[String], table: &BTreeMap<String, Row>) -> Vec<String> {
    let not_below =
        uses.iter().filter(|other| table.get(*other).is_none_or(|other| other.layer >= row.layer));
    not_below
        .map(|other| format!("crate `{name}` (layer {}) uses `{other}`, which is not below it", row.layer))
        .collect()
}

/// The workspace's own crates among a package's dependencies of one kind (null: the normal ones).
fn used(package: &Value, kind: &Value) -> Vec<String> {
    let dependencies = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut names: Vec<String> = dependencies
        .iter()
        .filter(|dependency| dependency["kind"] == *kind)
        .filter_map(|dependency| dependency["name"].as_str())
        .filter(|name| name.starts_with("pvfs-"))
        .map(short)
        .collect();
    names.sort();
    names
}

fn short(package: &str) -> String {
    package.strip_prefix("pvfs-").unwrap_or(package).to_string()
}

/// Reads the table: `| layer | crate | owns | uses |`, names in backticks.
fn table(architecture: &str) -> Result<BTreeMap<String, Row>, String> {
    let after =
        architecture.split_once(MARKER).ok_or(format!("ARCHITECTURE.md: the line `{MARKER}` is missing"))?.1;
    let rows = after.trim_start().lines().map_while(super::cells).skip(2);
    rows.map(|cells| match cells[..] {
        [layer, name, _owns, uses] => {
            let layer = layer.parse().map_err(|_| format!("ARCHITECTURE.md: `{layer}` is no layer"))?;
            let mut uses: Vec<String> = quoted(uses);
            uses.sort();
            Ok((quoted(name).concat(), Row { layer, uses }))
        }
        _ => Err(format!("ARCHITECTURE.md: a row of the crate table has not 4 cells: {cells:?}")),
    })
    .collect()
}

/// What stands in backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_up_to_its_end() {
        let text = format!(
            "# A\n{MARKER}\n| layer | crate | owns | uses |\n|---|---|---|---|\n\
             | 0 | [`types`](crates/types) | ids | – |\n| 2 | `net` | calls | `wire`, `env` |\n\n| 9 | `x` | y | z |\n"
        );
        let table = table(&text).expect("a table");
        assert_eq!(table.len(), 2);
        assert_eq!(table["net"], Row { layer: 2, uses: vec!["env".into(), "wire".into()] });
    }

    #[test]
    fn an_edge_that_points_up_is_found() {
        let row = |layer| Row { layer, uses: Vec::new() };
        let table = BTreeMap::from([("a".to_string(), row(1)), ("b".to_string(), row(1))]);
        assert_eq!(upward("a", &table["a"], &["b".into()], &table).len(), 1);
        assert_eq!(upward("a", &row(2), &["b".into()], &table).len(), 0);
    }
}
