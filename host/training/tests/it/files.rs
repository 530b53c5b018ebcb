//! Feature files, definitions and entity rows of tests.

use std::{fs::File, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use larder_common::clock::ManualClock;
use larder_model::{
    codec::KeyVersion,
    model::{FeatureView, Micros},
    registry::{Catalog, Definitions, validate},
    yaml::Problems,
};
use larder_serving::{Selection, Transforms, TtlPolicy};
use larder_source::{ParquetFiles, ParquetLimits, Source, Wanted};
use larder_training::{Limits, Progress, Report, TrainingError, TrainingJob, TrainingRequest, kernel::Visibility};
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use tempfile::TempDir;

pub(crate) const SECOND: Micros = 1_000_000;
/// The number of rows in a row group of a feature file.
pub(crate) const GROUP_ROWS: usize = 4;

/// Two views of customers, one whose key has two parts, and one without entities.
pub(crate) const DEFINITIONS: &str = "
entities:
  - {name: customer, join_key: customer_id, type: String}
  - {name: shop, join_key: shop_id, type: Int64}
feature_views:
  - name: stats
    entities: [customer]
    ttl: 10s
    features: [{name: visits, type: Int64}, {name: plan, type: String}]
    source: {path: stats, timestamp_field: at, created_timestamp_column: created}
  - name: limits
    entities: [customer]
    features: [{name: limit, type: Int64}]
    source: {path: limits, timestamp_field: at}
  - name: sales
    entities: [customer, shop]
    features: [{name: sold, type: Int64}]
    source: {path: sales, timestamp_field: at}
  - name: rates
    features: [{name: rate, type: Int64}]
    source: {path: rates, timestamp_field: at}
feature_services:
  - {name: both, features: [stats, limits]}
";

/// A directory with feature files.
pub(crate) struct Files {
    dir: TempDir,
    catalog: Catalog,
}

/// A training set.
#[derive(Debug)]
pub(crate) struct TrainingSet {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) report: Report,
}

/// A row of `stats`: the customer, the event time, the created time, the visits.
pub(crate) type StatsRow<'a> = (Option<&'a str>, Option<Micros>, Option<Micros>, Option<i64>);

// === impl Files ===

impl Files {
    pub(crate) fn new() -> Self {
        let problems = Problems::default();
        let mut definitions = Definitions::default();
        definitions.read("test.yaml", DEFINITIONS, &problems);
        let catalog = validate("test", KeyVersion::V3, definitions, &problems);
        let catalog = catalog.unwrap_or_else(|| panic!("{problems:?}"));
        let files = Self { dir: TempDir::new().unwrap(), catalog };
        for view in ["stats", "limits", "sales", "rates"] {
            std::fs::create_dir(files.path(view)).unwrap();
        }
        files
    }

