//! The directory entries that a path leads through.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, Metadata},
    path::{Component, Path, PathBuf},
};

/// A step of the resolution of a path. The directories contain no symbolic links.
#[derive(Debug)]
pub(crate) enum Step {
    /// A symbolic link, with its own metadata.
    Link {
        /// The directory that contains it.
        dir: PathBuf,
        /// Its name.
        name: OsString,
        /// Its metadata, not that of its target.
        meta: Metadata,
    },
    /// The last step of a path to a file, or the first missing part of the path.
    File {
        /// The directory that contains it.
        dir: PathBuf,
        /// Its name.
        name: OsString,
    },
    /// The last step of a path to a directory.
    Dir(PathBuf),
}

/// The limit on symbolic links in one path, as in Linux.
const LINKS_MAX: usize = 40;

/// Resolves an absolute path, and calls `visit` for each symbolic link in it and for its last step.
pub(crate) fn resolve(path: &Path, mut visit: impl FnMut(Step)) {
    let mut dir = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = parts(path).collect();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            dir.pop();
            continue;
        }
        let next = dir.join(&name);
        let meta = fs::symlink_metadata(&next);
        match meta {
            Ok(meta) if meta.is_symlink() && links < LINKS_MAX => {
                // It was removed since.
                let Ok(target) = fs::read_link(&next) else { return visit(Step::File { dir, name }) };
                links += 1;
                visit(Step::Link { dir: dir.clone(), name, meta });
                if target.is_absolute() {
                    dir = PathBuf::from("/");
                }
                let before = std::mem::take(&mut rest);
                rest = parts(&target).chain(before).collect();
            }
            Ok(meta) if meta.is_dir() => dir = next,
            _ => return visit(Step::File { dir, name }),
        }
        if rest.is_empty() {
            return visit(Step::Dir(dir));
        }
    }
}

/// Returns the components of a path below the root.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    })
}
