//! Recorded figures: a JSON file, and what a page shows of it between two marks.

use crate::run::{self, Outcome};
use serde_json::Value;
use std::path::Path;

/// One set of them.
pub struct Record {
    pub json: &'static str,
    pub page: &'static str,
    pub begins: &'static str,
    pub ends: &'static str,
    /// What writes them.
    pub command: &'static str,
}

impl Record {
    /// Keeps `report`, and has the page show `shown`.
    pub fn write(&self, report: &Value, shown: &str) -> Outcome {
        let text = serde_json::to_string_pretty(report).map_err(|e| e.to_string())?;
        write(self.json, &(text + "\n"))?;
        let page = read(&run::root(), self.page)?;
        let (before, rest) =
            page.split_once(self.begins).ok_or(format!("{} has no place for the table", self.page))?;
        let (_, after) =
            rest.split_once(self.ends).ok_or(format!("the table of {} does not end", self.page))?;
        write(self.page, &format!("{before}{}{shown}{}{after}", self.begins, self.ends))
    }

    /// For `tidy`: the page shows what `shown` makes of the figures kept below `root`.
    pub fn check(&self, root: &Path, shown: impl Fn(&Value) -> Result<String, String>) -> Outcome {
        let report: Value =
            serde_json::from_str(&read(root, self.json)?).map_err(|e| format!("{}: {e}", self.json))?;
        if read(root, self.page)?.contains(&format!("{}{}{}", self.begins, shown(&report)?, self.ends)) {
            return Ok(());
        }
        Err(format!(
            "the table of {} is not that of {}: `{}` writes both",
            self.page, self.json, self.command
        ))
    }
}

fn read(root: &Path, name: &str) -> Result<String, String> {
    std::fs::read_to_string(root.join(name)).map_err(|e| format!("{name}: {e}"))
}

/// Writes the file `name` of the repository.
pub fn write(name: &str, text: &str) -> Outcome {
    std::fs::write(run::root().join(name), text).map_err(|e| format!("{name}: {e}"))
}
