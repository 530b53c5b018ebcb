//! `larder verify`: looks up entity rows and checks the results.
//!
//! If no entities are given, the command samples entities from the files of the views, so that a script need not know
//! any. Every sampled entity must be found.
//!
//! With `--parity`, it compares the values in a feature log with the files instead.

mod parity;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::{Result, bail};
use clap::Args;
use larder_common::clock::SystemClock;
use larder_model::{
    model::{FeatureView, duration_text},
    registry::Catalog,
    yaml::nearest,
};
use larder_sync::{Sample, sample_keys};
use serde_json::{Map, Value, json};

use super::{
    CliError, ConfigArg, output,
    selection::SelectionArgs,
    target::{Target, error_message},
};
use crate::config::load_definitions;

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    selection: SelectionArgs,
    /// How many entities to sample from each view's files, if no entities are given
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    sample: u16,
    /// Also fail if a value is null
    #[arg(long)]
    no_nulls: bool,
    /// Compare the values in this feature log (a file or a directory) bit by bit with values computed from the files of the
    /// views, instead of looking up entities. Fails if a value differs for no known reason
    #[arg(long, value_name = "LOG", conflicts_with_all = ["service", "features", "entities", "full_feature_names", "sample", "no_nulls"])]
    parity: Option<PathBuf>,
}

/// A request whose response is checked.
#[derive(Debug)]
struct SampleRequest {
    request: Value,
    /// The view of the sampled entities; `None` if the user named the entities.
    view: Option<String>,
}

/// The result of one request.
#[derive(Debug, Default)]
struct Verification {
    entities: u64,
    values: u64,
    missing: u64,
    expired: u64,
    null: u64,
    /// One line for each value that is missing, expired or, with `--no-nulls`, null.
    findings: Vec<String>,
}

/// The maximum number of findings that are printed for each view with sampled entities. Further findings are only
/// counted.
const FINDINGS_SHOWN: usize = 20;

pub(super) fn run(args: &VerifyArgs) -> Result<()> {
    if let Some(log) = &args.parity {
        return parity::run(&args.config, log);
    }
    let names_entities = !args.selection.entities.is_empty();
    let (mut samples, mut failed) = if names_entities {
        args.selection.check()?;
        (Vec::new(), 0)
    } else {
        sampled(args)?
    };
    let target = Target::find_with_plugins(&args.config)?;
    if names_entities {
        samples.push(SampleRequest { request: args.selection.request(&target.catalog()?)?, view: None });
    }
    let (mut values, mut bad, mut lines) = (0, 0, Vec::new());
    for sample in &samples {
        let (status, answer) = target.online_features(&sample.request)?;
        if status != 200 {
            let Some(view) = &sample.view else { bail!(CliError::Failed(error_message(&answer))) };
            output::error(&format!("{view}: {}", error_message(&answer)));
            failed += 1;
            continue;
        }
        let verification = Verification::of(&answer, sample, args.no_nulls);
        values += verification.values;
        bad += verification.findings.len() as u64;
        verification.print(sample);
        lines.extend(sample.view.as_ref().map(|view| verification.row(view)));
    }
    if !lines.is_empty() {
        output::table(&["VIEW", "ENTITIES", "VALUES", "MISSING", "EXPIRED", "NULL"], &lines);
    }
    if failed > 0 {
        let failed = output::counted(failed, "view", "views");
        bail!(CliError::Failed(format!("{failed} cannot be verified")));
    }
    let values = output::counted(values, "value", "values");
    let what = if args.no_nulls { "missing, expired, invalid or null" } else { "missing, expired or invalid" };
    if bad > 0 {
        let verb = if bad == 1 { "is" } else { "are" };
        bail!(CliError::Failed(format!("{} of {values} {verb} {what}", output::thousands(bad))));
    }
    output::line(&format!("nothing is {what} in {values}"));
    Ok(())
}

/// Builds a request for each selected view that has files, with entities from these files. Also returns the number of
/// views whose files cannot be read, or have no row with a valid key and time.
fn sampled(args: &VerifyArgs) -> Result<(Vec<SampleRequest>, u64)> {
    let config = args.config.load()?;
    let catalog = load_definitions(&config)?.catalog;
    let setting = config.sync_setting(Arc::new(SystemClock));
    let (mut samples, mut unreadable) = (Vec::new(), 0);
    for (view, features) in selected_views(&args.selection, &catalog)? {
        let Some(view) = catalog.view(&view) else {
            let hint = hint(&view, catalog.views().iter().map(|view| &*view.name));
            bail!(CliError::Failed(format!("feature view '{view}' does not exist{hint}")));
        };
        if view.files().is_none() {
            output::note(&format!(
                "{}: skipped: it has no files to sample entities from. hint: name some entities, as KEY=VALUE",
                view.name
            ));
            continue;
        }
        let Sample { keys, future } = match sample_keys(view, &setting, args.sample.into()) {
            Ok(sample) => sample,
            Err(error) => {
                output::error(&error.to_string());
                unreadable += 1;
                continue;
            }
        };
        if keys.is_empty() && future == 0 && !view.is_entityless() {
            output::error(&format!("{}: its files have no row with a readable key and time", view.name));
            unreadable += 1;
            continue;
        }
        let features: Vec<String> = features.iter().map(|feature| format!("{}:{feature}", view.name)).collect();
        let request = json!({ "features": features, "entities": columns(view, &keys) });
        if future > 0 {
            let rows = output::counted(future, "row", "rows");
            let tolerance = duration_text(setting.limits.future_tolerance);
            output::note(&format!(
                "{}: skipped {rows} with an event time later than now plus 'sync: future_tolerance' ({tolerance}), \
                 because such rows are not served yet",
                view.name
            ));
        }
        samples.push(SampleRequest { request, view: Some(view.name.to_string()) });
    }
    Ok((samples, unreadable))
}

