//! The target `kfuse_request` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pvfs_fuzz::kfuse_request(data));
