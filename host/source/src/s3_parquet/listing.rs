//! Lists the objects to read, and checks whether the set is complete.

use std::collections::{BTreeMap, HashSet};

use aws_sdk_s3::Client;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use larder_model::model::Gate;

use super::{
    S3Parquet, manifest,
    object::{CONCURRENCY, changed, fetch_whole},
    position::{Listed, Version},
};
use crate::{
    SourceError,
    aws::{AwsError, AwsErrorKind},
    listed::{Listing, is_data, table_format},
    parquet_reader::check,
};

/// The result of a listing.
pub(super) enum Found {
    /// The objects to read.
    Complete(Set),
    /// The set is not complete: its marker or manifest does not exist.
    Incomplete {
        /// The URL of the missing marker or manifest.
        gate: String,
    },
}

/// The objects to read.
#[derive(Debug)]
pub(super) struct Set {
    /// The prefix to which the paths of partitions and the names in a manifest are relative.
    pub(super) base: String,
    pub(super) objects: Vec<Listed>,
    /// The marker or manifest that shows that the set is complete, if one is configured.
    pub(super) gate: Option<Listed>,
}

/// The maximum number of objects in a set.
const OBJECTS_MAX: u64 = 1_000_000;
/// The maximum size of a manifest in bytes: enough for the names of about 100,000 objects.
const MANIFEST_MAX: u64 = 32 << 20;

// === impl S3Parquet ===

impl S3Parquet {
    /// Lists the objects, and selects those to read.
    pub(super) async fn find(&self, client: &Client) -> Result<Found, SourceError> {
        // A key that ends with a slash is a prefix, even if a tool has put an empty object with that name.
        let is_prefix = self.key.is_empty() || self.key.ends_with('/');
        let single = if is_prefix { None } else { self.one(client, &self.key).await? };
        // Consoles and some tools create an empty object with the name of a directory. Such an object is ignored if
        // there are objects below its name. If there are none, it is treated as a file, and reading it fails.
        let single = match single {
            Some(object) if object.version.bytes == 0 && self.has_below(client, &format!("{}/", self.key)).await? => {
                None
            }
            other => other,
        };
        let base = match &single {
            Some(_) => self.key.rsplit_once('/').map_or(String::new(), |(dir, _)| format!("{dir}/")),
            None if is_prefix => self.key.clone(),
            None => format!("{}/", self.key),
        };
        let is_single = single.is_some();
        let objects = match single {
            Some(object) => vec![object],
            None => self.list(client, &base).await?,
        };
        let gate = match &self.source.gate {
            Gate::Open => None,
            Gate::Marker(name) | Gate::Manifest(name) => {
                let key = format!("{base}{name}");
                let listed = objects.iter().find(|object| object.key == key).cloned();
                let listed = if is_single { self.one(client, &key).await? } else { listed };
                match listed {
                    None => return Ok(Found::Incomplete { gate: self.url(&key) }),
                    found => found,
                }
            }
        };
        let objects = match (&self.source.gate, &gate) {
            (Gate::Manifest(_), Some(gate)) => self.manifest_objects(client, gate, &base, objects).await?,
            _ if is_single => objects,
            _ => {
                let table = |object: &Listed| object.key.strip_prefix(&base).and_then(table_format);
                if let Some(format) = objects.iter().find_map(table) {
                    return Err(SourceError::TableFormat { path: self.url(&base), format });
                }
                let mut listing = Listing::default();
                let is_data = |object: &Listed| {
                    let relative = object.key.strip_prefix(&base).unwrap_or_default();
                    let is_data = is_data(relative);
                    // A directory marker is not a file.
                    if !is_data && !relative.is_empty() && !relative.ends_with('/') {
                        listing.ignore(relative);
                    }
                    is_data
                };
                let objects = objects.into_iter().filter(is_data).collect();
                self.ignored.log(&self.source.path, &listing);
                objects
            }
        };
        Ok(Found::Complete(Set { base, objects, gate }))
    }

    /// Returns an object, if it exists. Uses a list request, which needs only the permission to list. S3 lists keys in
    /// order, so the object comes before all longer keys that begin with its key.
    pub(super) async fn one(&self, client: &Client, key: &str) -> Result<Option<Listed>, SourceError> {
        let request = client.list_objects_v2().bucket(&self.bucket).prefix(key).max_keys(1);
        let page = request.send().await;
        let page = page.map_err(|error| AwsError::of(format!("{}: ListObjectsV2", self.url(key)), error))?;
        Ok(page.contents().iter().filter_map(listed).find(|object| object.key == key))
    }

