//! The manifest of a training set: its request and its inputs.
//!
//! The manifest is a JSON file next to the set. A run with the same manifest gives the same bytes, or an error that names each
//! input that differs.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use larder_model::{
    model::{DerivedView, FeatureView},
    registry::Catalog,
};
use larder_plugin_host::{Component, Digest};
use larder_source::{FileVersion, aws::Aws};
use larder_training::{DerivedJob, Report, TrainingJob};
use serde::{Deserialize, Serialize};

use super::{
    Location, OfflineError, SetRequest, WrittenFiles,
    new_file::{hidden, remove_if_exists},
};

/// The manifest of a training set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this format: [`FORMAT`].
    pub format: u32,
    /// The request.
    pub request: SetRequest,
    /// The inputs.
    pub inputs: Inputs,
    /// The files of the set. A set that was not written to files has none.
    pub output: Option<WrittenFiles>,
    /// The counts of the set.
    pub report: Report,
}

/// The inputs of a training set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// The version of Larder.
    pub larder: String,
    /// The entity rows.
    pub entities: Entities,
    /// The feature service, if one was requested: the digest of its definition.
    pub service: Option<Digest>,
    /// The stored views that are read, by name.
    pub views: BTreeMap<String, View>,
    /// The derived views that are computed, by name.
    pub derived_views: BTreeMap<String, Derived>,
}

/// The entity rows of a training set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entities {
    /// The file or directory, or the URL of an object or a prefix.
    pub path: Option<PathBuf>,
    /// The files, by name.
    pub files: BTreeMap<String, EntityFile>,
}

/// A file or object with entity rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum EntityFile {
    /// A local file.
    Local {
        /// The size in bytes.
        bytes: u64,
        /// The digest of the content.
        sha256: Digest,
    },
    /// An object in S3.
    Object {
        /// The size in bytes.
        bytes: u64,
        /// The ETag.
        etag: String,
    },
}

/// A stored view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The digest of the parts of the definition that decide the values.
    pub definition: Digest,
    /// The files, by name.
    pub files: BTreeMap<String, SourceFile>,
}

/// A file of feature rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// The size in bytes.
    pub bytes: u64,
    /// See [`FileVersion::version`].
    pub version: String,
}

/// A derived view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derived {
    /// The digest of the parts of the definition that decide the values.
    pub definition: Digest,
    /// The plugin.
    pub plugin: String,
    /// The plugin's version.
    pub version: String,
    /// The version of the contract that the plugin implements.
    pub contract: String,
    /// The digest of the component.
    pub sha256: Digest,
}

/// The part of a manifest that all formats have.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// The version of the format.
pub const FORMAT: u32 = 1;
/// The content of a manifest in S3 while its set is written.
const UNFINISHED: &[u8] = b"{\"unfinished\": true}\n";
/// The maximum size of a manifest in bytes. A set of a million feature files has a manifest of about 100 MB.
const BYTES_MAX: u64 = 256 << 20;

// === impl Manifest ===

impl Manifest {
    /// Returns the location of the manifest of a training set.
    #[must_use]
    pub fn location_for(set: &Location) -> Location {
        set.with_suffix(".manifest.json")
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`OfflineError::Manifest`].
    pub fn read(at: &Location, aws: &Aws) -> Result<Self, OfflineError> {
        let error = |why: String| OfflineError::Manifest { at: at.clone(), why };
        let text = match at {
            Location::Local(path) => {
                larder_common::files::read_text(path, BYTES_MAX).map_err(|why| error(why.to_string()))?
            }
            Location::Object(object) => {
                let bytes_max = i64::try_from(BYTES_MAX).unwrap_or(i64::MAX);
                let read = object.read(aws, bytes_max, aws.config().operation_timeout);
                let bytes = read.map_err(|why| error(why.to_string()))?.bytes;
                String::from_utf8(bytes).map_err(|why| error(why.to_string()))?
            }
        };
        if text.as_bytes() == UNFINISHED {
            return Err(error("its run did not end. hint: build the set again".to_owned()));
        }
        // Another format has other fields.
        let FormatOnly { format } = serde_json::from_str(&text).map_err(|why| error(why.to_string()))?;
        if format != FORMAT {
            return Err(error(format!("it has format {format}, but this Larder reads format {FORMAT}")));
        }
        serde_json::from_str(&text).map_err(|why| error(why.to_string()))
    }

