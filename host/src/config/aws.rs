//! Reads `aws:`, the settings for access to AWS.

use std::sync::Arc;

use larder_source::aws::{Aws, AwsConfig};

use super::{
    BuildFeatures, BuildPart,
    section::Section,
    units::{HOUR, TIMEOUT_MIN},
};

pub(super) fn aws(mut section: Section<'_>, build: BuildFeatures) -> Arc<Aws> {
    let default = AwsConfig::default();
    let text = |section: &mut Section<'_>, key| {
        if section.is_off(key) { None } else { section.text(key).map(|text| text.value) }
    };
    let within = TIMEOUT_MIN..=HOUR;
    let config = AwsConfig {
        region: text(&mut section, "region"),
        profile: text(&mut section, "profile"),
        s3_endpoint: endpoint(&mut section, "s3_endpoint"),
        s3_path_style: section.bool("s3_path_style", default.s3_path_style),
        dynamodb_endpoint: endpoint(&mut section, "dynamodb_endpoint"),
        connect_timeout: section.duration("connect_timeout", within.clone(), default.connect_timeout),
        attempt_timeout: section.duration("attempt_timeout", within.clone(), default.attempt_timeout),
        operation_timeout: section.duration("operation_timeout", within, default.operation_timeout),
        attempts_max: u32::try_from(section.count("attempts_max", 1..=20, 3)).unwrap_or(default.attempts_max),
        keys: None,
    };
    if config.operation_timeout < config.attempt_timeout {
        let (all, one) = (config.operation_timeout, config.attempt_timeout);
        let message = format!("'operation_timeout' is {all:?}, which is less than 'attempt_timeout' ({one:?})");
        section.error(
            section.at(),
            message,
            "raise 'operation_timeout': an operation consists of one or more attempts".to_owned(),
        );
    }
    let differs = [
        ("region", config.region != default.region),
        ("profile", config.profile != default.profile),
        ("s3_endpoint", config.s3_endpoint != default.s3_endpoint),
        ("s3_path_style", config.s3_path_style != default.s3_path_style),
        ("dynamodb_endpoint", config.dynamodb_endpoint != default.dynamodb_endpoint),
        ("connect_timeout", config.connect_timeout != default.connect_timeout),
        ("attempt_timeout", config.attempt_timeout != default.attempt_timeout),
        ("operation_timeout", config.operation_timeout != default.operation_timeout),
        ("attempts_max", config.attempts_max != default.attempts_max),
    ];
    for (key, _) in differs.into_iter().filter(|(_, differs)| *differs) {
        if let Some(node) = section.get(key) {
            section.require(build, BuildPart::Aws, key, &node.at);
        }
    }
    section.finish();
    Aws::new(config)
}

/// Returns the endpoint of a service. Adds an error if it is not a URL.
fn endpoint(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let written = if section.is_off(key) { None } else { section.text(key) }?;
    let is_url = ["http://", "https://"]
        .iter()
        .any(|scheme| written.value.len() > scheme.len() && written.value.starts_with(scheme));
    if !is_url {
        let message = format!("'{key}' is '{}', which is not a URL", written.value);
        section.error(&written.at, message, "for example http://127.0.0.1:5000".to_owned());
    }
    Some(written.value)
}
