//! Raw definitions: what is written, where, and nothing checked but its shape.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    model::{ValueType, WriteMode},
    yaml::{Located, Place, Problems, Table, Tree, nearest, parse},
};

/// Everything that a set of definition files says.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// Under `entities:`.
    pub entities: Vec<EntityDefinition>,
    /// Under `feature_views:`.
    pub views: Vec<ViewDefinition>,
    /// Under `feature_services:`.
    pub services: Vec<ServiceDefinition>,
}

/// One of `entities:`.
#[derive(Clone, Debug)]
pub struct EntityDefinition {
    /// `name:`.
    pub name: Located<String>,
    /// `join_key:`; the name when absent.
    pub join_key: Option<Located<String>>,
    /// `type:`.
    pub value_type: Located<ValueType>,
    /// `description:`.
    pub description: String,
    /// `tags:`.
    pub tags: BTreeMap<String, String>,
}

/// One of `feature_views:`.
#[derive(Clone, Debug)]
pub struct ViewDefinition {
    /// `name:`.
    pub name: Located<String>,
    /// `entities:`, by name.
    pub entities: Vec<Located<String>>,
    /// `features:`.
    pub features: Vec<FeatureDefinition>,
    /// `ttl:`; 0 and absent are for ever.
    pub ttl: Option<Duration>,
    /// `source:`.
    pub source: Option<SourceDefinition>,
    /// `mode:`.
    pub mode: WriteMode,
    /// `description:`.
    pub description: String,
    /// `tags:`.
    pub tags: BTreeMap<String, String>,
}

/// One of a view's `features:`.
#[derive(Clone, Debug)]
pub struct FeatureDefinition {
    /// `name:`.
    pub name: Located<String>,
    /// `type:`.
    pub value_type: ValueType,
    /// `description:`.
    pub description: String,
    /// `tags:`.
    pub tags: BTreeMap<String, String>,
}

/// A view's `source:`.
#[derive(Clone, Debug)]
pub struct SourceDefinition {
    /// `path:`.
    pub path: Located<String>,
    /// `timestamp_field:`.
    pub timestamp_field: String,
    /// `created_timestamp_column:`.
    pub created_timestamp_column: Option<String>,
    /// `field_mapping:`, column in the source to name in the definitions.
    pub field_mapping: BTreeMap<String, Located<String>>,
    /// `every:`.
    pub every: Option<Duration>,
}

/// One of `feature_services:`.
#[derive(Clone, Debug)]
pub struct ServiceDefinition {
    /// `name:`.
    pub name: Located<String>,
    /// `features:`.
    pub projections: Vec<ProjectionDefinition>,
    /// `description:`.
    pub description: String,
    /// `tags:`.
    pub tags: BTreeMap<String, String>,
}

/// One of a service's `features:`.
#[derive(Clone, Debug)]
pub struct ProjectionDefinition {
    /// `view:`.
    pub view: Located<String>,
    /// `features:`; all of the view's when absent.
    pub features: Option<Vec<Located<String>>>,
    /// `alias:` (Feast: `with_name`).
    pub alias: Option<Located<String>>,
    /// `join_key_map:`, the view's join key to the request's column.
    pub join_key_map: BTreeMap<String, Located<String>>,
}

/// Feast's customary name, and the default.
const TIMESTAMP_FIELD: &str = "event_timestamp";

// === impl Definitions ===

impl Definitions {
    /// Reads a file's text and adds what it defines. Mistakes are noted in `problems`; what is right is added all
    /// the same, so that names which other files mention are found.
    pub fn read(&mut self, file: &str, text: &str, problems: &Problems) {
        let Some(node) = parse(file, text, problems) else { return };
        // A file of comments, or an empty one, defines nothing.
        if node.tree == Tree::Null {
            return;
        }
        let Some(mut table) = Table::new("definitions", &node, problems) else { return };
        for (what, key) in
            [("entity", "entities"), ("feature view", "feature_views"), ("feature service", "feature_services")]
        {
            for item in table.list(key) {
                let Some(table) = Table::new(what, item, problems) else { continue };
                match key {
                    "entities" => self.entities.extend(entity(table, problems)),
                    "feature_views" => self.views.extend(view(table, problems)),
                    _ => self.services.extend(service(table, problems)),
                }
            }
        }
        table.finish();
    }
}

