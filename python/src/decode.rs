//! Decodes JSON responses into Python's objects.

use std::fmt;

use pyo3::{
    Bound, IntoPyObject, PyAny, PyErr, PyResult, Python, intern,
    types::{
        PyAnyMethods, PyBool, PyDict, PyDictMethods, PyFloat, PyInt, PyList, PyListMethods, PyString, PyStringMethods,
    },
};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::errors::ErrorClass;

/// The columns of a response. All lists have one item per column.
pub(crate) struct Columns<'py> {
    pub(crate) names: Bound<'py, PyList>,
    /// The values of each column.
    pub(crate) values: Bound<'py, PyList>,
    /// The statuses of each column.
    pub(crate) statuses: Bound<'py, PyList>,
    /// The event times of each column, in RFC 3339.
    pub(crate) times: Bound<'py, PyList>,
}

/// Decodes any JSON document.
pub(crate) fn decode_any<'py>(py: Python<'py>, json: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    decode(py, AnyValue(py), json)
}

/// Decodes a response to a lookup.
///
/// `decoders` has the columns whose values are not represented in JSON as they are. The value `None` stands for floats,
/// whose special values are text in JSON. Any other value is a function that converts a list of values.
pub(crate) fn decode_columns<'py>(
    py: Python<'py>,
    json: &[u8],
    decoders: &Bound<'py, PyDict>,
) -> PyResult<Columns<'py>> {
    let columns = decode(py, ColumnsSeed(py), json)?;
    if columns.names.len() != columns.values.len() {
        return Err(ErrorClass::Response.error(py, "the response has another number of names than columns".to_owned()));
    }
    if decoders.is_empty() {
        return Ok(columns);
    }
    for (index, name) in columns.names.iter().enumerate() {
        match decoders.get_item(&name)? {
            None => {}
            Some(decoder) if decoder.is_none() => special_floats(columns.values.get_item(index)?.cast::<PyList>()?)?,
            Some(decoder) => columns.values.set_item(index, decoder.call1((columns.values.get_item(index)?,))?)?,
        }
    }
    Ok(columns)
}

/// Replaces the texts of special floats: `NaN`, `Infinity` and `-Infinity`.
fn special_floats(values: &Bound<'_, PyList>) -> PyResult<()> {
    for (row, value) in values.iter().enumerate() {
        if let Ok(text) = value.cast_exact::<PyString>()
            && let Ok(float) = text.to_str()?.parse::<f64>()
        {
            values.set_item(row, float)?;
        }
    }
    Ok(())
}

fn decode<'de, S: DeserializeSeed<'de>>(py: Python<'_>, seed: S, json: &'de [u8]) -> PyResult<S::Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let decoded = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    decoded.map_err(|error| ErrorClass::Response.error(py, format!("the response is not valid JSON: {error}")))
}

/// Converts an error of Python, such as a lack of memory.
fn python_error<E: serde::de::Error>(error: PyErr) -> E {
    E::custom(error)
}

/// Decodes any value.
struct AnyValue<'py>(Python<'py>);

