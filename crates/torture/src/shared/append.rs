//! Records appended by several processes: each there once, whole, each process's own in its order.

use super::{
    part::{At, Checked, Wrong},
    process::{Tally, Turn},
    stamp::{HEAD_BYTES, Stamp},
};
use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

const FILE: &str = "log";
/// Of one record.
const BYTES_MAX: usize = 600;
/// Of all records of all processes: then nothing more is appended.
const LOG_BYTES_MAX: u64 = 64 << 20;

pub(crate) struct Appender {
    path: PathBuf,
    process: u32,
    file: Option<File>,
    seq: u64,
    bytes_left: u64,
}

pub(crate) fn make(dir: &Path) -> std::io::Result<()> {
    std::fs::write(dir.join(FILE), [])
}

impl Appender {
    pub fn new(dir: &Path, process: u32, of: u32) -> Appender {
        let bytes_left = LOG_BYTES_MAX / u64::from(of);
        Appender { path: dir.join(FILE), process, file: None, seq: 0, bytes_left }
    }
}

impl Turn for Appender {
    fn step(&mut self, rng: &mut fastrand::Rng) -> Checked {
        let len = rng.usize(HEAD_BYTES..BYTES_MAX);
        if self.bytes_left < len as u64 {
            return Ok(());
        }
        if rng.u8(..20) == 0 {
            self.file = None;
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => File::options().append(true).open(&self.path).at("open")?,
        };
        let stamp = Stamp { process: self.process, seq: self.seq, len };
        let written = file.write(&stamp.bytes()).at("append")?;
        if written != len {
            return Err(Wrong::lost(format!("{written} of {len} bytes were appended")));
        }
        (self.seq, self.bytes_left) = (self.seq + 1, self.bytes_left - len as u64);
        self.file = Some(file);
        Ok(())
    }

    fn tally(&self, tally: &mut Tally) {
        tally.add("records", self.seq);
    }
}

pub(crate) fn check(dir: &Path, tallies: &[Tally]) -> Checked {
    let log = std::fs::read(dir.join(FILE)).at("read")?;
    let records: Vec<u64> = tallies.iter().map(|tally| tally.get("records")).collect();
    check_log(&log, &records)
}

/// `records`: how many each process has appended.
fn check_log(log: &[u8], records: &[u64]) -> Checked {
    let mut next = vec![0; records.len()];
    let mut at = 0;
    while at < log.len() {
        let stamp = Stamp::read(&log[at..]).at(&format!("byte {at} of the log"))?;
        let process = stamp.process as usize;
        let Some(expected) = next.get_mut(process) else {
            return Err(Wrong::other(format!("there is no process {process}")));
        };
        if stamp.seq < *expected {
            return Err(Wrong::doubled(format!("byte {at} of the log: {stamp}, after {}", *expected - 1)));
        }
        if stamp.seq > *expected {
            return Err(Wrong::lost(format!("byte {at} of the log: {stamp}, {expected} is missing")));
        }
        *expected += 1;
        at += stamp.len;
    }
    match next.iter().zip(records).position(|(found, appended)| found != appended) {
        Some(process) => {
            let (found, appended) = (next[process], records[process]);
            let text = format!("process {process} appended {appended} records, {found} are there");
            Err(if found < appended { Wrong::lost(text) } else { Wrong::doubled(text) })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::FaultKind;

    fn log(records: &[(u32, u64)]) -> Vec<u8> {
        let stamp = |&(process, seq)| Stamp { process, seq, len: 100 + usize::try_from(seq).unwrap_or(0) };
        records.iter().flat_map(|record| stamp(record).bytes()).collect()
    }

    #[track_caller]
    fn kind(log: &[u8], records: &[u64]) -> Option<FaultKind> {
        check_log(log, records).err().map(|wrong| wrong.kind)
    }

    #[test]
    fn records_of_all_processes_in_any_mixture_are_right() {
        assert_eq!(kind(&log(&[(0, 0), (1, 0), (1, 1), (0, 1)]), &[2, 2]), None);
        assert_eq!(kind(&[], &[0, 0]), None);
    }

    #[test]
    fn a_torn_a_lost_a_doubled_and_a_late_record_are_found() {
        let whole = log(&[(0, 0), (1, 0), (0, 1)]);
        let mut torn = whole.clone();
        torn[150] ^= 1;
        assert_eq!(kind(&torn, &[2, 1]), Some(FaultKind::Wrong));
        assert_eq!(kind(&whole[..whole.len() - 1], &[2, 1]), Some(FaultKind::Lost));
        assert_eq!(kind(&whole, &[2, 2]), Some(FaultKind::Lost));
        assert_eq!(kind(&log(&[(0, 0), (0, 2)]), &[2, 0]), Some(FaultKind::Lost));
        assert_eq!(kind(&log(&[(0, 0), (0, 0)]), &[2, 0]), Some(FaultKind::Doubled));
        assert_eq!(kind(&log(&[(0, 1), (0, 0)]), &[2, 0]), Some(FaultKind::Lost));
        let mut overwritten = log(&[(0, 0), (1, 0)]);
        overwritten.splice(50..150, log(&[(1, 0)]));
        assert_eq!(kind(&overwritten, &[1, 1]), Some(FaultKind::Wrong));
    }
}
