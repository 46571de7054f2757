//! Points in time as files carry them.

use minicbor::{Decode, Encode};

/// Seconds and nanoseconds since 1970-01-01 UTC; `nanos` is below 10^9. May lie before 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Timestamp {
    #[n(0)]
    pub secs: i64,
    #[n(1)]
    pub nanos: u32,
}

impl Timestamp {
    pub fn from_millis(millis: u64) -> Timestamp {
        let nanos = u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000;
        Timestamp { secs: (millis / 1000).cast_signed(), nanos }
    }

    /// The wall clock's time `time`.
    pub fn from_system(time: std::time::SystemTime) -> Timestamp {
        match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(d) => Timestamp { secs: d.as_secs().cast_signed(), nanos: d.subsec_nanos() },
            Err(before) => {
                let d = before.duration();
                let (mut secs, mut nanos) = (-(d.as_secs().cast_signed()), d.subsec_nanos());
                if nanos > 0 {
                    secs -= 1;
                    nanos = 1_000_000_000 - nanos;
                }
                Timestamp { secs, nanos }
            }
        }
    }

    pub fn to_system(self) -> std::time::SystemTime {
        let nanos = std::time::Duration::from_nanos(u64::from(self.nanos));
        let secs = std::time::Duration::from_secs(self.secs.unsigned_abs());
        let epoch = std::time::UNIX_EPOCH;
        let at = if self.secs >= 0 { epoch.checked_add(secs) } else { epoch.checked_sub(secs) };
        at.and_then(|t| t.checked_add(nanos)).unwrap_or(epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_time_survives_the_way_there_and_back() {
        for (secs, nanos) in [(0, 0), (1, 5), (-1, 999_999_999), (-5, 1), (1 << 33, 7)] {
            let t = Timestamp { secs, nanos };
            assert_eq!(Timestamp::from_system(t.to_system()), t);
        }
    }
}
