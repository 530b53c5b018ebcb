//! Formats definitions as YAML. Reading the YAML results in the same catalog, except for the definitions that are left
//! out and the times at which views were created. A string is quoted if YAML could interpret it as something else.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use super::definition::{
    Definitions, DerivedDefinition, EntityDefinition, FeatureDefinition, FilesDefinition, InputDefinition, InputFrom,
    OnErrorDefinition, ProjectionDefinition, ServiceDefinition, SourceDefinition, SourceFrom, ViewDefinition,
};
use crate::{
    model::{AwsPlace, Gate, OnMiss, TableLayout, TableSource, ValueType, WriteMode, duration_text},
    yaml::Located,
};

/// Formats definitions as a definition file. Definitions that cannot be served become comments, with the reason.
#[must_use]
pub fn to_yaml(definitions: &Definitions) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_all(&mut text, definitions);
    text
}

/// Formats a string as YAML: without quotes if it is an ASCII word or path that no version of YAML interprets as
/// another type, and otherwise in double quotes, as in JSON.
struct Scalar<'t>(&'t str);

/// A mapping on one line, with its entries in order.
#[derive(Default)]
struct Flow(Vec<String>);

/// Words that some versions of YAML do not interpret as text.
const RESERVED_WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];

fn write_all(out: &mut String, definitions: &Definitions) -> fmt::Result {
    if definitions.imported {
        writeln!(
            out,
            "# Another system chose the names, so they are not checked against the naming convention.\nimported: true"
        )?;
    }
    section(out, "entities", &definitions.entities, entity)?;
    // The type of a join key is written in its entity. A view repeats the type only if it differs from that of the
    // entity.
    let types = definitions.entities.iter().map(|entity| {
        let join_key = entity.join_key.as_ref().unwrap_or(&entity.name);
        (join_key.value.as_str(), entity.value_type.value)
    });
    let types: BTreeMap<&str, ValueType> = types.collect();
    section(out, "feature_views", &definitions.views, |out, definition| view(out, definition, &types))?;
    for left_out in &definitions.unservable_views {
        comment(out, &format!("Not served: feature view {}: {}", left_out.name, left_out.why))?;
    }
    for left_out in &definitions.unmaterializable_views {
        comment(out, &format!("Not materialized from files: feature view {}: {}", left_out.name, left_out.why))?;
    }
    section(out, "derived_views", &definitions.derived, derived)?;
    section(out, "feature_services", &definitions.services, service)?;
    for left_out in &definitions.unservable_services {
        comment(out, &format!("Not served: feature service {}: {}", left_out.name, left_out.why))?;
    }
    Ok(())
}

fn section<T>(
    out: &mut String,
    name: &str,
    items: &[T],
    write: impl Fn(&mut String, &T) -> fmt::Result,
) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    if !out.is_empty() {
        out.push('\n');
    }
    writeln!(out, "{name}:")?;
    items.iter().try_for_each(|item| write(out, item))
}

fn comment(out: &mut String, text: &str) -> fmt::Result {
    let line: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    writeln!(out, "  # {}", line.join(" "))
}

fn entity(out: &mut String, entity: &EntityDefinition) -> fmt::Result {
    let mut flow = Flow::default();
    flow.text("name", &entity.name.value);
    if let Some(join_key) = entity.join_key.as_ref().filter(|key| key.value != entity.name.value) {
        flow.text("join_key", &join_key.value);
    }
    flow.raw("type", &entity.value_type.value);
    flow.description_and_tags(&entity.description, &entity.tags);
    writeln!(out, "  - {flow}")
}

fn view(out: &mut String, view: &ViewDefinition, types: &BTreeMap<&str, ValueType>) -> fmt::Result {
    writeln!(out, "  - name: {}", Scalar(&view.name.value))?;
    if !view.entities.is_empty() {
        writeln!(out, "    entities: {}", list(&view.entities))?;
    }
    let mut key_types = Flow::default();
    let others = view.key_types.iter().filter(|(key, value_type)| types.get(key.as_str()) != Some(&value_type.value));
    others.for_each(|(key, value_type)| key_types.raw(&Scalar(key).to_string(), &value_type.value));
    if !key_types.0.is_empty() {
        writeln!(out, "    key_types: {key_types}")?;
    }
    if let Some(ttl) = view.ttl {
        writeln!(out, "    ttl: {}", duration_text(ttl))?;
    }
    if view.mode == WriteMode::Replace {
        writeln!(out, "    mode: replace")?;
    }
    if let Some(source) = &view.source {
        writeln!(out, "    source: {}", source_flow(source))?;
    }
    if let Some(files) = &view.batch_source {
        let mut flow = Flow::default();
        flow.files(files);
        writeln!(out, "    batch_source: {flow}")?;
    }
    if let Some(push_source) = &view.push_source {
        writeln!(out, "    push_source: {}", Scalar(&push_source.value))?;
    }
    description_and_tags(out, &view.description, &view.tags)?;
    features(out, &view.features)
}

