//! Converts reports of jobs to dictionaries.

use larder_training::{Report, ViewReport};
use pyo3::{
    Bound, PyResult, Python,
    types::{PyDict, PyDictMethods, PyList, PyListMethods},
};

/// Converts a report. Durations are in seconds.
pub(crate) fn report_dict<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("rows", report.rows)?;
    dict.set_item("rows_without_time", report.rows_without_time)?;
    dict.set_item("parts", report.parts)?;
    let views = PyList::empty(py);
    for view in &report.views {
        views.append(view_dict(py, view)?)?;
    }
    dict.set_item("views", views)?;
    let derived = PyList::empty(py);
    for view in &report.derived {
        let entry = PyDict::new(py);
        entry.set_item("view", &view.view)?;
        entry.set_item("failed", view.failed)?;
        derived.append(entry)?;
    }
    dict.set_item("derived_views", derived)?;
    Ok(dict)
}

fn view_dict<'py>(py: Python<'py>, view: &ViewReport) -> PyResult<Bound<'py, PyDict>> {
    let entry = PyDict::new(py);
    entry.set_item("view", &view.view)?;
    entry.set_item("ttl_seconds", view.ttl.map(|ttl| ttl.as_secs_f64()))?;
    for (name, count) in [
        ("feature_rows", view.feature_rows),
        ("skipped", view.skipped),
        ("row_groups_skipped", view.row_groups_skipped),
        ("matched", view.matched),
        ("expired", view.expired),
        ("not_found", view.not_found),
        ("no_key", view.no_key),
        ("late", view.late),
        ("same_time", view.same_time),
    ] {
        entry.set_item(name, count)?;
    }
    Ok(entry)
}
