//! The first frames of every connection: who are you, and do you know the secret?
//!
//! ```text
//! dialler                              listener
//!   Hello { nonce, role, … }     ──►
//!                                ◄──   Challenge { nonce }          (nothing that a stranger could use)
//!   Prove { proof }              ──►   checks the proof; drops this client's older connections
//!                                ◄──   Welcome { proof, … }
//! ```
//!
//! A proof is the BLAKE3 keyed hash, under the secret of the dialler's role, of a side's label and the encoded
//! `Hello` and `Challenge`: neither side's proof can be replayed or reflected. Anything but a right proof gets a
//! refusal and the connection is closed.

use super::request;
use crate::{Refusal, Status};
use minicbor::{Decode, Encode};
use pvfs_types::FsId;

/// What the dialler is. Daemons prove knowledge of the daemons' secret, clients of the cluster's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    #[n(0)]
    Client,
    #[n(1)]
    Mgr,
    #[n(2)]
    Iod,
}

impl Role {
    pub fn is_daemon(self) -> bool {
        self != Role::Client
    }
}

/// The dialler's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    #[n(0)]
    pub version_min: u16,
    #[n(1)]
    pub version_max: u16,
    /// The file system the dialler wants; `None` from a client that does not know yet (the proof still decides).
    #[n(2)]
    pub fs: Option<FsId>,
    #[n(3)]
    pub role: Role,
    /// Which client or daemon *process*: random, drawn at its start.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub client: [u8; 16],
    /// Rises with each connection of `client` to one listener. Before it answers `Prove`, the listener drops this
    /// client's connections with lower numbers and finishes what of them was running, so that nothing sent on them
    /// can land later.
    #[n(5)]
    pub connection: u64,
    #[cbor(n(6), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
    /// For people: program and host.
    #[n(7)]
    pub label: String,
}

/// The listener's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Challenge {
    #[n(0)]
    pub version: u16,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
}

/// The dialler's second frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Prove {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub proof: [u8; 32],
}

/// The listener's answer to [`Prove`]: requests may follow.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub proof: [u8; 32],
    #[n(1)]
    pub fs: FsId,
    #[n(2)]
    pub role: Role,
    /// Random, drawn at the listener's start: another one means that the process was restarted.
    #[n(3)]
    pub process: u64,
    #[n(4)]
    pub label: String,
}

request! {
    Hello => Hello, Challenge;
    Prove => Prove, Welcome;
}

/// The secret that a proof is made with: 32 random bytes, of the cluster or of its daemons.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    fn proof(&self, side: &str, hello: &Hello, challenge: &Challenge) -> blake3::Hash {
        let key = blake3::derive_key("pvfs 2026 hello proof key", &self.0);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(side.as_bytes());
        hasher.update(&[0]);
        hasher.update(&crate::encode(&(hello, challenge)));
        hasher.finalize()
    }

    pub fn dialler_proof(&self, hello: &Hello, challenge: &Challenge) -> [u8; 32] {
        *self.proof("dialler", hello, challenge).as_bytes()
    }

    pub fn listener_proof(&self, hello: &Hello, challenge: &Challenge) -> [u8; 32] {
        *self.proof("listener", hello, challenge).as_bytes()
    }

    /// Compares in constant time.
    pub fn is_dialler_proof(&self, proof: &[u8; 32], hello: &Hello, challenge: &Challenge) -> bool {
        self.proof("dialler", hello, challenge) == *proof
    }

    pub fn is_listener_proof(&self, proof: &[u8; 32], hello: &Hello, challenge: &Challenge) -> bool {
        self.proof("listener", hello, challenge) == *proof
    }
}

/// The highest version both sides speak.
pub fn negotiate(hello: &Hello) -> Result<u16, Refusal> {
    let version = hello.version_max.min(crate::PROTOCOL_VERSION);
    if version < hello.version_min.max(crate::PROTOCOL_VERSION_MIN) {
        return Err(Refusal::new(
            Status::Version,
            format!(
                "the peer speaks protocol versions {} to {}, this daemon {} to {}: upgrade the older side",
                hello.version_min,
                hello.version_max,
                crate::PROTOCOL_VERSION_MIN,
                crate::PROTOCOL_VERSION
            ),
        ));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(version_min: u16, version_max: u16) -> Hello {
        Hello {
            version_min,
            version_max,
            fs: None,
            role: Role::Client,
            client: [1; 16],
            connection: 1,
            nonce: [2; 32],
            label: "test".into(),
        }
    }

    #[test]
    fn proofs_fit_only_their_own_side_secret_and_connection() {
        let (secret, challenge) = (Secret([3; 32]), Challenge { version: 1, nonce: [4; 32] });
        let proof = secret.dialler_proof(&hello(1, 1), &challenge);
        assert!(secret.is_dialler_proof(&proof, &hello(1, 1), &challenge));
        assert!(!secret.is_listener_proof(&proof, &hello(1, 1), &challenge), "reflected");
        assert!(!Secret([5; 32]).is_dialler_proof(&proof, &hello(1, 1), &challenge), "another secret");
        let replayed = Challenge { version: 1, nonce: [6; 32] };
        assert!(!secret.is_dialler_proof(&proof, &hello(1, 1), &replayed), "replayed");
        assert!(!secret.is_dialler_proof(&proof, &hello(1, 2), &challenge), "downgraded");
    }

    #[test]
    fn versions_without_overlap_are_refused() {
        assert_eq!(negotiate(&hello(1, 9)), Ok(1));
        assert!(matches!(negotiate(&hello(2, 9)), Err(Refusal { status: Status::Version, .. })));
        assert!(matches!(negotiate(&hello(0, 0)), Err(Refusal { status: Status::Version, .. })));
    }
}
