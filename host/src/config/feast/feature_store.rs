//! Reads a repository's `feature_store.yaml`, with Feast's defaults.

use std::time::Duration;

use larder_model::{
    codec::KeyVersion,
    model::AwsPlace,
    yaml::{Located, Node, Place, Problems, Table, Tree, parse},
};
use larder_source::aws::ObjectAt;

use super::{Environment, RegistryAt, RegistryCache};

/// The parts of `feature_store.yaml` that Larder uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FeatureStore {
    pub(super) project: String,
    pub(super) key_version: KeyVersion,
    pub(super) registry: Registry,
    pub(super) registry_at: Place,
    pub(super) online_store: OnlineStore,
    pub(super) online_store_at: Place,
}

/// The parts of `registry:` that Larder uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Registry {
    /// A path relative to the repository, or an object in S3.
    pub(super) at: RegistryAt,
    pub(super) cache: RegistryCache,
    /// `enable_online_feature_view_versioning:`
    pub(super) versioned: bool,
}

/// The online store of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OnlineStore {
    /// A SQLite file, with its path relative to the repository.
    Sqlite(String),
    /// Tables in DynamoDB.
    DynamoDb { template: String, place: AwsPlace },
    /// An online store that Larder does not support, with its type.
    Other(String),
}

/// Feast's default (`SqliteOnlineStoreConfig.path`).
const SQLITE_PATH: &str = "data/online.db";
/// Feast's default (`DynamoDBOnlineStoreConfig.table_name_template`).
const TABLE_TEMPLATE: &str = "{project}.{table_name}";
/// Feast's default (`RegistryConfig.cache_ttl_seconds`).
const CACHE_TTL: Duration = Duration::from_secs(600);

/// Parses `feature_store.yaml`. Returns `None` if an error was added.
pub(super) fn read(file: &str, text: &str, env: Environment<'_>, problems: &Problems) -> Option<FeatureStore> {
    let before = problems.error_count();
    let text = expand(text, env);
    let root = parse(file, &text, problems)?;
    let mut table = Table::new("feature_store.yaml", &root, problems)?;
    let project = table.required_text("project");
    let mut place = |key| table.get(key).map_or_else(|| root.at.clone(), |node| node.at.clone());
    let (registry_at, online_store_at) = (place("registry"), place("online_store"));
    let registry = registry(&mut table, env, problems);
    let online_store = online_store(&mut table, problems);
    auth(&mut table, problems);
    let key_version = match table.int("entity_key_serialization_version", i64::MIN, i64::MAX) {
        None => KeyVersion::default(),
        Some(number) => KeyVersion::from_number(number.value).unwrap_or_else(|| {
            let message =
                format!("'entity_key_serialization_version' is {}, but Larder supports only 2 and 3", number.value);
            problems.error(&number.at, message);
            KeyVersion::default()
        }),
    };
    let (project, registry) = (project?.value, registry?);
    let store = FeatureStore { project, key_version, registry, registry_at, online_store, online_store_at };
    (problems.error_count() == before).then_some(store)
}

