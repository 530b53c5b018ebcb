//! Tests of the supported and the rejected conversions.

use arrow::array::{
    Date32Array, Decimal128Array, DictionaryArray, DurationMicrosecondArray, FixedSizeBinaryArray, Float16Array,
    Float32Builder, Float64Builder, Int8Array, Int64Builder, LargeStringArray, ListBuilder, NullArray, NullBuilder,
    StringBuilder, StringViewArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    TimestampMicrosecondBuilder, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
    UInt64Array,
};
use arrow::datatypes::{Float16Type, Int32Type};
use larder_model::{
    codec::{RowSchema, RowView},
    model::Value,
};

use super::*;

/// Encodes the values of a column to rows of one field and decodes them. Returns the decoded values, and the reason for
/// the first value that does not match.
fn convert(array: &ArrayRef, value_type: &str) -> (Vec<Value>, Option<String>) {
    let value_type: ValueType = value_type.parse().unwrap();
    let column = Column::feature(array, value_type);
    let schema = RowSchema::new([(Arc::from("f"), value_type)]);
    let mut builder = RowBuilder::new(&schema);
    let value = |row| {
        builder.begin(0, None);
        column.push(row, &mut builder).unwrap();
        let bytes = builder.finish().unwrap();
        RowView::new(&schema, bytes).unwrap().get(0).unwrap().to_value()
    };
    let values = (0..array.len()).map(value).collect();
    (values, (0..array.len()).find_map(|row| column.conversion_error(row)).map(str::to_owned))
}

fn check(array: impl Array + 'static, value_type: &str, expected: &[Value]) {
    assert_eq!(convert(&(Arc::new(array) as ArrayRef), value_type), (expected.to_vec(), None), "{value_type}");
}

/// Checks the converted values of a column in which a value does not match the type for the reason `why`.
fn check_unconverted(array: impl Array + 'static, value_type: &str, expected: &[Value], why: &str) {
    let converted = convert(&(Arc::new(array) as ArrayRef), value_type);
    assert_eq!(converted, (expected.to_vec(), Some(why.to_owned())), "{value_type}");
}

fn text(text: &str) -> Value {
    Value::Bytes(text.into())
}

#[test]
fn integers_convert_if_they_fit() {
    check(Int8Array::from(vec![Some(-5), None]), "Int64", &[Value::Int64(-5), Value::Null]);
    check(Int64Array::from(vec![7]), "Int32", &[Value::Int32(7)]);
    check(Int64Array::from(vec![9_007_199_254_740_993]), "Int64", &[Value::Int64(9_007_199_254_740_993)]);
    let large = Int64Array::from(vec![Some(3_000_000_000), None, Some(1)]);
    check_unconverted(large, "Int32", &[Value::Null, Value::Null, Value::Int32(1)], "3000000000 is not Int32");
    let large = UInt64Array::from(vec![1, u64::MAX]);
    check_unconverted(large, "Int64", &[Value::Int64(1), Value::Null], "18446744073709551615 is not Int64");
}

#[test]
fn doubles_convert_like_python_int() {
    let doubles = Float64Array::from(vec![Some(3.0), Some(f64::NAN), None, Some(-1.5)]);
    check(doubles, "Int64", &[Value::Int64(3), Value::Null, Value::Null, Value::Int64(-1)]);
    let doubles = Float64Array::from(vec![1e300, f64::NAN, 2.0, f64::INFINITY]);
    check_unconverted(
        doubles,
        "Int64",
        &[Value::Null, Value::Null, Value::Int64(2), Value::Null],
        "1e300 is not Int64",
    );
}

#[test]
fn floats_widen_and_nan_is_null() {
    check(Float64Array::from(vec![0.1, f64::NAN]), "Float32", &[Value::Float32(0.1), Value::Null]);
    check(Float32Array::from(vec![0.1]), "Float64", &[Value::Float64(f64::from(0.1_f32))]);
    check(Int64Array::from(vec![2]), "Float64", &[Value::Float64(2.0)]);
    check(Float64Array::from(vec![f64::NAN, f64::INFINITY]), "Float64", &[Value::Null, Value::Float64(f64::INFINITY)]);
    let large = Float64Array::from(vec![1e39, 1.0]);
    check_unconverted(large, "Float32", &[Value::Null, Value::Float32(1.0)], "1e39 is not Float32");
}

