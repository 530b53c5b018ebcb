use std::sync::Arc;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::model::{ItemType, Value, ValueType};

/// Types that together use every physical shape.
const TYPES: [&str; 16] = [
    "Bool",
    "Int32",
    "Int64",
    "Float32",
    "Float64",
    "String",
    "Bytes",
    "UnixTimestamp",
    "Array(Bool)",
    "Array(Int32)",
    "Array(Int64)",
    "Array(Float32)",
    "Array(Float64)",
    "Array(String)",
    "Set(Bytes)",
    "Map",
];

fn schema(types: &[&str]) -> RowSchema {
    let field = |(i, name): (usize, &&str)| (Arc::from(format!("f{i}")), name.parse::<ValueType>().unwrap());
    RowSchema::new(types.iter().enumerate().map(field))
}

fn encode(schema: &RowSchema, values: &[Value]) -> Vec<u8> {
    let mut builder = RowBuilder::new(schema);
    builder.begin(1_763_885_590_123_456, Some(1_763_885_590_000_000));
    for value in values {
        builder.push_value(value).unwrap();
    }
    builder.finish().unwrap().to_vec()
}

fn decode(schema: &RowSchema, row: &[u8]) -> Result<Vec<Value>, RowError> {
    let view = RowView::new(schema, row)?;
    (0..schema.len()).map(|i| view.get(i).map(|value| value.to_value())).collect()
}

/// Compares by bits, so that NaN equals itself and 0.0 differs from -0.0.
fn bits(values: &[Value]) -> String {
    fn one(value: &Value) -> String {
        match value {
            Value::Float32(v) => format!("f32:{:08x}", v.to_bits()),
            Value::Float64(v) => format!("f64:{:016x}", v.to_bits()),
            Value::List(items) => format!("[{}]", items.iter().map(one).collect::<Vec<_>>().join(",")),
            other => format!("{other:?}"),
        }
    }
    values.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn value_of(physical: Physical) -> BoxedStrategy<Value> {
    fn item(item: ItemType) -> BoxedStrategy<Value> {
        match item {
            ItemType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
            ItemType::Int32 => any::<i32>().prop_map(Value::Int32).boxed(),
            ItemType::Int64 => any::<i64>().prop_map(Value::Int64).boxed(),
            ItemType::Float32 => any::<u32>().prop_map(|v| Value::Float32(f32::from_bits(v))).boxed(),
            ItemType::Float64 => any::<u64>().prop_map(|v| Value::Float64(f64::from_bits(v))).boxed(),
            ItemType::Bytes => prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes).boxed(),
        }
    }
    let present = match physical {
        Physical::Bool => item(ItemType::Bool),
        Physical::Int32 => item(ItemType::Int32),
        Physical::Int64 => item(ItemType::Int64),
        Physical::Float32 => item(ItemType::Float32),
        Physical::Float64 => item(ItemType::Float64),
        Physical::Bytes => item(ItemType::Bytes),
        Physical::List(of) => prop::collection::vec(item(of), 0..6).prop_map(Value::List).boxed(),
    };
    prop_oneof![1 => Just(Value::Null), 4 => present].boxed()
}

fn any_row() -> impl Strategy<Value = (Vec<&'static str>, Vec<Value>)> {
    prop::collection::vec(prop::sample::select(&TYPES[..]), 0..20).prop_flat_map(|types| {
        let values: Vec<_> = types.iter().map(|name| value_of(name.parse::<ValueType>().unwrap().physical())).collect();
        (Just(types), values)
    })
}

