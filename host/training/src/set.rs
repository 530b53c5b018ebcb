//! A training set: entity rows and their features.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, UInt64Array},
    compute::take,
    datatypes::{Field, Schema, SchemaRef},
};
use larder_columns::{feature_array, instants};
use larder_model::{
    model::{FeatureView, Micros},
    registry::Catalog,
};
use larder_serving::{
    Answer, ColumnFrom, HistoricalRows, OnlineRequest, Plan, Selection, Status, Transforms, TtlPolicy,
    plan_without_store,
};
use larder_source::Source;

use super::{
    DerivedReport, Report, TrainingError, ViewReport, entities,
    kernel::{Spine, SpineBuilder, Visibility},
    view_rows::ViewRows,
};

/// The requested features, and the rules of the join.
#[derive(Clone, Debug)]
pub struct TrainingRequest<'a> {
    /// The requested features.
    pub selection: Selection<'a>,
    /// Whether feature columns are named `view__feature`.
    pub full_feature_names: bool,
    /// The name of the entity rows' column of times.
    pub time_column: &'a str,
    /// When a feature row becomes visible.
    pub visibility: Visibility,
    /// How to treat values that are older than their view's `ttl` at the time of the entity row.
    pub ttl: TtlPolicy,
    /// Whether a column `NAME__event_timestamp` follows each stored feature.
    pub event_timestamps: bool,
}

/// Opens the files of a view. If the flag is set, only the columns of keys and times are needed. Returns `None` if the view
/// has no files.
pub type OpenSource<'a> = dyn Fn(&FeatureView, bool) -> Option<Box<dyn Source>> + 'a;

/// A training set.
#[derive(Debug)]
pub struct TrainingSet {
    /// The entity rows, in their order and in their batches. Their columns are followed by those of the features.
    pub batches: Vec<RecordBatch>,
    /// The counts of the set.
    pub report: Report,
}

/// A read of a view, with the index of its key in [`Plan::keys`].
struct Read {
    key: usize,
    rows: ViewRows,
    ttl: Option<Micros>,
}

/// Builds a training set in memory. `entities` are the entity rows: batches with equal columns.
///
/// # Errors
/// [`TrainingError`].
pub fn training_set(
    catalog: &Catalog,
    transforms: &Transforms,
    open: &OpenSource<'_>,
    request: &TrainingRequest<'_>,
    entities: &[RecordBatch],
) -> Result<TrainingSet, TrainingError> {
    let schema = entities.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    // Checks that the column of times exists, and its type.
    entities::times(&RecordBatch::new_empty(Arc::clone(&schema)), request.time_column)?;
    let names = schema.fields().iter().map(|field| (field.name().as_str().into(), Vec::new())).collect();
    let without_values = online_request(request, names);
    let plan = Arc::new(plan_without_store(catalog, transforms, &without_values)?);
    check_names(&schema, &plan)?;
    if let Some(step) = plan.steps.iter().find(|step| step.transform.is_none()) {
        let (view, plugin) = (step.view.name.to_string(), step.view.plugin.to_string());
        return Err(TrainingError::NoPlugin { view, plugin });
    }
    let derived = plan.steps.iter().map(|step| DerivedReport { view: step.view.name.to_string(), failed: 0 });
    let mut report = Report { derived: derived.collect(), ..Report::default() };
    let spines = spines(&plan, request, entities, &mut report)?;
    let reads = reads(catalog, open, request, &plan, &spines, &mut report)?;
    let mut batches = Vec::with_capacity(entities.len());
    let mut first = 0;
    for batch in entities {
        batches.push(answer(&plan, request, batch, first, &spines, &reads, &mut report)?);
        first += batch.num_rows();
    }
    Ok(TrainingSet { batches, report })
}

fn online_request<'r>(
    request: &TrainingRequest<'r>,
    entities: Vec<(std::borrow::Cow<'r, str>, Vec<larder_serving::EntityValue<'r>>)>,
) -> OnlineRequest<'r> {
    OnlineRequest {
        selection: request.selection.clone(),
        entities,
        full_feature_names: request.full_feature_names,
        view_metadata: false,
    }
}

/// Checks that no feature has the name of a column of the entity rows.
fn check_names(schema: &SchemaRef, plan: &Plan) -> Result<(), TrainingError> {
    let taken = plan.feature_columns.iter().find(|column| schema.column_with_name(&column.name).is_some());
    taken.map_or(Ok(()), |column| Err(TrainingError::Collision(column.name.clone())))
}

/// Returns the values of the columns that the plan uses. The other columns have no values, because they may have types that a
/// request cannot have.
fn columns<'a>(
    plan: &Plan,
    request: &TrainingRequest<'a>,
    batch: &'a RecordBatch,
    schema: &'a Schema,
) -> Result<OnlineRequest<'a>, TrainingError> {
    let used = |index: usize| {
        plan.entity_columns.iter().any(|column| column.request_index == index)
            || plan.request_inputs.iter().any(|input| input.request_index == index)
    };
    let column = |(index, field): (usize, &'a Arc<Field>)| {
        let values = if used(index) {
            entities::values(batch.column(index), field.name())?
        } else {
            vec![larder_serving::EntityValue::Null; batch.num_rows()]
        };
        Ok((field.name().as_str().into(), values))
    };
    let columns = schema.fields().iter().enumerate().map(column).collect::<Result<_, TrainingError>>()?;
    Ok(online_request(request, columns))
}

