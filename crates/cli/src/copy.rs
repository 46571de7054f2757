//! Copies trees between this machine and PVFS, or within PVFS: several files at once, several chunks of each in
//! flight, with mode and times kept.
//!
//! One task walks the sources and makes directories; workers copy the files it finds. What fails is told, one line a
//! file, and the rest goes on.

mod progress;
mod tree;

use crate::{
    error::CliError,
    remote::Remote,
    spec::{Place, join, last_component, os},
};
use progress::Progress;
use pvfs_types::{FileKind, LayoutHint};
use std::{
    os::unix::ffi::OsStrExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tree::{Facts, InodeId, Reader, Tree, Writer};

/// One read and one write of a copy, in bytes: a whole number of default strips.
const CHUNK_BYTES: u64 = 4 << 20;
/// Chunks of one file in flight.
const CHUNKS_IN_FLIGHT: usize = 4;
/// Found files that wait for a worker.
const QUEUE: usize = 256;

/// How to copy.
#[derive(Clone, Debug)]
pub struct Options {
    pub recursive: bool,
    pub layout: LayoutHint,
    /// How many files at once.
    pub jobs: usize,
    pub quiet: bool,
}

/// What the subcommands that copy take.
#[derive(Clone, Debug, clap::Args)]
pub struct CopyArgs {
    /// Copy directories with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// How many files to copy at once
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// No progress bar
    #[arg(short, long)]
    quiet: bool,
}

/// How new files shall be striped.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Distribution of new files [default: that of the directory]")]
pub struct LayoutArgs {
    /// Bytes that one target holds in one turn: 64K, 1M; a multiple of 4K
    #[arg(long, value_name = "BYTES", value_parser = crate::unit::parse_strip_bytes)]
    strip_size: Option<u32>,
    /// Over how many targets a file is spread
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pcount: Option<u16>,
    /// The place in the list of targets, from 0, of the one that holds the first strip
    #[arg(long, value_name = "N")]
    base: Option<u16>,
}

impl LayoutArgs {
    pub fn hint(&self) -> LayoutHint {
        LayoutHint { base: self.base, pcount: self.pcount, ssize: self.strip_size }
    }
}

impl CopyArgs {
    pub fn options(&self, layout: LayoutHint) -> Options {
        Options { recursive: self.recursive, layout, jobs: usize::from(self.jobs), quiet: self.quiet }
    }
}

/// A file to be copied.
struct Job {
    from: Vec<u8>,
    to: Vec<u8>,
    facts: Facts,
}

/// The directories of the copy.
#[derive(Default)]
struct Made {
    /// Each with the facts that it shall have in the end; parents first.
    dirs: Vec<(Vec<u8>, Facts)>,
    /// What the sources themselves became: walking into one of these would never end.
    roots: Vec<InodeId>,
}

/// One run of a copying command.
struct Copy {
    command: &'static str,
    from: Tree,
    to: Tree,
    options: Options,
    progress: Progress,
    failed: AtomicBool,
}

/// Copies `sources` to `target`; all sources are on one side.
pub async fn run(
    command: &'static str,
    remote: &Remote,
    sources: &[Place],
    target: &Place,
    options: Options,
) -> Result<(), CliError> {
    let side = |place: &Place| match place {
        Place::Local(_) => Tree::Local,
        Place::Pvfs(_) => Tree::Pvfs(remote.clone()),
    };
    let Some(first) = sources.first() else { return Ok(()) };
    let progress = Progress::new(options.quiet);
    let copy = Arc::new(Copy {
        command,
        from: side(first),
        to: side(target),
        options,
        progress,
        failed: AtomicBool::new(false),
    });
    let target = path_of(target);
    let into = match copy.to.facts(&target, true).await {
        Ok(facts) => facts.kind == FileKind::Dir,
        Err(error) if error.is_not_found() => false,
        Err(error) => return Err(error),
    };
    if sources.len() > 1 && !into {
        let text =
            format!("{} is not a directory: several sources go into a directory", os(&target).display());
        return Err(CliError::Usage { text });
    }
    let (queue, jobs) = mpsc::channel(QUEUE);
    let workers = copy.workers(jobs);
    let mut made = Made::default();
    for source in sources {
        let from = path_of(source);
        let to = if into { join(&target, last_name(&from)) } else { target.clone() };
        let walked = copy.walk(from.clone(), to, &queue, &mut made).await;
        copy.told(walked);
    }
    drop(queue);
    workers.join_all().await;
    // Only now: files made in a directory change its time, and it may have been made read-only.
    for (path, facts) in made.dirs.into_iter().rev() {
        let kept = copy.to.keep_facts(&path, &facts).await;
        copy.told(kept);
    }
    copy.progress.finish();
    if copy.failed.load(Ordering::Relaxed) { Err(CliError::Told) } else { Ok(()) }
}

impl Copy {
    fn workers(self: &Arc<Self>, jobs: mpsc::Receiver<Job>) -> JoinSet<()> {
        let jobs = Arc::new(tokio::sync::Mutex::new(jobs));
        let mut workers = JoinSet::new();
        for _ in 0..self.options.jobs {
            let (copy, jobs) = (Arc::clone(self), Arc::clone(&jobs));
            workers.spawn(async move {
                loop {
                    let job = jobs.lock().await.recv().await;
                    let Some(job) = job else { return };
                    let copied = copy.file(&job).await;
                    copy.progress.file_done();
                    copy.told(copied);
                }
            });
        }
        workers
    }

    /// Makes `to` what `from` is: files are queued, directories walked, the rest made at once. Directories made or
    /// found are noted in `made`, parents first.
    async fn walk(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
        queue: &mpsc::Sender<Job>,
        made: &mut Made,
    ) -> Result<(), CliError> {
        let mut left = vec![(from, to, true)];
        while let Some((from, to, is_source)) = left.pop() {
            let step = self.step(&from, &to, is_source, queue, made).await;
            match step {
                Ok(names) => {
                    left.extend(names.into_iter().map(|name| (join(&from, &name), join(&to, &name), false)));
                }
                Err(error) if is_source => return Err(error),
                Err(error) => self.told(Err(error)),
            }
        }
        Ok(())
    }

    /// One entry; gives the names in it if it is a directory.
    async fn step(
        &self,
        from: &[u8],
        to: &[u8],
        is_source: bool,
        queue: &mpsc::Sender<Job>,
        made: &mut Made,
    ) -> Result<Vec<Vec<u8>>, CliError> {
        // As `cp -r`: links found on the way are copied as links; one that is named is followed without -r.
        let facts = self.from.facts(from, is_source && !self.options.recursive).await?;
        match facts.kind {
            FileKind::File => {
                self.progress.file_found(facts.size);
                let job = Job { from: from.to_vec(), to: to.to_vec(), facts };
                queue.send(job).await.ok();
                Ok(Vec::new())
            }
            FileKind::Dir if !self.options.recursive => {
                Err(CliError::NeedsRecursive { path: os(from).into() })
            }
            FileKind::Dir => {
                if self.from.same_file_system(&self.to) && made.roots.contains(&facts.id) {
                    return Err(CliError::IntoItself { path: os(from).into() });
                }
                let dir = self.to.make_dir(to).await?;
                if is_source {
                    made.roots.push(dir);
                }
                made.dirs.push((to.to_vec(), facts));
                self.from.names(from).await
            }
            FileKind::Symlink => {
                let target = self.from.link_target(from).await?;
                self.to.make_link(to, &target).await?;
                Ok(Vec::new())
            }
            FileKind::Fifo | FileKind::Socket | FileKind::CharDev | FileKind::BlockDev => {
                Err(CliError::NotCopied { path: os(from).into(), kind: crate::show::kind_text(facts.kind) })
            }
        }
    }

    async fn file(&self, job: &Job) -> Result<(), CliError> {
        if self.from.same_file_system(&self.to)
            && let Ok(there) = self.to.facts(&job.to, true).await
            && there.id == job.facts.id
        {
            return Err(CliError::SameFile { path: os(&job.to).into() });
        }
        let reader = Arc::new(self.from.open(&job.from).await?);
        let (writer, made) = self.to.create(&job.to, self.options.layout).await?;
        if !made && self.options.layout != LayoutHint::default() {
            eprintln!(
                "pvfs {}: {}: was there, so its distribution stays: remove it first to get another",
                self.command,
                os(&job.to).display()
            );
        }
        let writer = Arc::new(writer);
        let end = self.bytes(&reader, &writer, job.facts.size).await?;
        writer.finish(end).await?;
        self.to.keep_facts(&job.to, &job.facts).await
    }

    /// Copies the bytes that are there, `CHUNKS_IN_FLIGHT` chunks at once; gives how many the source has.
    async fn bytes(&self, reader: &Arc<Reader>, writer: &Arc<Writer>, size: u64) -> Result<u64, CliError> {
        let window = Arc::new(Semaphore::new(CHUNKS_IN_FLIGHT));
        let mut chunks: JoinSet<Result<(u64, u64), CliError>> = JoinSet::new();
        let (mut at, mut end) = (0, None);
        while at < size && end.is_none() {
            let data = reader.next_data(at, size).await?;
            self.progress.bytes(data - at);
            at = data;
            let len = CHUNK_BYTES.min(size - at);
            if len == 0 {
                break;
            }
            let turn = Arc::clone(&window).acquire_owned().await.ok();
            let (reader, writer, start) = (Arc::clone(reader), Arc::clone(writer), at);
            let progress = self.progress.clone();
            chunks.spawn(async move {
                let _turn = turn;
                let got = copy_chunk(&reader, &writer, start, len).await?;
                progress.bytes(got);
                Ok((start + got, start + len))
            });
            at += len;
            while let Some(done) = chunks.try_join_next() {
                end = shorter(end, flatten(done)?);
            }
        }
        while let Some(done) = chunks.join_next().await {
            end = shorter(end, flatten(done)?);
        }
        // It may be shorter than it was when the walk looked, or longer, or (in /proc) not know its size.
        let mut at = end.unwrap_or(size);
        loop {
            let got = copy_chunk(reader, writer, at, CHUNK_BYTES).await?;
            if got == 0 {
                return Ok(at);
            }
            at += got;
        }
    }

    fn told(&self, result: Result<(), CliError>) {
        if let Err(error) = result {
            self.failed.store(true, Ordering::Relaxed);
            self.progress.aside(|| eprintln!("pvfs {}: {error}", self.command));
        }
    }
}

/// Gives how many bytes there were, up to `len`.
async fn copy_chunk(reader: &Reader, writer: &Writer, at: u64, len: u64) -> Result<u64, CliError> {
    let bytes = reader.read(at, len).await?;
    let got = bytes.len() as u64;
    if got > 0 {
        writer.write(at, bytes).await?;
    }
    Ok(got)
}

/// The end of the file, where this chunk met it.
fn shorter(end: Option<u64>, (got_to, wanted_to): (u64, u64)) -> Option<u64> {
    if got_to == wanted_to { end } else { Some(end.map_or(got_to, |end| end.min(got_to))) }
}

fn flatten<T>(joined: Result<Result<T, CliError>, tokio::task::JoinError>) -> Result<T, CliError> {
    joined.unwrap_or(Err(CliError::Interrupted))
}

fn path_of(place: &Place) -> Vec<u8> {
    match place {
        Place::Local(path) => path.as_os_str().as_bytes().to_vec(),
        Place::Pvfs(spec) => spec.path.clone(),
    }
}

/// The name under which a source goes into a directory; for `.` and the like, what they stand for.
fn last_name(path: &[u8]) -> &[u8] {
    let name = last_component(path);
    if name == b"." || name == b".." { b"" } else { name }
}
