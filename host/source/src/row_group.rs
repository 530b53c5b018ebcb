//! Row groups of Parquet files, and the choice of those to read.

use std::{
    fmt::{self, Debug, Formatter},
    ops::Range,
    sync::Arc,
};

use larder_model::model::Micros;
use parquet::{
    basic::{ConvertedType, LogicalType, TimeUnit, Type},
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData},
        statistics::Statistics,
    },
};

/// A row group, as its file's footer describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowGroup {
    /// The index of the file in the source.
    pub file: usize,
    /// The index of the row group in the file.
    pub index: usize,
    /// The indexes in the file of its rows.
    pub rows: Range<u64>,
    /// The earliest and the latest event time; `None` if the footer does not have them.
    pub event_times: Option<(Micros, Micros)>,
}

/// Chooses the row groups to read. The rows of the others are counted as read.
#[derive(Clone)]
pub struct RowGroupFilter(Arc<dyn Fn(&RowGroup) -> bool + Send + Sync>);

/// The filter of a file, and the properties of the file that it needs.
pub(super) struct FileFilter {
    filter: Option<RowGroupFilter>,
    file: usize,
    /// The index of the leaf with the event times.
    time_leaf: Option<usize>,
}

// === impl RowGroupFilter ===

impl RowGroupFilter {
    /// Creates a filter that reads the row groups for which `is_chosen` returns true.
    pub fn new(is_chosen: impl Fn(&RowGroup) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_chosen))
    }
}

impl Debug for RowGroupFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("RowGroupFilter")
    }
}

// === impl FileFilter ===

impl FileFilter {
    /// Creates the filter of the file with this index in the source. `time_root` is the index of the file's root column
    /// with the event times, if it has one.
    pub(super) fn new(
        filter: Option<&RowGroupFilter>,
        file: usize,
        time_root: Option<usize>,
        metadata: &ParquetMetaData,
    ) -> Self {
        let schema = metadata.file_metadata().schema_descr();
        let leaf = |root: usize| (0..schema.num_columns()).find(|leaf| schema.get_column_root_idx(*leaf) == root);
        Self { filter: filter.cloned(), file, time_leaf: time_root.and_then(leaf) }
    }

    /// Returns whether to read a row group whose first row has the index `first_row` in the file.
    pub(super) fn is_chosen(&self, metadata: &ParquetMetaData, index: usize, first_row: u64) -> bool {
        let Some(RowGroupFilter(is_chosen)) = &self.filter else { return true };
        let group = metadata.row_group(index);
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let event_times = self.time_leaf.and_then(|leaf| group.columns().get(leaf)).and_then(instants);
        is_chosen(&RowGroup { file: self.file, index, rows: first_row..first_row.saturating_add(rows), event_times })
    }
}

/// Returns the earliest and the latest instant of a column of timestamps, from its statistics. A fraction of a microsecond
/// is truncated, as it is in values.
fn instants(column: &ColumnChunkMetaData) -> Option<(Micros, Micros)> {
    let descr = column.column_descr();
    if descr.physical_type() != Type::INT64 || descr.max_rep_level() > 0 {
        return None;
    }
    // Older files only have the converted type.
    let unit = match (descr.logical_type_ref(), descr.converted_type()) {
        (Some(LogicalType::Timestamp(timestamp)), _) => timestamp.unit,
        (None, ConvertedType::TIMESTAMP_MILLIS) => TimeUnit::MILLIS,
        (None, ConvertedType::TIMESTAMP_MICROS) => TimeUnit::MICROS,
        _ => return None,
    };
    let micros = |value: &i64| match unit {
        TimeUnit::MILLIS => value.checked_mul(1_000),
        TimeUnit::MICROS => Some(*value),
        TimeUnit::NANOS => Some(value.div_euclid(1_000)),
    };
    let Statistics::Int64(statistics) = column.statistics()? else { return None };
    Some((statistics.min_opt().and_then(micros)?, statistics.max_opt().and_then(micros)?))
}
