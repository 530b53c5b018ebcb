//! Converts Feast's lookup message to an [`OnlineRequest`], which borrows from the message.

use std::borrow::Cow;

use larder_model::model::{FeastValue, Kind, RepeatedValue};
use larder_serving::{Cut, EntityValue, OnlineRequest, RequestError, Selection};
use tonic::Status;

use super::proto::feast::serving::{GetOnlineFeaturesRequest, get_online_features_request::Kind as Asked};

/// Converts a message to a request.
///
/// # Errors
/// `INVALID_ARGUMENT` if the message has neither features nor a feature service, if a column is in both `entities` and
/// `request_context`, or if bytes are not valid UTF-8.
pub(super) fn translate(message: &GetOnlineFeaturesRequest) -> Result<OnlineRequest<'_>, Status> {
    let selection = match &message.kind {
        Some(Asked::FeatureService(name)) => Selection::Service(Cow::Borrowed(name)),
        Some(Asked::Features(list)) => {
            Selection::Features(list.val.iter().map(|name| Cow::Borrowed(name.as_str())).collect())
        }
        None => return Err(super::error::of_request(RequestError::NoFeatures)),
    };
    if let Some(twice) = message.request_context.keys().find(|name| message.entities.contains_key(*name)) {
        let text = format!("column '{}' is in 'entities' and in 'request_context'", Cut(twice));
        return Err(Status::invalid_argument(text));
    }
    let columns = message.entities.iter().chain(&message.request_context);
    let column = |(name, values)| Ok((Cow::Borrowed(String::as_str(name)), column(name, values)?));
    let entities = columns.map(column).collect::<Result<_, Status>>()?;
    Ok(OnlineRequest {
        selection,
        entities,
        full_feature_names: message.full_feature_names,
        view_metadata: message.include_feature_view_version_metadata,
    })
}

fn column<'m>(name: &str, values: &'m RepeatedValue) -> Result<Vec<EntityValue<'m>>, Status> {
    let not_text = || {
        let text = format!("column '{}' has bytes that are not UTF-8", Cut(name));
        Status::invalid_argument(text)
    };
    values.val.iter().map(|value| entity_value(value).ok_or_else(not_text)).collect()
}

/// Converts a value to an untyped value, as in JSON. The type of the key or of the plugin's input determines how the
/// value is interpreted. Returns `None` for bytes that are not valid UTF-8.
fn entity_value(value: &FeastValue) -> Option<EntityValue<'_>> {
    fn list<'m, T>(items: &'m [T], of: impl Fn(&'m T) -> EntityValue<'m>) -> EntityValue<'m> {
        EntityValue::List(items.iter().map(of).collect())
    }
    let Some(kind) = &value.kind else { return Some(EntityValue::Null) };
    Some(match kind {
        Kind::Null(_) => EntityValue::Null,
        Kind::Bool(v) => EntityValue::Bool(*v),
        Kind::Int32(v) => int32(v),
        Kind::Int64(v) | Kind::UnixTimestamp(v) => EntityValue::Int(*v),
        Kind::Float(v) => single(v),
        Kind::Double(v) => EntityValue::Float(*v),
        Kind::String(v) | Kind::Json(v) | Kind::Uuid(v) | Kind::TimeUuid(v) | Kind::Decimal(v) => text(v),
        Kind::Bytes(v) => bytes(v)?,
        Kind::BoolList(l) | Kind::BoolSet(l) => list(&l.val, |v| EntityValue::Bool(*v)),
        Kind::Int32List(l) | Kind::Int32Set(l) => list(&l.val, int32),
        Kind::Int64List(l) | Kind::Int64Set(l) | Kind::UnixTimestampList(l) | Kind::UnixTimestampSet(l) => {
            list(&l.val, |v| EntityValue::Int(*v))
        }
        Kind::FloatList(l) | Kind::FloatSet(l) => list(&l.val, single),
        Kind::DoubleList(l) | Kind::DoubleSet(l) => list(&l.val, |v| EntityValue::Float(*v)),
        Kind::StringList(l)
        | Kind::StringSet(l)
        | Kind::JsonList(l)
        | Kind::UuidList(l)
        | Kind::UuidSet(l)
        | Kind::TimeUuidList(l)
        | Kind::TimeUuidSet(l)
        | Kind::DecimalList(l)
        | Kind::DecimalSet(l) => list(&l.val, |v| text(v)),
        Kind::BytesList(l) | Kind::BytesSet(l) => {
            EntityValue::List(l.val.iter().map(|v| bytes(v)).collect::<Option<_>>()?)
        }
        Kind::List(l) | Kind::Set(l) => EntityValue::List(l.val.iter().map(entity_value).collect::<Option<_>>()?),
        Kind::Map(_) | Kind::MapList(_) | Kind::Struct(_) | Kind::StructList(_) | Kind::ZonedTimestamp(_) => {
            EntityValue::Nested
        }
    })
}

fn int32(value: &i32) -> EntityValue<'_> {
    EntityValue::Int(i64::from(*value))
}

fn single(value: &f32) -> EntityValue<'_> {
    EntityValue::Float(f64::from(*value))
}

fn text(text: &str) -> EntityValue<'_> {
    EntityValue::Text(Cow::Borrowed(text))
}

fn bytes(bytes: &[u8]) -> Option<EntityValue<'_>> {
    std::str::from_utf8(bytes).ok().map(|text| EntityValue::Text(Cow::Borrowed(text)))
}

#[cfg(test)]
mod tests {
    use larder_model::model::{BytesList, FeastMap, FloatList};

    use super::*;

    #[test]
    fn typed_value_converts_like_json() {
        let of = |kind| entity_value(&FeastValue { kind: Some(kind) }).map(|value| value.describe());
        assert_eq!(entity_value(&FeastValue { kind: None }), Some(EntityValue::Null));
        assert_eq!(of(Kind::Null(0)).unwrap(), "null");
        assert_eq!(of(Kind::Int32(-1)).unwrap(), "-1");
        assert_eq!(of(Kind::Float(0.5)).unwrap(), "0.5");
        assert_eq!(of(Kind::Bytes(b"ab".to_vec())).unwrap(), "'ab'");
        assert_eq!(of(Kind::Bytes(vec![0xff])), None);
        assert_eq!(of(Kind::BytesList(BytesList { val: vec![vec![0xff]] })), None);
        assert_eq!(of(Kind::FloatList(FloatList { val: vec![1.0] })).unwrap(), "a list");
        assert_eq!(of(Kind::Map(FeastMap::default())).unwrap(), "a mapping");
    }
}
