//! The definition of a training set, and its run.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use larder::offline::{Inputs, Location, OfflineError, Project, SetRequest};
use larder_training::{Limits, Progress};

use crate::{
    entities::EntityRows,
    training_stream::{Emit, Finished, Run},
};

/// The definition of a training set, without the entity rows.
#[derive(Debug)]
pub(crate) struct TrainingSpec {
    pub(crate) project: Arc<Project>,
    pub(crate) request: SetRequest,
    pub(crate) limits: Limits,
}

/// A run that joins entity rows with features.
#[derive(Debug)]
pub(crate) struct SetRun {
    pub(crate) spec: TrainingSpec,
    pub(crate) entities: EntityRows,
}

// === impl TrainingSpec ===

impl TrainingSpec {
    /// Returns the columns of the training set for entity rows with these columns.
    pub(crate) fn schema(&self, entities: SchemaRef) -> Result<SchemaRef, OfflineError> {
        let request = self.request.to_training();
        Ok(self.project.job(&request, self.limits, entities)?.schema())
    }
}

// === impl SetRun ===

impl Run for SetRun {
    fn check_output(&self, at: &Location) -> Result<(), OfflineError> {
        let Self { spec, entities } = self;
        let request = spec.request.to_training();
        let job = spec.project.job(&request, spec.limits, entities.schema())?;
        spec.project.check_output(at, job.views(), entities.files())
    }

    /// Fails if an input changes during the run, because the manifest must describe the inputs that were read.
    fn run(self: Box<Self>, progress: &Progress, emit: &mut Emit<'_>) -> Result<Finished, OfflineError> {
        let Self { spec: TrainingSpec { project, request: set, limits }, mut entities } = *self;
        let request = set.to_training();
        let job = project.job(&request, limits, entities.schema())?;
        let describe = |entities: &EntityRows| {
            Inputs::of(&project.definitions().catalog, &job, set.service.as_deref(), entities.describe()?)
        };
        let inputs = describe(&entities)?;
        let report = entities.read(|rows| job.run(rows, progress, emit))?;
        let differences = inputs.differences(&describe(&entities)?);
        if !differences.is_empty() {
            return Err(OfflineError::InputsChanged { differences });
        }
        Ok(Finished { report, origin: Some((set.clone(), inputs)) })
    }
}
