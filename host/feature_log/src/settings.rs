//! The settings of the feature log.

use std::{fmt, path::PathBuf, time::Duration};

use larder_source::aws::ObjectAt;

/// The settings of the feature log.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureLogSettings {
    /// Where to write files; `None` if no service is logged.
    pub target: Option<LogTarget>,
    /// When a file is complete.
    pub roll: Roll,
    /// The limit on the memory of responses that are not converted yet, in bytes.
    pub queue_bytes_max: usize,
}

/// The location of a log's files. The files of each service are in a directory of the service's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// A directory, which is created if it does not exist.
    Dir(PathBuf),
    /// A prefix in S3. Its key has no slash at the end.
    S3(ObjectAt),
}

/// When a file is complete. The first limit that is reached counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roll {
    /// The approximate size of a file in bytes. All files that are not complete have this size together at most.
    pub bytes: usize,
    /// The time since the first row of the file.
    pub every: Duration,
}

impl Default for FeatureLogSettings {
    fn default() -> Self {
        Self { target: None, roll: Roll::default(), queue_bytes_max: 16 << 20 }
    }
}

impl Default for Roll {
    fn default() -> Self {
        Self { bytes: 32 << 20, every: Duration::from_mins(5) }
    }
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(path) => write!(f, "{}", path.display()),
            Self::S3(prefix) => f.write_str(&prefix.url()),
        }
    }
}
