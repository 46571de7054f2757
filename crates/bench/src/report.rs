//! What a run gives: rows for programs (JSON) and for people (a table).

use crate::{Spec, Workload, cpu::Cpu, ranks::Outcome};
use serde::Serialize;

/// All rows of a run, and what was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub spec: Spec,
    pub rows: Vec<Row>,
}

/// One phase at one place.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub workload: Workload,
    #[serde(rename = "where")]
    pub place: String,
    pub ranks: u32,
    /// Moved; 0 for names.
    pub bytes: u64,
    pub calls: u64,
    pub secs: f64,
    /// Of phases that move bytes.
    pub mib_per_s: Option<f64>,
    pub calls_per_s: f64,
    /// CPU seconds of this process: the ranks and, natively, the client core.
    pub cpu_own_secs: f64,
    /// CPU seconds of the daemons and mounts on this machine.
    pub cpu_daemons_secs: f64,
    /// Of the whole machine, the kernel's threads and strangers included.
    pub cpu_machine_secs: f64,
    /// Own and daemons' CPU seconds for each GiB moved.
    pub cpu_secs_per_gib: Option<f64>,
    pub latency_us_p50: u32,
    pub latency_us_p99: u32,
    pub latency_us_max: u32,
}

impl Row {
    pub(crate) fn new(spec: &Spec, workload: Workload, place: &str, mut outcome: Outcome, cpu: Cpu) -> Row {
        outcome.latencies_us.sort_unstable();
        let gib = float(outcome.bytes) / f64::from(1 << 30);
        let secs = outcome.secs.max(1e-9);
        Row {
            workload,
            place: place.to_owned(),
            ranks: spec.ranks,
            bytes: outcome.bytes,
            calls: outcome.calls,
            secs: outcome.secs,
            mib_per_s: workload.moves_bytes().then(|| gib * 1024.0 / secs),
            calls_per_s: float(outcome.calls) / secs,
            cpu_own_secs: cpu.own,
            cpu_daemons_secs: cpu.others,
            cpu_machine_secs: cpu.machine,
            cpu_secs_per_gib: (workload.moves_bytes() && outcome.bytes > 0)
                .then(|| (cpu.own + cpu.others) / gib),
            latency_us_p50: percentile(&outcome.latencies_us, 50),
            latency_us_p99: percentile(&outcome.latencies_us, 99),
            latency_us_max: outcome.latencies_us.last().copied().unwrap_or(0),
        }
    }

    /// The head of the table that [`Row::line`]s make.
    pub fn head() -> String {
        format!(
            "{:<14} {:<13} {:>10} {:>10} {:>9} {:>9} {:>9} {:>8} {:>8} {:>7}",
            "workload",
            "where",
            "MiB/s",
            "calls/s",
            "p50 us",
            "p99 us",
            "max us",
            "CPU s",
            "s/GiB",
            "seconds"
        )
    }

    /// One line of the table.
    pub fn line(&self) -> String {
        let or_dash = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        format!(
            "{:<14} {:<13} {:>10} {:>10.0} {:>9} {:>9} {:>9} {:>8.2} {:>8} {:>7.2}",
            self.workload.name(),
            self.place,
            or_dash(self.mib_per_s, 0),
            self.calls_per_s,
            self.latency_us_p50,
            self.latency_us_p99,
            self.latency_us_max,
            self.cpu_own_secs + self.cpu_daemons_secs,
            or_dash(self.cpu_secs_per_gib, 2),
            self.secs
        )
    }
}

/// The value that `percent` of the sorted values do not exceed; 0 of none.
fn percentile(sorted: &[u32], percent: usize) -> u32 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "for ratios that people read")]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<u32> = (1..=200).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (100, 198));
        assert_eq!((percentile(&[7], 50), percentile(&[7], 99), percentile(&[], 50)), (7, 7, 0));
    }
}
