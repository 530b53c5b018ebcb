//! The state of the objects that were read.
//!
//! The position is written with every commit, so it must be small. For an object that was read to its end, it contains
//! only a hash of the key and version. A hash takes about 21 bytes of text, so 100,000 objects take about 2 MB. Only an
//! object that was partly read at a commit is stored with its key.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use larder_model::codec::murmur3_x64_128;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The objects that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Hashes of the objects that were read to their ends.
    #[serde(serialize_with = "print_hashes", deserialize_with = "parse_hashes")]
    done: BTreeSet<ObjectHash>,
    /// Whether any of these objects had rows.
    has_rows: bool,
    /// Objects that were partly read, by key.
    begun: BTreeMap<String, Begun>,
    /// The number of objects of the set that were not yet read to their ends.
    left: usize,
    /// The version of the marker or manifest.
    pub(super) gate: Option<Version>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    version: Version,
    rows: u64,
}

/// The version of an object: distinguishes it from a later object with the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) etag: String,
    pub(super) bytes: u64,
    /// The modification time, in milliseconds. It is compared only for a marker or manifest, because writing a marker
    /// again does not change its content. It is ignored for objects with rows, because an object that is written again
    /// with the same content does not have to be read again.
    pub(super) modified: Option<i64>,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) version: Version,
}

/// A hash of an object's key and version. Among 100,000 objects, the probability of a collision is about 1e-29.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ObjectHash([u8; 16]);

// === impl Position ===

impl Position {
    /// Parses a position. Text in another format, for example from another kind of source, yields the start position.
    pub(super) fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    pub(super) fn print(&self) -> String {
        // String keys, numbers and text always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns the position at the start of a read of these objects. It keeps the objects that were read before and did
    /// not change.
    pub(super) fn begin(&self, objects: &[Listed], gate: Option<Version>) -> Self {
        let done: BTreeSet<ObjectHash> =
            objects.iter().map(ObjectHash::of).filter(|hash| self.done.contains(hash)).collect();
        let begun = objects.iter().filter_map(|object| {
            let begun = self.begun.get(&object.key).filter(|begun| begun.version.has_same_content(&object.version))?;
            Some((object.key.clone(), begun.clone()))
        });
        let (has_rows, left) = (self.has_rows && !done.is_empty(), objects.len() - done.len());
        Self { begun: begun.collect(), left, has_rows, done, gate }
    }

    /// Returns whether an object was read to its end.
    pub(super) fn has(&self, object: &Listed) -> bool {
        self.done.contains(&ObjectHash::of(object))
    }

    /// Returns whether exactly these objects were read to their ends.
    pub(super) fn is_all_of(&self, objects: &[Listed]) -> bool {
        self.is_whole() && self.done.len() == objects.len() && objects.iter().all(|object| self.has(object))
    }

    /// Returns whether any object was read to its end.
    pub(super) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Returns whether all objects of the set were read to their ends.
    pub(super) fn is_whole(&self) -> bool {
        self.left == 0 && !self.done.is_empty()
    }

    /// Returns whether any row was read.
    pub(super) fn has_rows(&self) -> bool {
        self.has_rows || !self.begun.is_empty()
    }

    /// Returns how many rows of a partly read object were read; 0 for any other object.
    pub(super) fn rows_of(&self, object: &Listed) -> u64 {
        self.begun.get(&object.key).map_or(0, |begun| begun.rows)
    }

    /// Records how many rows of an object were read.
    pub(super) fn read(&mut self, object: &Listed, rows: u64) {
        match self.begun.get_mut(&object.key) {
            Some(begun) => begun.rows = rows,
            None => {
                self.begun.insert(object.key.clone(), Begun { version: object.version.clone(), rows });
            }
        }
    }

    /// Records that an object was read to its end.
    pub(super) fn end(&mut self, object: &Listed, rows: u64) {
        self.begun.remove(&object.key);
        self.has_rows |= rows > 0;
        if self.done.insert(ObjectHash::of(object)) {
            self.left = self.left.saturating_sub(1);
        }
    }
}

// === impl Version ===

impl Version {
    /// Returns whether both versions have the same content, according to their ETags and sizes.
    pub(super) fn has_same_content(&self, other: &Self) -> bool {
        self.etag == other.etag && self.bytes == other.bytes
    }
}

// === impl ObjectHash ===

impl ObjectHash {
    fn of(object: &Listed) -> Self {
        let Listed { key, version: Version { etag, bytes, .. } } = object;
        // The key comes last, because it may contain any character.
        Self(murmur3_x64_128(format!("{bytes} {etag} {key}").as_bytes()))
    }
}

fn print_hashes<S: Serializer>(hashes: &BTreeSet<ObjectHash>, serializer: S) -> Result<S::Ok, S::Error> {
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
    serializer.serialize_str(&STANDARD_NO_PAD.encode(bytes))
}

fn parse_hashes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<ObjectHash>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = STANDARD_NO_PAD.decode(text).map_err(serde::de::Error::custom)?;
    let (hashes, rest) = bytes.as_chunks::<16>();
    if rest.is_empty() {
        Ok(hashes.iter().copied().map(ObjectHash).collect())
    } else {
        Err(serde::de::Error::custom("a hash is truncated"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(n: usize) -> Listed {
        let version = Version { etag: format!("\"{n:032x}\""), bytes: 1_000, modified: Some(1) };
        Listed { key: format!("stats/dt=2026-11-25/part-{n:05}.parquet"), version }
    }

    #[test]
    fn position_records_done_and_partial_objects() {
        let mut objects: Vec<Listed> = (0..3).map(object).collect();
        let mut position = Position::default().begin(&objects, None);
        assert!(!position.is_all_of(&objects));
        position.read(&objects[0], 5);
        position.end(&objects[0], 5);
        position.read(&objects[1], 7);
        let mut position = Position::parse(&position.print());
        assert!(position.has(&objects[0]) && !position.has(&objects[1]) && !position.is_whole());
        assert_eq!(position.begin(&objects, None).rows_of(&objects[1]), 7);
        // A new version is a new object.
        objects[1].version.etag = "another".to_owned();
        assert_eq!(position.begin(&objects, None).rows_of(&objects[1]), 0);
        position = position.begin(&objects, None);
        objects.iter().for_each(|object| position.end(object, 9));
        assert!(position.is_all_of(&objects) && position.has_rows());
        assert!(!position.is_all_of(&objects[..2]), "an object was deleted");
        // A change of the modification time alone is ignored.
        objects[2].version.modified = Some(2);
        assert!(position.is_all_of(&objects));
    }

    #[test]
    fn invalid_position_parses_as_the_start() {
        for text in ["", "{}", "{\"files\": {}}", "{\"done\":\"AAA\",\"has_rows\":true,\"begun\":{},\"left\":0}"] {
            assert_eq!(Position::parse(text), Position::default(), "{text}");
        }
    }

    #[test]
    fn hundred_thousand_objects_take_two_megabytes() {
        let objects: Vec<Listed> = (0..100_000).map(object).collect();
        let mut position = Position::default().begin(&objects, None);
        objects.iter().for_each(|object| position.end(object, 1));
        let text = position.print();
        assert!(text.len() < 22 * objects.len(), "{}", text.len());
        assert!(Position::parse(&text).is_all_of(&objects));
    }
}
