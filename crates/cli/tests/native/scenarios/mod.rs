//! Scenarios of the catalogue (`docs/scenarios.md`) with real daemons: native clients or programs in a mount do their work, a
//! fault strikes, all is as if it had not, and `pvfs fsck` finds nothing.

mod damaged_disks;
mod iods;
mod messages;
mod mgr;
mod native;
mod network;
mod open_unlinked;
mod overload;
mod power;
mod shared_sizes;
mod soak;
mod throttled;
mod upkeep;
mod vanished_clients;
