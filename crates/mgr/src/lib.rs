//! The metadata manager daemon: sessions, capabilities, the map of targets, and the sequencer through which the name
//! space changes.
//!
//! The name space itself is `pvfs-meta`, pure; what must not be lost is in a `pvfs-kv` engine before it is answered.
//! What is in memory here only makes it faster. Knows nothing of iods but their messages.

mod config;
mod delegation_ops;
mod delegations;
mod error;
mod fsck;
mod heartbeat;
mod lock_ops;
mod locks;
mod mgr;
mod placement;
mod quota_ops;
mod rollback;
mod run;
pub mod sequencer;
mod service;
mod session_ops;
mod sessions;
mod status;
mod targets;
mod time;
mod workers;

pub use config::{MgrConfig, PORT};
pub use error::MgrError;
pub use run::{format, format_engine, run, serve};