#[test]
fn text_decodes_from_every_layout() {
    for array in [
        Arc::new(StringArray::from(vec!["é"])) as ArrayRef,
        Arc::new(LargeStringArray::from(vec!["é"])),
        Arc::new(StringViewArray::from(vec!["é"])),
        Arc::new(vec!["é"].into_iter().collect::<DictionaryArray<Int32Type>>()),
    ] {
        assert_eq!(convert(&array, "String"), (vec![text("é")], None));
    }
    check(StringArray::from(vec!["ab"]), "Bytes", &[text("ab")]);
    check(BinaryArray::from(vec![&b"\x00\xff"[..]]), "Bytes", &[Value::Bytes(vec![0, 255])]);
}

#[test]
fn values_convert_to_text_like_python() {
    check(Int64Array::from(vec![Some(123), None]), "String", &[text("123"), Value::Null]);
    check(BooleanArray::from(vec![true, false]), "String", &[text("True"), text("False")]);
    check(Float64Array::from(vec![1e16, 0.1, f64::NAN]), "String", &[text("1e+16"), text("0.1"), Value::Null]);
    check(Float32Array::from(vec![0.1]), "String", &[text("0.1")]);
    let decimals = Decimal128Array::from(vec![150]).with_precision_and_scale(10, 2).unwrap();
    check(decimals, "String", &[text("1.50")]);
    check(BinaryArray::from(vec![&b"\x00a"[..]]), "String", &[text("b'\\x00a'")]);
    check(Date32Array::from(vec![Some(1), None]), "String", &[text("1970-01-02"), Value::Null]);
    check(TimestampMicrosecondArray::from(vec![987_654]), "String", &[text("1970-01-01T00:00:00.987654")]);
    check(TimestampNanosecondArray::from(vec![-1]), "String", &[text("1969-12-31T23:59:59.999999999")]);
    // 2,932,896 is the last day that Python supports.
    check(Date32Array::from(vec![2_932_896]), "String", &[text("9999-12-31")]);
    let nan = <Float16Type as ArrowPrimitiveType>::Native::from_f32(f32::NAN);
    check(Float16Array::from(vec![nan]), "String", &[Value::Null]);
    check(TimestampMillisecondArray::from(vec![500]), "String", &[text("1970-01-01T00:00:00.500")]);
    check(Time64MicrosecondArray::from(vec![3_723_000_000]), "String", &[text("01:02:03")]);
    check(DurationMicrosecondArray::from(vec![5]), "String", &[text("5 microseconds")]);
}

#[test]
fn text_and_bool_convert_by_content() {
    check(StringArray::from(vec!["1", " +1_001 "]), "Int64", &[Value::Int64(1), Value::Int64(1_001)]);
    check(BooleanArray::from(vec![Some(true), None]), "Int64", &[Value::Int64(1), Value::Null]);
    check(BooleanArray::from(vec![true]), "Float64", &[Value::Float64(1.0)]);
    check(Int64Array::from(vec![0, 2]), "Bool", &[Value::Bool(false), Value::Bool(true)]);
    check(StringArray::from(vec!["1.5"]), "Float64", &[Value::Float64(1.5)]);
    let texts = StringArray::from(vec![Some("1"), Some("abc"), None]);
    check_unconverted(texts, "Int64", &[Value::Int64(1), Value::Null, Value::Null], "'abc' is not Int64");
    let texts = StringArray::from(vec!["9007199254740993.0"]);
    check_unconverted(texts, "Int64", &[Value::Null], "'9007199254740993.0' is not Int64");
}

