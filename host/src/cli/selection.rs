//! The features and entities that `larder get` and `larder verify` request.
//!
//! Missing keys, unknown names and columns of different lengths are reported here, before the request is sent, because
//! the server's messages are the same as Feast's and do not name arguments.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Result, bail};
use clap::Args;
use larder_model::yaml::nearest;
use serde_json::{Value, json};

use super::{CliError, arguments, list::items, output};

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
    full_feature_names: bool,
    /// The entities: join_key=value, or join_key=value,value,... for several rows. Write request inputs of derived
    /// views in the same way, and lists as name=[1,2]. Write a value that contains a comma as a JSON string:
    /// join_key='"a,b"'. Values of type UnixTimestamp are seconds since 1970 or times, such as 2026-01-31T12:00:00Z
    #[arg(value_name = "KEY=VALUE")]
    pub(super) entities: Vec<String>,
}

/// The columns that a request can have, by name.
pub(super) type Inputs = BTreeMap<String, Input>;

/// A column of a request: a join key, or a request input of a derived view.
#[derive(Clone, Debug)]
pub(super) struct Input {
    /// The type, as written in a definition, such as `Int64`.
    value_type: String,
    is_key: bool,
}

/// The columns of a request, by name.
type Columns = BTreeMap<String, Vec<Value>>;

// === impl SelectionArgs ===

impl SelectionArgs {
    /// Checks the arguments as far as possible without the definitions.
    pub(super) fn check(&self) -> Result<()> {
        if self.service.is_none() && self.features.is_empty() {
            let message = "no features selected. hint: use --service NAME, or --feature VIEW:FEATURE";
            bail!(CliError::Usage(message.to_owned()));
        }
        match self.entities.iter().find(|argument| !argument.contains('=')) {
            Some(argument) => bail!(not_key_value(argument)),
            None => Ok(()),
        }
    }

    /// Builds the request. Values of keys stay text, because the server converts them to the key's type. Request inputs
    /// are converted here, because the server expects values of their types.
    pub(super) fn request(&self, catalog: &Value) -> Result<Value> {
        let known = all_inputs(catalog);
        let selected = self.inputs(catalog, &known);
        let columns = self.columns(&known, selected.as_ref())?;
        // If the selection has an unknown view or service, names and lengths are not checked here, because the server
        // reports the error.
        if let Some(selected) = &selected {
            self.check_names(&columns, selected, catalog)?;
            check_lengths(&columns)?;
        }
        let mut request = json!({ "entities": columns, "full_feature_names": self.full_feature_names });
        match &self.service {
            Some(service) => request["feature_service"] = json!(service),
            None => request["features"] = json!(self.features),
        }
        Ok(request)
    }

    fn columns(&self, known: &Inputs, selected: Option<&Inputs>) -> Result<Columns> {
        let mut columns = Columns::new();
        let selected_names = selected.into_iter().flat_map(BTreeMap::keys);
        let names: Vec<&str> = known.keys().chain(selected_names).map(String::as_str).collect();
        for argument in &self.entities {
            let Some((name, text)) = arguments::split(argument, names.iter().copied()) else {
                bail!(not_key_value(argument));
            };
            let input = selected.and_then(|selected| selected.get(name)).or_else(|| known.get(name));
            let values = input.map_or_else(|| texts(text), |input| input.values(text));
            if columns.insert(name.to_owned(), values).is_some() {
                bail!(CliError::Usage(format!("'{name}' is given twice. hint: write several values as {name}=a,b")));
            }
        }
        Ok(columns)
    }

    /// Returns the columns that the selected features need. Returns `None` if a view or service is unknown.
    fn inputs(&self, catalog: &Value, known: &Inputs) -> Option<Inputs> {
        let mut inputs = Inputs::new();
        if let Some(service) = &self.service {
            let service = named(&catalog["feature_services"], service)?;
            for input in items(&service["inputs"]) {
                let is_key = input["from"] != "request";
                inputs.insert(text(&input["name"]), Input { value_type: text(&input["type"]), is_key });
            }
        } else {
            for reference in &self.features {
                let (view, _) = reference.split_once(':')?;
                add_inputs(view, catalog, known, &mut inputs, &mut HashSet::new())?;
            }
        }
        Some(inputs)
    }

    /// Returns an error if the request lacks a column and has either no columns or an unknown column, which is probably
    /// a mistyped name. If all needed columns are there, additional columns are allowed, as in Feast.
    fn check_names(&self, columns: &Columns, selected: &Inputs, catalog: &Value) -> Result<()> {
        // The name of an entity can be used instead of its join key.
        let meant = |column: &str| match named(&catalog["entities"], column) {
            Some(entity) if !selected.contains_key(column) => text(&entity["join_key"]),
            _ => column.to_owned(),
        };
        let given: Vec<String> = columns.keys().map(|column| meant(column)).collect();
        let needed: Vec<&str> = names_in_order(selected).collect();
        if needed.iter().all(|name| given.iter().any(|given| given == name)) {
            return Ok(());
        }
        let what = match (&self.service, &*self.features) {
            (Some(name), _) | (None, [name]) => format!("'{name}'"),
            _ => "the selection".to_owned(),
        };
        if columns.is_empty() {
            let example = self.example(&needed);
            bail!(CliError::Failed(format!("{what} needs {}. hint: {example}", needed.join(", "))));
        }
        let unknown = columns.keys().zip(&given).find(|(_, meant)| !selected.contains_key(*meant));
        if let Some((column, _)) = unknown {
            let hint = nearest(column, needed.iter().copied());
            let hint = hint.unwrap_or_else(|| format!("{what} needs {}", needed.join(", ")));
            let message = format!("'{column}' is neither a join key nor a request input of {what}; {hint}");
            bail!(CliError::Failed(message));
        }
        Ok(())
    }

