//! Sizes and times as people write and read them.

/// Reads `65536`, `64K`, `1M`, `1MiB`, `1G`: powers of 1024.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        other => return Err(format!("unknown unit {other:?}: use K, M, G or T (powers of 1024)")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size: write 65536, 64K or 1M"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

/// Reads `5000`, `20K`, `1M`: powers of 1000, as people count things.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        other => return Err(format!("unknown unit {other:?}: use K, M or G (powers of 1000)")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no count: write 5000, 20K or 1M"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text:?} is too large"))
}

/// For `--strip-size`.
pub fn parse_strip_bytes(text: &str) -> Result<u32, String> {
    let bytes = parse_bytes(text)?;
    u32::try_from(bytes)
        .ok()
        .filter(|&ssize| {
            pvfs_types::LayoutHint { ssize: Some(ssize), ..Default::default() }.check(usize::MAX).is_ok()
        })
        .ok_or_else(|| format!("strip size {bytes} is not allowed: a multiple of 4K from 4K to 1G"))
}

/// `1.5 GiB`: three digits or so.
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = usize::try_from(bytes.checked_ilog2().unwrap_or(0) / 10).unwrap_or(0);
    if unit == 0 {
        return format!("{bytes} B");
    }
    // Tenths in whole numbers, rounded; exact enough up to the largest u64.
    let tenths = u128::from(bytes) * 10 / (1u128 << (10 * unit));
    if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{} {}", tenths / 10, UNITS[unit])
    }
}

/// `3d 4h`, `5m 7s`, `12 ms`: the two largest units.
pub fn show_millis(millis: u64) -> String {
    let secs = millis / 1000;
    match secs {
        0 => format!("{millis} ms"),
        1..60 => format!("{secs}s"),
        60..3600 => format!("{}m {}s", secs / 60, secs % 60),
        3600..86400 => format!("{}h {}m", secs / 3600, secs % 3600 / 60),
        _ => format!("{}d {}h", secs / 86400, secs % 86400 / 3600),
    }
}

/// `word`, or more of them.
pub fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_bytes("65536"), Ok(65536));
        assert_eq!(parse_bytes("64K"), Ok(65536));
        assert_eq!(parse_bytes("1MiB"), Ok(1 << 20));
        for bad in ["", "K", "-1", "1.5M", "1X", "99999999999T"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_are_powers_of_1000() {
        assert_eq!(parse_count("5000"), Ok(5000));
        assert_eq!(parse_count("20k"), Ok(20_000));
        for bad in ["", "M", "-1", "1.5M", "1T", "99999999999G"] {
            assert!(parse_count(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn strip_sizes_that_cannot_be_are_refused_at_once() {
        assert_eq!(parse_strip_bytes("64k"), Ok(65536));
        for bad in ["0", "4097", "2G", "1T"] {
            assert!(parse_strip_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_times_read_short() {
        let shown: Vec<String> = [0, 1023, 1024, 1536, 10 << 20, u64::MAX].map(show_bytes).into();
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10 MiB", "15 EiB"]);
        let shown: Vec<String> = [5, 5000, 65_000, 3_660_000, 90_000_000].map(show_millis).into();
        assert_eq!(shown, ["5 ms", "5s", "1m 5s", "1h 1m", "1d 1h"]);
    }
}
