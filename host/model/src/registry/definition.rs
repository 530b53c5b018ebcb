//! Raw definitions: parsed text with positions. Names and references to other definitions are not checked here. The
//! comments of the fields give the YAML keys from which the fields are read.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    model::{Micros, ValueType, WriteMode},
    yaml::{Located, Node, Place, Problems, Table, Tree, nearest, parse},
};

mod derived;
mod source;

use self::source::{files, source};
pub use self::{
    derived::{DerivedDefinition, InputDefinition, InputFrom, OnErrorDefinition},
    source::{FilesDefinition, SourceDefinition, SourceFrom},
};

/// The contents of a set of definition files.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// The items of `entities:`.
    pub entities: Vec<EntityDefinition>,
    /// The items of `feature_views:`.
    pub views: Vec<ViewDefinition>,
    /// The items of `derived_views:`.
    pub derived: Vec<DerivedDefinition>,
    /// The items of `feature_services:`.
    pub services: Vec<ServiceDefinition>,
    /// Views that exist but cannot be served.
    pub unservable_views: Vec<Unservable>,
    /// Views that are served but that `/materialize` cannot load from files, with the reason.
    pub unmaterializable_views: Vec<Unservable>,
    /// Services that exist but cannot be served.
    pub unservable_services: Vec<Unservable>,
    /// `imported:`. Whether another system chose the names. If so, the naming convention is not checked.
    pub imported: bool,
    /// Whether to omit the warning about names that do not follow the naming convention.
    pub any_names: bool,
    /// Entities that exist but could not be read.
    pub unread_entities: Unread,
    /// Feature views, stored or derived, that exist but could not be read.
    pub unread_views: Unread,
}

/// Names of items that could not be read. The errors in these items are already reported, so references to the items
/// are not reported as additional errors.
#[derive(Clone, Debug, Default)]
pub struct Unread {
    names: BTreeSet<String>,
    /// Whether the name of at least one of these items is unknown. Any name may then refer to that item.
    nameless: bool,
}

/// A definition of another system that Larder does not support, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unservable {
    /// The name of the definition.
    pub name: String,
    /// The reason.
    pub why: String,
}

/// An item of `entities:`.
#[derive(Clone, Debug)]
pub struct EntityDefinition {
    /// `name:`.
    pub name: Located<String>,
    /// `join_key:`; the entity's name if absent.
    pub join_key: Option<Located<String>>,
    /// `type:`.
    pub value_type: Located<ValueType>,
    /// `description:`.
    pub description: String,
    /// `tags:`.
    pub tags: BTreeMap<String, String>,
}

/// An item of `feature_views:`.
#[derive(Clone, Debug)]
pub struct ViewDefinition {
    /// `name:`.
    pub name: Located<String>,
    /// `entities:`: the names of entities.
    pub entities: Vec<Located<String>>,
    /// `key_types:`: the types of join keys whose type in this view differs from the entity's.
    pub key_types: BTreeMap<String, Located<ValueType>>,
    /// `features:`.
    pub features: Vec<FeatureDefinition>,
    /// Items of `features:` that could not be read.
    pub unread_features: Unread,
    /// `ttl:`; `None` means forever, and is also the result of 0.
    pub ttl: Option<Duration>,
    /// `source:`.
    pub source: Option<SourceDefinition>,
    /// `batch_source:`.
    pub batch_source: Option<FilesDefinition>,
    /// `push_source:`.
    pub push_source: Option<Located<String>>,
    /// `mode:`.
    pub mode: WriteMode,
    /// `description:`.
    pub description: String,
    /// `tags:`.
    pub tags: BTreeMap<String, String>,
    /// When the view was added to Feast's registry, if the registry records that. If the time changes, the view was
    /// removed from the registry and added again.
    pub created: Option<Micros>,
}

/// An item of a view's `features:`.
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

/// An item of `feature_services:`.
#[derive(Clone, Debug)]
pub struct ServiceDefinition {
    /// `name:`.
    pub name: Located<String>,
    /// `features:`.
    pub projections: Vec<ProjectionDefinition>,
    /// Items of `features:` that could not be read.
    pub unread_projections: Unread,
    /// `description:`.
    pub description: String,
    /// `tags:`.
    pub tags: BTreeMap<String, String>,
}