    pub(crate) fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, columns: Vec<(&str, ArrayRef)>) {
        write(
            &self.path(path),
            &RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
                .unwrap(),
        );
    }

    pub(crate) fn stats(&self, file: &str, rows: &[StatsRow<'_>]) {
        let plans = rows.iter().map(|row| row.3.map(|visits| format!("plan {visits}")));
        self.write(
            &format!("stats/{file}.parquet"),
            vec![
                ("customer_id", Arc::new(StringArray::from_iter(rows.iter().map(|row| row.0)))),
                ("at", times(rows.iter().map(|row| row.1))),
                ("created", times(rows.iter().map(|row| row.2))),
                ("visits", ints(rows.iter().map(|row| row.3))),
                ("plan", Arc::new(StringArray::from_iter(plans))),
            ],
        );
    }

    pub(crate) fn limits(&self, rows: &[(&str, Micros, i64)]) {
        self.write(
            "limits/a.parquet",
            vec![
                ("customer_id", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)))),
                ("at", times(rows.iter().map(|row| Some(row.1)))),
                ("limit", ints(rows.iter().map(|row| Some(row.2)))),
            ],
        );
    }

    fn open(&self, view: &FeatureView, choose: &dyn Fn(Wanted) -> Wanted) -> Option<Box<dyn Source>> {
        let files = view.files()?;
        let (wanted, clock) = (choose(Wanted::of(view, files)), ManualClock::at(0));
        Some(Box::new(ParquetFiles::new(self.path(&files.path), wanted, ParquetLimits::default(), clock)))
    }

    pub(crate) fn join(
        &self,
        request: &TrainingRequest<'_>,
        entities: &[RecordBatch],
    ) -> Result<TrainingSet, TrainingError> {
        self.join_within(request, Limits::default(), entities)
    }

    pub(crate) fn join_within(
        &self,
        request: &TrainingRequest<'_>,
        limits: Limits,
        entities: &[RecordBatch],
    ) -> Result<TrainingSet, TrainingError> {
        self.join_with(request, limits, entities, &Progress::default())
    }

    pub(crate) fn join_with(
        &self,
        request: &TrainingRequest<'_>,
        limits: Limits,
        entities: &[RecordBatch],
        progress: &Progress,
    ) -> Result<TrainingSet, TrainingError> {
        self.run(request, limits, entities, progress, || {})
    }

    /// Calls `after` when the first batch is returned.
    pub(crate) fn join_then(
        &self,
        request: &TrainingRequest<'_>,
        entities: &[RecordBatch],
        after: impl FnMut(),
    ) -> Result<TrainingSet, TrainingError> {
        self.run(request, Limits::default(), entities, &Progress::default(), after)
    }

    fn run(
        &self,
        request: &TrainingRequest<'_>,
        limits: Limits,
        entities: &[RecordBatch],
        progress: &Progress,
        mut after: impl FnMut(),
    ) -> Result<TrainingSet, TrainingError> {
        let open = Box::new(|view: &FeatureView, choose: &dyn Fn(Wanted) -> Wanted| self.open(view, choose));
        let job = TrainingJob::new(&self.catalog, &Transforms::default(), open, request, limits, entities[0].schema())?;
        let mut batches = Vec::new();
        let report = job.run::<TrainingError>(entities.iter().cloned().map(Ok), progress, &mut |batch| {
            after();
            assert_eq!(batch.schema(), job.schema());
            batches.push(batch);
            Ok(())
        })?;
        Ok(TrainingSet { batches, report })
    }
}

pub(crate) fn write(path: &Path, rows: &RecordBatch) {
    // Files have several row groups, which are read by different threads.
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(GROUP_ROWS)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

pub(crate) fn features<'a>(features: &[&'a str]) -> TrainingRequest<'a> {
    TrainingRequest {
        selection: Selection::Features(features.iter().map(|feature| (*feature).into()).collect()),
        full_feature_names: false,
        time_column: "event_timestamp",
        visibility: Visibility::Event,
        ttl: TtlPolicy::Null,
        event_timestamps: false,
        strict: false,
    }
}

/// Entity rows of customers at times, and a label that the join must not change.
pub(crate) fn customers(rows: &[(Option<&str>, Option<Micros>)]) -> RecordBatch {
    let labels = (0..).take(rows.len()).map(Some);
    RecordBatch::try_from_iter_with_nullable([
        ("customer_id", Arc::new(StringArray::from_iter(rows.iter().map(|row| row.0))) as ArrayRef, true),
        ("event_timestamp", times(rows.iter().map(|row| row.1)), true),
        ("label", ints(labels), true),
    ])
    .unwrap()
}

pub(crate) fn times(values: impl Iterator<Item = Option<Micros>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

pub(crate) fn ints(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}

/// Returns the integers of a column of all batches.
pub(crate) fn column(set: &TrainingSet, name: &str) -> Vec<Option<i64>> {
    let of = |batch: &RecordBatch| -> Vec<Option<i64>> {
        let array = batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
        match array.as_primitive_opt::<Int64Type>() {
            Some(ints) => ints.iter().collect(),
            None => array.as_primitive::<TimestampMicrosecondType>().iter().collect(),
        }
    };
    set.batches.iter().flat_map(of).collect()
}
