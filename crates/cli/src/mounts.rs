//! The mounts of this machine, for people and as JSON: their daemons are asked, no privilege is needed.

use crate::{row, show, unit};
use pvfs_fuse::report::{MountReport, mount_reports};
use serde_json::{Value, json};

/// The mounts that can be seen from here.
pub fn all() -> Vec<MountReport> {
    mount_reports().unwrap_or_default()
}

pub fn to_json(mounts: &[MountReport]) -> Value {
    mounts
        .iter()
        .map(|mount| {
            let mut value = mount.told.clone().unwrap_or_else(|error| json!({ "error": error }));
            value["dir"] = json!(mount.dir.display().to_string());
            value["source"] = json!(mount.source);
            value
        })
        .collect()
}

/// Empty where there are none.
pub fn to_text(mounts: &[MountReport]) -> String {
    if mounts.is_empty() {
        return String::new();
    }
    let mut rows = vec![row!["MOUNT", "OF", "DAEMON", "UP FOR", "OPEN FILES", "WAITING", ""]];
    for mount in mounts {
        let (dir, source) = (mount.dir.display(), &mount.source);
        rows.push(match &mount.told {
            Ok(told) => row![
                dir,
                source,
                format!("pid {}", told["pid"]),
                unit::show_millis(told["up_ms"].as_u64().unwrap_or(0)),
                told["open_files"],
                told["waiting_total"],
                "",
            ],
            Err(why) => row![dir, source, "SILENT", "", "", "", why],
        });
    }
    let mut text = show::table(&rows, &[]);
    let mut calls = vec![row!["PROCESS", "CALL", "INODE", "WAITS FOR", "SINCE", "TRIES", "WHY"]];
    for told in mounts.iter().filter_map(|mount| mount.told.as_ref().ok()) {
        calls.extend(told["waiting"].as_array().into_iter().flatten().map(call_row));
    }
    if calls.len() > 1 {
        text.push('\n');
        text += &show::table(&calls, &[]);
    }
    text
}

fn call_row(call: &Value) -> Vec<String> {
    let process = match (call["pid"].as_u64(), call["comm"].as_str()) {
        (Some(pid), Some(comm)) => format!("{comm} ({pid})"),
        (Some(pid), None) => pid.to_string(),
        (None, _) => "?".to_owned(),
    };
    let text = |key: &str| call[key].as_str().unwrap_or_default().to_owned();
    let servers: Vec<&str> =
        call["waits_for"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    row![
        process,
        text("op"),
        call["ino"].as_u64().map_or_else(String::new, |ino| ino.to_string()),
        servers.join(", "),
        unit::show_millis(call["since_ms"].as_u64().unwrap_or(0)),
        call["tries"],
        text("error"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_call_is_one_line_that_says_who_waits_for_what() {
        let told = json!({
            "pid": 7, "up_ms": 61_000, "open_files": 2, "waiting_total": 1,
            "waiting": [{ "pid": 42, "comm": "cp", "op": "write", "ino": 9, "since_ms": 2_500, "tries": 12,
                          "waits_for": ["t1", "t2"], "error": "cannot reach 10.0.0.2:7335: refused" }],
        });
        let mount = |told| MountReport { dir: "/scratch".into(), source: "pvfs://m:1/".into(), told };
        let text = to_text(&[mount(Ok(told))]);
        for part in ["/scratch", "pid 7", "cp (42)", "write", "t1, t2", "12", "cannot reach 10.0.0.2:7335"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let text = to_text(&[mount(Err("its daemon does not answer".into()))]);
        assert!(text.contains("SILENT") && text.contains("does not answer"), "{text}");
        assert_eq!(to_text(&[]), "");
    }
}
