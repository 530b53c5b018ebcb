//! Training sets and backfills: the definitions of a project, and the jobs that join entity rows with features.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use arrow::datatypes::SchemaRef;
use larder::offline::{
    Backfill, FORMAT, KnownAt, Manifest, OfflineError, OutputFile, Project, SetRequest, TrainingWriter, Ttl,
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
    options::{limits, named},
    report::report_dict,
    training_stream::{Finished, TrainingSpec, TrainingStream},
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
    schema: SchemaRef,
    stream: TrainingStream,
    /// The file that was written.
    output: OnceLock<OutputFile>,
}

/// A file of a backfill: its path, its number of rows, and its report.
type BackfillFile<'py> = (PathBuf, u64, Bound<'py, PyDict>);

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
        threads: Option<Bound<'_, PyAny>>,
    ) -> PyResult<TrainingSet> {
        let known_at_names = [("event", KnownAt::Event), ("created", KnownAt::Created)];
        let ttl_names = [("null", Ttl::Null), ("mark", Ttl::Mark), ("ignore", Ttl::Ignore)];
        let spec = TrainingSpec {
            project: Arc::clone(&self.project),
            request: SetRequest {
                service,
                features,
                time_column: timestamp_column,
                known_at: named(py, "known_at", known_at, &known_at_names)?,
                ttl: named(py, "ttl", ttl, &ttl_names)?,
                full_feature_names,
                event_timestamps,
                strict,
            },
            limits: limits(py, memory.as_ref(), threads.as_ref())?,
        };
        let entities = EntityRows::open(entities)?;
        let columns = entities.schema();
        let schema = py.detach(|| spec.schema(columns)).map_err(|error| offline_error(py, &error))?;
        Ok(TrainingSet { schema, stream: TrainingStream::new(spec, entities), output: OnceLock::new() })
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
            fs::create_dir_all(&out).map_err(|source| OfflineError::Write { path: out.clone(), source })?;
            backfill.run(&out, limits, progress)
        })?;
        let files = files.map_err(|error: OfflineError| offline_error(py, &error))?;
        files.into_iter().map(|file| Ok((file.path, file.rows, report_dict(py, &file.report)?))).collect()
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

    /// Writes all rows to a Parquet file, and the manifest next to it. An interrupted or failed run leaves no file.
    fn write_parquet(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let failed = |error: OfflineError| offline_error(py, &error);
        self.stream.check_output(py, &path)?;
        let mut writer = TrainingWriter::create(&path, Arc::clone(&self.schema)).map_err(failed)?;
        while let Some(batch) = self.stream.next(py)? {
            py.detach(|| writer.write(batch)).map_err(failed)?;
        }
        let Some(finished) = self.stream.finished() else {
            return Err(ErrorClass::Training.error(py, "the run ended before all rows were read".to_owned()));
        };
        let output = py.detach(|| finish(writer, &path, finished)).map_err(failed)?;
        self.output.get_or_init(|| output);
        Ok(())
    }

    /// Returns the report as a dictionary, or None if not all rows were read.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.stream.finished().map(|finished| report_dict(py, &finished.report)).transpose()
    }

    /// Returns the manifest as a dictionary, or None if not all rows were read.
    fn manifest<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(finished) = self.stream.finished() else { return Ok(None) };
        let manifest = serde_json::to_vec(&finished.manifest(self.output.get().cloned()));
        let json = manifest.map_err(|error| ErrorClass::Training.error(py, error.to_string()))?;
        decode_any(py, &json).map(Some)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        capsule::export_schema(py, &self.schema)
    }
}

// === impl Finished ===

impl Finished {
    fn manifest(&self, output: Option<OutputFile>) -> Manifest {
        let Self { request, inputs, report } = self.clone();
        Manifest { format: FORMAT, request, inputs, output, report }
    }
}

/// Completes a training set and writes its manifest. Returns the description of the set's file.
fn finish(writer: TrainingWriter, path: &Path, finished: &Finished) -> Result<OutputFile, OfflineError> {
    let manifest_path = Manifest::path_for(path);
    // If the process ends before the new manifest is written, the set must not have the manifest of an earlier set.
    Manifest::remove(&manifest_path)?;
    // The lock is kept until the manifest is written.
    let _lock = writer.finish()?;
    let output = OutputFile::of(path).map_err(|source| OfflineError::Write { path: path.to_owned(), source })?;
    finished.manifest(Some(output.clone())).write(&manifest_path)?;
    Ok(output)
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
