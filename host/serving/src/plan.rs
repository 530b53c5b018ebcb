//! Plans. A plan is the shape of a request, resolved for one catalog.
//!
//! A plan has indexes instead of names, so answering a request needs no search by name:
//!
//! * for each part of a key, the index of the request's column that has its values;
//! * for each key, the indexes of the reads that use it;
//! * for each column of the response, the indexes of the read or derived view, and of the feature.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry},
    sync::{Arc, OnceLock},
};

use larder_model::{
    codec::{Fingerprint, KeyEncoder, KeyValue, RowSchema},
    model::{EntityId, Feature, FeatureView, Micros, ScalarType, ValueType},
    registry::Catalog,
    yaml::nearest_name,
};
use larder_store::{Lookup, StoreError, ViewId};

use self::derived::{WantedStep, request_inputs};
use super::{
    OnlineRequest, RequestError, Selection, Transforms,
    canary::CanarySet,
    convert::RowConversion,
    keys::{self, EchoedColumn},
    logged::{LoggedServices, Sampling},
    metrics::ViewCounters,
};

mod derived;

pub use self::derived::{RequestInput, Step, StepInput};

/// The plan for requests of one shape.
#[derive(Debug)]
pub struct Plan {
    /// The entity columns of the response, in the request's order.
    pub entity_columns: Vec<EntityColumn>,
    /// The feature columns of the response, in the requested order.
    pub feature_columns: Vec<FeatureColumn>,
    /// The reads of stored views. If a service has several projections of a view, the view is read once for each of
    /// them.
    pub reads: Vec<ViewRead>,
    /// The distinct keys of the reads. Several reads can use the same key.
    pub keys: Vec<KeyPlan>,
    /// The derived views to compute, in this order. Each one comes after the derived views that it reads.
    pub steps: Vec<Step>,
    /// The columns of request data that the derived views need.
    pub request_inputs: Vec<RequestInput>,
    /// The names of the requested views, or their aliases in the service; `None` if the request does not ask for them.
    pub view_metadata: Option<Vec<String>>,
    /// How to sample the answers for the log; `None` if they are not logged.
    pub(super) sampling: Option<Sampling>,
    /// Bytes that are the same in every response with this plan. The JSON encoder computes them for the first response.
    /// Nothing else uses them.
    pub encoded: OnceLock<Box<[u8]>>,
}

/// An entity column of the request. The response repeats its values.
#[derive(Debug)]
pub struct EntityColumn {
    /// The column's name in the response: the join key, or the name that a projection uses for the join key.
    pub name: Arc<str>,
    /// The column's index in [`OnlineRequest::entities`].
    pub request_index: usize,
    /// The type of the join key; `None` if neither a read nor a plugin uses the column.
    pub key_type: Option<ScalarType>,
    /// The type of the join key in the definitions, if there is one. The values of a column without uses may have another type.
    pub declared: Option<ScalarType>,
}

/// A feature column of the response.
#[derive(Debug)]
pub struct FeatureColumn {
    /// The column's name in the response.
    pub name: String,
    /// The origin of the column's values.
    pub from: ColumnFrom,
    /// The feature's type.
    pub value_type: ValueType,
}

/// The origin of a feature's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnFrom {
    /// A stored view.
    Read {
        /// The index of the read in [`Plan::reads`].
        read: usize,
        /// The index of the feature among the features of the read.
        feature: usize,
    },
    /// A derived view.
    Step {
        /// The index of the step in [`Plan::steps`].
        step: usize,
        /// The index of the feature among the features of the view.
        feature: usize,
    },
}

/// A read of a stored view.
#[derive(Debug)]
pub struct ViewRead {
    /// The ID of the view in the store.
    pub view: ViewId,
    /// The maximum age of a row, in microseconds. An older row is expired. `None` if rows do not expire by age.
    pub ttl: Option<Micros>,
    /// The schemas that stored rows can have, the current one first. Each has the fields of the read's features.
    pub schemas: Vec<RowPlan>,
    /// The name of the view.
    pub name: Arc<str>,
    /// The names of the view's join keys, for error messages.
    pub(super) join_keys: Vec<Arc<str>>,
    pub(super) counters: ViewCounters,
}