/// An item of a service's `features:`.
#[derive(Clone, Debug)]
pub struct ProjectionDefinition {
    /// `view:`.
    pub view: Located<String>,
    /// `features:`; all features of the view if absent.
    pub features: Option<Vec<Located<String>>>,
    /// `alias:` (Feast: `with_name`).
    pub alias: Option<Located<String>>,
    /// `join_key_map:`, from the view's join key to the request's column.
    pub join_key_map: BTreeMap<String, Located<String>>,
}

// === impl Definitions ===

impl Definitions {
    /// Parses the text of a file and adds its definitions. Adds errors to `problems`. If only some definitions have
    /// errors, still adds the others, so that other files can refer to them.
    pub fn read(&mut self, file: &str, text: &str, problems: &Problems) {
        let Some(node) = parse(file, text, problems) else {
            self.note_unread_file();
            return;
        };
        // A file that is empty or has only comments defines nothing.
        if node.tree == Tree::Null {
            return;
        }
        let Some(mut table) = Table::new("definitions", &node, problems) else {
            self.note_unread_file();
            return;
        };
        let unread = &mut self.unread_entities;
        self.entities.extend(items(&mut table, "entities", unread, |node| {
            entity(Table::new("entity", node, problems)?, problems)
        }));
        let unread = &mut self.unread_views;
        self.views.extend(items(&mut table, "feature_views", unread, |node| {
            view(Table::new("feature view", node, problems)?, problems)
        }));
        self.derived.extend(items(&mut table, "derived_views", unread, |node| derived::derived_view(node, problems)));
        // No definition refers to a service, so the names of unread services are not needed.
        let unread = &mut Unread::default();
        self.services.extend(items(&mut table, "feature_services", unread, |node| {
            service(Table::new("feature service", node, problems)?, problems)
        }));
        let before = problems.error_count();
        self.imported |= table.bool("imported").unwrap_or(false);
        table.finish();
        if problems.error_count() > before {
            // An unknown key may be the mistyped key of a list of definitions.
            self.note_unread_file();
        }
    }

    /// Records that a file could not be read. The file may define names that other files mention.
    pub fn note_unread_file(&mut self) {
        self.unread_entities.nameless = true;
        self.unread_views.nameless = true;
    }

    /// Returns whether at least one item could not be read and its name is unknown. In that case, references to unknown
    /// names are not reported, because they may refer to that item.
    #[must_use]
    pub fn may_lack_names(&self) -> bool {
        self.unread_entities.nameless || self.unread_views.nameless
    }
}

// === impl Unread ===

impl Unread {
    /// Records an item that could not be read, with its name if it is known.
    pub fn note(&mut self, name: Option<&str>) {
        match name {
            Some(name) => _ = self.names.insert(name.to_owned()),
            None => self.nameless = true,
        }
    }

    /// Returns whether a name may refer to an item that could not be read.
    #[must_use]
    pub fn may_include(&self, name: &str) -> bool {
        self.nameless || self.names.contains(name)
    }

    /// Returns whether all items could be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.nameless && self.names.is_empty()
    }
}

/// Reads the items of a list. Records the items that could not be read.
fn items<'n, T>(
    table: &mut Table<'n>,
    key: &'static str,
    unread: &mut Unread,
    mut read: impl FnMut(&'n Node) -> Option<T>,
) -> Vec<T> {
    let list = table.list(key);
    if list.is_empty() && table.get(key).is_some_and(|node| node.tree != Tree::List(Vec::new())) {
        unread.note(None);
    }
    let mut items = Vec::with_capacity(list.len());
    for node in list {
        match read(node) {
            Some(item) => items.push(item),
            None => unread.note(name_of(node)),
        }
    }
    items
}

/// Returns the `name` in a mapping, if it is text.
fn name_of(node: &Node) -> Option<&str> {
    let Tree::Map(entries) = &node.tree else { return None };
    entries.iter().find(|(key, _)| key.value == "name").and_then(|(_, node)| match &node.tree {
        Tree::Text(name) => Some(name.as_str()),
        _ => None,
    })
}

fn entity(mut table: Table<'_>, problems: &Problems) -> Option<EntityDefinition> {
    let name = table.required_text("name");
    let join_key = table.text("join_key");
    let value_type = value_type(&mut table, "type", problems);
    let (description, tags) = description_and_tags(&mut table);
    table.finish();
    Some(EntityDefinition { name: name?, join_key, value_type: value_type?, description, tags })
}

