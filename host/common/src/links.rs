//! Resolves the symbolic links in a path, step by step.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, Metadata},
    path::{Component, Path, PathBuf},
};

/// A step of the resolution of a path. The paths of directories in it contain no symbolic links.
#[derive(Debug)]
pub(crate) enum Step {
    /// A symbolic link.
    Link {
        /// The directory that contains the link.
        dir: PathBuf,
        /// The name of the link.
        name: OsString,
        /// The metadata of the link, not of its target.
        meta: Metadata,
    },
    /// The file that the path leads to, or the first component of the path that does not exist.
    File {
        /// The directory that contains the file.
        dir: PathBuf,
        /// The name of the file.
        name: OsString,
    },
    /// The directory that the path leads to.
    Dir(PathBuf),
}

/// The limit on symbolic links in one path, as in Linux.
const LINKS_MAX: usize = 40;

/// Resolves an absolute path. Calls `visit` for each symbolic link in the path, and then for the file or directory that
/// the path leads to. If a part of the path does not exist, that part is visited as a file.
pub(crate) fn resolve(path: &Path, mut visit: impl FnMut(Step)) {
    let mut dir = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = parts(path).collect();
    let mut links = 0;
    loop {
        let Some(name) = rest.pop_front() else { return visit(Step::Dir(dir)) };
        if name == ".." {
            dir.pop();
            continue;
        }
        let next = dir.join(&name);
        let meta = fs::symlink_metadata(&next);
        match meta {
            Ok(meta) if meta.is_symlink() && links < LINKS_MAX => {
                // If this fails, the link was removed after its metadata was read.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_that_ends_in_parent_is_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a/b", root.join("link")).unwrap();
        let dir_of = |path: &Path| {
            let mut found = None;
            resolve(path, |step| {
                if let Step::Dir(dir) = step {
                    found = Some(dir);
                }
            });
            found
        };
        assert_eq!(dir_of(&root.join("link/..")), Some(root.join("a")));
        assert_eq!(dir_of(&root.join("a")), Some(root.join("a")));
        assert_eq!(dir_of(Path::new("/")), Some(PathBuf::from("/")));
    }
}