/// The fields of a read's features in rows of one schema.
#[derive(Debug)]
pub struct RowPlan {
    /// The fingerprint of the schema, which is in the header of every row of the schema.
    pub fingerprint: Fingerprint,
    /// The schema.
    pub schema: Arc<RowSchema>,
    /// For each feature of the read, the index of its field; `None` if the schema has no field with this name and type.
    pub fields: Vec<Option<usize>>,
    /// The index of the field with the time at which a row expires, if the schema has such a field.
    pub expiry: Option<usize>,
    /// The conversion of rows to the current types; `None` if no feature of the read has another type in this schema.
    pub conversion: Option<RowConversion>,
}

/// A key: how to compute an entity ID from a row of the request, and the reads that use the ID.
#[derive(Debug)]
pub struct KeyPlan {
    /// Encodes the parts of the key, and hashes them to an ID.
    pub encoder: KeyEncoder,
    /// The parts of the key, sorted by the name of their join key.
    pub parts: Vec<KeyPart>,
    /// The indexes in [`Plan::reads`] of the reads that use this key.
    pub reads: Vec<usize>,
    /// The views of `reads`, in the same order, each with the number of features to read.
    pub views: Vec<Lookup>,
}

/// The origin of one part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// An entity column: its index in [`Plan::entity_columns`], and the type of the join key.
    Column(usize, ScalarType),
    /// The internal key of a view without entities. Its value is an empty string.
    Dummy,
    /// A join key for which the request has no column. No row is found, as in Feast, which looks up the incomplete key.
    Missing,
}

/// The approximate size in bytes of one item of a plan, such as a column, a read, a key or an input, without its name.
/// The size of a plan matters because the plan cache has a limit in bytes.
const PART_BYTES: usize = 256;

/// Limits on the search for a suggestion: the length of the unknown name in bytes, and the number of known names that
/// it is compared with. They ensure that a request with an unknown name takes little time.
const NEAREST_CHARS_MAX: usize = 100;
const NEAREST_OF_MAX: usize = 500;

/// The definitions that a request needs: views to read, derived views to compute, and the columns of the response.
#[derive(Default)]
struct Wanted<'c> {
    /// The requested views, followed by views that only derived views read.
    views: Vec<WantedView<'c>>,
    steps: Vec<WantedStep<'c>>,
    columns: Vec<WantedColumn>,
    /// The error for the first requested feature that does not exist in its view.
    unknown: Option<RequestError>,
}

struct WantedColumn {
    /// The part of the column's full name before `__`: the name of the view, or its alias in the service.
    prefix: Arc<str>,
    feature: Arc<str>,
    /// For a stored view, `feature` is an index in [`WantedView::features`].
    from: ColumnFrom,
    value_type: ValueType,
}

struct WantedView<'c> {
    view: &'c Arc<FeatureView>,
    /// The names of the request's columns by join key, for join keys whose column has another name.
    join_key_map: BTreeMap<Arc<str>, Arc<str>>,
    features: Vec<Arc<str>>,
}

/// The IDs of a catalog's views, and the schemas of their rows.
pub(super) trait StoredViews {
    /// Returns the ID of the view with this index in the catalog.
    fn id(&self, index: usize) -> ViewId;
    /// Returns the schemas that the rows of this view can have, the current one last.
    fn schemas(&self, index: usize) -> Result<Arc<[Arc<RowSchema>]>, StoreError>;
}

/// Resolves the shapes of requests to plans.
pub(super) struct Resolver<'c> {
    pub(super) catalog: &'c Catalog,
    pub(super) views: &'c dyn StoredViews,
    /// The plugins of the catalog's derived views.
    pub(super) transforms: &'c Transforms,
    /// The canaries that the request uses instead of live versions.
    pub(super) canaries: CanarySet,
    /// The logged feature services.
    pub(super) logged: &'c LoggedServices,
    /// The maximum number of features of a request.
    pub(super) features_max: usize,
}

// === impl Plan ===

impl Plan {
    /// Returns the plan's approximate size in bytes.
    pub(super) fn bytes(&self) -> usize {
        // Each name is stored twice: in its column, and in `encoded`.
        let names = self.entity_columns.iter().map(|column| column.name.len());
        let names: usize = names.chain(self.feature_columns.iter().map(|column| column.name.len())).sum();
        let fields: usize = self.reads.iter().flat_map(|read| &read.schemas).map(|schema| schema.fields.len()).sum();
        let parts = self.entity_columns.len() + self.feature_columns.len() + self.reads.len() + self.keys.len();
        let inputs: usize = self.steps.iter().map(|step| step.all_inputs().count() + step.view.features.len()).sum();
        let parts = parts + inputs + self.request_inputs.len();
        2 * names + size_of::<Option<usize>>() * fields + PART_BYTES * (1 + parts)
    }
}

