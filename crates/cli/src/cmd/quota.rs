//! `pvfs quota`: what users, groups and trees use, and what they may.

use crate::{
    args::Global,
    error::CliError,
    out,
    remote::{self, Remote},
    row,
    show::{self, Owners},
    spec::Spec,
    unit::{parse_bytes, parse_count, show_bytes},
};
use pvfs_client::{LimitChange, Quota};
use pvfs_types::QuotaOwner;
use serde_json::{Value, json};

/// Show or set what users, groups and directory trees may use
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Bytes are the sizes of files, as `ls -l` shows them; inodes are files, directories, links and so on. A directory with a limit \
is a tree: all below it counts, and names do not move in or out (mv copies, as between two file systems).
Users see what they use themselves; root, and who owns the root directory, see all, and set limits.

Examples:
  pvfs quota set --user ann --bytes 10G --inodes 1M
  pvfs quota set --tree /projects/climate --bytes 5T
  pvfs quota set --group staff --bytes none      no limit of bytes any more
  pvfs quota show                                all, or what is yours
  pvfs quota show --user ann --json
  pvfs quota clear --user ann")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show what is used, and what may be
    Show {
        #[command(flatten)]
        whose: Whose,
        /// As JSON, in bytes
        #[arg(long)]
        json: bool,
    },
    /// Set limits; one that is not named stays as it is
    Set {
        #[command(flatten)]
        whose: Whose,
        /// The sizes of all files together: 500M, 10G, 5T (powers of 1024), or none
        #[arg(long, value_name = "SIZE", value_parser = parse_byte_limit)]
        bytes: Option<LimitChange>,
        /// How many files, directories and so on: 5000, 20K, 1M (powers of 1000), or none
        #[arg(long, value_name = "COUNT", value_parser = parse_inode_limit)]
        inodes: Option<LimitChange>,
    },
    /// Take both limits away
    Clear {
        #[command(flatten)]
        whose: Whose,
    },
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Whose {
    /// A user, by name or number
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// A group, by name or number
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// A directory, with all below it: /path, pvfs:/path or pvfs://host:port/path
    #[arg(long, value_name = "DIR", value_parser = Spec::arg())]
    tree: Option<Spec>,
}

fn parse_byte_limit(text: &str) -> Result<LimitChange, String> {
    if text == "none" { Ok(LimitChange::Clear) } else { parse_bytes(text).map(LimitChange::Set) }
}

fn parse_inode_limit(text: &str) -> Result<LimitChange, String> {
    if text == "none" { Ok(LimitChange::Clear) } else { parse_count(text).map(LimitChange::Set) }
}

pub fn run(args: Args, global: &Global) -> Result<(), CliError> {
    let owners = Owners::load();
    match args.what {
        What::Show { whose, json } => remote::run(global, &whose.specs(), async |remote| {
            let found = match whose.find(&remote, &owners).await? {
                Some(owner) => remote.client.quota(&remote.cred, owner).await,
                None => remote.client.quotas(&remote.cred).await,
            };
            let mut found = found.map_err(CliError::remote(whose.text()))?;
            found.quotas.sort_by_key(|quota| (rank(quota.owner), quota.owner));
            if json {
                let quotas: Vec<Value> = found.quotas.iter().map(|quota| to_json(quota, &owners)).collect();
                let all = json!({ "counted": found.counted, "quotas": quotas });
                return out::line(format_args!("{all:#}"));
            }
            if !found.counted {
                return out::line(format_args!(
                    "no limit was ever set, so nothing is counted: `pvfs quota set` begins to"
                ));
            }
            out::write(to_table(&found.quotas, &owners))
        }),
        What::Set { whose, bytes: None, inodes: None } => {
            Err(CliError::Usage { text: format!("{}: set --bytes, --inodes or both", whose.text()) })
        }
        What::Set { whose, bytes, inodes } => {
            set(&whose, &owners, global, bytes.unwrap_or_default(), inodes.unwrap_or_default())
        }
        What::Clear { whose } => set(&whose, &owners, global, LimitChange::Clear, LimitChange::Clear),
    }
}

fn set(
    whose: &Whose,
    owners: &Owners,
    global: &Global,
    bytes: LimitChange,
    inodes: LimitChange,
) -> Result<(), CliError> {
    remote::run(global, &whose.specs(), async |remote| {
        let Some(owner) = whose.find(&remote, owners).await? else {
            return Err(CliError::Usage { text: "whose? Name one by --user, --group or --tree".into() });
        };
        let set = remote.client.set_quota(&remote.cred, owner, bytes, inodes).await;
        let quota = set.map_err(CliError::remote(whose.text()))?;
        out::write(to_table(&[quota], owners))
    })
}

impl Whose {
    fn specs(&self) -> Vec<&Spec> {
        self.tree.iter().collect()
    }

