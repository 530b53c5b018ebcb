//! Raw definitions to a catalog: every name is checked, every mistake is told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    Catalog, Definitions, EntityDefinition, ProjectionDefinition, ServiceDefinition, SourceDefinition, ViewDefinition,
};
use crate::{
    codec::KeyVersion,
    model::{
        Entity, Feature, FeatureService, FeatureView, FileSource, JOIN_KEY_DUMMY, JoinKey, Projection, ScalarType,
        ValueType,
    },
    yaml::{Located, Problems, nearest},
};

/// The most features of one view.
pub const FEATURES_MAX: usize = 4_096;

/// The longest name of anything.
pub const NAME_CHARS_MAX: usize = 200;

/// Checks definitions against each other. `None` when there is an error; warnings alone do not hinder.
#[must_use]
pub fn validate(
    project: &str,
    key_version: KeyVersion,
    definitions: Definitions,
    problems: &Problems,
) -> Option<Catalog> {
    let before = problems.error_count();
    let entities = entities(definitions.entities, problems);
    let views = views(definitions.views, &entities, problems);
    let services = services(definitions.services, &views, problems);
    if problems.error_count() > before {
        return None;
    }

    let view_places =
        views.keys().enumerate().map(|(place, name)| (Arc::clone(name), place)).collect::<HashMap<_, _>>();
    let join_keys = entities.values().map(|entity| (Arc::clone(&entity.join_key), entity.value_type)).collect();
    Some(Catalog {
        project: project.into(),
        key_version,
        entities: entities.into_values().collect(),
        views: views.into_values().collect(),
        services: services.into_values().collect(),
        view_places,
        join_keys,
    })
}

type ByName<T> = BTreeMap<Arc<str>, T>;

fn entities(definitions: Vec<EntityDefinition>, problems: &Problems) -> ByName<Entity> {
    let mut names = Names::new("entity", problems);
    let mut join_keys: BTreeMap<String, ScalarType> = BTreeMap::new();
    let mut entities = BTreeMap::new();
    for definition in definitions {
        let Some(name) = names.add(&definition.name) else { continue };
        let join_key = definition.join_key.unwrap_or(definition.name);
        check_name("join key", &join_key, problems);

        let (ValueType::Scalar(value_type), true) =
            (definition.value_type.value, definition.value_type.value.can_be_join_key())
        else {
            let message = format!("entity '{name}': {} cannot be a key", definition.value_type.value);
            let help = "keys are String, Int64, Int32, Bytes or UnixTimestamp".to_owned();
            problems.error_with_help(&definition.value_type.at, message, Some(help));
            continue;
        };
        let known = *join_keys.entry(join_key.value.clone()).or_insert(value_type);
        if known != value_type {
            let message = format!("join key '{}' has another type in another entity", join_key.value);
            problems.error(&join_key.at, message);
        }
        let entity = Entity {
            name: Arc::clone(&name),
            join_key: join_key.value.into(),
            value_type,
            description: definition.description,
            tags: definition.tags,
        };
        entities.insert(name, entity);
    }
    entities
}

fn views(definitions: Vec<ViewDefinition>, entities: &ByName<Entity>, problems: &Problems) -> ByName<Arc<FeatureView>> {
    let mut names = Names::new("feature view", problems);
    let mut views = BTreeMap::new();
    for definition in definitions {
        let Some(name) = names.add(&definition.name) else { continue };
        habit("feature view", &definition.name, problems);
        if name.contains("__") {
            let message =
                format!("feature view '{name}': two underscores in a row part the view from the feature in full names");
            problems.error(&definition.name.at, message);
        }

        let mut join_keys: Vec<JoinKey> = Vec::new();
        let mut entity_names: Vec<Arc<str>> = Vec::new();
        for entity in &definition.entities {
            let Some(found) = lookup("entity", entity, entities, problems) else { continue };
            if join_keys.iter().any(|key| key.name == found.join_key) {
                problems
                    .error(&entity.at, format!("feature view '{name}': entity '{}' stands here twice", entity.value));
                continue;
            }
            entity_names.push(Arc::clone(&found.name));
            join_keys.push(JoinKey { name: Arc::clone(&found.join_key), value_type: found.value_type });
        }
        if definition.entities.is_empty() {
            join_keys.push(JoinKey { name: JOIN_KEY_DUMMY.into(), value_type: ScalarType::String });
        }
        join_keys.sort_by(|a, b| a.name.cmp(&b.name));

        let features = features(&definition, &join_keys, problems);
        let source = definition.source.map(|source| file_source(&definition.name, source, problems));
        let view = FeatureView {
            name: Arc::clone(&name),
            entities: entity_names,
            join_keys,
            features,
            ttl: definition.ttl,
            source,
            mode: definition.mode,
            description: definition.description,
            tags: definition.tags,
        };
        views.insert(name, Arc::new(view));
    }
    views
}

