//! One of the processes that use the same files at once: reads what it is to do, does it until it is told to stop, tells what
//! it has done. Lines of text, in and out; what else is on its output does not disturb.

use super::{
    append, counter, mutex,
    part::{Checked, Part, Wrong},
    replace, stripes, unlink,
};
use crate::record::FaultKind;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::{self, BufRead, Write},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

/// After so many faults of a part the rest says nothing new.
const FAULTS_MAX: u32 = 5;

/// What one process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub number: u32,
    /// How many there are.
    pub of: u32,
    pub seed: u64,
    pub parts: Vec<Part>,
    /// Its mount's way to what is shared.
    pub dir: PathBuf,
}

impl Spec {
    /// Two lines.
    pub fn encode(&self) -> Vec<u8> {
        let parts: Vec<&str> = self.parts.iter().map(|part| part.name()).collect();
        let line = format!("{} {} {} {}\n", self.number, self.of, self.seed, parts.join(","));
        [line.as_bytes(), self.dir.as_os_str().as_bytes(), b"\n"].concat()
    }

    pub fn read(input: &mut impl BufRead) -> io::Result<Spec> {
        let (mut line, mut dir) = (String::new(), Vec::new());
        input.read_line(&mut line)?;
        input.read_until(b'\n', &mut dir)?;
        let spec = Spec::parse(&line, dir.strip_suffix(b"\n").unwrap_or(&dir));
        spec.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not what a process is told to do"))
    }

    fn parse(line: &str, dir: &[u8]) -> Option<Spec> {
        let mut words = line.split_whitespace();
        let (number, of) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let seed = words.next()?.parse().ok()?;
        let parts = words.next()?.split(',').map(Part::find).collect::<Option<Vec<_>>>()?;
        let good = number < of && !dir.is_empty();
        let dir = std::ffi::OsString::from_vec(dir.to_vec()).into();
        good.then_some(Spec { number, of, seed, parts, dir })
    }
}

/// Numbers that a part of a process tells in the end, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(BTreeMap<String, u64>);

impl Tally {
    pub fn add(&mut self, key: &str, number: u64) {
        *self.0.entry(key.to_owned()).or_default() += number;
    }

    pub fn get(&self, key: &str) -> u64 {
        self.0.get(key).copied().unwrap_or_default()
    }
}

/// How often a part had its turn, and the longest one in microseconds: told beside its own numbers.
pub(crate) const TURNS: &str = "turns";
pub(crate) const LONGEST: &str = "longest-us";
/// Calls that were repeated for `ESTALE`.
pub(crate) const STALE: &str = "stale";

/// What a process does of one part.
pub(crate) trait Turn {
    fn step(&mut self, rng: &mut fastrand::Rng) -> Checked;
    fn tally(&self, tally: &mut Tally);
}

fn turn(part: Part, spec: &Spec) -> Option<Box<dyn Turn>> {
    let (dir, number, of): (&Path, u32, u32) = (&spec.dir, spec.number, spec.of);
    Some(match part {
        Part::Fcntl | Part::Flock => Box::new(counter::Counter::new(dir, part)),
        Part::Append => Box::new(append::Appender::new(dir, number, of)),
        Part::Mutex => Box::new(mutex::Mutexes::new(dir, number)),
        Part::Replace => Box::new(replace::Publisher::new(dir, number)),
        Part::Stripes => Box::new(stripes::Stripes::new(dir, number, of)),
        Part::Unlink => Box::new(unlink::Unlinker::new(dir, number)),
        Part::Room | Part::File | Part::Names => return None,
    })
}

/// Makes what `part` works on, in `dir`.
pub(crate) fn make(part: Part, dir: &Path) -> io::Result<()> {
    match part {
        Part::Fcntl | Part::Flock => counter::make(dir, part),
        Part::Append => append::make(dir),
        Part::Mutex => mutex::make(dir),
        Part::Replace => replace::make(dir),
        Part::Stripes => stripes::make(dir),
        Part::Unlink => unlink::make(dir),
        Part::Room | Part::File | Part::Names => Ok(()),
    }
}

/// Looks at what is there of `part` in the end: `tallies` are those of all processes, by number.
pub(crate) fn check(part: Part, dir: &Path, tallies: &[Tally]) -> Checked {
    match part {
        Part::Fcntl | Part::Flock => counter::check(dir, part, tallies),
        Part::Append => append::check(dir, tallies),
        Part::Mutex => mutex::check(dir, tallies),
        Part::Replace => replace::check(dir, tallies),
        Part::Stripes => stripes::check(dir, tallies),
        Part::Unlink => unlink::check(dir, tallies),
        Part::Room | Part::File | Part::Names => Ok(()),
    }
}

