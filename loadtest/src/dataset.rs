//! Generates the data of wide views as Parquet files, and reads Parquet files for other servers.
//!
//! The value of a feature depends only on its column and its row, so all runs have the same values.

use std::{
    fs::File,
    path::Path,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::Context;
use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    util::display::{ArrayFormatter, FormatOptions},
};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::Compression,
    file::properties::WriterProperties,
};

use crate::{
    definitions::{Feature, Kind},
    random::XorShift,
};

/// The name of the key column.
const KEY: &str = "customer_id";
const EVENT_TIMESTAMP: &str = "event_timestamp";
/// The age of the event times of all rows.
const AGE: Duration = Duration::from_hours(1);
/// The number of rows in a generated batch, and in a row group.
const CHUNK_ROWS: u64 = 1 << 17;

/// Writes a file with a row for each entity. Entities have numbers from 1 to `entities`, and `id` returns the key for a
/// number. Returns the size of the file in bytes.
pub(crate) fn write_view(
    path: &Path,
    features: &[Feature],
    entities: u64,
    id: impl Fn(u64) -> String,
) -> anyhow::Result<u64> {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut fields = vec![Field::new(KEY, DataType::Utf8, false), Field::new(EVENT_TIMESTAMP, time, false)];
    fields.extend(features.iter().map(|feature| Field::new(&feature.name, feature.kind.data_type(), true)));
    let schema = Arc::new(Schema::new(fields));
    let now = UNIX_EPOCH.elapsed().context("the clock is before 1970")?.saturating_sub(AGE);
    let micros = i64::try_from(now.as_micros()).context("the clock is too far in the future")?;
    let mut writer = writer(path, &schema)?;
    for first in (1..=entities).step_by(CHUNK_ROWS as usize) {
        let numbers = first..first.saturating_add(CHUNK_ROWS).min(entities + 1);
        let rows = numbers.clone().count();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(numbers.clone().map(&id))),
            Arc::new(TimestampMicrosecondArray::from(vec![micros; rows]).with_timezone("UTC")),
        ];
        columns.extend(features.iter().map(|feature| feature.column(numbers.clone())));
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    writer.close().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.metadata()?.len())
}

/// Copies the first `rows` rows of a file.
pub(crate) fn copy_head(from: &Path, to: &Path, rows: usize) -> anyhow::Result<()> {
    let builder = reader(from)?;
    let mut writer = writer(to, builder.schema())?;
    for batch in builder.with_limit(rows).build()? {
        writer.write(&batch?)?;
    }
    writer.close().with_context(|| format!("cannot write {}", to.display()))?;
    Ok(())
}

/// Calls `each` for every row of a file, with the key, and the names and values of these columns. Values are converted
/// to text, and nulls are omitted.
pub(crate) fn for_each_row(
    path: &Path,
    columns: &[String],
    mut each: impl FnMut(&str, &[(&str, String)]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let options = FormatOptions::default();
    for batch in reader(path)?.build()? {
        let batch = batch?;
        let find = |name: &str| {
            let column =
                batch.column_by_name(name).with_context(|| format!("{} has no column {name:?}", path.display()))?;
            anyhow::Ok((column, ArrayFormatter::try_new(column, &options)?))
        };
        let (_, keys) = find(KEY)?;
        let found = columns.iter().map(|name| Ok((name, find(name)?))).collect::<anyhow::Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            let present = found.iter().filter(|(_, (column, _))| column.is_valid(row));
            let values: Vec<_> =
                present.map(|(name, (_, text))| (name.as_str(), text.value(row).to_string())).collect();
            each(&keys.value(row).to_string(), &values)?;
        }
    }
    Ok(())
}

fn reader(path: &Path) -> anyhow::Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(ParquetRecordBatchReaderBuilder::try_new(file)?)
}

fn writer(path: &Path, schema: &SchemaRef) -> anyhow::Result<ArrowWriter<File>> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(CHUNK_ROWS as usize));
    Ok(ArrowWriter::try_new(file, Arc::clone(schema), Some(properties.build()))?)
}

// === impl Kind ===

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Bool => DataType::Boolean,
        }
    }
}

// === impl Feature ===

impl Feature {
    fn column(&self, numbers: std::ops::Range<u64>) -> ArrayRef {
        let draws = numbers.map(|number| self.draw(number));
        match self.kind {
            Kind::Int => Arc::new(Int64Array::from_iter_values(draws.map(|draw| (draw % 100_000) as i64))),
            Kind::Float => {
                Arc::new(Float64Array::from_iter_values(draws.map(|draw| (draw % 1_000_000) as f64 / 100.0)))
            }
            Kind::Text => {
                Arc::new(StringArray::from_iter_values(draws.map(|draw| format!("segment_{:02}", draw % 100))))
            }
            Kind::Bool => Arc::new(draws.map(|draw| Some(draw % 2 == 0)).collect::<arrow::array::BooleanArray>()),
        }
    }

    fn draw(&self, number: u64) -> u64 {
        let seed = self.name.bytes().fold(17_u64, |seed, byte| seed.wrapping_mul(131).wrapping_add(u64::from(byte)));
        let mut random = XorShift::new(seed, number as usize);
        random.next();
        random.next() >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::wide_views;

    fn rows(path: &Path, columns: &[String]) -> Vec<(String, Vec<String>)> {
        let mut rows = Vec::new();
        for_each_row(path, columns, |key, values| {
            rows.push((key.to_owned(), values.iter().map(|(name, value)| format!("{name}={value}")).collect()));
            Ok(())
        })
        .unwrap();
        rows
    }

    #[test]
    fn written_rows_are_read_and_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, head) = (dir.path().join("whole.parquet"), dir.path().join("head.parquet"));
        let features = &wide_views()[0].features;
        let bytes = write_view(&whole, features, 300, |number| format!("CUST_{number:06}")).unwrap();
        assert_eq!(bytes, whole.metadata().unwrap().len());
        copy_head(&whole, &head, 20).unwrap();
        let columns: Vec<_> = features[..3].iter().map(|feature| feature.name.clone()).collect();
        let (all, first) = (rows(&whole, &columns), rows(&head, &columns));
        assert_eq!((all.len(), first.len()), (300, 20));
        assert_eq!(all[..20], first);
        assert_eq!(all[299].0, "CUST_000300");
        assert_eq!(all[0].1.len(), 3);
        assert!(all[0].1[2].starts_with("f_002=segment_"), "{:?}", all[0]);
        assert_ne!(all[0].1, all[1].1);
    }

    #[test]
    fn values_do_not_depend_on_range() {
        let feature = Feature { name: "x".to_owned(), kind: Kind::Int };
        assert_eq!(&feature.column(1..300).slice(100, 50), &feature.column(101..151));
    }
}
