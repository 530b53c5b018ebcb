//! Decodes a request's JSON to an [`OnlineRequest`] in one pass, and borrows strings without escapes from the body.
//!
//! A body with an integer beyond 64 bits is parsed again ([`parse_exact`]). An invalid body is then parsed by the
//! slower [`diagnose`], which lists the problems with their locations, as FastAPI does.

use std::{borrow::Cow, collections::HashMap, fmt, marker::PhantomData};

use larder_model::codec::{Cell, may_be_integer};
use larder_serving::{EntityValue, OnlineRequest, Selection};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, value::RawValue};

use super::{HttpError, diagnose::diagnose, invalid::flag};

/// Parses the body of `POST /get-online-features`.
///
/// # Errors
/// Status 422 with FastAPI's body.
pub fn decode_request(body: &[u8]) -> Result<OnlineRequest<'_>, HttpError> {
    // UTF-8 is validated once for the whole body instead of for each text.
    let text = std::str::from_utf8(body).ok();
    let wire = text.and_then(|text| serde_json::from_str(text).ok().or_else(|| parse_exact(text)));
    let Some(wire) = wire else { return Err(diagnose(body)) };
    let Some(EntityColumns(entities)) = wire.entities else { return Err(diagnose(body)) };
    let selection = match wire.service {
        // As in Feast, an empty name has the same meaning as no name.
        Some(service) if !service.is_empty() => Selection::Service(service),
        _ => Selection::Features(wire.features),
    };
    let (full_feature_names, view_metadata) = (wire.full_feature_names, wire.view_metadata);
    Ok(OnlineRequest { selection, entities, full_feature_names, view_metadata })
}

/// Up to this many column names are compared linearly; more are looked up in a map.
const FEW_COLUMNS: usize = 16;

/// The error for a number that the parser returns as a double although it may be an integer: see [`parse_exact`].
const NEEDS_EXACT_TEXT: &str = "a number that must be parsed from its text";

/// Parses a body again, and parses each value from its own text, so that an integer beyond 64 bits is not rounded to a
/// double.
fn parse_exact(text: &str) -> Option<Wire<'_>> {
    let wire: Wire<'_, ExactColumns<'_>> = serde_json::from_str(text).ok()?;
    let Wire { entities, service, features, full_feature_names, view_metadata } = wire;
    let entities = entities.map(|ExactColumns(columns)| EntityColumns(columns));
    Some(Wire { entities, service, features, full_feature_names, view_metadata })
}

type Columns<'a> = Vec<(Cow<'a, str>, Vec<EntityValue<'a>>)>;

struct Wire<'a, E = EntityColumns<'a>> {
    entities: Option<E>,
    service: Option<Cow<'a, str>>,
    features: Vec<Cow<'a, str>>,
    full_feature_names: bool,
    view_metadata: bool,
}

/// Text that is borrowed if it has no escapes.
struct Text<'a>(Cow<'a, str>);

struct Texts<'a>(Vec<Cow<'a, str>>);

struct EntityColumns<'a>(Columns<'a>);

/// Columns whose values are each parsed from their own text.
struct ExactColumns<'a>(Columns<'a>);

struct WireVisitor<E>(PhantomData<E>);

struct OneValue<'a>(EntityValue<'a>);

struct ManyValues<'a>(Vec<EntityValue<'a>>);

/// A boolean that is parsed as pydantic does: also from 0, 1 and some strings.
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

impl<'de, E: Deserialize<'de>> Visitor<'de> for WireVisitor<E> {
    type Value = Wire<'de, E>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Wire<'de, E>, A::Error> {
        let (service, features) = (None, Vec::new());
        let mut wire = Wire { entities: None, service, features, full_feature_names: false, view_metadata: false };
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "entities" => wire.entities = Some(map.next_value()?),
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
}

impl<'de, E: Deserialize<'de>> Deserialize<'de> for Wire<'de, E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WireVisitor(PhantomData))
    }
}

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
        let mut columns = ColumnsByName::default();
        while let Some(Text(name)) = map.next_key()? {
            let ManyValues(values) = map.next_value()?;
            columns.insert(name, values);
        }
        Ok(EntityColumns(columns.columns))
    }
});

visitor!(ExactColumnsVisitor, ExactColumns, "an object of lists", {
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ExactColumns<'de>, A::Error> {
        let mut columns = ColumnsByName::default();
        while let Some(Text(name)) = map.next_key()? {
            let values = map.next_value::<Vec<&'de RawValue>>()?;
            let value = |value: &'de RawValue| Cell::from_json(value.get()).map(EntityValue::from);
            let values = values.into_iter().map(value).collect::<Result<_, _>>();
            columns.insert(name, values.map_err(A::Error::custom)?);
        }
        Ok(ExactColumns(columns.columns))
    }
});

