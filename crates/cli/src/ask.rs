//! Questions to daemons about themselves: one try, a short deadline, no session.

use crate::{config::Cluster, error::CliError};
use pvfs_env::{HostTransport, Metrics, Transport};
use pvfs_net::{CallError, Dialer, Identity, Peer};
use pvfs_wire::msg::{
    admin::{DaemonStatus, GetStatus},
    hello::Role,
    namespace::{FsUsage, StatFs},
    session::{GetTargets, Targets},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a daemon may take to answer before it counts as down.
pub const DEADLINE: Duration = Duration::from_secs(1);

/// Asks the daemons of one cluster.
pub struct Asker {
    dialer: Arc<Dialer>,
}

/// One daemon, asked.
#[derive(Debug)]
pub struct Answer {
    pub role: Role,
    pub addr: String,
    /// Or why there is none.
    pub status: Result<DaemonStatus, String>,
    pub took: Duration,
}

impl Asker {
    /// Over `transport`, where that is said.
    pub fn new(cluster: &Cluster, transport: Option<Arc<dyn Transport>>) -> Result<Asker, CliError> {
        let identity = Identity {
            role: Role::Client,
            fs: Some(cluster.fs),
            client: pvfs_env::random::bytes(),
            label: format!("pvfs tool, pid {}", std::process::id()),
            cluster_secret: Some(cluster.cluster_secret()?),
            daemon_secret: None,
        };
        let transport = transport.unwrap_or_else(|| Arc::new(HostTransport::default()));
        Ok(Asker { dialer: Dialer::new(transport, identity, Metrics::new()) })
    }

    pub fn peer(&self, role: Role, addr: &str) -> Arc<Peer> {
        self.dialer.peer(role, vec![addr.to_owned()])
    }

    pub async fn status(&self, role: Role, addr: &str) -> Answer {
        let begin = Instant::now();
        let status = self.peer(role, addr).call_once(&GetStatus {}, DEADLINE).await;
        Answer {
            role,
            addr: addr.to_owned(),
            status: status.map_err(|error| reason(&error)),
            took: begin.elapsed(),
        }
    }

    /// The status of all of these, asked at once.
    pub async fn status_of_all(self: &Arc<Self>, daemons: Vec<(Role, String)>) -> Vec<Answer> {
        let asked: Vec<_> = daemons
            .into_iter()
            .map(|(role, addr)| {
                let asker = Arc::clone(self);
                tokio::spawn(async move { asker.status(role, &addr).await })
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.extend(answer.await.ok());
        }
        answers
    }

    pub async fn targets(&self, mgr: &str) -> Result<Targets, CallError> {
        self.peer(Role::Mgr, mgr).call_once(&GetTargets {}, DEADLINE).await
    }

    pub async fn usage(&self, mgr: &str) -> Result<FsUsage, CallError> {
        self.peer(Role::Mgr, mgr).call_once(&StatFs::default(), DEADLINE).await
    }
}

/// Why there is no answer, in few words.
pub fn reason(error: &CallError) -> String {
    match error {
        CallError::Refused(refusal) => refusal.to_string(),
        other => other.to_string().split(" (os error").next().unwrap_or_default().to_owned(),
    }
}

/// The first mgr that answers `ask`.
pub async fn first_mgr<T>(
    cluster: &Cluster,
    ask: impl AsyncFn(&str) -> Result<T, CallError>,
) -> Result<(String, T), CliError> {
    let mut why = String::from("no mgr is named");
    for addr in &cluster.mgr {
        match ask(addr).await {
            Ok(answer) => return Ok((addr.clone(), answer)),
            Err(error) => why = reason(&error),
        }
    }
    Err(unreachable(cluster, why))
}

/// The error for a mgr that does not answer, with what to do about it.
pub fn unreachable(cluster: &Cluster, reason: String) -> CliError {
    let advice = match &cluster.context {
        Some(context) => format!(
            "`pvfs status` shows what is down; if `pvfs up` ended, start it again with --dir {}",
            context.dir.display()
        ),
        None => {
            "check with `pvfs status` what is down, or name another cluster with --cluster FILE".to_owned()
        }
    };
    CliError::Unreachable { cluster: cluster.file.clone(), reason, advice }
}
