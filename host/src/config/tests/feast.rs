//! Tests of a Feast repository's `feature_store.yaml`: the settings that Larder uses, and messages about other
//! settings.

use std::fs;

use expect_test::{Expect, expect};
use larder_model::{
    model::AwsPlace,
    registry::{FeastValues, UnknownFields},
    yaml::Problems,
};
use larder_source::aws::{Aws, AwsConfig};
use tempfile::TempDir;

use super::make_pipe;
use crate::config::{BuildFeatures, FeastConfig, FeastRepo, FeastValuesFrom, RegistryNeed};

const REGISTRY: &[u8] = include_bytes!("../../../tests/golden/repo/data/registry.db");

/// Opens a repository with these lines in `feature_store.yaml`. Returns the repository and all messages.
fn open(lines: &str, from: FeastValuesFrom) -> (Option<FeastRepo>, String) {
    open_in(BuildFeatures::COMPILED, lines, from)
}

/// Opens a repository in a build with these features.
fn open_in(build: BuildFeatures, lines: &str, from: FeastValuesFrom) -> (Option<FeastRepo>, String) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("registry.db"), REGISTRY).unwrap();
    let registry = if lines.contains("registry:") { "" } else { "registry: registry.db\n" };
    let text = format!("project: churn_prediction\n{registry}provider: local\n{lines}");
    fs::write(dir.path().join("feature_store.yaml"), text).unwrap();
    let config = FeastConfig {
        written: ".".into(),
        dir: dir.path().to_path_buf(),
        from,
        every: None,
        unknown_fields: UnknownFields::Refuse,
    };
    let problems = Problems::default();
    let env = |name: &str| (name == "REGISTRY").then(|| "registry.db".to_owned());
    let aws = Aws::new(AwsConfig::default());
    let repo = FeastRepo::open(&config, build, &aws, None, RegistryNeed::There, &env, &problems);
    let messages = problems.into_sorted().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    (repo, messages.replace(&format!("{}/", dir.path().display()), ""))
}

#[track_caller]
fn check(lines: &str, from: FeastValuesFrom, values: Option<FeastValues>, expected: Expect) {
    let (repo, messages) = open(lines, from);
    expected.assert_eq(&messages);
    assert_eq!(repo.map(|repo| repo.values().clone()), values, "{lines}");
}

#[test]
fn values_come_from_readable_store() {
    let batch = Some(FeastValues::BatchSources);
    let online = |path: &str| Some(FeastValues::OnlineStore(path.to_owned()));
    let redis = "online_store: {type: redis, connection_string: 'localhost:6379'}\n";
    check("", FeastValuesFrom::Auto, batch.clone(), expect![]);
    check("", FeastValuesFrom::Online, online("data/online.db"), expect![]);
    check("online_store: sqlite\n", FeastValuesFrom::Online, online("data/online.db"), expect![]);
    check("online_store: {path: a.db}\n", FeastValuesFrom::Online, online("a.db"), expect![]);
    check(redis, FeastValuesFrom::Batch, batch.clone(), expect![]);
    let tables = |template: &str, region: Option<&str>, endpoint: Option<&str>| {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let place = AwsPlace { region: own(region), endpoint: own(endpoint) };
        Some(FeastValues::DynamoDb { template: template.to_owned(), place, every: None })
    };
    let plain = tables("{project}.{table_name}", None, None);
    check("online_store: dynamodb\n", FeastValuesFrom::Auto, plain, expect![]);
    check(
        "online_store: {type: dynamodb, region: eu-west-1, endpoint_url: 'http://x', table_name_template: 't-{table_name}'}\n",
        FeastValuesFrom::Online,
        tables("t-{table_name}", Some("eu-west-1"), Some("http://x")),
        expect![],
    );
    check("online_store: dynamodb\n", FeastValuesFrom::Batch, batch.clone(), expect![]);
    check(
        redis,
        FeastValuesFrom::Auto,
        batch,
        expect![
            "feature_store.yaml: warning: online_store: Larder cannot read type 'redis', so values come from the batch sources (if that is intended, set 'feast: {values: batch}', or LARDER_FEAST_VALUES=batch)"
        ],
    );
    check(
        redis,
        FeastValuesFrom::Online,
        None,
        expect![
            "feature_store.yaml: error: online_store: Larder cannot read an online store of type 'redis', only sqlite and dynamodb (use the views' batch sources: 'feast: {values: batch}', or LARDER_FEAST_VALUES=batch)"
        ],
    );
}

