//! Training sets: the definitions of a project, and the jobs that join entity rows with features.

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef, error::ArrowError};
use larder::offline::{EntityFiles, FILE_BYTES, OfflineError, Output, Project};
use larder_model::yaml::parse_bytes;
use larder_plugin_host::{CompileLimits, compile_here};
use larder_serving::{Selection, TtlPolicy};
use larder_training::{Limits, TrainingRequest, kernel::Visibility};
use pyo3::{
    Bound, Py, PyAny, PyResult, Python, pyclass, pyfunction, pymethods,
    types::{PyAnyMethods, PyCapsule, PyDict},
};

use crate::{
    arrow_table::ArrowTable,
    capsule,
    definitions::{definitions, offline_error, open_project, server_url},
    errors::ErrorClass,
    training_plan::TrainingPlan,
    training_stream::{Run, TrainingStream, report_dict},
};

/// The definitions, files and plugins of a configuration.
#[pyclass(frozen, module = "larder._native")]
#[derive(Debug)]
pub(crate) struct OfflineProject {
    project: Arc<Project>,
}

/// A training set that is built when its rows are read.
#[pyclass(frozen, module = "larder._native")]
#[derive(Debug)]
pub(crate) struct TrainingSet {
    project: Arc<Project>,
    schema: SchemaRef,
    stream: TrainingStream,
}

/// The definition of a training set, without the entity rows.
#[derive(Debug)]
pub(crate) struct TrainingSpec {
    pub(crate) project: Arc<Project>,
    pub(crate) service: Option<String>,
    pub(crate) features: Vec<String>,
    pub(crate) full_feature_names: bool,
    pub(crate) time_column: String,
    pub(crate) visibility: Visibility,
    pub(crate) ttl: TtlPolicy,
    pub(crate) event_timestamps: bool,
    pub(crate) strict: bool,
    pub(crate) limits: Limits,
}

/// The entity rows.
pub(crate) enum Entities {
    Stream(Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>),
    Files(EntityFiles),
}

/// The rows of [`Entities`].
pub(crate) type EntityBatches<'a> = dyn Iterator<Item = Result<RecordBatch, ArrowError>> + 'a;

/// The minimum memory of a job in bytes: enough for some thousand rows.
const MEMORY_MIN: u64 = 16 << 20;

// === impl TrainingSpec ===

impl TrainingSpec {
    pub(crate) fn request(&self) -> TrainingRequest<'_> {
        let features = || self.features.iter().map(|feature| feature.as_str().into()).collect();
        let selection = match &self.service {
            Some(service) => Selection::Service(service.as_str().into()),
            None => Selection::Features(features()),
        };
        TrainingRequest {
            selection,
            full_feature_names: self.full_feature_names,
            time_column: &self.time_column,
            visibility: self.visibility,
            ttl: self.ttl,
            event_timestamps: self.event_timestamps,
            strict: self.strict,
        }
    }
}

/// Opens entity rows: the path or URL of Parquet files, or an object with an Arrow stream.
pub(crate) fn open_entities(project: &Project, entities: &Bound<'_, PyAny>) -> PyResult<(SchemaRef, Entities)> {
    let py = entities.py();
    if let Some(reader) = capsule::import_stream(entities)? {
        use arrow::array::RecordBatchReader as _;
        return Ok((reader.schema(), Entities::Stream(Box::new(reader))));
    }
    let Ok(path) = entities.extract::<PathBuf>() else {
        let kind = entities.get_type().to_string();
        let message = format!(
            "entity_df: {kind} is neither a path nor an object with Arrow data. hint: use a data frame of pandas (with \
             pyarrow), polars or pyarrow, or the path of a Parquet file"
        );
        return Err(ErrorClass::Request.error(py, message));
    };
    let files = py.detach(|| project.entities(&path)).map_err(|error| offline_error(py, &error))?;
    Ok((files.schema(), Entities::Files(files)))
}

/// Parses a number of bytes, or text such as `2GiB`.
fn memory(py: Python<'_>, memory: &Bound<'_, PyAny>) -> PyResult<u64> {
    let bytes = match memory.extract::<u64>() {
        Ok(bytes) => Some(bytes),
        Err(_) => memory.extract::<String>().ok().and_then(|text| parse_bytes(&text)),
    };
    let invalid = |why: &str| ErrorClass::Request.error(py, format!("memory: {memory}: {why}"));
    let bytes = bytes.ok_or_else(|| invalid("not a size such as '512MiB' or '2GiB'"))?;
    if bytes < MEMORY_MIN { Err(invalid(&format!("must be at least {} MiB", MEMORY_MIN >> 20))) } else { Ok(bytes) }
}

