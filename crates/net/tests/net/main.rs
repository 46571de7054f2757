//! Tests of connections, over real TCP on loopback and within the machine.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod connections;
mod lending;
mod strangers;
mod support;
mod vanished;