fn view(mut table: Table<'_>, problems: &Problems) -> Option<ViewDefinition> {
    let name = table.required_text("name");
    let entities = table.texts("entities");
    let key_types = key_types(&mut table, problems);
    let ttl = table.duration("ttl").map(|ttl| ttl.value).filter(|ttl| !ttl.is_zero());
    let mode = table.choice("mode", &[("upsert", WriteMode::Upsert), ("replace", WriteMode::Replace)]);
    let source = table.get("source").and_then(|node| source(Table::new("source", node, problems)?, problems));
    let batch_source = table.get("batch_source").and_then(|node| {
        let mut table = Table::new("batch source", node, problems)?;
        let files = files(&mut table, problems);
        table.finish();
        files
    });
    let push_source = table.text("push_source");
    let mut unread_features = Unread::default();
    let features = items(&mut table, "features", &mut unread_features, |node| {
        feature(Table::new("feature", node, problems)?, problems)
    });
    let (description, tags) = description_and_tags(&mut table);
    let (listed, before) = (table.get("features").is_some(), problems.error_count());
    table.finish();
    if !listed && problems.error_count() > before {
        // The features may be under a mistyped key.
        unread_features.note(None);
    }
    Some(ViewDefinition {
        name: name?,
        entities,
        key_types,
        features,
        unread_features,
        ttl,
        source,
        batch_source,
        push_source,
        mode: mode.unwrap_or_default(),
        description,
        tags,
        created: None,
    })
}

fn feature(mut table: Table<'_>, problems: &Problems) -> Option<FeatureDefinition> {
    let name = table.required_text("name");
    let value_type = value_type(&mut table, "type", problems);
    let (description, tags) = description_and_tags(&mut table);
    table.finish();
    Some(FeatureDefinition { name: name?, value_type: value_type?.value, description, tags })
}

/// Reads `key_types: {join key: type}`.
fn key_types(table: &mut Table<'_>, problems: &Problems) -> BTreeMap<String, Located<ValueType>> {
    let written = table.text_map("key_types");
    let read = written.into_iter().filter_map(|(key, text)| Some((key, parse_type(text, problems)?)));
    read.collect()
}

fn service(mut table: Table<'_>, problems: &Problems) -> Option<ServiceDefinition> {
    let name = table.required_text("name");
    let mut unread_projections = Unread::default();
    let projections = items(&mut table, "features", &mut unread_projections, |node| match &node.tree {
        // `- view` and `- view:feature` are short forms of a projection.
        Tree::Text(text) => Some(short_projection(text, &node.at)),
        _ => projection(Table::new("projection", node, problems)?),
    });
    let (description, tags) = description_and_tags(&mut table);
    table.finish();
    Some(ServiceDefinition { name: name?, projections, unread_projections, description, tags })
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
    let (view, feature) = short_reference(text, at);
    let features = feature.map(|feature| vec![feature]);
    ProjectionDefinition { view, features, alias: None, join_key_map: BTreeMap::new() }
}

/// Parses `view` or `view:feature`.
fn short_reference(text: &str, at: &Place) -> (Located<String>, Option<Located<String>>) {
    let located = |value: &str| Located { value: value.to_owned(), at: at.clone() };
    match text.split_once(':') {
        None => (located(text), None),
        Some((view, feature)) => (located(view), Some(located(feature))),
    }
}

fn value_type(table: &mut Table<'_>, key: &'static str, problems: &Problems) -> Option<Located<ValueType>> {
    parse_type(table.required_text(key)?, problems)
}

fn parse_type(text: Located<String>, problems: &Problems) -> Option<Located<ValueType>> {
    match text.value.parse() {
        Ok(value) => Some(Located { value, at: text.at }),
        Err(error) => {
            let names: Vec<String> = ValueType::names().collect();
            let help = nearest(&text.value, names.iter().map(String::as_str));
            let help = help
                .unwrap_or_else(|| "for example, Int64, Float64, String, Bool, UnixTimestamp, Array(Float32)".into());
            problems.error_with_help(&text.at, format!("{error}"), Some(help));
            None
        }
    }
}

fn description_and_tags(table: &mut Table<'_>) -> (String, BTreeMap<String, String>) {
    let description = table.text("description").map(|text| text.value.trim().to_owned()).unwrap_or_default();
    let tags = table.text_map("tags").into_iter().map(|(name, text)| (name, text.value)).collect();
    (description, tags)
}