fn features(view: &ViewDefinition, join_keys: &[JoinKey], problems: &Problems) -> Vec<Feature> {
    let name = &view.name.value;
    if view.features.is_empty() {
        problems.error(&view.name.at, format!("feature view '{name}' has no features"));
    }
    if view.features.len() > FEATURES_MAX {
        let count = view.features.len();
        let message = format!("feature view '{name}' has {count} features, at most {FEATURES_MAX} are allowed");
        problems.error(&view.name.at, message);
    }
    let mut names = Names::new("feature", problems);
    let mut features = Vec::with_capacity(view.features.len());
    for feature in &view.features {
        let Some(unique) = names.add(&feature.name) else { continue };
        if join_keys.iter().any(|key| key.name == unique) {
            problems.error(&feature.name.at, format!("feature '{unique}' has the name of the view's join key"));
        }
        if !is_snake_case(&unique) {
            problems.warning(&feature.name.at, format!("feature '{unique}' is not in snake_case"), None);
        }
        features.push(Feature {
            name: unique,
            value_type: feature.value_type,
            description: feature.description.clone(),
            tags: feature.tags.clone(),
        });
    }
    features
}

fn file_source(view: &Located<String>, source: SourceDefinition, problems: &Problems) -> FileSource {
    let mut targets = BTreeSet::new();
    for target in source.field_mapping.values() {
        if !targets.insert(&target.value) {
            let message = format!("feature view '{}': two columns are mapped to '{}'", view.value, target.value);
            problems.error(&target.at, message);
        }
    }
    FileSource {
        path: source.path.value,
        timestamp_field: source.timestamp_field,
        created_timestamp_column: source.created_timestamp_column,
        field_mapping: source.field_mapping.into_iter().map(|(column, name)| (column, name.value)).collect(),
        every: source.every,
    }
}

fn services(
    definitions: Vec<ServiceDefinition>,
    views: &ByName<Arc<FeatureView>>,
    problems: &Problems,
) -> ByName<Arc<FeatureService>> {
    let mut names = Names::new("feature service", problems);
    let mut services = BTreeMap::new();
    for definition in definitions {
        let Some(name) = names.add(&definition.name) else { continue };
        habit("feature service", &definition.name, problems);
        if definition.projections.is_empty() {
            problems.error(&definition.name.at, format!("feature service '{name}' selects nothing"));
        }
        let mut full_names = BTreeSet::new();
        let mut projections = Vec::new();
        for definition in definition.projections {
            let at = definition.view.at.clone();
            let Some(projection) = projection(definition, views, problems) else { continue };
            for feature in &projection.features {
                if !full_names.insert((Arc::clone(projection.prefix()), Arc::clone(feature))) {
                    let message = format!("feature service '{name}' selects '{}:{feature}' twice", projection.prefix());
                    problems.error_with_help(&at, message, Some("give one of them an alias".to_owned()));
                }
            }
            projections.push(projection);
        }
        let service = FeatureService {
            name: Arc::clone(&name),
            projections,
            description: definition.description,
            tags: definition.tags,
        };
        services.insert(name, Arc::new(service));
    }
    services
}

