//! Tests of settings and definitions that need a Cargo feature, for builds with any features.

use std::{fs, path::Path};

use expect_test::{Expect, expect};
use larder_model::yaml::Problems;

use super::{BASE, lines, no_env};
use crate::config::{BuildFeatures, Config, load_definitions, read::read};

const NONE: BuildFeatures = BuildFeatures { aws: false, sqlite: false, grpc: false, tools: false };
const ALL: BuildFeatures = BuildFeatures { aws: true, sqlite: true, grpc: true, tools: true };

/// Compares the problems of a configuration in a build with these features.
#[track_caller]
fn check(build: BuildFeatures, text: &str, expected: Expect) {
    let problems = Problems::default();
    assert!(read("larder.yaml", Path::new(BASE), text, &[], &no_env, build, &problems).is_some());
    expected.assert_eq(&lines(&problems.into_sorted()));
}

#[test]
fn settings_need_their_feature() {
    let text = "grpc:\n  listen: 127.0.0.1:6567\naws:\n  region: eu-west-1\n  attempts_max: 5\n";
    check(
        NONE,
        text,
        expect![[r#"
            larder.yaml:2:11: error: grpc: 'listen': this build of larder does not support gRPC (build with the Cargo feature 'grpc')
            larder.yaml:4:11: error: aws: 'region': this build of larder does not support AWS (build with the Cargo feature 'aws')
            larder.yaml:5:17: error: aws: 'attempts_max': this build of larder does not support AWS (build with the Cargo feature 'aws')"#]],
    );
    check(
        BuildFeatures { aws: true, ..NONE },
        text,
        expect![
            "larder.yaml:2:11: error: grpc: 'listen': this build of larder does not support gRPC (build with the Cargo feature 'grpc')"
        ],
    );
    check(ALL, text, expect![]);
}

#[test]
fn defaults_need_no_feature() {
    let defaults = "grpc: {listen: off, insecure: false}\naws: {region: off, s3_endpoint: off, s3_path_style: false, \
                    connect_timeout: 3s, attempt_timeout: 10s, operation_timeout: 30s, attempts_max: 3}\n";
    for text in ["", defaults, include_str!("../../../../configs/larder.yaml")] {
        check(NONE, text, expect![]);
    }
}

#[test]
fn sources_need_their_feature() {
    let dir = tempfile::tempdir().unwrap();
    let view = |name: &str, sources: &str| {
        format!("  - name: {name}\n    entities: [user_id]\n    features: [{{name: f, type: Int64}}]\n    {sources}\n")
    };
    let definitions = "entities: [{name: user_id, type: Int64}]\nfeature_views:\n".to_owned()
        + &view("in_files", "source: {path: a.parquet}")
        + &view("in_s3", "source: {path: 's3://bucket/a/'}")
        + &view("in_table", "source: {dynamodb: users}")
        + &view("in_sqlite", "source: {feast_sqlite: online.db}")
        + &view("in_batch", "batch_source: {path: 's3://bucket/b/'}");
    fs::write(dir.path().join("larder.yaml"), "features: [views.yaml]\n").unwrap();
    fs::write(dir.path().join("views.yaml"), definitions).unwrap();
    let config = Config::load(&dir.path().join("larder.yaml"), &no_env).unwrap();
    let check = |build, expected: Expect| {
        let error = load_definitions(&Config { build, ..config.clone() }).map(|_| ()).unwrap_err().to_string();
        expected.assert_eq(&error.replace(&format!("{}/", dir.path().display()), ""));
    };
    check(
        NONE,
        expect![[r#"
            views.yaml:10:20: error: feature view 'in_s3': source: s3://bucket/a/: this build of larder does not support S3 (build with the Cargo feature 'aws')
            views.yaml:14:24: error: feature view 'in_table': source: users: this build of larder does not support DynamoDB (build with the Cargo feature 'aws')
            views.yaml:18:28: error: feature view 'in_sqlite': source: online.db: this build of larder does not support SQLite (build with the Cargo feature 'sqlite')
            views.yaml:22:26: error: feature view 'in_batch': batch_source: s3://bucket/b/: this build of larder does not support S3 (build with the Cargo feature 'aws')"#]],
    );
    check(
        BuildFeatures { sqlite: false, ..ALL },
        expect![
            "views.yaml:18:28: error: feature view 'in_sqlite': source: online.db: this build of larder does not support SQLite (build with the Cargo feature 'sqlite')"
        ],
    );
    let loaded = load_definitions(&Config { build: ALL, ..config.clone() }).unwrap();
    let readable = loaded.catalog.views().iter().filter(|view| NONE.can_read(view));
    assert_eq!(readable.map(|view| &*view.name).collect::<Vec<_>>(), ["in_files"]);
}