/// Returns the spine of each key.
fn spines(
    plan: &Arc<Plan>,
    request: &TrainingRequest<'_>,
    entities: &[RecordBatch],
    report: &mut Report,
) -> Result<Vec<Spine>, TrainingError> {
    let mut spines: Vec<SpineBuilder> = plan.keys.iter().map(|_| SpineBuilder::default()).collect();
    for batch in entities {
        let times = entities::times(batch, request.time_column)?;
        let schema = batch.schema();
        let values = columns(plan, request, batch, &schema)?;
        let rows = HistoricalRows::new(plan, &values)?;
        for (key, spine) in spines.iter_mut().enumerate() {
            for (row, id) in rows.ids(key).enumerate() {
                spine.push(id, times.micros(row))?;
            }
        }
        report.rows += batch.num_rows() as u64;
        report.rows_without_time += (0..batch.num_rows()).filter(|row| times.micros(*row).is_none()).count() as u64;
    }
    Ok(spines.into_iter().map(SpineBuilder::finish).collect())
}

/// Reads the views.
fn reads(
    catalog: &Catalog,
    open: &OpenSource<'_>,
    request: &TrainingRequest<'_>,
    plan: &Plan,
    spines: &[Spine],
    report: &mut Report,
) -> Result<Vec<Read>, TrainingError> {
    let mut reads = Vec::with_capacity(plan.reads.len());
    for (index, read) in plan.reads.iter().enumerate() {
        let key = plan.keys.iter().position(|key| key.reads.contains(&index)).unwrap_or_default();
        let no_files = || TrainingError::NoFiles(read.name.to_string());
        let view = catalog.view(&read.name).ok_or_else(no_files)?;
        if view.files().is_some_and(|files| files.timestamp_field.is_none()) {
            return Err(TrainingError::NoEventTimes(read.name.to_string()));
        }
        let sources = (open(view, true).ok_or_else(no_files)?, open(view, false).ok_or_else(no_files)?);
        let mut found = ViewReport { view: read.name.to_string(), ..ViewReport::default() };
        let rows = ViewRows::read(
            view,
            &plan.keys[key].encoder,
            &spines[key],
            request.visibility,
            &*sources.0,
            &*sources.1,
            &mut found,
        )?;
        report.views.push(found);
        reads.push(Read { key, rows, ttl: read.ttl });
    }
    Ok(reads)
}

/// Returns a batch of entity rows with their features. `first` is the index of its first row among all entity rows.
fn answer(
    plan: &Arc<Plan>,
    request: &TrainingRequest<'_>,
    batch: &RecordBatch,
    first: usize,
    spines: &[Spine],
    reads: &[Read],
    report: &mut Report,
) -> Result<RecordBatch, TrainingError> {
    let times = entities::times(batch, request.time_column)?;
    // Rows without a time are left out, because their derived features are null, too.
    let kept: Vec<u64> =
        (0..batch.num_rows()).filter(|row| times.micros(*row).is_some()).map(|row| row as u64).collect();
    let is_whole = kept.len() == batch.num_rows();
    let with_time = if is_whole {
        batch.clone()
    } else {
        arrow::compute::take_record_batch(batch, &UInt64Array::from(kept.clone()))?
    };
    let schema = with_time.schema();
    let values = columns(plan, request, &with_time, &schema)?;
    let row_of = |row: usize| usize::try_from(kept[row]).unwrap_or(usize::MAX);
    let as_of: Vec<Micros> = (0..kept.len()).filter_map(|row| times.micros(row_of(row))).collect();
    let answer = HistoricalRows::new(plan, &values)?.answer(as_of.clone(), request.ttl, |read, row| {
        let (of, report) = (&reads[read], &mut report.views[read]);
        let slot = spines[of.key].slot(first + row_of(row));
        let Some(winner) = slot.and_then(|slot| of.rows.winners.get(slot)) else {
            report.not_found += 1;
            return None;
        };
        let is_expired = of.ttl.is_some_and(|ttl| as_of[row].saturating_sub(winner.event_time) > ttl);
        if is_expired {
            report.expired += 1
        } else {
            report.matched += 1
        }
        report.late += u64::from(winner.created.is_some_and(|created| created > as_of[row]));
        of.rows.row(&winner)
    })?;
    for (step, derived) in report.derived.iter_mut().enumerate() {
        let cells = answer.cells(ColumnFrom::Step { step, feature: 0 });
        derived.failed += cells.filter(|cell| cell.status == Status::Invalid).count() as u64;
    }
    let (mut fields, mut arrays): (Vec<Arc<Field>>, Vec<ArrayRef>) =
        (batch.schema().fields().to_vec(), batch.columns().to_vec());
    let indexes: UInt64Array = {
        let mut next = 0;
        let index = |row: usize| {
            times.micros(row).map(|_| {
                next += 1;
                next - 1
            })
        };
        (0..batch.num_rows()).map(index).collect()
    };
    let mut add = |name: String, array: ArrayRef| {
        let array = if is_whole { array } else { take(&array, &indexes, None)? };
        fields.push(Arc::new(Field::new(name, array.data_type().clone(), true)));
        arrays.push(array);
        Ok::<_, TrainingError>(())
    };
    for column in &plan.feature_columns {
        let values = answer.cells(column.from).map(|cell| cell.value);
        add(column.name.clone(), feature_array(&column.name, column.value_type, values)?)?;
        if request.event_timestamps
            && let ColumnFrom::Read { read, .. } = column.from
        {
            add(format!("{}__event_timestamp", column.name), event_times(&answer, read))?;
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

fn event_times(answer: &Answer<'_>, read: usize) -> ArrayRef {
    instants((0..answer.rows).map(|row| answer.event_time(read, row)))
}
