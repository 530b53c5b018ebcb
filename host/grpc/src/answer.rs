//! Encodes an [`Answer`] as Feast's message: column by column, as over HTTP, but with typed values.

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

/// The event time that Feast sends for a value without one.
const EPOCH: Timestamp = Timestamp { seconds: 0, nanos: 0 };

/// The memory of a value in the message in addition to its bytes: its `Value` message, its status and its event time.
const VALUE_BYTES: usize = size_of::<FeastValue>() + size_of::<i32>() + size_of::<Timestamp>();

/// Returns the maximum ratio of a value's size in the decoded message to its size in a row.
fn expansion(value: ValueRef<'_>, value_type: ValueType) -> usize {
    match (value, value_type) {
        // Nested values are decoded, and two bytes of them can become a `FeastValue`.
        (_, ValueType::Nested(_)) => size_of::<FeastValue>(),
        (ValueRef::Bytes(_), _) => 1,
        // An empty string in a list takes four bytes in the row, and a `String` in the message.
        _ => size_of::<String>() / 4 + 2,
    }
}

/// Converts an answer to Feast's message.
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
        // Definitions have no versions. Feast sends 0 in this case.
        feature_view_metadata: views.map(|name| FeatureViewMetadata { name: name.clone(), version: 0 }).collect(),
    };
    let keys = plan.entity_columns.iter().enumerate().map(|(index, column)| FeatureVector {
        values: answer.entity_column(index).iter().map(|value| echoed(value, column.key_type)).collect(),
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
            // `bytes` is 8 for numbers, booleans and nulls, which are stored in the message itself. The memory of the
            // message is already held.
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
                // As in Feast, computed values have no event time.
                ColumnFrom::Step { .. } => EPOCH,
                ColumnFrom::Read { read, .. } => answer.event_time(read, row).map_or(EPOCH, timestamp),
            });
        }
        Ok(vector)
    });
    let results = keys.map(Ok).chain(columns).collect::<Result<Vec<_>, RequestError>>()?;
    // Feast does not set `status`.
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

/// Returns the value of a key after coercion, in the key's type.
fn echoed(value: &EchoedValue<'_>, key_type: Option<ScalarType>) -> FeastValue {
    let kind = match (value, key_type) {
        (EchoedValue::Null, _) => return FeastValue::default(),
        // The range was checked when the key was coerced.
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
    // The value is below 10^9: it is less than 10^6 microseconds, times 1,000.
    let nanos = i32::try_from(time.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
    Timestamp { seconds: time.div_euclid(1_000_000), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_before_1970_has_positive_nanos() {
        assert_eq!(timestamp(-1), Timestamp { seconds: -1, nanos: 999_999_000 });
        assert_eq!(timestamp(1_500_000), Timestamp { seconds: 1, nanos: 500_000_000 });
    }
}
