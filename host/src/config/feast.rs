//! `feast:`, a Feast repository in the place of definition files.
//!
//! [`FeastConfig`] is what Larder's own configuration says of it. [`FeastRepo`] is what of the repository's
//! `feature_store.yaml` matters here, and the registry that it names: the rest of that file is Feast's own affair and
//! not looked at.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use larder_model::{
    codec::KeyVersion,
    registry::{Definitions, FeastRegistry, FeastValues, FilesDefinition, SourceFrom},
    yaml::{Node, Place, Problems, Table, Tree, parse},
};

use super::{Environment, patterns::resolve, read::is_off, section::Section};

/// A Feast repository, as `larder.yaml` or the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeastConfig {
    /// `repo:`, the directory of `feature_store.yaml`, from the configuration's directory.
    pub written: PathBuf,
    /// The same from the current directory.
    pub dir: PathBuf,
    /// `from:`, where the values come from.
    pub from: FeastFrom,
}

/// Where the values of a Feast repository's views come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeastFrom {
    /// From the online store, if it is SQLite and has a file; from the batch sources otherwise.
    #[default]
    Auto,
    /// From the SQLite online store.
    Online,
    /// From the views' batch sources, which are Parquet files.
    Batch,
}

/// The words for [`FeastFrom`].
pub const FEAST_FROM: [(&str, FeastFrom); 3] =
    [("auto", FeastFrom::Auto), ("online", FeastFrom::Online), ("batch", FeastFrom::Batch)];

/// A Feast repository that was read.
#[derive(Clone, Debug)]
pub struct FeastRepo {
    /// `project:` of `feature_store.yaml`.
    pub project: String,
    /// `entity_key_serialization_version:`.
    pub key_version: KeyVersion,
    /// The registry.
    pub registry: FeastRegistry,
    /// The registry's file.
    pub registry_file: PathBuf,
    values: FeastValues,
    /// From the configuration's directory.
    written: PathBuf,
}

/// What of `feature_store.yaml` matters.
#[derive(Debug, PartialEq, Eq)]
struct FeatureStore {
    project: String,
    key_version: KeyVersion,
    registry: String,
    /// The SQLite file, or which other online store there is.
    online_store: Result<String, String>,
}

const FILE: &str = "feature_store.yaml";
/// Feast's default (`SqliteOnlineStoreConfig.path`).
const SQLITE_PATH: &str = "data/online.db";

/// Reads the section `feast:`.
pub(super) fn feast(mut section: Section<'_>, base_dir: &Path) -> Option<FeastConfig> {
    let from = section.word("from", &FEAST_FROM);
    let repo = if is_off(&mut section, "repo") { None } else { section.path("repo", Path::new(".")) };
    if repo.is_none() && from.is_some_and(|from| from != FeastFrom::default()) {
        section.error(
            section.at(),
            "'from' says nothing without 'repo'",
            "name the Feast repository: 'repo: .'".to_owned(),
        );
    }
    section.finish();
    let written = repo?.value;
    let dir = resolve(base_dir, &written.to_string_lossy());
    Some(FeastConfig { written, dir, from: from.unwrap_or_default() })
}

/// The files that a repository is made of, to be watched: its two, and the online store's while it is not there yet.
pub(super) fn files(config: &FeastConfig, env: Environment<'_>) -> Vec<PathBuf> {
    let mut files = vec![config.dir.join(FILE)];
    // Who loads the repository hears what is wrong with it.
    let Some(store) = fs::read_to_string(&files[0]).ok().and_then(|text| read(FILE, &text, env, &Problems::default()))
    else {
        return files;
    };
    files.push(config.dir.join(&store.registry));
    if let Ok(path) = &store.online_store
        && config.from != FeastFrom::Batch
    {
        let file = config.dir.join(path);
        // Once it is there its changes are for the sync to see, many times a minute perhaps.
        if matches!(file.try_exists(), Ok(false)) {
            files.push(file);
        }
    }
    files
}

// === impl FeastRepo ===

