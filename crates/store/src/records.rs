//! The records of a target directory: what they say and how they are written. Pure.

use crate::{
    syncing::Extent,
    text::{self, RecordError},
};
use pvfs_types::{FsId, TargetId, TargetUuid};

/// The version of the target directory's format that this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Whose target this is. Written once, by format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub fs: FsId,
    pub target: TargetUuid,
}

/// Whether what the target acknowledged is all there. Rewritten at each start and stop, and when a write-back failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Raised when acknowledged bytes may have been lost.
    pub generation: u64,
    /// The run of the machine in which the store was last opened.
    pub boot: u64,
    /// The store was closed with everything synced. Else a process uses it, or used it until it or its machine died.
    pub clean: bool,
    /// How often the store was opened. Marks of writes rise with it.
    pub run: u64,
}

/// The store generation that a process knows of, for the next one in the same run of the machine, in case that the disk does
/// not take it into [`State`]: a full one, say. Written over in place, which needs no room, and without a sync, which only
/// the machine's death would need; and that raises the generation anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    pub boot: u64,
    pub generation: u64,
    /// A sync failed, and what it left in memory only was not written once more: the next process must, or its syncs succeed
    /// without doing anything.
    pub unmended: bool,
}

/// What a process is syncing right now, for the next one in the same run of the machine. As [`Loss`], written over in place
/// and without a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    pub boot: u64,
    pub extent: Extent,
}

/// The number the mgr gave this target when it joined. Written once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    pub target: TargetUuid,
    pub id: TargetId,
}

/// The latest mgr time this target followed: leases that ended before it stay refused. Written often and without a
/// sync, so only good within one run of the machine, or after a clean stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MgrTime {
    pub boot: u64,
    /// In milliseconds.
    pub time_ms: u64,
}

impl Identity {
    pub(crate) const FILE: &str = "identity";

    pub fn encode(&self) -> String {
        let fields = [("fs", self.fs.to_string()), ("target", self.target.to_string())];
        text::encode("identity", FORMAT_VERSION, &fields)
    }

    pub fn decode(bytes: &[u8]) -> Result<Identity, RecordError> {
        let fields = text::decode(bytes, "identity", FORMAT_VERSION)?;
        Ok(Identity {
            fs: fields.get("fs", |v| v.parse().ok())?,
            target: fields.get("target", |v| v.parse().ok())?,
        })
    }
}

impl State {
    pub(crate) const FILE: &str = "state";

    pub fn encode(&self) -> String {
        let clean = if self.clean { "yes" } else { "no" };
        let fields = [
            ("generation", self.generation.to_string()),
            ("boot", hex(self.boot)),
            ("clean", clean.to_owned()),
            ("run", self.run.to_string()),
        ];
        text::encode("state", 1, &fields)
    }

    pub fn decode(bytes: &[u8]) -> Result<State, RecordError> {
        let fields = text::decode(bytes, "state", 1)?;
        Ok(State {
            generation: fields.get("generation", |v| v.parse().ok())?,
            boot: fields.get("boot", from_hex)?,
            clean: fields.get("clean", |v| match v {
                "yes" => Some(true),
                "no" => Some(false),
                _ => None,
            })?,
            // Earlier builds did not count.
            run: fields.find("run", |v| v.parse().ok())?.unwrap_or(0),
        })
    }
}

impl Loss {
    pub(crate) const FILE: &str = "loss";

    /// Always of the same length.
    pub fn encode(&self) -> String {
        let fields = [
            ("boot", hex(self.boot)),
            ("generation", format!("{:020}", self.generation)),
            ("unmended", u8::from(self.unmended).to_string()),
        ];
        text::encode("loss", 1, &fields)
    }

    pub fn decode(bytes: &[u8]) -> Result<Loss, RecordError> {
        let fields = text::decode(bytes, "loss", 1)?;
        Ok(Loss {
            boot: fields.get("boot", from_hex)?,
            generation: fields.get("generation", |v| v.parse().ok())?,
            // Earlier versions did not tell.
            unmended: fields.find("unmended", |v| Some(v == "1"))?.unwrap_or(false),
        })
    }
}

impl Witness {
    pub(crate) const FILE: &str = "syncing";

    /// Always of the same length.
    pub fn encode(&self) -> String {
        let extent = match self.extent {
            Extent::Nothing => "none",
            Extent::Objects => "some",
            Extent::All => "full",
        };
        text::encode("syncing", 1, &[("boot", hex(self.boot)), ("extent", extent.to_owned())])
    }

    pub fn decode(bytes: &[u8]) -> Result<Witness, RecordError> {
        let fields = text::decode(bytes, "syncing", 1)?;
        Ok(Witness {
            boot: fields.get("boot", from_hex)?,
            extent: fields.get("extent", |v| match v {
                "none" => Some(Extent::Nothing),
                "some" => Some(Extent::Objects),
                "full" => Some(Extent::All),
                _ => None,
            })?,
        })
    }
}

impl Membership {
    pub(crate) const FILE: &str = "target-id";

    pub fn encode(&self) -> String {
        let fields = [("target", self.target.to_string()), ("id", self.id.0.to_string())];
        text::encode("target-id", 1, &fields)
    }

    pub fn decode(bytes: &[u8]) -> Result<Membership, RecordError> {
        let fields = text::decode(bytes, "target-id", 1)?;
        Ok(Membership {
            target: fields.get("target", |v| v.parse().ok())?,
            id: TargetId(fields.get("id", |v| v.parse().ok())?),
        })
    }
}