    /// As the user wrote it.
    fn text(&self) -> String {
        match (&self.user, &self.group, &self.tree) {
            (Some(user), ..) => format!("user {user}"),
            (_, Some(group), _) => format!("group {group}"),
            (.., Some(tree)) => tree.display(),
            _ => "quotas".to_owned(),
        }
    }

    async fn find(&self, remote: &Remote, owners: &Owners) -> Result<Option<QuotaOwner>, CliError> {
        let unknown = |what: &str, name: &str| CliError::Usage {
            text: format!(
                "no {what} {name} in /etc/{}: use the number",
                if what == "user" { "passwd" } else { "group" }
            ),
        };
        if let Some(user) = &self.user {
            let uid = owners.find_user(user).ok_or_else(|| unknown("user", user))?;
            return Ok(Some(QuotaOwner::User(uid)));
        }
        if let Some(group) = &self.group {
            let gid = owners.find_group(group).ok_or_else(|| unknown("group", group))?;
            return Ok(Some(QuotaOwner::Group(gid)));
        }
        let Some(tree) = &self.tree else { return Ok(None) };
        let top = remote.attr(&tree.path, true).await.map_err(CliError::remote(tree.display()))?;
        Ok(Some(QuotaOwner::Tree(top.ino)))
    }
}

/// Users first, then groups, then trees.
fn rank(owner: QuotaOwner) -> u8 {
    match owner {
        QuotaOwner::User(_) => 0,
        QuotaOwner::Group(_) => 1,
        QuotaOwner::Tree(_) => 2,
    }
}

/// Its kind and its name.
fn words(quota: &Quota, owners: &Owners) -> (&'static str, String) {
    match quota.owner {
        QuotaOwner::User(uid) => ("user", owners.user(uid)),
        QuotaOwner::Group(gid) => ("group", owners.group(gid)),
        QuotaOwner::Tree(top) => (
            "tree",
            match &quota.path {
                Some(path) => String::from_utf8_lossy(path).into_owned(),
                None => format!("inode {top} (removed)"),
            },
        ),
    }
}

fn percent(used: u64, limit: u64) -> Option<u64> {
    u64::try_from(u128::from(used) * 100 / u128::from(limit.max(1))).ok()
}

fn to_table(quotas: &[Quota], owners: &Owners) -> String {
    let share = |used: u64, limit: Option<u64>| match limit {
        Some(0) if used == 0 => "100%".to_owned(),
        Some(limit) => percent(used, limit).map_or_else(|| "-".to_owned(), |percent| format!("{percent}%")),
        None => "-".to_owned(),
    };
    let mut rows = vec![row!["", "NAME", "BYTES", "LIMIT", "USE", "INODES", "LIMIT", "USE", ""]];
    for quota in quotas {
        let (kind, name) = words(quota, owners);
        let note = match quota.bytes_ahead {
            0 => String::new(),
            ahead => format!("+ {} kept for files being written", show_bytes(ahead)),
        };
        rows.push(row![
            kind,
            name,
            show_bytes(quota.bytes),
            quota.bytes_limit.map_or_else(|| "none".to_owned(), show_bytes),
            share(quota.bytes, quota.bytes_limit),
            quota.inodes,
            quota.inodes_limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
            share(quota.inodes, quota.inodes_limit),
            note,
        ]);
    }
    show::table(&rows, &[2, 3, 4, 5, 6, 7])
}

fn to_json(quota: &Quota, owners: &Owners) -> Value {
    let (kind, name) = words(quota, owners);
    let id = match quota.owner {
        QuotaOwner::User(id) | QuotaOwner::Group(id) => u64::from(id),
        QuotaOwner::Tree(top) => top.0,
    };
    json!({
        "kind": kind,
        "id": id,
        "name": name,
        "bytes": quota.bytes,
        "bytes_ahead": quota.bytes_ahead,
        "bytes_limit": quota.bytes_limit,
        "inodes": quota.inodes,
        "inodes_limit": quota.inodes_limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_use_limits_and_shares() {
        let quota = |owner, bytes, bytes_limit, path| Quota {
            owner,
            bytes,
            bytes_ahead: 0,
            bytes_limit,
            inodes: 12,
            inodes_limit: Some(24),
            path,
        };
        let quotas = [
            quota(QuotaOwner::User(4_000_000), 5 << 30, Some(10 << 30), None),
            Quota {
                bytes_ahead: 1 << 20,
                ..quota(QuotaOwner::Tree(pvfs_types::Ino(9)), 7, None, Some(b"/p".to_vec()))
            },
        ];
        let lines = to_table(&quotas, &Owners::load());
        let words: Vec<Vec<&str>> = lines.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1], ["user", "4000000", "5.0", "GiB", "10", "GiB", "50%", "12", "24", "50%"]);
        assert_eq!(words[2][..8], ["tree", "/p", "7", "B", "none", "-", "12", "24"]);
        assert!(lines.contains("+ 1.0 MiB kept for files being written"), "{lines}");
    }
}
