//! The sizes of rows in memory, to divide batches into pieces of limited size.

use std::ops::Range;

use arrow::{
    array::{Array, ArrayRef, AsArray, OffsetSizeTrait, RecordBatch, make_array},
    datatypes::{ArrowNativeType, BinaryType, ByteArrayType, DataType, LargeBinaryType, LargeUtf8Type, Utf8Type},
};

/// The overhead of a value within a struct while it is converted, in bytes.
const CELL_BYTES: u64 = 64;

/// Returns the size of each row of a batch in bytes, after its strings, dictionaries and lists are copied. The size of
/// a row depends only on its values, not on the other rows of the batch.
#[must_use]
pub fn row_sizes(batch: &RecordBatch) -> Vec<u64> {
    let mut sizes = vec![0; batch.num_rows()];
    batch.columns().iter().for_each(|column| add_sizes(column, &mut sizes));
    sizes
}

/// Returns the size in bytes that all rows with these types have; `None` if the sizes of rows differ.
pub fn fixed_row_size<'t>(mut types: impl Iterator<Item = &'t DataType>) -> Option<u64> {
    types.try_fold(0, |sum: u64, of| Some(sum.saturating_add(fixed_width_of(of)?)))
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
        DataType::Utf8 => add_bytes::<Utf8Type>(array, sizes),
        DataType::LargeUtf8 => add_bytes::<LargeUtf8Type>(array, sizes),
        DataType::Binary => add_bytes::<BinaryType>(array, sizes),
        DataType::LargeBinary => add_bytes::<LargeBinaryType>(array, sizes),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let mut values = vec![0; dictionary.values().len()];
            add_sizes(dictionary.values(), &mut values);
            let keys = dictionary.normalized_keys();
            for ((size, key), row) in sizes.iter_mut().zip(keys).zip(0..) {
                let value = if array.is_null(row) { 4 } else { values.get(key).copied().unwrap_or_default() };
                *size = size.saturating_add(value);
            }
        }
        DataType::List(_) => add_lists(array.as_list::<i32>().values(), array.as_list::<i32>().value_offsets(), sizes),
        DataType::LargeList(_) => {
            add_lists(array.as_list::<i64>().values(), array.as_list::<i64>().value_offsets(), sizes);
        }
        DataType::FixedSizeList(_, length) => {
            let offsets: Vec<i64> = (0..=array.len()).map(|row| row as i64 * i64::from(*length)).collect();
            add_lists(array.as_fixed_size_list().values(), &offsets, sizes);
        }
        DataType::Map(..) => {
            let entries = make_array(array.as_map().entries().to_data());
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

fn add_bytes<T: ByteArrayType>(array: &ArrayRef, sizes: &mut [u64]) {
    let lengths = array.as_bytes::<T>().value_offsets().windows(2);
    for (size, ends) in sizes.iter_mut().zip(lengths) {
        *size = size.saturating_add((ends[1].as_usize() - ends[0].as_usize()) as u64 + 4);
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
    let is_text = matches!(
        of,
        DataType::Utf8View
            | DataType::BinaryView
            | DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::Dictionary(..)
    );
    (!is_text && !of.is_nested()).then(|| width_of(of))
}

fn width_of(of: &DataType) -> u64 {
    match of {
        DataType::FixedSizeBinary(length) => u64::try_from(*length).unwrap_or(0),
        // After the conversion, each value with a time zone has its own copy of the zone's name.
        DataType::Timestamp(_, Some(zone)) => 8 + zone.len() as u64,
        other => other.primitive_width().map_or(1, |width| width as u64),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Int64Array, ListArray, StringArray, StructArray, TimestampMicrosecondArray},
        buffer::OffsetBuffer,
        compute::cast,
        datatypes::Field,
    };

    use super::*;

    const LONG: &str = "another text of more than twelve";

    fn texts() -> ArrayRef {
        Arc::new(StringArray::from(vec![Some("x"), Some(LONG), None]))
    }

    /// Returns a column of lists of strings; the list in the second row is null.
    fn lists() -> ArrayRef {
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        let offsets = OffsetBuffer::new(vec![0, 2, 2, 3].into());
        let values = Arc::new(StringArray::from(vec![Some(LONG), None, Some("c")]));
        Arc::new(ListArray::try_new(item, offsets, values, Some(vec![true, false, true].into())).unwrap())
    }

    fn of(array: ArrayRef) -> Vec<u64> {
        row_sizes(&RecordBatch::try_from_iter_with_nullable([("a", array, true)]).unwrap())
    }

    #[test]
    fn row_sizes_count_each_type() {
        let text = [1 + 4, 32 + 4, 4];
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let text_types = [DataType::LargeUtf8, DataType::Utf8View, DataType::Binary, DataType::BinaryView, dictionary];
        for other in text_types {
            assert_eq!(of(cast(&texts(), &other).unwrap()), text, "{other}");
        }
        assert_eq!(of(texts()), text);
        assert_eq!(of(lists()), [4 + 36 + 4, 4, 4 + 5]);
        let views = DataType::LargeList(Arc::new(Field::new("item", DataType::Utf8View, true)));
        assert_eq!(of(cast(&lists(), &views).unwrap()), [4 + 36 + 4, 4, 4 + 5]);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        assert_eq!(of(Arc::clone(&numbers)), [8; 3]);
        let inner = StructArray::try_from(vec![("n", numbers), ("t", texts())]).unwrap();
        assert_eq!(of(Arc::new(inner)), text.map(|text| 8 + text + 2 * (1 + CELL_BYTES)));
    }

    #[test]
    fn sizes_of_slices_are_equal() {
        for array in [texts(), lists(), cast(&texts(), &DataType::Utf8View).unwrap()] {
            let whole = of(Arc::clone(&array));
            assert_eq!(of(array.slice(1, 2)), whole[1..]);
        }
        let pairs = DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Int32, true)), 2);
        let array = arrow::array::new_null_array(&pairs, 3);
        assert_eq!(of(array.slice(1, 2)), [4 + 8; 2]);
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
    fn rows_of_numbers_have_one_size() {
        let fixed = |types: &[DataType]| fixed_row_size(types.iter());
        assert_eq!(fixed(&[DataType::Int64, DataType::Boolean, DataType::FixedSizeBinary(5)]), Some(8 + 1 + 5));
        assert_eq!(fixed(&[DataType::Int64, DataType::Utf8]), None);
        assert_eq!(fixed(&[DataType::List(Arc::new(Field::new("item", DataType::Int8, true)))]), None);
    }
}
