//! `larder get`: looks up features and prints them.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    CliError, ConfigArg, output,
    target::{Target, error_message},
};

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    pub(super) selection: SelectionArgs,
    /// Print the response as JSON, as the HTTP endpoint returns it
    #[arg(long)]
    json: bool,
}

/// The requested features and entities.
#[derive(Clone, Debug, Args)]
pub(super) struct SelectionArgs {
    /// The feature service to request
    #[arg(long, short, value_name = "NAME", conflicts_with = "features", allow_hyphen_values = true)]
    pub(super) service: Option<String>,
    /// A feature to request, as view:feature; may be repeated
    #[arg(long = "feature", short, value_name = "VIEW:FEATURE", allow_hyphen_values = true)]
    pub(super) features: Vec<String>,
    /// Name features in the form view__feature
    #[arg(long)]
    pub(super) full_feature_names: bool,
    /// The entities: join_key=value, or join_key=value,value,... for several rows; also request inputs of derived
    /// views, with a list as name=[1,2]
    #[arg(value_name = "KEY=VALUE")]
    pub(super) entities: Vec<String>,
}

pub(super) fn run(args: &GetArgs) -> Result<()> {
    let mut request = request(&args.selection)?;
    let target = Target::find_with_plugins(&args.config)?;
    let catalog = target.catalog()?;
    restore_equals_signs(&mut request, &catalog);
    convert_request_inputs(&mut request, &catalog);
    let (status, answer) = target.online_features(&request)?;
    if status != 200 {
        bail!(CliError::Failed(error_message(&answer)));
    }
    if args.json {
        output::line(&answer.to_string());
    } else {
        print(&answer);
    }
    Ok(())
}

/// Builds the request from the arguments. Values stay text: the server converts them to the key's type.
pub(super) fn request(selection: &SelectionArgs) -> Result<Value> {
    if selection.service.is_none() && selection.features.is_empty() {
        bail!(CliError::Usage("no features selected. hint: use --service NAME, or --feature VIEW:FEATURE".to_owned()));
    }
    let mut entities = Map::new();
    for argument in &selection.entities {
        let Some((key, values)) = argument.split_once('=') else {
            bail!(CliError::Usage(format!(
                "'{argument}' is not in the form KEY=VALUE. hint: use, for example, customer_id=CUST_000123"
            )));
        };
        let values: Vec<&str> = values.split(',').collect();
        if entities.insert(key.to_owned(), json!(values)).is_some() {
            bail!(CliError::Usage(format!("'{key}' is given twice. hint: write several values as {key}=a,b")));
        }
    }
    let mut request = json!({ "entities": entities, "full_feature_names": selection.full_feature_names });
    match &selection.service {
        Some(service) => request["feature_service"] = json!(service),
        None => request["features"] = json!(selection.features),
    }
    Ok(request)
}

/// Moves an `=` that is part of a name back into the name: arguments were split at the first `=`.
pub(super) fn restore_equals_signs(request: &mut Value, catalog: &Value) {
    let list = |of: &Value, part: &str| of[part].as_array().cloned().unwrap_or_default();
    let keys = list(catalog, "feature_views").iter().flat_map(|view| list(view, "join_keys")).collect::<Vec<_>>();
    let inputs = list(catalog, "derived_views").iter().flat_map(|view| list(view, "inputs")).collect::<Vec<_>>();
    let names = keys.iter().chain(inputs.iter().map(|input| &input["name"])).filter_map(Value::as_str);
    let mut names: Vec<&str> = names.filter(|name| name.contains('=')).collect();
    // The longest matching name wins.
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let Value::Object(entities) = &mut request["entities"] else { return };
    let split = std::mem::take(entities).into_iter().map(|(key, values)| {
        let texts: Vec<&str> = values.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let argument = format!("{key}={}", texts.join(","));
        let meant = names.iter().find_map(|name| Some((*name, argument.strip_prefix(*name)?.strip_prefix('=')?)));
        match meant {
            Some((name, values)) => (name.to_owned(), json!(values.split(',').collect::<Vec<_>>())),
            None => (key, values),
        }
    });
    *entities = split.collect();
}

/// Converts request inputs of derived views to their types, because the server does not, unlike for keys.
fn convert_request_inputs(request: &mut Value, catalog: &Value) {
    let views = catalog["derived_views"].as_array().into_iter().flatten();
    let inputs = views.flat_map(|view| view["inputs"].as_array().into_iter().flatten());
    for input in inputs.filter(|input| input["from"] == "request") {
        let name = input["name"].as_str().unwrap_or_default();
        let kind = input["type"].as_str().unwrap_or_default();
        let Some(Value::Array(words)) = request["entities"].get_mut(name) else { continue };
        // Two views may have the same request input; then it is already converted.
        let Some(texts) = words.iter().map(Value::as_str).collect::<Option<Vec<_>>>() else { continue };
        let texts = texts.join(",");
        let is_text = |kind: &str| matches!(kind, "String" | "Bytes" | "Json" | "Uuid" | "TimeUuid" | "Decimal");
        // Text that does not parse is sent unchanged, and the server returns an error for it.
        if !is_text(kind)
            && let Ok(values) = serde_json::from_str(&format!("[{texts}]"))
        {
            *words = values;
        }
    }
}

/// Prints a table for each row, with the name, value, status and event time of each column. An event time of 1970 means
/// that there is none, and is not printed.
fn print(answer: &Value) {
    let names = answer["metadata"]["feature_names"].as_array().map(Vec::as_slice).unwrap_or_default();
    let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = results.first().and_then(|column| column["values"].as_array()).map_or(0, Vec::len);
    for row in 0..rows {
        if row > 0 {
            output::line("");
        }
        let line = |(name, column): (&Value, &Value)| {
            let cell = |part: &str| column[part][row].as_str().unwrap_or_default().to_owned();
            let value = match &column["values"][row] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let time = cell("event_timestamps");
            let time = if time == "1970-01-01T00:00:00Z" { String::new() } else { time };
            vec![name.as_str().unwrap_or_default().to_owned(), value, cell("statuses"), time]
        };
        let lines: Vec<_> = names.iter().zip(results).map(line).collect();
        output::table(&["FEATURE", "VALUE", "STATUS", "EVENT TIME"], &lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_signs_in_names_are_kept() {
        let catalog = json!({
            "feature_views": [{ "join_keys": ["id", "a=b", "a=b=c"] }],
            "derived_views": [{ "inputs": [{ "name": "x=y" }] }],
        });
        let entities = ["id=1=2,3", "a=b=c=7,8", "a=b=9", "x=y=1"].map(str::to_owned).to_vec();
        let named = |entity: &str| {
            let selection = SelectionArgs {
                service: Some("s".to_owned()),
                features: Vec::new(),
                full_feature_names: false,
                entities: vec![entity.to_owned()],
            };
            let mut request = request(&selection).unwrap();
            restore_equals_signs(&mut request, &catalog);
            request["entities"].to_string()
        };
        let named: Vec<String> = entities.iter().map(|entity| named(entity)).collect();
        let expected = [r#"{"id":["1=2","3"]}"#, r#"{"a=b=c":["7","8"]}"#, r#"{"a=b":["9"]}"#, r#"{"x=y":["1"]}"#];
        assert_eq!(named, expected);
    }
}
