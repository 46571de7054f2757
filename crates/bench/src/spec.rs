//! What to run.

use crate::BenchError;
use serde::Serialize;

/// One phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Each rank writes its part from its start to its end.
    Write,
    /// Each rank reads what the write phase wrote.
    Read,
    /// Each rank writes every R-th piece of the file, `pieces` of them in one call where the place has such a call.
    StridedWrite,
    StridedRead,
    /// Each rank reads small pieces of what the write phase wrote, anywhere in it, past the kernel's cache.
    RandomRead,
    /// Files of `name_bytes`, made, written and closed.
    Create,
    /// Every file once, by another caller than the one that made it.
    Stat,
    /// Every file once, likewise: opened, read whole, closed.
    OpenRead,
    Remove,
}

impl Workload {
    pub fn name(self) -> &'static str {
        match self {
            Workload::Write => "write",
            Workload::Read => "read",
            Workload::StridedWrite => "strided write",
            Workload::StridedRead => "strided read",
            Workload::RandomRead => "random read",
            Workload::Create => "create",
            Workload::Stat => "stat",
            Workload::OpenRead => "open read",
            Workload::Remove => "remove",
        }
    }

    pub fn moves_bytes(self) -> bool {
        !self.is_of_names()
    }

    pub(crate) fn is_of_names(self) -> bool {
        matches!(self, Workload::Create | Workload::Stat | Workload::OpenRead | Workload::Remove)
    }

    pub(crate) fn writes(self) -> bool {
        matches!(self, Workload::Write | Workload::StridedWrite)
    }

    pub(crate) fn is_strided(self) -> bool {
        matches!(self, Workload::StridedWrite | Workload::StridedRead)
    }
}

/// Which files the ranks use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Files {
    /// One for all ranks.
    Shared,
    /// One a rank.
    Own,
}

/// What the files of write phases are opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Writer {
    /// Writing.
    Only,
    /// Reading too.
    ReadsToo,
}

/// How what is read is held against what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    Off,
    /// Eight bytes of each 4 KiB: finds blocks that are wrong, missing, old or in the wrong place. Pieces that are no
    /// multiple of 4 KiB are compared whole.
    Stamps,
    /// Every byte.
    Full,
}

/// What to run, and how much of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spec {
    /// Phases in order. A read needs a write before it, `stat` and `remove` a `create`.
    pub workloads: Vec<Workload>,
    /// Concurrent threads (through a path) or tasks (native).
    pub ranks: u32,
    /// Bytes of one call.
    pub transfer_bytes: u64,
    /// Bytes each rank moves in a phase; rounded up to whole transfers.
    pub rank_bytes: u64,
    /// Strided phases: how many pieces one transfer consists of.
    pub pieces: u64,
    pub files: Files,
    pub writer: Writer,
    /// `fsync` at the end of a write phase, within its time.
    pub fsync: bool,
    pub verify: Verify,
    /// Bytes of one call of a random read.
    pub random_bytes: u64,
    /// Files of create, stat, open-read and remove, over all ranks.
    pub names: u64,
    /// Bytes in each of them.
    pub name_bytes: u64,
    /// They lie in a directory for each rank, not in one for all.
    pub own_dirs: bool,
    /// No phase goes on longer than this, in seconds. 0: until its bytes or files are done.
    pub secs_max: f64,
    /// Through a path: let the kernel forget a file's pages before they are read.
    pub drop_caches: bool,
}

impl Spec {
    /// Whether it can be run.
    pub fn check(&self) -> Result<(), BenchError> {
        let refuse = |text: &str| Err(BenchError::Spec { text: text.to_owned() });
        if self.ranks == 0 || self.ranks > 4096 {
            return refuse("the number of ranks must be from 1 to 4096");
        }
        if self.transfer_bytes == 0 || self.transfer_bytes > 1 << 30 {
            return refuse("the transfer size must be from 1 byte to 1 GiB");
        }
        if self.rank_bytes == 0 || self.rank_bytes > 1 << 44 {
            return refuse("the bytes per rank must be from 1 byte to 16 TiB");
        }
        if self.pieces == 0 || self.pieces > self.transfer_bytes {
            return refuse("a transfer must have at least one piece, and a piece one byte");
        }
        if self.random_bytes == 0 || self.random_bytes > self.rank_bytes {
            return refuse("a random read must be of one byte at least, and of no more than a rank writes");
        }
        if self.name_bytes > 1 << 30 {
            return refuse("the files of create may hold at most 1 GiB each");
        }
        if self.names > 100_000_000 {
            return refuse("at most 100,000,000 files");
        }
        let mut seen: Vec<Workload> = Vec::new();
        for &workload in &self.workloads {
            let needs = match workload {
                Workload::Read | Workload::RandomRead => Some(Workload::Write),
                Workload::StridedRead => Some(Workload::StridedWrite),
                Workload::Stat | Workload::OpenRead | Workload::Remove => Some(Workload::Create),
                Workload::Write | Workload::StridedWrite | Workload::Create => None,
            };
            if let Some(needs) = needs.filter(|needs| !seen.contains(needs)) {
                return refuse(&format!("{} needs {} before it", workload.name(), needs.name()));
            }
            if seen.contains(&workload) {
                return refuse(&format!("{} twice: run the benchmark twice instead", workload.name()));
            }
            seen.push(workload);
        }
        Ok(())
    }

    /// How many whole transfers a rank does.
    pub(crate) fn transfers(&self) -> u64 {
        self.rank_bytes.div_ceil(self.transfer_bytes)
    }
}

impl Default for Spec {
    /// Half a minute's worth on a laptop.
    fn default() -> Spec {
        Spec {
            workloads: vec![
                Workload::Write,
                Workload::Read,
                Workload::RandomRead,
                Workload::StridedWrite,
                Workload::StridedRead,
                Workload::Create,
                Workload::Stat,
                Workload::OpenRead,
                Workload::Remove,
            ],
            ranks: 2,
            transfer_bytes: 1 << 20,
            rank_bytes: 512 << 20,
            pieces: 16,
            files: Files::Own,
            writer: Writer::Only,
            fsync: false,
            verify: Verify::Stamps,
            random_bytes: 4096,
            names: 10_000,
            name_bytes: 0,
            own_dirs: false,
            secs_max: 10.0,
            drop_caches: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_that_cannot_be_run_says_why() {
        let check = |change: fn(&mut Spec), expect: &str| {
            let mut spec = Spec::default();
            change(&mut spec);
            let text = spec.check().expect_err("must be refused").to_string();
            assert!(text.contains(expect), "{text}");
        };
        assert!(Spec::default().check().is_ok());
        check(|s| s.ranks = 0, "ranks");
        check(|s| s.transfer_bytes = 0, "transfer size");
        check(|s| s.pieces = 0, "piece");
        check(|s| s.workloads = vec![Workload::Read], "read needs write before it");
        check(|s| s.workloads = vec![Workload::Write, Workload::Write], "write twice");
    }
}
