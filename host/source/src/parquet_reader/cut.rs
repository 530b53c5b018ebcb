//! Cuts decoded batches into pieces of limited size.
//!
//! Strings are decoded as views of 16 bytes, which refer to pages or to a dictionary. A batch of views can be small
//! although the strings are large, so this module computes the size of the copied rows and copies one piece at a time.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, GenericListArray, MapArray, OffsetSizeTrait, RecordBatch, RecordBatchOptions,
        StructArray,
    },
    buffer::OffsetBuffer,
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Fields, Schema},
    error::ArrowError,
};

/// The overhead of a value within a struct while it is converted, in bytes.
const CELL_BYTES: u64 = 64;

/// Returns the type that a column is decoded to: strings and bytes as views, never as a dictionary.
pub(super) fn decoded_type(of: &DataType) -> DataType {
    match of {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        DataType::Dictionary(_, values) => decoded_type(values),
        // A fixed-size list is decoded as a list of variable length. Otherwise, each null would be padded to the fixed
        // size, and the file's Arrow schema can claim any size.
        DataType::List(item) | DataType::ListView(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(with_type(item, decoded_type))
        }
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(with_type(item, decoded_type)),
        DataType::Map(entries, sorted) => DataType::Map(with_type(entries, decoded_type), *sorted),
        DataType::Struct(fields) => DataType::Struct(decoded_fields(fields)),
        other => other.clone(),
    }
}

/// Returns the fields with the types that the reader decodes them to.
pub(super) fn decoded_fields(fields: &Fields) -> Fields {
    fields.iter().map(|field| with_type(field, decoded_type)).collect()
}

fn with_type(field: &FieldRef, change: fn(&DataType) -> DataType) -> FieldRef {
    Arc::new(Field::clone(field).with_data_type(change(field.data_type())))
}

/// Returns the size of each row of a batch in bytes.
pub(super) fn row_sizes(batch: &RecordBatch) -> Vec<u64> {
    let mut sizes = vec![0; batch.num_rows()];
    batch.columns().iter().for_each(|column| add_sizes(column, &mut sizes));
    sizes
}

/// Adds the size of each value of an array to the size of its row.
fn add_sizes(array: &ArrayRef, sizes: &mut [u64]) {
    let each = |sizes: &mut [u64], bytes: u64| sizes.iter_mut().for_each(|size| *size = size.saturating_add(bytes));
    // The length of a view is its lowest 32 bits.
    let views = |sizes: &mut [u64], views: &[u128]| {
        let sum = |(size, view): (&mut u64, &u128)| *size = size.saturating_add(u64::from(length_of(*view)) + 4);
        sizes.iter_mut().zip(views).for_each(sum);
    };
    match array.data_type() {
        DataType::Utf8View => views(sizes, array.as_string_view().views()),
        DataType::BinaryView => views(sizes, array.as_binary_view().views()),
        DataType::List(_) => add_lists(array.as_list::<i32>().values(), array.as_list::<i32>().value_offsets(), sizes),
        DataType::LargeList(_) => {
            add_lists(array.as_list::<i64>().values(), array.as_list::<i64>().value_offsets(), sizes);
        }
        DataType::Map(..) => {
            let entries: ArrayRef = Arc::new(array.as_map().entries().clone());
            add_lists(&entries, array.as_map().value_offsets(), sizes);
        }
        DataType::Struct(fields) => {
            // After the conversion, each value of a struct has its own copies of the field names.
            each(sizes, fields.iter().map(|field| field.name().len() as u64 + CELL_BYTES).sum());
            array.as_struct().columns().iter().for_each(|column| add_sizes(column, sizes));
        }
        other => each(sizes, width_of(other)),
    }
}

fn add_lists<O: OffsetSizeTrait>(values: &ArrayRef, offsets: &[O], sizes: &mut [u64]) {
    let spans = offsets.windows(2).map(|ends| ends[0].as_usize()..ends[1].as_usize());
    // Items of the same width need no individual sizes.
    if let Some(width) = fixed_width_of(values.data_type()) {
        let add = |(size, span): (&mut u64, Range<usize>)| *size = size.saturating_add(span.len() as u64 * width + 4);
        return sizes.iter_mut().zip(spans).for_each(add);
    }
    let mut items = vec![0; values.len()];
    add_sizes(values, &mut items);
    for (size, span) in sizes.iter_mut().zip(spans) {
        let sum = items[span].iter().fold(4, |sum: u64, item| sum.saturating_add(*item));
        *size = size.saturating_add(sum);
    }
}

fn length_of(view: u128) -> u32 {
    u32::try_from(view & u128::from(u32::MAX)).unwrap_or(u32::MAX)
}

fn fixed_width_of(of: &DataType) -> Option<u64> {
    let is_variable = matches!(of, DataType::Utf8View | DataType::BinaryView) || of.is_nested();
    (!is_variable).then(|| width_of(of))
}

fn width_of(of: &DataType) -> u64 {
    match of {
        DataType::FixedSizeBinary(length) => u64::try_from(*length).unwrap_or(0),
        // After the conversion, each value with a time zone has its own copy of the zone's name.
        DataType::Timestamp(_, Some(zone)) => 8 + zone.len() as u64,
        other => other.primitive_width().map_or(1, |width| width as u64),
    }
}

