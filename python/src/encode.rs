//! Encodes the entities of a request as JSON.

use std::io::Write as _;

use pyo3::{
    Bound, PyAny, PyErr, PyResult, Python, intern,
    types::{
        PyAnyMethods, PyBool, PyBoolMethods, PyByteArray, PyBytes, PyDict, PyDictMethods, PyFloat, PyFloatMethods,
        PyInt, PyList, PyListMethods, PyMapping, PyMappingMethods, PySequence, PyString, PyStringMethods, PyTuple,
        PyTupleMethods, PyTypeMethods,
    },
};

use crate::errors::ErrorClass;

/// The maximum nesting of lists and mappings in a value.
const DEPTH_MAX: usize = 100;

/// A value of a request, for messages.
struct Position<'n> {
    column: &'n str,
    row: usize,
}

/// Appends a mapping from names to lists of values. All lists must have the same length.
pub(crate) fn encode_entities(out: &mut Vec<u8>, entities: &Bound<'_, PyDict>) -> PyResult<()> {
    let mut lengths = Vec::with_capacity(entities.len());
    out.push(b'{');
    for (index, (name, values)) in entities.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let name = name
            .cast::<PyString>()
            .map_err(|_| ErrorClass::Request.error(name.py(), format!("entities: the name {name} is not a string")))?;
        let name = name.to_str()?;
        text(out, name);
        out.push(b':');
        lengths.push(column(out, name, &values)?);
    }
    out.push(b'}');
    if lengths.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(());
    }
    let described: Vec<String> =
        entities.keys().iter().zip(lengths).map(|(name, length)| format!("'{name}' has {length}")).collect();
    let message = format!(
        "entities: the columns have different numbers of values: {}. hint: give each column one value per row",
        described.join(", ")
    );
    Err(ErrorClass::Request.error(entities.py(), message))
}

/// Appends the values of a column: a list, a tuple, or an object that converts to a list, such as a NumPy array, a
/// pandas series or an Arrow array. Returns their number.
fn column(out: &mut Vec<u8>, name: &str, values: &Bound<'_, PyAny>) -> PyResult<usize> {
    let py = values.py();
    if let Ok(list) = values.cast::<PyList>() {
        return items(out, name, list.iter());
    }
    if let Ok(tuple) = values.cast::<PyTuple>() {
        return items(out, name, tuple.iter());
    }
    let values = &in_microseconds(values)?;
    for method in [intern!(py, "to_pylist"), intern!(py, "to_list"), intern!(py, "tolist")] {
        if let Some(convert) = values.getattr_opt(method)?
            && let Ok(list) = convert.call0()?.cast_into::<PyList>()
        {
            return items(out, name, list.iter());
        }
    }
    // Text is a sequence of characters, but never a column.
    let is_text = values.cast::<PyString>().is_ok() || values.cast::<PyBytes>().is_ok();
    if !is_text && let Ok(sequence) = values.cast::<PySequence>() {
        let list: Vec<Bound<'_, PyAny>> = sequence.try_iter()?.collect::<PyResult<_>>()?;
        return items(out, name, list.into_iter());
    }
    let kind = values.get_type().name()?;
    let message = format!(
        "entities: the value of '{name}' has the type '{kind}' and is not a list. hint: use {{'{name}': [VALUE, ...]}}"
    );
    Err(ErrorClass::Request.error(py, message))
}

/// Converts a NumPy array of times to microseconds, because those in nanoseconds convert to integers instead of times.
fn in_microseconds<'py>(values: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = values.py();
    let kind = values.getattr_opt(intern!(py, "dtype"))?.and_then(|dtype| dtype.getattr(intern!(py, "kind")).ok());
    let is_numpy = values.get_type().module()? == "numpy";
    if is_numpy && kind.is_some_and(|kind| kind.eq("M").unwrap_or(false)) {
        return values.call_method1(intern!(py, "astype"), ("datetime64[us]",));
    }
    Ok(values.clone())
}

fn items<'py>(out: &mut Vec<u8>, column: &str, items: impl Iterator<Item = Bound<'py, PyAny>>) -> PyResult<usize> {
    let mut length = 0;
    out.push(b'[');
    for (row, item) in items.enumerate() {
        if row > 0 {
            out.push(b',');
        }
        value(out, &Position { column, row }, &item, 0)?;
        length = row + 1;
    }
    out.push(b']');
    Ok(length)
}

fn value(out: &mut Vec<u8>, at: &Position<'_>, item: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
    if let Ok(string) = item.cast::<PyString>() {
        let string = string.to_str().map_err(|_| at.error(item.py(), "the text is not valid Unicode"))?;
        text(out, string);
    } else if let Ok(flag) = item.cast::<PyBool>() {
        out.extend_from_slice(if flag.is_true() { b"true" } else { b"false" });
    } else if let Ok(int) = item.cast_exact::<PyInt>() {
        integer(out, int.as_any())?;
    } else if let Ok(float) = item.cast::<PyFloat>() {
        number(out, float.value());
    } else if item.is_none() {
        out.extend_from_slice(b"null");
    } else {
        return other_value(out, at, item, depth);
    }
    Ok(())
}

