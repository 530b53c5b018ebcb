//! Which files of a directory, or objects of a prefix, are data.
//!
//! Other tools keep their own files next to data: `_SUCCESS`, `_temporary/`, `.part-0.crc`. As Spark does, names that
//! begin with `.` or `_` are ignored, except directories that begin with `_` and are partitions, such as
//! `_day=2026-11-28`.

use std::sync::{Mutex, PoisonError};

/// The files that a listing ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    count: u64,
    example: Option<String>,
}

/// The last logged count of ignored files of a source, so that it is logged only once.
#[derive(Debug, Default)]
pub(super) struct Ignored(Mutex<Listing>);

/// Returns whether a name belongs to a file or directory of other tools.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

/// Returns whether a directory with a hidden name has data.
pub(super) fn is_data_dir(name: &str) -> bool {
    name.starts_with('_') && name.contains('=')
}

/// Returns whether a path below a prefix names a file with rows.
#[cfg(any(feature = "aws", test))]
pub(super) fn is_data(relative: &str) -> bool {
    let (dirs, file) = relative.rsplit_once('/').unwrap_or(("", relative));
    let is_open = |dir: &str| !is_hidden(dir) || is_data_dir(dir);
    file.ends_with(".parquet") && !is_hidden(file) && dirs.split('/').all(is_open)
}

/// Returns the table format that uses a file with this path, relative to a directory of Parquet files, if there is one.
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
    /// Counts an ignored file, or an ignored directory with its contents as one.
    pub(super) fn ignore(&mut self, relative: &str) {
        self.count += 1;
        // The first by name, regardless of the order of the listing.
        if self.example.as_deref().is_none_or(|example| relative < example) {
            self.example = Some(relative.to_owned());
        }
    }
}

// === impl Ignored ===

impl Ignored {
    /// Logs what a listing ignored, unless it was logged already.
    pub(super) fn log(&self, source: &str, listing: &Listing) {
        if let Some((ignored, example)) = self.news(listing) {
            tracing::info!(source, ignored, example, "ignoring files that are not data");
        }
    }

    /// Returns how many names a listing left out and the first of them, if that is not what it was at the last call.
    fn news<'l>(&self, listing: &'l Listing) -> Option<(u64, &'l str)> {
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
        assert_eq!(ignored.news(&listing), None, "there are none");
        listing.ignore("b/_SUCCESS");
        listing.ignore("a/.crc");
        assert_eq!(ignored.news(&listing), Some((2, "a/.crc")));
        assert_eq!(ignored.news(&listing), None, "the same again");
        listing.ignore("c/_temporary");
        assert_eq!(ignored.news(&listing), Some((3, "a/.crc")));
        assert_eq!(ignored.news(&Listing::default()), None, "none any more");
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
    fn files_of_table_formats_are_told() {
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
    fn listing_counts_with_first_example() {
        let mut listing = Listing::default();
        ["b/_SUCCESS", "README.md", "c"].iter().for_each(|name| listing.ignore(name));
        assert_eq!(listing, Listing { count: 3, example: Some("README.md".to_owned()) });
    }
}
