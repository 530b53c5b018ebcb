//! Compares columns with a naive model: a list of values.

use larder_model::model::Value;
use proptest::prelude::*;

use super::*;

pub(crate) const SCALARS: [ColumnScalar; 8] = [
    ColumnScalar::Bool,
    ColumnScalar::Int32,
    ColumnScalar::Int64,
    ColumnScalar::Float32,
    ColumnScalar::Float64,
    ColumnScalar::Utf8,
    ColumnScalar::Binary,
    ColumnScalar::Timestamp,
];

fn scalar(of: ColumnScalar) -> BoxedStrategy<Value> {
    match of {
        ColumnScalar::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        ColumnScalar::Int32 => any::<i32>().prop_map(Value::Int32).boxed(),
        ColumnScalar::Int64 | ColumnScalar::Timestamp => any::<i64>().prop_map(Value::Int64).boxed(),
        // NaN is not equal to anything, including itself.
        ColumnScalar::Float32 => (-1e9_f32..1e9).prop_map(Value::Float32).boxed(),
        ColumnScalar::Float64 => (-1e9_f64..1e9).prop_map(Value::Float64).boxed(),
        ColumnScalar::Utf8 => "[a-zü日]{0,5}".prop_map(|text| Value::Bytes(text.into_bytes())).boxed(),
        ColumnScalar::Binary => proptest::collection::vec(any::<u8>(), 0..5).prop_map(Value::Bytes).boxed(),
    }
}

/// Generates a type, and rows of it.
fn column() -> impl Strategy<Value = (ColumnType, Vec<Value>)> {
    (proptest::sample::select(SCALARS.to_vec()), any::<bool>()).prop_flat_map(|(of, is_list)| {
        let value = if is_list {
            proptest::collection::vec(scalar(of), 0..4).prop_map(Value::List).boxed()
        } else {
            scalar(of)
        };
        let row = prop_oneof![3 => value, 1 => Just(Value::Null)];
        (Just(ColumnType { scalar: of, is_list }), proptest::collection::vec(row, 0..40))
    })
}

fn borrowed(value: &Value) -> ValueRef<'_> {
    match value {
        Value::Null | Value::List(_) => ValueRef::Null,
        Value::Bool(value) => ValueRef::Bool(*value),
        Value::Int32(value) => ValueRef::Int32(*value),
        Value::Int64(value) => ValueRef::Int64(*value),
        Value::Float32(value) => ValueRef::Float32(*value),
        Value::Float64(value) => ValueRef::Float64(*value),
        Value::Bytes(value) => ValueRef::Bytes(value),
    }
}

pub(crate) fn build(of: ColumnType, rows: &[Value]) -> Column {
    let mut column = ColumnBuilder::new(of, rows.len());
    for row in rows {
        match row {
            Value::List(items) => column.push_list(items.iter().map(borrowed)),
            value => column.push(borrowed(value)),
        }
    }
    column.finish()
}

fn read(column: Column, of: ColumnType, rows: usize) -> Vec<Value> {
    let output = Output::check(column, of, true, rows).unwrap();
    (0..rows).map(|row| output.get(row).to_value()).collect()
}

proptest! {
    #[test]
    fn pushed_values_are_valid_and_readable((of, rows) in column()) {
        let column = build(of, &rows);
        prop_assert_eq!(column.rows(), rows.len());
        prop_assert_eq!(column.column_type(), of);
        if !of.is_list {
            let mut at_once = ColumnBuilder::new(of, rows.len());
            let (first, others) = rows.split_at(rows.len() / 3);
            at_once.extend(first.iter().map(borrowed));
            at_once.extend(others.iter().map(borrowed));
            prop_assert_eq!(&at_once.finish(), &column, "many at once are as one by one");
        }
        // No bitmap if there is no null, as the contract requires.
        prop_assert_eq!(column.0.validity.is_some(), rows.contains(&Value::Null));
        prop_assert_eq!(read(column, of, rows.len()), rows);
    }

    #[test]
    fn slice_equals_column_of_its_rows((of, rows) in column(), from in 0..40_usize, to in 0..40_usize) {
        let (from, to) = (from.min(rows.len()), to.min(rows.len()));
        let range = from.min(to)..from.max(to);
        prop_assert_eq!(build(of, &rows).slice(range.clone()), build(of, &rows[range]));
    }
}