/// Returns the selected views with their selected features. If nothing is selected, returns all views with all
/// features.
fn selected_views(selection: &SelectionArgs, catalog: &Catalog) -> Result<BTreeMap<String, Vec<String>>> {
    let mut selected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if let Some(name) = &selection.service {
        let Some(service) = catalog.service(name) else {
            let hint = hint(name, catalog.services().iter().map(|service| &*service.name));
            bail!(CliError::Failed(format!("feature service '{name}' does not exist{hint}")));
        };
        for projection in &service.projections {
            let features = selected.entry(projection.view.to_string()).or_default();
            features.extend(projection.features.iter().map(ToString::to_string));
        }
    } else if selection.features.is_empty() {
        for view in catalog.views() {
            selected
                .insert(view.name.to_string(), view.features.iter().map(|feature| feature.name.to_string()).collect());
        }
    } else {
        for reference in &selection.features {
            let Some((view, feature)) = reference.split_once(':') else {
                bail!(CliError::Usage(format!("'{reference}' is not a feature. hint: write it as view:feature")));
            };
            selected.entry(view.to_owned()).or_default().push(feature.to_owned());
        }
    }
    for features in selected.values_mut() {
        // Two projections of one view may have the same features.
        features.sort();
        features.dedup();
    }
    Ok(selected)
}

fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |help| format!(" ({help})"))
}

/// Returns the sampled keys in the format of a request: a column for each join key. Returns no columns for a view
/// without entities.
fn columns(view: &FeatureView, keys: &[Vec<String>]) -> Map<String, Value> {
    if view.is_entityless() {
        return Map::new();
    }
    let column = |place: usize| keys.iter().map(|key| key[place].as_str()).collect::<Vec<_>>();
    view.join_keys.iter().enumerate().map(|(place, key)| (key.name.to_string(), json!(column(place)))).collect()
}

// === impl Verification ===

impl Verification {
    /// Checks the feature values of a response. Columns of entities are not checked, because they only repeat the
    /// request.
    fn of(answer: &Value, sample: &SampleRequest, no_nulls: bool) -> Self {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let entities = &sample.request["entities"];
        let names = list(&answer["metadata"]["feature_names"]);
        let results = list(&answer["results"]);
        let about = sample.view.as_ref().map(|view| format!("{view} ")).unwrap_or_default();
        let mut verification = Self::default();
        for (name, column) in names.iter().zip(&results) {
            if name.as_str().is_some_and(|name| entities.get(name).is_some()) {
                continue;
            }
            let statuses = list(&column["statuses"]);
            verification.entities = statuses.len() as u64;
            for (row, status) in statuses.iter().enumerate() {
                verification.values += 1;
                let word = match status.as_str() {
                    Some("PRESENT") if column["values"][row].is_null() => {
                        verification.null += 1;
                        if !no_nulls {
                            continue;
                        }
                        "is null"
                    }
                    Some("PRESENT") => continue,
                    Some("NOT_FOUND") => {
                        verification.missing += 1;
                        "is missing"
                    }
                    Some("OUTSIDE_MAX_AGE") => {
                        verification.expired += 1;
                        "is older than its ttl"
                    }
                    _ => {
                        verification.missing += 1;
                        "is invalid, because its plugin failed or is not loaded"
                    }
                };
                let name = name.as_str().unwrap_or_default();
                verification.findings.push(format!("{about}{}: {name} {word}", entity(entities, row)));
            }
        }
        verification
    }

    /// Prints the findings. Prints all of them if the user named the entities, and otherwise the first
    /// [`FINDINGS_SHOWN`].
    fn print(&self, sample: &SampleRequest) {
        let shown = if sample.view.is_some() { FINDINGS_SHOWN } else { usize::MAX };
        self.findings.iter().take(shown).for_each(|finding| output::line(finding));
        if let (Some(view), more @ 1..) = (&sample.view, self.findings.len().saturating_sub(shown)) {
            output::line(&format!("{view}: and {} more", output::thousands(more as u64)));
        }
    }

    /// Returns a row of the summary.
    fn row(&self, view: &str) -> Vec<String> {
        let counts = [self.entities, self.values, self.missing, self.expired, self.null].map(output::thousands);
        [view.to_owned()].into_iter().chain(counts).collect()
    }
}

/// Formats the entity of a row: `customer_id=CUST_000001`.
fn entity(entities: &Value, row: usize) -> String {
    let key = |(name, values): (&String, &Value)| {
        let value = values[row].as_str().map_or_else(|| values[row].to_string(), ToOwned::to_owned);
        format!("{name}={value}")
    };
    let keys: Vec<String> = entities.as_object().into_iter().flatten().map(key).collect();
    if keys.is_empty() { "the one row".to_owned() } else { keys.join(" ") }
}
