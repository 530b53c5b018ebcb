//! Plans: a request's shape, resolved against a catalog once.
//!
//! All names become places here, so that answering needs none: which request column holds which part of which key,
//! which view is read under which key, which slot of a row answers which output column.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, OnceLock},
};

use larder_model::{
    codec::{Fingerprint, KeyEncoder, RowSchema},
    model::{FeatureView, Micros, ScalarType, ValueType},
    registry::Catalog,
};

use super::{OnlineRequest, RequestError, Selection, metrics::ViewCounters};
use crate::store::{OnlineStore, ViewId};

/// How requests of one shape are answered.
#[derive(Debug)]
pub struct Plan {
    /// The entity columns of the answer, in the request's order.
    pub entity_columns: Vec<EntityColumn>,
    /// The feature columns of the answer, in the requested order.
    pub feature_columns: Vec<FeatureColumn>,
    /// The reads behind them.
    pub reads: Vec<ViewRead>,
    /// The keys that the reads go by; views with the same keys share one.
    pub keys: Vec<KeyPlan>,
    /// The names of the views that take part, if the request wants to know.
    pub view_metadata: Option<Vec<String>>,
    /// What an encoder made of the plan once, to be copied into every answer. Serving does not look into it.
    pub encoded: OnceLock<Box<[u8]>>,
}

/// An entity column, which the answer repeats.
#[derive(Debug)]
pub struct EntityColumn {
    /// Its name in the answer: the join key.
    pub name: Arc<str>,
    /// Its place among the request's columns.
    pub request_place: usize,
    /// The type of the key; none for a column that is no key of the requested views.
    pub key_type: Option<ScalarType>,
}

/// A feature column of the answer.
#[derive(Debug)]
pub struct FeatureColumn {
    /// Its name in the answer.
    pub name: String,
    /// The read that it comes from, as a place in [`Plan::reads`].
    pub read: usize,
    /// Its place among the read's features.
    pub feature: usize,
    /// The feature's type.
    pub value_type: ValueType,
}

/// A view that is read.
#[derive(Debug)]
pub struct ViewRead {
    /// The view, in the store.
    pub view: ViewId,
    /// How old a row may be.
    pub ttl: Option<Micros>,
    /// The schemas that rows may have, the current one first, each with the slot of each feature.
    pub schemas: Vec<RowPlan>,
    /// The view's name and its join keys', for messages.
    pub name: Arc<str>,
    pub(super) join_keys: Vec<Arc<str>>,
    pub(super) counters: ViewCounters,
}

/// How features lie in rows of one schema.
#[derive(Debug)]
pub struct RowPlan {
    /// What rows of this schema carry.
    pub fingerprint: Fingerprint,
    /// The schema.
    pub schema: Arc<RowSchema>,
    /// For each feature of the read its field in the schema; none where rows of this schema do not have it.
    pub fields: Vec<Option<usize>>,
}

/// How entity ids are made, and what is read under them.
#[derive(Debug)]
pub struct KeyPlan {
    /// Makes the ids.
    pub encoder: KeyEncoder,
    /// The parts of the key, in the order of their names.
    pub parts: Vec<KeyPart>,
    /// The reads that go by this key, as places in [`Plan::reads`].
    pub reads: Vec<usize>,
    /// The views of those reads, in the same order.
    pub views: Vec<ViewId>,
}

/// One part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// The value of an entity column, as a place in [`Plan::entity_columns`], of this type.
    Column(usize, ScalarType),
    /// The part of a view without entities: the empty text.
    Dummy,
    /// A part that the request does not have. Feast looks up with the rest of the key, and finds nothing.
    Missing,
}

/// What a request wants: the views to read, and the answer's columns in order.
struct Wanted<'c> {
    views: Vec<WantedView<'c>>,
    /// A view's place in `views` and a feature's place in that view's selection.
    columns: Vec<(usize, usize)>,
}

struct WantedView<'c> {
    view: &'c Arc<FeatureView>,
    /// What stands before `__` in full names.
    prefix: Arc<str>,
    /// Join key to request column, where they differ.
    join_key_map: BTreeMap<Arc<str>, Arc<str>>,
    features: Vec<Arc<str>>,
}

/// What resolving needs to look at.
pub(super) struct Resolver<'c> {
    pub(super) catalog: &'c Catalog,
    pub(super) store: &'c OnlineStore,
    /// The store's ids of the catalog's views, in the catalog's order.
    pub(super) ids: &'c [ViewId],
    /// The most features of a request.
    pub(super) features_max: usize,
}

// === impl Resolver ===