/// Returns the value of an option that has names.
fn named<T: Copy>(py: Python<'_>, option: &str, value: &str, names: &[(&str, T)]) -> PyResult<T> {
    names.iter().find(|(name, _)| *name == value).map(|(_, named)| *named).ok_or_else(|| {
        let names: Vec<_> = names.iter().map(|(name, _)| format!("'{name}'")).collect();
        ErrorClass::Request.error(py, format!("{option}: '{value}' is not one of {}", names.join(", ")))
    })
}

#[pymethods]
impl OfflineProject {
    #[new]
    fn new(
        py: Python<'_>,
        config: Option<PathBuf>,
        feast_repo: Option<PathBuf>,
        compiler: PathBuf,
        compiler_args: Vec<String>,
    ) -> PyResult<Self> {
        let project = open_project(py, config, feast_repo, (compiler, compiler_args))?;
        Ok(Self { project: Arc::new(project) })
    }

    /// Returns the definitions, as the dictionary of `GET /v1/catalog`.
    fn definitions(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        definitions(py, &self.project)
    }

    /// Returns the warnings about the definitions.
    fn warnings(&self) -> Vec<String> {
        self.project.definitions().warnings.iter().map(ToString::to_string).collect()
    }

    /// Returns the address of the server that the configuration describes.
    fn server_url(&self) -> String {
        server_url(&self.project)
    }

    /// Prepares a training set.
    #[expect(clippy::too_many_arguments, reason = "each argument is one of the Python method")]
    fn training_set(
        &self,
        py: Python<'_>,
        entities: &Bound<'_, PyAny>,
        service: Option<String>,
        features: Vec<String>,
        full_feature_names: bool,
        timestamp_column: String,
        known_at: &str,
        ttl: &str,
        event_timestamps: bool,
        strict: bool,
        memory: Option<Bound<'_, PyAny>>,
        threads: Option<NonZeroUsize>,
    ) -> PyResult<TrainingSet> {
        let spec = self.spec(
            py,
            service,
            features,
            full_feature_names,
            timestamp_column,
            known_at,
            ttl,
            event_timestamps,
            strict,
            memory,
            threads,
        )?;
        let (columns, entities) = open_entities(&self.project, entities)?;
        let schema = py.detach(|| {
            let request = spec.request();
            Ok::<_, OfflineError>(spec.project.job(&request, spec.limits, Arc::clone(&columns))?.schema())
        });
        let schema = schema.map_err(|error| offline_error(py, &error))?;
        let run: Run = Box::new(move |progress, emit| {
            let request = spec.request();
            let job = spec.project.job(&request, spec.limits, columns)?;
            entities.read(|rows| job.run(rows, progress, emit))
        });
        Ok(TrainingSet::new(Arc::clone(&self.project), schema, run))
    }

    /// Resolves a request for rows with these columns. `columns` is an object with an Arrow stream, whose rows are ignored.
    /// `is_derived` is whether to compute derived features of a frame, which has the stored features.
    #[expect(clippy::too_many_arguments, reason = "each argument is one of the Python method")]
    fn plan(
        &self,
        py: Python<'_>,
        columns: &Bound<'_, PyAny>,
        is_derived: bool,
        service: Option<String>,
        features: Vec<String>,
        full_feature_names: bool,
        timestamp_column: String,
        known_at: &str,
        ttl: &str,
        event_timestamps: bool,
        strict: bool,
        memory: Option<Bound<'_, PyAny>>,
        threads: Option<NonZeroUsize>,
    ) -> PyResult<TrainingPlan> {
        let spec = self.spec(
            py,
            service,
            features,
            full_feature_names,
            timestamp_column,
            known_at,
            ttl,
            event_timestamps,
            strict,
            memory,
            threads,
        )?;
        let (columns, _) = open_entities(&self.project, columns)?;
        TrainingPlan::new(py, spec, &columns, is_derived)
    }

