//! Converts between columns of plugins and Arrow arrays, without loss.
//!
//! The types are those of Arrow responses (`larder_columns`): a timestamp is an instant in microseconds in UTC. The only
//! addition is that the items of a list are nullable exactly if they are for the plugin.

use std::{iter, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use larder_columns::{ArrayError, instants, list_array, scalar_array};
use larder_model::model::ValueRef;
use larder_plugin_host::{ColumnRef, ColumnScalar, ColumnType, ColumnWriter};

const SCALARS: [ColumnScalar; 8] = [
    ColumnScalar::Bool,
    ColumnScalar::Int32,
    ColumnScalar::Int64,
    ColumnScalar::Float32,
    ColumnScalar::Float64,
    ColumnScalar::Utf8,
    ColumnScalar::Binary,
    ColumnScalar::Timestamp,
];

/// Returns the Arrow type of a column.
#[must_use]
pub fn data_type_of(column_type: ColumnType) -> DataType {
    let item = scalars("", column_type.scalar, iter::empty());
    // An empty array has no offsets that could be too large.
    let item = item.map_or(DataType::Null, |array| array.data_type().clone());
    if column_type.is_list { DataType::List(item_field(item, column_type)) } else { item }
}

/// Returns the column type that has this Arrow type, if there is one.
#[must_use]
pub fn column_type_of(data_type: &DataType) -> Option<ColumnType> {
    let types = SCALARS.into_iter().flat_map(|scalar| {
        let list = ColumnType::list(scalar);
        [ColumnType::single(scalar), list, ColumnType { nullable_items: true, ..list }]
    });
    types.into_iter().find(|of| data_type_of(*of).equals_datatype(data_type))
}

/// Returns an Arrow array with the values of a column. `name` is for the error.
///
/// # Errors
/// [`ArrayError`], if the values are too large for one array.
pub fn column_array(name: &str, column: ColumnRef<'_>) -> Result<ArrayRef, ArrayError> {
    let column_type = column.column_type();
    let rows = 0..column.rows();
    if !column_type.is_list {
        return scalars(name, column_type.scalar, rows.map(|row| column.value(row)));
    }
    let present = rows.clone().filter(|row| column.is_present(*row));
    let items = present.flat_map(|row| column.items(row..row + 1)).map(|item| column.item(item));
    let items = scalars(name, column_type.scalar, items)?;
    let length = |row: usize| column.is_present(row).then(|| column.items(row..row + 1).len());
    list_array(name, rows.map(length), item_field(items.data_type().clone(), column_type), items)
}

/// Fills a column with the values of an array, which has the type that [`data_type_of`] returns for the column.
pub fn fill_column(column: &mut ColumnWriter<'_>, array: &ArrayRef) {
    let ColumnType { scalar, is_list, .. } = column.column_type();
    if !is_list {
        return column.extend((0..array.len()).map(|row| value(array, scalar, row)));
    }
    let lists = array.as_list::<i32>();
    for row in 0..lists.len() {
        if lists.is_null(row) {
            column.push(ValueRef::Null);
        } else {
            let items = lists.value(row);
            column.push_list((0..items.len()).map(|item| value(&items, scalar, item)));
        }
    }
}

fn item_field(item: DataType, column_type: ColumnType) -> Arc<Field> {
    Arc::new(Field::new_list_field(item, column_type.nullable_items))
}

fn scalars<'v>(
    name: &str,
    scalar: ColumnScalar,
    values: impl Iterator<Item = ValueRef<'v>>,
) -> Result<ArrayRef, ArrayError> {
    if scalar == ColumnScalar::Timestamp {
        // `scalar_array` replaces the smallest timestamp by a null, as responses do.
        return Ok(instants(values.map(|value| if let ValueRef::Int64(micros) = value { Some(micros) } else { None })));
    }
    scalar_array(name, scalar.into(), values)
}

