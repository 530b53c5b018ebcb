//! `feast:`, a Feast repository, whose registry has definitions.
//!
//! [`FeastConfig`] has the settings in Larder's own configuration. [`FeastRepo`] has the settings of the repository's
//! `feature_store.yaml` that Larder uses, and the registry that `feature_store.yaml` names. All other settings in that
//! file have no effect.

mod feature_store;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use larder_common::files::{FileStamp, read_regular, read_text};
use larder_model::{
    codec::KeyVersion,
    registry::{
        Definitions, FeastOptions, FeastRegistry, FeastValues, FilesDefinition, SourceFrom, UnknownFields, Unservable,
    },
    yaml::{Place, Problems},
};
use larder_source::{
    DynamoDb,
    aws::{Aws, AwsErrorKind, ObjectAt, ObjectNow},
};

use self::feature_store::{FeatureStore, OnlineStore, Registry, read};
use super::{
    BuildFeatures, BuildPart, Environment,
    patterns::resolve,
    section::Section,
    units::{HOUR, TEXT_BYTES_MAX, TIMEOUT_MIN},
};

/// The settings of a Feast repository, from `larder.yaml` or from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeastConfig {
    /// `repo:`, the directory of `feature_store.yaml`, relative to the configuration's directory.
    pub written: PathBuf,
    /// The same directory, relative to the current directory.
    pub dir: PathBuf,
    /// `values:`, the source of the values.
    pub from: FeastValuesFrom,
    /// `every:`, how often DynamoDB tables without a stream are read again.
    pub every: Option<Duration>,
    /// `unknown_fields:`, how to treat definitions with fields of a newer Feast.
    pub unknown_fields: UnknownFields,
}

/// The source of the values of a Feast repository's views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeastValuesFrom {
    /// From the online store, if it is DynamoDB, or if it is SQLite and its file exists; otherwise, from the batch
    /// sources.
    #[default]
    Auto,
    /// From the online store, which must be DynamoDB or SQLite.
    Online,
    /// From the views' batch sources, which are Parquet files.
    Batch,
}

/// The values of the setting `values`, and their meanings.
pub const FEAST_VALUES_FROM: [(&str, FeastValuesFrom); 3] =
    [("auto", FeastValuesFrom::Auto), ("online", FeastValuesFrom::Online), ("batch", FeastValuesFrom::Batch)];

/// The values of the setting `unknown_fields`, and their meanings.
const UNKNOWN_FIELDS: [(&str, UnknownFields); 2] =
    [("refuse", UnknownFields::Refuse), ("ignore", UnknownFields::Ignore)];

/// Whether a repository without definitions is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryNeed {
    /// The registry must exist and have content. An empty file is an error, because Feast may be about to write into
    /// it, and serving the empty file's definitions would remove all current ones.
    Written,
    /// The registry must exist. As in Feast, an empty file is a registry without definitions.
    There,
    /// The registry may be absent or empty: the server waits until Feast writes it.
    Later,
}

/// The rules for cached definitions, from `registry:` in `feature_store.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryCache {
    /// `allow_registry_cache:`; if false, each request uses the current definitions.
    pub allowed: bool,
    /// `cache_ttl_seconds:`; `None` if it is 0, which means that definitions never expire.
    pub ttl: Option<Duration>,
}

/// A Feast repository that was read.
#[derive(Clone, Debug)]
pub struct FeastRepo {
    /// `project:` of `feature_store.yaml`.
    pub project: String,
    /// `entity_key_serialization_version:`.
    pub key_version: KeyVersion,
    /// The contents of the registry.
    pub definitions: FeastRegistry,
    /// The location of the registry.
    pub registry: RegistryAt,
    /// The version of the registry that was read. `None` if the registry is a file, or if the local copy was used.
    pub version: Option<String>,
    /// Whether the registry is absent or empty: Feast has not written it.
    pub is_unwritten: bool,
    /// The rules for cached definitions.
    pub cache: RegistryCache,
    options: FeastOptions,
    /// The repository's directory, relative to the configuration's directory.
    written: PathBuf,
}

/// The location of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryAt {
    /// In a file.
    File(PathBuf),
    /// In S3.
    Object(ObjectAt),
}

const FILE: &str = "feature_store.yaml";
/// The maximum number of attempts to read a registry that changes during the read. Feast writes the file in place.
const READS_MAX: usize = 10;
/// The maximum size of a registry, in bytes.
const REGISTRY_BYTES_MAX: u64 = 256 << 20;
/// The maximum time to wait for S3 if there is a local copy of the registry. After this time, the local copy is used,
/// and the next poll reads the registry again.
const COPY_AFTER: Duration = Duration::from_secs(3);
/// The file name of the local copy of a registry in S3. The copy is in the store's directory.
const REGISTRY_COPY: &str = "registry-of-s3.db";

