//! `pvfs ls`: lists directories.

use crate::{
    args::Global,
    error::CliError,
    out, remote,
    remote::Remote,
    row, show,
    show::Owners,
    spec::{Spec, join, os},
    unit,
};
use pvfs_client::ClientError;
use pvfs_types::{Attr, FileKind, Timestamp};
use std::fmt::Write as _;

/// List directories
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pvfs ls\n  pvfs ls -l /data\n  pvfs ls -la -H /\n  pvfs ls -ld /data")]
pub struct Args {
    /// /path, pvfs:/path or pvfs://host:port/path
    #[arg(value_name = "PATH", default_value = "/", value_parser = Spec::arg())]
    paths: Vec<Spec>,
    /// Kind, mode, links, owner, group, size and date too
    #[arg(short)]
    long: bool,
    /// Names that begin with a dot too
    #[arg(short)]
    all: bool,
    /// Sizes as 1.5 GiB
    #[arg(short = 'H', long = "human")]
    human: bool,
    /// The directory itself, not what is in it
    #[arg(short)]
    directory: bool,
}

/// A line to be.
struct Line {
    name: String,
    attr: Attr,
    /// Where a symbolic link leads.
    link: Option<Vec<u8>>,
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    let specs: Vec<&Spec> = args.paths.iter().collect();
    remote::run(global, &specs, async |remote| {
        let mut failed = false;
        for (place, spec) in args.paths.iter().enumerate() {
            match list(&remote, spec, args).await {
                Ok(text) => {
                    let head = if args.paths.len() > 1 && !args.directory {
                        format!("{}{}:\n", if place == 0 { "" } else { "\n" }, spec.display())
                    } else {
                        String::new()
                    };
                    out::write(head + &text)?;
                }
                Err(error) => {
                    eprintln!("pvfs ls: {}", CliError::remote(spec.display())(error));
                    failed = true;
                }
            }
        }
        if failed { Err(CliError::Told) } else { Ok(()) }
    })
}

async fn list(remote: &Remote, spec: &Spec, args: &Args) -> Result<String, ClientError> {
    // As `ls`: a link that is named is followed, but not by `-l` and `-d`.
    let mut attr = remote.attr(&spec.path, !args.long && !args.directory).await?;
    if attr.kind == FileKind::Symlink && spec.path.ends_with(b"/") {
        attr = remote.attr(&spec.path, true).await?;
    }
    if attr.kind != FileKind::Dir || args.directory {
        let line = line(remote, spec.display(), attr, args).await?;
        return Ok(format(vec![line], args, remote.client.now()));
    }
    let items = remote.client.readdir_all(&remote.cred, attr.ino, args.long).await?;
    let mut lines = Vec::with_capacity(items.len());
    if args.all {
        let parent = remote.client.lookup_parent(&remote.cred, attr.ino).await?;
        lines.push(Line { name: ".".into(), attr: attr.clone(), link: None });
        lines.push(Line { name: "..".into(), attr: parent, link: None });
    }
    for item in items {
        if item.name.as_bytes().starts_with(b".") && !args.all {
            continue;
        }
        let name = show_name(item.name.as_bytes());
        match item.attr {
            Some(attr) => lines.push(line(remote, name, attr, args).await?),
            None if args.long => match remote.attr(&join(&spec.path, item.name.as_bytes()), false).await {
                Ok(attr) => lines.push(line(remote, name, attr, args).await?),
                Err(error) if error.errno() == pvfs_types::Errno::ENOENT => {} // removed meanwhile
                Err(error) => return Err(error),
            },
            None => lines.push(Line {
                name,
                attr: Attr { ino: item.ino, kind: item.kind, ..attr.clone() },
                link: None,
            }),
        }
    }
    lines.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(format(lines, args, remote.client.now()))
}

async fn line(remote: &Remote, name: String, attr: Attr, args: &Args) -> Result<Line, ClientError> {
    let link = if args.long && attr.kind == FileKind::Symlink {
        Some(remote.client.readlink(&remote.cred, attr.ino).await?)
    } else {
        None
    };
    Ok(Line { name, attr, link })
}

fn format(lines: Vec<Line>, args: &Args, now: Timestamp) -> String {
    if !args.long {
        return lines.into_iter().fold(String::new(), |mut text, line| {
            writeln!(text, "{}", line.name).expect("writing to a String cannot fail");
            text
        });
    }
    let owners = Owners::load();
    let rows = lines.into_iter().map(|Line { name, attr, link }| {
        let size = match attr.kind {
            FileKind::CharDev | FileKind::BlockDev => format!("{}, {}", attr.rdev.0, attr.rdev.1),
            _ if args.human => unit::show_bytes(attr.size),
            _ => attr.size.to_string(),
        };
        let name = match link {
            Some(target) => format!("{name} -> {}", show_name(&target)),
            None => name,
        };
        row![
            show::mode_text(attr.kind, attr.mode),
            attr.nlink,
            owners.user(attr.uid),
            owners.group(attr.gid),
            size,
            show::date_short(attr.mtime, now),
            name,
        ]
    });
    show::table(&rows.collect::<Vec<_>>(), &[1, 4])
}

/// A name without bytes that would move the terminal's cursor.
fn show_name(name: &[u8]) -> String {
    let text = os(name).to_string_lossy().into_owned();
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
