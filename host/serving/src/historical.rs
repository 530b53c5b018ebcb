//! Answers entity rows of a training set, with the plan and the conversions of lookups.
//!
//! The caller finds the rows of features: for each entity row, the row that was valid at its time. Everything else is the same
//! as for a lookup: the plan, the conversion of keys, the rules about the age of rows, and the derived features.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use larder_model::{
    codec::RowSchema,
    model::{EntityId, FeatureView, Micros},
    registry::Catalog,
};
use larder_plugin_host::{AsOf, OnFailure};
use larder_store::{Row, StoreError, ViewId};
use smallvec::SmallVec;

use super::{
    Answer, ColumnFrom, LoggedServices, OnlineRequest, Plan, RequestError, Selection, StepInput, Transforms, TtlPolicy,
    answer::LookupResult,
    canary::CanarySet,
    derive::derive,
    keys::{self, EchoedColumn},
    plan::{EntityColumn, KeyPart, Resolver, StoredViews, ViewRead, missing_keys},
};

/// Some entity rows of a training set, whose keys were converted.
#[derive(Debug)]
pub struct HistoricalRows<'r> {
    plan: Arc<Plan>,
    request: &'r OnlineRequest<'r>,
    entities: SmallVec<[EchoedColumn<'r>; 1]>,
    rows: usize,
}

/// The plan of a training set.
#[derive(Debug)]
pub struct HistoricalPlan {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The indexes of the columns of the entity rows that are in the plan's requests, in their order there.
    pub columns: Vec<usize>,
    /// For each of [`Plan::reads`], the view with only the features that the plan uses. The plan's rows have its schema.
    pub views: Vec<FeatureView>,
}

/// The plan of derived features whose inputs are columns of a frame.
#[derive(Debug)]
pub struct DerivedPlan {
    /// The plan. It has no keys, because no rows are looked up, and its feature columns are those of derived views.
    pub historical: HistoricalPlan,
    /// The stored features that the derived views read.
    pub inputs: Vec<DerivedInput>,
}

/// A stored feature that is a column of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedInput {
    /// The index of its view in [`HistoricalPlan::views`].
    pub read: usize,
    /// The index of the feature in the view there.
    pub feature: usize,
    /// The name of the column, which is the name in a training set with the same request.
    pub column: String,
}

/// The views of a catalog without a store, each with only some of its features.
struct WithoutStore(Vec<FeatureView>);

// === impl HistoricalPlan ===

impl HistoricalPlan {
    /// Resolves a request for a training set to a plan. `columns` are the names of all columns of the entity rows.
    ///
    /// # Errors
    /// A problem with the request, as for a lookup.
    pub fn new(
        catalog: &Catalog,
        transforms: &Transforms,
        selection: &Selection<'_>,
        full_feature_names: bool,
        columns: &[&str],
    ) -> Result<Self, RequestError> {
        let (plan, columns, views) = Self::resolve(catalog, transforms, selection, full_feature_names, columns)?;
        Ok(Self { plan: Arc::new(plan), columns, views })
    }

    /// Returns the plan, and the other fields.
    fn resolve(
        catalog: &Catalog,
        transforms: &Transforms,
        selection: &Selection<'_>,
        full_feature_names: bool,
        columns: &[&str],
    ) -> Result<(Plan, Vec<usize>, Vec<FeatureView>), RequestError> {
        let resolve = |views: &WithoutStore, columns: &[&str]| {
            let request = OnlineRequest {
                selection: selection.clone(),
                entities: columns.iter().map(|name| ((*name).into(), Vec::new())).collect(),
                full_feature_names,
                view_metadata: false,
            };
            let logged = &LoggedServices::default();
            let canaries = CanarySet::default();
            Resolver { catalog, views, transforms, canaries, logged, features_max: usize::MAX }.resolve(&request)
        };
        let all = WithoutStore(catalog.views().iter().map(|view| FeatureView::clone(view)).collect());
        let whole = resolve(&all, columns)?;
        let is_used = |index: &usize| {
            let is_key = |column: &EntityColumn| column.request_index == *index && column.key_type.is_some();
            whole.entity_columns.iter().any(is_key)
                || whole.request_inputs.iter().any(|input| input.request_index == *index)
        };
        let used: Vec<usize> = (0..columns.len()).filter(is_used).collect();
        let names: Vec<&str> = used.iter().map(|index| columns[*index]).collect();
        // Only the features that the plan uses are read from files and held in memory.
        let narrow = |view: &FeatureView| {
            let reads = whole.reads.iter().filter(|read| read.name == view.name);
            let fields: HashSet<usize> =
                reads.flat_map(|read| read.schemas[0].fields.iter().flatten()).copied().collect();
            let features = view.features.iter().enumerate().filter(|(index, _)| fields.contains(index));
            FeatureView { features: features.map(|(_, feature)| feature.clone()).collect(), ..view.clone() }
        };
        let narrow = WithoutStore(all.0.iter().map(narrow).collect());
        let plan = resolve(&narrow, &names)?;
        let view = |read: &ViewRead| narrow.0.iter().find(|view| view.name == read.name).cloned();
        let views = plan.reads.iter().filter_map(view).collect();
        Ok((plan, used, views))
    }
}