#[test]
fn typed_text_is_validated() {
    let uuid = "123e4567-e89b-42d3-a456-426614174000";
    for (value_type, good, bad, why) in [
        ("Json", r#"{"a": 1}"#, "{", "'{' is not valid JSON: EOF while parsing an object at line 1 column 1"),
        ("Uuid", uuid, "abc", "'abc' is not Uuid"),
        ("TimeUuid", uuid, "abc", "'abc' is not TimeUuid"),
        ("Decimal", "1.50", "abc", "'abc' is not Decimal"),
    ] {
        check(StringArray::from(vec![Some(good), None]), value_type, &[text(good), Value::Null]);
        check_unconverted(StringArray::from(vec![good, bad]), value_type, &[text(good), Value::Null], why);
    }
}

#[test]
fn struct_becomes_json_like_python() {
    let field = Arc::new(Field::new("a", DataType::Int64, true));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let structs = StructArray::from(vec![(field, numbers)]);
    check(structs.clone(), "Json", &[text(r#"{"a": 1}"#), text(r#"{"a": null}"#)]);
    check_unconverted(structs, "Int64", &[Value::Null, Value::Null], "a mapping is not Int64");
}

#[test]
fn null_column_fits_every_type() {
    for value_type in ["Int64", "String", "UnixTimestamp", "Array(Float32)", "Set(String)", "Map", "Json"] {
        check(NullArray::new(2), value_type, &[Value::Null, Value::Null]);
    }
}

#[test]
fn timestamps_become_microseconds_in_any_zone() {
    check(TimestampSecondArray::from(vec![1]), "UnixTimestamp", &[Value::Int64(1_000_000)]);
    check(TimestampMillisecondArray::from(vec![-1]), "UnixTimestamp", &[Value::Int64(-1_000)]);
    check(TimestampMicrosecondArray::from(vec![1]).with_timezone("Europe/Paris"), "UnixTimestamp", &[Value::Int64(1)]);
    check(TimestampNanosecondArray::from(vec![-1]), "UnixTimestamp", &[Value::Int64(-1)]);
    check(Date32Array::from(vec![1]), "UnixTimestamp", &[Value::Int64(86_400_000_000)]);
    check(Int64Array::from(vec![1_700_000_000]), "UnixTimestamp", &[Value::Int64(1_700_000_000_000_000)]);
    let far = TimestampSecondArray::from(vec![i64::MAX, 1]);
    let why = "a time outside the range of microsecond timestamps is not UnixTimestamp";
    check_unconverted(far, "UnixTimestamp", &[Value::Null, Value::Int64(1_000_000)], why);
}

#[test]
fn null_timestamp_becomes_feasts_placeholder() {
    let stand_in = Value::Int64(NULL_TIMESTAMP_SECONDS);
    check(TimestampMicrosecondArray::from(vec![Some(1), None]), "UnixTimestamp", &[Value::Int64(1), stand_in]);
    check(Int64Array::from(vec![Some(1), None]), "UnixTimestamp", &[Value::Int64(1_000_000), Value::Null]);
}

#[test]
fn numbers_are_rejected_as_event_times() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    assert!(Column::instants(&numbers).unwrap_err().contains("not a timestamp or a date"));
    // A null event time is not replaced by the placeholder.
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![None, Some(1)]));
    let times = Column::instants(&times).unwrap();
    assert_eq!([times.micros(0), times.micros(1)], [None, Some(1)]);
}

#[test]
fn decimals_and_uuids_become_text() {
    let decimals = Decimal128Array::from(vec![12_345]).with_precision_and_scale(10, 2).unwrap();
    check(decimals.clone(), "Decimal", &[text("123.45")]);
    check(decimals.clone(), "Float64", &[Value::Float64(123.45)]);
    check(decimals, "Int64", &[Value::Int64(123)]);
    let long = Decimal128Array::from(vec![7]).with_precision_and_scale(38, 0).unwrap();
    check(long, "Int64", &[Value::Int64(7)]);
    let uuid = FixedSizeBinaryArray::try_from_iter([[0x12; 16]].into_iter()).unwrap();
    check(uuid, "Uuid", &[text("12121212-1212-1212-1212-121212121212")]);
}

#[test]
fn null_list_items_become_type_default() {
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

    let mut floats = ListBuilder::new(Float64Builder::new());
    floats.append_value([Some(1.0), None, Some(f64::NAN)]);
    let (values, why) = convert(&(Arc::new(floats.finish()) as ArrayRef), "Array(Float64)");
    let [Value::List(items)] = &*values else { panic!("{values:?}") };
    assert!(
        matches!(**items, [Value::Float64(1.0), Value::Float64(one), Value::Float64(other)] if one.is_nan() && other.is_nan())
    );
    assert_eq!(why, None);
}

#[test]
fn untyped_empty_lists_fit_every_type() {
    for value_type in ["Array(Float32)", "Array(String)", "Set(Int64)", "Array(UnixTimestamp)", "Array(Array)"] {
        let mut lists = ListBuilder::new(NullBuilder::new());
        lists.append(true);
        lists.append(false);
        let (values, why) = convert(&(Arc::new(lists.finish()) as ArrayRef), value_type);
        let is_empty = |value: &Value| matches!(value, Value::List(items) if items.is_empty());
        assert!(is_empty(&values[0]) || matches!(values[0], Value::Bytes(_)), "{value_type}: {values:?}");
        assert_eq!((&values[1], why), (&Value::Null, None), "{value_type}");
    }
    let mut lists = ListBuilder::new(NullBuilder::new());
    lists.values().append_nulls(2);
    lists.append(true);
    check(lists.finish(), "Array(Float32)", &[Value::List(vec![Value::Float32(0.0), Value::Float32(0.0)])]);
}

#[test]
fn sets_from_files_are_deduplicated() {
    let mut ints = ListBuilder::new(Int64Builder::new());
    ints.append_value([Some(3), Some(3), Some(1)]);
    check(ints.finish(), "Set(Int64)", &[Value::List(vec![Value::Int64(1), Value::Int64(3)])]);
}

#[test]
fn bad_item_nulls_only_its_list() {
    let mut texts = ListBuilder::new(StringBuilder::new());
    texts.append_value([Some("1"), Some("2")]);
    texts.append_value([Some("3"), Some("x")]);
    texts.append_null();
    let expected = [Value::List(vec![Value::Int64(1), Value::Int64(2)]), Value::Null, Value::Null];
    check_unconverted(texts.finish(), "Array(Int64)", &expected, "an item of the list: 'x' is not Int64");
}

#[test]
fn keys_convert_without_loss() {
    let key = |array: ArrayRef, key_type| {
        let column = Column::key(&array, key_type);
        let mut key = Vec::new();
        (column.push_key(0, &mut key).then_some(key), column.conversion_error(0).map(str::to_owned))
    };
    let of = |value: KeyValue<'_>| {
        let mut key = Vec::new();
        KeyEncoder::push(&mut key, value);
        (Some(key), None)
    };
    assert_eq!(key(Arc::new(Int64Array::from(vec![1])), ScalarType::String), of(KeyValue::String("1")));
    assert_eq!(key(Arc::new(StringArray::from(vec!["1"])), ScalarType::Int64), of(KeyValue::Int64(1)));
    let decimal = Decimal128Array::from(vec![1]).with_precision_and_scale(38, 0).unwrap();
    assert_eq!(key(Arc::new(decimal), ScalarType::Int64), of(KeyValue::Int64(1)));
    assert_eq!(key(Arc::new(Float64Array::from(vec![5.0])), ScalarType::Int64), of(KeyValue::Int64(5)));
    let fraction = key(Arc::new(Float64Array::from(vec![5.5])), ScalarType::Int64);
    assert_eq!(fraction, (None, Some("5.5 is not Int64".to_owned())));
    assert_eq!(key(Arc::new(Float64Array::from(vec![f64::NAN])), ScalarType::Int64), (None, None));
    assert_eq!(key(Arc::new(TimestampMicrosecondArray::from(vec![None])), ScalarType::UnixTimestamp), (None, None));
}

#[test]
fn timestamps_keep_nanoseconds_of_file() {
    let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![Some(1_999), Some(-1), None, Some(2_000)]));
    let instants = Instants::new(&nanos).unwrap();
    let read: Vec<_> = (0..4).map(|row| (instants.micros(row), instants.nanos(row))).collect();
    assert_eq!(read, [(Some(1), 999), (Some(-1), 999), (None, 0), (Some(2), 0)]);
}
