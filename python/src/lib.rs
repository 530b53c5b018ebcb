//! Larder's Python module `larder._native`. The package in `python/larder` is its only user.
//!
//! The module converts between Python's objects and the types of Larder's crates. Code that needs no Rust, such as the
//! names and the arguments of the package, is in Python.

mod arrow_table;
mod capsule;
mod decode;
mod definitions;
mod encode;
mod entities;
mod errors;
mod interrupt;
mod json_texts;
mod numpy;
mod offline;
mod online;
mod options;
mod report;
mod set_request;
mod training_plan;
mod training_spec;
mod training_stream;

use pyo3::{
    Bound, PyResult, pymodule,
    types::{PyModule, PyModuleMethods},
    wrap_pyfunction,
};

/// Initializes the module.
#[pymodule(gil_used = true)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<offline::OfflineProject>()?;
    module.add_class::<offline::TrainingSet>()?;
    module.add_class::<training_plan::TrainingPlan>()?;
    module.add_class::<online::OnlineClient>()?;
    module.add_function(wrap_pyfunction!(offline::compile_plugin, module)?)?;
    module.add_function(wrap_pyfunction!(json_texts::json_texts, module)?)?;
    module.add_class::<arrow_table::ArrowTable>()
}
