//! Reads `logging:`, the settings of the feature log.

use std::{path::Path, time::Duration};

use larder_feature_log::{FeatureLogSettings, LogSchema, LogTarget, Roll};
use larder_model::{
    model::AwsPlace,
    registry::Catalog,
    yaml::{Located, Place, Problem, Problems, Severity, Tree, nearest},
};
use larder_source::aws::ObjectAt;
use rustix::fs::{Access, access};

use super::{
    BuildFeatures, BuildPart,
    patterns::resolve,
    section::Section,
    units::{HOUR, KIB, MIB, TIB, memory},
};

/// The settings in `logging:`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoggingConfig {
    /// The logged feature services, each with the part of the keys that is sampled, from 0 to 1.
    pub services: Vec<(Located<String>, f64)>,
    /// All other settings.
    pub log: FeatureLogSettings,
    /// The position of `to`.
    at: Option<Place>,
}

/// The maximum length of the name of a directory in bytes.
const NAME_BYTES_MAX: usize = 255;
const SECOND: Duration = Duration::from_secs(1);
const NO_TARGET: &str = "set it to a directory, or to s3://BUCKET/PREFIX";

pub(super) fn logging(mut section: Section<'_>, base_dir: &Path, build: BuildFeatures) -> LoggingConfig {
    let services = services(&mut section);
    let to = section.text("to");
    let mut target = to.as_ref().and_then(|to| target(&section, to, base_dir, build));
    let mut at = to.map(|to| to.at);
    if services.is_empty() {
        (target, at) = (None, None);
    } else if at.is_none() {
        section.error(section.at(), "'to' is missing", NO_TARGET.to_owned());
    }
    let default = FeatureLogSettings::default();
    let queue = section.bytes("queue", 64 * KIB..=TIB, default.queue_bytes_max as u64);
    let mut roll = section.section("logging.roll");
    let settings = FeatureLogSettings {
        target,
        roll: Roll {
            bytes: memory(roll.bytes("bytes", 64 * KIB..=1_024 * MIB, default.roll.bytes as u64)),
            every: roll.duration("every", SECOND..=24 * HOUR, default.roll.every),
        },
        queue_bytes_max: memory(queue),
    };
    roll.finish();
    section.finish();
    LoggingConfig { services, log: settings, at }
}

fn services(section: &mut Section<'_>) -> Vec<(Located<String>, f64)> {
    let Some(node) = section.get("services") else { return Vec::new() };
    let Tree::Map(entries) = &node.tree else {
        let help = "map the name of each service to a rate, for example {churn_prediction_v1: 0.01}".to_owned();
        section.error(&node.at, format!("'services' must be a mapping, got {}", node.tree.kind()), help);
        return Vec::new();
    };
    let mut services = Vec::with_capacity(entries.len());
    for (name, node) in entries {
        let rate = match node.tree {
            Tree::Int(0) => Some(0.0),
            Tree::Int(1) => Some(1.0),
            Tree::Float(rate) if (0.0..=1.0).contains(&rate) => Some(rate),
            _ => None,
        };
        match rate {
            Some(rate) => services.push((name.clone(), rate)),
            None => {
                let message = format!("'services' has a rate for '{}' that is not a number from 0 to 1", name.value);
                section.error(&node.at, message, "0.01 logs a hundredth of the entities, 1 logs all".to_owned());
            }
        }
    }
    services
}

fn target(section: &Section<'_>, to: &Located<String>, base_dir: &Path, build: BuildFeatures) -> Option<LogTarget> {
    let is_url = to.value.contains("://");
    let path = to.value.trim().trim_end_matches('/');
    if !is_url && !path.is_empty() {
        return Some(LogTarget::Dir(resolve(base_dir, path)));
    }
    let object = ObjectAt::parse(path, AwsPlace::default());
    if object.is_none() {
        section.error(
            &to.at,
            format!("'to' is '{}', which is neither a path nor a prefix in S3", to.value),
            NO_TARGET.to_owned(),
        );
    }
    section.require(build, BuildPart::S3, "to", &to.at);
    object.map(LogTarget::S3)
}

/// Adds an error for each logged service that is not defined or cannot be logged, and for a log in the files of a view.
pub(super) fn check_services(config: &LoggingConfig, base_dir: &Path, catalog: &Catalog, problems: &Problems) {
    if let (Some(LogTarget::Dir(dir)), Some(at)) = (&config.log.target, &config.at) {
        let local = catalog.views().iter().filter_map(|view| Some((view, view.files()?)));
        let mut local = local.filter(|(_, files)| !files.path.contains("://"));
        if let Some((view, files)) = local.find(|(_, files)| dir.starts_with(resolve(base_dir, &files.path))) {
            let message = format!("logging: 'to' is in {}, the files of feature view '{}'", files.path, view.name);
            problems.error_with_help(at, message, Some("set 'to' to another directory".to_owned()));
        }
    }
    for (service, _) in &config.services {
        let is_left_out = catalog.unservable_services().contains_key(service.value.as_str());
        if catalog.service(&service.value).is_none() && !is_left_out {
            let names = catalog.services().iter().map(|service| &*service.name);
            let message = format!("logging: 'services' has unknown feature service '{}'", service.value);
            problems.error_with_help(&service.at, message, nearest(&service.value, names));
        }
        if service.value.len() > NAME_BYTES_MAX {
            let message =
                format!("logging: the name of feature service '{}' is too long for a directory", service.value);
            problems.error_with_help(&service.at, message, Some(format!("use at most {NAME_BYTES_MAX} bytes")));
        }
        let schema = LogSchema::of(catalog, &service.value);
        if let Some(feature) = schema.and_then(|schema| schema.unlogged_feature(catalog, &service.value)) {
            let message = format!(
                "logging: feature '{feature}' of feature service '{}' cannot be logged, because the log has other columns with \
                 the same names",
                service.value
            );
            let help =
                "in a log, NAME__timestamp and NAME__status belong to the feature NAME; rename one of the features";
            problems.error_with_help(&service.at, message, Some(help.to_owned()));
        }
    }
}

/// Returns an error if the directory of the log cannot be written. Does not create it.
#[must_use]
pub fn check_logging(config: &LoggingConfig) -> Option<Problem> {
    let (Some(LogTarget::Dir(dir)), Some(at)) = (&config.log.target, &config.at) else { return None };
    // If the directory does not exist, it is created, so its nearest existing ancestor must be writable.
    let existing = dir.ancestors().find(|ancestor| access(*ancestor, Access::EXISTS).is_ok())?;
    let checked = if existing.is_dir() {
        access(existing, Access::WRITE_OK | Access::EXEC_OK).map_err(std::io::Error::from)
    } else {
        Err(std::io::ErrorKind::NotADirectory.into())
    };
    let error = checked.err()?;
    Some(Problem {
        severity: Severity::Error,
        at: at.clone(),
        message: format!("logging: 'to' is {}, but {} cannot be written: {error}", dir.display(), existing.display()),
        help: Some("set 'to' to a directory in which the server may write".to_owned()),
    })
}

// === impl LoggingConfig ===

impl LoggingConfig {
    /// Returns the name and the rate of each logged service.
    pub fn rates(&self) -> impl Iterator<Item = (&str, f64)> {
        self.services.iter().map(|(service, rate)| (service.value.as_str(), *rate))
    }
}
