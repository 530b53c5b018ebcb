//! Computes derived features over the history of the stored features that they read.

use std::{collections::BTreeSet, fs, ops::Range, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType},
};
use larder_columns::Instants;
use larder_model::{
    model::{DerivedView, FeatureView, InputSource, Micros},
    registry::Catalog,
};
use larder_serving::{Selection, TtlPolicy};
use larder_training::{History, Limits, Progress, Report, TIME_COLUMN, TrainingRequest, kernel::Visibility};

use super::{Location, OfflineError, Output, Project, TrainingWriter};

/// A backfill of one derived view.
#[derive(Debug)]
pub struct Backfill<'p> {
    project: &'p Project,
    derived: Arc<DerivedView>,
    /// The stored views whose feature rows decide at which times the derived features are computed.
    views: Vec<Arc<FeatureView>>,
    times: Range<Micros>,
}

/// A file of a backfill.
#[derive(Debug)]
pub struct BackfillFile {
    /// The file or object.
    pub at: Location,
    /// The counts.
    pub report: Report,
    /// The number of rows in the file.
    pub rows: u64,
}

// === impl Backfill ===

impl<'p> Backfill<'p> {
    /// Prepares a backfill of the times from `times.start` to before `times.end`, in microseconds.
    ///
    /// # Errors
    /// [`OfflineError::Backfill`], if the view does not exist. [`OfflineError::NoRows`], if it needs request data, or reads no
    /// stored view that has all join keys.
    pub fn new(project: &'p Project, view: &str, times: Range<Micros>) -> Result<Self, OfflineError> {
        let catalog = &project.definitions().catalog;
        let Some(derived) = catalog.derived_view(view) else {
            let names = catalog.derived_views().iter().map(|view| &*view.name);
            let hint = larder_model::yaml::nearest(view, names).map_or_else(String::new, |help| format!(" ({help})"));
            let why = format!("there is no derived view with this name{hint}");
            return Err(OfflineError::Backfill { view: view.to_owned(), why });
        };
        let mut stored = BTreeSet::new();
        inputs(catalog, derived, &mut stored).map_err(|why| OfflineError::NoRows { view: view.to_owned(), why })?;
        let views: Vec<&Arc<FeatureView>> = stored.iter().filter_map(|name| catalog.view(name)).collect();
        let keys: BTreeSet<&str> = views.iter().flat_map(|view| keys_of(view)).collect();
        let views = views.into_iter().filter(|view| keys_of(view).collect::<BTreeSet<_>>() == keys);
        let views: Vec<_> = views.cloned().collect();
        if views.is_empty() {
            let keys: Vec<_> = keys.into_iter().collect();
            let keys = keys.join(", ");
            let why =
                format!("none of its stored views has all join keys ({keys}), so the rows to compute are unknown");
            return Err(OfflineError::NoRows { view: view.to_owned(), why });
        }
        Ok(Self { project, derived: Arc::clone(derived), views, times })
    }