/// Columns in the order of their first occurrence.
#[derive(Default)]
struct ColumnsByName<'a> {
    columns: Columns<'a>,
    /// The index of each column, if there are too many for a linear search.
    indexes: Option<HashMap<Cow<'a, str>, usize>>,
}

// === impl ColumnsByName ===

impl<'a> ColumnsByName<'a> {
    /// Adds a column. If a column with this name exists, replaces its values and keeps its position, as in a Python
    /// dictionary.
    fn insert(&mut self, name: Cow<'a, str>, values: Vec<EntityValue<'a>>) {
        let Self { columns, indexes } = self;
        if columns.len() < FEW_COLUMNS {
            match columns.iter().position(|(known, _)| *known == name) {
                Some(index) => columns[index].1 = values,
                None => columns.push((name, values)),
            }
            return;
        }
        let indexes = indexes.get_or_insert_with(|| {
            columns.iter().enumerate().map(|(index, (name, _))| (name.clone(), index)).collect()
        });
        match indexes.get(&name) {
            Some(index) => columns[*index].1 = values,
            None => {
                indexes.insert(name.clone(), columns.len());
                columns.push((name, values));
            }
        }
    }
}

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
        Ok(OneValue(i64::try_from(v).map_or_else(|_| EntityValue::Large(v.to_string().into()), EntityValue::Int)))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<OneValue<'de>, E> {
        if may_be_integer(v) { Err(E::custom(NEEDS_EXACT_TEXT)) } else { Ok(OneValue(EntityValue::Float(v))) }
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
    Text by TextVisitor with deserialize_str;
    Texts by TextsVisitor with deserialize_seq;
    EntityColumns by EntityColumnsVisitor with deserialize_map;
    ExactColumns by ExactColumnsVisitor with deserialize_map;
    ManyValues by ManyValuesVisitor with deserialize_seq;
    OneValue by OneValueVisitor with deserialize_any;
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        flag(&value).map(Self).ok_or_else(|| D::Error::custom("not a boolean"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(body: &str) -> Vec<(String, usize)> {
        let request = decode_request(body.as_bytes()).unwrap();
        request.entities.into_iter().map(|(name, values)| (name.into_owned(), values.len())).collect()
    }

    #[test]
    fn numbers_decode_to_nearest_doubles() {
        let mut texts: Vec<String> = vec!["9007199254740993.0".to_owned(), "0.42451918914251396".to_owned()];
        let mut bits: u64 = 1;
        texts.extend((0..10_000).map(|_| {
            // Knuth's generator: the values only need varied bits.
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let exponent = 1_000 + (bits >> 8) % 40;
            format!("{:?}", f64::from_bits((exponent << 52) | (bits >> 12)))
        }));
        let body = format!(r#"{{"features":["a:b"],"entities":{{"x":[{}]}}}}"#, texts.join(","));
        let request = decode_request(body.as_bytes()).unwrap();
        for (text, value) in texts.iter().zip(&request.entities[0].1) {
            assert_eq!(*value, EntityValue::Float(text.parse().unwrap()), "{text}");
            assert_eq!(Cell::from_json(text).unwrap(), Cell::Float(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn last_duplicate_column_wins() {
        for others in [0, FEW_COLUMNS - 2, FEW_COLUMNS - 1, FEW_COLUMNS, 100] {
            let others: String = (0..others).map(|n| format!(r#""c{n}":[1],"#)).collect();
            let body =
                format!(r#"{{"features":["a:b"],"entities":{{"x":[1],{others}"y":[1],"x":[1,2],"y":[1,2,3]}}}}"#);
            let columns = columns(&body);
            assert_eq!(columns[0], ("x".to_owned(), 2));
            assert_eq!(columns[columns.len() - 1], ("y".to_owned(), 3));
            assert_eq!(columns.iter().filter(|(name, _)| name == "x" || name == "y").count(), 2);
        }
    }

    #[test]
    fn many_columns_take_linear_time() {
        let body = |count: usize| {
            let columns: Vec<String> = (0..count).map(|n| format!(r#""c{n}":[1]"#)).collect();
            format!(r#"{{"features":["a:b"],"entities":{{{}}}}}"#, columns.join(","))
        };
        // Comparing each name with all others would need 3.2 billion comparisons, which take minutes in a debug build
        // on a busy machine.
        let (body, started) = (body(80_000), std::time::Instant::now());
        assert_eq!(columns(&body).len(), 80_000);
        assert!(started.elapsed() < std::time::Duration::from_secs(30), "{:?}", started.elapsed());
    }
}
