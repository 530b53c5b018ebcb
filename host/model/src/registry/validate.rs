//! Converts raw definitions to a catalog. Checks every name, and reports every error.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    Catalog, Definitions, EntityDefinition, FeatureDefinition, ProjectionDefinition, ServiceDefinition, Unread,
    Unservable, ViewDefinition,
    catalog::{Places, ViewPlaces},
};
use crate::{
    codec::{EXPIRY_FIELD, KeyVersion},
    model::{
        DerivedView, Entity, Feature, FeatureService, FeatureView, JOIN_KEY_DUMMY, JoinKey, Projection, ScalarType,
        ValueType,
    },
    yaml::{Located, Place, Problems, nearest},
};

mod derived;
mod source;

pub(super) use self::source::{TABLE_NAME_RULE, is_pattern, is_table_name};

/// The maximum number of features of one view.
pub const FEATURES_MAX: usize = 4_096;

/// The maximum length of a name in bytes.
pub const NAME_BYTES_MAX: usize = 16 << 10;

/// The maximum number of characters of an invalid name that a message shows.
const NAME_SHOWN_MAX: usize = 80;

/// The maximum number of names that the warning about the naming convention lists.
const UNUSUAL_SHOWN: usize = 5;

const KEY_TYPES: &str = "keys are String, Int64, Int32, Bytes or UnixTimestamp";

/// The result of checking definitions.
#[derive(Debug)]
pub struct Validated {
    sound: Catalog,
    has_errors: bool,
}

/// Checks definitions against each other. Returns `None` if there is an error. Warnings do not prevent a catalog.
#[must_use]
pub fn validate(
    project: &str,
    key_version: KeyVersion,
    definitions: Definitions,
    problems: &Problems,
) -> Option<Catalog> {
    validate_each(project, key_version, definitions, problems).complete()
}

/// Checks definitions against each other, and keeps the definitions that can be checked further. Views with errors are
/// left out, with two exceptions. A stored view is kept if its only error is that some of its features could not be
/// read. Derived views are kept if their only error is that they depend on each other in a cycle.
#[must_use]
pub fn validate_each(
    project: &str,
    key_version: KeyVersion,
    definitions: Definitions,
    problems: &Problems,
) -> Validated {
    let before = problems.error_count();
    let places = places(&definitions);
    let imported = definitions.imported;
    let rules = Rules { project, imported, any_names: imported || definitions.any_names, unusual: RefCell::default() };
    let entities = entities(definitions.entities, definitions.unread_entities, problems);
    let mut names = Names::new("feature view", problems);
    let (stored, incomplete) =
        views(definitions.views, definitions.unread_views, &entities, &mut names, &rules, problems);
    let views =
        derived::derived_views(definitions.derived, stored, incomplete, &entities, &mut names, &rules, problems);
    let services = services(definitions.services, &views, &rules, problems);
    rules.warn_about_unusual_names(problems);

    let entities = entities.items;
    let (mut stored, mut derived) = (BTreeMap::new(), Vec::new());
    for (name, view) in views.known.items {
        if views.incomplete.get(&name).is_some_and(|incomplete| incomplete.is_faulty) {
            continue;
        }
        match view {
            View::Stored(view) => _ = stored.insert(name, view),
            View::Derived(view) => derived.push(view),
        }
    }
    let view_indices =
        stored.keys().enumerate().map(|(index, name)| (Arc::clone(name), index)).collect::<HashMap<_, _>>();
    let join_keys = entities.values().map(|entity| (Arc::clone(&entity.join_key), entity.value_type)).collect();
    let sound = Catalog {
        project: project.into(),
        key_version,
        entities: entities.into_values().collect(),
        views: stored.into_values().collect(),
        derived,
        services: services.into_values().collect(),
        view_indices,
        join_keys,
        unservable_views: by_name(definitions.unservable_views),
        unmaterializable_views: by_name(definitions.unmaterializable_views),
        unservable_services: by_name(definitions.unservable_services),
        places,
    };
    Validated { sound, has_errors: problems.error_count() > before }
}

fn places(definitions: &Definitions) -> Places {
    let name = |name: &Located<String>| (Arc::from(name.value.as_str()), name.at.clone());
    let view = |view: &ViewDefinition| {
        let features = view.features.iter().map(|feature| name(&feature.name)).collect();
        let source = view.source.as_ref().map(|source| source.from.place().clone());
        let source = source.or_else(|| view.batch_source.as_ref().map(|files| files.path.at.clone()));
        let (view, at) = name(&view.name);
        (view, ViewPlaces { view: at, source, features })
    };
    Places {
        imported: definitions.imported,
        views: definitions.views.iter().map(view).collect(),
        services: definitions.services.iter().map(|service| name(&service.name)).collect(),
    }
}

