//! `pvfs status`: every daemon and target, and whether it answers; every mount here, and who waits in it for what.

use crate::{
    args::Global,
    ask::{Answer, Asker, first_mgr},
    config::Cluster,
    error::CliError,
    mounts, out, row, runtime, show, unit,
};
use pvfs_wire::msg::{
    admin::DaemonStatus,
    hello::Role,
    session::{TargetInfo, Targets},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Show every daemon, target and session, whether it is up, and who waits for it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks every daemon itself, all at once; one that does not answer within a second is shown as down. Exit status 1 if one is.
Also shows the mounts of this machine and every call that waits in them: which process, for which daemon, since when, with \
how many tries. That needs no privilege; daemons are asked only by who may read cluster.key.

Examples:
  pvfs status
  pvfs status --json | jq '.mounts[].waiting'
  pvfs status --json | jq '.daemons[] | {addr, up, counters}'
  watch pvfs status")]
pub struct Args {
    /// As JSON, with all counters
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let mounts = mounts::all();
    let found = Cluster::locate(global.cluster.as_deref()).map_err(CliError::from);
    let (cluster, asker) =
        match found.and_then(|cluster| Ok((Asker::new(&cluster, global.transport())?, cluster))) {
            Ok((asker, cluster)) => (cluster, Arc::new(asker)),
            // The daemons cannot be asked; what waits here can be shown all the same.
            Err(error) => {
                if args.json && !mounts.is_empty() {
                    out::line(format_args!("{:#}", json!({ "mounts": mounts::to_json(&mounts) })))?;
                } else {
                    out::write(mounts::to_text(&mounts))?;
                }
                return Err(error);
            }
        };
    runtime::run_tool(async {
        let (daemons, targets) = known_daemons(&asker, &cluster).await;
        let answers = asker.status_of_all(daemons).await;
        if args.json {
            let mut value = to_json(&cluster, &answers, targets.as_ref());
            value["mounts"] = mounts::to_json(&mounts);
            out::line(format_args!("{value:#}"))?;
        } else {
            out::write(to_text(&cluster, &answers, targets.as_ref()))?;
            if !mounts.is_empty() {
                out::write(format_args!("\n{}", mounts::to_text(&mounts)))?;
            }
        }
        let targets_up = targets.is_some_and(|known| known.targets.iter().all(|target| target.up));
        let all_up = targets_up && answers.iter().all(|answer| answer.status.is_ok());
        if all_up { Ok(()) } else { Err(CliError::Told) }
    })
}

/// The daemons that the configuration and the mgr know, mgrs first, and what the mgr says of targets.
pub async fn known_daemons(asker: &Asker, cluster: &Cluster) -> (Vec<(Role, String)>, Option<Targets>) {
    let known = first_mgr(cluster, async |mgr| asker.targets(mgr).await).await.ok().map(|(_, known)| known);
    let mut daemons: Vec<(Role, String)> = cluster.mgr.iter().map(|addr| (Role::Mgr, addr.clone())).collect();
    let mut add = |addr: &str| {
        if !addr.is_empty() && !daemons.iter().any(|(_, known)| known == addr) {
            daemons.push((Role::Iod, addr.to_owned()));
        }
    };
    // Those of this machine in their order; also when no mgr can tell.
    cluster.local.iter().flat_map(|local| &local.iod).for_each(|iod| add(&iod.listen));
    known.iter().flat_map(|known| &known.targets).for_each(|target| add(&target.addr));
    (daemons, known)
}

pub fn role_text(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Mgr => "mgr",
        Role::Iod => "iod",
    }
}

fn to_text(cluster: &Cluster, answers: &[Answer], targets: Option<&Targets>) -> String {
    let mut out = format!("File system {} ({})\n\n", cluster.fs, cluster.file.display());
    let mut rows =
        vec![row!["DAEMON", "ADDRESS", "STATE", "UP SINCE", "UP FOR", "ANSWER", "VERSION", "PID", ""]];
    for answer in answers {
        rows.push(match &answer.status {
            Ok(status) => row![
                role_text(answer.role),
                answer.addr,
                "up",
                show::date_utc(status.started),
                unit::show_millis(status.uptime_ms),
                format!("{:.1} ms", answer.took.as_secs_f64() * 1000.0),
                status.version,
                status.pid,
            ],
            Err(reason) => row![role_text(answer.role), answer.addr, "DOWN", "", "", "", "", "", reason],
        });
    }
    out += &show::table(&rows, &[]);
    out.push('\n');
    match targets {
        Some(known) => out += &targets_text(known, answers),
        None => out += "Targets: not known, as no mgr answers.\n",
    }
    for status in answers.iter().filter_map(|answer| answer.status.as_ref().ok()) {
        out += &sessions_text(status);
    }
    out
}

