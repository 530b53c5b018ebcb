//! Cuts decoded batches into pieces of limited size.
//!
//! Strings are decoded as views of 16 bytes, which refer to pages or to a dictionary. A batch of views can be small
//! although the strings are large, so one piece at a time is copied, whose size is known from [`row_sizes`].
//!
//! [`row_sizes`]: larder_columns::row_sizes

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
        array::{Int64Array, StringArray},
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
