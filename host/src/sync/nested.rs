//! Maps, structs, lists of lists and zoned timestamps: Arrow's trees to Feast's value messages.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{
        DataType, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
        TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    },
};
use larder_model::model::{
    BoolList, BytesList, DoubleList, FeastMap, FeastMapList, FeastValue, FloatList, Int32List, Int64List, Kind,
    NestedType, RepeatedValue, StringList, ZonedTimestamp,
};

use super::decode::Misfit;

/// A message that is nested deeper does not decode: readers of protobuf, prost and Feast's own, stop at 100.
const MESSAGES_MAX: usize = 97;

/// The message of every row's value, as bytes; `None` for a null.
pub(super) fn encode_column(array: &ArrayRef, kind: NestedType) -> Result<Vec<Option<Vec<u8>>>, Misfit> {
    let depth = messages(array.data_type());
    if depth > MESSAGES_MAX {
        return Err(format!(
            "the column is nested too deep: its values would be messages of {depth} levels, at most {MESSAGES_MAX} can be \
             read (a struct or a map is 3 of them, a list 2)"
        ));
    }
    (0..array.len())
        .map(|row| {
            if array.is_null(row) {
                return Ok(None);
            }
            let value = FeastValue { kind: Some(nested(array, row, kind)?) };
            Ok(Some(prost::Message::encode_to_vec(&value)))
        })
        .collect()
}

/// How deep the message of a value of a type is nested.
fn messages(of: &DataType) -> usize {
    match of {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => 2 + messages(item.data_type()),
        DataType::Struct(fields) => 3 + fields.iter().map(|field| messages(field.data_type())).max().unwrap_or(0),
        // A map is a list of structs of a key and a value.
        DataType::Map(entries, _) => messages(entries.data_type()),
        _ => 1,
    }
}

fn nested(array: &ArrayRef, row: usize, kind: NestedType) -> Result<Kind, Misfit> {
    Ok(match kind {
        NestedType::Map => Kind::Map(map(array, row)?),
        NestedType::Struct => Kind::Struct(map(array, row)?),
        NestedType::MapList => Kind::MapList(maps(array, row)?),
        NestedType::StructList => Kind::StructList(maps(array, row)?),
        NestedType::ValueList => Kind::List(values(array, row)?),
        NestedType::ValueSet => Kind::Set(values(array, row)?),
        NestedType::ZonedTimestamp => Kind::ZonedTimestamp(zoned(array, row)?),
        NestedType::ScalarMap => return Err("ScalarMap columns are not read: Feast itself serves them as null".into()),
    })
}

/// A map with text keys, or a struct's fields.
fn map(array: &ArrayRef, row: usize) -> Result<FeastMap, Misfit> {
    let mut map = FeastMap::default();
    match array.data_type() {
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let keys =
                cast(entries.column(0), &DataType::Utf8).map_err(|_| "the map's keys are not text".to_owned())?;
            let keys = keys.as_string::<i32>();
            for i in 0..entries.len() {
                map.val.insert(keys.value(i).to_owned(), value(entries.column(1), i)?);
            }
        }
        DataType::Struct(fields) => {
            for (field, column) in fields.iter().zip(array.as_struct().columns()) {
                map.val.insert(field.name().clone(), value(column, row)?);
            }
        }
        other => return Err(format!("the column is {other}, and has to be a map or a struct")),
    }
    Ok(map)
}

fn maps(array: &ArrayRef, row: usize) -> Result<FeastMapList, Misfit> {
    let items = items(array, row).ok_or("the column is no list")?;
    Ok(FeastMapList { val: (0..items.len()).map(|i| map(&items, i)).collect::<Result<_, _>>()? })
}

fn values(array: &ArrayRef, row: usize) -> Result<RepeatedValue, Misfit> {
    let items = items(array, row).ok_or("the column is no list")?;
    Ok(RepeatedValue { val: (0..items.len()).map(|i| value(&items, i)).collect::<Result<_, _>>()? })
}

fn zoned(array: &ArrayRef, row: usize) -> Result<ZonedTimestamp, Misfit> {
    let DataType::Timestamp(_, Some(zone)) = array.data_type() else {
        return Err(format!("the column is {}, and has to be a timestamp with a time zone", array.data_type()));
    };
    Ok(ZonedTimestamp { unix_timestamp: seconds(array, row), zone: zone.to_string() })
}

