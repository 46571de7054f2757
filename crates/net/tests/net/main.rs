//! Tests of connections, over real TCP on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod connections;
mod strangers;
mod support;
mod vanished;