/// Appends a value of a type that is less common.
fn other_value(out: &mut Vec<u8>, at: &Position<'_>, item: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
    let py = item.py();
    if depth > DEPTH_MAX {
        return Err(at.error(py, "the value is nested too deeply"));
    }
    if let Ok(bytes) = item.cast::<PyBytes>() {
        return bytes_value(out, at, py, bytes.extract()?);
    }
    if let Ok(bytes) = item.cast::<PyByteArray>() {
        return bytes_value(out, at, py, &bytes.extract::<Vec<u8>>()?);
    }
    if item.cast::<PyInt>().is_ok() {
        return integer(out, &item.call_method0(intern!(py, "__int__"))?);
    }
    // NumPy's times convert to Python's, except for nanoseconds, which convert to integers.
    if let Some(kind) = item.getattr_opt(intern!(py, "dtype"))?
        && kind.getattr(intern!(py, "kind"))?.eq("M")?
        && depth == 0
    {
        return value(out, at, &item.call_method1(intern!(py, "astype"), ("datetime64[us]",))?, depth + 1);
    }
    // NumPy's scalars.
    if let Some(convert) = item.getattr_opt(intern!(py, "item"))? {
        return value(out, at, &convert.call0()?, depth + 1);
    }
    // datetime.datetime and pandas.Timestamp. Times without a zone are in UTC.
    if item.hasattr(intern!(py, "timestamp"))? {
        return instant(out, at, item);
    }
    if let Ok(mapping) = item.cast::<PyMapping>() {
        out.push(b'{');
        for (index, pair) in mapping.items()?.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let (name, inner): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
            text(out, name.str()?.to_str()?);
            out.push(b':');
            value(out, at, &inner, depth + 1)?;
        }
        out.push(b'}');
        return Ok(());
    }
    if let Some(convert) = item.getattr_opt(intern!(py, "tolist"))? {
        return value(out, at, &convert.call0()?, depth + 1);
    }
    let class = item.get_type();
    let module = class.module()?;
    if module == "uuid" || module == "decimal" {
        text(out, item.str()?.to_str()?);
        return Ok(());
    }
    // pandas.NA, the null of nullable types.
    if class.name()? == "NAType" && module.to_str()?.starts_with("pandas.") {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    let iterable = item.try_iter().map_err(|_| {
        let kind = item.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        at.error(
            py,
            &format!(
                "a value of the type '{kind}' cannot be sent. hint: use text, numbers, times or lists, and leave out columns that the features do not use"
            ),
        )
    })?;
    out.push(b'[');
    for (index, inner) in iterable.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        value(out, at, &inner?, depth + 1)?;
    }
    out.push(b']');
    Ok(())
}

/// Appends a key of the type `Bytes`. In JSON, the server takes the text of such a key as its bytes in UTF-8.
fn bytes_value(out: &mut Vec<u8>, at: &Position<'_>, py: Python<'_>, bytes: &[u8]) -> PyResult<()> {
    let string = std::str::from_utf8(bytes).map_err(|_| at.error(py, "lookups only support bytes that are UTF-8"))?;
    text(out, string);
    Ok(())
}

/// Appends an instant as seconds since 1970. As in Feast, timestamps in requests are whole seconds.
fn instant(out: &mut Vec<u8>, at: &Position<'_>, item: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = item.py();
    // pandas.NaT, the null of times, is not equal to itself.
    if item.ne(item)? {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    let mut item = item.clone();
    if item.getattr_opt(intern!(py, "tzinfo"))?.is_some_and(|zone| zone.is_none()) {
        let zone = py.import(intern!(py, "datetime"))?.getattr(intern!(py, "timezone"))?.getattr(intern!(py, "utc"))?;
        let arguments = PyDict::new(py);
        arguments.set_item(intern!(py, "tzinfo"), zone)?;
        item = item.call_method(intern!(py, "replace"), (), Some(&arguments))?;
    }
    let seconds: f64 = item.call_method0(intern!(py, "timestamp"))?.extract()?;
    if seconds.fract() != 0.0 {
        return Err(
            at.error(
                py,
                "the time is not a whole second. hint: keys of the type UnixTimestamp are whole seconds; leave out columns that \
                 the features do not use",
            )
        );
    }
    // Writing to a vector cannot fail.
    let _ = write!(out, "{seconds:.0}");
    Ok(())
}

/// Appends an integer of any size.
fn integer(out: &mut Vec<u8>, int: &Bound<'_, PyAny>) -> PyResult<()> {
    match int.extract::<i64>() {
        Ok(small) => out.extend_from_slice(itoa::Buffer::new().format(small).as_bytes()),
        Err(_) => out.extend_from_slice(int.repr()?.to_str()?.as_bytes()),
    }
    Ok(())
}

/// Appends a float. JSON has no NaN and no infinity. As in pandas, NaN is null.
fn number(out: &mut Vec<u8>, float: f64) {
    if float.is_finite() {
        // Writing to a vector cannot fail.
        let _ = serde_json::to_writer(out, &float);
    } else if float.is_nan() {
        out.extend_from_slice(b"null");
    } else {
        text(out, if float > 0.0 { "Infinity" } else { "-Infinity" });
    }
}

fn text(out: &mut Vec<u8>, string: &str) {
    // Writing to a vector cannot fail.
    let _ = serde_json::to_writer(out, string);
}

// === impl Position ===

impl Position<'_> {
    fn error(&self, py: Python<'_>, reason: &str) -> PyErr {
        ErrorClass::Request.error(py, format!("entities: '{}', row {}: {reason}", self.column, self.row))
    }
}
