//! Runs every target on its seeds and on mutations of them, `PVFS_FUZZ_SECS` seconds each (default 2).

use pvfs_fuzz::{Rng, TARGETS, mutated};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

#[test]
fn no_bytes_break_a_target() {
    let secs = std::env::var("PVFS_FUZZ_SECS").ok().and_then(|secs| secs.parse().ok()).unwrap_or(2);
    let seed = std::env::var("PVFS_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    // A fixed seed for the fixed short run, another one each time for long runs.
    let seed = seed.unwrap_or_else(|| if secs <= 2 { 1 } else { u64::from(std::process::id()) });
    for target in TARGETS {
        let (mut rng, seeds) = (Rng(seed), (target.seeds)());
        for bytes in &seeds {
            (target.run)(bytes);
        }
        let (end, mut inputs) = (Instant::now() + Duration::from_secs(secs), 0u64);
        while Instant::now() < end {
            for _ in 0..256 {
                let bytes = mutated(&mut rng, &seeds);
                let run = catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes)));
                assert!(run.is_ok(), "target {} breaks on {bytes:02x?} (PVFS_FUZZ_SEED={seed})", target.name);
                inputs += 1;
            }
        }
        println!("{}: {inputs} inputs, {} seeds", target.name, seeds.len());
    }
}
