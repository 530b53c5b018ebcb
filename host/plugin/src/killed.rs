//! Records of components whose compilation was killed, so that a start does not retry them automatically.
//!
//! A record is a small file, named after the component's digest, next to the server's copies of plugins. It contains
//! the limits of the compilation and the version of Larder. If a limit was raised or Larder has another version, the
//! component is compiled again. A deploy always compiles it again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use larder_common::private;
use serde::{Deserialize, Serialize};

use super::{CompileKill, CompileLimits, Digest, PluginDirError};

/// The records of a server.
#[derive(Debug)]
pub struct KilledCompilations {
    dir: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    why: String,
    time_ms: u64,
    memory_bytes: u64,
    larder: String,
}

/// The maximum number of records. If there are more, the oldest ones are removed.
const RECORDS_MAX: usize = 256;
const EXTENSION: &str = "json";
const RECORD_BYTES_MAX: u64 = 4 << 10;
const VERSION: &str = env!("CARGO_PKG_VERSION");

// === impl KilledCompilations ===

impl KilledCompilations {
    /// Opens the records in a directory, and creates the directory if it does not exist.
    ///
    /// # Errors
    /// If the directory cannot be created or belongs to another user.
    pub fn open(dir: &Path) -> Result<Self, PluginDirError> {
        private::open_dir(dir).map_err(|source| PluginDirError { path: dir.to_owned(), source })?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Returns why an earlier compilation of a component was killed; `None` if this version of Larder has not recorded
    /// that for limits at least as high as these.
    #[must_use]
    pub fn find(&self, digest: &Digest, limits: CompileLimits) -> Option<String> {
        let bytes = private::read_file(&self.path(digest), RECORD_BYTES_MAX).ok()?;
        let record: Record = serde_json::from_slice(&bytes).ok()?;
        let is_bounded_alike =
            record.time_ms >= milliseconds(limits.time) && record.memory_bytes >= limits.memory_bytes;
        (record.larder == VERSION && is_bounded_alike).then_some(record.why)
    }

    /// Records that a component's compilation was killed. If the record cannot be written, logs a warning, and the next
    /// start compiles the component again.
    pub fn note(&self, digest: &Digest, limits: CompileLimits, kill: CompileKill) {
        let record = Record {
            why: kill.to_string(),
            time_ms: milliseconds(limits.time),
            memory_bytes: limits.memory_bytes,
            larder: VERSION.to_owned(),
        };
        let text = serde_json::to_vec(&record).unwrap_or_default();
        let path = self.path(digest);
        let written = private::create_file(&path).and_then(|mut file| io::Write::write_all(&mut file, &text));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot record that the compilation of a plugin was killed");
        }
        self.tidy();
    }

    /// Removes a component's record.
    pub fn remove(&self, digest: &Digest) {
        // If the record cannot be removed, the component is compiled again only by a deploy.
        let _ = fs::remove_file(self.path(digest));
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.to_string()).with_extension(EXTENSION)
    }

    fn tidy(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let dated = |entry: fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
        let mut records: Vec<(SystemTime, PathBuf)> = entries.flatten().filter_map(dated).collect();
        records.sort();
        for (_, path) in records.iter().take(records.len().saturating_sub(RECORDS_MAX)) {
            let _ = fs::remove_file(path);
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CompileLimits = CompileLimits { time: Duration::from_secs(10), memory_bytes: 1_000 };

    #[test]
    fn higher_limits_retry_killed_component() {
        let dir = tempfile::tempdir().unwrap();
        let killed = KilledCompilations::open(&dir.path().join("killed")).unwrap();
        let digest = Digest::of(b"1");
        assert_eq!(killed.find(&digest, LIMITS), None);
        killed.note(&digest, LIMITS, CompileKill::Time(LIMITS.time));
        let why = Some("took more than 10 s of CPU time".to_owned());
        assert_eq!(killed.find(&digest, LIMITS), why);
        assert_eq!(KilledCompilations::open(&dir.path().join("killed")).unwrap().find(&digest, LIMITS), why);
        assert_eq!(killed.find(&Digest::of(b"2"), LIMITS), None);
        let less = CompileLimits { time: Duration::from_secs(9), memory_bytes: 999 };
        assert_eq!(killed.find(&digest, less), why);
        let longer = CompileLimits { time: LIMITS.time + Duration::from_millis(1), ..LIMITS };
        let larger = CompileLimits { memory_bytes: 1_001, ..LIMITS };
        assert_eq!((killed.find(&digest, longer), killed.find(&digest, larger)), (None, None));
        killed.remove(&digest);
        assert_eq!(killed.find(&digest, LIMITS), None);
    }

    #[test]
    fn records_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let killed = KilledCompilations::open(dir.path()).unwrap();
        for i in 0..RECORDS_MAX + 10 {
            killed.note(&Digest::of(i.to_string().as_bytes()), LIMITS, CompileKill::Signal(9));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), RECORDS_MAX);
    }
}