/// Returns the location of the registry: a path relative to the repository, or an object in S3.
fn registry(table: &mut Table<'_>, env: Environment<'_>, problems: &Problems) -> Option<Registry> {
    const TO_FILE: &str = "write the registry to a file with the Feast SDK: \
                           FeatureStore('.').registry.proto().SerializeToString()";
    let Some(node) = table.get("registry") else {
        table.missing("registry");
        return None;
    };
    let mut cache = RegistryCache { allowed: table.bool("allow_registry_cache").unwrap_or(true), ttl: Some(CACHE_TTL) };
    let mut versioned = false;
    let path = if let Tree::Text(path) = &node.tree {
        path.clone()
    } else {
        let mut registry = Table::new("registry", node, problems)?;
        let kind = registry.text("registry_type").map(|kind| kind.value);
        if let Some(kind) = kind.filter(|kind| kind != "file") {
            let message =
                format!("registry: Larder cannot read a registry of type '{kind}', only files and objects in S3");
            problems.error_with_help(&node.at, message, TO_FILE.to_owned());
            return None;
        }
        versioned = registry.bool("enable_online_feature_view_versioning").unwrap_or(false);
        cache.allowed &= registry.bool("allow_registry_cache").unwrap_or(true);
        if let Some(seconds) = registry.int("cache_ttl_seconds", 0, i64::from(u32::MAX)) {
            cache.ttl = Some(Duration::from_secs(seconds.value.unsigned_abs())).filter(|ttl| !ttl.is_zero());
        }
        registry.required_text("path")?.value
    };
    // Feast reads the endpoint from this variable.
    let place = AwsPlace { region: None, endpoint: env("FEAST_S3_ENDPOINT_URL") };
    if let Some(object) = ObjectAt::parse(&path, place) {
        return Some(Registry { at: RegistryAt::Object(object), cache, versioned });
    }
    let path = path.strip_prefix("file://").unwrap_or(&path);
    if let Some((scheme, _)) = path.split_once("://") {
        let message = format!("registry: Larder only reads registries from files and from S3, not from {scheme}://");
        problems.error_with_help(&node.at, message, TO_FILE.to_owned());
        return None;
    }
    Some(Registry { at: RegistryAt::File(path.into()), cache, versioned })
}

fn online_store(table: &mut Table<'_>, problems: &Problems) -> OnlineStore {
    let sqlite = || OnlineStore::Sqlite(SQLITE_PATH.to_owned());
    let dynamodb = || OnlineStore::DynamoDb { template: TABLE_TEMPLATE.to_owned(), place: AwsPlace::default() };
    match table.get_or_null("online_store") {
        // Feast's default online store is SQLite.
        None => sqlite(),
        Some(Node { tree: Tree::Null, .. }) => OnlineStore::Other("null".to_owned()),
        Some(Node { tree: Tree::Text(kind), .. }) => match kind.as_str() {
            "sqlite" => sqlite(),
            "dynamodb" => dynamodb(),
            other => OnlineStore::Other(other.to_owned()),
        },
        Some(node) => {
            let Some(mut store) = Table::new("online_store", node, problems) else {
                return OnlineStore::Other(String::new());
            };
            match store.text("type").map(|kind| kind.value).as_deref() {
                None | Some("sqlite") => store.text("path").map_or_else(sqlite, |path| OnlineStore::Sqlite(path.value)),
                Some("dynamodb") => {
                    let text = |text: Option<Located<String>>| text.map(|text| text.value);
                    let template = text(store.text("table_name_template")).unwrap_or_else(|| TABLE_TEMPLATE.to_owned());
                    let place =
                        AwsPlace { region: text(store.text("region")), endpoint: text(store.text("endpoint_url")) };
                    OnlineStore::DynamoDb { template, place }
                }
                Some(other) => OnlineStore::Other(other.to_owned()),
            }
        }
    }
}

/// Warns about `auth` in `feature_store.yaml`, which has no effect: Larder has its own setting for authentication.
fn auth(table: &mut Table<'_>, problems: &Problems) {
    let Some(node) = table.get("auth").filter(|node| matches!(node.tree, Tree::Map(_))) else { return };
    let kind = Table::new("auth", node, problems).and_then(|mut auth| auth.text("type")).map(|kind| kind.value);
    if let Some(kind) = kind.filter(|kind| kind != "no_auth") {
        let message = format!("auth: type '{kind}' has no effect: Larder does not check Feast's tokens");
        let help = "to require Larder's own tokens, set 'server: {auth: {tokens: [...]}}' in larder.yaml".to_owned();
        problems.warning(&node.at, message, help);
    }
}

/// Expands `$NAME` and `${NAME}` in a string to the values of environment variables. Feast expands `feature_store.yaml`
/// in the same way, with Python's `os.path.expandvars`. A variable that is not set stays unexpanded.
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