// === impl DerivedPlan ===

impl DerivedPlan {
    /// Resolves a request for derived features to a plan. `columns` are the names of all columns of the frame. Stored features
    /// of the request are ignored.
    ///
    /// # Errors
    /// A problem with the request, as for a lookup. Join keys are only needed if a plugin reads them.
    pub fn new(
        catalog: &Catalog,
        transforms: &Transforms,
        selection: &Selection<'_>,
        full_feature_names: bool,
        columns: &[&str],
    ) -> Result<Self, RequestError> {
        // A request for a lookup has all join keys of its views, by the names that the service uses for them.
        let service = if let Selection::Service(name) = selection { catalog.service(name) } else { None };
        let mapped = service.into_iter().flat_map(|service| &service.projections);
        let mapped = mapped.flat_map(|projection| projection.join_key_map.values());
        let keys: BTreeSet<&str> = catalog.join_keys().keys().chain(mapped).map(|key| &**key).collect();
        let with_keys: Vec<&str> =
            columns.iter().copied().chain(keys.into_iter().filter(|key| !columns.contains(key))).collect();
        let resolved = HistoricalPlan::resolve(catalog, transforms, selection, full_feature_names, &with_keys)?;
        let (mut plan, requested, views) = resolved;
        let inputs = inputs(&plan, full_feature_names);
        plan.feature_columns.retain(|column| matches!(column.from, ColumnFrom::Step { .. }));
        plan.keys.clear();
        // Only columns that a plugin reads are converted.
        let key_of = |input: &StepInput| if let StepInput::Key(Some(index), _) = input { Some(*index) } else { None };
        let read_keys: BTreeSet<usize> = plan.steps.iter().flat_map(|step| &step.inputs).filter_map(key_of).collect();
        let is_missing = |index: &&usize| requested[plan.entity_columns[**index].request_index] >= columns.len();
        if let Some(index) = read_keys.iter().find(is_missing) {
            return Err(missing_keys(std::iter::once(&plan.entity_columns[*index].name), true, &[]));
        }
        let of_keys = read_keys.iter().map(|index| plan.entity_columns[*index].request_index);
        let used: BTreeSet<usize> =
            of_keys.chain(plan.request_inputs.iter().map(|input| input.request_index)).collect();
        let moved = |index: usize| used.range(..index).count();
        plan.request_inputs.iter_mut().for_each(|input| input.request_index = moved(input.request_index));
        let all = std::mem::take(&mut plan.entity_columns);
        let kept = all.into_iter().enumerate().filter(|(index, _)| read_keys.contains(index));
        plan.entity_columns =
            kept.map(|(_, column)| EntityColumn { request_index: moved(column.request_index), ..column }).collect();
        for input in plan.steps.iter_mut().flat_map(|step| &mut step.inputs) {
            if let StepInput::Key(Some(index), _) = input {
                *index = read_keys.range(..*index).count();
            }
        }
        let columns = used.iter().map(|index| requested[*index]).collect();
        Ok(Self { historical: HistoricalPlan { plan: Arc::new(plan), columns, views }, inputs })
    }
}