// === impl KeyPlan ===

impl KeyPlan {
    /// Returns the entity ID of a request's row, or `None` if a part of the key is null or does not have the key's type. No
    /// row can be found for such a key. `buffer` is reused.
    #[inline]
    pub(super) fn id(&self, entities: &[EchoedColumn<'_>], row: usize, buffer: &mut Vec<u8>) -> Option<EntityId> {
        self.encoder.begin(buffer);
        for part in &self.parts {
            let value = match *part {
                KeyPart::Column(index, key_type) => keys::key_value(&entities[index][row], key_type)?,
                KeyPart::Dummy | KeyPart::Missing => KeyValue::String(""),
            };
            KeyEncoder::push(buffer, value);
        }
        Some(KeyEncoder::id(buffer))
    }
}

// === impl Resolver ===

impl<'c> Resolver<'c> {
    /// Resolves a request's shape. The checks are in Feast's order, so that a request with several problems gets the
    /// same error as from Feast.
    pub(super) fn resolve(&self, request: &OnlineRequest<'_>) -> Result<Plan, RequestError> {
        let mut wanted = match &request.selection {
            Selection::Service(name) => self.want_service(name)?,
            Selection::Features(references) => self.want_references(references)?,
        };
        let view_metadata = request.view_metadata.then(|| wanted.prefixes());
        let count = wanted.columns.len();
        self.check_count(count)?;
        check_collisions(&wanted, request.full_feature_names)?;
        if let Some(unknown) = wanted.unknown.take() {
            return Err(unknown);
        }
        self.want_inputs(&mut wanted)?;

        let entityless = wanted.views.iter().all(|wanted| wanted.view.is_entityless());
        if request.entities.is_empty() && !(entityless && wanted.steps.iter().all(WantedStep::asks_nothing)) {
            return Err(RequestError::NoEntities);
        }
        let request_inputs = request_inputs(request, &wanted)?;
        let entity_columns = self.entity_columns(request, &wanted);
        let keys = self.keys(&wanted, &entity_columns)?;
        let reads = wanted.views.iter().map(|view| self.read(view)).collect::<Result<Vec<_>, _>>()?;
        let steps = self.steps(&mut wanted, &entity_columns, &request_inputs);
        let sampling = match &request.selection {
            Selection::Service(name) => {
                let keys = entity_columns.iter().enumerate().filter(|(_, column)| column.key_type.is_some());
                self.logged.sampling(name, keys.map(|(index, column)| (index, &*column.name)))
            }
            Selection::Features(_) => None,
        };
        let feature_columns = wanted.columns.into_iter().map(|column| FeatureColumn {
            name: column.name(request.full_feature_names),
            from: column.from,
            value_type: column.value_type,
        });
        Ok(Plan {
            feature_columns: feature_columns.collect(),
            entity_columns,
            reads,
            keys,
            steps,
            request_inputs,
            view_metadata,
            sampling,
            encoded: OnceLock::new(),
        })
    }

    fn check_count(&self, features: usize) -> Result<(), RequestError> {
        if features > self.features_max {
            return Err(RequestError::TooLarge { what: "features", found: features, limit: self.features_max });
        }
        Ok(())
    }

    fn want_service(&self, name: &str) -> Result<Wanted<'c>, RequestError> {
        let project = || self.catalog.project().to_owned();
        let unknown = || {
            let known = self.catalog.services().iter().map(|service| &*service.name);
            let (service, nearest) = (name.to_owned(), nearest_of(name, known));
            RequestError::UnknownService { service, project: project(), nearest }
        };
        if let Some(why) = self.catalog.unservable_services().get(name) {
            return Err(RequestError::Unservable { what: "service", name: name.to_owned(), why: why.to_string() });
        }
        let service = self.catalog.service(name).ok_or_else(unknown)?;
        let mut wanted = Wanted::default();
        for projection in &service.projections {
            let (prefix, features) = (projection.prefix(), projection.features.iter());
            if let Some(derived) = self.catalog.derived_view(&projection.view) {
                let step = wanted.step(derived);
                features.for_each(|feature| wanted.derived_column(step, prefix, feature));
                continue;
            }
            // Each projection is a separate read, because it may use other columns of the request as keys.
            let read = wanted.views.len();
            let view = self.catalog.view(&projection.view).ok_or_else(|| self.unknown_view(&projection.view))?;
            let join_key_map = projection.join_key_map.clone();
            wanted.views.push(WantedView { view, join_key_map, features: Vec::new() });
            features.for_each(|feature| wanted.stored_column(read, prefix, feature));
        }
        Ok(wanted)
    }