    /// Prepares the derived features of a frame, which has the stored features.
    #[expect(clippy::too_many_arguments, reason = "each argument is one of the Python method")]
    fn derived_set(
        &self,
        py: Python<'_>,
        frame: &Bound<'_, PyAny>,
        service: Option<String>,
        features: Vec<String>,
        full_feature_names: bool,
        timestamp_column: String,
        strict: bool,
    ) -> PyResult<TrainingSet> {
        let spec = TrainingSpec {
            project: Arc::clone(&self.project),
            service,
            features,
            full_feature_names,
            time_column: timestamp_column,
            visibility: Visibility::Event,
            ttl: TtlPolicy::Ignore,
            event_timestamps: false,
            strict,
            limits: Limits::default(),
        };
        let (columns, rows) = open_entities(&self.project, frame)?;
        Ok(TrainingPlan::new(py, spec, &columns, true)?.start(rows))
    }
}

// === impl OfflineProject ===

impl OfflineProject {
    /// Checks the arguments of a request.
    #[expect(clippy::too_many_arguments, reason = "each argument is one of the Python method")]
    fn spec(
        &self,
        py: Python<'_>,
        service: Option<String>,
        features: Vec<String>,
        full_feature_names: bool,
        timestamp_column: String,
        known_at: &str,
        ttl: &str,
        event_timestamps: bool,
        strict: bool,
        memory: Option<Bound<'_, PyAny>>,
        threads: Option<NonZeroUsize>,
    ) -> PyResult<TrainingSpec> {
        let defaults = Limits::default();
        let memory = memory.map_or(Ok(defaults.memory), |memory| self::memory(py, &memory))?;
        let ttl_names = [("null", TtlPolicy::Null), ("mark", TtlPolicy::Mark), ("ignore", TtlPolicy::Ignore)];
        Ok(TrainingSpec {
            project: Arc::clone(&self.project),
            service,
            features,
            full_feature_names,
            time_column: timestamp_column,
            visibility: named(
                py,
                "known_at",
                known_at,
                &[("event", Visibility::Event), ("created", Visibility::Created)],
            )?,
            ttl: named(py, "ttl", ttl, &ttl_names)?,
            event_timestamps,
            strict,
            limits: Limits { memory, threads: threads.unwrap_or(defaults.threads) },
        })
    }
}

// === impl Entities ===

impl Entities {
    /// Passes the rows to a function.
    pub(crate) fn read<T>(
        self,
        run: impl FnOnce(&mut EntityBatches<'_>) -> Result<T, OfflineError>,
    ) -> Result<T, OfflineError> {
        match self {
            Self::Stream(mut rows) => run(&mut rows),
            Self::Files(files) => run(&mut files.read()?),
        }
    }
}

// === impl TrainingSet ===

impl TrainingSet {
    /// Creates a set with these columns.
    pub(crate) fn new(project: Arc<Project>, schema: SchemaRef, run: Run) -> Self {
        Self { project, schema, stream: TrainingStream::new(run) }
    }
}

#[pymethods]
impl TrainingSet {
    /// Returns the next rows, or None after the last row.
    fn next_batch(&self, py: Python<'_>) -> PyResult<Option<ArrowTable>> {
        let batch = self.stream.next(py)?;
        Ok(batch.map(|batch| ArrowTable::new(Arc::clone(&self.schema), vec![batch])))
    }

    /// Returns all remaining rows.
    fn collect(&self, py: Python<'_>) -> PyResult<ArrowTable> {
        let mut batches = Vec::new();
        while let Some(batch) = self.stream.next(py)? {
            batches.push(batch);
        }
        Ok(ArrowTable::new(Arc::clone(&self.schema), batches))
    }

    /// Writes all remaining rows to a Parquet file. An interrupted or failed run leaves no file.
    fn write_parquet(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let failed = |error: OfflineError| offline_error(py, &error);
        let output = Output::parse(&path, FILE_BYTES).map_err(|error| failed(error.into()))?;
        let mut writer = self.project.create_output(&output, Arc::clone(&self.schema)).map_err(failed)?;
        while let Some(batch) = self.stream.next(py)? {
            py.detach(|| writer.write(&batch)).map_err(failed)?;
        }
        py.detach(|| writer.finish().map(drop)).map_err(failed)
    }

    /// Returns the report as a dictionary, or None if not all rows were read.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.stream.report().map(|report| report_dict(py, &report)).transpose()
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        capsule::export_schema(py, &self.schema)
    }
}

/// Compiles the plugin at standard input. Only the process that loads the plugin starts this.
#[pyfunction]
pub(crate) fn compile_plugin(
    parent: u32,
    cpu_seconds: u64,
    memory_bytes: u64,
    threads: usize,
    keep_functions: bool,
) -> u8 {
    let limits = CompileLimits { time: std::time::Duration::from_secs(cpu_seconds), memory_bytes };
    compile_here(parent, limits, threads, keep_functions)
}
