//! The client against a real mgr and real iods, all in this process, over loopback.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod appends;
mod bounce;
mod cluster;
mod copies;
mod data;
mod delegations;
mod faults;
mod faulty_disk;
mod faulty_store;
mod gathers;
mod holes;
mod inline;
mod left;
mod locks;
mod losses;
mod messages;
mod names;
mod near;
mod quotas;
mod sizes;
mod tmpfiles;