    /// Returns whether any object is below a prefix.
    async fn has_below(&self, client: &Client, prefix: &str) -> Result<bool, AwsError> {
        let request = client.list_objects_v2().bucket(&self.bucket).prefix(prefix).max_keys(1);
        let page = request.send().await;
        let page = page.map_err(|error| AwsError::of(format!("{}: ListObjectsV2", self.url(prefix)), error))?;
        Ok(!page.contents().is_empty())
    }

    /// Returns all objects below a prefix.
    async fn list(&self, client: &Client, prefix: &str) -> Result<Vec<Listed>, SourceError> {
        let what = format!("{}: ListObjectsV2", self.url(prefix));
        let mut objects = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let request = client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
            let page = request.set_continuation_token(token.clone()).send().await;
            let page = page.map_err(|error| AwsError::of(&what, error))?;
            objects.extend(page.contents().iter().filter_map(listed));
            let found = objects.len() as u64;
            check(&self.url(prefix), "the number of objects", found, OBJECTS_MAX)?;
            match page.next_continuation_token().filter(|_| page.is_truncated() != Some(false)) {
                None => return Ok(objects),
                Some(next) if token.as_deref() == Some(next) => {
                    return Err(
                        AwsError::garbled(what, "the listing returned the same continuation token again").into()
                    );
                }
                Some(next) => token = Some(next.to_owned()),
            }
        }
    }

    /// Returns the objects that a manifest names, each once. `listed` has the objects that [`S3Parquet::find`] listed.
    async fn manifest_objects(
        &self,
        client: &Client,
        gate: &Listed,
        base: &str,
        listed: Vec<Listed>,
    ) -> Result<Vec<Listed>, SourceError> {
        let path = self.url(&gate.key);
        check(&path, "the manifest's size in bytes", gate.version.bytes, MANIFEST_MAX)?;
        let bytes = fetch_whole(client, self.object(gate)).await.map_err(|error| changed(&path, error))?;
        let names = manifest::keys(&bytes, &self.bucket, base);
        let mut names = names.map_err(|why| SourceError::Manifest { path: path.clone(), why })?;
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        check(&path, "the number of objects in the manifest", names.len() as u64, OBJECTS_MAX)?;
        let known: BTreeMap<&str, &Listed> = listed.iter().map(|object| (object.key.as_str(), object)).collect();
        // `listed` has either all objects below the prefix, including the manifest, or only the object that the
        // definition names. In the first case, an object below the prefix that is not in `listed` does not exist.
        let has_all = self.key != gate.key && known.contains_key(gate.key.as_str());
        let (known, path) = (&known, &path);
        let objects = stream::iter(&names).map(|key| async move {
            let found = match known.get(key.as_str()) {
                Some(object) => Some((*object).clone()),
                None if has_all && key.starts_with(base) => None,
                None => self.head(client, key).await?,
            };
            let why = || format!("{} does not exist", self.url(key));
            found.ok_or_else(|| SourceError::Manifest { path: path.clone(), why: why() })
        });
        objects.buffered(CONCURRENCY).try_collect().await
    }

    /// Returns an object by its key, anywhere in the bucket.
    async fn head(&self, client: &Client, key: &str) -> Result<Option<Listed>, AwsError> {
        let head = client.head_object().bucket(&self.bucket).key(key).send().await;
        match head.map_err(|error| AwsError::of(format!("{}: HeadObject", self.url(key)), error)) {
            Ok(head) => {
                let bytes = head.content_length().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
                let etag = head.e_tag().unwrap_or_default().to_owned();
                Ok(Some(Listed { key: key.to_owned(), version: Version { etag, bytes, modified: None } }))
            }
            Err(error) if error.kind == AwsErrorKind::Missing => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn listed(object: &aws_sdk_s3::types::Object) -> Option<Listed> {
    let version = Version {
        etag: object.e_tag()?.to_owned(),
        bytes: u64::try_from(object.size().unwrap_or(0)).unwrap_or(0),
        modified: object.last_modified().and_then(|time| time.to_millis().ok()),
    };
    Some(Listed { key: object.key()?.to_owned(), version })
}