proptest! {
    #[test]
    fn pushed_values_round_trip((types, values) in any_row()) {
        let schema = schema(&types);
        let row = encode(&schema, &values);
        prop_assert_eq!(bits(&decode(&schema, &row).unwrap()), bits(&values));
        prop_assert_eq!(&encode(&schema, &values), &row, "equal values have equal bytes");
    }

    #[test]
    fn arbitrary_bytes_never_panic(types in prop::collection::vec(prop::sample::select(&TYPES[..]), 0..20),
                                   mut row in prop::collection::vec(any::<u8>(), 0..200)) {
        let schema = schema(&types);
        let _ = decode(&schema, &row);
        // With a valid header, the fields are decoded, too.
        if row.len() >= HEADER_BYTES {
            row[0] = FORMAT_VERSION;
            row[FINGERPRINT_AT..FINGERPRINT_AT + 4].copy_from_slice(&schema.fingerprint().0.to_le_bytes());
            let _ = decode(&schema, &row);
        }
    }

    #[test]
    fn damaged_rows_never_panic((types, values) in any_row(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
                                cut in any::<prop::sample::Index>()) {
        let schema = schema(&types);
        let mut row = encode(&schema, &values);
        let at = at.index(row.len());
        row[at] = byte;
        let _ = decode(&schema, &row);
        row.truncate(cut.index(row.len()));
        let _ = decode(&schema, &row);
    }
}

#[test]
fn reused_builder_keeps_no_state() {
    let schema = schema(&["String", "Int64", "Array(Float32)"]);
    let mut builder = RowBuilder::new(&schema);
    builder.begin(5, Some(7));
    builder.push(ValueRef::Bytes(b"long text before")).unwrap();
    builder.push(ValueRef::Int64(-1)).unwrap();
    builder.push_list(&[ValueRef::Float32(1.0)]).unwrap();
    let _ = builder.finish().unwrap();

    builder.begin(5, None);
    for _ in 0..3 {
        builder.push(ValueRef::Null).unwrap();
    }
    let again = builder.finish().unwrap().to_vec();
    let mut fresh = RowBuilder::new(&schema);
    fresh.begin(5, None);
    (0..3).for_each(|_| fresh.push(ValueRef::Null).unwrap());
    assert_eq!(again, fresh.finish().unwrap());
}

#[test]
fn header_is_readable_without_schema() {
    let schema = schema(&["Int32"]);
    let mut builder = RowBuilder::new(&schema);
    builder.begin(-5, None);
    builder.push(ValueRef::Int32(1)).unwrap();
    let header = RowHeader::read(builder.finish().unwrap()).unwrap();
    assert_eq!(header, RowHeader { fingerprint: schema.fingerprint(), event_time: -5, created: None });
}

#[test]
fn invalid_shape_or_count_is_rejected() {
    let schema = schema(&["Int32", "Array(String)"]);
    let mut builder = RowBuilder::new(&schema);
    builder.begin(0, None);
    let error = builder.push(ValueRef::Int64(1)).unwrap_err();
    assert_eq!(error.to_string(), "field 'f0' takes Int32, but got another shape");
    let error = builder.push_list(&[ValueRef::Int32(1)]).unwrap_err();
    assert_eq!(error.to_string(), "field 'f1' takes List(Bytes), but got another shape");

    builder.begin(0, None);
    builder.push(ValueRef::Int32(1)).unwrap();
    assert_eq!(builder.finish().unwrap_err(), RowError::Count { got: 1, expected: 2 });
    builder.push_list(&[]).unwrap();
    builder.finish().unwrap();
    assert_eq!(builder.push(ValueRef::Null).unwrap_err(), RowError::Count { got: 3, expected: 2 });
}

#[test]
fn row_size_limit_is_exact() {
    let schema = schema(&["Bytes"]);
    let room = ROW_BYTES_MAX - schema.var_at();
    let mut builder = RowBuilder::new(&schema);
    builder.begin(0, None);
    builder.push(ValueRef::Bytes(&vec![1; room])).unwrap();
    assert_eq!(builder.finish().unwrap().len(), ROW_BYTES_MAX);

    builder.begin(0, None);
    let error = builder.push(ValueRef::Bytes(&vec![1; room + 1])).unwrap_err();
    assert_eq!(error, RowError::TooLong(ROW_BYTES_MAX + 1));
}

#[test]
fn other_schema_or_version_is_rejected() {
    let (one, other) = (schema(&["Int32"]), schema(&["Int64"]));
    let mut row = encode(&one, &[Value::Int32(1)]);
    assert!(matches!(RowView::new(&other, &row), Err(RowError::Schema { .. })));
    row[0] = FORMAT_VERSION + 1;
    assert_eq!(RowView::new(&one, &row).unwrap_err(), RowError::Version(2));
    assert!(matches!(RowView::new(&one, &[]), Err(RowError::Truncated { .. })));
}

/// Checks the bytes of format version 1, which existing stores contain. If this test fails, a new version is needed,
/// and the old bytes must stay readable.
#[test]
fn golden_bytes_of_version_1() {
    let schema =
        schema(&["Bool", "Int32", "Int64", "Float32", "Float64", "String", "Array(Float32)", "Array(String)", "Bytes"]);
    let values = [
        Value::Bool(true),
        Value::Int32(-7),
        Value::Int64(9_007_199_254_740_993),
        Value::Float32(0.1),
        Value::Null,
        Value::Bytes("gold é".into()),
        Value::List(vec![Value::Float32(1.0), Value::Float32(-0.0)]),
        Value::List(vec![Value::Bytes(b"a".to_vec()), Value::Bytes(vec![])]),
        Value::Null,
    ];
    let check = |bytes: &[u8], expected: Expect| {
        let lines: Vec<String> = bytes
            .chunks(16)
            .map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "))
            .collect();
        expected.assert_eq(&lines.join("\n"));
    };
    let row = encode(&schema, &values);
    check(
        &row,
        expect![[r#"
        01 00 09 00 c3 82 fa d5 c0 13 06 9e 3e 44 06 00
        80 31 04 9e 3e 44 06 00 ef 00 01 f9 ff ff ff 01
        00 00 00 00 00 20 00 cd cc cc 3d 00 00 00 00 00
        00 00 00 07 00 00 00 0f 00 00 00 1c 00 00 00 1c
        00 00 00 67 6f 6c 64 20 c3 a9 00 00 80 3f 00 00
        00 80 02 00 00 00 01 00 00 00 01 00 00 00 61"#]],
    );
    assert_eq!(bits(&decode(&schema, &row).unwrap()), bits(&values));
}

/// Returns the rank of a row with these times. Each time is a pair of microseconds and remaining nanoseconds.
fn rank(event: (i64, u32), created: Option<(i64, u32)>) -> RowRank {
    let schema = schema(&["String"]);
    let mut builder = RowBuilder::new(&schema);
    builder.begin(event.0, created.map(|(micros, _)| micros));
    builder.set_nanos(event.1, created.map_or(0, |(_, nanos)| nanos));
    builder.push(ValueRef::Bytes(b"text")).unwrap();
    let row = builder.finish().unwrap();
    assert_eq!(RowView::new(&schema, row).unwrap().get(0).unwrap(), ValueRef::Bytes(b"text"));
    RowRank::read(row).unwrap()
}

#[test]
fn nanoseconds_decide_between_equal_microseconds() {
    let ranks = [
        rank((-5, 0), None),
        rank((-5, 0), Some((i64::MIN + 1, 0))),
        rank((-5, 1), None),
        rank((-5, 1), Some((3, 998))),
        rank((-5, 1), Some((3, 999))),
        rank((-4, 0), None),
    ];
    assert!(ranks.is_sorted_by(|a, b| a.compare(b).is_lt()), "{ranks:?}");
}

#[test]
fn coarse_comparison_ignores_missing_precision() {
    let exact = rank((7_000_000, 987_654_000), Some((8_000_000, 5)));
    let cut = rank((7_000_000, 0), Some((8_000_000, 0)));
    let without_created = rank((7_000_000, 0), None);
    let later = rank((7_000_000, 987_655_000), None);
    assert_eq!(exact.compare_coarsely(&cut), Ordering::Equal);
    assert_eq!(exact.compare_coarsely(&without_created), Ordering::Equal);
    assert_eq!(exact.compare_coarsely(&later), Ordering::Less);
    assert_eq!(cut.compare_coarsely(&rank((8_000_000, 0), None)), Ordering::Less);
    assert_eq!(exact.compare(&cut), Ordering::Greater);
}

#[test]
fn whole_microseconds_take_no_extra_bytes() {
    let schema = schema(&["Int64"]);
    let mut builder = RowBuilder::new(&schema);
    let mut row = |nanos| {
        builder.begin(5, Some(6));
        builder.set_nanos(nanos, 0);
        builder.push(ValueRef::Int64(1)).unwrap();
        builder.finish().unwrap().to_vec()
    };
    let (plain, exact, again) = (row(0), row(1), row(0));
    assert_eq!(exact.len(), plain.len() + NANOS_BYTES);
    assert_eq!((again, plain[FLAGS_AT]), (plain.clone(), 0));
    // If the flag is set but the nanoseconds are missing, reading the row is not an error.
    let mut cut = plain;
    cut[FLAGS_AT] = HAS_NANOS;
    cut.truncate(HEADER_BYTES);
    assert!(RowRank::read(&cut).is_ok());
}
