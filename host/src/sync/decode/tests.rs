//! Every conversion that is promised, and every one that is refused.

use arrow::array::{
    Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float32Builder, Int8Array, Int64Builder,
    LargeStringArray, ListBuilder, StringBuilder, StringViewArray, TimestampMicrosecondArray,
    TimestampMicrosecondBuilder, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
    UInt64Array,
};
use arrow::datatypes::Int32Type;
use larder_model::{
    codec::{RowSchema, RowView},
    model::Value,
};

use super::*;

/// The values of a column after their way through a row of one field.
fn convert(array: ArrayRef, value_type: &str) -> Result<Vec<Value>, Misfit> {
    let value_type: ValueType = value_type.parse().unwrap();
    let column = Column::new(&array, value_type)?;
    let schema = RowSchema::new([(Arc::from("f"), value_type)]);
    let mut builder = RowBuilder::new(&schema);
    Ok((0..array.len())
        .map(|row| {
            builder.begin(0, None);
            column.push(row, &mut builder).unwrap();
            let bytes = builder.finish().unwrap();
            RowView::new(&schema, bytes).unwrap().get(0).unwrap().to_value()
        })
        .collect())
}

fn check(array: impl Array + 'static, value_type: &str, expected: &[Value]) {
    assert_eq!(convert(Arc::new(array), value_type).unwrap(), expected, "{value_type}");
}

fn refused(array: impl Array + 'static, value_type: &str, words: &str) {
    let error = convert(Arc::new(array), value_type).unwrap_err();
    assert!(error.contains(words), "{error}");
}

fn text(text: &str) -> Value {
    Value::Bytes(text.into())
}

#[test]
fn integers_widen_and_narrow_where_they_fit() {
    check(Int8Array::from(vec![Some(-5), None]), "Int64", &[Value::Int64(-5), Value::Null]);
    check(Int64Array::from(vec![7]), "Int32", &[Value::Int32(7)]);
    check(Int64Array::from(vec![9_007_199_254_740_993]), "Int64", &[Value::Int64(9_007_199_254_740_993)]);
    refused(Int64Array::from(vec![3_000_000_000]), "Int32", "3000000000");
    refused(UInt64Array::from(vec![u64::MAX]), "Int64", "18446744073709551615");
}

#[test]
fn doubles_stand_for_integers_where_they_are_whole() {
    check(
        Float64Array::from(vec![Some(3.0), Some(f64::NAN), None]),
        "Int64",
        &[Value::Int64(3), Value::Null, Value::Null],
    );
    refused(Float64Array::from(vec![1.5]), "Int64", "1.5, which is no whole number");
    refused(Float64Array::from(vec![1e300]), "Int64", "Int64");
}

#[test]
fn floats_widen_and_round() {
    check(Float64Array::from(vec![0.1]), "Float32", &[Value::Float32(0.1)]);
    check(Float32Array::from(vec![0.1]), "Float64", &[Value::Float64(f64::from(0.1_f32))]);
    check(Int64Array::from(vec![2]), "Float64", &[Value::Float64(2.0)]);
}

#[test]
fn text_comes_in_every_layout() {
    for array in [
        Arc::new(StringArray::from(vec!["é"])) as ArrayRef,
        Arc::new(LargeStringArray::from(vec!["é"])),
        Arc::new(StringViewArray::from(vec!["é"])),
        Arc::new(vec!["é"].into_iter().collect::<DictionaryArray<Int32Type>>()),
    ] {
        assert_eq!(convert(array, "String").unwrap(), [text("é")]);
    }
    check(StringArray::from(vec!["ab"]), "Bytes", &[text("ab")]);
    check(BinaryArray::from(vec![&b"\x00\xff"[..]]), "Bytes", &[Value::Bytes(vec![0, 255])]);
}

#[test]
fn instants_of_every_unit_become_microseconds_and_a_zone_changes_nothing() {
    check(TimestampSecondArray::from(vec![1]), "UnixTimestamp", &[Value::Int64(1_000_000)]);
    check(TimestampMillisecondArray::from(vec![-1]), "UnixTimestamp", &[Value::Int64(-1_000)]);
    check(TimestampMicrosecondArray::from(vec![1]).with_timezone("Europe/Paris"), "UnixTimestamp", &[Value::Int64(1)]);
    check(TimestampNanosecondArray::from(vec![-1]), "UnixTimestamp", &[Value::Int64(-1)]);
    check(Date32Array::from(vec![1]), "UnixTimestamp", &[Value::Int64(86_400_000_000)]);
    check(Int64Array::from(vec![1_700_000_000]), "UnixTimestamp", &[Value::Int64(1_700_000_000_000_000)]);
    refused(TimestampSecondArray::from(vec![i64::MAX]), "UnixTimestamp", "too far from 1970");
}

#[test]
fn event_times_are_no_numbers() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    assert!(Column::instants(&numbers).unwrap_err().contains("has to be a timestamp or a date"));
}

#[test]
fn decimals_and_uuids_become_text() {
    let decimals = Decimal128Array::from(vec![12_345]).with_precision_and_scale(10, 2).unwrap();
    check(decimals, "Decimal", &[text("123.45")]);
    let uuid = FixedSizeBinaryArray::try_from_iter([[0x12; 16]].into_iter()).unwrap();
    check(uuid, "Uuid", &[text("12121212-1212-1212-1212-121212121212")]);
}

#[test]
fn lists_keep_their_items_and_null_items_become_the_types_default() {
    let mut floats = ListBuilder::new(Float32Builder::new());
    floats.append_value([Some(1.0), Some(2.0)]);
    floats.append_null();
    floats.append_value::<_, f32>([]);
    let expected = [Value::List(vec![Value::Float32(1.0), Value::Float32(2.0)]), Value::Null, Value::List(vec![])];
    check(floats.finish(), "Array(Float32)", &expected);

    let mut ints = ListBuilder::new(Int64Builder::new());
    ints.append_value([Some(1), None]);
    check(ints.finish(), "Array(Int64)", &[Value::List(vec![Value::Int64(1), Value::Int64(0)])]);

    let mut texts = ListBuilder::new(StringBuilder::new());
    texts.append_value([Some("a"), None]);
    check(texts.finish(), "Array(String)", &[Value::List(vec![text("a"), text("")])]);

    let mut times = ListBuilder::new(TimestampMicrosecondBuilder::new());
    times.append_value([Some(5), None]);
    check(times.finish(), "Array(UnixTimestamp)", &[Value::List(vec![Value::Int64(5), Value::Int64(i64::MIN)])]);
}

#[test]
fn what_does_not_fit_names_both_types() {
    refused(StringArray::from(vec!["1"]), "Int64", "the column is Utf8, the definition says Int64");
    refused(Int64Array::from(vec![1]), "String", "the column is Int64, the definition says String");
    refused(BooleanArray::from(vec![true]), "Float64", "the column is Boolean, the definition says Float64");
    refused(Int64Array::from(vec![1]), "Array(Int64)", "the column is Int64, the definition says Array(Int64)");
    refused(Int64Array::from(vec![1]), "Map", "has to be a map or a struct");
}