impl Resolver<'_> {
    /// Resolves a request's shape. The checks come in Feast's order, so that a request with several mistakes hears of
    /// the same one.
    pub(super) fn resolve(&self, request: &OnlineRequest<'_>) -> Result<Plan, RequestError> {
        let wanted = match &request.selection {
            Selection::Service(name) => self.want_service(name)?,
            Selection::Features(references) => self.want_references(references)?,
        };
        let count = wanted.columns.len();
        if count > self.features_max {
            return Err(RequestError::TooLarge { what: "features", found: count, limit: self.features_max });
        }
        check_collisions(&wanted, request.full_feature_names)?;
        for view in &wanted.views {
            view.check_features()?;
        }

        let entityless = wanted.views.iter().all(|wanted| wanted.view.is_entityless());
        if request.entities.is_empty() && !entityless {
            return Err(RequestError::NoEntities);
        }
        let entity_columns = self.entity_columns(request, &wanted);
        let keys = self.keys(&wanted, &entity_columns)?;
        let reads = wanted.views.iter().map(|view| self.read(view)).collect::<Result<Vec<_>, _>>()?;
        let feature_columns = wanted.columns.iter().map(|&(read, feature)| {
            let view = &wanted.views[read];
            let name = &view.features[feature];
            let value_type = view.view.feature_index(name).map(|index| view.view.features[index].value_type);
            let name = if request.full_feature_names { format!("{}__{name}", view.prefix) } else { name.to_string() };
            // `check_features` has found every feature.
            let value_type = value_type.unwrap_or(ValueType::Scalar(ScalarType::String));
            FeatureColumn { name, read, feature, value_type }
        });
        Ok(Plan {
            feature_columns: feature_columns.collect(),
            entity_columns,
            reads,
            keys,
            view_metadata: request.view_metadata.then(|| wanted.prefixes()),
            encoded: OnceLock::new(),
        })
    }

    /// The error of a view whose keys have no values, as Feast words it: it lists every join key of the project.
    pub(super) fn missing_keys(&self, given: &[&str], with_values: bool, provided: &[EntityColumn]) -> RequestError {
        let all = || self.catalog.join_keys().keys().map(ToString::to_string);
        RequestError::MissingKeys {
            missing: all().filter(|key| !given.contains(&key.as_str())).collect(),
            empty: all().filter(|key| !(with_values && given.contains(&key.as_str()))).collect(),
            provided: provided.iter().map(|column| column.name.to_string()).collect(),
        }
    }

    fn want_service(&self, name: &str) -> Result<Wanted<'_>, RequestError> {
        let project = || self.catalog.project().to_owned();
        let unknown = || RequestError::UnknownService { service: name.to_owned(), project: project() };
        let service = self.catalog.service(name).ok_or_else(unknown)?;
        let mut wanted = Wanted { views: Vec::new(), columns: Vec::new() };
        for projection in &service.projections {
            let read = wanted.views.len();
            wanted.columns.extend((0..projection.features.len()).map(|feature| (read, feature)));
            wanted.views.push(WantedView {
                view: self.catalog.view(&projection.view).ok_or_else(|| self.unknown_view(&projection.view))?,
                prefix: Arc::clone(projection.prefix()),
                join_key_map: projection.join_key_map.clone(),
                features: projection.features.clone(),
            });
        }
        Ok(wanted)
    }

    fn want_references(&self, references: &[impl AsRef<str>]) -> Result<Wanted<'_>, RequestError> {
        if references.is_empty() {
            return Err(RequestError::NoFeatures);
        }
        let mut wanted = Wanted { views: Vec::new(), columns: Vec::with_capacity(references.len()) };
        let mut places: HashMap<&str, usize> = HashMap::new();
        for reference in references {
            let (name, feature) = split_reference(reference.as_ref())?;
            let view = self.catalog.view(name).ok_or_else(|| self.unknown_view(name))?;
            let read = *places.entry(&view.name).or_insert_with(|| {
                let (prefix, join_key_map) = (Arc::clone(&view.name), BTreeMap::new());
                wanted.views.push(WantedView { view, prefix, join_key_map, features: Vec::new() });
                wanted.views.len() - 1
            });
            let features = &mut wanted.views[read].features;
            wanted.columns.push((read, features.len()));
            features.push(feature.into());
        }
        Ok(wanted)
    }

    /// The request's columns that are join keys, by their own name, under a projection's name, or by the entity's.
    fn entity_columns(&self, request: &OnlineRequest<'_>, wanted: &Wanted<'_>) -> Vec<EntityColumn> {
        let mut columns: Vec<EntityColumn> = Vec::new();
        for (request_place, (name, _)) in request.entities.iter().enumerate() {
            let mapped =
                wanted.views.iter().find_map(|view| view.join_key_map.values().find(|column| ***column == **name));
            let own = self.catalog.join_keys().get_key_value(&**name).map(|(key, _)| key);
            let by_entity = || self.catalog.entity(name).map(|entity| &entity.join_key);
            let Some(name) = mapped.or(own).or_else(by_entity) else { continue };
            if columns.iter().any(|column| column.name == *name) {
                continue;
            }
            let key_type = wanted.views.iter().find_map(|view| {
                view.view.join_keys.iter().find(|key| view.request_column(&key.name) == name).map(|key| key.value_type)
            });
            columns.push(EntityColumn { name: Arc::clone(name), request_place, key_type });
        }
        columns
    }

    /// The keys of all views, each once.
    fn keys(&self, wanted: &Wanted<'_>, entity_columns: &[EntityColumn]) -> Result<Vec<KeyPlan>, RequestError> {
        let mut keys: Vec<KeyPlan> = Vec::new();
        for (read, view) in wanted.views.iter().enumerate() {
            let part = |key: &larder_model::model::JoinKey| {
                if view.view.is_entityless() {
                    return KeyPart::Dummy;
                }
                let column = view.request_column(&key.name);
                let place = entity_columns.iter().position(|entity| entity.name == *column);
                place.map_or(KeyPart::Missing, |place| KeyPart::Column(place, key.value_type))
            };
            let parts: Vec<KeyPart> = view.view.join_keys.iter().map(part).collect();
            if parts.iter().all(|part| *part == KeyPart::Missing) {
                return Err(self.missing_keys(&[], false, entity_columns));
            }
            let names = view.view.join_keys.iter().map(|key| &*key.name);
            let encoder = KeyEncoder::new(self.catalog.key_version(), names);
            let same = |known: &KeyPlan| known.encoder == encoder && known.parts == parts;
            let place = keys.iter().position(same).unwrap_or_else(|| {
                keys.push(KeyPlan { encoder, parts, reads: Vec::new(), views: Vec::new() });
                keys.len() - 1
            });
            keys[place].reads.push(read);
            keys[place].views.push(self.view_id(view.view)?);
        }
        Ok(keys)
    }

    fn read(&self, wanted: &WantedView<'_>) -> Result<ViewRead, RequestError> {
        let view = wanted.view;
        let id = self.view_id(view)?;
        let field = |schema: &RowSchema, name: &str| {
            let feature = &view.features[view.feature_index(name)?];
            schema.position(&feature.name, feature.value_type)
        };
        let row_plan = |schema: &Arc<RowSchema>| RowPlan {
            fingerprint: schema.fingerprint(),
            schema: Arc::clone(schema),
            fields: wanted.features.iter().map(|name| field(schema, name)).collect(),
        };
        Ok(ViewRead {
            view: id,
            ttl: view.ttl.map(|ttl| Micros::try_from(ttl.as_micros()).unwrap_or(Micros::MAX)),
            schemas: self.store.schemas(id)?.iter().rev().map(row_plan).collect(),
            join_keys: view.join_keys.iter().map(|key| Arc::clone(&key.name)).collect(),
            name: Arc::clone(&view.name),
            counters: ViewCounters::bind(&view.name),
        })
    }

    fn view_id(&self, view: &FeatureView) -> Result<ViewId, RequestError> {
        let id = self.catalog.view_index(&view.name).map(|index| self.ids[index]);
        id.ok_or_else(|| self.unknown_view(&view.name))
    }

    fn unknown_view(&self, view: &str) -> RequestError {
        RequestError::UnknownView { view: view.to_owned(), project: self.catalog.project().to_owned() }
    }
}