    fn want_references(&self, references: &[impl AsRef<str>]) -> Result<Wanted<'c>, RequestError> {
        if references.is_empty() {
            return Err(RequestError::NoFeatures);
        }
        self.check_count(references.len())?;
        let mut wanted = Wanted::default();
        let mut read_indexes: HashMap<&str, usize> = HashMap::new();
        for reference in references {
            let (name, feature) = split_reference(reference.as_ref())?;
            let feature: Arc<str> = feature.into();
            if let Some(derived) = self.catalog.derived_view(name) {
                let step = wanted.step(derived);
                wanted.derived_column(step, &derived.name, &feature);
            } else {
                let view = self.catalog.view(name).ok_or_else(|| self.unknown_view(name))?;
                let read = *read_indexes.entry(&view.name).or_insert_with(|| {
                    wanted.views.push(WantedView { view, join_key_map: BTreeMap::new(), features: Vec::new() });
                    wanted.views.len() - 1
                });
                wanted.stored_column(read, &view.name, &feature);
            }
        }
        Ok(wanted)
    }

    /// Returns the request's columns that have the values of join keys. The name of such a column is that of the join
    /// key, the name that a projection uses for the join key, or the name of the entity. If the request has both a
    /// column that is named after a join key and one that is named after its entity, only the first one is returned.
    fn entity_columns(&self, request: &OnlineRequest<'_>, wanted: &Wanted<'_>) -> Vec<EntityColumn> {
        // Names are looked up in maps, because a request can have thousands of columns.
        let mapped = wanted.views.iter().flat_map(|view| view.join_key_map.values());
        let mapped: HashMap<&str, &Arc<str>> = mapped.map(|column| (&**column, column)).collect();
        let mut key_types: HashMap<&Arc<str>, ScalarType> = HashMap::new();
        for view in &wanted.views {
            for key in &view.view.join_keys {
                key_types.entry(view.request_column(&key.name)).or_insert(key.value_type);
            }
        }
        let mut seen: HashSet<&Arc<str>> = HashSet::new();
        let mut columns: Vec<EntityColumn> = Vec::new();
        for (request_index, (name, _)) in request.entities.iter().enumerate() {
            let mapped = mapped.get(&**name).copied();
            let own = self.catalog.join_keys().get_key_value(&**name).map(|(key, _)| key);
            let by_entity = || self.catalog.entity(name).map(|entity| &entity.join_key);
            let Some(name) = mapped.or(own).or_else(by_entity) else { continue };
            if !seen.insert(name) {
                continue;
            }
            let key_type = key_types.get(name).copied();
            let declared = self.catalog.join_keys().get(name).copied();
            // A plugin may read a join key that no view of the request has.
            let read = || declared.filter(|_| wanted.steps.iter().any(|step| step.reads_key(name)));
            let key_type = key_type.or_else(read);
            columns.push(EntityColumn { name: Arc::clone(name), request_index, key_type, declared });
        }
        columns
    }

    /// Returns the distinct keys of all reads. Fails if a view has join keys, and the request has a column for none of
    /// them.
    fn keys(&self, wanted: &Wanted<'_>, entity_columns: &[EntityColumn]) -> Result<Vec<KeyPlan>, RequestError> {
        let mut keys: Vec<KeyPlan> = Vec::new();
        for (read, view) in wanted.views.iter().enumerate() {
            let part = |key: &larder_model::model::JoinKey| {
                if view.view.is_entityless() {
                    return KeyPart::Dummy;
                }
                let column = view.request_column(&key.name);
                let index = entity_columns.iter().position(|entity| entity.name == *column);
                index.map_or(KeyPart::Missing, |index| KeyPart::Column(index, key.value_type))
            };
            let parts: Vec<KeyPart> = view.view.join_keys.iter().map(part).collect();
            if parts.iter().all(|part| *part == KeyPart::Missing) {
                let needed = wanted.views.iter().flat_map(|view| {
                    let keys = if view.view.is_entityless() { &[][..] } else { &view.view.join_keys };
                    keys.iter().map(|key| view.request_column(&key.name))
                });
                return Err(missing_keys(needed, true, entity_columns));
            }
            let names = view.view.join_keys.iter().map(|key| &*key.name);
            let encoder = KeyEncoder::new(self.catalog.key_version(), names);
            let same = |known: &KeyPlan| known.encoder == encoder && known.parts == parts;
            let index = keys.iter().position(same).unwrap_or_else(|| {
                keys.push(KeyPlan { encoder, parts, reads: Vec::new(), views: Vec::new() });
                keys.len() - 1
            });
            keys[index].reads.push(read);
            keys[index]
                .views
                .push(Lookup { view: self.views.id(self.view_index(view.view)?), values: view.features.len() });
        }
        Ok(keys)
    }

    fn read(&self, wanted: &WantedView<'_>) -> Result<ViewRead, RequestError> {
        let view = wanted.view;
        let index = self.view_index(view)?;
        let feature = |name: &Arc<str>| view.feature_index(name).map(|index| &view.features[index]);
        let field = |schema: &RowSchema, name: &Arc<str>| {
            let feature = feature(name)?;
            schema.position(&feature.name, feature.value_type)
        };
        let row_plan = |schema: &Arc<RowSchema>| RowPlan {
            fingerprint: schema.fingerprint(),
            schema: Arc::clone(schema),
            fields: wanted.features.iter().map(|name| field(schema, name)).collect(),
            expiry: schema.expiry(),
            conversion: RowConversion::new(schema, wanted.features.iter().map(feature)),
        };
        Ok(ViewRead {
            view: self.views.id(index),
            ttl: view.ttl.map(|ttl| Micros::try_from(ttl.as_micros()).unwrap_or(Micros::MAX)),
            schemas: self.views.schemas(index)?.iter().rev().map(row_plan).collect(),
            join_keys: view.join_keys.iter().map(|key| Arc::clone(&key.name)).collect(),
            name: Arc::clone(&view.name),
            counters: ViewCounters::bind(&view.name),
        })
    }

    fn view_index(&self, view: &FeatureView) -> Result<usize, RequestError> {
        self.catalog.view_index(&view.name).ok_or_else(|| self.unknown_view(&view.name))
    }

    fn unknown_view(&self, view: &str) -> RequestError {
        if let Some(why) = self.catalog.unservable_views().get(view) {
            return RequestError::Unservable { what: "view", name: view.to_owned(), why: why.to_string() };
        }
        let stored = self.catalog.views().iter().map(|view| &*view.name);
        let derived = self.catalog.derived_views().iter().map(|view| &*view.name);
        let (project, nearest) = (self.catalog.project().to_owned(), nearest_of(view, stored.chain(derived)));
        RequestError::UnknownView { view: view.to_owned(), project, nearest }
    }
}