/// Does what the two lines at the start of `input` say, until `input` ends.
///
/// # Errors
/// What it is to do cannot be read, or what it has done cannot be told.
pub fn work(mut input: impl BufRead + Send, mut output: impl Write) -> io::Result<()> {
    let spec = Spec::read(&mut input)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Whoever started it ends it by closing this; its death does too.
            let _ = io::copy(&mut input, &mut io::sink());
            over.store(true, Ordering::Relaxed);
        });
        take_turns(&spec, &over, &mut output)
    })
}

fn take_turns(spec: &Spec, over: &AtomicBool, output: &mut impl Write) -> io::Result<()> {
    let mut rng = fastrand::Rng::with_seed(spec.seed ^ u64::from(spec.number + 1).rotate_left(40));
    let turns = spec.parts.iter().filter_map(|&part| Some((part, turn(part, spec)?)));
    let mut turns: Vec<_> = turns.map(|(part, turn)| (part, turn, Tally::default(), 0)).collect();
    while !over.load(Ordering::Relaxed) && !turns.is_empty() {
        let at = rng.usize(..turns.len());
        let (part, turn, tally, faults) = &mut turns[at];
        if *faults == FAULTS_MAX {
            // Nobody waits for ever for who goes round in a circle.
            std::thread::sleep(std::time::Duration::from_millis(1));
            continue;
        }
        let begin = Instant::now();
        let done = turn.step(&mut rng);
        let took = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        tally.add(TURNS, 1);
        tally.add(LONGEST, took.saturating_sub(tally.get(LONGEST)));
        if let Err(wrong) = done {
            *faults += 1;
            writeln!(output, "{}", Line::Fault(*part, wrong))?;
        }
    }
    for (part, turn, tally, _) in &mut turns {
        turn.tally(tally);
        for (key, number) in &tally.0 {
            writeln!(output, "{}", Line::Tally(*part, key.clone(), *number))?;
        }
    }
    writeln!(output, "{}", Line::Done)?;
    output.flush()
}

/// What a process tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Fault(Part, Wrong),
    Tally(Part, String, u64),
    Done,
}

const MARK: &str = "pvfs-torture";

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Line::Fault(part, wrong) => {
                let text = wrong.text.replace('\n', " ");
                write!(f, "{MARK} fault {} {} {text}", part.name(), wrong.kind.name())
            }
            Line::Tally(part, key, number) => write!(f, "{MARK} tally {} {key} {number}", part.name()),
            Line::Done => write!(f, "{MARK} done"),
        }
    }
}

impl Line {
    /// `None`: none of ours.
    pub fn parse(line: &str) -> Option<Line> {
        let (mark, rest) = line.split_once(' ')?;
        if mark != MARK {
            return None;
        }
        let mut words = rest.splitn(4, ' ');
        match words.next()? {
            "done" => Some(Line::Done),
            "tally" => {
                let part = Part::find(words.next()?)?;
                Some(Line::Tally(part, words.next()?.to_owned(), words.next()?.trim().parse().ok()?))
            }
            "fault" => {
                let part = Part::find(words.next()?)?;
                let kind = FaultKind::find(words.next()?)?;
                Some(Line::Fault(part, Wrong::new(kind, words.next()?)))
            }
            _ => None,
        }
    }
}

/// The directory in which `parts` that are done at once lie, below `dir`.
pub(crate) fn place(dir: &Path) -> PathBuf {
    dir.join(OsStr::new("at-once"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood() {
        for line in [
            Line::Fault(Part::Flock, Wrong::lost("a long story")),
            Line::Tally(Part::Stripes, "7".into(), u64::MAX),
            Line::Done,
        ] {
            assert_eq!(Line::parse(&line.to_string()), Some(line));
        }
        assert_eq!(Line::parse("running 1 test"), None);
        let spec = Spec {
            number: 1,
            of: 3,
            seed: 9,
            parts: vec![Part::Append, Part::Mutex],
            dir: OsStr::from_bytes(b"/mnt/\xff x").into(),
        };
        assert_eq!(Spec::read(&mut &spec.encode()[..]).expect("reads"), spec);
        assert!(Spec::read(&mut &b"3 3 1 append\n/mnt\n"[..]).is_err());
        assert!(Spec::read(&mut &b""[..]).is_err());
    }
}
