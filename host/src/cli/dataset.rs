//! Generates the data of `larder demo` and `larder init`: the customers of a telephone company, with features for a
//! churn model.
//!
//! All values of a customer except times are derived from the seed and the customer's number only, by integer
//! arithmetic. With the same seed, a customer is therefore the same in data sets of every size, on every machine. Times
//! also depend on when the data set is generated. The values are correlated plausibly: new customers tend to pay by the
//! month and to open more support tickets, and faster lines cost more and transfer more data.
//!
//! Customers are generated and written in chunks. Memory holds at most one row group of each of the three files.

mod customer;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use larder_model::model::Micros;
use parquet::{
    arrow::ArrowWriter, basic::Compression, errors::ParquetError, file::properties::WriterProperties,
    schema::types::ColumnPath,
};

use self::customer::{Customer, SENIOR_AGE, Times};

/// The parameters of a data set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DatasetSpec {
    /// The number of customers; each has one row in each file.
    pub(crate) customers: u64,
    /// The seed of the pseudorandom values.
    pub(crate) seed: u64,
    /// The latest time in the data.
    pub(crate) now: Micros,
}

/// Why the data set could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatasetError {
    /// The operating system returned an error.
    #[error("cannot write {path}: {source}")]
    Io {
        /// The file or directory.
        path: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The Parquet writer failed.
    #[error("cannot write {path}: {source}")]
    Parquet {
        /// The file.
        path: String,
        /// The writer's reason; this also covers a full disk.
        source: ParquetError,
    },
}

/// One of the three files.
struct Table {
    file: &'static str,
    times: fn(&Customer) -> Times,
    columns: &'static [Column],
}

/// A column of features.
struct Column {
    name: &'static str,
    values: Values,
}

/// The type of a column, and the function that returns the column's value for a customer.
#[derive(Clone, Copy)]
enum Values {
    Int64(fn(&Customer) -> u32),
    Float64(fn(&Customer) -> Option<f64>),
    String(fn(&Customer) -> &'static str),
    Bool(fn(&Customer) -> bool),
}

/// A file that is being written, under its temporary name.
struct Output {
    table: &'static Table,
    schema: Arc<Schema>,
    partial: Partial,
    writer: ArrowWriter<File>,
}

/// A temporary file, which is removed on drop.
struct Partial {
    temporary: PathBuf,
    path: PathBuf,
}

const TABLES: [Table; 3] = [
    Table {
        file: "customer_features.parquet",
        times: |customer| customer.behavior_times,
        columns: &[
            Column { name: "tenure_months", values: Values::Int64(|customer| customer.tenure_months) },
            Column { name: "monthly_charges", values: Values::Float64(|customer| Some(customer.monthly_charges)) },
            Column { name: "total_charges", values: Values::Float64(|customer| customer.total_charges) },
            Column { name: "support_tickets_30d", values: Values::Int64(|customer| customer.support_tickets_30d) },
            Column { name: "data_usage_gb", values: Values::Float64(|customer| customer.data_usage_gb) },
        ],
    },
    Table {
        file: "customer_demographics.parquet",
        times: |customer| customer.demographics_times,
        columns: &[
            Column { name: "age", values: Values::Int64(|customer| customer.age) },
            Column { name: "gender", values: Values::String(|customer| customer.gender) },
            Column { name: "location", values: Values::String(|customer| customer.location) },
            Column { name: "senior_citizen", values: Values::Bool(|customer| customer.age >= SENIOR_AGE) },
        ],
    },
    Table {
        file: "customer_contract.parquet",
        times: |customer| customer.contract_times,
        columns: &[
            Column { name: "contract_type", values: Values::String(|customer| customer.contract_type) },
            Column { name: "payment_method", values: Values::String(|customer| customer.payment_method) },
            Column { name: "paperless_billing", values: Values::Bool(|customer| customer.paperless_billing) },
        ],
    },
];

const CUSTOMER_ID: &str = "customer_id";
const EVENT_TIMESTAMP: &str = "event_timestamp";
const CREATED: &str = "created";

/// The number of customers that are generated and written together.
const CHUNK_ROWS: u64 = 65_536;

/// The number of rows in a row group. The writer keeps a row group in memory until it is full.
const ROW_GROUP_ROWS: usize = 4 * 65_536;

/// Writes the data set into a directory. Calls `progress` with the number of written rows and the number of all rows.
/// When all three files are complete, they get their final names, and replace previous files.
///
/// # Errors
/// If a file cannot be written. If this happens before all three files are complete, previous files are not changed.
pub(crate) fn generate(dir: &Path, spec: &DatasetSpec, progress: &mut dyn FnMut(u64, u64)) -> Result<(), DatasetError> {
    fs::create_dir_all(dir).map_err(|source| io_error(dir, source))?;
    let mut outputs = TABLES.iter().map(|table| Output::create(dir, table)).collect::<Result<Vec<_>, _>>()?;

    let tables = TABLES.len() as u64;
    let rows_total = spec.customers.saturating_mul(tables);
    let mut customers = Vec::new();
    for first in (1..=spec.customers).step_by(CHUNK_ROWS as usize) {
        let last = first.saturating_add(CHUNK_ROWS - 1).min(spec.customers);
        customers.clear();
        customers.extend((first..=last).map(|number| Customer::draw(number, spec)));
        let ids: ArrayRef = Arc::new(StringArray::from_iter_values((first..=last).map(customer_id)));
        for output in &mut outputs {
            output.write(&ids, &customers)?;
        }
        progress(last * tables, rows_total);
    }

    let complete = outputs.into_iter().map(Output::close).collect::<Result<Vec<_>, _>>()?;
    complete.into_iter().try_for_each(Partial::publish)
}

fn customer_id(number: u64) -> String {
    format!("CUST_{number:06}")
}

fn io_error(path: &Path, source: io::Error) -> DatasetError {
    DatasetError::Io { path: path.display().to_string(), source }
}

// === impl Table ===

impl Table {
    fn schema(&self) -> Schema {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let mut fields = vec![
            Field::new(CUSTOMER_ID, DataType::Utf8, false),
            Field::new(EVENT_TIMESTAMP, time.clone(), false),
            Field::new(CREATED, time, false),
        ];
        fields.extend(self.columns.iter().map(|column| Field::new(column.name, column.values.data_type(), true)));
        Schema::new(fields)
    }
}

// === impl Values ===

impl Values {
    fn data_type(self) -> DataType {
        match self {
            Self::Int64(_) => DataType::Int64,
            Self::Float64(_) => DataType::Float64,
            Self::String(_) => DataType::Utf8,
            Self::Bool(_) => DataType::Boolean,
        }
    }

