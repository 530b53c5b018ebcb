//! Training sets and backfills: the definitions of a project, and the jobs that join entity rows with features.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use arrow::datatypes::SchemaRef;
use larder::offline::{
    Backfill, FILE_BYTES, FORMAT, Location, Manifest, OfflineError, Output, Project, TrainingWriter, Written,
    WrittenFiles,
};
use larder_plugin_host::{CompileLimits, compile_here};
use pyo3::{
    Bound, Py, PyAny, PyResult, Python, pyclass, pyfunction, pymethods,
    types::{PyCapsule, PyDict},
};

use crate::{
    arrow_table::ArrowTable,
    capsule,
    decode::decode_any,
    definitions::{definitions, offline_error, open_project, server_url},
    entities::EntityRows,
    errors::ErrorClass,
    interrupt::run_interruptible,
    options::limits,
    report::report_dict,
    set_request::PySetRequest,
    training_plan::TrainingPlan,
    training_spec::SetRun,
    training_stream::{Finished, Run, TrainingStream},
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
    entity_columns: usize,
    schema: SchemaRef,
    project: Arc<Project>,
    stream: TrainingStream,
    /// The files that were written.
    output: OnceLock<WrittenFiles>,
}

/// A file of a backfill: its path or URL, its number of rows, and its report.
type BackfillFile<'py> = (String, u64, Bound<'py, PyDict>);

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

    /// Prepares a training set, or the derived features of a frame.
    fn training_set(
        &self,
        py: Python<'_>,
        entities: &Bound<'_, PyAny>,
        request: PySetRequest<'_>,
    ) -> PyResult<TrainingSet> {
        let is_derived = request.is_derived;
        let spec = request.spec(py, &self.project)?;
        let entities = EntityRows::open(&self.project, entities)?;
        let columns = entities.schema();
        if is_derived {
            return Ok(TrainingPlan::new(py, spec, &columns, true)?.start(entities));
        }
        let entity_columns = columns.fields().len();
        let schema = py.detach(|| spec.schema(columns)).map_err(|error| offline_error(py, &error))?;
        let run = Box::new(SetRun { spec, entities });
        Ok(TrainingSet::new(Arc::clone(&self.project), entity_columns, schema, run))
    }

    /// Resolves a request for rows with these columns. `columns` is an object with an Arrow stream, whose rows are ignored.
    fn plan(&self, py: Python<'_>, columns: &Bound<'_, PyAny>, request: PySetRequest<'_>) -> PyResult<TrainingPlan> {
        let is_derived = request.is_derived;
        let spec = request.spec(py, &self.project)?;
        TrainingPlan::new(py, spec, &EntityRows::open(&self.project, columns)?.schema(), is_derived)
    }

    /// Computes derived features at times from `start` to before `end`, in microseconds. Writes files to the directory `out`,
    /// which is created if it does not exist.
    #[expect(clippy::too_many_arguments, reason = "each argument is one of the Python method")]
    fn backfill<'py>(
        &self,
        py: Python<'py>,
        view: String,
        start: i64,
        end: i64,
        out: PathBuf,
        memory: Option<Bound<'_, PyAny>>,
        threads: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Vec<BackfillFile<'py>>> {
        let limits = limits(py, memory.as_ref(), threads.as_ref())?;
        let project = Arc::clone(&self.project);
        let files = run_interruptible(py, move |progress| {
            let backfill = Backfill::new(&project, &view, start..end)?;
            backfill.run(&Location::parse_dir(&out)?, limits, progress)
        })?;
        let files = files.map_err(|error: OfflineError| offline_error(py, &error))?;
        files.into_iter().map(|file| Ok((file.at.to_string(), file.rows, report_dict(py, &file.report)?))).collect()
    }
}

#[pymethods]
impl TrainingSet {
    /// The number of columns of the entity rows. The other columns follow them.
    #[getter]
    fn entity_columns(&self) -> usize {
        self.entity_columns
    }

    /// The names of all columns.
    #[getter]
    fn column_names(&self) -> Vec<&str> {
        self.schema.fields().iter().map(|field| field.name().as_str()).collect()
    }

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

    /// Writes all rows to a Parquet file, and the manifest next to it. An interrupted or failed run leaves no file.
    fn write_parquet(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let failed = |error: OfflineError| offline_error(py, &error);
        let output = Output::parse(&path, FILE_BYTES).map_err(|error| failed(error.into()))?;
        self.stream.check_output(py, output.at())?;
        let writer = py.detach(|| self.project.create_output(&output, Arc::clone(&self.schema)));
        let mut writer = writer.map_err(failed)?;
        while let Some(batch) = self.stream.next(py)? {
            py.detach(|| writer.write(&batch)).map_err(failed)?;
        }
        let Some(finished) = self.stream.finished() else {
            return Err(ErrorClass::Training.error(py, "the run ended before all rows were read".to_owned()));
        };
        let output = py.detach(|| self.finish(writer, output.at(), finished)).map_err(failed)?;
        self.output.get_or_init(|| output);
        Ok(())
    }

    /// Returns the report as a dictionary, or None if not all rows were read.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.stream.finished().map(|finished| report_dict(py, &finished.report)).transpose()
    }

    /// Returns the manifest as a dictionary, or None if the set has none, or if not all rows were read.
    fn manifest<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let output = self.output.get().cloned();
        let Some(manifest) = self.stream.finished().and_then(|finished| finished.manifest(output)) else {
            return Ok(None);
        };
        let manifest = serde_json::to_vec(&manifest);
        let json = manifest.map_err(|error| ErrorClass::Training.error(py, error.to_string()))?;
        decode_any(py, &json).map(Some)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        capsule::export_schema(py, &self.schema)
    }
}

// === impl TrainingSet ===

impl TrainingSet {
    /// Creates a set with the columns of `schema`, of which the first `entity_columns` are those of the entity rows.
    pub(crate) fn new(project: Arc<Project>, entity_columns: usize, schema: SchemaRef, run: Box<dyn Run>) -> Self {
        Self { entity_columns, project, schema, stream: TrainingStream::new(run), output: OnceLock::new() }
    }

    /// Completes a training set and writes its manifest. Returns the description of the set's files.
    fn finish(&self, writer: TrainingWriter, at: &Location, finished: &Finished) -> Result<WrittenFiles, OfflineError> {
        let manifest_at = Manifest::location_for(at);
        // If the process ends before the new manifest is written, the set must not have the manifest of an earlier set.
        Manifest::invalidate(&manifest_at, &self.project.config().aws)?;
        // The lock is kept until the manifest is written.
        let Written { files, lock: _lock } = writer.finish()?;
        if let Some(manifest) = finished.manifest(Some(files.clone())) {
            manifest.write(&manifest_at, &self.project.config().aws)?;
        }
        Ok(files)
    }
}

// === impl Finished ===

impl Finished {
    /// Returns the manifest, unless the set cannot be built again from it.
    fn manifest(&self, output: Option<WrittenFiles>) -> Option<Manifest> {
        let (request, inputs) = self.origin.clone()?;
        Some(Manifest { format: FORMAT, request, inputs, output, report: self.report.clone() })
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
