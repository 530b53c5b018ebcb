//! Paths that may have `*` in their last component.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A path or a pattern: `features/*.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// One file, whether it exists or not.
    File(PathBuf),
    /// The files of a directory whose names match.
    Files {
        /// The directory.
        dir: PathBuf,
        /// The pattern of the names.
        name: String,
    },
}

/// Resolves a path in the configuration. If the base directory is the current directory, returns the path unchanged.
pub(super) fn resolve(base_dir: &Path, path: &str) -> PathBuf {
    match path {
        // Avoids paths such as `dir/./file` in messages.
        "." => base_dir.to_path_buf(),
        path if base_dir == Path::new(".") => PathBuf::from(path),
        path => base_dir.join(path),
    }
}

/// Returns whether a name matches a pattern in which `*` stands for any characters, or none.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((prefix, rest)) = pattern.split_once('*') else { return pattern == name };
    // As in a shell, a name that begins with a dot only matches a pattern that begins with a dot. Such names are hidden
    // files, and `..data` in a mounted ConfigMap.
    if prefix.is_empty() && name.starts_with('.') {
        return false;
    }
    let Some(mut name) = name.strip_prefix(prefix) else { return false };
    let mut parts = rest.split('*').collect::<Vec<_>>();
    let suffix = parts.pop().unwrap_or_default();
    // Taking the first match of each part is correct, because it leaves the most text for the following parts.
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(suffix)
}

/// Returns the files that match a path or pattern, relative to the current directory.
///
/// # Errors
/// The message says what is wrong with the pattern, or why the directory cannot be listed.
pub fn matching_files(written: &str) -> Result<Vec<PathBuf>, String> {
    let pattern = Pattern::new(Path::new("."), written)?;
    pattern.files().map_err(|error| error.to_string())
}

// === impl Pattern ===

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// The message says what is wrong with the pattern.
    pub(super) fn new(base_dir: &Path, written: &str) -> Result<Self, &'static str> {
        let (dir, name) = written.rsplit_once('/').map_or(("", written), |(dir, name)| (dir, name));
        match (dir.contains('*'), name.contains('*')) {
            (true, _) => Err("'*' is only allowed in the last part of a path"),
            (false, _) if name.is_empty() => Err("the path has no file name"),
            (false, false) => Ok(Self::File(resolve(base_dir, written))),
            // For a path such as `/*.yaml`, the directory is the root, but the split leaves an empty string.
            (false, true) if written.starts_with('/') && dir.is_empty() => {
                Ok(Self::Files { dir: PathBuf::from("/"), name: name.to_owned() })
            }
            (false, true) => Ok(Self::Files { dir: resolve(base_dir, dir), name: name.to_owned() }),
        }
    }

    /// Returns the matching files, sorted by name. A path without `*` is returned even if the file does not exist.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub(super) fn files(&self) -> io::Result<Vec<PathBuf>> {
        let (dir, pattern) = match self {
            Self::File(path) => return Ok(vec![path.clone()]),
            Self::Files { dir, name } => (dir, name),
        };
        let entries = match fs::read_dir(self.dir().unwrap_or(dir)) {
            Ok(entries) => entries,
            // A directory that does not exist has no matches.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut files = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let path = dir.join(&name);
            // Directories are skipped. Files that cannot be read, such as pipes, are included, so that the attempt to
            // read them reports the reason.
            if matches(pattern, &name.to_string_lossy()) && fs::metadata(&path).map_or(true, |meta| !meta.is_dir()) {
                files.push(path);
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    /// Returns the directory in which files are matched, or `None` if this is a single file.
    pub(super) fn dir(&self) -> Option<&Path> {
        match self {
            Self::File(_) => None,
            Self::Files { dir, .. } if dir.as_os_str().is_empty() => Some(Path::new(".")),
            Self::Files { dir, .. } => Some(dir),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_matches_any_characters() {
        for (pattern, name) in [
            ("*.yaml", "churn.yaml"),
            ("churn*.yaml", "churn.yaml"),
            ("a*b*c", "a-b-b-c"),
            ("*a*", "a"),
            ("**", "x"),
            (".*", ".hidden"),
            ("ü*ß", "üß"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.yaml", "churn.yml"),
            ("*.yaml", ".hidden.yaml"),
            ("*.yaml", "churn.yaml.bak"),
            ("ab*ba", "aba"),
            ("a*b*c", "acb"),
            ("churn.yaml", "churn2yaml"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_are_relative_to_base_directory() {
        let files = |dir: &str, name: &str| Pattern::Files { dir: dir.into(), name: name.into() };
        let new = |base: &str, written| Pattern::new(Path::new(base), written);
        assert_eq!(new("/etc/larder", "f/*.yaml"), Ok(files("/etc/larder/f", "*.yaml")));
        assert_eq!(new("/etc/larder", "/f/*.yaml"), Ok(files("/f", "*.yaml")));
        assert_eq!(new("/etc/larder", "/*.yaml"), Ok(files("/", "*.yaml")));
        assert_eq!(new("/etc/larder", "a.yaml"), Ok(Pattern::File("/etc/larder/a.yaml".into())));
        assert_eq!(new(".", "f/a.yaml"), Ok(Pattern::File("f/a.yaml".into())));
        assert_eq!(new(".", "*.yaml"), Ok(files("", "*.yaml")));
        assert!(new(".", "*/a.yaml").is_err());
        assert!(new(".", "f/").is_err());
        assert!(new(".", "").is_err());
    }
}
