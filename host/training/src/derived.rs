//! Derived features of a frame that already has the stored features.

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
};
use larder_columns::Column;
use larder_model::{
    model::{DerivedView, FeatureView},
    registry::Catalog,
    yaml::nearest,
};
use larder_plugin_host::Component;
use larder_serving::{DerivedInput, DerivedPlan, Transforms};

use super::{
    Limits, Progress, Report, TrainingError, TrainingJob, TrainingRequest, given::GivenRows,
    python_objects::check_values,
};

/// Computes the derived features of a request for the rows of a frame. The frame has a column for each stored feature that the
/// plugins read, with the name that it has in a training set of the same request.
#[derive(Debug)]
pub struct DerivedJob<'a> {
    job: TrainingJob<'a>,
    /// For each view and each of its features, the index of the frame's column, if a plugin reads the feature.
    columns: Vec<Vec<Option<usize>>>,
}

// === impl DerivedJob ===

impl<'a> DerivedJob<'a> {
    /// Resolves the requested derived features for a frame with these columns. Stored features of the request are ignored,
    /// because they are columns of the frame.
    ///
    /// # Errors
    /// [`TrainingError`].
    pub fn new(
        catalog: &Catalog,
        transforms: &Transforms,
        request: &'a TrainingRequest<'a>,
        limits: Limits,
        frame: SchemaRef,
    ) -> Result<Self, TrainingError> {
        request.check_entities(&frame)?;
        let names: Vec<&str> = frame.fields().iter().map(|field| field.name().as_str()).collect();
        let plan = DerivedPlan::new(catalog, transforms, &request.selection, request.full_feature_names, &names)?;
        if plan.historical.plan.feature_columns.is_empty() {
            return Err(TrainingError::NoDerived);
        }
        let columns = columns(&plan.inputs, &plan.historical.views, &frame)?;
        // No files are opened.
        let job = TrainingJob::of_plan(plan.historical, Box::new(|_, _| None), request, limits, frame)?;
        Ok(Self { job, columns })
    }

    /// Returns the columns of the output: the columns of the frame, followed by the derived features.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.job.schema()
    }

    /// Returns the derived views that the job computes, with their plugins.
    pub fn derived_views(&self) -> impl Iterator<Item = (&DerivedView, &Component)> {
        self.job.derived_views()
    }

    /// Computes the derived features, and passes each batch of the output to `emit`, in the order of the rows. The report has no
    /// counts of stored views.
    ///
    /// # Errors
    /// [`TrainingError`], and errors of `emit`.
    pub fn run<E: From<TrainingError>>(
        &self,
        frame: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
        progress: &Progress,
        emit: &mut dyn FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<Report, E> {
        let give = |batch: &RecordBatch, first| GivenRows::of_frame(&self.job, &self.columns, batch, first);
        let report = self.job.answer_given(frame, &give, progress, emit)?;
        Ok(Report { views: Vec::new(), ..report })
    }
}

/// Finds the columns of the features that the plugins read.
fn columns(
    inputs: &[DerivedInput],
    views: &[FeatureView],
    frame: &Schema,
) -> Result<Vec<Vec<Option<usize>>>, TrainingError> {
    let mut columns: Vec<Vec<Option<usize>>> = views.iter().map(|view| vec![None; view.features.len()]).collect();
    for (index, input) in inputs.iter().enumerate() {
        let (view, feature) = (&views[input.read], &views[input.read].features[input.feature]);
        let reference = |input: &DerivedInput| {
            let view = &views[input.read];
            format!("{}:{}", view.name, view.features[input.feature].name)
        };
        // The same feature may be read under several names, but one column cannot be two features.
        let other =
            inputs[..index].iter().find(|other| other.column == input.column && reference(other) != reference(input));
        if let Some(other) = other {
            let features = (reference(other), reference(input));
            return Err(TrainingError::AmbiguousColumn { column: input.column.clone(), features });
        }
        let Ok(column) = frame.index_of(&input.column) else {
            let help = nearest(&input.column, frame.fields().iter().map(|field| field.name().as_str()));
            let hint = help.map_or_else(String::new, |help| format!(" ({help})"));
            let (column, feature) = (input.column.clone(), reference(input));
            return Err(TrainingError::MissingFeature { column, feature, hint });
        };
        check_values(frame, [column])?;
        if let Some(why) = Column::mismatch(frame.field(column).data_type(), feature.value_type) {
            let why = format!("it cannot be feature '{}' of view '{}': {why}", feature.name, view.name);
            return Err(TrainingError::Column { column: input.column.clone(), why });
        }
        columns[input.read][input.feature] = Some(column);
    }
    Ok(columns)
}