/// Any value inside a tree, by the type that Arrow gives it.
fn value(array: &ArrayRef, row: usize) -> Result<FeastValue, Misfit> {
    if array.is_null(row) {
        return Ok(FeastValue { kind: None });
    }
    let one = |to: &DataType| cast(&array.slice(row, 1), to).map_err(|error| error.to_string());
    let kind = match array.data_type() {
        DataType::Null => return Ok(FeastValue { kind: None }),
        DataType::Boolean => Kind::Bool(array.as_boolean().value(row)),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
            Kind::Int32(one(&DataType::Int32)?.as_primitive::<Int32Type>().value(0))
        }
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => {
            Kind::Int64(one(&DataType::Int64)?.as_primitive::<Int64Type>().value(0))
        }
        DataType::Float16 | DataType::Float32 => {
            Kind::Float(one(&DataType::Float32)?.as_primitive::<Float32Type>().value(0))
        }
        DataType::Float64 => Kind::Double(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
            Kind::String(one(&DataType::Utf8)?.as_string::<i32>().value(0).to_owned())
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            Kind::Bytes(one(&DataType::Binary)?.as_binary::<i32>().value(0).to_vec())
        }
        DataType::Decimal128(..) | DataType::Decimal256(..) => {
            Kind::Decimal(one(&DataType::Utf8)?.as_string::<i32>().value(0).to_owned())
        }
        DataType::Timestamp(..) => Kind::UnixTimestamp(seconds(array, row)),
        DataType::Map(..) | DataType::Struct(_) => Kind::Map(map(array, row)?),
        other => match items(array, row) {
            Some(items) => list(&items)?,
            None => return Err(format!("a value inside the column is {other}, which has no Feast type")),
        },
    };
    Ok(FeastValue { kind: Some(kind) })
}

/// A list inside a tree: of the narrowest list type that holds it.
fn list(items: &ArrayRef) -> Result<Kind, Misfit> {
    let kinds = (0..items.len()).map(|i| value(items, i)).collect::<Result<Vec<_>, _>>()?;
    macro_rules! gather {
        ($kind:ident, $list:ident, $to:ident) => {{
            let val = kinds.iter().map(|value| match &value.kind {
                Some(Kind::$kind(item)) => item.clone(),
                _ => Default::default(),
            });
            Kind::$to($list { val: val.collect() })
        }};
    }
    Ok(match items.data_type() {
        DataType::Boolean => gather!(Bool, BoolList, BoolList),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
            gather!(Int32, Int32List, Int32List)
        }
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => gather!(Int64, Int64List, Int64List),
        DataType::Float16 | DataType::Float32 => gather!(Float, FloatList, FloatList),
        DataType::Float64 => gather!(Double, DoubleList, DoubleList),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => gather!(String, StringList, StringList),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => gather!(Bytes, BytesList, BytesList),
        DataType::Timestamp(..) => gather!(UnixTimestamp, Int64List, UnixTimestampList),
        _ => Kind::List(RepeatedValue { val: kinds }),
    })
}

/// The items of one list.
fn items(array: &ArrayRef, row: usize) -> Option<ArrayRef> {
    match array.data_type() {
        DataType::List(_) => Some(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Some(array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => Some(array.as_fixed_size_list().value(row)),
        _ => None,
    }
}

fn seconds(array: &ArrayRef, row: usize) -> i64 {
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => array.as_primitive::<TimestampSecondType>().value(row),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            array.as_primitive::<TimestampMillisecondType>().value(row).div_euclid(1_000)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            array.as_primitive::<TimestampMicrosecondType>().value(row).div_euclid(1_000_000)
        }
        _ => array.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StructArray};
    use prost::Message as _;

    use super::*;

    #[test]
    fn struct_too_deep_to_be_read_is_an_error() {
        let nested = |depth: usize| {
            (0..depth).fold(Arc::new(Int64Array::from(vec![7])) as ArrayRef, |inner, _| {
                Arc::new(StructArray::try_from(vec![("s", inner)]).unwrap())
            })
        };
        let encoded = encode_column(&nested(32), NestedType::Map).unwrap();
        let value = FeastValue::decode(encoded[0].as_deref().unwrap()).unwrap();
        assert!(matches!(value.kind, Some(Kind::Map(_))));
        let error = encode_column(&nested(33), NestedType::Map).unwrap_err();
        assert!(
            error.starts_with("the column is nested too deep: its values would be messages of 100 levels"),
            "{error}"
        );
    }
}
