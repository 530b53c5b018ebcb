//! `larder verify`: reads entity rows back and judges them.
//!
//! Without entities it takes some from the views' own sources, so that a script needs to know none: what is in the
//! source has to be in the answer.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Result, bail};
use clap::Args;
use larder_model::{model::FeatureView, registry::Catalog, yaml::nearest};
use serde_json::{Map, Value, json};

use super::{
    CliError, ConfigArg,
    get::{WhatArgs, name_keys, request},
    output,
    target::{Target, error_message},
};
use crate::{clock::SystemClock, config::load_definitions, sync::sample_keys};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    what: WhatArgs,
    /// Without entities: take this many of each view from its source
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    sample: u16,
    /// Count a null value as missing too
    #[arg(long)]
    no_nulls: bool,
}

/// What to ask for, and how to name its rows.
#[derive(Debug)]
struct Question {
    request: Value,
    /// The views that it is about, or nothing where the caller knows.
    about: String,
}

/// What became of the questions.
#[derive(Debug, Default)]
struct Judgement {
    values: u64,
    findings: Vec<String>,
}

pub(super) fn run(args: &VerifyArgs) -> Result<()> {
    let mut questions = if args.what.entities.is_empty() {
        sampled(args)?
    } else {
        vec![Question { request: request(&args.what)?, about: String::new() }]
    };
    let target = Target::find_with_plugins(&args.config)?;
    if !args.what.entities.is_empty() {
        let catalog = target.catalog()?;
        questions.iter_mut().for_each(|question| name_keys(&mut question.request, &catalog));
    }
    let mut judgement = Judgement::default();
    for question in &questions {
        let (status, answer) = target.online_features(&question.request)?;
        if status != 200 {
            bail!(CliError::Failed(error_message(&answer)));
        }
        judgement.judge(&answer, question, args.no_nulls);
    }
    judgement.findings.iter().for_each(|finding| output::say(finding));
    let bad = judgement.findings.len() as u64;
    let values = output::counted(judgement.values, "value", "values");
    if bad > 0 {
        let bad = output::counted(bad, "is", "are");
        bail!(CliError::Failed(format!("of {values} {bad} missing or expired")));
    }
    output::say(&format!("nothing is missing or expired in {values}"));
    Ok(())
}

/// A question for each view that was meant, about entities that its source has.
fn sampled(args: &VerifyArgs) -> Result<Vec<Question>> {
    let config = args.config.load()?;
    let catalog = load_definitions(&config)?.catalog;
    let setting = config.sync_setting(Arc::new(SystemClock));
    let mut questions = Vec::new();
    for (view, features) in meant(&args.what, &catalog)? {
        let Some(view) = catalog.view(&view) else {
            let hint = hint(&view, catalog.views().iter().map(|view| &*view.name));
            bail!(CliError::Failed(format!("there is no feature view '{view}'{hint}")));
        };
        if view.files().is_none() {
            output::remark(&format!("{}: it has no source to take entities from; name some to verify it", view.name));
            continue;
        }
        let keys = sample_keys(view, &setting, args.sample.into())?;
        let features: Vec<String> = features.iter().map(|feature| format!("{}:{feature}", view.name)).collect();
        let request = json!({ "features": features, "entities": columns(view, &keys) });
        let entities = output::counted(keys.len() as u64, "entity", "entities");
        output::say(&format!("{}: {entities} of its source", view.name));
        questions.push(Question { request, about: format!("{} ", view.name) });
    }
    Ok(questions)
}

/// The views, with the features of each, that the words ask for; without words all of them.
fn meant(what: &WhatArgs, catalog: &Catalog) -> Result<BTreeMap<String, Vec<String>>> {
    let mut meant: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if let Some(name) = &what.service {
        let Some(service) = catalog.service(name) else {
            let hint = hint(name, catalog.services().iter().map(|service| &*service.name));
            bail!(CliError::Failed(format!("there is no feature service '{name}'{hint}")));
        };
        for projection in &service.projections {
            let features = meant.entry(projection.view.to_string()).or_default();
            features.extend(projection.features.iter().map(ToString::to_string));
        }
    } else if what.features.is_empty() {
        for view in catalog.views() {
            meant.insert(view.name.to_string(), view.features.iter().map(|feature| feature.name.to_string()).collect());
        }
    } else {
        for reference in &what.features {
            let Some((view, feature)) = reference.split_once(':') else {
                bail!(CliError::Usage(format!("'{reference}' is no feature; write it as view:feature")));
            };
            meant.entry(view.to_owned()).or_default().push(feature.to_owned());
        }
    }
    for features in meant.values_mut() {
        // Two projections of one view may share features.
        features.sort();
        features.dedup();
    }
    Ok(meant)
}

fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |help| format!(" ({help})"))
}

/// The sampled keys as a request has them: a column for each join key. A view without entities wants none.
fn columns(view: &FeatureView, keys: &[Vec<String>]) -> Map<String, Value> {
    if view.is_entityless() {
        return Map::new();
    }
    let column = |place: usize| keys.iter().map(|key| key[place].as_str()).collect::<Vec<_>>();
    view.join_keys.iter().enumerate().map(|(place, key)| (key.name.to_string(), json!(column(place)))).collect()
}

// === impl Judgement ===

impl Judgement {
    /// Counts the feature values of an answer, and notes what is wrong with some. The entity columns only repeat the
    /// question and do not count.
    fn judge(&mut self, answer: &Value, question: &Question, no_nulls: bool) {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let entities = &question.request["entities"];
        let names = list(&answer["metadata"]["feature_names"]);
        let results = list(&answer["results"]);
        for (name, column) in names.iter().zip(&results) {
            if name.as_str().is_some_and(|name| entities.get(name).is_some()) {
                continue;
            }
            for (row, status) in list(&column["statuses"]).iter().enumerate() {
                self.values += 1;
                let word = match status.as_str() {
                    Some("PRESENT") if no_nulls && column["values"][row].is_null() => "is null",
                    Some("PRESENT") => continue,
                    Some("NOT_FOUND") => "is missing",
                    Some("OUTSIDE_MAX_AGE") => "is older than its ttl",
                    _ => "has an unknown status",
                };
                let (about, name) = (&question.about, name.as_str().unwrap_or_default());
                self.findings.push(format!("{about}{}: {name} {word}", entity(entities, row)));
            }
        }
    }
}

/// Which entity a row is about: `customer_id=CUST_000001`.
fn entity(entities: &Value, row: usize) -> String {
    let key = |(name, values): (&String, &Value)| {
        let value = values[row].as_str().map_or_else(|| values[row].to_string(), ToOwned::to_owned);
        format!("{name}={value}")
    };
    let keys: Vec<String> = entities.as_object().into_iter().flatten().map(key).collect();
    if keys.is_empty() { "the one row".to_owned() } else { keys.join(" ") }
}
