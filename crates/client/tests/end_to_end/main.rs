//! The client against a real mgr and real iods, all in this process, over loopback.

mod cluster;
mod data;
mod faults;
mod messages;
mod names;
mod sizes;