    /// Returns a command that requests the selected features.
    fn example(&self, needed: &[&str]) -> String {
        let service = self.service.iter().map(|name| format!("-s {}", output::shell_word(name)));
        let features = self.features.iter().map(|name| format!("-f {}", output::shell_word(name)));
        let values = needed.iter().map(|name| output::shell_word(&format!("{name}=VALUE")));
        let arguments: Vec<String> = service.chain(features).chain(values).collect();
        format!("larder get {}", arguments.join(" "))
    }
}

// === impl Input ===

impl Input {
    pub(super) fn is_time(&self) -> bool {
        self.value_type == "UnixTimestamp"
    }

    fn values(&self, text: &str) -> Vec<Value> {
        let is_text = matches!(&*self.value_type, "String" | "Bytes" | "Json" | "Uuid" | "TimeUuid" | "Decimal");
        let time = |value: String| match (arguments::seconds(&value), self.is_key) {
            (Some(seconds), true) => json!(seconds.to_string()),
            (Some(seconds), false) => json!(seconds),
            (None, true) => json!(value),
            (None, false) => serde_json::from_str(&value).unwrap_or_else(|_| json!(value)),
        };
        if self.is_time() {
            return arguments::values(text).into_iter().map(time).collect();
        }
        // If the text cannot be parsed as JSON, it is sent as text, and the server reports the error.
        if !self.is_key
            && !is_text
            && let Ok(values) = serde_json::from_str(&format!("[{text}]"))
        {
            return values;
        }
        texts(text)
    }
}

/// Creates the error for an argument that has no `=`.
pub(super) fn not_key_value(argument: &str) -> CliError {
    CliError::Usage(format!(
        "'{argument}' is not in the form KEY=VALUE. hint: use, for example, customer_id=CUST_000123"
    ))
}

fn texts(text: &str) -> Vec<Value> {
    arguments::values(text).into_iter().map(Value::from).collect()
}

/// Returns the names of the columns, join keys first.
fn names_in_order(inputs: &Inputs) -> impl Iterator<Item = &str> {
    let of = |is_key| inputs.iter().filter(move |(_, input)| input.is_key == is_key).map(|(name, _)| &**name);
    of(true).chain(of(false))
}

/// Returns all join keys, all names of entities, which can be used instead of join keys, and all request inputs.
pub(super) fn all_inputs(catalog: &Value) -> Inputs {
    let mut inputs = Inputs::new();
    for view in items(&catalog["derived_views"]) {
        for input in items(&view["inputs"]).iter().filter(|input| input["from"] == "request") {
            inputs.insert(text(&input["name"]), Input { value_type: text(&input["type"]), is_key: false });
        }
    }
    let entities = items(&catalog["entities"]).iter();
    let keys =
        entities.flat_map(|entity| ["name", "join_key"].map(|name| (text(&entity[name]), text(&entity["type"]))));
    inputs.extend(keys.map(|(name, value_type)| (name, Input { value_type, is_key: true })));
    inputs
}

/// Adds the columns that a view needs. For a derived view, adds the columns of all views that it reads. `read` has the
/// views that were already added: each view is added only once, because in a chain of derived views, the number of
/// paths can grow exponentially. Returns `None` if the view is unknown.
fn add_inputs<'c>(
    view: &str,
    catalog: &'c Value,
    known: &Inputs,
    inputs: &mut Inputs,
    read: &mut HashSet<&'c str>,
) -> Option<()> {
    let key_input = |key: &str| {
        let value_type = known.get(key).map_or_else(String::new, |input| input.value_type.clone());
        (key.to_owned(), Input { value_type, is_key: true })
    };
    if let Some(view) = named(&catalog["feature_views"], view) {
        // The join key of a view without entities is internal, and requests do not contain it.
        if !items(&view["entities"]).is_empty() {
            inputs.extend(items(&view["join_keys"]).iter().filter_map(Value::as_str).map(key_input));
        }
        return Some(());
    }
    for input in items(&named(&catalog["derived_views"], view)?["inputs"]) {
        let from = input["from"].as_str()?;
        if from == "request" {
            inputs.insert(text(&input["name"]), Input { value_type: text(&input["type"]), is_key: false });
        } else if let Some(key) = from.strip_prefix("key ") {
            inputs.extend([key_input(key)]);
        } else {
            let view = from.rsplit_once(':')?.0;
            if read.insert(view) {
                add_inputs(view, catalog, known, inputs, read)?;
            }
        }
    }
    Some(())
}

/// Checks that all columns have the same number of values.
fn check_lengths(columns: &Columns) -> Result<()> {
    let mut counts = columns.iter().map(|(name, values)| (name, values.len() as u64));
    let Some((first, count)) = counts.next() else { return Ok(()) };
    if let Some((other, other_count)) = counts.find(|(_, other)| *other != count) {
        let count = output::counted(count, "value", "values");
        let other_count = output::thousands(other_count);
        let message =
            format!("'{first}' has {count}, '{other}' has {other_count}. hint: give each the same number of values");
        bail!(CliError::Failed(message));
    }
    Ok(())
}

fn named<'v>(definitions: &'v Value, name: &str) -> Option<&'v Value> {
    items(definitions).iter().find(|definition| definition["name"] == name)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
