//! The simulator: mgr, iods and clients of the real code in one thread, under a seed that decides everything: the
//! network, the disks, the clocks, who dies when, and what programs do. The same seed gives the same run.
//!
//! Owns the simulated outside (the seams of `pvfs-env`, an engine of `pvfs-kv`), the programs with their model, and the
//! checks in the end. Knows nothing of what is inside the daemons and the client. How to use it: `docs/simulator.md`.

mod actor;
mod check;
mod client;
mod clock;
mod cluster;
mod desk;
mod disk;
mod engine;
mod faults;
mod model;
mod net;
mod process;
mod random;
mod run;
mod trace;

pub use run::{Report, run};