fn by_name(unservable: Vec<Unservable>) -> ByName<Arc<str>> {
    unservable.into_iter().map(|one| (one.name.into(), one.why.into())).collect()
}

type ByName<T> = BTreeMap<Arc<str>, T>;

/// Settings for the checks.
struct Rules<'r> {
    project: &'r str,
    /// Whether another system chose the names. If so, a service may select two features with the same full name.
    imported: bool,
    /// Whether to omit the warning about names that do not follow the naming convention.
    any_names: bool,
    /// Names that do not follow the naming convention, each with its position and the kind of definition. A single
    /// warning reports all of them.
    unusual: RefCell<Vec<(Place, String)>>,
}

/// The definitions of one kind, by name.
struct Known<T> {
    what: &'static str,
    items: ByName<T>,
    /// Definitions with an error. Each error is already reported, so references to these definitions are not reported.
    unread: Unread,
}

/// A stored or derived view. A reference such as `view:feature` can name either.
enum View {
    Stored(Arc<FeatureView>),
    Derived(Arc<DerivedView>),
}

/// All views, and the parts of views that are incomplete.
struct Views {
    known: Known<View>,
    incomplete: ByName<Incomplete>,
}

/// The parts of a view that are incomplete because of a reported error.
#[derive(Default)]
struct Incomplete {
    features: Unread,
    /// Whether join keys are missing.
    join_keys: bool,
    /// Whether the view has an error, or uses an entity, view or feature that is missing because of an error. False for
    /// a stored view if its only error is that some of its features could not be read.
    is_faulty: bool,
}

fn entities(definitions: Vec<EntityDefinition>, unread: Unread, problems: &Problems) -> Known<Entity> {
    let mut known = Known::new("entity", unread);
    let mut names = Names::new("entity", problems);
    let mut join_keys: BTreeMap<String, ScalarType> = BTreeMap::new();
    for definition in definitions {
        let Some(name) = names.add(&definition.name) else {
            known.unread.note(Some(&definition.name.value));
            continue;
        };
        let join_key = definition.join_key.unwrap_or(definition.name);
        check_name("join key", &join_key, problems);

        let (ValueType::Scalar(value_type), true) =
            (definition.value_type.value, definition.value_type.value.can_be_join_key())
        else {
            let message = format!("entity '{name}': {} is not a valid key type", definition.value_type.value);
            problems.error_with_help(&definition.value_type.at, message, KEY_TYPES.to_owned());
            known.unread.note(Some(&name));
            continue;
        };
        let first = *join_keys.entry(join_key.value.clone()).or_insert(value_type);
        if first != value_type {
            let message = format!(
                "join key '{}' is {} here, but {} in another entity",
                join_key.value,
                definition.value_type.value,
                ValueType::Scalar(first)
            );
            problems.error(&join_key.at, message);
        }
        let entity = Entity {
            name: Arc::clone(&name),
            join_key: join_key.value.into(),
            value_type,
            description: definition.description,
            tags: definition.tags,
        };
        known.items.insert(name, entity);
    }
    known
}

