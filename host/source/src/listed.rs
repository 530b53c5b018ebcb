//! Decides which files of a directory, or objects under a prefix, are data.
//!
//! Other tools keep their own files next to data, such as `_SUCCESS`, `_temporary/` and `.part-0.crc`. As in Spark,
//! files and directories whose names begin with `.` or `_` are ignored. The exception is a directory that is a
//! partition with a name that begins with `_`, such as `_day=2026-11-28`.

use std::sync::{Mutex, PoisonError};

/// The number of files that a listing ignored, and one of them as an example.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    count: u64,
    example: Option<String>,
}

/// The files that a source's last listing ignored. Ignored files are logged only if they have changed since then.
#[derive(Debug, Default)]
pub(super) struct Ignored(Mutex<Listing>);

/// Returns whether a name belongs to a file or directory of other tools.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

/// Returns whether a directory with a hidden name is a partition, which contains data.
pub(super) fn is_data_dir(name: &str) -> bool {
    name.starts_with('_') && name.contains('=')
}

/// Returns whether a path below a prefix names a data file.
#[cfg(any(feature = "aws", test))]
pub(super) fn is_data(relative: &str) -> bool {
    let (dirs, file) = relative.rsplit_once('/').unwrap_or(("", relative));
    let is_open = |dir: &str| !is_hidden(dir) || is_data_dir(dir);
    file.ends_with(".parquet") && !is_hidden(file) && dirs.split('/').all(is_open)
}

/// Returns the name of the table format (such as Delta Lake) that keeps its metadata in a file with this path; `None`
/// if there is no such format. The path is relative to a directory of Parquet files.
pub(super) fn table_format(relative: &str) -> Option<&'static str> {
    let parts: Vec<&str> = relative.split('/').collect();
    if parts.contains(&"_delta_log") {
        return Some("Delta Lake");
    }
    if parts.contains(&".hoodie") {
        return Some("Apache Hudi");
    }
    let is_iceberg = matches!(parts[..], [.., "metadata", name] if name.ends_with(".metadata.json"));
    is_iceberg.then_some("Apache Iceberg")
}

// === impl Listing ===

impl Listing {
    /// Counts an ignored file. An ignored local directory is counted as one file, regardless of its contents.
    pub(super) fn ignore(&mut self, relative: &str) {
        self.count += 1;
        // The example is the first name in sort order, so that it does not depend on the order of the listing.
        if self.example.as_deref().is_none_or(|example| relative < example) {
            self.example = Some(relative.to_owned());
        }
    }
}

// === impl Ignored ===

impl Ignored {
    /// Logs the files that a listing ignored, unless they are the same as in the last call.
    pub(super) fn log(&self, source: &str, listing: &Listing) {
        if let Some((ignored, example)) = self.changed(listing) {
            tracing::info!(source, ignored, example, "ignoring files that are not data");
        }
    }

    /// Returns the number of ignored files and the example; `None` if no file is ignored, or if the listing is the same
    /// as in the last call.
    fn changed<'l>(&self, listing: &'l Listing) -> Option<(u64, &'l str)> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == *listing {
            return None;
        }
        last.clone_from(listing);
        listing.example.as_deref().map(|example| (listing.count, example))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_names_are_logged_once() {
        let ignored = Ignored::default();
        let mut listing = Listing::default();
        assert_eq!(ignored.changed(&listing), None, "no ignored file");
        listing.ignore("b/_SUCCESS");
        listing.ignore("a/.crc");
        assert_eq!(ignored.changed(&listing), Some((2, "a/.crc")));
        assert_eq!(ignored.changed(&listing), None, "the same files");
        listing.ignore("c/_temporary");
        assert_eq!(ignored.changed(&listing), Some((3, "a/.crc")));
        assert_eq!(ignored.changed(&Listing::default()), None, "no ignored file any more");
    }

    #[test]
    fn hidden_names_except_partitions_are_ignored() {
        for name in [
            "a.parquet",
            "dt=2026-11-25/a_b.parquet",
            "x.y/z.snappy.parquet",
            "_day=1/part-0.parquet",
            "year=1/_day=__HIVE_DEFAULT_PARTITION__/a.parquet",
        ] {
            assert!(is_data(name), "{name}");
        }
        for name in [
            "",
            "a.parquet.crc",
            "_a.parquet",
            "_a=1.parquet",
            ".a.parquet",
            ".a=1/a.parquet",
            "_temporary/0/a.parquet",
            "x/.s/a.parquet",
            "a.parquet/",
        ] {
            assert!(!is_data(name), "{name}");
        }
    }

    #[test]
    fn table_formats_are_detected() {
        for (path, format) in [
            ("_delta_log/00000000000000000000.json", "Delta Lake"),
            ("warehouse/t/_delta_log", "Delta Lake"),
            (".hoodie/hoodie.properties", "Apache Hudi"),
            ("metadata/v1.metadata.json", "Apache Iceberg"),
            ("t/metadata/00001-a.metadata.json", "Apache Iceberg"),
        ] {
            assert_eq!(table_format(path), Some(format), "{path}");
        }
        for path in ["part-0.parquet", "day=1/x.parquet", "_SUCCESS", "metadata/x.parquet", "a.metadata.json", ""] {
            assert_eq!(table_format(path), None, "{path}");
        }
    }

    #[test]
    fn listing_keeps_count_and_first_name() {
        let mut listing = Listing::default();
        ["b/_SUCCESS", "README.md", "c"].iter().for_each(|name| listing.ignore(name));
        assert_eq!(listing, Listing { count: 3, example: Some("README.md".to_owned()) });
    }
}
