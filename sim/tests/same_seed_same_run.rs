//! The same seed gives the same run, event by event; another seed another one.
#![cfg(tokio_unstable)] // see `docs/simulator.md`

#[test]
fn the_same_seed_gives_the_same_run() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 1..=12 {
        let (first, again) = (pvfs_sim::run(seed, false), pvfs_sim::run(seed, false));
        assert_eq!(first, again, "seed {seed}");
        assert!(first.events > 1000, "seed {seed} does nothing: {first:?}");
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), 12, "seeds differ");
}