impl MgrTime {
    pub(crate) const FILE: &str = "mgr-time";

    /// Always of the same length, so that it can be written over in place.
    pub fn encode(&self) -> String {
        text::encode("mgr-time", 1, &[("boot", hex(self.boot)), ("ms", format!("{:020}", self.time_ms))])
    }

    pub fn decode(bytes: &[u8]) -> Result<MgrTime, RecordError> {
        let fields = text::decode(bytes, "mgr-time", 1)?;
        Ok(MgrTime { boot: fields.get("boot", from_hex)?, time_ms: fields.get("ms", |v| v.parse().ok())? })
    }
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn from_hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TARGET: TargetUuid = TargetUuid([0x22; 16]);

    #[test]
    fn golden_identity() {
        let identity = Identity { fs: FsId([0x11; 16]), target: TARGET };
        let text = identity.encode();
        assert_eq!(
            text,
            "pvfs identity 1\n\
             fs 11111111-1111-1111-1111-111111111111\n\
             target 22222222-2222-2222-2222-222222222222\n\
             crc32c a0b4ecf7\n"
        );
        assert_eq!(Identity::decode(text.as_bytes()), Ok(identity));
    }

    #[test]
    fn golden_state() {
        let state = State { generation: 7, boot: 0xab, clean: false, run: 12 };
        let text = state.encode();
        assert_eq!(
            text,
            "pvfs state 1\ngeneration 7\nboot 00000000000000ab\nclean no\nrun 12\ncrc32c a5362a7b\n"
        );
        assert_eq!(State::decode(text.as_bytes()), Ok(state));
        let before_runs_were_counted =
            "pvfs state 1\ngeneration 7\nboot 00000000000000ab\nclean no\ncrc32c a2d16ca2\n";
        assert_eq!(State::decode(before_runs_were_counted.as_bytes()), Ok(State { run: 0, ..state }));
    }

    #[test]
    fn golden_loss() {
        let loss = Loss { boot: 0xab, generation: 8, unmended: true };
        let text = loss.encode();
        assert_eq!(
            text,
            "pvfs loss 1\nboot 00000000000000ab\ngeneration 00000000000000000008\nunmended 1\ncrc32c fa220829\n"
        );
        assert_eq!(Loss::decode(text.as_bytes()), Ok(loss));
        let older = "pvfs loss 1\nboot 00000000000000ab\ngeneration 00000000000000000008\ncrc32c b9747dda\n";
        assert_eq!(Loss::decode(older.as_bytes()), Ok(Loss { unmended: false, ..loss }));
        assert_eq!(text.len(), Loss { boot: u64::MAX, generation: u64::MAX, unmended: false }.encode().len());
    }

    #[test]
    fn golden_syncing() {
        let witness = |extent| Witness { boot: 0xab, extent };
        let text = witness(Extent::Objects).encode();
        assert_eq!(text, "pvfs syncing 1\nboot 00000000000000ab\nextent some\ncrc32c 164dbf70\n");
        for extent in [Extent::Nothing, Extent::Objects, Extent::All] {
            let other = witness(extent).encode();
            assert_eq!(Witness::decode(other.as_bytes()), Ok(witness(extent)));
            assert_eq!(other.len(), text.len());
        }
    }

    #[test]
    fn golden_target_id() {
        let membership = Membership { target: TARGET, id: TargetId(3) };
        let text = membership.encode();
        assert_eq!(
            text,
            "pvfs target-id 1\ntarget 22222222-2222-2222-2222-222222222222\nid 3\ncrc32c 74f3ac50\n"
        );
        assert_eq!(Membership::decode(text.as_bytes()), Ok(membership));
    }

    #[test]
    fn golden_mgr_time() {
        let time = MgrTime { boot: 0xab, time_ms: 1_700_000_000_000 };
        let text = time.encode();
        assert_eq!(
            text,
            "pvfs mgr-time 1\nboot 00000000000000ab\nms 00000001700000000000\ncrc32c 263495ed\n"
        );
        assert_eq!(MgrTime::decode(text.as_bytes()), Ok(time));
        assert_eq!(text.len(), MgrTime { boot: u64::MAX, time_ms: u64::MAX }.encode().len());
    }

    #[test]
    fn a_record_of_a_newer_format_is_told_apart_from_damage() {
        let newer = text::encode("identity", 2, &[("shape", "unknown".into())]);
        assert_eq!(
            Identity::decode(newer.as_bytes()),
            Err(RecordError::Version { found: 2, known: FORMAT_VERSION })
        );
    }

    proptest! {
        /// Fields of any content behind a checksum that fits: past the first gate of the decoders.
        #[test]
        fn no_fields_make_a_decoder_panic(
            kind in "(identity|state|loss|target-id|mgr-time)",
            fields in proptest::collection::vec(
                ("(fs|target|generation|boot|clean|run|id|ms)", "[0-9a-f+-]{0,40}"), 0..6,
            ),
        ) {
            let fields: Vec<_> = fields.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
            let text = text::encode(&kind, 1, &fields);
            let bytes = text.as_bytes();
            let _ = (Identity::decode(bytes), State::decode(bytes));
            let _ = (Membership::decode(bytes), MgrTime::decode(bytes), Loss::decode(bytes));
        }
    }
}
