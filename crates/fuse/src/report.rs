//! What a mount tells whoever asks, without privileges: which daemons it waits for, and who waits for what.
//!
//! The mount's daemon answers each connection to an abstract Unix socket, named after the mount's device number, with
//! one JSON document, and closes it. It takes no request, so there is nothing that a stranger could say.

use crate::{
    mountinfo::{self, FSTYPE},
    socket::Socket,
};
use pvfs_client::{Client, ClientStatus, ServerStatus, WaitingCall, WaitsFor};
use serde_json::{Value, json};
use std::{
    io::{self, Read as _},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, task::JoinHandle, time::timeout};
use tracing::{debug, warn};

/// How long one who asks may take to read the answer.
const READ_GRACE: Duration = Duration::from_secs(1);
/// How long a mount's daemon may take to answer.
const ANSWER_GRACE: Duration = Duration::from_secs(1);
/// Waiting calls told of, the oldest first.
const CALLS_MAX: usize = 1_000;

/// Answers as long as it lives.
#[derive(Debug)]
pub struct Reports {
    answering: JoinHandle<()>,
}

impl Reports {
    /// Answers for the mount on `dir`. Needs a tokio runtime around.
    pub fn start(client: &Arc<Client>, dir: &Path) -> io::Result<Reports> {
        let mount = mountinfo::find_mount(dir)?.ok_or(io::ErrorKind::NotFound)?;
        let socket = Socket::bind(name(&mount.device)?)?;
        // Weak: who looks must not keep a client alive that is about to end.
        let client = Arc::downgrade(client);
        let answering = tokio::spawn(async move {
            let listener = match socket.bound().await {
                Ok(listener) => listener,
                Err(error) => return warn!(%error, "`pvfs status` will not show this mount's waiting calls"),
            };
            loop {
                let Ok((mut stream, _)) = listener.accept().await else {
                    // No descriptor free, say.
                    tokio::time::sleep(READ_GRACE).await;
                    continue;
                };
                let Some(client) = client.upgrade() else { return };
                let text = to_json(&client.status()).to_string();
                drop(client);
                // One at a time: it costs little, and nobody can make this daemon hold many.
                if timeout(READ_GRACE, stream.write_all(text.as_bytes())).await.is_err() {
                    debug!("who asked for the mount's status does not read it");
                }
            }
        });
        Ok(Reports { answering })
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// A PVFS mount of this machine, asked.
#[derive(Clone, Debug)]
pub struct MountReport {
    pub dir: PathBuf,
    /// What is mounted: the SPEC.
    pub source: String,
    /// What its daemon tells (as `docs/how-to/see-who-waits.md` has it), or why it tells nothing.
    pub told: Result<Value, String>,
}

/// All PVFS mounts that this process sees. Never touches the mounts themselves.
pub fn mount_reports() -> io::Result<Vec<MountReport>> {
    let mounts = mountinfo::mounts()?.into_iter().filter(|mount| mount.fstype == FSTYPE);
    Ok(mounts
        .map(|mount| MountReport { told: ask(&mount.device), dir: mount.dir, source: mount.source })
        .collect())
}

fn ask(device: &str) -> Result<Value, String> {
    let answer = || -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect_addr(&name(device)?)?;
        stream.set_read_timeout(Some(ANSWER_GRACE))?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = answer().map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => "its daemon is gone, or in another network name space".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "its daemon does not answer".to_owned(),
        _ => error.to_string(),
    })?;
    serde_json::from_slice(&answer).map_err(|error| format!("its daemon answers what is no JSON: {error}"))
}

fn name(device: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("pvfs-report-{device}"))
}

fn to_json(status: &ClientStatus) -> Value {
    json!({
        "pid": std::process::id(),
        "session": status.session.0,
        "up_ms": millis(status.up_for),
        "open_files": status.open_files,
        "unreported_files": status.unreported_files,
        "changes_in_flight": status.changes_in_flight,
        "servers": status.servers.iter().map(server_json).collect::<Vec<_>>(),
        "waiting": status.waiting.iter().take(CALLS_MAX).map(call_json).collect::<Vec<_>>(),
        "waiting_total": status.waiting.len(),
    })
}

fn server_json(server: &ServerStatus) -> Value {
    json!({
        "role": format!("{:?}", server.role).to_lowercase(),
        "addrs": server.addrs,
        "targets": server.targets.iter().map(|target| target.0).collect::<Vec<_>>(),
        "connected": server.connected,
        "shares_memory": server.shares_memory,
        "waiting": server.waiting.as_ref().map(|waiting| json!({
            "since_ms": millis(waiting.since),
            "tries": waiting.tries,
            "error": waiting.error,
        })),
    })
}

fn call_json(call: &WaitingCall) -> Value {
    // Only `comm` is read: other files of a process that hangs can hang who looks.
    let comm = call.pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    json!({
        "pid": call.pid,
        "comm": comm.map(|comm| comm.trim_end().to_owned()),
        "op": call.op.name(),
        "ino": call.ino.map(|ino| ino.0),
        "since_ms": millis(call.since),
        "waits_for": call.waits_for.iter().map(|server| match server {
            WaitsFor::Mgr => "mgr".to_owned(),
            WaitsFor::Lock => "lock".to_owned(),
            WaitsFor::Target(target) => target.to_string(),
        }).collect::<Vec<_>>(),
        "tries": call.tries,
        "error": call.error,
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
