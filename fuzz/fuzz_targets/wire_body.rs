//! The target `wire_body` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pvfs_fuzz::wire_body(data));
