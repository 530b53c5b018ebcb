//! A job: builds one training set.

use std::{num::NonZeroUsize, sync::Arc, thread};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use larder_columns::{feature_array, instants};
use larder_model::{
    model::{DerivedView, FeatureView, Micros},
    registry::Catalog,
};
use larder_plugin_host::Component;
use larder_serving::{ColumnFrom, HistoricalPlan, Selection, Transforms, TtlPolicy};
use larder_source::{FileVersion, Source, Wanted};

use super::{TrainingError, kernel::Visibility, python_objects::check_values, times::times};

/// The requested features, and the rules of the join.
#[derive(Clone, Debug)]
pub struct TrainingRequest<'a> {
    /// The requested features.
    pub selection: Selection<'a>,
    /// Whether feature columns are named `view__feature`.
    pub full_feature_names: bool,
    /// The name of the entity rows' time column.
    pub time_column: &'a str,
    /// When a feature row becomes visible.
    pub visibility: Visibility,
    /// How to treat values that are older than their view's `ttl` at the time of the entity row. With
    /// [`TtlPolicy::Mark`], a column `NAME__status` follows each feature.
    pub ttl: TtlPolicy,
    /// Whether a column `NAME__event_timestamp` follows each stored feature.
    pub event_timestamps: bool,
    /// Whether an entity row without a time or a key is an error.
    pub strict: bool,
}

/// The resources that a job uses.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum memory in bytes for entity rows, their keys, and their feature rows. Entity rows that do not fit are
    /// joined in several parts. The memory for decoding files and encoding the output is additional.
    pub memory: u64,
    /// The number of threads, at most [`THREADS_MAX`].
    pub threads: NonZeroUsize,
}

/// Opens the files of a view. The function chooses columns and row groups. Returns `None` if the view has no files.
pub type OpenSource<'a> = dyn Fn(&FeatureView, &dyn Fn(Wanted) -> Wanted) -> Option<Box<dyn Source>> + Sync + 'a;

/// Builds one training set.
pub struct TrainingJob<'a> {
    pub(super) request: &'a TrainingRequest<'a>,
    pub(super) limits: Limits,
    open: Box<OpenSource<'a>>,
    pub(super) historical: HistoricalPlan,
    /// The columns of the entity rows.
    pub(super) entities: SchemaRef,
    /// The columns of the output.
    schema: SchemaRef,
}

/// The maximum number of threads of a job.
pub const THREADS_MAX: usize = 1_024;
/// The minimum of [`Limits::memory`] that callers accept: enough for some thousand rows.
pub const MEMORY_MIN: u64 = 16 << 20;
/// The default of [`Limits::memory`]: 2 GiB.
const MEMORY: u64 = 2 << 30;

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self { memory: MEMORY, threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN) }
    }
}

// === impl TrainingRequest ===

impl TrainingRequest<'_> {
    /// Checks that the names of the entity rows' columns are unique, and that they have the time column.
    ///
    /// # Errors
    /// [`TrainingError::Duplicate`], [`TrainingError::NoTimeColumn`], [`TrainingError::NotTimes`] and
    /// [`TrainingError::PythonObjects`].
    pub fn check_entities(&self, entities: &SchemaRef) -> Result<(), TrainingError> {
        let names: Vec<&str> = entities.fields().iter().map(|field| field.name().as_str()).collect();
        if let Some(name) = names.iter().enumerate().find_map(|(at, name)| names[..at].contains(name).then_some(name)) {
            return Err(TrainingError::Duplicate((*name).to_owned()));
        }
        let times_at = names.iter().position(|name| *name == self.time_column);
        check_values(entities, times_at)?;
        times(&RecordBatch::new_empty(Arc::clone(entities)), self.time_column, 0).map(|_| ())
    }
}

// === impl TrainingJob ===

impl<'a> TrainingJob<'a> {
    /// Resolves the requested features for entity rows with these columns. Reads no files.
    ///
    /// # Errors
    /// [`TrainingError`].
    pub fn new(
        catalog: &Catalog,
        transforms: &Transforms,
        open: Box<OpenSource<'a>>,
        request: &'a TrainingRequest<'a>,
        limits: Limits,
        entities: SchemaRef,
    ) -> Result<Self, TrainingError> {
        request.check_entities(&entities)?;
        let names: Vec<&str> = entities.fields().iter().map(|field| field.name().as_str()).collect();
        let (selection, full) = (&request.selection, request.full_feature_names);
        let historical = HistoricalPlan::new(catalog, transforms, selection, full, &names)?;
        for view in &historical.views {
            match view.files() {
                None => return Err(TrainingError::NoFiles(view.name.to_string())),
                Some(files) if files.timestamp_field.is_none() => {
                    return Err(TrainingError::NoEventTimes(view.name.to_string()));
                }
                Some(_) => {}
            }
        }
        Self::of_plan(historical, open, request, limits, entities)
    }

