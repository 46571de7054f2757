//! A tree as text: what two runs must have in common. Times and numbers that differ by nature are left out.

use super::world::ROOT;
use pvfs_client::{Client, OpenOptions};
use pvfs_types::{FileKind, Ino};
use std::{collections::HashMap, fmt::Write as _};

pub async fn show(client: &Client, dir: Ino) -> String {
    let (mut text, mut known) = (String::new(), HashMap::new());
    walk(client, dir, "", &mut text, &mut known).await;
    text
}

async fn walk(client: &Client, dir: Ino, path: &str, out: &mut String, known: &mut HashMap<Ino, usize>) {
    let mut items = client.readdir_all(&ROOT, dir, false).await.unwrap();
    items.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    for item in items {
        let attr = client.getattr(&ROOT, item.ino).await.unwrap();
        let path = format!("{path}/{}", String::from_utf8_lossy(item.name.as_bytes()));
        let next = known.len();
        let number = *known.entry(item.ino).or_insert(next);
        let (kind, mode, nlink, size) = (attr.kind, attr.mode, attr.nlink, attr.size);
        write!(out, "  {path} #{number} {kind:?} {mode:o} nlink={nlink} size={size}").unwrap();
        for name in client.listxattr(&ROOT, item.ino).await.unwrap() {
            let value = client.getxattr(&ROOT, item.ino, name.as_bytes()).await.unwrap();
            write!(out, " {name}={}", value.escape_ascii()).unwrap();
        }
        match kind {
            FileKind::File => {
                let file = client.open(&ROOT, item.ino, OpenOptions::READ).await.unwrap();
                let bytes = file.read_at(0, 1 << 20).await.unwrap();
                writeln!(out, " {:?}", String::from_utf8_lossy(&bytes)).unwrap();
            }
            FileKind::Symlink => {
                let target = client.readlink(&ROOT, item.ino).await.unwrap();
                writeln!(out, " -> {}", String::from_utf8_lossy(&target)).unwrap();
            }
            FileKind::Dir => {
                writeln!(out, " {:?}", attr.layout).unwrap();
                Box::pin(walk(client, item.ino, &path, out, known)).await;
            }
            _ => writeln!(out).unwrap(),
        }
    }
}
