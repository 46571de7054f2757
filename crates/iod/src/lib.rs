//! The I/O daemon: serves the objects of its targets to whoever shows a capability.
//!
//! Owns the check of capabilities and the flow between socket and store. Knows no names, no files and no opens: it
//! remembers nothing of a client between two requests. Where to start reading: `service.rs`, then one file per
//! operation in `ops/`.

mod committer;
mod config;
mod counters;
mod error;
mod guard;
mod heartbeat;
mod mgr_time;
mod ops;
mod ranges;
mod run;
mod service;
mod status;
mod target;

pub use config::IodConfig;
pub use error::IodError;
pub use run::{run, serve};
