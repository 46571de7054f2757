//! The target `wire_header` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pvfs_fuzz::wire_header(data));
