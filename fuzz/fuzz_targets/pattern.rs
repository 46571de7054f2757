//! The target `pattern` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pvfs_fuzz::pattern(data));