/// Reads the section `feast:`.
pub(super) fn feast(mut section: Section<'_>, base_dir: &Path) -> Option<FeastConfig> {
    let from = section.word("values", &FEAST_VALUES_FROM);
    let every = section.duration("every", TIMEOUT_MIN..=HOUR * 24 * 30, DynamoDb::RESCAN_EVERY);
    let unknown_fields = section.word("unknown_fields", &UNKNOWN_FIELDS).unwrap_or_default();
    let repo = if section.is_off("repo") { None } else { section.path("repo", Path::new(".")) };
    if repo.is_none() && from.is_some_and(|from| from != FeastValuesFrom::default()) {
        section.error(
            section.at(),
            "'values' has no effect without 'repo'",
            "set 'repo' to the directory of the Feast repository".to_owned(),
        );
    }
    section.finish();
    let written = repo?.value;
    let dir = resolve(base_dir, &written.to_string_lossy());
    Some(FeastConfig { written, dir, from: from.unwrap_or_default(), every: Some(every), unknown_fields })
}

/// Returns the files of a repository to watch: `feature_store.yaml`, the registry if it is a file, and the online
/// store's file while it does not exist.
pub(super) fn files(config: &FeastConfig, env: Environment<'_>) -> Vec<PathBuf> {
    let mut files = vec![config.dir.join(FILE)];
    // The problems are ignored here, because loading the repository reports them.
    let Some(store) =
        read_text(&files[0], TEXT_BYTES_MAX).ok().and_then(|text| read(FILE, &text, env, &Problems::default()))
    else {
        return files;
    };
    files.extend(store.registry.at.file().map(|file| config.dir.join(file)));
    if let OnlineStore::Sqlite(path) = &store.online_store
        && config.from != FeastValuesFrom::Batch
    {
        let file = config.dir.join(path);
        // Once the file exists, it is not watched here, because it may change many times a minute. Syncs detect these
        // changes.
        if matches!(file.try_exists(), Ok(false)) {
            files.push(file);
        }
    }
    files
}

// === impl FeastRepo ===

impl FeastRepo {
    /// Opens a repository. Returns `None` if an error was added to `problems`. If the registry is in S3, stores a copy
    /// of it in the directory `copies`, and uses the copy if the registry cannot be read.
    pub fn open(
        config: &FeastConfig,
        build: BuildFeatures,
        aws: &Aws,
        copies: Option<&Path>,
        need: RegistryNeed,
        env: Environment<'_>,
        problems: &Problems,
    ) -> Option<Self> {
        let file = config.dir.join(FILE);
        let name = file.display().to_string();
        let at = Place::file(&name);
        let text = match read_text(&file, TEXT_BYTES_MAX) {
            Ok(text) => text,
            Err(error) => {
                let help = (error.kind() == io::ErrorKind::NotFound)
                    .then(|| "a Feast repository is a directory with this file".to_owned());
                problems.error_with_help(&at, format!("cannot be read: {error}"), help);
                return None;
            }
        };
        let store = read(&name, &text, env, problems)?;
        let values = values(config, &store, &at, problems)?;
        if report_missing_parts(&values, &store, build, problems) {
            return None;
        }
        let FeatureStore { project, key_version, registry: Registry { at: registry, cache, versioned }, .. } = store;
        let registry = match registry {
            RegistryAt::File(path) => RegistryAt::File(config.dir.join(path)),
            object @ RegistryAt::Object(_) => object,
        };
        let (bytes, version) = registry.read(aws, copies, need, &at, problems)?;
        let is_unwritten = bytes.is_empty();
        if is_unwritten && need == RegistryNeed::Written {
            let message = "the registry is empty".to_owned();
            let help = "run 'feast apply' to write the definitions".to_owned();
            problems.error_with_help(&Place::file(&registry.to_string()), message, Some(help));
            return None;
        }
        let definitions = match FeastRegistry::parse(&bytes) {
            Ok(definitions) => definitions,
            Err(why) => {
                problems.error(&Place::file(&registry.to_string()), why.to_string());
                return None;
            }
        };
        let options = FeastOptions { values, versioned_tables: versioned, unknown_fields: config.unknown_fields };
        let written = config.written.clone();
        Some(Self { project, key_version, definitions, registry, version, is_unwritten, cache, options, written })
    }

