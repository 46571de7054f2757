//! Random and mutated inputs, the same ones for the same seed.

/// A small random number generator (splitmix64), so that a failing input can be made again from its seed.
pub struct Rng(pub u64);

impl Rng {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % (bound.max(1) as u64)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }
}

/// One of `seeds`, changed in a few places; now and then plain noise.
pub fn mutated(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    if seeds.is_empty() || rng.below(16) == 0 {
        return (0..rng.below(100)).map(|_| rng.byte()).collect();
    }
    let mut bytes = seeds[rng.below(seeds.len())].clone();
    for _ in 0..=rng.below(5) {
        change(rng, &mut bytes, seeds);
    }
    bytes
}

/// Bytes that mean something to a CBOR decoder: lengths at their limits, breaks, nulls, indefinite lists.
const TELLING: [u8; 12] = [0x00, 0x17, 0x18, 0x1b, 0x5b, 0x7f, 0x80, 0x9b, 0x9f, 0xbb, 0xf6, 0xff];

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = rng.below(bytes.len());
    match rng.below(7) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, rng.byte()),
        2 if !bytes.is_empty() => {
            bytes.remove(at);
        }
        3 if !bytes.is_empty() => bytes[at] ^= 1 << rng.below(8),
        4 if !bytes.is_empty() => bytes[at] = TELLING[rng.below(TELLING.len())],
        5 if !bytes.is_empty() => bytes[at] = rng.byte(),
        _ => {
            let other = &seeds[rng.below(seeds.len())];
            let from = rng.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}