    fn of(self, customers: &[Customer]) -> ArrayRef {
        match self {
            Self::Int64(of) => Arc::new(Int64Array::from_iter_values(customers.iter().map(|one| i64::from(of(one))))),
            Self::Float64(of) => Arc::new(customers.iter().map(of).collect::<Float64Array>()),
            Self::String(of) => Arc::new(StringArray::from_iter_values(customers.iter().map(of))),
            Self::Bool(of) => Arc::new(BooleanArray::from(customers.iter().map(of).collect::<Vec<_>>())),
        }
    }
}

// === impl Output ===

impl Output {
    fn create(dir: &Path, table: &'static Table) -> Result<Self, DatasetError> {
        let partial = Partial::new(dir, table.file);
        let file = File::create(&partial.temporary).map_err(|source| io_error(&partial.temporary, source))?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
        for column in [CUSTOMER_ID, EVENT_TIMESTAMP, CREATED] {
            // Most values in a row group are distinct, so a dictionary would not help: the writer would build it and
            // then discard it.
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), false);
        }
        let schema = Arc::new(table.schema());
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties.build()))
            .map_err(|source| partial.error(source))?;
        Ok(Self { table, schema, partial, writer })
    }

    fn write(&mut self, ids: &ArrayRef, customers: &[Customer]) -> Result<(), DatasetError> {
        let times = |of: fn(Times) -> Micros| -> ArrayRef {
            let times = customers.iter().map(|customer| of((self.table.times)(customer)));
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
        };
        let mut columns = vec![Arc::clone(ids), times(|times| times.event), times(|times| times.created)];
        columns.extend(self.table.columns.iter().map(|column| column.values.of(customers)));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        let written = batch.map_err(ParquetError::from).and_then(|batch| self.writer.write(&batch));
        written.map_err(|source| self.partial.error(source))
    }

    /// Finishes the file, and flushes it to disk. Returns it, still under its temporary name.
    fn close(self) -> Result<Partial, DatasetError> {
        let Self { partial, writer, .. } = self;
        let file = writer.into_inner().map_err(|source| partial.error(source))?;
        file.sync_all().map_err(|source| io_error(&partial.temporary, source))?;
        Ok(partial)
    }
}

// === impl Partial ===

impl Partial {
    /// Names a temporary file. The name starts with a dot, so that readers of the directory skip the file.
    fn new(dir: &Path, file: &str) -> Self {
        Self { temporary: dir.join(format!(".{file}.partial")), path: dir.join(file) }
    }

