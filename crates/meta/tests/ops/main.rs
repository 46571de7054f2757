//! The operations, each by its claims, on a store in memory. Every test ends with the keyspace checker.

mod world;

mod acls;
mod append_locks;
mod atimes;
mod create;
mod damage;
mod inline;
mod link;
mod locks;
mod model;
mod names;
mod orphans;
mod permissions;
mod quotas;
mod readdir;
mod rename;
mod repair;
mod sessions;
mod sizes;
mod targets;
mod tmpfile;
mod xattrs;
