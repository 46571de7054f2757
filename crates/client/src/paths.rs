//! Paths: resolved name by name, over symbolic links, from the root of the file system.
//!
//! A leading slash changes nothing. Symbolic links that begin with one lead to this file system's root, not to that of
//! the machine.

use crate::{Client, ClientError, CreateOptions, Created, File, OpenOptions, error::Result};
use pvfs_types::{Attr, Cred, Errno, FileKind, Ino, Name, limits};
use std::collections::VecDeque;

/// Most symbolic links that one path may lead over, as Linux has it.
const SYMLINKS_MAX: u32 = 40;

/// A path on its way: what is left to walk.
struct Walk {
    left: VecDeque<Vec<u8>>,
    /// The path ends in a slash: it must name a directory.
    wants_dir: bool,
    symlinks: u32,
    path: String,
}

/// Where a path's last name is to be looked up.
enum Last {
    Name(Ino, Name),
    /// The path ends at the root, in `.` or in `..`.
    Dir(Ino),
}

impl Walk {
    fn new(path: &[u8]) -> Result<Walk> {
        if path.is_empty() {
            return Err(ClientError::PathEmpty);
        }
        if path.len() > limits::PATH_BYTES_MAX {
            return Err(ClientError::PathTooLong { bytes: path.len() });
        }
        let shown = String::from_utf8_lossy(path).into_owned();
        Ok(Walk { left: parts(path).collect(), wants_dir: path.ends_with(b"/"), symlinks: 0, path: shown })
    }

    /// Puts a link's target in front of what is left. True: it begins at the root.
    fn follow(&mut self, target: &[u8]) -> Result<bool> {
        self.symlinks += 1;
        if self.symlinks > SYMLINKS_MAX {
            return Err(ClientError::SymlinkLoop { path: self.path.clone() });
        }
        if self.left.is_empty() {
            self.wants_dir |= target.ends_with(b"/");
        }
        let bytes: usize = target.len() + self.left.iter().map(|part| part.len() + 1).sum::<usize>();
        if bytes > 2 * limits::PATH_BYTES_MAX {
            return Err(ClientError::PathTooLong { bytes });
        }
        for part in parts(target).collect::<Vec<_>>().into_iter().rev() {
            self.left.push_front(part);
        }
        Ok(target.starts_with(b"/"))
    }

    fn not_a_directory(&self) -> ClientError {
        ClientError::NotDirectory { path: self.path.clone() }
    }
}

fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}

