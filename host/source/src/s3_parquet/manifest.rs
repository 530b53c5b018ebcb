//! Parses a manifest, which lists the objects of a set.
//!
//! ```text
//! ["a.parquet", "sub/b.parquet"]
//! {"files": ["a.parquet"]}
//! {"entries": [{"url": "s3://bucket/prefix/a.parquet", "mandatory": true}]}    as Redshift's UNLOAD writes it
//! ```
//!
//! Names are relative to the set's prefix, or full URLs in the same bucket.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(untagged)]
enum Manifest {
    List(Vec<String>),
    Files { files: Vec<String> },
    Entries { entries: Vec<Entry> },
}

#[derive(Deserialize)]
struct Entry {
    url: String,
}

/// Returns the keys that a manifest names.
pub(super) fn keys(bytes: &[u8], bucket: &str, base: &str) -> Result<Vec<String>, String> {
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|_| {
        "it is not a manifest: expected a list of names, {\"files\": [..]} or {\"entries\": [{\"url\": ..}]}".to_owned()
    })?;
    let names = match manifest {
        Manifest::List(names) | Manifest::Files { files: names } => names,
        Manifest::Entries { entries } => entries.into_iter().map(|entry| entry.url).collect(),
    };
    let key = |name: String| match name.strip_prefix("s3://") {
        None => Ok(format!("{base}{name}")),
        Some(path) => match path.split_once('/') {
            Some((other, key)) if other == bucket => Ok(key.to_owned()),
            None if path == bucket => Err(format!("it names {name}, which has no object key")),
            _ => Err(format!("it names {name}, which is in another bucket")),
        },
    };
    names.into_iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_relative_or_same_bucket() {
        let of = |text: &str| keys(text.as_bytes(), "bucket", "a/");
        assert_eq!(of("[\"x.parquet\"]"), Ok(vec!["a/x.parquet".to_owned()]));
        assert_eq!(of("{\"files\":[\"b/x.parquet\"]}"), Ok(vec!["a/b/x.parquet".to_owned()]));
        let unload = "{\"entries\":[{\"url\":\"s3://bucket/c/x.parquet\",\"mandatory\":true}]}";
        assert_eq!(of(unload), Ok(vec!["c/x.parquet".to_owned()]));
        assert!(of("[\"s3://other/x.parquet\"]").unwrap_err().contains("s3://other/x.parquet"));
        assert!(of("{}").unwrap_err().starts_with("it is not a manifest"));
    }
}
