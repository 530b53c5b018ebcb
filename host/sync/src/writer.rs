//! Implements the writes and materializations that callers request.

use larder_ingest::{Frame, MaterializeError, Progress, RowWriter, WriteError};
use larder_model::model::Window;
use larder_store::Applied;

use super::{SyncEngine, SyncError, engine::Job, write::encode};

/// The reason why a view from Larder's own definitions cannot be materialized.
const NO_FILES: &str = "it has no files: neither its 'source' nor a 'batch_source' names any";

impl RowWriter for SyncEngine {
    fn write(&self, view: &str, frame: &Frame) -> Result<Applied, WriteError> {
        let job = self.jobs.iter().find(|job| &*job.view.name == view);
        let job = job.ok_or_else(|| WriteError::UnknownView { view: view.to_owned() })?;
        let batch = encode(frame, &job.view, self.key_version, self.time_rules(job))?;
        self.put(job, &batch)
    }

    fn push(&self, source: &str, frame: &Frame) -> Result<Applied, WriteError> {
        let is_fed = |job: &&Job| job.view.push_source.as_deref() == Some(source);
        let fed = self.jobs.iter().filter(is_fed);
        let batches = fed.map(|job| Ok((job, encode(frame, &job.view, self.key_version, self.time_rules(job))?)));
        let batches = batches.collect::<Result<Vec<_>, WriteError>>()?;
        if batches.is_empty() {
            return Err(WriteError::UnknownPushSource { source_name: source.to_owned() });
        }
        let mut applied = Applied::default();
        for (job, batch) in &batches {
            applied.add(self.put(job, batch)?);
        }
        Ok(applied)
    }

    fn materializable(&self) -> Vec<String> {
        self.jobs.iter().filter(|job| job.view.files().is_some()).map(|job| job.view.name.to_string()).collect()
    }

    fn not_materializable(&self) -> Vec<(String, String)> {
        let without = self.jobs.iter().filter(|job| job.view.files().is_none()).map(|job| &*job.view.name);
        let without = without.filter(|view| !self.unmaterializable.contains_key(*view)).map(|view| (view, NO_FILES));
        let all = self.unmaterializable.iter().map(|(view, why)| (&**view, &**why)).chain(without);
        all.map(|(view, why)| (view.to_owned(), why.to_owned())).collect()
    }

    fn materialize(
        &self,
        view: &str,
        window: Window,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), MaterializeError> {
        let done = self.load_from_files(view, window, progress);
        done.map(|_report| ()).map_err(|error| MaterializeError {
            is_busy: matches!(error, SyncError::Busy { .. } | SyncError::Stopped { .. }),
            view: error.view().to_owned(),
        })
    }
}