fn views(
    definitions: Vec<ViewDefinition>,
    unread: Unread,
    entities: &Known<Entity>,
    names: &mut Names<'_>,
    rules: &Rules<'_>,
    problems: &Problems,
) -> (Known<View>, ByName<Incomplete>) {
    let mut known = Known::new("feature view", unread);
    let mut all_incomplete = BTreeMap::new();
    for definition in definitions {
        let before = problems.error_count();
        let Some(name) = view_name(&definition.name, names, rules, problems) else {
            known.unread.note(Some(&definition.name.value));
            continue;
        };

        let mut join_keys: Vec<JoinKey> = Vec::new();
        let mut entity_names: Vec<Arc<str>> = Vec::new();
        let mut incomplete = Incomplete { features: definition.unread_features.clone(), ..Incomplete::default() };
        for entity in &definition.entities {
            let Some(found) = entities.lookup(entity, problems) else {
                incomplete.join_keys = true;
                continue;
            };
            if join_keys.iter().any(|key| key.name == found.join_key) {
                let message = format!(
                    "feature view '{name}': join key '{}' of entity '{}' is already a join key of the view",
                    found.join_key, entity.value
                );
                problems.error(&entity.at, message);
                continue;
            }
            entity_names.push(Arc::clone(&found.name));
            let value_type = key_type(&definition, found, problems);
            join_keys.push(JoinKey { name: Arc::clone(&found.join_key), value_type });
        }
        if !incomplete.join_keys {
            check_key_types(&definition, &join_keys, problems);
        }
        if definition.entities.is_empty() {
            join_keys.push(JoinKey { name: JOIN_KEY_DUMMY.into(), value_type: ScalarType::String });
        }
        join_keys.sort_by(|a, b| a.name.cmp(&b.name));

        let features = features(&definition.name, &definition.features, &definition.unread_features, rules, problems);
        for (feature, written) in features.iter().zip(&definition.features) {
            if join_keys.iter().any(|key| key.name == feature.name) {
                let message = format!("feature '{}' has the same name as a join key of the view", feature.name);
                problems.error(&written.name.at, message);
            }
        }
        if features.is_empty() {
            incomplete.features.note(None);
        }
        let source = definition.source.map(|source| source::source(&definition.name, source, rules, problems));
        let batch_source =
            definition.batch_source.map(|files| source::files(&definition.name, "batch_source", files, problems));
        let view = FeatureView {
            name: Arc::clone(&name),
            entities: entity_names,
            join_keys,
            features,
            ttl: definition.ttl,
            source,
            batch_source,
            push_source: definition.push_source.map(|name| name.value.into()),
            mode: definition.mode,
            description: definition.description,
            tags: definition.tags,
            created: definition.created,
        };
        source::check(&view, &definition.name, problems);
        incomplete.is_faulty = incomplete.join_keys || problems.error_count() > before;
        all_incomplete.insert(Arc::clone(&name), incomplete);
        known.items.insert(name, View::Stored(Arc::new(view)));
    }
    (known, all_incomplete)
}

/// Registers the name of a view. An invalid name, a name that is already defined and a name with a colon are errors.
fn view_name(
    name: &Located<String>,
    names: &mut Names<'_>,
    rules: &Rules<'_>,
    problems: &Problems,
) -> Option<Arc<str>> {
    let unique = names.add(name)?;
    if unique.contains(':') {
        let message = format!(
            "feature view '{unique}': the name contains a colon, which separates view and feature in references"
        );
        problems.error(&name.at, message);
    }
    rules.check_domain("feature view", name);
    Some(unique)
}

