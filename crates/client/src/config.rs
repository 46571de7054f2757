//! What a client must know to find its file system and prove that it may use it.

use crate::Estate;
use pvfs_env::{HostTransport, Metrics, Transport};
use pvfs_types::FsId;
use pvfs_wire::msg::hello::Secret;
use std::{sync::Arc, time::Duration};

/// Whether a client takes delegations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delegating {
    #[default]
    No,
    /// For itself.
    Yes,
    /// For a kernel too, which is to forget first what is recalled: [`crate::Client::on_recall`] says how. Until it is said,
    /// recalls wait.
    ForKernel,
}

/// How to reach a file system.
#[derive(Clone)]
pub struct ClientConfig {
    /// `host:port` of each mgr.
    pub mgr: Vec<String>,
    /// The file system wanted; `None` takes the one that the mgr serves.
    pub fs: Option<FsId>,
    pub cluster_secret: Secret,
    /// For people: program, host, mount point. Shown by `pvfs status`.
    pub label: String,
    /// How long [`crate::Client::connect`] tries; `None`: for ever. What comes later waits for ever anyway; drop the
    /// future to give up.
    pub connect_deadline: Option<Duration>,
    /// How much of what was written to one target and may not be durable yet is kept, in bytes. When it is full, writes
    /// wait until the target has committed. What is kept is sent again if the target's machine dies.
    pub held_bytes_target: u64,
    /// The same, for all targets together. A target may have half of what the others leave of it.
    pub held_bytes_client: u64,
    /// `soft`: a call that has waited this long fails with [`crate::ClientError::TimedOut`] (`EIO`), it alone: the client goes
    /// on, and is whole again with its daemons. A change is still made once, in the background, or not at all. `None`,
    /// `hard`: calls wait for ever.
    pub timeo: Option<Duration>,
    /// Takes delegations: attributes and names that were told are gone by without a message, until the mgr recalls them because
    /// somebody else is about to change them. Such a client must live in a runtime that gets its turn: what it holds and does
    /// not give up makes others wait until its lease is over.
    pub delegations: Delegating,
    pub metrics: Metrics,
    pub transport: Arc<dyn Transport>,
    /// Where this process has predecessors or successors: what they leave to each other.
    pub estate: Option<Estate>,
}

impl ClientConfig {
    /// A client that waits for ever; it shares memory with iods of its own machine, and reaches others over TCP.
    pub fn new(mgr: Vec<String>, cluster_secret: Secret) -> ClientConfig {
        ClientConfig {
            mgr,
            fs: None,
            cluster_secret,
            label: format!("pid {}", std::process::id()),
            connect_deadline: None,
            held_bytes_target: 64 << 20,
            held_bytes_client: 128 << 20,
            timeo: None,
            delegations: Delegating::No,
            metrics: Metrics::new(),
            transport: Arc::new(HostTransport::sharing()),
            estate: None,
        }
    }
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig")
            .field("mgr", &self.mgr)
            .field("fs", &self.fs)
            .field("label", &self.label)
            .field("connect_deadline", &self.connect_deadline)
            .field("timeo", &self.timeo)
            .finish_non_exhaustive()
    }
}
