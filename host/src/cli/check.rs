//! `larder check`: reports all errors in one run, including those that only sources and plugins reveal.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::Result;
use clap::Args;
use larder_common::clock::SystemClock;
use larder_model::{
    model::{FeatureService, Projection},
    registry::Catalog,
    yaml::{Place, Problem, Severity},
};
use larder_sync::check_source;

use super::{ConfigArg, output, plugin};
use crate::config::{CheckedConfig, Config, ConfigError, check_definitions, check_logging, load_access};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Do not open the sources: only check configuration, definitions and plugins
    #[arg(long)]
    offline: bool,
}

/// The maximum number of sources that are opened concurrently. Opening a source may take long.
const CONCURRENT_SOURCES_MAX: usize = 8;
/// The tag of a service whose callers always request full names.
const FULL_NAMES_TAG: &str = "full_feature_names";

pub(super) fn run(args: &CheckArgs) -> Result<()> {
    let CheckedConfig { config, sound, mut problems } = args.config.check()?;
    // Each stage checks the parts that the previous stages found valid, so that one run reports as many errors as
    // possible.
    let Some(config) = config else { return Err(ConfigError::Invalid(problems).into()) };
    match load_access(&config.http) {
        Ok(access) => problems.extend(access.warnings),
        Err(ConfigError::Invalid(found)) => problems.extend(found),
        Err(other) => problems.push(error_at(&config, &other)),
    }
    problems.extend(check_logging(&config.logging));
    let catalog = sound.definitions.then(|| {
        let checked = check_definitions(&config);
        problems.extend(checked.problems);
        checked.sound
    });
    let Some(catalog) = &catalog else {
        problems.sort_by(|a, b| a.at.cmp(&b.at));
        return Err(ConfigError::Invalid(problems).into());
    };
    for service in catalog.services() {
        problems.extend(service_problems(service, catalog, config.http.limits.request.features_max));
    }
    if !args.offline && sound.sources {
        problems.extend(source_problems(&config, catalog));
    }
    problems.sort_by(|a, b| a.at.cmp(&b.at));
    if sound.plugins {
        match plugin::compat_problems(&config.plugins, catalog) {
            Ok(found) => problems.extend(found),
            Err(other) => problems.push(error_at(&config, &format!("plugins: {}", output::describe(&other)))),
        }
    }
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(ConfigError::Invalid(problems).into());
    }
    problems.iter().for_each(|warning| output::line(&warning.to_string()));
    let what = match &config.feast {
        Some(feast) if !config.origin.file.is_file() => &feast.dir,
        _ => &config.origin.file,
    };
    let features: usize = catalog.views().iter().map(|view| view.features.len()).sum();
    let counted = |count: usize, one, many| output::counted(count as u64, one, many);
    output::line(&format!(
        "{}: project {}, {}, {} with {}, {}: {}",
        what.display(),
        catalog.project(),
        counted(catalog.entities().len(), "entity", "entities"),
        counted(catalog.views().len(), "feature view", "feature views"),
        counted(features, "feature", "features"),
        counted(catalog.services().len(), "feature service", "feature services"),
        match problems.len() {
            0 => "no errors".to_owned(),
            count => format!("no errors, {}", counted(count, "warning", "warnings")),
        },
    ));
    Ok(())
}

/// Creates an error at the configuration file, without a line number.
fn error_at(config: &Config, error: &impl ToString) -> Problem {
    let at = Place::file(&config.origin.file.display().to_string());
    Problem { severity: Severity::Error, at, message: error.to_string(), help: None }
}

/// Returns the problems of requests for a feature service: columns with the same name, and too many features.
fn service_problems(service: &FeatureService, catalog: &Catalog, features_max: usize) -> Vec<Problem> {
    let at = catalog.place_of_service(&service.name).cloned().unwrap_or_else(|| Place::file(&service.name));
    let problem = |severity, message, help| Problem { severity, at: at.clone(), message, help };
    let mut problems = Vec::new();
    let mut columns: BTreeMap<&str, Vec<(&Projection, String)>> = BTreeMap::new();
    for projection in &service.projections {
        for feature in &projection.features {
            columns.entry(feature).or_default().push((projection, format!("{}:{feature}", projection.prefix())));
        }
    }
    let always_full = service.tags.get(FULL_NAMES_TAG).is_some_and(|value| value == "true");
    for (feature, all) in columns.iter().filter(|(_, all)| all.len() > 1 && !always_full) {
        // Aliases appear only in full names. If at most one projection has no alias, the service is meant for requests
        // with full names.
        let means_full_names = all.iter().filter(|(projection, _)| projection.alias.is_none()).count() < 2;
        let all = all.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>();
        let message = format!(
            "feature service '{}': {} have the same feature name, '{feature}', so requests without full_feature_names \
             fail",
            service.name,
            all.join(" and ")
        );
        let help = format!("rename one of the features, remove one, or tag the service '{FULL_NAMES_TAG}: \"true\"'");
        // Feast serves such a service to requests with full names, so it is not an error in an imported service.
        let is_warning = catalog.is_imported() || means_full_names;
        let severity = if is_warning { Severity::Warning } else { Severity::Error };
        problems.push(problem(severity, message, Some(help)));
    }
    let views = service.projections.iter().filter_map(|projection| Some((projection, catalog.view(&projection.view)?)));
    let keys: BTreeSet<&str> = views
        .flat_map(|(projection, view)| view.join_keys.iter().map(|key| (&projection.join_key_map, &key.name)))
        .map(|(columns, key)| columns.get(key).map_or(&**key, |column| &**column))
        .collect();
    for (feature, all) in columns.iter().filter(|(feature, _)| keys.contains(*feature) && !always_full) {
        let all = all.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(", ");
        let message = format!(
            "feature service '{}': {all} has the name of a join key, so responses without full_feature_names have two \
             columns '{feature}'",
            service.name
        );
        problems.push(problem(
            Severity::Warning,
            message,
            Some("rename the feature, or request full names".to_owned()),
        ));
    }
    let features: usize = service.projections.iter().map(|projection| projection.features.len()).sum();
    if features > features_max {
        let message = format!(
            "feature service '{}' selects {features} features, but at most {features_max} are allowed",
            service.name
        );
        problems.push(problem(Severity::Error, message, Some("raise 'server: limits: features_max'".to_owned())));
    }
    problems
}

/// Opens the sources of the views, several at a time, and returns their problems.
fn source_problems(config: &Config, catalog: &Catalog) -> Vec<Problem> {
    let setting = config.sync_setting(Arc::new(SystemClock));
    let views = catalog.views();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(view) = views.get(next.fetch_add(1, Ordering::Relaxed)) {
            if !config.build.can_read(view) {
                // The problems of the definitions already include that this build cannot read the source.
                continue;
            }
            for problem in check_source(view, catalog, &setting) {
                let at = match &problem.feature {
                    Some(feature) => catalog.place_of_view(&view.name, Some(feature)),
                    None => catalog.place_of_source(&view.name),
                };
                let at = at.cloned().unwrap_or_else(|| Place::file(&view.name));
                let severity = if problem.is_warning { Severity::Warning } else { Severity::Error };
                let message = format!("feature view '{}': {}", view.name, problem.message);
                let problem = Problem { severity, at, message, help: problem.help };
                found.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..CONCURRENT_SOURCES_MAX.min(views.len()) {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by(|a, b| (&a.at, &a.message).cmp(&(&b.at, &b.message)));
    found
}
