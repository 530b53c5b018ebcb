//! A request that is resolved for rows with known columns: the steps of a training set that Spark or Ray distributes, and the
//! derived features of a frame.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use larder::offline::{Entities, Inputs, Location, OfflineError, Project};
use larder_serving::Transforms;
use larder_training::{
    DerivedJob, INTERNAL_PREFIX, Progress, Report, SharePart, TrainingError, TrainingJob, TrainingRequest,
    feature_row_schema,
};
use pyo3::{Bound, PyAny, PyResult, Python, pyclass, pymethods, types::PyCapsule};

use crate::{
    arrow_table::ArrowTable,
    capsule,
    definitions::offline_error,
    entities::{EntityBatches, EntityRows},
    errors::ErrorClass,
    offline::TrainingSet,
    training_spec::TrainingSpec,
    training_stream::{Emit, Finished, Run},
};

/// A request that is resolved for rows with known columns. Its plugins are compiled once.
#[pyclass(frozen, module = "larder._native")]
pub(crate) struct TrainingPlan {
    resolved: Arc<Resolved>,
    schema: SchemaRef,
}

/// The parts of a plan that its jobs use.
struct Resolved {
    spec: TrainingSpec,
    transforms: Transforms,
    /// The columns of the rows, without those that a distributed join adds.
    columns: SchemaRef,
    is_derived: bool,
}

/// A step of a plan, which does not read inputs other than feature files and the given rows.
struct StepRun<F> {
    project: Arc<Project>,
    rows: Option<EntityRows>,
    step: F,
}

// === impl StepRun ===

impl<F> Run for StepRun<F>
where
    F: FnOnce(&mut EntityBatches<'_>, &Progress, &mut Emit<'_>) -> Result<Report, OfflineError> + Send,
{
    fn check_output(&self, at: &Location) -> Result<(), OfflineError> {
        let files = self.rows.as_ref().and_then(EntityRows::files);
        self.project.check_output(at, std::iter::empty(), files)
    }

    fn run(self: Box<Self>, progress: &Progress, emit: &mut Emit<'_>) -> Result<Finished, OfflineError> {
        let Self { rows, step, .. } = *self;
        let report = match rows {
            Some(mut rows) => rows.read(|rows| step(rows, progress, emit))?,
            None => step(&mut std::iter::empty(), progress, emit)?,
        };
        Ok(Finished { report, origin: None })
    }
}

// === impl Resolved ===