fn value(array: &ArrayRef, scalar: ColumnScalar, row: usize) -> ValueRef<'_> {
    if array.is_null(row) {
        return ValueRef::Null;
    }
    match scalar {
        ColumnScalar::Bool => ValueRef::Bool(array.as_boolean().value(row)),
        ColumnScalar::Int32 => ValueRef::Int32(array.as_primitive::<Int32Type>().value(row)),
        ColumnScalar::Int64 => ValueRef::Int64(array.as_primitive::<Int64Type>().value(row)),
        ColumnScalar::Float32 => ValueRef::Float32(array.as_primitive::<Float32Type>().value(row)),
        ColumnScalar::Float64 => ValueRef::Float64(array.as_primitive::<Float64Type>().value(row)),
        ColumnScalar::Utf8 => ValueRef::Bytes(array.as_string::<i32>().value(row).as_bytes()),
        ColumnScalar::Binary => ValueRef::Bytes(array.as_binary::<i32>().value(row)),
        ColumnScalar::Timestamp => ValueRef::Int64(array.as_primitive::<TimestampMicrosecondType>().value(row)),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;
    use larder_model::model::{NULL_TIMESTAMP_SECONDS, Value};
    use larder_plugin_host::FrameBuilder;
    use proptest::{collection::vec, option, prelude::*, sample::select};

    use super::*;

    fn any_type() -> impl Strategy<Value = ColumnType> {
        (select(SCALARS.to_vec()), any::<bool>(), any::<bool>()).prop_map(|(scalar, is_list, nullable)| ColumnType {
            scalar,
            is_list,
            nullable_items: is_list && nullable,
        })
    }

    fn any_scalar(scalar: ColumnScalar) -> BoxedStrategy<Value> {
        match scalar {
            ColumnScalar::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
            ColumnScalar::Int32 => any::<i32>().prop_map(Value::Int32).boxed(),
            ColumnScalar::Int64 => any::<i64>().prop_map(Value::Int64).boxed(),
            // All bit patterns, which include negative zero and NaNs with payloads.
            ColumnScalar::Float32 => any::<u32>().prop_map(|bits| Value::Float32(f32::from_bits(bits))).boxed(),
            ColumnScalar::Float64 => any::<u64>().prop_map(|bits| Value::Float64(f64::from_bits(bits))).boxed(),
            ColumnScalar::Utf8 => ".{0,9}".prop_map(|text| Value::Bytes(text.into_bytes())).boxed(),
            ColumnScalar::Binary => vec(any::<u8>(), 0..9).prop_map(Value::Bytes).boxed(),
            ColumnScalar::Timestamp => any::<i64>()
                .prop_filter("a frame has a null instead", |micros| *micros != NULL_TIMESTAMP_SECONDS)
                .prop_map(Value::Int64)
                .boxed(),
        }
    }

    fn any_column() -> impl Strategy<Value = (ColumnType, Vec<Option<Vec<Option<Value>>>>)> {
        any_type().prop_flat_map(|column_type| {
            let item = any_scalar(column_type.scalar);
            let item = if column_type.nullable_items { option::of(item).boxed() } else { item.prop_map(Some).boxed() };
            let items = if column_type.is_list { vec(item, 0..4) } else { vec(item, 1..2) };
            (Just(column_type), vec(option::of(items), 0..20))
        })
    }

    proptest! {
        #[test]
        fn columns_survive_arrow((column_type, rows) in any_column()) {
            let mut frame = FrameBuilder::new([column_type], rows.len());
            frame.column(|column| {
                for row in &rows {
                    match row {
                        None => column.push(ValueRef::Null),
                        Some(items) => {
                            let mut items =
                                items.iter().map(|item| item.as_ref().map_or(ValueRef::Null, Value::as_item));
                            if column_type.is_list {
                                column.push_list(items);
                            } else {
                                column.push(items.next().unwrap());
                            }
                        }
                    }
                }
            });
            let frame = frame.finish();
            let array = column_array("x", frame.column(0)).unwrap();
            prop_assert_eq!(array.data_type(), &data_type_of(column_type));
            let mut copy = FrameBuilder::new([column_type], rows.len());
            copy.column(|column| fill_column(column, &array));
            let copy = copy.finish();
            prop_assert_eq!(array.to_data(), column_array("x", copy.column(0)).unwrap().to_data());
            prop_assert!(copy.column(0) == frame.column(0));
        }
    }

    #[test]
    fn each_type_has_its_own_arrow_type() {
        for scalar in SCALARS {
            for is_list in [false, true] {
                for nullable_items in [false, is_list] {
                    let of = ColumnType { scalar, is_list, nullable_items };
                    assert_eq!(column_type_of(&data_type_of(of)), Some(of));
                }
            }
        }
        assert_eq!(data_type_of(ColumnType::TIMESTAMP), DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
        assert_eq!(column_type_of(&DataType::Timestamp(TimeUnit::Microsecond, None)), None);
        assert_eq!(column_type_of(&DataType::LargeUtf8), None);
    }
}
