//! Answers entity rows of a training set, with the plan and the conversions of lookups.
//!
//! The caller finds the rows of features: for each entity row, the row that was valid at its time. Everything else is the same
//! as for a lookup: the plan, the conversion of keys, the rules about the age of rows, and the derived features.

use std::sync::Arc;

use larder_model::{
    codec::RowSchema,
    model::{EntityId, Micros},
    registry::Catalog,
};
use larder_plugin_host::{AsOf, OnFailure};
use larder_store::{Row, StoreError, ViewId};
use smallvec::SmallVec;

use super::{
    Answer, OnlineRequest, Plan, RequestError, Transforms, TtlPolicy,
    answer::LookupResult,
    derive::derive,
    keys::{self, EchoedColumn},
    plan::{EntityColumn, KeyPart, Resolver, StoredViews},
};

/// Some entity rows of a training set, whose keys were converted.
#[derive(Debug)]
pub struct HistoricalRows<'r> {
    plan: Arc<Plan>,
    request: &'r OnlineRequest<'r>,
    entities: SmallVec<[EchoedColumn<'r>; 1]>,
    rows: usize,
}

/// The views of a catalog without a store. Their rows have the current schemas.
struct WithoutStore<'c>(&'c Catalog);

/// Resolves a request for a training set to a plan. The request needs no values.
///
/// # Errors
/// A problem with the request, as for a lookup.
pub fn plan_without_store(
    catalog: &Catalog,
    transforms: &Transforms,
    request: &OnlineRequest<'_>,
) -> Result<Plan, RequestError> {
    Resolver { catalog, views: &WithoutStore(catalog), transforms, features_max: usize::MAX }.resolve(request)
}

// === impl WithoutStore ===

impl StoredViews for WithoutStore<'_> {
    fn id(&self, index: usize) -> ViewId {
        ViewId::without_store(index)
    }

    fn schemas(&self, index: usize) -> Result<Arc<[Arc<RowSchema>]>, StoreError> {
        Ok(Arc::new([Arc::new(RowSchema::of_view(&self.0.views()[index]))]))
    }
}

// === impl HistoricalRows ===

impl<'r> HistoricalRows<'r> {
    /// Converts the keys of entity rows. `plan` is the plan of requests with these columns.
    ///
    /// # Errors
    /// [`RequestError::BadKey`] for a value that does not convert to the type of its key, and [`RequestError::Ragged`].
    pub fn new(plan: &Arc<Plan>, request: &'r OnlineRequest<'r>) -> Result<Self, RequestError> {
        let rows = request.entities.first().map_or(0, |(_, values)| values.len());
        if request.entities.iter().any(|(_, values)| values.len() != rows) {
            return Err(RequestError::Ragged);
        }
        let entity = |column: &EntityColumn| {
            let (name, values) = &request.entities[column.request_index];
            keys::coerce(values, column.key_type).map_err(|error| match error {
                RequestError::BadKey(why) => RequestError::BadKey(format!("column '{name}' of the entity rows: {why}")),
                other => other,
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