/// Copies some rows of a batch. Strings and bytes are copied from views to the standard layout, and lists are copied
/// without the items of other rows.
pub(super) fn piece(batch: &RecordBatch, rows: Range<usize>) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| piece_of(column, rows.clone())).collect::<Result<Vec<_>, _>>()?;
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(&columns);
    let fields: Fields =
        fields.map(|(field, column)| Field::clone(field).with_data_type(column.data_type().clone())).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn piece_of(array: &ArrayRef, rows: Range<usize>) -> Result<ArrayRef, ArrowError> {
    let sliced = array.slice(rows.start, rows.len());
    let typed =
        |field: &FieldRef, array: &ArrayRef| Arc::new(Field::clone(field).with_data_type(array.data_type().clone()));
    Ok(match array.data_type() {
        DataType::Utf8View => cast(&sliced, &DataType::Utf8)?,
        DataType::BinaryView => cast(&sliced, &DataType::Binary)?,
        DataType::List(item) => list_piece(sliced.as_list::<i32>(), item)?,
        DataType::LargeList(item) => list_piece(sliced.as_list::<i64>(), item)?,
        DataType::Map(entries_field, sorted) => {
            let map = sliced.as_map();
            let (offsets, span) = rebased(map.value_offsets());
            let entries: ArrayRef = Arc::new(map.entries().clone());
            let entries = piece_of(&entries, span)?;
            let field = typed(entries_field, &entries);
            let entries = entries.as_struct().clone();
            Arc::new(MapArray::try_new(field, offsets, entries, map.nulls().cloned(), *sorted)?)
        }
        DataType::Struct(fields) => {
            let array = sliced.as_struct();
            let columns = array.columns().iter().map(|column| piece_of(column, 0..column.len()));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            let fields: Fields = fields.iter().zip(&columns).map(|(field, column)| typed(field, column)).collect();
            Arc::new(StructArray::try_new_with_length(fields, columns, array.nulls().cloned(), array.len())?)
        }
        _ => sliced,
    })
}

fn list_piece<O: OffsetSizeTrait>(list: &GenericListArray<O>, item: &FieldRef) -> Result<ArrayRef, ArrowError> {
    let (offsets, span) = rebased(list.value_offsets());
    let values = piece_of(list.values(), span)?;
    let field = Arc::new(Field::clone(item).with_data_type(values.data_type().clone()));
    Ok(Arc::new(GenericListArray::try_new(field, offsets, values, list.nulls().cloned())?))
}

/// Returns the offsets, shifted to start at 0, and the range of values that the original offsets span.
fn rebased<O: OffsetSizeTrait>(offsets: &[O]) -> (OffsetBuffer<O>, Range<usize>) {
    let first = offsets.first().copied().unwrap_or_default();
    let last = offsets.last().copied().unwrap_or_default();
    let rebased: Vec<O> = offsets.iter().map(|offset| *offset - first).collect();
    (OffsetBuffer::new(rebased.into()), first.as_usize()..last.as_usize())
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Int64Array, StringArray, TimestampMicrosecondArray},
        datatypes::Int64Type,
    };

    use super::*;

    fn views(texts: &[Option<&str>]) -> ArrayRef {
        cast(&(Arc::new(StringArray::from(texts.to_vec())) as ArrayRef), &DataType::Utf8View).unwrap()
    }

    /// Returns a column of lists of strings; the list in the second row is null.
    fn lists() -> ArrayRef {
        let item = Arc::new(Field::new("item", DataType::Utf8View, true));
        let offsets = OffsetBuffer::new(vec![0, 2, 2, 3].into());
        let values = views(&[Some("a text of more than twelve bytes"), None, Some("c")]);
        let nulls = Some(vec![true, false, true].into());
        Arc::new(GenericListArray::<i32>::try_new(item, offsets, values, nulls).unwrap())
    }

    fn batch() -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let texts = views(&[Some("x"), Some("another text of more than twelve"), None]);
        let inner = StructArray::try_from(vec![("n", Arc::clone(&numbers)), ("t", Arc::clone(&texts))]).unwrap();
        let columns = [("n", numbers), ("t", texts), ("l", lists()), ("s", Arc::new(inner) as ArrayRef)];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
    }

    #[test]
    fn row_sizes_include_viewed_bytes() {
        let texts = [1 + 4, 32 + 4, 4];
        let lists = [4 + 32 + 4 + 4, 4, 4 + 1 + 4];
        let expected: Vec<u64> =
            (0..3).map(|row| 8 + texts[row] + lists[row] + 8 + texts[row] + 2 * (1 + CELL_BYTES)).collect();
        assert_eq!(row_sizes(&batch()), expected);
    }

    #[test]
    fn field_and_zone_names_are_counted() {
        let name = "n".repeat(1 << 20);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let of_struct: ArrayRef = Arc::new(StructArray::try_from(vec![(name.as_str(), numbers)]).unwrap());
        let instants = TimestampMicrosecondArray::from(vec![1, 2]).with_timezone(name.as_str());
        let columns = [("s", of_struct), ("z", Arc::new(instants) as ArrayRef)];
        let sizes = row_sizes(&RecordBatch::try_from_iter(columns).unwrap());
        assert!(sizes.iter().all(|size| *size > 2 << 20), "{sizes:?}");
    }

    #[test]
    fn pieces_have_exactly_their_rows() {
        let batch = batch();
        let last = piece(&batch, 2..3).unwrap();
        assert_eq!(last.column(0).as_primitive::<Int64Type>().values(), &[3]);
        assert!(last.column(1).as_string::<i32>().is_null(0));
        let list = last.column(2).as_list::<i32>();
        assert_eq!((list.value_offsets(), list.values().len()), (&[0, 1][..], 1));
        assert_eq!(list.values().as_string::<i32>().value(0), "c");
        let first = piece(&batch, 0..2).unwrap();
        assert_eq!(
            first.column(3).as_struct().column(1).as_string::<i32>().value(1),
            "another text of more than twelve"
        );
        assert!(first.column(2).is_null(1));
        let again = arrow::compute::concat_batches(&first.schema(), [&first, &last]).unwrap();
        assert_eq!(again.num_rows(), 3);
    }
}
