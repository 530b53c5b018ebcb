//! Converts answers to the columns of a log.

use std::{iter, sync::Arc};

use arrow::{
    array::{ArrayRef, Date32Array, Int32Array, ListArray, RecordBatch, StringArray},
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{Field, Schema},
};
use larder_columns::{ArrayError, feature_array, instants, scalar_array};
use larder_model::model::{Micros, ScalarType, ValueRef, ValueType};
use larder_serving::{Answer, ColumnFrom, EntityValue, LoggedAnswer, Status, StepInput, request_value};
use larder_store::ViewId;

use super::{LogSchema, Origin, load_times::LoadTimes, ttl_name};

/// An answer, and the ID of its request.
pub(super) struct Record {
    pub(super) answer: LoggedAnswer,
    pub(super) request_id: String,
}

const DAY: Micros = 86_400_000_000;
const NULL: &EntityValue<'static> = &EntityValue::Null;

/// Builds a batch of rows with the columns of a schema. All records are answers of one service.
///
/// # Errors
/// [`ArrayError`], if the values are too large.
pub(super) fn batch(schema: &LogSchema, records: &[Record], loads: &LoadTimes) -> Result<RecordBatch, ArrayError> {
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for column in &schema.columns {
        let array = array(&column.name, &column.origin, records, loads)?;
        fields.push(Field::new(&column.name, array.data_type().clone(), true));
        arrays.push(array);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

fn array(name: &str, origin: &Origin, records: &[Record], loads: &LoadTimes) -> Result<ArrayRef, ArrayError> {
    let answers = || records.iter().map(|record| &record.answer.answer);
    Ok(match origin {
        Origin::Key(key_type) => {
            let keys = answers().flat_map(|answer| keys(answer, name, *key_type));
            scalar_array(name, *key_type, keys)?
        }
        Origin::RequestData(value_type) => {
            let values: Vec<&EntityValue<'_>> =
                records.iter().flat_map(|record| request_data(&record.answer, name)).collect();
            request_array(name, *value_type, &values)?
        }
        Origin::Feature(index, value_type) => {
            let cells = records.iter().flat_map(|Record { answer, .. }| {
                answer.answer.cells(answer.answer.plan.feature_columns[*index].from).map(|cell| cell.value)
            });
            feature_array(name, *value_type, cells)?
        }
        Origin::FeatureTime(index) => instants(answers().flat_map(|answer| {
            let read = match answer.plan.feature_columns[*index].from {
                ColumnFrom::Read { read, .. } => Some(read),
                // Computed values have no event time.
                ColumnFrom::Step { .. } => None,
            };
            event_times(answer, read)
        })),
        Origin::FeatureStatus(index) => {
            let statuses = answers().flat_map(|answer| {
                answer.cells(answer.plan.feature_columns[*index].from).map(|cell| feast_status(cell.status))
            });
            Arc::new(Int32Array::from_iter_values(statuses))
        }
        Origin::LogTimestamp => instants(each_row(records, |record| Some(record.answer.answer.now))),
        Origin::LogDate => {
            let days = |record: &Record| i32::try_from(record.answer.answer.now.div_euclid(DAY)).ok();
            Arc::new(each_row(records, days).collect::<Date32Array>())
        }
        Origin::RequestId => texts(each_row(records, |record| Some(record.request_id.clone()))),
        Origin::Definitions => texts(each_row(records, |record| Some(record.answer.service.definitions.to_string()))),
        Origin::Ttl => texts(each_row(records, |record| Some(ttl_name(record.answer.answer.ttl()).to_owned()))),
        Origin::Loaded(view) => instants(each_row(records, |Record { answer, .. }| {
            loads.at(view_id(&answer.answer, view)?, answer.answer.now)
        })),
        Origin::Read(view) => instants(answers().flat_map(|answer| event_times(answer, input_read(answer, view)))),
        Origin::Component(view) => texts(each_row(records, |Record { answer, .. }| {
            let step = answer.answer.plan.steps.iter().find(|step| step.view.name == *view)?;
            Some(step.transform.as_ref()?.component().digest().to_string())
        })),
    })
}

/// Returns a value of each record in each of its rows.
fn each_row<T: Clone>(records: &[Record], value: impl Fn(&Record) -> Option<T>) -> impl Iterator<Item = Option<T>> {
    records.iter().flat_map(move |record| iter::repeat_n(value(record), record.answer.answer.rows))
}

fn texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

/// Returns the values of an entity column as keys; nulls if the request does not have the column.
fn keys<'a>(answer: &'a Answer<'_>, name: &str, key_type: ScalarType) -> Vec<ValueRef<'a>> {
    match answer.plan.entity_columns.iter().position(|column| *column.name == *name) {
        Some(index) => answer.entity_column(index).iter().map(|value| value.as_key(key_type)).collect(),
        None => vec![ValueRef::Null; answer.rows],
    }
}

/// Returns the values of a request input; nulls if the request does not have it.
fn request_data<'a>(answer: &'a LoggedAnswer, name: &str) -> Vec<&'a EntityValue<'static>> {
    let inputs = &answer.answer.plan.request_inputs;
    match inputs.iter().position(|input| *input.name == *name).and_then(|index| answer.request_data.get(index)) {
        Some(values) => values.iter().collect(),
        None => vec![NULL; answer.answer.rows],
    }
}

/// Builds the array of request data, with the conversions of [`larder_serving::fill_typed`].
fn request_array(name: &str, value_type: ValueType, values: &[&EntityValue<'_>]) -> Result<ArrayRef, ArrayError> {
    let item = match value_type {
        ValueType::Scalar(scalar) => {
            return scalar_array(name, scalar, values.iter().map(|value| request_value(value, scalar)));
        }
        // Plugins get nested values as JSON text.
        ValueType::Nested(_) => {
            let texts = values.iter().map(|value| request_value(value, ScalarType::String));
            return scalar_array(name, ScalarType::String, texts);
        }
        ValueType::List(item) | ValueType::Set(item) => item,
    };
    let lists = values.iter().map(|value| if let EntityValue::List(items) = value { Some(items) } else { None });
    let present: NullBuffer = lists.clone().map(|list| list.is_some()).collect();
    let offsets = OffsetBuffer::<i32>::from_lengths(lists.clone().map(|list| list.map_or(0, Vec::len)));
    let items = scalar_array(name, item, lists.flatten().flatten().map(|value| request_value(value, item)))?;
    let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(field, offsets, items, Some(present))?))
}

