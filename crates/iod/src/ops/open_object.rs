//! Hands a client of this machine a descriptor of an object, to read it by itself. Nothing is remembered of it: what it must
//! know of later it sees on the board, which comes along.

use crate::{guard, mgr_time::Admitted, service::Iod, target};
use pvfs_env::memory::Board;
use pvfs_net::{Incoming, Replier};
use pvfs_types::{Errno, ObjectId};
use pvfs_wire::{
    Access, Refusal, Status,
    msg::data::{ObjectOpened, OpenObject},
};
use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

pub struct OpenAnswer {
    opened: ObjectOpened,
    number: u64,
    object: OwnedFd,
    board: Arc<Board>,
}

impl super::Answer for OpenAnswer {
    async fn send(self, reply: Replier) {
        match reply.pass(self.number, [self.object.as_fd(), self.board.descriptor().as_fd()]) {
            Ok(()) => reply.ok(&self.opened).await,
            Err(error) => {
                let text = format!("a descriptor cannot be passed: {error}");
                reply.refuse(Refusal::new(Status::Errno(Errno::EOPNOTSUPP), text)).await;
            }
        }
    }
}

pub fn serve(iod: &Iod, request: &Incoming, admitted: &Admitted) -> Result<OpenAnswer, Refusal> {
    let req: OpenObject = request.decode()?;
    let refused = |errno, text: &str| Refusal::new(Status::Errno(errno), text);
    let Some(board) = &iod.board else {
        return Err(refused(Errno::EOPNOTSUPP, "this iod has no board to show"));
    };
    // Before all that is checked: whatever changes after that voids this.
    let epoch = board.epoch();
    let target = iod.target(req.target)?;
    guard::check(&req.pass, &iod.key, admitted.now_ms, Access::READ, &[req.slot])?;
    target.check_store(req.pass.store)?;
    let store = target.store.generation();
    let grant = &req.pass.capability.grant;
    let id = ObjectId { ino: grant.ino, data_gen: grant.data_gen, slot: req.slot };
    let object = target.store.pass(id).map_err(|error| target::refusal(&error))?;
    let object = object.ok_or_else(|| refused(Errno::ENOENT, "there is no such object"))?;
    let opened = ObjectOpened { generations: target.generations(store), epoch };
    Ok(OpenAnswer { opened, number: req.number, object, board: Arc::clone(board) })
}