fn targets_text(known: &Targets, answers: &[Answer]) -> String {
    let mut rows = vec![row!["TARGET", "IOD", "STATE", "FREE", "OF", "DIRECTORY"]];
    for target in &known.targets {
        let state = match (target.up, target.heard_ms_ago) {
            (true, _) => "up".to_owned(),
            (false, Some(ms)) => format!("DOWN for {}", unit::show_millis(ms)),
            (false, None) => "DOWN since the mgr's start".to_owned(),
        };
        let all =
            answers.iter().filter_map(|answer| answer.status.as_ref().ok()).flat_map(|iod| &iod.targets);
        let dir = all.into_iter().find(|at| at.uuid == target.uuid).map_or("", |at| &at.dir);
        let (free, total) = (unit::show_bytes(target.bytes_free), unit::show_bytes(target.bytes_total));
        rows.push(row![target.id, target.addr, state, free, total, dir]);
    }
    show::table(&rows, &[3, 4])
}

fn sessions_text(status: &DaemonStatus) -> String {
    if status.role != Role::Mgr {
        return String::new();
    }
    if status.sessions.is_empty() {
        return "\nNo client has a session.\n".to_owned();
    }
    let mut rows = vec![row!["SESSION", "HEARD", "LEASE LEFT", "CLIENT"]];
    for session in &status.sessions {
        let lease = match session.lease_ms_left {
            0 => "run out".to_owned(),
            left => unit::show_millis(left),
        };
        rows.push(row![
            session.id.0,
            format!("{} ago", unit::show_millis(session.heard_ms_ago)),
            lease,
            session.label
        ]);
    }
    format!("\n{}", show::table(&rows, &[]))
}

fn to_json(cluster: &Cluster, answers: &[Answer], targets: Option<&Targets>) -> Value {
    let daemons: Vec<Value> = answers.iter().map(daemon_json).collect();
    let targets = targets.map(|known| known.targets.iter().map(target_json).collect::<Vec<_>>());
    json!({
        "fs": cluster.fs.to_string(),
        "cluster": cluster.file.display().to_string(),
        "daemons": daemons,
        "targets": targets,
    })
}

fn daemon_json(answer: &Answer) -> Value {
    let mut value =
        json!({ "role": role_text(answer.role), "addr": answer.addr, "up": answer.status.is_ok() });
    match &answer.status {
        Err(reason) => value["error"] = json!(reason),
        Ok(status) => {
            value["answer_us"] = json!(u64::try_from(answer.took.as_micros()).unwrap_or(u64::MAX));
            value["version"] = json!(status.version);
            value["pid"] = json!(status.pid);
            value["started"] = json!(show::date_utc(status.started));
            value["uptime_ms"] = json!(status.uptime_ms);
            value["process"] = json!(format!("{:016x}", status.process));
            let counters = status.counters.iter().map(|(name, count)| (name.clone(), json!(count)));
            value["counters"] = Value::Object(counters.collect());
            value["targets"] = status.targets.iter().map(own_target_json).collect();
            value["sessions"] = status.sessions.iter().map(session_json).collect();
        }
    }
    value
}

fn own_target_json(target: &pvfs_wire::msg::admin::TargetStatus) -> Value {
    json!({
        "id": target.id.map(|id| id.0),
        "uuid": target.uuid.to_string(),
        "dir": target.dir,
        "bytes_total": target.bytes_total,
        "bytes_free": target.bytes_free,
        "boot": format!("{:016x}", target.generations.boot),
        "store_generation": target.generations.store,
    })
}

fn session_json(session: &pvfs_wire::msg::admin::SessionStatus) -> Value {
    json!({
        "id": session.id.0,
        "label": session.label,
        "heard_ms_ago": session.heard_ms_ago,
        "lease_ms_left": session.lease_ms_left,
    })
}

/// A target as the mgr knows it.
pub fn target_json(target: &TargetInfo) -> Value {
    json!({
        "id": target.id.0,
        "uuid": target.uuid.to_string(),
        "addr": target.addr,
        "up": target.up,
        "bytes_total": target.bytes_total,
        "bytes_free": target.bytes_free,
        "heard_ms_ago": target.heard_ms_ago,
    })
}