impl FeastRepo {
    /// Reads a repository; none when an error was noted.
    pub fn open(config: &FeastConfig, env: Environment<'_>, problems: &Problems) -> Option<Self> {
        let file = config.dir.join(FILE);
        let name = file.display().to_string();
        let at = Place::file(&name);
        let text = match fs::read_to_string(&file) {
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
        let registry_file = config.dir.join(&store.registry);
        let shown = registry_file.display();
        let bytes = match fs::read(&registry_file) {
            Ok(bytes) => bytes,
            Err(error) => {
                let help = (error.kind() == io::ErrorKind::NotFound).then(|| "'feast apply' writes it".to_owned());
                problems.error_with_help(&at, format!("the registry {shown} cannot be read: {error}"), help);
                return None;
            }
        };
        let registry = match FeastRegistry::parse(&bytes) {
            Ok(registry) => registry,
            Err(why) => {
                problems.error(&Place::file(&shown.to_string()), why.to_string());
                return None;
            }
        };
        let FeatureStore { project, key_version, .. } = store;
        Some(Self { project, key_version, registry, registry_file, values, written: config.written.clone() })
    }

    /// The definitions of a project, its paths from the configuration's directory.
    #[must_use]
    pub fn definitions(&self, project: &str, problems: &Problems) -> Definitions {
        let file = self.registry_file.display().to_string();
        let at = Place::file(&file);
        let projects = self.registry.projects();
        if !projects.contains(project) {
            let known = projects.into_iter().collect::<Vec<_>>().join(", ");
            if known.is_empty() {
                let help = "'feast apply' puts the definitions of the repository there".to_owned();
                problems.warning(&at, format!("the registry has nothing of project '{project}'"), help);
            } else {
                let help = format!("it has {known}");
                problems.error_with_help(&at, format!("the registry has nothing of project '{project}'"), help);
            }
        }
        let mut definitions = self.registry.definitions(&file, project, &self.values);
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
        definitions
    }

    /// Where the values come from, for people.
    #[must_use]
    pub fn values(&self) -> &FeastValues {
        &self.values
    }
}

/// Where the values come from; none when an error was noted.
fn values(config: &FeastConfig, store: &FeatureStore, at: &Place, problems: &Problems) -> Option<FeastValues> {
    match (config.from, &store.online_store) {
        (FeastFrom::Batch, _) => Some(FeastValues::BatchSources),
        (FeastFrom::Online, Ok(path)) => Some(FeastValues::OnlineStore(path.clone())),
        (FeastFrom::Online, Err(kind)) => {
            let message = format!("online_store: Larder cannot read an online store of type '{kind}', only sqlite");
            let help = "take the views' batch sources: '--from batch', or 'feast: {from: batch}'".to_owned();
            problems.error_with_help(at, message, help);
            None
        }
        (FeastFrom::Auto, Ok(path)) => match config.dir.join(path).try_exists() {
            Ok(false) => Some(FeastValues::BatchSources),
            // What cannot be looked at cannot be read either, and who reads it says why.
            Ok(true) | Err(_) => Some(FeastValues::OnlineStore(path.clone())),
        },
        (FeastFrom::Auto, Err(kind)) => {
            // Whoever pushes into that store would look for the values in vain.
            let message =
                format!("online_store: Larder cannot read one of type '{kind}': values come from the batch sources");
            problems.warning(at, message, "say '--from batch' if that is what you want".to_owned());
            Some(FeastValues::BatchSources)
        }
    }
}

/// Reads the text of `feature_store.yaml`; none when an error was noted.
fn read(file: &str, text: &str, env: Environment<'_>, problems: &Problems) -> Option<FeatureStore> {
    let before = problems.error_count();
    let text = expand(text, env);
    let root = parse(file, &text, problems)?;
    let mut table = Table::new("feature_store.yaml", &root, problems)?;
    let project = table.required_text("project");
    let registry = registry(&mut table, problems);
    let online_store = online_store(&mut table, problems);
    auth(&mut table, problems);
    let key_version = match table.int("entity_key_serialization_version", i64::MIN, i64::MAX) {
        None => KeyVersion::default(),
        Some(number) => KeyVersion::from_number(number.value).unwrap_or_else(|| {
            let message = format!("'entity_key_serialization_version' is {}: Larder knows 2 and 3", number.value);
            problems.error(&number.at, message);
            KeyVersion::default()
        }),
    };
    let store = FeatureStore { project: project?.value, key_version, registry: registry?, online_store };
    (problems.error_count() == before).then_some(store)
}

/// The path of the registry's file, from the repository.
fn registry(table: &mut Table<'_>, problems: &Problems) -> Option<String> {
    const TO_FILE: &str = "Feast writes it to a file: FeatureStore('.').registry.proto().SerializeToString()";
    let Some(node) = table.get("registry") else {
        table.missing("registry");
        return None;
    };
    let path = if let Tree::Text(path) = &node.tree {
        path.clone()
    } else {
        let mut registry = Table::new("registry", node, problems)?;
        let kind = registry.text("registry_type").map(|kind| kind.value);
        if let Some(kind) = kind.filter(|kind| kind != "file") {
            let message = format!("registry: Larder cannot read a registry of type '{kind}', only files");
            problems.error_with_help(&node.at, message, TO_FILE.to_owned());
            return None;
        }
        registry.required_text("path")?.value
    };
    let path = path.strip_prefix("file://").unwrap_or(&path);
    if let Some((scheme, _)) = path.split_once("://") {
        let message = format!("registry: Larder reads registries from files, and not from {scheme}://");
        problems.error_with_help(&node.at, message, TO_FILE.to_owned());
        return None;
    }
    Some(path.to_owned())
}

/// The path of the SQLite file, from the repository, or the type of another online store.
fn online_store(table: &mut Table<'_>, problems: &Problems) -> Result<String, String> {
    let sqlite = || SQLITE_PATH.to_owned();
    match table.get_or_null("online_store") {
        // Feast's default.
        None => Ok(sqlite()),
        Some(Node { tree: Tree::Null, .. }) => Err("null".to_owned()),
        Some(Node { tree: Tree::Text(kind), .. }) if kind == "sqlite" => Ok(sqlite()),
        Some(Node { tree: Tree::Text(kind), .. }) => Err(kind.clone()),
        Some(node) => {
            let Some(mut store) = Table::new("online_store", node, problems) else { return Err(String::new()) };
            match store.text("type").map(|kind| kind.value) {
                Some(kind) if kind != "sqlite" => Err(kind),
                _ => Ok(store.text("path").map_or_else(sqlite, |path| path.value)),
            }
        }
    }
}

/// Who is let in is Larder's own setting, and nobody is to think that this one counts.
fn auth(table: &mut Table<'_>, problems: &Problems) {
    let Some(node) = table.get("auth").filter(|node| matches!(node.tree, Tree::Map(_))) else { return };
    let kind = Table::new("auth", node, problems).and_then(|mut auth| auth.text("type")).map(|kind| kind.value);
    if let Some(kind) = kind.filter(|kind| kind != "no_auth") {
        let message = format!("auth: Larder does not ask for tokens of type '{kind}': it lets everybody in");
        let help = "to ask for tokens of its own, set 'server: {auth: {tokens: [...]}}' in larder.yaml".to_owned();
        problems.warning(&node.at, message, help);
    }
}

/// Puts variables of the environment into a text, as Feast does with `feature_store.yaml` (Python's
/// `os.path.expandvars`): `$NAME` and `${NAME}`; one that is not set stays as it is written.
fn expand(text: &str, env: Environment<'_>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        expanded.push_str(before);
        let after = &from[1..];
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, len) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some((name, _)) => (name, name.len() + 3),
            None => {
                let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
                (&after[..end], end + 1)
            }
        };
        let value = if name.is_empty() { None } else { env(name) };
        expanded.push_str(value.as_deref().unwrap_or(&from[..len]));
        rest = &from[len..];
    }
    expanded.push_str(rest);
    expanded
}
