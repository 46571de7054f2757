//! CPU seconds: of this process, of the daemons, of the whole machine.

use rustix::time::{ClockId, clock_gettime};
use std::path::Path;

/// CPU seconds of one phase.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub own: f64,
    /// Of the processes asked for.
    pub others: f64,
    /// Everything the machine did, the kernel's own threads and other users included.
    pub machine: f64,
}

pub(crate) struct Meter {
    pids: Vec<u32>,
    at_start: Cpu,
}

impl Meter {
    pub fn start(pids: &[u32]) -> Meter {
        Meter { pids: pids.to_vec(), at_start: now(pids) }
    }

    /// A process that ended in between counts as if it had done nothing.
    pub fn stop(&self) -> Cpu {
        let (from, to) = (self.at_start, now(&self.pids));
        let since = |from: f64, to: f64| (to - from).max(0.0);
        Cpu {
            own: since(from.own, to.own),
            others: since(from.others, to.others),
            machine: since(from.machine, to.machine),
        }
    }
}

/// All other processes that run the same executable as this one: the cluster's daemons and mounts on this machine.
pub fn own_program_pids() -> Vec<u32> {
    let Ok(own) = std::fs::read_link("/proc/self/exe") else { return Vec::new() };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| pid != std::process::id() && runs(pid, &own)).collect()
}

fn runs(pid: u32, program: &Path) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
}

fn now(pids: &[u32]) -> Cpu {
    let own = clock_gettime(ClockId::ProcessCPUTime);
    let per_sec = ticks_f64(rustix::param::clock_ticks_per_second());
    let others: u64 = pids.iter().filter_map(|pid| ticks_of_process(*pid)).sum();
    Cpu {
        own: ticks_f64(own.tv_sec.unsigned_abs()) + ticks_f64(own.tv_nsec.unsigned_abs()) / 1e9,
        others: ticks_f64(others) / per_sec,
        machine: ticks_f64(ticks_of_machine().unwrap_or(0)) / per_sec,
    }
}

/// Exact below 2^53 ticks, which is some 2.8 million years.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn ticks_f64(ticks: u64) -> f64 {
    ticks as f64
}

/// `utime` and `stime` of proc(5)'s `stat`, in clock ticks.
fn ticks_of_process(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name in brackets, may hold spaces: count from its end.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let utime: u64 = fields.nth(11)?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(utime + stime)
}

/// All but idle and iowait of the first line of `/proc/stat`.
fn ticks_of_machine() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.split_ascii_whitespace().skip(1);
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest times are within user already.
    Some([0, 1, 2, 5, 6].iter().filter_map(|&field| ticks.get(field)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_seen_in_the_accounts() {
        let meter = Meter::start(&[std::process::id()]);
        let mut sum = 0u64;
        while meter.stop().own < 0.1 {
            sum = sum.wrapping_mul(31).wrapping_add(std::hint::black_box(7));
        }
        std::hint::black_box(sum);
        let cpu = meter.stop();
        assert!(cpu.others >= 0.05, "the same process by its /proc entry: {cpu:?}");
        assert!(cpu.machine >= 0.05, "{cpu:?}");
    }
}
