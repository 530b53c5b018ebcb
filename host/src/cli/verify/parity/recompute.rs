//! Computes logged values again, from the files of the views.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::UNIX_EPOCH,
};

use anyhow::Result;
use arrow::{array::RecordBatch, compute::concat_batches};
use larder_common::clock::SystemClock;
use larder_model::model::{FeatureView, Micros};
use larder_serving::{Selection, Transforms, TtlPolicy};
use larder_source::{
    Batches, FileSchema, FileVersion, Source, SourceBatch, SourceError, Wanted,
    aws::{Aws, ObjectAt},
};
use larder_sync::SyncSetting;
use larder_training::{Limits, Progress, TrainingError, TrainingJob, TrainingRequest, kernel::Visibility};

use crate::offline::Project;

/// The files of the views, and the plugins of a service.
pub(super) struct Offline<'p> {
    pub(super) project: &'p Project,
    pub(super) transforms: Transforms,
    setting: SyncSetting,
    files: Arc<Mutex<SeenFiles>>,
}

/// What to compute, for rows with keys, request data and times.
pub(super) struct Question<'q> {
    pub(super) selection: Selection<'q>,
    pub(super) time_column: &'q str,
    pub(super) ttl: TtlPolicy,
    /// Leaves out rows that were not available at the time: rows with a later created time, and the files of each view that
    /// are listed here. `None` leaves out nothing.
    pub(super) unavailable: Option<&'q LateFiles>,
}

/// The files of each view that were modified too late.
pub(super) type LateFiles = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

/// The files that were read, by view, each with the time at which it was last modified, if that is known.
type SeenFiles = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Option<Micros>>>;

/// A source without the rows of some files. Notes the names of all files.
#[derive(Debug)]
struct Files {
    view: Arc<str>,
    inner: Box<dyn Source>,
    left_out: BTreeSet<Arc<str>>,
    seen: Arc<Mutex<SeenFiles>>,
}

/// A read of [`Files`].
struct FileBatches<'s> {
    files: &'s Files,
    inner: Box<dyn Batches + 's>,
}

// === impl Offline ===

impl<'p> Offline<'p> {
    /// Loads the plugins of a service. `rows` have the columns of its requests, and the times in `time_column`.
    pub(super) fn new(project: &'p Project, service: &str, time_column: &str, rows: &RecordBatch) -> Result<Self> {
        let selection = Selection::Service(service.into());
        let question = Question { selection, time_column, ttl: project.config().ttl, unavailable: None };
        let transforms = project.transforms(&question.request(), &rows.schema())?;
        let setting = project.config().sync_setting(Arc::new(SystemClock));
        Ok(Self { project, transforms, setting, files: Arc::default() })
    }

    /// Computes the features of rows. The result has the rows in their order, the columns of features with full names, and a
    /// column `NAME__event_timestamp` for each stored feature. This is the only use of the code that builds training sets.
    pub(super) fn compute(&self, question: &Question<'_>, rows: &RecordBatch) -> Result<RecordBatch> {
        let open = |view: &FeatureView, choose: &dyn Fn(Wanted) -> Wanted| {
            let left_out = question.unavailable.and_then(|late| late.get(&view.name)).cloned().unwrap_or_default();
            let (inner, view) = (self.setting.open_files(view, choose)?, Arc::clone(&view.name));
            Some(Box::new(Files { view, inner, left_out, seen: Arc::clone(&self.files) }) as Box<dyn Source>)
        };
        let (catalog, request) = (&self.project.definitions().catalog, question.request());
        let job =
            TrainingJob::new(catalog, &self.transforms, Box::new(open), &request, Limits::default(), rows.schema())?;
        let mut batches = Vec::new();
        let mut emit = |batch| {
            batches.push(batch);
            Ok::<_, TrainingError>(())
        };
        job.run(std::iter::once(Ok(rows.clone())), &Progress::default(), &mut emit)?;
        Ok(concat_batches(&job.schema(), &batches)?)
    }

    /// Returns the times at which the files of a view were modified. Leaves out files whose time is unknown.
    pub(super) fn arrivals(&self, view: &FeatureView) -> Vec<(Arc<str>, Micros)> {
        let mut files = lock(&self.files);
        let Some(files) = files.get_mut(&view.name) else { return Vec::new() };
        for (name, modified) in files.iter_mut().filter(|(_, modified)| modified.is_none()) {
            *modified = self.modified(view, name);
        }
        files.iter().filter_map(|(name, modified)| Some((Arc::clone(name), (*modified)?))).collect()
    }

    fn modified(&self, view: &FeatureView, name: &str) -> Option<Micros> {
        let place = view.files().map(|files| files.place.clone()).unwrap_or_default();
        if let Some(object) = ObjectAt::parse(name, place) {
            let aws: &Aws = &self.setting.aws;
            return object.modified(aws).ok();
        }
        let modified = Path::new(name).metadata().and_then(|metadata| metadata.modified()).ok()?;
        Micros::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Entries are added in one statement, so the map behind a poisoned lock is valid.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Question ===

impl<'q> Question<'q> {
    fn request(&self) -> TrainingRequest<'q> {
        TrainingRequest {
            selection: self.selection.clone(),
            full_feature_names: true,
            time_column: self.time_column,
            visibility: if self.unavailable.is_some() { Visibility::Created } else { Visibility::Event },
            ttl: self.ttl,
            event_timestamps: true,
            strict: false,
        }
    }
}

// === impl Files ===

impl Source for Files {
    fn has_changes(&self, position: &str) -> Result<bool, SourceError> {
        self.inner.has_changes(position)
    }

    fn read(&self, position: Option<&str>) -> Result<Box<dyn Batches + '_>, SourceError> {
        Ok(Box::new(FileBatches { files: self, inner: self.inner.read(position)? }))
    }

    fn schemas(&self) -> Result<Vec<FileSchema>, SourceError> {
        self.inner.schemas()
    }

    fn name(&self) -> String {
        self.inner.name()
    }

    fn versions(&self) -> Result<Vec<FileVersion>, SourceError> {
        self.inner.versions()
    }
}

// === impl FileBatches ===

impl Batches for FileBatches<'_> {
    fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        while let Some(batch) = self.inner.next_batch()? {
            let mut seen = lock(&self.files.seen);
            let files = seen.entry(Arc::clone(&self.files.view)).or_default();
            if !files.contains_key(&batch.origin) {
                files.insert(Arc::clone(&batch.origin), None);
            }
            drop(seen);
            if !self.files.left_out.contains(&batch.origin) {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    fn rows_expected(&self) -> u64 {
        self.inner.rows_expected()
    }

    fn position(&self) -> String {
        self.inner.position()
    }
}
