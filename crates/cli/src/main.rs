//! The `pvfs` binary.
fn main() {}
