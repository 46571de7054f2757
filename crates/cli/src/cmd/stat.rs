//! `pvfs stat`: an inode's attributes and where a file's bytes lie.

use crate::{
    args::Global, error::CliError, out, remote, remote::Remote, row, show, show::Owners, spec::Spec, unit,
};
use pvfs_types::{Attr, FileKind, LayoutHint};
use pvfs_wire::msg::session::Targets;
use serde_json::{Value, json};

/// Show a file's attributes and where its bytes lie
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pvfs stat /data/big.dat\n  pvfs stat --json /data/big.dat | jq .distribution"
)]
pub struct Args {
    /// /path, pvfs:/path or pvfs://host:port/path
    #[arg(required = true, value_name = "PATH", value_parser = Spec::arg())]
    paths: Vec<Spec>,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Follow a symbolic link
    #[arg(short = 'L', long)]
    follow: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let specs: Vec<&Spec> = args.paths.iter().collect();
    remote::run(global, &specs, async |remote| {
        let mut failed = false;
        for spec in &args.paths {
            match remote.attr(&spec.path, args.follow).await {
                Ok(attr) => {
                    let targets = targets_of(&remote, &attr).await;
                    let shown = if args.json {
                        format!("{:#}\n", to_json(spec, &attr, &targets))
                    } else {
                        to_text(&remote, spec, &attr, &targets).await
                    };
                    out::write(&shown)?;
                }
                Err(error) => {
                    eprintln!("pvfs stat: {}", CliError::remote(spec.display())(error));
                    failed = true;
                }
            }
        }
        if failed { Err(CliError::Told) } else { Ok(()) }
    })
}

/// A file's targets, slot by slot: number and address.
pub type Placed = Vec<(u32, String)>;

/// Where the slots of a file are.
pub async fn targets_of(remote: &Remote, attr: &Attr) -> Placed {
    let (Some(dist), Ok(known)) = (attr.dist, remote.targets().await) else { return Vec::new() };
    let Targets { targets, iodtabs, .. } = known;
    let Some(iodtab) = iodtabs.iter().find(|iodtab| iodtab.generation == dist.iodtab) else {
        return Vec::new();
    };
    let at = |slot| {
        let id = *iodtab.targets.get(dist.place(slot, iodtab.targets.len().max(1)))?;
        let addr = targets.iter().find(|target| target.id == id).map(|target| target.addr.clone());
        Some((id.0, addr.unwrap_or_default()))
    };
    dist.slots().filter_map(at).collect()
}

async fn to_text(remote: &Remote, spec: &Spec, attr: &Attr, targets: &Placed) -> String {
    let owners = Owners::load();
    let owner = |name: String, id: u32| if name == id.to_string() { name } else { format!("{name} ({id})") };
    let mut name = spec.display();
    if attr.kind == FileKind::Symlink
        && let Ok(target) = remote.client.readlink(&remote.cred, attr.ino).await
    {
        name = format!("{name} -> {}", crate::spec::os(&target).display());
    }
    let mut rows = vec![
        row!["Path:", name],
        row!["Kind:", show::kind_text(attr.kind)],
        row!["Size:", size_text(attr.size)],
        row!["Mode:", format!("{:04o} ({})", attr.mode, show::mode_text(attr.kind, attr.mode))],
        row!["Owner:", owner(owners.user(attr.uid), attr.uid)],
        row!["Group:", owner(owners.group(attr.gid), attr.gid)],
        row!["Inode:", attr.ino],
        row!["Links:", attr.nlink],
        row!["Accessed:", show::date_long(attr.atime)],
        row!["Modified:", show::date_long(attr.mtime)],
        row!["Changed:", show::date_long(attr.ctime)],
        row!["Born:", show::date_long(attr.btime)],
    ];
    if matches!(attr.kind, FileKind::CharDev | FileKind::BlockDev) {
        rows.push(row!["Device:", format!("{}, {}", attr.rdev.0, attr.rdev.1)]);
    }
    if let Some(layout) = attr.layout {
        rows.push(row!["Layout:", format!("{} (what new files in it get)", layout_text(layout))]);
    }
    rows.extend(distribution_rows(attr, targets));
    show::table(&rows, &[])
}

/// The distribution of a file, as rows.
pub fn distribution_rows(attr: &Attr, targets: &Placed) -> Vec<Vec<String>> {
    let Some(dist) = attr.dist else { return Vec::new() };
    let mut rows = vec![
        row!["Base:", dist.base],
        row!["Pcount:", dist.pcount],
        row!["Strip size:", size_text(u64::from(dist.ssize))],
        row!["Iodtab:", dist.iodtab.0],
    ];
    for (slot, (id, addr)) in targets.iter().enumerate() {
        rows.push(row![if slot == 0 { "Targets:" } else { "" }, format!("slot {slot}: t{id} at {addr}")]);
    }
    rows
}

/// A wish for new files, as text.
pub fn layout_text(layout: LayoutHint) -> String {
    let or_any = |value: Option<String>| value.unwrap_or_else(|| "any".into());
    format!(
        "base {}, pcount {}, strip size {}",
        or_any(layout.base.map(|base| base.to_string())),
        or_any(layout.pcount.map(|pcount| pcount.to_string())),
        or_any(layout.ssize.map(|ssize| unit::show_bytes(u64::from(ssize)))),
    )
}

fn size_text(bytes: u64) -> String {
    if bytes < 1024 { bytes.to_string() } else { format!("{bytes} ({})", unit::show_bytes(bytes)) }
}

fn to_json(spec: &Spec, attr: &Attr, targets: &Placed) -> Value {
    let time = |time: pvfs_types::Timestamp| json!({ "secs": time.secs, "nanos": time.nanos });
    let distribution = attr.dist.map(|dist| {
        let targets: Vec<_> = targets.iter().map(|(id, addr)| json!({ "id": id, "addr": addr })).collect();
        json!({
            "base": dist.base, "pcount": dist.pcount, "strip_bytes": dist.ssize, "iodtab": dist.iodtab.0,
            "targets": targets,
        })
    });
    let layout = attr
        .layout
        .map(|layout| json!({ "base": layout.base, "pcount": layout.pcount, "strip_bytes": layout.ssize }));
    json!({
        "path": spec.display(),
        "kind": show::kind_text(attr.kind),
        "ino": attr.ino.0,
        "mode": attr.mode,
        "uid": attr.uid,
        "gid": attr.gid,
        "nlink": attr.nlink,
        "size": attr.size,
        "atime": time(attr.atime),
        "mtime": time(attr.mtime),
        "ctime": time(attr.ctime),
        "btime": time(attr.btime),
        "data_generation": attr.data_gen.0,
        "distribution": distribution,
        "layout": layout,
    })
}
