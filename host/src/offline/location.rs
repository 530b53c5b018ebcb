//! Where training sets are written: local files, and objects in S3.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use larder_model::model::AwsPlace;
use larder_source::aws::ObjectAt;

/// The path of a local file, or the URL of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A local file.
    Local(PathBuf),
    /// An object in S3.
    Object(Box<ObjectAt>),
}

/// A URL does not name an object in S3.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the URL of an object. hint: write a path, or s3://bucket/key")]
pub struct NotAnObject(String);

// === impl Location ===

impl Location {
    /// Parses the path of a directory, or a URL of the form `s3://bucket/prefix/`. A slash at the end has no effect.
    ///
    /// # Errors
    /// [`NotAnObject`] for any other URL.
    pub fn parse_dir(path: &Path) -> Result<Self, NotAnObject> {
        let dir = path.to_str().and_then(|path| path.strip_suffix('/')).filter(|path| !path.is_empty());
        Self::parse(dir.map_or(path, Path::new))
    }

    /// Parses a path, or a URL of the form `s3://bucket/key`.
    ///
    /// # Errors
    /// [`NotAnObject`] for any other URL.
    pub fn parse(path: &Path) -> Result<Self, NotAnObject> {
        let Some(url) = path.to_str().filter(|path| path.contains("://")) else {
            return Ok(Self::Local(path.to_owned()));
        };
        match ObjectAt::parse(url, AwsPlace::default()) {
            Some(object) if !url.ends_with('/') => Ok(Self::Object(Box::new(object))),
            _ => Err(NotAnObject(url.to_owned())),
        }
    }

    /// Returns the location with a suffix at the end of its name.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        match self {
            Self::Local(path) => {
                let mut name = OsString::from(path.file_name().unwrap_or_default());
                name.push(suffix);
                Self::Local(path.with_file_name(name))
            }
            Self::Object(object) => Self::object(object, format!("{}{suffix}", object.key)),
        }
    }

    /// Returns the location of a file in this directory, or of an object below this prefix.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        match self {
            Self::Local(dir) => Self::Local(dir.join(name)),
            Self::Object(prefix) => Self::object(prefix, format!("{}/{name}", prefix.key)),
        }
    }

    fn object(other: &ObjectAt, key: String) -> Self {
        Self::Object(Box::new(ObjectAt { key, ..other.clone() }))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Object(object) => f.write_str(&object.url()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_objects() {
        let parse = |text: &str| Location::parse(Path::new(text));
        assert_eq!(parse("sets/a.parquet").unwrap(), Location::Local("sets/a.parquet".into()));
        let object = parse("s3://bucket/sets/a.parquet").unwrap();
        assert_eq!(object.with_suffix(".manifest.json").to_string(), "s3://bucket/sets/a.parquet.manifest.json");
        assert_eq!(parse("s3://bucket/sets").unwrap().join("a.parquet"), object);
        for wrong in ["s3://bucket", "s3://bucket/", "s3://bucket/sets/", "gs://bucket/a.parquet", "s3:///a"] {
            assert_eq!(parse(wrong), Err(NotAnObject(wrong.to_owned())));
        }
    }

    #[test]
    fn suffix_is_added_to_the_name() {
        let location = Location::parse(Path::new("sets/a.parquet")).unwrap();
        assert_eq!(location.with_suffix(".manifest.json"), Location::Local("sets/a.parquet.manifest.json".into()));
        assert_eq!(location.join("b"), Location::Local("sets/a.parquet/b".into()));
    }
}