fn projection(
    definition: ProjectionDefinition,
    views: &ByName<Arc<FeatureView>>,
    problems: &Problems,
) -> Option<Projection> {
    let view = lookup("feature view", &definition.view, views, problems)?;
    let mut features = Vec::new();
    match &definition.features {
        None => features.extend(view.features.iter().map(|feature| Arc::clone(&feature.name))),
        Some(selected) => {
            for feature in selected {
                let Some(index) = view.feature_index(&feature.value) else {
                    let message = format!("feature view '{}' has no feature '{}'", view.name, feature.value);
                    let help = nearest(&feature.value, view.features.iter().map(|feature| &*feature.name));
                    problems.error_with_help(&feature.at, message, help);
                    continue;
                };
                features.push(Arc::clone(&view.features[index].name));
            }
        }
    }
    let mut join_key_map = BTreeMap::new();
    for (join_key, column) in definition.join_key_map {
        let Some(known) = view.join_keys.iter().find(|key| *key.name == join_key) else {
            let message = format!("feature view '{}' has no join key '{join_key}'", view.name);
            problems.error_with_help(
                &column.at,
                message,
                nearest(&join_key, view.join_keys.iter().map(|key| &*key.name)),
            );
            continue;
        };
        join_key_map.insert(Arc::clone(&known.name), Arc::from(column.value));
    }
    if let Some(alias) = &definition.alias {
        check_name("alias", alias, problems);
    }
    let alias = definition.alias.map(|alias| alias.value.into());
    Some(Projection { view: Arc::clone(&view.name), features, alias, join_key_map })
}

/// Finds what a name means, or says that it means nothing.
fn lookup<'m, T>(what: &str, name: &Located<String>, known: &'m ByName<T>, problems: &Problems) -> Option<&'m T> {
    let found = known.get(name.value.as_str());
    if found.is_none() {
        let help = nearest(&name.value, known.keys().map(|name| &**name));
        problems.error_with_help(&name.at, format!("there is no {what} '{}'", name.value), help);
    }
    found
}

/// The names of one kind so far.
struct Names<'p> {
    what: &'static str,
    first: HashMap<String, String>,
    problems: &'p Problems,
}

impl<'p> Names<'p> {
    fn new(what: &'static str, problems: &'p Problems) -> Self {
        Self { what, first: HashMap::new(), problems }
    }

    /// Takes a name that is well formed and new.
    fn add(&mut self, name: &Located<String>) -> Option<Arc<str>> {
        if !check_name(self.what, name, self.problems) {
            return None;
        }
        if let Some(first) = self.first.get(&name.value) {
            let message = format!("{} '{}' is defined twice", self.what, name.value);
            self.problems.error_with_help(&name.at, message, Some(format!("first at {first}")));
            return None;
        }
        self.first.insert(name.value.clone(), name.at.to_string());
        Some(name.value.as_str().into())
    }
}

/// Names stand in references (`view:feature`), in metrics and in store tables: letters, digits, `_`, `-` and `.`.
fn check_name(what: &str, name: &Located<String>, problems: &Problems) -> bool {
    let text = &name.value;
    let letters = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if !(letters && starts && text.len() <= NAME_CHARS_MAX) {
        let message = format!("'{text}' is not a valid {what} name");
        let help = format!("letters, digits, '_', '-' and '.', at most {NAME_CHARS_MAX}, not starting with '-' or '.'");
        problems.error_with_help(&name.at, message, Some(help));
        return false;
    }
    true
}

/// Views and services are found more easily when they are named `<domain>_<feature>`.
fn habit(what: &str, name: &Located<String>, problems: &Problems) {
    if !(is_snake_case(&name.value) && name.value.trim_matches('_').contains('_')) {
        let help = "for example customer_behavior".to_owned();
        problems.warning(&name.at, format!("{what} '{}' is not named <domain>_<feature>", name.value), Some(help));
    }
}

fn is_snake_case(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests;
