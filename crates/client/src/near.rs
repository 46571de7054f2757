//! Objects on iods of this machine, read without asking these: an iod has handed over a descriptor, and shows on a board whether
//! what is read through it is as good as its own answer.
//!
//! It is when, after the read, the iod's process still lives and has shown neither a cut meanwhile, nor a loss, nor a mgr's time
//! past the end of this client's lease; and when the object had its name before it. Else the iod is asked, as it is for what is
//! not in the machine's page cache, and as iods of other machines are.

use crate::{
    client::Core,
    inode::Inode,
    io::{self as targets, ReadAnswer},
    plan::{SlotRequest, size},
};
use bytes::BytesMut;
use pvfs_env::{
    Line,
    disk::PassedFile,
    memory::{BoardView, Room},
};
use pvfs_types::{DataGen, Slot};
use pvfs_wire::{Access, Capability, msg::data::OpenObject};
use std::{
    collections::BTreeMap,
    io::{Error, ErrorKind},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::coop::consume_budget,
};

/// So many objects are open at once.
const OPEN_MAX: usize = 256;
/// A descriptor costs a message: it is asked for when an iod has been asked for bytes of an object so often. If there is none to
/// have, then when it was asked twice as often.
const READS_MIN: u32 = 4;
/// About what one step of other tasks takes to copy.
const TURN_BYTES: u64 = 32 << 10;

/// How many more objects may be open.
pub(crate) fn permits() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(OPEN_MAX))
}

/// The objects of one file.
#[derive(Default)]
pub(crate) struct Near(Mutex<BTreeMap<Slot, Object>>);

/// One of them, of data generation `data_gen`.
struct Object {
    data_gen: DataGen,
    /// How often its iod was asked since there was a descriptor.
    reads: u32,
    opens_at: u32,
    open: Option<Arc<OpenFile>>,
}

/// An object that can be read from here.
struct OpenFile {
    file: PassedFile,
    board: BoardView,
    epoch: u64,
    line: Arc<Line>,
    _permit: OwnedSemaphorePermit,
}

/// Why nothing was read.
enum Unread {
    /// The iod must be asked this time.
    NotNow,
    /// It must be asked from now on.
    Void,
}

/// Reads by `request`, into `room` where there is one. `None`: ask the iod.
pub(crate) async fn read(
    core: &Core,
    inode: &Inode,
    capability: &Capability,
    request: &SlotRequest,
    room: Option<&Arc<Room>>,
) -> Option<ReadAnswer> {
    let open = inode.near.find(request.slot, capability.grant.data_gen)?;
    let lease = core.session.lease();
    if lease.session != capability.grant.session {
        return None;
    }
    match open.read(request, lease.until_ms, room) {
        Ok(answer) => {
            // Who reads on and on never waits for anything: others of this thread get their turn.
            for _ in 0..=request.bytes / TURN_BYTES {
                consume_budget().await;
            }
            core.counters.near_reads.inc();
            Some(answer)
        }
        Err(Unread::NotNow) => None,
        Err(Unread::Void) => {
            inode.near.forget(request.slot, &open);
            None
        }
    }
}

/// The iod has answered a read of the object, of which there is one: asks for a descriptor where that is due.
pub(crate) async fn was_asked(core: &Arc<Core>, inode: &Arc<Inode>, capability: Capability, slot: Slot) {
    let (dist, data_gen) = (capability.grant.dist, capability.grant.data_gen);
    if core.arena.is_none() || !inode.near.counts(slot, data_gen) {
        return;
    }
    let target = core.targets.locate(&dist, slot).await;
    let Some(permit) = Arc::clone(&core.near_permits).try_acquire_owned().ok() else { return };
    if !core.targets.lends(target) {
        return;
    }
    let number = pvfs_env::random::number();
    let make = |target, pass| OpenObject { target, pass, slot, number };
    // Whatever the iod has against it, it reads for us.
    let Ok((opened_gen, (opened, _))) =
        targets::call_slot(core, inode, capability, Access::READ, slot, &[], make).await
    else {
        return;
    };
    let passed = core.targets.view().peer(target).and_then(|peer| peer.passed(number));
    let Some((line, [object, board])) = passed else { return };
    let (Ok(file), Ok(board)) = (PassedFile::new(object), BoardView::map(&board)) else { return };
    let open = OpenFile { file, board, epoch: opened.epoch, line, _permit: permit };
    inode.near.opened(slot, opened_gen, open);
}

impl Near {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<Slot, Object>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn find(&self, slot: Slot, data_gen: DataGen) -> Option<Arc<OpenFile>> {
        self.with(|objects| {
            objects
                .get(&slot)
                .filter(|object| object.data_gen == data_gen)
                .and_then(|object| object.open.clone())
        })
    }

    /// Counts a read that the iod has answered. True: the object is to be opened.
    fn counts(&self, slot: Slot, data_gen: DataGen) -> bool {
        self.with(|objects| {
            let object = objects.entry(slot).or_insert_with(|| Object::new(data_gen));
            if object.data_gen < data_gen {
                *object = Object::new(data_gen);
            }
            object.reads = object.reads.saturating_add(1);
            let is_due = object.open.is_none() && object.reads >= object.opens_at;
            if is_due {
                (object.reads, object.opens_at) = (0, object.opens_at.saturating_mul(2));
            }
            is_due
        })
    }

    fn opened(&self, slot: Slot, data_gen: DataGen, open: OpenFile) {
        self.with(|objects| {
            if let Some(object) = objects.get_mut(&slot).filter(|object| object.data_gen == data_gen) {
                object.open = Some(Arc::new(open));
            }
        });
    }

    fn forget(&self, slot: Slot, open: &Arc<OpenFile>) {
        self.with(|objects| {
            if let Some(object) = objects.get_mut(&slot)
                && object.open.as_ref().is_some_and(|now| Arc::ptr_eq(now, open))
            {
                (object.open, object.reads) = (None, 0);
            }
        });
    }
}

impl Object {
    fn new(data_gen: DataGen) -> Object {
        Object { data_gen, reads: 0, opens_at: READS_MIN, open: None }
    }
}

impl OpenFile {
    fn read(
        &self,
        request: &SlotRequest,
        until_ms: u64,
        room: Option<&Arc<Room>>,
    ) -> Result<ReadAnswer, Unread> {
        let failed = |error: Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => Unread::NotNow,
            _ => Unread::Void,
        };
        let cuts_ended = self.board.cuts_ended();
        let object_len = self.file.len().map_err(failed)?.ok_or(Unread::Void)?;
        let (mut payload, mut got) = (BytesMut::new(), 0);
        if room.is_none() {
            payload.reserve(request.parts.iter().map(|part| size(part.present(object_len))).sum());
        }
        for part in &request.parts {
            let len = size(part.present(object_len));
            if len == 0 {
                continue;
            }
            let at = size(part.at);
            match room {
                Some(room) => self.file.read_to(&room.slice(at..at + len), part.object.0),
                None => self.file.read_at(&mut payload, len, part.object.0),
            }
            .map_err(failed)?;
            got += len as u64;
        }
        if self.line.is_broken() || self.board.is_void(self.epoch) {
            return Err(Unread::Void);
        }
        if !self.board.is_quiet(self.epoch, cuts_ended, until_ms) {
            return Err(Unread::NotNow);
        }
        Ok(ReadAnswer { object_len, payload: payload.freeze(), in_room: room.map(|_| got) })
    }
}