fn source_flow(source: &SourceDefinition) -> Flow {
    let mut flow = Flow::default();
    match &source.from {
        SourceFrom::Files(files) => flow.files(files),
        SourceFrom::DynamoDb { table, .. } => flow.table(table),
        SourceFrom::FeastSqlite { path, table } => {
            flow.text("feast_sqlite", &path.value);
            table.iter().for_each(|table| flow.text("table", table));
        }
    }
    source.every.iter().for_each(|every| flow.raw("every", &duration_text(*every)));
    source.cron.iter().for_each(|cron| flow.text("cron", &cron.value));
    flow
}

fn derived(out: &mut String, view: &DerivedDefinition) -> fmt::Result {
    writeln!(out, "  - name: {}", Scalar(&view.name.value))?;
    if let Some(plugin) = &view.plugin {
        writeln!(out, "    plugin: {}", Scalar(&plugin.value))?;
    }
    description_and_tags(out, &view.description, &view.tags)?;
    match &view.on_error {
        OnErrorDefinition::Null => {}
        OnErrorDefinition::Fail => writeln!(out, "    on_error: fail")?,
        OnErrorDefinition::Default(values) => {
            let mut flow = Flow::default();
            values.iter().for_each(|(name, value)| flow.raw(&Scalar(&name.value).to_string(), &value.to_json()));
            writeln!(out, "    on_error: {{default: {flow}}}")?;
        }
    }
    if view.config != "null" {
        // JSON is valid YAML.
        writeln!(out, "    config: {}", view.config)?;
    }
    if !view.inputs.is_empty() {
        writeln!(out, "    inputs:")?;
        view.inputs.iter().try_for_each(|input| writeln!(out, "      - {}", input_flow(input)))?;
    }
    features(out, &view.features)
}

fn input_flow(input: &InputDefinition) -> Flow {
    let mut flow = Flow::default();
    flow.text("name", &input.name.value);
    match &input.from {
        InputFrom::Feature(view, feature) => flow.text("from", &format!("{}:{}", view.value, feature.value)),
        InputFrom::Request(value_type) => flow.raw("request", &value_type.value),
        InputFrom::Key(key) => flow.text("key", &key.value),
    }
    flow
}

fn features(out: &mut String, features: &[FeatureDefinition]) -> fmt::Result {
    writeln!(out, "    features:")?;
    features.iter().try_for_each(|feature| {
        let mut flow = Flow::default();
        flow.text("name", &feature.name.value);
        flow.raw("type", &feature.value_type);
        flow.description_and_tags(&feature.description, &feature.tags);
        writeln!(out, "      - {flow}")
    })
}

fn service(out: &mut String, service: &ServiceDefinition) -> fmt::Result {
    writeln!(out, "  - name: {}", Scalar(&service.name.value))?;
    description_and_tags(out, &service.description, &service.tags)?;
    writeln!(out, "    features:")?;
    service.projections.iter().try_for_each(|projection| writeln!(out, "      - {}", projection_flow(projection)))
}

fn projection_flow(projection: &ProjectionDefinition) -> Flow {
    let mut flow = Flow::default();
    flow.text("view", &projection.view.value);
    projection.features.iter().for_each(|features| flow.raw("features", &list(features)));
    projection.alias.iter().for_each(|alias| flow.text("alias", &alias.value));
    if !projection.join_key_map.is_empty() {
        let mut map = Flow::default();
        projection.join_key_map.iter().for_each(|(key, column)| map.text(key, &column.value));
        flow.raw("join_key_map", &map);
    }
    flow
}

fn description_and_tags(out: &mut String, description: &str, tags: &BTreeMap<String, String>) -> fmt::Result {
    if !description.is_empty() {
        writeln!(out, "    description: {}", Scalar(description))?;
    }
    if !tags.is_empty() {
        writeln!(out, "    tags: {}", Flow::of(tags))?;
    }
    Ok(())
}

