//! Answers entity rows of a training set, with the plan and the conversions of lookups.
//!
//! The caller finds the rows of features: for each entity row, the row that was valid at its time. Everything else is the same
//! as for a lookup: the plan, the conversion of keys, the rules about the age of rows, and the derived features.

use std::{collections::HashSet, sync::Arc};

use larder_model::{
    codec::RowSchema,
    model::{EntityId, FeatureView, Micros},
    registry::Catalog,
};
use larder_plugin_host::{AsOf, OnFailure};
use larder_store::{Row, StoreError, ViewId};
use smallvec::SmallVec;

use super::{
    Answer, LoggedServices, OnlineRequest, Plan, RequestError, Selection, Transforms, TtlPolicy,
    answer::LookupResult,
    derive::derive,
    keys::{self, EchoedColumn},
    plan::{EntityColumn, KeyPart, Resolver, StoredViews, ViewRead},
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
        let resolve = |views: &WithoutStore, columns: &[&str]| {
            let request = OnlineRequest {
                selection: selection.clone(),
                entities: columns.iter().map(|name| ((*name).into(), Vec::new())).collect(),
                full_feature_names,
                view_metadata: false,
            };
            let logged = &LoggedServices::default();
            Resolver { catalog, views, transforms, logged, features_max: usize::MAX }.resolve(&request)
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
        Ok(Self { plan: Arc::new(plan), columns: used, views })
    }
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