fn entity(mut table: Table<'_>, problems: &Problems) -> Option<EntityDefinition> {
    let name = table.required_text("name");
    let join_key = table.text("join_key");
    let value_type = value_type(&mut table, problems);
    let (description, tags) = words(&mut table);
    table.finish();
    Some(EntityDefinition { name: name?, join_key, value_type: value_type?, description, tags })
}

fn view(mut table: Table<'_>, problems: &Problems) -> Option<ViewDefinition> {
    let name = table.required_text("name");
    let entities = table.texts("entities");
    let ttl = table.duration("ttl").map(|ttl| ttl.value).filter(|ttl| !ttl.is_zero());
    let mode = table.word("mode", &[("upsert", WriteMode::Upsert), ("replace", WriteMode::Replace)]);
    let source = table.get("source").and_then(|node| source(Table::new("source", node, problems)?));
    let features =
        table.list("features").iter().filter_map(|node| feature(Table::new("feature", node, problems)?, problems));
    let features = features.collect();
    let (description, tags) = words(&mut table);
    table.finish();
    Some(ViewDefinition {
        name: name?,
        entities,
        features,
        ttl,
        source,
        mode: mode.unwrap_or_default(),
        description,
        tags,
    })
}

fn feature(mut table: Table<'_>, problems: &Problems) -> Option<FeatureDefinition> {
    let name = table.required_text("name");
    let value_type = value_type(&mut table, problems);
    let (description, tags) = words(&mut table);
    table.finish();
    Some(FeatureDefinition { name: name?, value_type: value_type?.value, description, tags })
}

fn source(mut table: Table<'_>) -> Option<SourceDefinition> {
    let path = table.required_text("path");
    let timestamp_field = table.text("timestamp_field").map(|text| text.value);
    let created_timestamp_column = table.text("created_timestamp_column").map(|text| text.value);
    let field_mapping = table.text_map("field_mapping");
    let every = table.duration("every").map(|every| every.value).filter(|every| !every.is_zero());
    table.finish();
    let timestamp_field = timestamp_field.unwrap_or_else(|| TIMESTAMP_FIELD.to_owned());
    Some(SourceDefinition { path: path?, timestamp_field, created_timestamp_column, field_mapping, every })
}

fn service(mut table: Table<'_>, problems: &Problems) -> Option<ServiceDefinition> {
    let name = table.required_text("name");
    let items = table.list("features");
    let projections = items.iter().filter_map(|node| match &node.tree {
        // `- view` and `- view:feature` are short for a projection.
        Tree::Text(text) => Some(short_projection(text, &node.at)),
        _ => projection(Table::new("projection", node, problems)?),
    });
    let projections = projections.collect();
    let (description, tags) = words(&mut table);
    table.finish();
    Some(ServiceDefinition { name: name?, projections, description, tags })
}

fn projection(mut table: Table<'_>) -> Option<ProjectionDefinition> {
    let view = table.required_text("view");
    let features = table.get("features").is_some().then(|| table.texts("features"));
    let alias = table.text("alias");
    let join_key_map = table.text_map("join_key_map");
    table.finish();
    Some(ProjectionDefinition { view: view?, features, alias, join_key_map })
}

fn short_projection(text: &str, at: &Place) -> ProjectionDefinition {
    let located = |value: &str| Located { value: value.to_owned(), at: at.clone() };
    let (view, feature) = text.split_once(':').map_or((text, None), |(view, feature)| (view, Some(feature)));
    ProjectionDefinition {
        view: located(view),
        features: feature.map(|feature| vec![located(feature)]),
        alias: None,
        join_key_map: BTreeMap::new(),
    }
}

fn value_type(table: &mut Table<'_>, problems: &Problems) -> Option<Located<ValueType>> {
    let text = table.required_text("type")?;
    match text.value.parse() {
        Ok(value) => Some(Located { value, at: text.at }),
        Err(error) => {
            let names: Vec<String> = ValueType::names().collect();
            let help = nearest(&text.value, names.iter().map(String::as_str));
            let help = help
                .unwrap_or_else(|| "for example Int64, Float64, String, Bool, UnixTimestamp, Array(Float32)".into());
            problems.error_with_help(&text.at, format!("{error}"), Some(help));
            None
        }
    }
}

fn words(table: &mut Table<'_>) -> (String, BTreeMap<String, String>) {
    let description = table.text("description").map(|text| text.value.trim().to_owned()).unwrap_or_default();
    let tags = table.text_map("tags").into_iter().map(|(name, text)| (name, text.value)).collect();
    (description, tags)
}