fn features(
    view: &Located<String>,
    definitions: &[FeatureDefinition],
    unread: &Unread,
    rules: &Rules<'_>,
    problems: &Problems,
) -> Vec<Feature> {
    let name = &view.value;
    if definitions.is_empty() && unread.is_empty() {
        problems.error(&view.at, format!("feature view '{name}' has no features"));
    }
    if definitions.len() > FEATURES_MAX {
        let count = definitions.len();
        let message = format!("feature view '{name}' has {count} features, but at most {FEATURES_MAX} are allowed");
        problems.error(&view.at, message);
    }
    let mut names = Names::new("feature", problems);
    let mut features = Vec::with_capacity(definitions.len());
    for feature in definitions {
        let Some(unique) = names.add(&feature.name) else { continue };
        if !is_snake_case(&unique) {
            rules.note_unusual("feature", &feature.name);
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

/// Returns the type of a join key in a view: the type in the view's `key_types`, or else the type in the entity.
fn key_type(definition: &ViewDefinition, entity: &Entity, problems: &Problems) -> ScalarType {
    let Some(written) = definition.key_types.get(&*entity.join_key) else { return entity.value_type };
    match written.value {
        ValueType::Scalar(scalar) if written.value.can_be_join_key() => scalar,
        other => {
            let message = format!("feature view '{}': {other} is not a valid key type", definition.name.value);
            problems.error_with_help(&written.at, message, KEY_TYPES.to_owned());
            entity.value_type
        }
    }
}

fn check_key_types(definition: &ViewDefinition, join_keys: &[JoinKey], problems: &Problems) {
    for (key, written) in &definition.key_types {
        if !join_keys.iter().any(|known| *known.name == **key) {
            let message = format!("feature view '{}' has no join key '{key}'", definition.name.value);
            let help = nearest(key, join_keys.iter().map(|key| &*key.name));
            problems.error_with_help(&written.at, message, help);
        }
    }
}

fn services(
    definitions: Vec<ServiceDefinition>,
    views: &Views,
    rules: &Rules<'_>,
    problems: &Problems,
) -> ByName<Arc<FeatureService>> {
    let mut names = Names::new("feature service", problems);
    let mut services = BTreeMap::new();
    for definition in definitions {
        let before = problems.error_count();
        let Some(name) = names.add(&definition.name) else { continue };
        rules.check_domain("feature service", &definition.name);
        if definition.projections.is_empty() && definition.unread_projections.is_empty() {
            problems.error(&definition.name.at, format!("feature service '{name}' selects no features"));
        }
        let mut full_names = BTreeSet::new();
        let mut projections = Vec::new();
        for definition in definition.projections {
            let at = definition.view.at.clone();
            let Some(projection) = projection(definition, views, problems) else { continue };
            for feature in &projection.features {
                // For imported services, this is not an error here. Feast returns the error to callers of such a
                // service, and serves all other services.
                let again = !full_names.insert((Arc::clone(projection.prefix()), Arc::clone(feature)));
                if again && !rules.imported {
                    let message = format!("feature service '{name}' selects '{}:{feature}' twice", projection.prefix());
                    problems.error_with_help(&at, message, Some("remove one, or give one of them an alias".to_owned()));
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
        if problems.error_count() == before {
            services.insert(name, Arc::new(service));
        }
    }
    services
}

fn projection(definition: ProjectionDefinition, views: &Views, problems: &Problems) -> Option<Projection> {
    let view = views.known.lookup(&definition.view, problems)?;
    let mut features = Vec::new();
    match &definition.features {
        None => features.extend(view.features().iter().map(|feature| Arc::clone(&feature.name))),
        Some(selected) => {
            let found = selected.iter().filter_map(|feature| views.feature(view, feature, problems));
            features.extend(found.map(|feature| Arc::clone(&feature.name)));
        }
    }
    let mut join_key_map = BTreeMap::new();
    for (join_key, column) in definition.join_key_map {
        let View::Stored(stored) = view else {
            let message = format!("derived view '{}' has no join keys, so 'join_key_map' is not allowed", view.name());
            problems.error(&column.at, message);
            continue;
        };
        let Some(known) = stored.join_keys.iter().find(|key| *key.name == join_key) else {
            if views.incomplete.get(&stored.name).is_some_and(|incomplete| incomplete.join_keys) {
                continue;
            }
            let message = format!("feature view '{}' has no join key '{join_key}'", stored.name);
            let help = nearest(&join_key, stored.join_keys.iter().map(|key| &*key.name));
            problems.error_with_help(&column.at, message, help);
            continue;
        };
        join_key_map.insert(Arc::clone(&known.name), Arc::from(column.value));
    }
    if let Some(alias) = &definition.alias {
        check_name("alias", alias, problems);
    }
    let alias = definition.alias.map(|alias| alias.value.into());
    Some(Projection { view: Arc::clone(view.name()), features, alias, join_key_map })
}

// === impl Validated ===

impl Validated {
    /// Returns the catalog, if no definition has an error.
    #[must_use]
    pub fn complete(self) -> Option<Catalog> {
        (!self.has_errors).then_some(self.sound)
    }

    /// Returns the definitions that can be checked further. Do not serve them, because services and derived views may
    /// refer to views that were left out.
    #[must_use]
    pub fn sound(&self) -> &Catalog {
        &self.sound
    }
}

// === impl Rules ===

impl Rules<'_> {
    /// Notes the name of a view or a service if the name does not have the form `<domain>_<feature>`. This form makes
    /// names easier to find.
    fn check_domain(&self, what: &str, name: &Located<String>) {
        if !(is_snake_case(&name.value) && name.value.trim_matches('_').contains('_')) {
            self.note_unusual(what, name);
        }
    }

    fn note_unusual(&self, what: &str, name: &Located<String>) {
        if !self.any_names {
            self.unusual.borrow_mut().push((name.at.clone(), format!("{what} '{}'", name.value)));
        }
    }

    /// Reports all names that do not follow the convention in one warning, at the position of the first name.
    fn warn_about_unusual_names(&self, problems: &Problems) {
        let unusual = self.unusual.borrow();
        let Some((at, _)) = unusual.iter().min_by(|(a, _), (b, _)| a.cmp(b)) else { return };
        let mut names =
            unusual.iter().take(UNUSUAL_SHOWN).map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(", ");
        if let more @ 1.. = unusual.len().saturating_sub(UNUSUAL_SHOWN) {
            names.push_str(&format!(" and {more} more"));
        }
        let message = format!(
            "these names do not follow the convention <domain>_<feature> for views and services, and snake_case for \
             features: {names}"
        );
        problems.warning(at, message, Some("set 'naming_warnings: false' to turn this warning off".to_owned()));
    }
}

// === impl View ===

impl View {
    fn name(&self) -> &Arc<str> {
        match self {
            Self::Stored(view) => &view.name,
            Self::Derived(view) => &view.name,
        }
    }

    fn features(&self) -> &[Feature] {
        match self {
            Self::Stored(view) => &view.features,
            Self::Derived(view) => &view.features,
        }
    }
}

// === impl Views ===

impl Views {
    /// Returns the feature of a view with this name. Reports an unknown name as an error.
    fn feature<'v>(&self, view: &'v View, name: &Located<String>, problems: &Problems) -> Option<&'v Feature> {
        let found = view.features().iter().find(|feature| *feature.name == name.value);
        let incomplete =
            || self.incomplete.get(view.name()).is_some_and(|incomplete| incomplete.features.may_include(&name.value));
        if found.is_none() && !incomplete() {
            let message = format!("feature view '{}' has no feature '{}'", view.name(), name.value);
            let help = nearest(&name.value, view.features().iter().map(|feature| &*feature.name));
            problems.error_with_help(&name.at, message, help);
        }
        found
    }
}

// === impl Known ===

impl<T> Known<T> {
    fn new(what: &'static str, unread: Unread) -> Self {
        Self { what, items: BTreeMap::new(), unread }
    }

    /// Returns the definition with this name. Reports an unknown name as an error, unless it may be the name of an item
    /// that could not be read.
    fn lookup(&self, name: &Located<String>, problems: &Problems) -> Option<&T> {
        let found = self.items.get(name.value.as_str());
        if found.is_none() && !self.unread.may_include(&name.value) {
            let help = nearest(&name.value, self.items.keys().map(|name| &**name));
            problems.error_with_help(&name.at, format!("{} '{}' does not exist", self.what, name.value), help);
        }
        found
    }
}

/// Checks the names of one kind of definition, each of which must be unique.
struct Names<'p> {
    what: &'static str,
    /// The position at which each name was first defined.
    first: HashMap<String, String>,
    problems: &'p Problems,
}

impl<'p> Names<'p> {
    fn new(what: &'static str, problems: &'p Problems) -> Self {
        Self { what, first: HashMap::new(), problems }
    }

    /// Registers a name. An invalid name and a name that is already defined are errors.
    fn add(&mut self, name: &Located<String>) -> Option<Arc<str>> {
        if !check_name(self.what, name, self.problems) {
            return None;
        }
        if let Some(first) = self.first.get(&name.value) {
            let message = format!("{} '{}' is defined twice", self.what, name.value);
            self.problems.error_with_help(&name.at, message, Some(format!("first defined at {first}")));
            return None;
        }
        self.first.insert(name.value.clone(), name.at.to_string());
        Some(name.value.as_str().into())
    }
}

/// Checks a name, and reports an invalid name as an error. As in Feast, a name can have any characters, except control
/// characters, which would garble logs and terminals. A name that is empty, reserved or too long is also invalid.
fn check_name(what: &str, name: &Located<String>, problems: &Problems) -> bool {
    if is_name(&name.value) {
        return true;
    }
    let shown: String = name.value.chars().take(NAME_SHOWN_MAX).flat_map(char::escape_debug).collect();
    problems.error_with_help(&name.at, format!("'{shown}' is not a valid {what} name"), name_rule(&name.value));
    false
}

/// Returns whether a string is a valid name for a definition.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let is_reserved = text == EXPIRY_FIELD;
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control) && !is_reserved
}

/// Returns the rule that an invalid name violates.
pub(super) fn name_rule(name: &str) -> String {
    if name == EXPIRY_FIELD {
        return "this name is reserved for the expiration time of a row".to_owned();
    }
    format!("a name has 1 to {NAME_BYTES_MAX} bytes, and no control characters")
}

/// Returns whether a name is an identifier in every guest language, as the plugin contract requires.
pub(super) fn is_identifier(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_snake_case(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests;
