//! The request of a training set, from its form in Python.

use std::sync::Arc;

use larder::offline::{KnownAt, Project, SetRequest, Ttl};
use pyo3::{Bound, FromPyObject, PyAny, PyResult, Python};

use crate::{
    options::{limits, named},
    training_spec::TrainingSpec,
};

/// The attributes of `larder._set_request.SetRequest`.
#[derive(Debug, FromPyObject)]
pub(crate) struct PySetRequest<'py> {
    /// Whether to compute only derived features, for a frame that already has the stored features.
    pub(crate) is_derived: bool,
    service: Option<String>,
    features: Vec<String>,
    full_feature_names: bool,
    timestamp_column: String,
    known_at: String,
    ttl: String,
    event_timestamps: bool,
    strict: bool,
    memory: Option<Bound<'py, PyAny>>,
    threads: Option<Bound<'py, PyAny>>,
}

// === impl PySetRequest ===

impl PySetRequest<'_> {
    /// Checks the request.
    pub(crate) fn spec(self, py: Python<'_>, project: &Arc<Project>) -> PyResult<TrainingSpec> {
        let known_at_names = [("event", KnownAt::Event), ("created", KnownAt::Created)];
        let ttl_names = [("null", Ttl::Null), ("mark", Ttl::Mark), ("ignore", Ttl::Ignore)];
        Ok(TrainingSpec {
            project: Arc::clone(project),
            request: SetRequest {
                service: self.service,
                features: self.features,
                time_column: self.timestamp_column,
                known_at: named(py, "known_at", &self.known_at, &known_at_names)?,
                ttl: named(py, "ttl", &self.ttl, &ttl_names)?,
                full_feature_names: self.full_feature_names,
                event_timestamps: self.event_timestamps,
                strict: self.strict,
            },
            limits: limits(py, self.memory.as_ref(), self.threads.as_ref())?,
        })
    }
}