impl Resolved {
    /// Calls a function with the job of the plan.
    fn with_job<T>(&self, run: impl FnOnce(&TrainingJob<'_>) -> Result<T, OfflineError>) -> Result<T, OfflineError> {
        let request = self.spec.request.to_training();
        let job =
            self.spec.project.job_with(&self.transforms, &request, self.spec.limits, Arc::clone(&self.columns))?;
        run(&job)
    }

    /// Calls a function with the job that computes derived features.
    fn with_derived<T>(&self, run: impl FnOnce(&DerivedJob<'_>) -> Result<T, OfflineError>) -> Result<T, OfflineError> {
        let (request, frame) = (self.spec.request.to_training(), Arc::clone(&self.columns));
        run(&self.spec.project.derived_job(&self.transforms, &request, self.spec.limits, frame)?)
    }

    /// Describes the inputs, except for the rows.
    fn inputs(&self) -> Result<Inputs, OfflineError> {
        let catalog = &self.spec.project.definitions().catalog;
        let service = self.spec.request.service.as_deref();
        if self.is_derived {
            return self.with_derived(|job| Ok(Inputs::of_derived(catalog, job, service)));
        }
        let entities = Entities { path: None, files: BTreeMap::new() };
        self.with_job(|job| Inputs::of(catalog, job, service, entities))
    }
}

// === impl TrainingPlan ===

impl TrainingPlan {
    /// Resolves a request.
    pub(crate) fn new(py: Python<'_>, spec: TrainingSpec, columns: &SchemaRef, is_derived: bool) -> PyResult<Self> {
        let planned = py.detach(|| {
            let columns = if is_derived { Arc::clone(columns) } else { without_internal(columns) };
            let request: TrainingRequest<'_> = spec.request.to_training();
            let transforms = if is_derived {
                spec.project.transforms_of_derived(&request, &columns)?
            } else {
                spec.project.transforms(&request, &columns)?
            };
            let resolved = Resolved { spec, transforms, columns, is_derived };
            let schema = if is_derived {
                resolved.with_derived(|job| Ok(job.schema()))?
            } else {
                resolved.with_job(|job| Ok(job.schema()))?
            };
            Ok(Self { resolved: Arc::new(resolved), schema })
        });
        planned.map_err(|error| offline_error(py, &error))
    }

    /// Prepares the set of these rows.
    pub(crate) fn start(&self, rows: EntityRows) -> TrainingSet {
        let resolved = Arc::clone(&self.resolved);
        self.set(Arc::clone(&self.schema), Some(rows), move |rows, progress, emit| {
            if resolved.is_derived {
                return resolved.with_derived(|job| job.run(rows, progress, emit));
            }
            resolved.with_job(|job| job.run(rows, progress, emit))
        })
    }

    fn set<F>(&self, schema: SchemaRef, rows: Option<EntityRows>, step: F) -> TrainingSet
    where
        F: FnOnce(&mut EntityBatches<'_>, &Progress, &mut Emit<'_>) -> Result<Report, OfflineError> + Send + 'static,
    {
        let columns = rows.as_ref().map_or(0, |rows| rows.schema().fields().len());
        let run = StepRun { project: Arc::clone(self.project()), rows, step };
        TrainingSet::new(Arc::clone(self.project()), columns, schema, Box::new(run))
    }

    fn project(&self) -> &Arc<Project> {
        &self.resolved.spec.project
    }

    /// Calls a function with the job of the plan, without holding the interpreter.
    fn with_job<T: Send>(
        &self,
        py: Python<'_>,
        run: impl FnOnce(&TrainingJob<'_>) -> Result<T, OfflineError> + Send,
    ) -> PyResult<T> {
        py.detach(|| self.resolved.with_job(run)).map_err(|error| offline_error(py, &error))
    }
}

#[pymethods]
impl TrainingPlan {
    /// Returns the inputs as JSON: the digests of the definitions and plugins, and the versions of the feature files.
    fn inputs(&self, py: Python<'_>) -> PyResult<String> {
        let inputs = py.detach(|| self.resolved.inputs()).map_err(|error| offline_error(py, &error))?;
        serde_json::to_string(&inputs).map_err(|error| ErrorClass::Training.error(py, error.to_string()))
    }

    /// Compares the inputs with those of another plan. Returns a description of each difference.
    fn differences(&self, py: Python<'_>, inputs: &str) -> PyResult<Vec<String>> {
        let expected: Inputs =
            serde_json::from_str(inputs).map_err(|error| ErrorClass::Training.error(py, error.to_string()))?;
        let now = py.detach(|| self.resolved.inputs()).map_err(|error| offline_error(py, &error))?;
        Ok(expected.differences(&now))
    }

    /// Joins entity rows with all feature rows, or computes the derived features of a frame.
    fn run(&self, rows: &Bound<'_, PyAny>) -> PyResult<TrainingSet> {
        Ok(self.start(EntityRows::open(self.project(), rows)?))
    }

    /// Returns the reads of each distinct key of the request.
    fn keys(&self, py: Python<'_>) -> PyResult<Vec<Vec<usize>>> {
        self.with_job(py, |job| Ok(job.keys().map(<[usize]>::to_vec).collect()))
    }

    /// Adds the numbers of buckets to entity rows.
    fn with_buckets(
        &self,
        py: Python<'_>,
        key: usize,
        buckets: NonZeroU32,
        entities: &Bound<'_, PyAny>,
    ) -> PyResult<TrainingSet> {
        let entities = EntityRows::open(self.project(), entities)?;
        let columns = entities.schema();
        let schema = self.with_job(py, |job| Ok(job.schema_with_buckets(&columns)))?;
        let resolved = Arc::clone(&self.resolved);
        Ok(self.set(schema, Some(entities), move |entities, progress, emit| {
            resolved.with_job(|job| job.with_buckets(key, buckets, entities, progress, emit))?;
            Ok(Report::default())
        }))
    }

    /// Reads some of the feature rows of a read.
    fn feature_rows(&self, read: usize, part: usize, parts: usize, buckets: NonZeroU32) -> TrainingSet {
        let resolved = Arc::clone(&self.resolved);
        self.set(feature_row_schema(), None, move |_, progress, emit| {
            resolved.with_job(|job| job.feature_rows(read, SharePart { part, parts }, buckets, progress, emit))?;
            Ok(Report::default())
        })
    }

    /// Joins the entity rows of a bucket with its feature rows.
    fn find(
        &self,
        py: Python<'_>,
        key: usize,
        entities: &Bound<'_, PyAny>,
        features: &Bound<'_, PyAny>,
    ) -> PyResult<ArrowTable> {
        let (columns, entities) = read_all(py, self.project(), entities)?;
        let (_, features) = read_all(py, self.project(), features)?;
        self.with_job(py, |job| {
            Ok(ArrowTable::new(job.schema_with_rows(key, &columns), job.find(key, &entities, &features)?))
        })
    }

    /// Makes the answers of entity rows whose feature rows were found.
    fn answer(&self, found: &Bound<'_, PyAny>) -> PyResult<TrainingSet> {
        let found = EntityRows::open(self.project(), found)?;
        let resolved = Arc::clone(&self.resolved);
        Ok(self.set(Arc::clone(&self.schema), Some(found), move |found, progress, emit| {
            resolved.with_job(|job| job.answer_found(found, progress, emit))
        }))
    }

    /// Returns the columns of entity rows after `with_buckets`, and of feature rows; and those after `find`.
    fn shuffled_schemas(&self, py: Python<'_>, key: usize, entities: &Bound<'_, PyAny>) -> PyResult<[ArrowTable; 3]> {
        let columns = EntityRows::open(self.project(), entities)?.schema();
        self.with_job(py, |job| {
            let schemas =
                [job.schema_with_buckets(&columns), feature_row_schema(), job.schema_with_rows(key, &columns)];
            Ok(schemas.map(|schema| ArrowTable::new(schema, Vec::new())))
        })
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        capsule::export_schema(py, &self.schema)
    }
}

/// Reads all rows of an object with an Arrow stream.
fn read_all(py: Python<'_>, project: &Project, rows: &Bound<'_, PyAny>) -> PyResult<(SchemaRef, Vec<RecordBatch>)> {
    let mut rows = EntityRows::open(project, rows)?;
    let schema = rows.schema();
    let batches = rows.read(|rows| Ok(rows.collect::<Result<_, _>>().map_err(TrainingError::of_entities)?));
    Ok((schema, batches.map_err(|error| offline_error(py, &error))?))
}

/// Returns the columns without those that a distributed join adds.
fn without_internal(columns: &SchemaRef) -> SchemaRef {
    let fields = columns.fields().iter().filter(|field| !field.name().starts_with(INTERNAL_PREFIX));
    Arc::new(Schema::new_with_metadata(fields.cloned().collect::<Vec<_>>(), columns.metadata().clone()))
}