/// Returns the stored features that the derived views of a plan read.
fn inputs(plan: &Plan, full_feature_names: bool) -> Vec<DerivedInput> {
    let mut inputs: Vec<DerivedInput> = Vec::new();
    for input in plan.steps.iter().flat_map(|step| &step.inputs) {
        let StepInput::Feature(from @ ColumnFrom::Read { read, feature }) = *input else { continue };
        let schema = &plan.reads[read].schemas[0];
        let Some(field) = schema.fields[feature] else { continue };
        let Some((name, _)) = schema.schema.fields().nth(field) else { continue };
        let own_name = || {
            let view = &plan.reads[read].name;
            if full_feature_names { format!("{view}__{name}") } else { name.to_string() }
        };
        let requested = plan.feature_columns.iter().find(|column| column.from == from);
        let column = requested.map_or_else(own_name, |column| column.name.clone());
        let input = DerivedInput { read, feature: field, column };
        if !inputs.contains(&input) {
            inputs.push(input);
        }
    }
    inputs
}

// === impl WithoutStore ===

impl StoredViews for WithoutStore {
    fn id(&self, index: usize) -> ViewId {
        ViewId::without_store(index)
    }

    fn schemas(&self, index: usize) -> Result<Arc<[Arc<RowSchema>]>, StoreError> {
        Ok(Arc::new([Arc::new(RowSchema::of_view(&self.0[index]))]))
    }
}

// === impl HistoricalRows ===

impl<'r> HistoricalRows<'r> {
    /// Converts the keys of `rows` entity rows. `plan` is the plan of requests with these columns. A request for views without
    /// entities has no columns.
    ///
    /// # Errors
    /// [`RequestError::BadEntity`] for a value that does not convert to the type of its key, and [`RequestError::Ragged`].
    pub fn new(plan: &Arc<Plan>, request: &'r OnlineRequest<'r>, rows: usize) -> Result<Self, RequestError> {
        if request.entities.iter().any(|(_, values)| values.len() != rows) {
            return Err(RequestError::Ragged);
        }
        let entity = |column: &EntityColumn| {
            let (name, values) = &request.entities[column.request_index];
            keys::coerce(values, column.key_type).map_err(|error| {
                let is_bad = |value| keys::coerce(std::slice::from_ref(value), column.key_type).is_err();
                match (error, values.iter().position(is_bad)) {
                    (RequestError::BadKey(why), Some(row)) => {
                        RequestError::BadEntity { column: name.to_string(), row, why }
                    }
                    (other, _) => other,
                }
            })
        };
        let entities = plan.entity_columns.iter().map(entity).collect::<Result<SmallVec<[_; 1]>, _>>()?;
        Ok(Self { plan: Arc::clone(plan), request, entities, rows })
    }

    /// Returns the entity ID of each row for one of [`Plan::keys`]; `None` for a null and for a value of another type.
    pub fn ids(&self, key: usize) -> impl Iterator<Item = Option<EntityId>> {
        let key = &self.plan.keys[key];
        let is_complete = !key.parts.contains(&KeyPart::Missing);
        let mut buffer = Vec::with_capacity(64);
        (0..self.rows).map(move |row| if is_complete { key.id(&self.entities, row, &mut buffer) } else { None })
    }

    /// Answers the request for these rows. `times` has the time of each row. `found` returns the row that was valid at that
    /// time for one of [`Plan::reads`] and an entity row.
    ///
    /// # Errors
    /// Errors of request data, and of derived views with `on_error: fail`.
    pub fn answer(
        self,
        times: Vec<Micros>,
        ttl: TtlPolicy,
        mut found: impl FnMut(usize, usize) -> Option<Row>,
    ) -> Result<Answer<'r>, RequestError> {
        let Self { plan, request, entities, rows } = self;
        let mut results = SmallVec::with_capacity(plan.reads.len() * rows);
        for (index, read) in plan.reads.iter().enumerate() {
            results.extend(times.iter().enumerate().map(|(row, now)| LookupResult::of(found(index, row), read, *now)));
        }
        let now = times.iter().copied().max().unwrap_or_default();
        let mut answer = Answer { plan, rows, now, entities, found: results, derived: Vec::new(), ttl };
        if !answer.plan.steps.is_empty() && rows > 0 {
            derive(&mut answer, request, &AsOf::Each(times.into()), OnFailure::FindRows)?;
        }
        Ok(answer)
    }
}