    /// Returns the definitions of a project, with paths relative to the configuration's directory.
    #[must_use]
    pub fn definitions(&self, project: &str, problems: &Problems) -> Definitions {
        let file = self.registry.to_string();
        let at = Place::file(&file);
        let projects = self.definitions.projects();
        if !projects.contains(project) {
            let known = projects.into_iter().collect::<Vec<_>>().join(", ");
            if known.is_empty() {
                let help = "run 'feast apply' to write the definitions of the repository".to_owned();
                problems.warning(&at, format!("the registry has no definitions of project '{project}'"), help);
            } else {
                let help = format!("the registry has definitions of: {known}");
                problems.error_with_help(&at, format!("the registry has no definitions of project '{project}'"), help);
            }
        }
        let mut definitions = self.definitions.definitions(&file, project, &self.options);
        let place = |path: &mut String| {
            if !path.contains("://") {
                *path = resolve(&self.written, path).to_string_lossy().into_owned();
            }
        };
        let place_files = |files: &mut FilesDefinition| place(&mut files.path.value);
        for view in &mut definitions.views {
            match view.source.as_mut().map(|source| &mut source.from) {
                Some(SourceFrom::Files(files)) => place_files(files),
                Some(SourceFrom::FeastSqlite { path, .. }) => place(&mut path.value),
                Some(SourceFrom::DynamoDb { .. }) | None => {}
            }
            view.batch_source.iter_mut().for_each(place_files);
        }
        for left_out in &definitions.unservable_views {
            problems.warning(&at, format!("feature view '{}' is not served: {}", left_out.name, left_out.why), None);
        }
        for left_out in &definitions.unservable_services {
            problems.warning(&at, format!("feature service '{}' is not served: {}", left_out.name, left_out.why), None);
        }
        for (why, names) in by_reason(&definitions.unmaterializable_views) {
            let views = if names.contains(',') { "feature views" } else { "feature view" };
            problems.warning(&at, format!("'/materialize' skips {views} {names}: {why}"), None);
        }
        for unknown in self.definitions.unknown_fields() {
            problems.warning(
                &at,
                format!("the registry: {unknown}, so definitions in this field are not served"),
                None,
            );
        }
        definitions
    }

    /// Returns the source of the values, for messages.
    #[must_use]
    pub fn values(&self) -> &FeastValues {
        &self.options.values
    }
}

// === impl RegistryAt ===

impl RegistryAt {
    /// Returns the path of the registry if it is a file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Object(_) => None,
        }
    }

    /// Returns the bytes of the registry, and their version if they are from S3. Returns `None` if an error was added.
    fn read(
        &self,
        aws: &Aws,
        copies: Option<&Path>,
        need: RegistryNeed,
        at: &Place,
        problems: &Problems,
    ) -> Option<(Vec<u8>, Option<String>)> {
        let absent = |shown: &str| {
            let message = format!(
                "the registry {shown} does not exist yet: its definitions are not served until 'feast apply' writes it"
            );
            problems.warning(at, message, None);
            Some((Vec::new(), None))
        };
        let object = match self {
            Self::File(path) => {
                let shown = path.display();
                return match read_whole(path) {
                    Ok(bytes) => Some((bytes, None)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound && need == RegistryNeed::Later => {
                        absent(&shown.to_string())
                    }
                    Err(error) => {
                        let is_absent = error.kind() == io::ErrorKind::NotFound;
                        let help = is_absent.then(|| "run 'feast apply' to write it".to_owned());
                        problems.error_with_help(at, format!("the registry {shown} cannot be read: {error}"), help);
                        None
                    }
                };
            }
            Self::Object(object) => object,
        };
        let copy = copies.map(|dir| dir.join(REGISTRY_COPY));
        let copied = copy.as_deref().and_then(|copy| kept(copy, &self.to_string()));
        let timeout = aws.config().operation_timeout;
        let timeout = if copied.is_some() { timeout.min(COPY_AFTER) } else { timeout };
        match object.read(aws, REGISTRY_BYTES_MAX.cast_signed(), timeout) {
            Ok(ObjectNow { bytes, version }) => {
                // A failure is only logged, because the copy is needed only if S3 is unavailable at a later start or
                // reload.
                if let Some(copy) = copy
                    && let Err(error) = keep(&copy, &self.to_string(), &bytes)
                {
                    tracing::warn!(copy = %copy.display(), %error, "cannot store a copy of the registry");
                }
                Some((bytes, Some(version)))
            }
            Err(error) => {
                // If there is a copy, its definitions keep serving, whatever the error of S3 is.
                if let Some(bytes) = copied {
                    let message = format!("the registry cannot be read: {error}");
                    problems.warning(at, message, "using the local copy instead".to_owned());
                    return Some((bytes, None));
                }
                if error.kind == AwsErrorKind::Missing && need == RegistryNeed::Later {
                    return absent(&self.to_string());
                }
                let help = (error.kind == AwsErrorKind::Missing).then(|| "run 'feast apply' to write it".to_owned());
                problems.error_with_help(at, format!("the registry cannot be read: {error}"), help);
                None
            }
        }
    }
}

