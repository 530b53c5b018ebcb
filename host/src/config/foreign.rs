//! Keys that users may write at the top level of `larder.yaml` by mistake: keys of Feast's `feature_store.yaml` and of
//! definition files, and keys that other servers use.
//!
//! Each key has its own hint, because suggesting the most similar valid key would be misleading.

use larder_model::yaml::{Place, Problems};

use super::environment::Entries;

/// The keys, each with its hint.
const FOREIGN: &[(&str, &str)] = &[
    // Keys of Feast's `feature_store.yaml`.
    ("registry", "to serve a Feast repository, name its directory: 'feast: {repo: .}'"),
    ("provider", "Larder has no providers: leave it out"),
    ("online_store", "Larder has its own store: see 'store'"),
    ("offline_store", "each feature view names its Parquet files under 'source'"),
    ("batch_engine", "Larder loads features itself: see 'sync'"),
    ("feature_server", "see 'server' and 'metrics'"),
    ("entity_key_serialization_version", "use 'entity_key_version'"),
    ("flags", "Larder has no feature flags: leave it out"),
    ("auth", "Larder uses bearer tokens: write 'server: {auth: {tokens: [...]}}'"),
    // Keys of a definition file.
    ("entities", "definitions are in separate files: name them under 'features'"),
    ("feature_views", "definitions are in separate files: name them under 'features'"),
    ("feature_services", "definitions are in separate files: name them under 'features'"),
    // Keys that other servers use.
    ("listen", "write it under 'server'"),
    ("host", "write 'server: {listen: <address>:<port>}'"),
    ("port", "write 'server: {listen: <address>:<port>}'"),
    ("tls", "write it under 'server'"),
    ("tokens", "write 'server: {auth: {tokens: [...]}}'"),
    ("data_dir", "write it under 'store'"),
    ("ttl", "write it under 'serving'"),
    ("log_level", "write 'log: {level: ...}'"),
];

/// Reports these keys as errors, and removes them from the tree, so that they are not also reported as unknown keys.
pub(super) fn refuse(file: &str, entries: &mut Entries, problems: &Problems) {
    let has = |name: &str| entries.iter().any(|(key, _)| key.value == name);
    if has("registry") && has("provider") {
        let help = "to use a Feast repository, set --feast-repo (feast_repo in Python) to its directory";
        let message = "configuration: this is Feast's feature_store.yaml";
        problems.error_with_help(&Place::file(file), message, help.to_owned());
    }
    entries.retain(|(key, _)| {
        let Some((name, help)) = FOREIGN.iter().find(|(name, _)| *name == key.value) else { return true };
        let message = format!("configuration: unknown key '{name}'");
        problems.error_with_help(&key.at, message, (*help).to_owned());
        false
    });
}
