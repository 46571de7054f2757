//! The mgr end to end: over loopback connections, with iods that are fakes.

mod delegations;
mod garbage;
mod sessions;
mod store;
mod targets;
mod truncation;
mod world;
mod writers;