#[test]
fn registry_path_can_use_environment() {
    let batch = Some(FeastValues::BatchSources);
    check("registry: {path: $REGISTRY, cache_ttl_seconds: 60}\n", FeastValuesFrom::Batch, batch.clone(), expect![]);
    check("registry: {registry_type: file, path: '${REGISTRY}'}\n", FeastValuesFrom::Batch, batch, expect![]);
    for (lines, words) in [
        ("registry: {registry_type: sql, path: 'postgresql://u@h/db'}\n", "a registry of type 'sql', only files"),
        ("registry: gs://bucket/registry.db\n", "not from gs://"),
        ("registry: $NOBODY\n", "$NOBODY cannot be read"),
    ] {
        let (repo, messages) = open(lines, FeastValuesFrom::Batch);
        assert!(repo.is_none() && messages.contains(words), "{messages}");
    }
}

#[test]
fn feast_auth_is_ignored_with_warning() {
    let batch = Some(FeastValues::BatchSources);
    check("auth: {type: no_auth}\n", FeastValuesFrom::Batch, batch.clone(), expect![]);
    check(
        "auth: {type: oidc, client_id: x}\n",
        FeastValuesFrom::Batch,
        batch,
        expect![
            "feature_store.yaml:4:7: warning: auth: type 'oidc' has no effect: Larder does not check Feast's tokens (to require Larder's own tokens, set 'server: {auth: {tokens: [...]}}' in larder.yaml)"
        ],
    );
}

#[test]
fn pipe_as_registry_is_an_error() {
    let dir = TempDir::new().unwrap();
    make_pipe(&dir.path().join("pipe.db"));
    let (repo, messages) = open(&format!("registry: {}/pipe.db\n", dir.path().display()), FeastValuesFrom::Batch);
    assert!(
        repo.is_none() && messages.contains("pipe.db cannot be read: it is a named pipe, not a regular"),
        "{messages}"
    );
}

#[test]
fn repository_needs_features_of_its_stores() {
    let none = BuildFeatures { aws: false, sqlite: false, grpc: false, tools: false };
    let dynamodb = "registry: s3://bucket/registry.db\nonline_store: {type: dynamodb}\n";
    let (repo, messages) = open_in(none, dynamodb, FeastValuesFrom::Auto);
    assert!(repo.is_none());
    expect![[r#"
        feature_store.yaml:3:11: error: registry: s3://bucket/registry.db: this build of larder does not support S3 (build with the Cargo feature 'aws')
        feature_store.yaml:4:15: error: online_store: dynamodb: this build of larder does not support DynamoDB (build with the Cargo feature 'aws')"#]]
    .assert_eq(&messages);
    let sqlite = "online_store: {path: a.db}\n";
    let (repo, messages) = open_in(none, sqlite, FeastValuesFrom::Online);
    assert!(repo.is_none());
    expect!["feature_store.yaml:4:15: error: online_store: a.db: this build of larder does not support SQLite (build with the Cargo feature 'sqlite')"]
        .assert_eq(&messages);
    assert!(open_in(BuildFeatures { sqlite: true, ..none }, sqlite, FeastValuesFrom::Online).0.is_some());
    // If values come from the batch sources, the build need not support the online store.
    assert!(open_in(none, sqlite, FeastValuesFrom::Batch).0.is_some());
    assert!(open_in(none, sqlite, FeastValuesFrom::Auto).0.is_some(), "the file does not exist");
}