fn event_times<'a>(answer: &'a Answer<'_>, read: Option<usize>) -> impl Iterator<Item = Option<Micros>> + 'a {
    (0..answer.rows).map(move |row| answer.event_time(read?, row))
}

/// Returns the ID of a view that the answer reads.
pub(super) fn view_id(answer: &Answer<'_>, view: &str) -> Option<ViewId> {
    answer.plan.reads.iter().find(|read| *read.name == *view).map(|read| read.view)
}

/// Returns the read of a stored view for the inputs of plugins.
fn input_read(answer: &Answer<'_>, view: &str) -> Option<usize> {
    let inputs = answer.plan.steps.iter().flat_map(|step| &step.inputs);
    let mut reads = inputs.filter_map(|input| match input {
        StepInput::Feature(ColumnFrom::Read { read, .. }) => Some(*read),
        StepInput::Feature(ColumnFrom::Step { .. }) | StepInput::Request(_) | StepInput::Key(..) => None,
    });
    reads.find(|read| *answer.plan.reads[*read].name == *view)
}

/// Returns the number of a status in Feast (`feast.serving.FieldStatus`).
fn feast_status(status: Status) -> i32 {
    match status {
        Status::Invalid => 0,
        Status::Present => 1,
        Status::NotFound => 3,
        Status::OutsideMaxAge => 4,
    }
}