impl<'de, 'py> DeserializeSeed<'de> for AnyValue<'py> {
    type Value = Bound<'py, PyAny>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, 'py> Visitor<'de> for AnyValue<'py> {
    type Value = Bound<'py, PyAny>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(self.0.None().into_bound(self.0))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(PyBool::new(self.0, value).to_owned().into_any())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        let Ok(value) = value.into_pyobject(self.0);
        Ok(Bound::<PyInt>::into_any(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        let Ok(value) = value.into_pyobject(self.0);
        Ok(Bound::<PyInt>::into_any(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(PyFloat::new(self.0, value).into_any())
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(PyString::new(self.0, value).into_any())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let list = PyList::empty(self.0);
        while let Some(item) = items.next_element_seed(AnyValue(self.0))? {
            list.append(item).map_err(python_error)?;
        }
        Ok(list.into_any())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let dict = PyDict::new(self.0);
        while let Some(name) = entries.next_key_seed(AnyValue(self.0))? {
            let value = entries.next_value_seed(AnyValue(self.0))?;
            dict.set_item(name, value).map_err(python_error)?;
        }
        Ok(dict.into_any())
    }
}

/// Decodes a list of values of any type.
struct ListSeed<'py>(Python<'py>);

impl<'de, 'py> DeserializeSeed<'de> for ListSeed<'py> {
    type Value = Bound<'py, PyList>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let list = AnyValue(self.0).deserialize(deserializer)?;
        list.cast_into().map_err(|_| D::Error::custom("expected a list"))
    }
}

/// Decodes a list of strings. Consecutive equal strings share one object. Equal texts are one object.
struct TextsSeed<'py>(Python<'py>);

impl<'de, 'py> DeserializeSeed<'de> for TextsSeed<'py> {
    type Value = Bound<'py, PyList>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, 'py> Visitor<'de> for TextsSeed<'py> {
    type Value = Bound<'py, PyList>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let present = intern!(self.0, "PRESENT");
        let mut last: (&str, Bound<'py, PyString>) = ("PRESENT", present.clone());
        let list = PyList::empty(self.0);
        // The texts of a response have no escapes, so the deserializer borrows them.
        while let Some(text) = items.next_element::<&str>()? {
            if text != last.0 {
                last = (text, PyString::new(self.0, text));
            }
            list.append(&last.1).map_err(python_error)?;
        }
        Ok(list)
    }
}

/// Decodes a response.
struct ColumnsSeed<'py>(Python<'py>);

impl<'de, 'py> DeserializeSeed<'de> for ColumnsSeed<'py> {
    type Value = Columns<'py>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, 'py> Visitor<'de> for ColumnsSeed<'py> {
    type Value = Columns<'py>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with 'results' and 'metadata'")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let py = self.0;
        let empty = || PyList::empty(py);
        let mut columns = Columns { names: empty(), values: empty(), statuses: empty(), times: empty() };
        while let Some(field) = fields.next_key::<&str>()? {
            match field {
                "results" => fields.next_value_seed(ResultsSeed(&columns))?,
                "metadata" => columns.names = fields.next_value_seed(MetadataSeed(py))?,
                _ => _ = fields.next_value::<IgnoredAny>()?,
            }
        }
        Ok(columns)
    }
}

/// Decodes the list of columns, and appends each column to the lists.
struct ResultsSeed<'c, 'py>(&'c Columns<'py>);

impl<'de> DeserializeSeed<'de> for ResultsSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ResultsSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of columns")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element_seed(ColumnSeed(self.0))?.is_some() {}
        Ok(())
    }
}

struct ColumnSeed<'c, 'py>(&'c Columns<'py>);

impl<'de> DeserializeSeed<'de> for ColumnSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ColumnSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let py = self.0.names.py();
        let (mut values, mut statuses, mut times) = (None, None, None);
        while let Some(field) = fields.next_key::<&str>()? {
            match field {
                "values" => values = Some(fields.next_value_seed(ListSeed(py))?),
                "statuses" => statuses = Some(fields.next_value_seed(TextsSeed(py))?),
                "event_timestamps" => times = Some(fields.next_value_seed(TextsSeed(py))?),
                _ => _ = fields.next_value::<IgnoredAny>()?,
            }
        }
        let lists = [(&self.0.values, values), (&self.0.statuses, statuses), (&self.0.times, times)];
        for (list, part) in lists {
            list.append(part.unwrap_or_else(|| PyList::empty(py))).map_err(python_error)?;
        }
        Ok(())
    }
}

/// Decodes the metadata of a response, and returns the names of the columns.
struct MetadataSeed<'py>(Python<'py>);

impl<'de, 'py> DeserializeSeed<'de> for MetadataSeed<'py> {
    type Value = Bound<'py, PyList>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, 'py> Visitor<'de> for MetadataSeed<'py> {
    type Value = Bound<'py, PyList>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with 'feature_names'")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut names = PyList::empty(self.0);
        while let Some(field) = fields.next_key::<&str>()? {
            match field {
                "feature_names" => names = fields.next_value_seed(ListSeed(self.0))?,
                _ => _ = fields.next_value::<IgnoredAny>()?,
            }
        }
        Ok(names)
    }
}
