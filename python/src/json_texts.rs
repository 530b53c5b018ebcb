//! The texts of values in a JSON response: UUIDs, decimals, JSON documents and nested values. Arrow responses have the same
//! texts. The text of a Python object may differ, for example in the number of digits.

use pyo3::{Bound, PyAny, PyResult, Python, pyfunction, types::PyString};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{decode::decode_any, errors::ErrorClass};

#[derive(Deserialize)]
struct Response<'b> {
    #[serde(borrow)]
    results: Vec<Column<'b>>,
}

#[derive(Deserialize)]
struct Column<'b> {
    #[serde(borrow)]
    values: Vec<&'b RawValue>,
}

/// Returns the texts of columns of a response. A column is its index, and whether its values are nested. The text of a nested value
/// is its JSON. Other values are texts, or lists of texts.
#[pyfunction]
pub(crate) fn json_texts<'py>(
    py: Python<'py>,
    body: &[u8],
    columns: Vec<(usize, bool)>,
) -> PyResult<Vec<Vec<Bound<'py, PyAny>>>> {
    let response: Response<'_> = serde_json::from_slice(body)
        .map_err(|error| ErrorClass::Response.error(py, format!("the response is not valid JSON: {error}")))?;
    let texts = |(index, is_nested): (usize, bool)| {
        let values = response.results.get(index).map_or(&[][..], |column| &column.values);
        let text = |value: &&RawValue| match value.get() {
            json if is_nested && json != "null" => Ok(PyString::new(py, json).into_any()),
            json => decode_any(py, json.as_bytes()),
        };
        values.iter().map(text).collect()
    };
    columns.into_iter().map(texts).collect()
}
