//! Native clients, without a mount, and clusters of real daemons. One binary, for each one that uses the client compiles all
//! of it once more.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

mod counters;
mod exactly_once;
mod full_disks;
mod power_loss;
mod scenarios;
mod waiting;