    /// Makes sure that the set of an unfinished run does not have the manifest of an earlier set: removes a local manifest, and
    /// replaces an object by one that is not a manifest. Deleting an object would need another permission.
    ///
    /// # Errors
    /// [`OfflineError::Write`] and [`OfflineError::Upload`].
    pub fn invalidate(at: &Location, aws: &Aws) -> Result<(), OfflineError> {
        match at {
            Location::Local(path) => {
                remove_if_exists(path).map_err(|source| OfflineError::Write { at: at.clone(), source })
            }
            Location::Object(object) => {
                let written = object.write(aws, &UNFINISHED.into(), aws.config().operation_timeout);
                written.map_err(OfflineError::Upload)
            }
        }
    }

    /// Writes the manifest.
    ///
    /// # Errors
    /// [`OfflineError::Write`] and [`OfflineError::Upload`].
    pub fn write(&self, at: &Location, aws: &Aws) -> Result<(), OfflineError> {
        let error = |source| OfflineError::Write { at: at.clone(), source };
        let mut text = serde_json::to_vec_pretty(self).map_err(|why| error(io::Error::other(why)))?;
        text.push(b'\n');
        match at {
            Location::Local(path) => {
                let temporary = hidden(path, ".tmp");
                let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
                written.map_err(error)
            }
            Location::Object(object) => {
                let written = object.write(aws, &text.into(), aws.config().operation_timeout);
                written.map_err(OfflineError::Upload)
            }
        }
    }
}

// === impl Inputs ===

impl Inputs {
    /// Describes the inputs of a job.
    ///
    /// # Errors
    /// Errors of listing the files of views.
    pub fn of(
        catalog: &Catalog,
        job: &TrainingJob<'_>,
        service: Option<&str>,
        entities: Entities,
    ) -> Result<Self, OfflineError> {
        let service = service.and_then(|name| catalog.service(name));
        let view = |(name, versions): (&str, Vec<FileVersion>)| {
            let definition = definition_of(catalog.view(name).map(|view| &**view));
            let file = |file: FileVersion| (file.name, SourceFile { bytes: file.bytes, version: file.version });
            (name.to_owned(), View { definition, files: versions.into_iter().map(file).collect() })
        };
        Ok(Self {
            larder: env!("CARGO_PKG_VERSION").to_owned(),
            entities,
            service: service.map(|service| Digest::of(format!("{service:?}").as_bytes())),
            views: job.views().zip(job.versions()?).map(view).collect(),
            derived_views: job.derived_views().map(Derived::of).collect(),
        })
    }

    /// Describes the inputs of the derived features of a frame, without the frame.
    #[must_use]
    pub fn of_derived(catalog: &Catalog, job: &DerivedJob<'_>, service: Option<&str>) -> Self {
        let service = service.and_then(|name| catalog.service(name));
        Self {
            larder: env!("CARGO_PKG_VERSION").to_owned(),
            entities: Entities { path: None, files: BTreeMap::new() },
            service: service.map(|service| Digest::of(format!("{service:?}").as_bytes())),
            views: BTreeMap::new(),
            derived_views: job.derived_views().map(Derived::of).collect(),
        }
    }

    /// Returns a description of each input that differs in `now`.
    #[must_use]
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.larder != now.larder {
            found.push(format!("Larder: version {} instead of {}", now.larder, self.larder));
        }
        if self.service != now.service {
            found.push("feature service: the definition differs".to_owned());
        }
        files(&mut found, "entity rows", &self.entities.files, &now.entities.files);
        let (views, now_views) = (&self.views, &now.views);
        if views.keys().ne(now_views.keys()) {
            found.push("the views that the features come from".to_owned());
        }
        for (name, view, now) in views.iter().filter_map(|(name, view)| Some((name, view, now_views.get(name)?))) {
            if view.definition != now.definition {
                found.push(format!("feature view '{name}': the definition differs"));
            }
            files(&mut found, &format!("feature view '{name}'"), &view.files, &now.files);
        }
        if self.derived_views.keys().ne(now.derived_views.keys()) {
            found.push("the derived views that are computed".to_owned());
        }
        let derived = self.derived_views.iter();
        for (name, view, now) in derived.filter_map(|(name, view)| Some((name, view, now.derived_views.get(name)?))) {
            if view.definition != now.definition {
                found.push(format!("derived view '{name}': the definition differs"));
            }
            if view.sha256 != now.sha256 {
                let (plugin, before, after) = (&view.plugin, view.sha256, now.sha256);
                found.push(format!("plugin '{plugin}': component {after} instead of {before}"));
            }
        }
        found
    }
}

