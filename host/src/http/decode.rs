//! A request's JSON to an [`OnlineRequest`], in one pass, borrowing its texts from the body.
//!
//! What does not fit is looked at a second time, slowly, to answer as FastAPI does: every mistake with its place.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::{
    HttpError,
    invalid::{flag, problem, read_object, unprocessable},
};
use crate::serving::{EntityValue, OnlineRequest, Selection};

/// Reads the body of `POST /get-online-features`.
///
/// # Errors
/// Status 422 with FastAPI's body.
pub fn decode_request(body: &[u8]) -> Result<OnlineRequest<'_>, HttpError> {
    // Looked at as a whole, once, instead of text by text.
    let text = std::str::from_utf8(body).ok();
    let wire = text.and_then(|text| serde_json::from_str::<Wire<'_>>(text).ok());
    let Some(wire) = wire else { return Err(diagnose(body)) };
    let Some(entities) = wire.entities else { return Err(diagnose(body)) };
    let selection = match wire.service {
        // Feast takes an empty name for none.
        Some(service) if !service.is_empty() => Selection::Service(service),
        _ => Selection::Features(wire.features),
    };
    let (full_feature_names, view_metadata) = (wire.full_feature_names, wire.view_metadata);
    Ok(OnlineRequest { selection, entities, full_feature_names, view_metadata })
}

type Columns<'a> = Vec<(Cow<'a, str>, Vec<EntityValue<'a>>)>;

#[derive(Default)]
struct Wire<'a> {
    entities: Option<Columns<'a>>,
    service: Option<Cow<'a, str>>,
    features: Vec<Cow<'a, str>>,
    full_feature_names: bool,
    view_metadata: bool,
}

/// Text that is borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

struct Texts<'a>(Vec<Cow<'a, str>>);

struct EntityColumns<'a>(Columns<'a>);

struct OneValue<'a>(EntityValue<'a>);

struct ManyValues<'a>(Vec<EntityValue<'a>>);

/// A boolean as pydantic takes it: also 0 and 1, and words.
struct Flag(bool);

macro_rules! visitor {
    ($visitor:ident, $value:ident, $expecting:literal, { $($body:tt)* }) => {
        struct $visitor;

        impl<'de> Visitor<'de> for $visitor {
            type Value = $value<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($expecting)
            }

            $($body)*
        }
    };
}

visitor!(WireVisitor, Wire, "an object", {
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Wire<'de>, A::Error> {
        let mut wire = Wire::default();
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "entities" => wire.entities = Some(map.next_value::<EntityColumns<'de>>()?.0),
                "feature_service" => wire.service = map.next_value::<Option<Text<'de>>>()?.map(|text| text.0),
                "features" => wire.features = map.next_value::<Texts<'de>>()?.0,
                "full_feature_names" => wire.full_feature_names = map.next_value::<Flag>()?.0,
                "include_feature_view_version_metadata" => wire.view_metadata = map.next_value::<Flag>()?.0,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(wire)
    }
});

visitor!(TextVisitor, Text, "a string", {
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
});

visitor!(TextsVisitor, Texts, "a list of strings", {
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Texts<'de>, A::Error> {
        let mut texts = Vec::new();
        while let Some(Text(text)) = seq.next_element()? {
            texts.push(text);
        }
        Ok(Texts(texts))
    }
});

visitor!(EntityColumnsVisitor, EntityColumns, "an object of lists", {
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EntityColumns<'de>, A::Error> {
        let mut columns: Columns<'de> = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            let ManyValues(values) = map.next_value()?;
            // As in Python, the last of two equal keys counts, at the place of the first.
            match columns.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = values,
                None => columns.push((name, values)),
            }
        }
        Ok(EntityColumns(columns))
    }
});

visitor!(ManyValuesVisitor, ManyValues, "a list", {
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ManyValues<'de>, A::Error> {
        let mut values = Vec::new();
        while let Some(OneValue(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(ManyValues(values))
    }
});

visitor!(OneValueVisitor, OneValue, "a value", {
    fn visit_unit<E: Error>(self) -> Result<OneValue<'de>, E> {
        Ok(OneValue(EntityValue::Null))
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<OneValue<'de>, E> {
        Ok(OneValue(EntityValue::Bool(v)))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<OneValue<'de>, E> {
        Ok(OneValue(EntityValue::Int(v)))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<OneValue<'de>, E> {
        Ok(OneValue(i64::try_from(v).map_or(EntityValue::Large(v), EntityValue::Int)))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<OneValue<'de>, E> {
        Ok(OneValue(EntityValue::Float(v)))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<OneValue<'de>, E> {
        Ok(OneValue(EntityValue::Text(Cow::Borrowed(text))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<OneValue<'de>, E> {
        Ok(OneValue(EntityValue::Text(Cow::Owned(text.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneValue<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(OneValue(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(OneValue(EntityValue::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OneValue<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(OneValue(EntityValue::Nested))
    }
});

macro_rules! deserialize {
    ($($value:ident by $visitor:ident with $method:ident;)*) => {$(
        impl<'de> Deserialize<'de> for $value<'de> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.$method($visitor)
            }
        }
    )*};
}

deserialize! {
    Wire by WireVisitor with deserialize_map;
    Text by TextVisitor with deserialize_str;
    Texts by TextsVisitor with deserialize_seq;
    EntityColumns by EntityColumnsVisitor with deserialize_map;
    ManyValues by ManyValuesVisitor with deserialize_seq;
    OneValue by OneValueVisitor with deserialize_any;
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        flag(&value).map(Self).ok_or_else(|| D::Error::custom("not a boolean"))
    }
}

/// Says what is wrong with a body, as FastAPI and pydantic do.
fn diagnose(body: &[u8]) -> HttpError {
    let value = match read_object(body) {
        Ok(value) => value,
        Err(error) => return error,
    };
    let Value::Object(fields) = &value else { return unprocessable("bad_body", Vec::new()) };

    let mut details = Vec::new();
    let mut note = |kind, loc: Value, message, input: &Value| details.push(problem(kind, &loc, message, input));
    match fields.get("entities") {
        None => note("missing", json!(["body", "entities"]), "Field required", &value),
        Some(Value::Object(columns)) => {
            for (name, column) in columns.iter().filter(|(_, column)| !column.is_array()) {
                note("list_type", json!(["body", "entities", name]), "Input should be a valid list", column);
            }
        }
        Some(other) => note("dict_type", json!(["body", "entities"]), "Input should be a valid dictionary", other),
    }
    if let Some(service) = fields.get("feature_service").filter(|value| !value.is_string() && !value.is_null()) {
        note("string_type", json!(["body", "feature_service"]), "Input should be a valid string", service);
    }
    match fields.get("features") {
        None => {}
        Some(Value::Array(features)) => {
            for (i, feature) in features.iter().enumerate().filter(|(_, feature)| !feature.is_string()) {
                note("string_type", json!(["body", "features", i]), "Input should be a valid string", feature);
            }
        }
        Some(other) => note("list_type", json!(["body", "features"]), "Input should be a valid list", other),
    }
    for name in ["full_feature_names", "include_feature_view_version_metadata"] {
        if let Some(value) = fields.get(name).filter(|value| flag(value).is_none()) {
            let message = "Input should be a valid boolean, unable to interpret input";
            note("bool_parsing", json!(["body", name]), message, value);
        }
    }
    unprocessable("bad_body", details)
}
