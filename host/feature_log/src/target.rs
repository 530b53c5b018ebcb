//! Writes complete files to a directory or to S3.
//!
//! In a directory, a file is written with a hidden name and then renamed, so readers never see an incomplete file. In S3, an
//! object appears when it is complete.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use larder_source::aws::{Aws, AwsError, ObjectAt};

use super::LogTarget;

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Aws(#[from] AwsError),
}

/// The end of the hidden name of an incomplete file.
const TEMPORARY: &str = ".parquet.tmp";
/// The age from which an incomplete file belongs to a process that was killed. A file is written within seconds.
const ABANDONED: Duration = Duration::from_mins(10);
/// How long a request to S3 may take.
const PUT_TIMEOUT: Duration = Duration::from_mins(1);

// === impl LogTarget ===

impl LogTarget {
    /// Writes a file of a service. `name` ends with `.parquet`, and is unique.
    ///
    /// # Errors
    /// [`TargetError`]; no file with the name exists in that case.
    pub(super) fn write(&self, aws: &Aws, service: &str, name: &str, bytes: &Bytes) -> Result<(), TargetError> {
        let service = dir_name(service);
        match self {
            Self::Dir(dir) => Ok(write_file(&dir.join(service), name, bytes)?),
            Self::S3(prefix) => {
                let object = ObjectAt { key: format!("{}/{service}/{name}", prefix.key), ..prefix.clone() };
                Ok(object.write(aws, bytes, PUT_TIMEOUT)?)
            }
        }
    }

    /// Removes incomplete files that processes left when they were killed. Ignores errors, because readers ignore these files.
    pub(super) fn clean_up(&self) {
        let Self::Dir(dir) = self else { return };
        let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        for file in entries(dir).flat_map(|service| entries(&service.path())) {
            let name = file.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') && name.ends_with(TEMPORARY) && is_abandoned(&file) {
                let path = file.path();
                match fs::remove_file(&path) {
                    Ok(()) => tracing::info!(path = %path.display(), "removed incomplete feature log file"),
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "cannot remove incomplete feature log file");
                    }
                }
            }
        }
    }
}

/// Returns the name of a service's directory. Escapes characters that have a meaning in paths, in URLs or in patterns.
fn dir_name(service: &str) -> String {
    let mut name = String::with_capacity(service.len());
    for (index, byte) in service.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(char::from(byte)),
            b'.' if index > 0 => name.push('.'),
            byte => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

fn is_abandoned(file: &fs::DirEntry) -> bool {
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    #[expect(clippy::disallowed_methods, reason = "compared with the time of a file, which the system's clock sets")]
    let now = SystemTime::now();
    modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age >= ABANDONED))
}

fn write_file(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let temporary = dir.join(format!(".{}{TEMPORARY}", name.trim_end_matches(".parquet")));
    let written = write_and_rename(&temporary, &dir.join(name), bytes);
    if written.is_err() {
        // The error of the write is returned. The file may not exist.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_and_rename(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn directory_names_have_no_special_characters() {
        for (service, name) in
            [("churn_v1.2-a", "churn_v1.2-a"), ("../x", "%2E.%2Fx"), (".a", "%2Ea"), ("ä b*", "%C3%A4%20b%2A")]
        {
            assert_eq!(dir_name(service), name);
        }
    }

    #[test]
    fn failed_write_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let service = dir.path().join("s");
        write_file(&service, "a.parquet", b"1").unwrap();
        fs::create_dir(service.join("b.parquet")).unwrap();
        write_file(&service, "b.parquet", b"1").unwrap_err();
        assert_eq!(names(&service), ["a.parquet", "b.parquet"]);
        write_file(&service.join("a.parquet"), "c.parquet", b"1").unwrap_err();
    }

    #[test]
    fn only_abandoned_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let service = dir.path().join("s");
        fs::create_dir(&service).unwrap();
        for (name, age) in
            [(".a.parquet.tmp", 700), (".b.parquet.tmp", 10), ("c.parquet", 700), ("d.parquet.tmp", 700), (".e", 700)]
        {
            let file = File::create(service.join(name)).unwrap();
            #[expect(clippy::disallowed_methods, reason = "the time of a file")]
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        LogTarget::Dir(dir.path().to_path_buf()).clean_up();
        assert_eq!(names(&service), [".b.parquet.tmp", ".e", "c.parquet", "d.parquet.tmp"]);
        LogTarget::Dir(dir.path().join("absent")).clean_up();
    }
}