    /// Creates a job from a plan.
    pub(super) fn of_plan(
        historical: HistoricalPlan,
        open: Box<OpenSource<'a>>,
        request: &'a TrainingRequest<'a>,
        limits: Limits,
        entities: SchemaRef,
    ) -> Result<Self, TrainingError> {
        if let Some(step) = historical.plan.steps.iter().find(|step| step.transform.is_none()) {
            let (view, plugin) = (step.view.name.to_string(), step.view.plugin.to_string());
            return Err(TrainingError::NoPlugin { view, plugin });
        }
        check_values(&entities, historical.columns.iter().copied())?;
        let schema = output_schema(&historical, request, &entities)?;
        let threads = limits.threads.min(NonZeroUsize::new(THREADS_MAX).unwrap_or(NonZeroUsize::MIN));
        let limits = Limits { threads, ..limits };
        Ok(Self { request, limits, open, historical, entities, schema })
    }

    /// Returns the columns of the output: the columns of the entity rows, followed by the features.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Returns the names of the views that the job reads. A view with several projections in a service is read once for each
    /// projection.
    pub fn views(&self) -> impl ExactSizeIterator<Item = &str> {
        self.historical.views.iter().map(|view| &*view.name)
    }

    /// Returns the derived views that the job computes, with their plugins.
    pub fn derived_views(&self) -> impl Iterator<Item = (&DerivedView, &Component)> {
        let steps = self.historical.plan.steps.iter();
        steps.filter_map(|step| Some((&*step.view, &**step.transform.as_ref()?.component())))
    }

    /// Returns the versions of the files of each view, in the order of [`TrainingJob::views`]. They come from the listings of
    /// the sources, so they change if files are replaced.
    ///
    /// # Errors
    /// [`TrainingError::Source`].
    pub fn versions(&self) -> Result<Vec<Vec<FileVersion>>, TrainingError> {
        let versions = |view: &FeatureView| {
            let source = self.source(view, &|wanted| wanted)?;
            source.versions().map_err(|source| TrainingError::Source { view: view.name.to_string(), source })
        };
        self.historical.views.iter().map(versions).collect()
    }

    /// Opens the files of a view.
    pub(super) fn source(
        &self,
        view: &FeatureView,
        choose: &dyn Fn(Wanted) -> Wanted,
    ) -> Result<Box<dyn Source>, TrainingError> {
        (self.open)(view, choose).ok_or_else(|| TrainingError::NoFiles(view.name.to_string()))
    }

    /// Returns the earliest event time that a row of a read can have without being expired for all entity rows, whose
    /// earliest time is `first`; `None` if expired rows are needed, too.
    pub(super) fn event_time_min(&self, read: usize, first: Micros) -> Option<Micros> {
        let ttl = self.historical.plan.reads[read].ttl?;
        (self.request.ttl == TtlPolicy::Null).then(|| first.saturating_sub(ttl))
    }
}

impl std::fmt::Debug for TrainingJob<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainingJob")
            .field("request", &self.request)
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// Returns the columns of the output.
fn output_schema(
    historical: &HistoricalPlan,
    request: &TrainingRequest<'_>,
    entities: &Schema,
) -> Result<SchemaRef, TrainingError> {
    let mut fields = entities.fields().to_vec();
    let mut add = |name: String, of: DataType| {
        if fields.iter().any(|field| *field.name() == name) {
            return Err(TrainingError::Collision(name));
        }
        fields.push(Arc::new(Field::new(name, of, true)));
        Ok(())
    };
    for column in &historical.plan.feature_columns {
        let values = feature_array(&column.name, column.value_type, std::iter::empty())?;
        add(column.name.clone(), values.data_type().clone())?;
        if request.ttl == TtlPolicy::Mark {
            add(format!("{}__status", column.name), DataType::Utf8)?;
        }
        if request.event_timestamps && matches!(column.from, ColumnFrom::Read { .. }) {
            add(format!("{}__event_timestamp", column.name), instants(std::iter::empty()).data_type().clone())?;
        }
    }
    Ok(Arc::new(Schema::new_with_metadata(fields, entities.metadata().clone())))
}
