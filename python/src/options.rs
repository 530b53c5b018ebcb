//! The options of training sets and backfills, from their forms in Python.

use std::num::NonZeroUsize;

use larder_model::yaml::parse_bytes;
use larder_training::{Limits, MEMORY_MIN, THREADS_MAX};
use pyo3::{Bound, PyAny, PyResult, Python, types::PyAnyMethods};

use crate::errors::ErrorClass;

/// Returns the limits of a job. `memory` is a number of bytes, or text such as `2GiB`.
pub(crate) fn limits(
    py: Python<'_>,
    memory: Option<&Bound<'_, PyAny>>,
    threads: Option<&Bound<'_, PyAny>>,
) -> PyResult<Limits> {
    let defaults = Limits::default();
    Ok(Limits {
        memory: memory.map_or(Ok(defaults.memory), |memory| parse_memory(py, memory))?,
        threads: threads.map_or(Ok(defaults.threads), |threads| parse_threads(py, threads))?,
    })
}

fn parse_memory(py: Python<'_>, memory: &Bound<'_, PyAny>) -> PyResult<u64> {
    let bytes = match memory.extract::<u64>() {
        Ok(bytes) => Some(bytes),
        Err(_) => memory.extract::<String>().ok().and_then(|text| parse_bytes(&text)),
    };
    let invalid = |why: &str| ErrorClass::Request.error(py, format!("memory: {memory}: {why}"));
    let bytes = bytes.ok_or_else(|| invalid("not a size such as '512MiB' or '2GiB'"))?;
    if bytes < MEMORY_MIN { Err(invalid(&format!("must be at least {} MiB", MEMORY_MIN >> 20))) } else { Ok(bytes) }
}

fn parse_threads(py: Python<'_>, threads: &Bound<'_, PyAny>) -> PyResult<NonZeroUsize> {
    let number = threads.extract::<NonZeroUsize>().ok().filter(|number| number.get() <= THREADS_MAX);
    let message = || format!("threads: {threads}: must be a number from 1 to {THREADS_MAX}");
    number.ok_or_else(|| ErrorClass::Request.error(py, message()))
}

/// Returns the value of an option that has names.
pub(crate) fn named<T: Copy>(py: Python<'_>, option: &str, value: &str, names: &[(&str, T)]) -> PyResult<T> {
    names.iter().find(|(name, _)| *name == value).map(|(_, named)| *named).ok_or_else(|| {
        let names: Vec<_> = names.iter().map(|(name, _)| format!("'{name}'")).collect();
        ErrorClass::Request.error(py, format!("{option}: '{value}' is not one of {}", names.join(", ")))
    })
}