// === impl Wanted ===

impl Wanted<'_> {
    /// The views that take part, each once.
    fn prefixes(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        self.views.iter().filter(|view| seen.insert(&view.prefix)).map(|view| view.prefix.to_string()).collect()
    }
}

// === impl WantedView ===

impl WantedView<'_> {
    fn request_column<'w>(&'w self, join_key: &'w Arc<str>) -> &'w Arc<str> {
        self.join_key_map.get(join_key).unwrap_or(join_key)
    }

    fn check_features(&self) -> Result<(), RequestError> {
        let unknown = self.features.iter().find(|name| self.view.feature_index(name).is_none());
        unknown.map_or(Ok(()), |name| {
            Err(RequestError::UnknownFeature { feature: name.to_string(), view: self.prefix.to_string() })
        })
    }
}

/// `view:feature`, or `view@latest:feature`.
fn split_reference(reference: &str) -> Result<(&str, &str), RequestError> {
    let bad = || RequestError::BadReference(reference.to_owned());
    let (view, feature) = reference.split_once(':').ok_or_else(bad)?;
    let view = match view.split_once('@') {
        None => view,
        Some((name, "latest")) => name,
        Some(_) => return Err(RequestError::Versioned(view.to_owned())),
    };
    if view.is_empty() || feature.is_empty() {
        return Err(bad());
    }
    Ok((view, feature))
}

/// Two columns of one name would hide each other.
fn check_collisions(wanted: &Wanted<'_>, full_names: bool) -> Result<(), RequestError> {
    let mut seen = HashSet::new();
    let mut names: Vec<String> = Vec::new();
    for &(read, feature) in &wanted.columns {
        let view = &wanted.views[read];
        let prefix = if full_names { Some(&view.prefix) } else { None };
        let name = &view.features[feature];
        let shown = prefix.map_or_else(|| name.to_string(), |prefix| format!("{prefix}__{name}"));
        if !seen.insert((prefix, name)) && !names.contains(&shown) {
            names.push(shown);
        }
    }
    if names.is_empty() { Ok(()) } else { Err(RequestError::Collision { names, full_names }) }
}