    /// Computes the features, and writes a file for each of the stored views to a directory, which is created if it does not
    /// exist, or to a prefix in S3. If several views have a row with the same key and time, only the file of the first view
    /// has the row.
    ///
    /// If it fails, earlier files with the same names keep their content, because all files are complete before the first one
    /// is moved to its path.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub fn run(&self, dir: &Location, limits: Limits, progress: &Progress) -> Result<Vec<BackfillFile>, OfflineError> {
        if let Location::Local(path) = dir {
            fs::create_dir_all(path).map_err(|source| OfflineError::Write { at: dir.clone(), source })?;
        }
        let files = (0..self.views.len()).map(|index| self.file(index, dir, limits, progress));
        let files: Vec<(TrainingWriter, BackfillFile)> = files.collect::<Result<_, _>>()?;
        let finish = |(writer, file): (TrainingWriter, BackfillFile)| writer.finish().map(|_| file);
        files.into_iter().map(finish).collect()
    }

    /// Computes and writes a file, which is not moved to its path yet.
    fn file(
        &self,
        index: usize,
        dir: &Location,
        limits: Limits,
        progress: &Progress,
    ) -> Result<(TrainingWriter, BackfillFile), OfflineError> {
        let view = &self.views[index];
        let times = self.times.clone();
        let source = self.project.files(view, |wanted| History::wanted(wanted, times.clone()))?;
        let history = History::read(view, &*source, self.times.clone())?;
        let entities = history.schema();
        let features = self.derived.features.iter().map(|feature| format!("{}:{}", self.derived.name, feature.name));
        // The event times of the earlier views show which rows are in their files.
        let earlier = self.views[..index].iter().filter_map(|view| Some((view, view.features.first()?)));
        let earlier: Vec<(String, String)> = earlier
            .map(|(view, feature)| {
                let column = format!("{}__{}__event_timestamp", view.name, feature.name);
                (format!("{}:{}", view.name, feature.name), column)
            })
            .collect();
        let selected = features.chain(earlier.iter().map(|(feature, _)| feature.clone()));
        let request = TrainingRequest {
            selection: Selection::Features(selected.map(Into::into).collect()),
            full_feature_names: true,
            time_column: TIME_COLUMN,
            visibility: Visibility::Event,
            ttl: TtlPolicy::Null,
            event_timestamps: true,
            strict: false,
        };
        let job = self.project.job(&request, limits, SchemaRef::clone(&entities))?;
        let schema = self.schema(&entities, &job.schema())?;
        let at = dir.join(&format!("{}.{}.parquet", self.derived.name, view.name));
        self.project.check_output(&at, job.views(), None)?;
        let mut writer = self.project.create_output(&Output::File(at.clone()), SchemaRef::clone(&schema))?;
        let mut rows = 0;
        let report = job.run::<OfflineError>(history, progress, &mut |batch| {
            let columns: Vec<&str> = earlier.iter().map(|(_, column)| column.as_str()).collect();
            let batch = without_known(&batch, &columns)?;
            let arrays = batch.columns()[..schema.fields().len()].to_vec();
            rows += batch.num_rows() as u64;
            let batch = RecordBatch::try_new(SchemaRef::clone(&schema), arrays);
            writer.write(&batch.map_err(larder_training::TrainingError::from)?)
        })?;
        writer.flush()?;
        Ok((writer, BackfillFile { at, report, rows }))
    }

    /// Returns the columns of a file: keys, time, and features with their own names.
    fn schema(&self, entities: &Schema, of_job: &Schema) -> Result<SchemaRef, OfflineError> {
        let mut fields = entities.fields().to_vec();
        for (index, feature) in self.derived.features.iter().enumerate() {
            if fields.iter().any(|field| **field.name() == *feature.name) {
                let why = format!("its feature '{}' has the name of a key or of the time column", feature.name);
                return Err(OfflineError::Backfill { view: self.derived.name.to_string(), why });
            }
            let of = of_job.field(entities.fields().len() + index).data_type().clone();
            fields.push(Arc::new(Field::new(&*feature.name, of, true)));
        }
        Ok(Arc::new(Schema::new(fields)))
    }
}

/// Adds the names of the stored views that a derived view reads, directly or through other derived views.
fn inputs(catalog: &Catalog, of: &DerivedView, stored: &mut BTreeSet<Arc<str>>) -> Result<(), String> {
    for input in &of.inputs {
        match &input.from {
            InputSource::Request => {
                return Err(format!("input '{}' of '{}' is request data, which has no history", input.name, of.name));
            }
            InputSource::JoinKey(_) => {}
            InputSource::Feature { view, .. } => match catalog.derived_view(view) {
                // A derived view does not depend on itself.
                Some(derived) => inputs(catalog, derived, stored)?,
                None => {
                    stored.insert(Arc::clone(view));
                }
            },
        }
    }
    Ok(())
}

fn keys_of(view: &FeatureView) -> impl Iterator<Item = &str> {
    let keys = if view.is_entityless() { &[] } else { view.join_keys.as_slice() };
    keys.iter().map(|key| &*key.name)
}

/// Removes rows whose time is in one of the columns, because another file has them.
fn without_known(batch: &RecordBatch, columns: &[&str]) -> Result<RecordBatch, OfflineError> {
    let own = batch.column_by_name(TIME_COLUMN).and_then(|own| Instants::new(own).ok());
    // Rows with parts of microseconds may have the event times of different rows, so they are kept.
    let is_whole = |own: &Instants| (0..batch.num_rows()).all(|row| own.nanos(row) == 0);
    let Some(own) = own.filter(is_whole) else { return Ok(batch.clone()) };
    let times = |name: &str| batch.column_by_name(name).map(|column| column.as_primitive::<TimestampMicrosecondType>());
    let known: Vec<_> = columns.iter().filter_map(|name| times(name)).collect();
    let is_new =
        |row: usize| !known.iter().any(|known| known.is_valid(row) && Some(known.value(row)) == own.micros(row));
    let new: BooleanArray = (0..batch.num_rows()).map(|row| Some(is_new(row))).collect();
    Ok(filter_record_batch(batch, &new).map_err(larder_training::TrainingError::from)?)
}