// === impl Wanted ===

impl<'c> Wanted<'c> {
    /// Returns the name or alias of each requested view, without duplicates.
    fn prefixes(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        self.columns
            .iter()
            .filter(|column| seen.insert(&column.prefix))
            .map(|column| column.prefix.to_string())
            .collect()
    }

    /// Adds a column of a stored view.
    fn stored_column(&mut self, read: usize, prefix: &Arc<str>, feature: &Arc<str>) {
        let wanted = &mut self.views[read];
        let view = wanted.view;
        let value_type = view.feature_index(feature).map(|index| view.features[index].value_type);
        let from = ColumnFrom::Read { read, feature: wanted.features.len() };
        wanted.features.push(Arc::clone(feature));
        self.column(prefix, feature, from, value_type, &view.features);
    }

    /// Adds a column of a derived view.
    fn derived_column(&mut self, step: usize, prefix: &Arc<str>, feature: &Arc<str>) {
        let view = self.steps[step].view;
        let index = view.feature_index(feature);
        let from = ColumnFrom::Step { step, feature: index.unwrap_or_default() };
        self.column(prefix, feature, from, index.map(|index| view.features[index].value_type), &view.features);
    }

    /// Adds a column. If the view does not have the feature, also records an error, which is returned later: Feast
    /// reports unknown views and colliding names first.
    fn column(
        &mut self,
        prefix: &Arc<str>,
        feature: &Arc<str>,
        from: ColumnFrom,
        value_type: Option<ValueType>,
        known: &[Feature],
    ) {
        let (prefix, feature) = (Arc::clone(prefix), Arc::clone(feature));
        if value_type.is_none() && self.unknown.is_none() {
            self.unknown = Some(unknown_feature(&feature, &prefix, known));
        }
        let value_type = value_type.unwrap_or(ValueType::Scalar(ScalarType::String));
        self.columns.push(WantedColumn { prefix, feature, from, value_type });
    }
}

