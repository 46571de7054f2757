//! What `pvfs status --json` says, for tests.

use serde_json::Value;
use std::collections::BTreeMap;

/// The whole answer.
#[derive(Clone, Debug)]
pub struct Status {
    pub daemons: Vec<Daemon>,
    pub json: Value,
}

/// One daemon of it.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// `mgr` or `iod`.
    pub role: String,
    pub addr: String,
    pub up: bool,
    pub counters: BTreeMap<String, u64>,
}

impl Status {
    #[track_caller]
    pub fn parse(text: &str) -> Status {
        let json: Value = serde_json::from_str(text)
            .unwrap_or_else(|error| panic!("status --json is no JSON: {error}: {text}"));
        let daemons = json["daemons"].as_array().expect("daemons").iter().map(Daemon::from_json).collect();
        Status { daemons, json }
    }

    /// The daemon that listens on `addr`.
    #[track_caller]
    pub fn at(&self, addr: &str) -> &Daemon {
        let found = self.daemons.iter().find(|daemon| daemon.addr == addr);
        found.unwrap_or_else(|| panic!("status knows no daemon at {addr}: {}", self.json))
    }
}

impl Daemon {
    fn from_json(json: &Value) -> Daemon {
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        let counters = json["counters"]
            .as_object()
            .map(|map| map.iter().map(|(name, value)| (name.clone(), value.as_u64().unwrap_or(0))).collect());
        Daemon {
            role: text("role"),
            addr: text("addr"),
            up: json["up"].as_bool().unwrap_or(false),
            counters: counters.unwrap_or_default(),
        }
    }
}

/// How many requests of each operation a daemon has received from peers of role `peer`, from its counters.
pub fn requests_received(counters: &BTreeMap<String, u64>, peer: &str) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for (series, &count) in counters {
        let label = |key: &str| {
            let (_, rest) = series.split_once(&format!("{key}=\""))?;
            rest.split_once('"').map(|(value, _)| value)
        };
        if series.starts_with("pvfs_messages_total{")
            && label("dir") == Some("received")
            && label("kind") == Some("request")
            && label("peer") == Some(peer)
            && let Some(op) = label("op")
        {
            *out.entry(op.to_owned()).or_insert(0) += count;
        }
    }
    out
}