    fn publish(self) -> Result<(), DatasetError> {
        fs::rename(&self.temporary, &self.path).map_err(|source| io_error(&self.path, source))
    }

    fn error(&self, source: ParquetError) -> DatasetError {
        DatasetError::Parquet { path: self.temporary.display().to_string(), source }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // If the file was published, no file has this name, and the call fails.
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use arrow::{
        array::{Array, AsArray},
        compute::concat_batches,
        datatypes::{Float64Type, Int64Type, TimestampMicrosecondType},
    };
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::{
        customer::{BEHAVIOR_DAYS, MICROS_PER_SECOND, MONTH_TO_MONTH, OTHER_DAYS, SECONDS_PER_DAY},
        *,
    };

    /// 2026-11-23T09:13:10.123456Z.
    const NOW: Micros = 1_795_425_190_123_456;

    /// Generates a data set, and returns its three tables.
    fn generated(customers: u64, seed: u64) -> [RecordBatch; 3] {
        let dir = tempfile::tempdir().unwrap();
        generate(dir.path(), &DatasetSpec { customers, seed, now: NOW }, &mut |_, _| ()).unwrap();
        TABLES.each_ref().map(|table| {
            let file = File::open(dir.path().join(table.file)).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
            let batches = reader.collect::<Result<Vec<_>, _>>().unwrap();
            concat_batches(&Arc::new(table.schema()), &batches).unwrap()
        })
    }

    fn ints<'t>(table: &'t RecordBatch, name: &str) -> &'t Int64Array {
        table.column_by_name(name).unwrap().as_primitive::<Int64Type>()
    }

    fn floats<'t>(table: &'t RecordBatch, name: &str) -> &'t Float64Array {
        table.column_by_name(name).unwrap().as_primitive::<Float64Type>()
    }

    fn texts<'t>(table: &'t RecordBatch, name: &str) -> &'t StringArray {
        table.column_by_name(name).unwrap().as_string::<i32>()
    }

    fn times<'t>(table: &'t RecordBatch, name: &str) -> &'t TimestampMicrosecondArray {
        table.column_by_name(name).unwrap().as_primitive::<TimestampMicrosecondType>()
    }

    #[test]
    fn equal_seeds_give_equal_values() {
        let tables = generated(500, 7);
        assert_eq!(tables, generated(500, 7));
        for (table, other) in tables.iter().zip(generated(500, 8)) {
            assert_eq!(table.column(0), other.column(0), "the customer IDs do not depend on the seed");
            for column in 1..table.num_columns() {
                assert_ne!(table.column(column), other.column(column));
            }
        }
    }

    #[test]
    fn count_does_not_change_first_customers() {
        let from_more = generated(CHUNK_ROWS + 10, 7).map(|table| table.slice(0, 300));
        assert_eq!(generated(300, 7), from_more);
    }

    #[test]
    fn every_file_has_every_customer() {
        for customers in [0, 1, CHUNK_ROWS, CHUNK_ROWS + 1] {
            for table in generated(customers, 7) {
                assert_eq!(table.num_rows() as u64, customers);
            }
        }
    }

    #[test]
    fn progress_ends_at_total() {
        let dir = tempfile::tempdir().unwrap();
        let spec = DatasetSpec { customers: CHUNK_ROWS + 1, seed: 7, now: NOW };
        let mut seen = Vec::new();
        generate(dir.path(), &spec, &mut |done, total| seen.push((done, total))).unwrap();
        let total = 3 * (CHUNK_ROWS + 1);
        assert_eq!(seen, [(3 * CHUNK_ROWS, total), (total, total)]);
    }

    #[test]
    fn times_cover_their_whole_span() {
        for (table, days) in generated(5_000, 7).iter().zip([BEHAVIOR_DAYS, OTHER_DAYS, OTHER_DAYS]) {
            let span = Micros::from(days) * Micros::from(SECONDS_PER_DAY) * MICROS_PER_SECOND;
            let (events, created) = (times(table, EVENT_TIMESTAMP), times(table, CREATED));
            for (event, created) in events.values().iter().zip(created.values()) {
                assert!((NOW - span..=NOW).contains(event), "{event}");
                assert!((*event..=NOW).contains(created), "{event} {created}");
            }
            let oldest = events.values().iter().min().unwrap();
            assert!(NOW - oldest > span * 9 / 10, "the whole span is used");
        }
    }

    #[test]
    fn ids_are_unique_and_padded() {
        let tables = generated(2_000, 7);
        let ids = texts(&tables[0], CUSTOMER_ID);
        assert_eq!((ids.value(0), ids.value(1_999)), ("CUST_000001", "CUST_002000"));
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 2_000);
        assert!(tables.iter().all(|table| texts(table, CUSTOMER_ID) == ids));
        assert_eq!(customer_id(10_000_000), "CUST_10000000");
    }

    #[test]
    fn nulls_exist_but_are_rare() {
        let [behavior, demographics, contract] = generated(20_000, 7);
        let months = ints(&behavior, "tenure_months");
        let totals = floats(&behavior, "total_charges");
        for row in 0..behavior.num_rows() {
            assert_eq!(totals.is_null(row), months.value(row) == 0, "exactly customers without a bill have no total");
        }
        for column in ["total_charges", "data_usage_gb"] {
            let nulls = floats(&behavior, column).null_count();
            assert!((100..600).contains(&nulls), "{column}: {nulls}");
        }
        let nulls = |table: &RecordBatch| table.columns().iter().map(|column| column.null_count()).sum::<usize>();
        assert_eq!(nulls(&behavior), totals.null_count() + floats(&behavior, "data_usage_gb").null_count());
        assert_eq!(nulls(&demographics) + nulls(&contract), 0);
    }

    #[test]
    fn values_are_in_their_ranges() {
        let [behavior, demographics, _] = generated(20_000, 7);
        let months = ints(&behavior, "tenure_months");
        assert!(months.values().iter().all(|months| (0..=72).contains(months)));
        assert!(months.values().contains(&72));
        let charges = floats(&behavior, "monthly_charges").values();
        let totals = floats(&behavior, "total_charges");
        for ((months, charge), total) in months.values().iter().zip(charges).zip(totals) {
            assert!((18.25..=118.75).contains(charge), "{charge}");
            assert_eq!((charge * 100.0).round() / 100.0, *charge, "whole cents");
            let product = charge * *months as f64;
            let total = total.unwrap_or(product);
            assert!((total - product).abs() <= product * 0.05 + 0.01, "{total} {product}");
        }
        assert!(ints(&behavior, "support_tickets_30d").values().iter().all(|tickets| (0..=12).contains(tickets)));
        assert!(floats(&behavior, "data_usage_gb").iter().flatten().all(|usage| (0.0..=1_187.5).contains(&usage)));
        let senior = demographics.column_by_name("senior_citizen").unwrap().as_boolean();
        for (age, senior) in ints(&demographics, "age").values().iter().zip(senior.values().iter()) {
            assert!((18..=92).contains(age));
            assert_eq!(senior, *age >= 65);
        }
    }

    #[test]
    fn values_are_correlated_with_tenure() {
        let [behavior, _, contract] = generated(20_000, 7);
        let mean = |column: &str, chosen: &dyn Fn(usize) -> bool| {
            let values = ints(&behavior, column);
            let chosen: Vec<i64> = (0..values.len()).filter(|&row| chosen(row)).map(|row| values.value(row)).collect();
            chosen.iter().sum::<i64>() as f64 / chosen.len() as f64
        };
        let contracts = texts(&contract, "contract_type");
        let by_month = mean("tenure_months", &|row| contracts.value(row) == MONTH_TO_MONTH);
        let by_two_years = mean("tenure_months", &|row| contracts.value(row) == "Two year");
        assert!(by_month + 15.0 < by_two_years, "{by_month} {by_two_years}");

        let months = ints(&behavior, "tenure_months");
        let new = mean("support_tickets_30d", &|row| months.value(row) < 6);
        let old = mean("support_tickets_30d", &|row| months.value(row) >= 48);
        assert!(new > 1.5 * old, "{new} {old}");
    }

    #[test]
    fn failed_run_leaves_no_partial_file() {
        let dir = tempfile::tempdir().unwrap();
        let spec = DatasetSpec { customers: 10, seed: 7, now: NOW };
        let listed = || {
            let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        };
        // A file cannot be renamed to the path of a directory.
        fs::create_dir(dir.path().join(TABLES[0].file)).unwrap();
        let error = generate(dir.path(), &spec, &mut |_, _| ()).unwrap_err().to_string();
        assert!(error.contains("customer_features.parquet"), "{error}");
        assert_eq!(listed(), ["customer_features.parquet"]);

        fs::remove_dir(dir.path().join(TABLES[0].file)).unwrap();
        generate(dir.path(), &spec, &mut |_, _| ()).unwrap();
        generate(dir.path(), &spec, &mut |_, _| ()).unwrap();
        assert_eq!(
            listed(),
            ["customer_contract.parquet", "customer_demographics.parquet", "customer_features.parquet"]
        );
    }
}