impl Client {
    /// The attributes of what `path` names. `follow`: also over a symbolic link at the end (`stat`, not `lstat`).
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EACCES`; `ELOOP` after 40 symbolic links; `ENAMETOOLONG` over 4,095 bytes, or 255 in a
    /// name.
    pub async fn resolve(&self, cred: &Cred, path: impl AsRef<[u8]>, follow: bool) -> Result<Attr> {
        let mut walk = Walk::new(path.as_ref())?;
        let mut dir = Ino::ROOT;
        loop {
            let (parent, name) = match self.walk(cred, &mut walk, dir).await? {
                Last::Dir(ino) => return self.getattr(cred, ino).await,
                Last::Name(parent, name) => (parent, name),
            };
            let attr = self.lookup(cred, parent, &name).await?;
            if attr.kind == FileKind::Symlink && (follow || walk.wants_dir) {
                dir = self.follow(cred, &mut walk, parent, attr.ino).await?;
                continue;
            }
            if walk.wants_dir && attr.kind != FileKind::Dir {
                return Err(walk.not_a_directory());
            }
            return Ok(attr);
        }
    }

    /// The directory and the name in it that `path` speaks of, whether the name is there or not; a symbolic link at
    /// the end is not followed.
    ///
    /// # Errors
    /// As [`Client::resolve`]; `EISDIR` the path ends at the root, in `.` or in `..`.
    pub async fn resolve_parent(&self, cred: &Cred, path: impl AsRef<[u8]>) -> Result<(Ino, Name)> {
        let mut walk = Walk::new(path.as_ref())?;
        match self.walk(cred, &mut walk, Ino::ROOT).await? {
            Last::Name(dir, name) => Ok((dir, name)),
            Last::Dir(_) => Err(ClientError::IsDirectory { path: walk.path }),
        }
    }

    /// Opens the regular file at `path`.
    pub async fn open_path(&self, cred: &Cred, path: impl AsRef<[u8]>, options: OpenOptions) -> Result<File> {
        let attr = self.resolve(cred, path.as_ref(), true).await?;
        if attr.kind == FileKind::Dir {
            let path = String::from_utf8_lossy(path.as_ref()).into_owned();
            return Err(ClientError::IsDirectory { path });
        }
        self.open(cred, attr.ino, options).await
    }

    /// Creates the regular file at `path`, or opens it where it is there. A symbolic link at the end is followed, but
    /// with `exclusive`.
    pub async fn create_path(
        &self,
        cred: &Cred,
        path: impl AsRef<[u8]>,
        options: CreateOptions,
    ) -> Result<Created> {
        let mut walk = Walk::new(path.as_ref())?;
        let mut start = Ino::ROOT;
        loop {
            let (dir, name) = match self.walk(cred, &mut walk, start).await? {
                Last::Name(dir, name) if !walk.wants_dir => (dir, name),
                Last::Name(..) | Last::Dir(_) => return Err(ClientError::IsDirectory { path: walk.path }),
            };
            let refused = match self.create(cred, dir, &name, options).await {
                Err(
                    error @ ClientError::Refused {
                        errno: Errno::ELOOP | Errno::EEXIST | Errno::EINVAL, ..
                    },
                ) if !options.exclusive => error,
                done => return done,
            };
            // Maybe the name is a symbolic link's.
            match self.lookup(cred, dir, &name).await {
                Ok(attr) if attr.kind == FileKind::Symlink => {
                    start = self.follow(cred, &mut walk, dir, attr.ino).await?;
                }
                Ok(_) | Err(_) => return Err(refused),
            }
        }
    }

    /// Walks all names of `walk` but the last, from `dir` on.
    async fn walk(&self, cred: &Cred, walk: &mut Walk, mut dir: Ino) -> Result<Last> {
        while let Some(part) = walk.left.pop_front() {
            if part == b".." {
                dir = self.lookup_parent(cred, dir).await?.ino;
                continue;
            }
            let name = Name::new(part)?;
            if walk.left.is_empty() {
                return Ok(Last::Name(dir, name));
            }
            let attr = self.lookup(cred, dir, &name).await?;
            dir = match attr.kind {
                FileKind::Dir => attr.ino,
                FileKind::Symlink => self.follow(cred, walk, dir, attr.ino).await?,
                _ => return Err(walk.not_a_directory()),
            };
        }
        Ok(Last::Dir(dir))
    }

    /// Goes on over the symbolic link `link` in `dir`: gives the directory to go on from.
    async fn follow(&self, cred: &Cred, walk: &mut Walk, dir: Ino, link: Ino) -> Result<Ino> {
        let target = self.readlink(cred, link).await?;
        Ok(if walk.follow(&target)? { Ino::ROOT } else { dir })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(walk: &Walk) -> Vec<&[u8]> {
        walk.left.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn slashes_and_dots_between_names_mean_nothing() {
        let walk = Walk::new(b"//a/./b//../c").expect("a path");
        assert_eq!(left(&walk), [&b"a"[..], b"b", b"..", b"c"]);
        assert!(!walk.wants_dir);
        assert!(Walk::new(b"a/").expect("a path").wants_dir);
    }

    #[test]
    fn paths_are_held_against_their_bound() {
        assert_eq!(Walk::new(b"").err().map(|e| e.errno()), Some(Errno::ENOENT));
        assert_eq!(Walk::new(&[b'a'; 4096]).err().map(|e| e.errno()), Some(Errno::ENAMETOOLONG));
        assert!(Walk::new(&[b'a'; 4095]).is_ok());
    }

    #[test]
    fn the_forty_first_link_is_one_too_many() {
        let mut walk = Walk::new(b"a/b").expect("a path");
        for _ in 0..40 {
            assert!(!walk.follow(b"x").expect("within the bound"));
            walk.left.pop_front();
        }
        assert_eq!(walk.follow(b"x").err().map(|e| e.errno()), Some(Errno::ELOOP));
    }

    #[test]
    fn a_links_target_is_walked_before_the_rest() {
        let mut walk = Walk::new(b"b").expect("a path");
        assert!(walk.follow(b"/x/y/").expect("within the bound"), "begins at the root");
        assert_eq!(left(&walk), [&b"x"[..], b"y", b"b"]);
        assert!(!walk.wants_dir, "the slash was not at the end of the whole");
    }
}
