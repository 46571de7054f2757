//! The store generation: whether what the target acknowledged is all there, and saying so durably.

use crate::{Loss, State, StoreError, small_files};
use pvfs_env::{
    disk::{Disk, DiskFile},
    memory::Board,
};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use tracing::{error, info, warn};

/// The store generation and its record on the disk.
pub(crate) struct Ledger {
    disk: Arc<dyn Disk>,
    board: Option<Arc<Board>>,
    loss: Box<dyn DiskFile>,
    boot: u64,
    run: u64,
    /// As it should be.
    raised: AtomicU64,
    /// As the record on the disk has it: what is told. What is not told yet may be lost with the process.
    durable: AtomicU64,
    known: Mutex<Known>,
}

struct Known {
    /// The record on the disk says what this process knows.
    saved: bool,
    /// A sync failed in this run of the machine, and what it left was not written once more; see [`Loss`].
    unmended: bool,
}

impl Ledger {
    /// Reads the record, raises the generation where the machine died while the store was open, and notes that it is
    /// open from now on. Also gives the record as it was.
    ///
    /// On `board` it says when a generation is raised later.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        board: Option<Arc<Board>>,
    ) -> Result<(Ledger, State), StoreError> {
        let damaged =
            |source| StoreError::Damaged { dir: disk.place().to_owned(), file: State::FILE, source };
        let bytes =
            small_files::load(&*disk, State::FILE)?.ok_or_else(|| damaged(crate::RecordError::Empty))?;
        let before = State::decode(&bytes).map_err(damaged)?;
        let boot = disk.boot().map_err(|source| StoreError::Io {
            dir: disk.place().to_owned(),
            what: "read the machine's boot id",
            source,
        })?;
        let mut generation = before.generation;
        if !before.clean && before.boot != boot {
            generation += 1;
            warn!(dir = %disk.place().display(), generation,
                "the machine stopped while the target was in use: what was not synced may be lost; store generation raised");
        }
        let noted = small_files::load(&*disk, Loss::FILE)?.and_then(|bytes| Loss::decode(&bytes).ok());
        let noted = noted.filter(|loss| loss.boot == boot);
        if let Some(loss) = noted.filter(|loss| loss.generation > generation) {
            generation = loss.generation;
            warn!(dir = %disk.place().display(), generation,
                "a write-back failed under an earlier process, and the disk did not take the store generation then: raised now");
        }
        let loss = disk.create(Loss::FILE).map_err(|source| StoreError::Io {
            dir: disk.place().to_owned(),
            what: "open the target's records",
            source,
        })?;
        let (raised, durable) = (AtomicU64::new(generation), AtomicU64::new(before.generation));
        let run = before.run.saturating_add(1);
        let unmended = noted.is_some_and(|loss| loss.unmended);
        let known = Mutex::new(Known { saved: false, unmended });
        let ledger = Ledger { disk, board, loss, boot, run, raised, durable, known };
        // It has its room from now on.
        ledger.note_loss(generation, unmended)?;
        ledger.save()?;
        Ok((ledger, before))
    }

    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    /// The number of this opening of the store; rises with each, durably.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// What may be told: it never goes back, whatever dies.
    pub(crate) fn generation(&self) -> u64 {
        self.durable.load(Ordering::SeqCst)
    }

    /// Whether bytes may be lost of which [`Ledger::generation`] does not tell yet.
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst) != self.generation()
    }

    /// A sync failed in this run of the machine, and what it left in memory only was not written once more.
    pub(crate) fn is_unmended(&self) -> bool {
        self.lock().unmended
    }

    /// If `is_done`: it was.
    pub(crate) fn mended(&self, is_done: impl FnOnce() -> bool) {
        let mut known = self.lock();
        // Under the lock, so that a sync that fails just now is noted after this.
        if !known.unmended || !is_done() {
            return;
        }
        match self.note_loss(self.raised.load(Ordering::SeqCst), false) {
            Ok(()) => known.unmended = false,
            Err(error) => info!(%error, "it cannot be noted that what a failed sync left is written"),
        }
    }

    /// A sync failed: acknowledged bytes may be lost. If the disk does not even take the new generation, [`Ledger::save`]
    /// keeps trying, and so does the next process.
    pub(crate) fn raise(&self, why: &dyn std::fmt::Display) {
        let mut known = self.lock();
        let generation = self.generation() + 1;
        self.raised.store(generation, Ordering::SeqCst);
        // Who holds what may be lost sends it again before it reads.
        self.board.iter().for_each(|board| board.void());
        (known.saved, known.unmended) = (false, true);
        let dir = self.disk.place().display();
        error!(%dir, generation, %why, "a write-back failed, acknowledged bytes may be lost; store generation raised");
        match self.write(&mut known, false) {
            Ok(()) => {}
            Err(error) => error!(%dir, generation, %error, "the store generation cannot be written"),
        }
    }

    /// Makes the generation durable where it is not yet, and gives it. Nothing may be called synced before that.
    pub(crate) fn save(&self) -> Result<u64, StoreError> {
        let mut known = self.lock();
        if !known.saved {
            self.write(&mut known, false)?;
        }
        Ok(self.generation())
    }

    /// Notes that everything is synced and nobody uses the store any more.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        let mut known = self.lock();
        known.saved = false;
        self.write(&mut known, true)
    }

    /// For a process that comes after this one in the same run of the machine.
    fn note_loss(&self, generation: u64, unmended: bool) -> Result<(), StoreError> {
        let text = Loss { boot: self.boot, generation, unmended }.encode();
        self.loss.write_at(text.as_bytes(), 0).map_err(|source| StoreError::Io {
            dir: self.disk.place().to_owned(),
            what: "note a loss",
            source,
        })
    }

    fn write(&self, known: &mut Known, clean: bool) -> Result<(), StoreError> {
        let generation = self.raised.load(Ordering::SeqCst);
        if generation != self.generation()
            && let Err(error) = self.note_loss(generation, known.unmended)
        {
            error!(dir = %self.disk.place().display(), generation, %error, "a loss cannot be noted");
        }
        let state = State { generation, boot: self.boot, clean, run: self.run };
        small_files::store(&*self.disk, State::FILE, &state.encode())?;
        self.durable.store(generation, Ordering::SeqCst);
        known.saved = true;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