fn list(texts: &[Located<String>]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| Scalar(&text.value).to_string()).collect();
    format!("[{}]", texts.join(", "))
}

// === impl Flow ===

impl Flow {
    fn of(texts: &BTreeMap<String, String>) -> Self {
        let mut flow = Self::default();
        texts.iter().for_each(|(key, text)| flow.text(key, text));
        flow
    }

    fn text(&mut self, key: &str, text: &str) {
        self.0.push(format!("{}: {}", Scalar(key), Scalar(text)));
    }

    /// Adds an entry whose value is YAML already.
    fn raw(&mut self, key: &str, value: &impl fmt::Display) {
        self.0.push(format!("{key}: {value}"));
    }

    fn place(&mut self, place: &AwsPlace) {
        place.region.iter().for_each(|region| self.text("region", region));
        place.endpoint.iter().for_each(|endpoint| self.text("endpoint", endpoint));
    }

    fn table(&mut self, table: &TableSource) {
        self.text("dynamodb", &table.table);
        self.place(&table.place);
        let (mapping, timestamp) = match &table.layout {
            TableLayout::Feast => (None, None),
            TableLayout::Wide { field_mapping, timestamp } => {
                self.text("layout", "wide");
                (Some(field_mapping), timestamp.as_ref())
            }
            TableLayout::ItemPerFeature { key, feature, value, field_mapping, timestamp } => {
                self.text("layout", "item-per-feature");
                self.text("key_attribute", key);
                self.text("feature_attribute", feature);
                self.text("value_attribute", value);
                (Some(field_mapping), timestamp.as_ref())
            }
        };
        if let Some(mapping) = mapping.filter(|mapping| !mapping.is_empty()) {
            self.raw("field_mapping", &Self::of(mapping));
        }
        timestamp.iter().for_each(|name| self.text("timestamp_field", name));
        match table.poll {
            None => self.text("stream", "off"),
            Some(TableSource::POLL) => {}
            Some(poll) => self.raw("poll", &duration_text(poll)),
        }
        if table.segments != TableSource::SEGMENTS {
            self.raw("segments", &table.segments);
        }
        table.read_units.iter().for_each(|units| self.raw("read_units", units));
        table.ttl_attribute.iter().for_each(|name| self.text("ttl_attribute", name));
        if let OnMiss::Fetch(how) = &table.on_miss {
            self.text("on_miss", "fetch");
            self.raw("max_bytes", &how.max_bytes);
            self.raw("fetch_timeout", &duration_text(how.timeout));
            self.raw("negative_ttl", &duration_text(how.negative_ttl));
            self.raw("fresh_for", &duration_text(how.fresh_for));
            self.raw("max_concurrent_fetches", &how.max_concurrent);
        }
    }

    fn files(&mut self, files: &FilesDefinition) {
        self.text("path", &files.path.value);
        self.place(&files.place);
        match &files.gate {
            Gate::Open => {}
            Gate::Marker(name) => self.text("marker", name),
            Gate::Manifest(name) => self.text("manifest", name),
        }
        self.text("timestamp_field", &files.timestamp_field);
        files.created_timestamp_column.iter().for_each(|column| self.text("created_timestamp_column", column));
        if !files.field_mapping.is_empty() {
            let mut map = Self::default();
            files.field_mapping.iter().for_each(|(column, name)| map.text(column, &name.value));
            self.raw("field_mapping", &map);
        }
    }

    fn description_and_tags(&mut self, description: &str, tags: &BTreeMap<String, String>) {
        if !description.is_empty() {
            self.text("description", description);
        }
        if !tags.is_empty() {
            self.raw("tags", &Self::of(tags));
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.0.join(", "))
    }
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        let starts = |c: char| c.is_ascii_alphabetic() || c == '_';
        let is_plain = (text.starts_with(starts) || ["/", "./", "../"].iter().any(|path| text.starts_with(path)))
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
            && !RESERVED_WORDS.iter().any(|word| word.eq_ignore_ascii_case(text));
        if is_plain {
            return f.write_str(text);
        }
        f.write_char('"')?;
        for c in text.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                // Includes characters that YAML interprets as line ends or byte order marks.
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                    write!(f, "\\u{:04x}", u32::from(c))?;
                }
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests;