// === impl WantedView ===

impl WantedView<'_> {
    fn request_column<'w>(&'w self, join_key: &'w Arc<str>) -> &'w Arc<str> {
        self.join_key_map.get(join_key).unwrap_or(join_key)
    }
}

// === impl WantedColumn ===

impl WantedColumn {
    fn name(&self, full_names: bool) -> String {
        if full_names { format!("{}__{}", self.prefix, self.feature) } else { self.feature.to_string() }
    }
}

fn unknown_feature(feature: &str, view: &str, known: &[Feature]) -> RequestError {
    let nearest = nearest_of(feature, known.iter().map(|feature| &*feature.name));
    RequestError::UnknownFeature { feature: feature.to_owned(), view: view.to_owned(), nearest }
}

/// Returns the known name that is most similar to an unknown one.
fn nearest_of<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    let is_short = name.len() <= NEAREST_CHARS_MAX;
    if is_short { nearest_name(name, known.take(NEAREST_OF_MAX)).map(str::to_owned) } else { None }
}

/// Returns the error for a request that lacks values of join keys that its views need, with Feast's message. Feast
/// lists all join keys of the project; Larder lists only those of the requested views. `with_values` is whether the
/// provided columns have values.
pub(super) fn missing_keys<'k>(
    needed: impl Iterator<Item = &'k Arc<str>>,
    with_values: bool,
    provided: &[EntityColumn],
) -> RequestError {
    let needed: BTreeSet<&Arc<str>> = needed.collect();
    let provided: BTreeSet<&Arc<str>> = provided.iter().map(|column| &column.name).collect();
    let (given, missing): (Vec<_>, Vec<_>) = needed.iter().partition(|key| provided.contains(**key));
    let names = |keys: Vec<&Arc<str>>| keys.into_iter().map(ToString::to_string).collect();
    RequestError::MissingKeys {
        missing: names(missing),
        empty: if with_values { Vec::new() } else { names(given) },
        provided: names(provided.into_iter().collect()),
    }
}

/// Parses `view:feature` or `view@latest:feature`.
fn split_reference(reference: &str) -> Result<(&str, &str), RequestError> {
    let bad = || RequestError::BadReference(reference.to_owned());
    let (view, feature) = reference.split_once(':').ok_or_else(bad)?;
    // As in Feast, a suffix after `@` that does not look like a version belongs to the view's name.
    let view = match view.split_once('@') {
        Some((name, version)) if version.is_empty() || version.eq_ignore_ascii_case("latest") => name,
        Some((_, version)) if is_version(version) => return Err(RequestError::Versioned(view.to_owned())),
        Some(_) | None => view,
    };
    if view.is_empty() || feature.is_empty() {
        return Err(bad());
    }
    Ok((view, feature))
}

/// Returns whether a string is a version, such as `v2` or `V2`.
fn is_version(text: &str) -> bool {
    let digits = text.strip_prefix(['v', 'V']);
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Checks that the columns have distinct names.
fn check_collisions(wanted: &Wanted<'_>, full_names: bool) -> Result<(), RequestError> {
    // Maps each name to whether its collision was recorded.
    let mut seen: HashMap<String, bool> = HashMap::with_capacity(wanted.columns.len());
    let mut names: Vec<String> = Vec::new();
    for column in &wanted.columns {
        match seen.entry(column.name(full_names)) {
            Entry::Vacant(name) => {
                name.insert(false);
            }
            Entry::Occupied(mut name) => {
                if !name.insert(true) {
                    names.push(name.key().clone());
                }
            }
        }
    }
    if names.is_empty() { Ok(()) } else { Err(RequestError::Collision { names, full_names }) }
}
