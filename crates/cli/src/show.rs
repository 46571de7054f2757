//! Tables, dates, owners: how commands print.

use pvfs_types::{FileKind, Timestamp};
use std::{collections::HashMap, fmt::Write as _};

/// Rows as columns two blanks apart; columns in `right` are right-aligned. Lines carry no blanks at their ends.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let (gap, width) = (if column == 0 { "" } else { "  " }, widths[column]);
            let done = if right.contains(&column) {
                write!(line, "{gap}{cell:>width$}")
            } else {
                write!(line, "{gap}{cell:<width$}")
            };
            done.expect("writing to a String cannot fail");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A row of a table.
#[macro_export]
macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$($cell.to_string()),*] };
}

/// `drwxr-xr-x`, with the special bits as `ls` shows them.
pub fn mode_text(kind: FileKind, mode: u32) -> String {
    let kind = match kind {
        FileKind::File => '-',
        FileKind::Dir => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::CharDev => 'c',
        FileKind::BlockDev => 'b',
    };
    let mut text = String::from(kind);
    for (shift, special, set) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => set,
            (true, false) => set.to_ascii_uppercase(),
        });
    }
    text
}

/// A kind as words.
pub fn kind_text(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "regular file",
        FileKind::Dir => "directory",
        FileKind::Symlink => "symbolic link",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDev => "character device",
        FileKind::BlockDev => "block device",
    }
}

/// `Nov 23 08:34` for the last half year, `Nov 23  2024` else: local time, as `ls -l`.
pub fn date_short(time: Timestamp, now: Timestamp) -> String {
    const HALF_YEAR_SECS: i64 = 182 * 86_400;
    let Some(tm) = local(time.secs) else { return time.secs.to_string() };
    let (month, day) = (MONTHS[usize::try_from(tm.tm_mon).unwrap_or(0) % 12], tm.tm_mday);
    if (now.secs - HALF_YEAR_SECS..=now.secs + 60).contains(&time.secs) {
        format!("{month} {day:>2} {:02}:{:02}", tm.tm_hour, tm.tm_min)
    } else {
        format!("{month} {day:>2}  {}", 1900 + i64::from(tm.tm_year))
    }
}

/// `2026-11-23 08:34:04.123456789 +0000`, local time, as `stat`.
pub fn date_long(time: Timestamp) -> String {
    let Some(tm) = local(time.secs) else { return format!("{}.{:09}", time.secs, time.nanos) };
    let offset_min = tm.tm_gmtoff / 60;
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:09} {}{:02}{:02}",
        1900 + i64::from(tm.tm_year),
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec,
        time.nanos,
        if offset_min < 0 { '-' } else { '+' },
        offset_min.abs() / 60,
        offset_min.abs() % 60
    )
}

/// `2026-11-23T08:34:04Z`.
pub fn date_utc(time: Timestamp) -> String {
    let (days, secs) = (time.secs.div_euclid(86_400), time.secs.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", secs / 3600, secs % 3600 / 60, secs % 60)
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The Gregorian date of a day counted from 1970-01-01. Source: Howard Hinnant, `chrono`-compatible low-level date
/// algorithms, `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

#[expect(unsafe_code, reason = "the local time zone is known to the C library only")]
fn local(secs: i64) -> Option<libc::tm> {
    // SAFETY: `tm` is plain data for which all-zero bytes are a value; `localtime_r` reads `secs`, writes `tm` and
    // keeps neither pointer.
    unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        (!libc::localtime_r(&raw const secs, &raw mut tm).is_null()).then_some(tm)
    }
}

/// Names of users and groups of this machine, from `/etc/passwd` and `/etc/group`; numbers for others.
pub struct Owners {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Owners {
    pub fn load() -> Owners {
        Owners { users: read_names("/etc/passwd"), groups: read_names("/etc/group") }
    }

    pub fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    pub fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_else(|| gid.to_string())
    }

    /// The number of a user, by name or number.
    pub fn find_user(&self, text: &str) -> Option<u32> {
        find_number(&self.users, text)
    }

    /// The number of a group, by name or number.
    pub fn find_group(&self, text: &str) -> Option<u32> {
        find_number(&self.groups, text)
    }
}

fn find_number(names: &HashMap<u32, String>, text: &str) -> Option<u32> {
    let by_name = names.iter().find(|(_, name)| *name == text).map(|(number, _)| *number);
    by_name.or_else(|| text.parse().ok())
}

fn read_names(file: &str) -> HashMap<u32, String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    };
    text.lines().rev().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![row!["NAME", "N"], row!["a", 100], row!["longer", 7]];
        assert_eq!(table(&rows, &[1]), "NAME      N\na       100\nlonger    7\n");
    }

    #[test]
    fn modes_read_as_in_ls() {
        assert_eq!(mode_text(FileKind::Dir, 0o1777), "drwxrwxrwt");
        assert_eq!(mode_text(FileKind::File, 0o4755), "-rwsr-xr-x");
        assert_eq!(mode_text(FileKind::File, 0o2640), "-rw-r-S---");
        assert_eq!(mode_text(FileKind::Symlink, 0o777), "lrwxrwxrwx");
    }

    #[test]
    fn dates_are_gregorian() {
        let shown = |secs| date_utc(Timestamp { secs, nanos: 0 });
        assert_eq!(shown(0), "1970-01-01T00:00:00Z");
        assert_eq!(shown(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(shown(1_795_422_844), "2026-11-23T08:34:04Z");
        assert_eq!(shown(-1), "1969-12-31T23:59:59Z");
    }
}