impl fmt::Display for RegistryAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Object(object) => f.write_str(&object.url()),
        }
    }
}

/// Groups views by the reason why they cannot be served. Each value lists the names of the views.
fn by_reason(views: &[Unservable]) -> BTreeMap<&str, String> {
    let mut reasons: BTreeMap<&str, String> = BTreeMap::new();
    for Unservable { name, why } in views {
        let names = reasons.entry(why).or_default();
        if !names.is_empty() {
            names.push_str(", ");
        }
        names.push_str(&format!("'{name}'"));
    }
    reasons
}

/// Reads a file that another process may be writing in place. If the file changes during the read, reads it again, up
/// to [`READS_MAX`] times in all.
fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let read = || read_regular(path, REGISTRY_BYTES_MAX);
    let (mut before, mut bytes) = (FileStamp::at(path)?, read()?);
    for _ in 1..READS_MAX {
        let after = FileStamp::at(path)?;
        if after == before && after.bytes == bytes.len() as u64 {
            break;
        }
        (before, bytes) = (after, read()?);
    }
    Ok(bytes)
}

/// Writes a copy, with the original location in its first line.
fn keep(copy: &Path, from: &str, bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = copy.parent() {
        fs::create_dir_all(dir)?;
    }
    let unfinished = copy.with_extension("unfinished");
    fs::write(&unfinished, [from.as_bytes(), b"\n", bytes].concat())?;
    fs::rename(unfinished, copy)
}

/// Reads the copy of the registry at `from`.
fn kept(copy: &Path, from: &str) -> Option<Vec<u8>> {
    let bytes = read_regular(copy, 2 * REGISTRY_BYTES_MAX).ok()?;
    bytes.strip_prefix(from.as_bytes())?.strip_prefix(b"\n").map(<[u8]>::to_vec)
}

/// Determines the source of the values. Returns `None` if an error was added.
fn values(config: &FeastConfig, store: &FeatureStore, at: &Place, problems: &Problems) -> Option<FeastValues> {
    match (config.from, &store.online_store) {
        (FeastValuesFrom::Batch, _) => Some(FeastValues::BatchSources),
        (_, OnlineStore::DynamoDb { template, place }) => {
            let every = config.every;
            Some(FeastValues::DynamoDb { template: template.clone(), place: place.clone(), every })
        }
        (FeastValuesFrom::Online, OnlineStore::Sqlite(path)) => Some(FeastValues::OnlineStore(path.clone())),
        (FeastValuesFrom::Online, OnlineStore::Other(kind)) => {
            let message =
                format!("online_store: Larder cannot read an online store of type '{kind}', only sqlite and dynamodb");
            let help =
                "use the views' batch sources: 'feast: {values: batch}', or LARDER_FEAST_VALUES=batch".to_owned();
            problems.error_with_help(at, message, help);
            None
        }
        (FeastValuesFrom::Auto, OnlineStore::Sqlite(path)) => match config.dir.join(path).try_exists() {
            Ok(false) => Some(FeastValues::BatchSources),
            // If the check fails, the file cannot be read either, and the attempt to read it reports the reason.
            Ok(true) | Err(_) => Some(FeastValues::OnlineStore(path.clone())),
        },
        (FeastValuesFrom::Auto, OnlineStore::Other(kind)) => {
            // A warning, because values that are pushed into that store are not served.
            let message =
                format!("online_store: Larder cannot read type '{kind}', so values come from the batch sources");
            problems.warning(
                at,
                message,
                "if that is intended, set 'feast: {values: batch}', or LARDER_FEAST_VALUES=batch".to_owned(),
            );
            Some(FeastValues::BatchSources)
        }
    }
}

/// Adds an error if a build with these features cannot read the registry, and one if it cannot read the source of the
/// values. Returns whether it added any.
fn report_missing_parts(values: &FeastValues, store: &FeatureStore, build: BuildFeatures, problems: &Problems) -> bool {
    let registry = match &store.registry.at {
        RegistryAt::File(_) => None,
        RegistryAt::Object(object) => Some((&store.registry_at, format!("registry: {}", object.url()), BuildPart::S3)),
    };
    let values = match values {
        FeastValues::BatchSources => None,
        FeastValues::OnlineStore(path) => Some((format!("online_store: {path}"), BuildPart::Sqlite)),
        FeastValues::DynamoDb { .. } => Some(("online_store: dynamodb".to_owned(), BuildPart::DynamoDb)),
    };
    let values = values.map(|(what, part)| (&store.online_store_at, what, part));
    let before = problems.error_count();
    for (at, what, part) in registry.into_iter().chain(values).filter(|(_, _, part)| !build.has(*part)) {
        problems.error_with_help(at, format!("{what}: {part}"), part.help());
    }
    problems.error_count() > before
}