/// Adds a description of each file that was added, removed or changed.
fn files<T: PartialEq>(found: &mut Vec<String>, of: &str, before: &BTreeMap<String, T>, now: &BTreeMap<String, T>) {
    for (name, file) in before {
        match now.get(name) {
            None => found.push(format!("{of}: file {name} is missing")),
            Some(now) if now != file => found.push(format!("{of}: file {name} changed")),
            Some(_) => {}
        }
    }
    let new = now.keys().filter(|name| !before.contains_key(*name));
    found.extend(new.map(|name| format!("{of}: file {name} is new")));
}

/// Returns the digest of the parts of a view's definition that decide the values of a training set. Descriptions and tags
/// do not.
fn definition_of(view: Option<&FeatureView>) -> Digest {
    let parts = view.map(|view| {
        let features: Vec<_> = view.features.iter().map(|feature| (&feature.name, feature.value_type)).collect();
        (&view.name, &view.join_keys, features, view.ttl, view.files())
    });
    Digest::of(format!("{parts:?}").as_bytes())
}

/// As [`definition_of`], for a derived view.
fn definition_of_derived(view: &DerivedView) -> Digest {
    let features: Vec<_> = view.features.iter().map(|feature| (&feature.name, feature.value_type)).collect();
    let parts = (&view.name, &view.plugin, &view.inputs, features, &view.config, &view.on_error);
    Digest::of(format!("{parts:?}").as_bytes())
}

// === impl Derived ===

impl Derived {
    /// Describes a derived view, by its name.
    fn of((view, component): (&DerivedView, &Component)) -> (String, Self) {
        let derived = Self {
            definition: definition_of_derived(view),
            plugin: view.plugin.to_string(),
            version: component.signature().version.to_string(),
            contract: component.contract().to_owned(),
            sha256: *component.digest(),
        };
        (view.name.to_string(), derived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Inputs {
        let file = SourceFile { bytes: 1, version: "1".to_owned() };
        let view = View {
            definition: Digest::of(b"view"),
            files: [("a".to_owned(), file.clone()), ("b".to_owned(), file)].into(),
        };
        let derived = Derived {
            definition: Digest::of(b"derived"),
            plugin: "risk".to_owned(),
            version: "1.0.0".to_owned(),
            contract: "0.3".to_owned(),
            sha256: Digest::of(b"component"),
        };
        Inputs {
            larder: "1.0.0".to_owned(),
            entities: Entities { path: None, files: BTreeMap::new() },
            service: None,
            views: [("stats".to_owned(), view)].into(),
            derived_views: [("score".to_owned(), derived)].into(),
        }
    }

    #[test]
    fn each_changed_input_is_named() {
        let before = inputs();
        assert!(before.differences(&before).is_empty());
        let differences = |change: &dyn Fn(&mut Inputs)| {
            let mut now = inputs();
            change(&mut now);
            before.differences(&now).join("; ")
        };
        let files = |now: &mut Inputs| {
            let files = &mut now.views.get_mut("stats").unwrap().files;
            files.get_mut("a").unwrap().bytes = 2;
            let moved = files.remove("b").unwrap();
            files.insert("c".to_owned(), moved);
        };
        let expected = "feature view 'stats': file a changed; feature view 'stats': file b is missing; feature view 'stats': \
                        file c is new";
        assert_eq!(differences(&files), expected);
        let definition = |now: &mut Inputs| now.views.get_mut("stats").unwrap().definition = Digest::of(b"other");
        assert_eq!(differences(&definition), "feature view 'stats': the definition differs");
        let plugin = |now: &mut Inputs| now.derived_views.get_mut("score").unwrap().sha256 = Digest::of(b"other");
        let (before_digest, after) = (Digest::of(b"component"), Digest::of(b"other"));
        assert_eq!(differences(&plugin), format!("plugin 'risk': component {after} instead of {before_digest}"));
        assert_eq!(differences(&|now| now.larder = "2.0.0".to_owned()), "Larder: version 2.0.0 instead of 1.0.0");
        assert_eq!(differences(&|now| now.service = Some(Digest::of(b""))), "feature service: the definition differs");
    }
}