#[test]
fn mistyped_value_becomes_null() {
    for of in SCALARS {
        for is_list in [false, true] {
            let mut column = ColumnBuilder::new(ColumnType { scalar: of, is_list }, 2);
            column.push(if of == ColumnScalar::Bool { ValueRef::Int32(1) } else { ValueRef::Bool(true) });
            column.push_default();
            let column = column.finish();
            assert_eq!((column.is_present(0), column.is_present(1)), (false, true), "{of:?}");
        }
    }
}

#[test]
fn definition_types_map_to_columns() {
    let of = |name: &str| ColumnType::of(name.parse().unwrap()).map(|of| of.to_string());
    for (name, plain) in [
        ("Int64", "Int64"),
        ("Json", "String"),
        ("Uuid", "String"),
        ("ImageBytes", "Bytes"),
        ("UnixTimestamp", "UnixTimestamp"),
        ("Array(Float32)", "Array(Float32)"),
        ("Set(Decimal)", "Array(String)"),
    ] {
        assert_eq!(of(name).as_deref(), Some(plain), "{name}");
    }
    assert_eq!(of("Map"), None);
}

#[test]
fn bitmap_has_one_bit_per_row() {
    let of = ColumnType { scalar: ColumnScalar::Int64, is_list: false };
    for rows in [7, 8, 9, 16] {
        let values: Vec<Value> = (0..rows).map(|row| if row == 3 { Value::Null } else { Value::Int64(1) }).collect();
        let good = build(of, &values);
        let check = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut column = good.clone();
            change(column.0.validity.as_mut().unwrap());
            Output::check(column, of, true, values.len()).map(|_| ())
        };
        let wrong = Err(ColumnFault::Validity { rows: values.len() });
        assert_eq!(check(&|_| {}), Ok(()));
        assert_eq!(check(&|bitmap| bitmap.push(0)), wrong);
        assert_eq!(check(&|bitmap| bitmap.truncate(bitmap.len() - 1)), wrong);
        if !values.len().is_multiple_of(8) {
            assert_eq!(check(&|bitmap| *bitmap.last_mut().unwrap() |= 0x80), wrong);
        }
        let never_null = Output::check(good.clone(), of, false, values.len()).map(|_| ());
        assert_eq!(never_null, Err(ColumnFault::Null));
    }
}

#[test]
fn values_in_null_slots_are_cleared() {
    let text = |ends: &[u32], data: &str| VarBytes { ends: ends.to_vec(), data: data.into() };
    let odd = [
        Values::Scalars(Scalars::Float64s(vec![1.0, 2.0, 3.0])),
        Values::Scalars(Scalars::Bools(vec![1; 3])),
        Values::Scalars(Scalars::Strings(text(&[1, 3, 4], "abcd"))),
        Values::Lists(Lists { ends: vec![1, 2, 3], items: Scalars::Int32s(vec![1, 2, 3]) }),
        Values::Lists(Lists { ends: vec![1, 2, 3], items: Scalars::Strings(text(&[1, 3, 4], "abcd")) }),
    ];
    for values in odd {
        let column = |values: Values, bitmap: u8| Column(types::Column { values, validity: Some(vec![bitmap]) });
        let of = column(values.clone(), 0).column_type();
        let checked = |bitmap: u8| Output::check(column(values.clone(), bitmap), of, true, 3).unwrap();
        assert_eq!(
            checked(0b111).column(),
            &column(values.clone(), 0b111),
            "{of}: a column without a null is as it was"
        );
        let output = checked(0b101);
        assert!(output.column().has_empty_nulls(), "{of}");
        assert_eq!(output.get(1), ValueRef::Null);
        for row in [0, 2] {
            assert_eq!(
                output.get(row).to_value(),
                checked(0b111).get(row).to_value(),
                "{of}: the others are as they were"
            );
        }
    }
}
