//! The target `meta_record` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pvfs_fuzz::meta_record(data));
