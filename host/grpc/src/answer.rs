//! An [`Answer`] as Feast's message: one column after the other, as over HTTP, with values that keep their types.

use larder_model::{
    codec::to_feast_value,
    model::{FeastValue, Kind, Micros, ScalarType, ValueRef, ValueType},
};
use larder_serving::{Answer, ColumnFrom, EchoedValue, RequestError, ResponseBudget, Status};
use prost_types::Timestamp;

use super::proto::feast::serving::{
    FeatureList, FeatureViewMetadata, FieldStatus, GetOnlineFeaturesResponse, GetOnlineFeaturesResponseMetadata,
    get_online_features_response::FeatureVector,
};

/// What Feast says where a value has no time of its own.
const EPOCH: Timestamp = Timestamp { seconds: 0, nanos: 0 };

/// Overhead of a value in the message in addition to its bytes: the value's message, its status and its event time.
const VALUE_BYTES: usize = size_of::<FeastValue>() + size_of::<i32>() + size_of::<Timestamp>();

/// The maximum ratio of a value's size in the message to its size in a row.
fn expansion(value: ValueRef<'_>, value_type: ValueType) -> usize {
    match (value, value_type) {
        // A tree is decoded, and two of its bytes can be a value.
        (_, ValueType::Nested(_)) => size_of::<FeastValue>(),
        (ValueRef::Bytes(_), _) => 1,
        // An empty string in a list has four bytes in the row.
        _ => size_of::<String>() / 4 + 2,
    }
}

/// Makes an answer's message.
///
/// # Errors
/// Errors of [`ResponseBudget::hold`].
pub(super) fn translate(
    answer: &Answer<'_>,
    budget: &mut ResponseBudget,
) -> Result<GetOnlineFeaturesResponse, RequestError> {
    let plan = &*answer.plan;
    let columns = plan.entity_columns.len() + plan.feature_columns.len();
    budget.hold(columns * answer.rows * VALUE_BYTES)?;
    let entities = plan.entity_columns.iter().map(|column| column.name.to_string());
    let features = plan.feature_columns.iter().map(|column| column.name.clone());
    let views = plan.view_metadata.iter().flatten();
    let metadata = GetOnlineFeaturesResponseMetadata {
        feature_names: Some(FeatureList { val: entities.chain(features).collect() }),
        // Definitions have no versions: Feast's word for that is 0.
        feature_view_metadata: views.map(|name| FeatureViewMetadata { name: name.clone(), version: 0 }).collect(),
    };
    let keys = plan.entity_columns.iter().enumerate().map(|(place, column)| FeatureVector {
        values: answer.entity_column(place).iter().map(|value| echoed(value, column.key_type)).collect(),
        statuses: vec![FieldStatus::Present.into(); answer.rows],
        event_timestamps: vec![EPOCH; answer.rows],
    });
    let columns = plan.feature_columns.iter().map(|column| {
        let mut vector = FeatureVector {
            values: Vec::with_capacity(answer.rows),
            statuses: Vec::with_capacity(answer.rows),
            event_timestamps: Vec::with_capacity(answer.rows),
        };
        for (row, cell) in answer.cells(column.from).enumerate() {
            // Eight bytes are in the value itself.
            let bytes = cell.value.bytes();
            if bytes > 8 {
                budget.hold(bytes * expansion(cell.value, column.value_type))?;
            }
            vector.values.push(match cell.status {
                Status::NotFound => FeastValue::default(),
                _ => to_feast_value(cell.value, column.value_type),
            });
            vector.statuses.push(field_status(cell.status).into());
            vector.event_timestamps.push(match column.from {
                // As in Feast: what is computed has no time of its own.
                ColumnFrom::Step { .. } => EPOCH,
                ColumnFrom::Read { read, .. } => answer.event_time(read, row).map_or(EPOCH, timestamp),
            });
        }
        Ok(vector)
    });
    let results = keys.map(Ok).chain(columns).collect::<Result<Vec<_>, RequestError>>()?;
    // Feast leaves `status` false.
    Ok(GetOnlineFeaturesResponse { results, metadata: Some(metadata), status: false })
}

fn field_status(status: Status) -> FieldStatus {
    match status {
        Status::Present => FieldStatus::Present,
        Status::NotFound => FieldStatus::NotFound,
        Status::OutsideMaxAge => FieldStatus::OutsideMaxAge,
        Status::Invalid => FieldStatus::Invalid,
    }
}

/// A key as it was understood, in its type.
fn echoed(value: &EchoedValue<'_>, key_type: Option<ScalarType>) -> FeastValue {
    let kind = match (value, key_type) {
        (EchoedValue::Null, _) => return FeastValue::default(),
        // The range was checked when the key was made.
        (EchoedValue::Int(v), Some(ScalarType::Int32)) => Kind::Int32(i32::try_from(*v).unwrap_or_default()),
        (EchoedValue::Int(v), Some(ScalarType::UnixTimestamp)) => Kind::UnixTimestamp(*v),
        (EchoedValue::Int(v), _) => Kind::Int64(*v),
        (EchoedValue::Float(v), _) => Kind::Double(*v),
        (EchoedValue::Bool(v), _) => Kind::Bool(*v),
        (EchoedValue::Text(v), Some(ScalarType::Bytes)) => Kind::Bytes(v.as_bytes().to_vec()),
        (EchoedValue::Text(v), Some(ScalarType::Uuid)) => Kind::Uuid(v.to_string()),
        (EchoedValue::Text(v), _) => Kind::String(v.to_string()),
    };
    FeastValue { kind: Some(kind) }
}

fn timestamp(time: Micros) -> Timestamp {
    // Less than a million times a thousand.
    let nanos = i32::try_from(time.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
    Timestamp { seconds: time.div_euclid(1_000_000), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_before_1970_counts_its_nanoseconds_forwards() {
        assert_eq!(timestamp(-1), Timestamp { seconds: -1, nanos: 999_999_000 });
        assert_eq!(timestamp(1_500_000), Timestamp { seconds: 1, nanos: 500_000_000 });
    }
}
