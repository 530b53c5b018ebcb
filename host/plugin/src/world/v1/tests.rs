//! Compares columns of version 0.1 with frames, and checks that invalid columns are rejected.

use proptest::prelude::*;

use super::*;
use crate::frame::tests::batch;

fn field(column_type: ColumnType) -> Field {
    Field { name: "f".to_owned(), column_type, nullable: true, doc: String::new() }
}

fn of(scalar: ColumnScalar) -> ColumnType {
    ColumnType::single(scalar)
}

fn list_of(scalar: ColumnScalar) -> ColumnType {
    ColumnType::list(scalar)
}

/// Checks one column. Returns the column's fault instead of the whole error.
fn check(values: Values, validity: Option<Vec<u8>>, field: &Field, rows: usize) -> Result<Frame, ColumnFault> {
    let columns = ReturnedColumns(vec![Column { values, validity }]);
    columns.check(std::slice::from_ref(field), rows).map_err(|error| match error {
        CallError::Column { fault, .. } => fault,
        other => panic!("{other:?}"),
    })
}

fn fault(values: Values, validity: Option<Vec<u8>>, field: &Field, rows: usize) -> Option<ColumnFault> {
    check(values, validity, field, rows).err()
}

fn text(ends: &[u32], data: &[u8]) -> VarBytes {
    VarBytes { ends: ends.to_vec(), data: data.into() }
}

proptest! {
    #[test]
    fn columns_equal_the_frame(batch in batch()) {
        let frame = batch.frame();
        let columns = columns(&frame);
        for (column, (_, rows)) in columns.iter().zip(&batch.columns) {
            let has_nulls = rows.contains(&larder_model::model::Value::Null);
            prop_assert_eq!(column.validity.is_some(), has_nulls, "no bitmap if there is no null");
        }
        let returned = ReturnedColumns(columns).check(&batch.fields(), batch.rows).unwrap();
        prop_assert_eq!(returned.bytes(), frame.bytes());
    }
}

#[test]
fn bitmap_has_one_bit_per_row() {
    let mut field = field(of(ColumnScalar::Int64));
    for rows in [7_usize, 8, 9, 16] {
        let mut bitmap: Vec<u8> = vec![0xff; rows / 8];
        bitmap.extend((!rows.is_multiple_of(8)).then_some((1 << (rows % 8)) - 1));
        bitmap[0] &= !0b1000;
        let check = |change: &dyn Fn(&mut Vec<u8>), field: &Field| {
            let mut bitmap = bitmap.clone();
            change(&mut bitmap);
            fault(Values::Scalars(Scalars::Int64s(vec![1; rows])), Some(bitmap), field, rows)
        };
        let wrong = Some(ColumnFault::Validity { rows });
        field.nullable = true;
        assert_eq!(check(&|_| {}, &field), None);
        assert_eq!(check(&|bitmap| bitmap.push(0), &field), wrong);
        assert_eq!(check(&|bitmap| bitmap.truncate(bitmap.len() - 1), &field), wrong);
        if !rows.is_multiple_of(8) {
            assert_eq!(check(&|bitmap| *bitmap.last_mut().unwrap() |= 0x80, &field), wrong);
        }
        field.nullable = false;
        assert_eq!(check(&|_| {}, &field), Some(ColumnFault::Null));
    }
}

#[test]
fn values_in_null_slots_are_cleared() {
    let odd = [
        (of(ColumnScalar::Float64), Values::Scalars(Scalars::Float64s(vec![1.0, 2.0, 3.0]))),
        (of(ColumnScalar::Bool), Values::Scalars(Scalars::Bools(vec![1; 3]))),
        (of(ColumnScalar::Utf8), Values::Scalars(Scalars::Strings(text(&[1, 3, 4], b"abcd")))),
        (
            list_of(ColumnScalar::Int32),
            Values::Lists(Lists { ends: vec![1, 2, 3], items: Scalars::Int32s(vec![1, 2, 3]) }),
        ),
        (
            list_of(ColumnScalar::Utf8),
            Values::Lists(Lists { ends: vec![1, 2, 3], items: Scalars::Strings(text(&[1, 3, 4], b"abcd")) }),
        ),
    ];
    for (column_type, values) in odd {
        let checked = |bitmap: u8| check(values.clone(), Some(vec![bitmap]), &field(column_type), 3).unwrap();
        let whole = checked(0b111);
        assert_eq!(columns(&whole), [Column { values: values.clone(), validity: None }], "{column_type}");
        let mut expected = FrameBuilder::new([column_type], 3);
        expected.column(|to| {
            to.append(whole.column(0), 0..1);
            to.push(ValueRef::Null);
            to.append(whole.column(0), 2..3);
        });
        assert_eq!(checked(0b101).bytes(), expected.finish().bytes(), "{column_type}");
    }
}

#[test]
fn invalid_columns_are_reported() {
    let int64s = |rows: usize| Values::Scalars(Scalars::Int64s(vec![1; rows]));
    let texts = |ends: &[u32], data: &[u8]| Values::Scalars(Scalars::Strings(text(ends, data)));
    let binaries = |ends: &[u32], data: &[u8]| Values::Scalars(Scalars::Binaries(text(ends, data)));
    let lists = |ends: &[u32], items: Scalars| Values::Lists(Lists { ends: ends.to_vec(), items });
    let wrong_type = |found: ColumnType, declared: ColumnType| Some(ColumnFault::Type { found, declared });
    let (int64, utf8) = (of(ColumnScalar::Int64), of(ColumnScalar::Utf8));
    let short = Some(ColumnFault::Length { found: 2, rows: 3 });
    for (column_type, values, expected) in [
        (int64, int64s(3), None),
        (int64, int64s(2), short.clone()),
        (int64, texts(&[1, 2, 3], b"abc"), wrong_type(utf8, int64)),
        (of(ColumnScalar::Timestamp), int64s(3), wrong_type(int64, of(ColumnScalar::Timestamp))),
        (list_of(ColumnScalar::Int64), int64s(3), wrong_type(int64, list_of(ColumnScalar::Int64))),
        (of(ColumnScalar::Bool), Values::Scalars(Scalars::Bools(vec![0, 1, 2])), Some(ColumnFault::Bool)),
        (utf8, texts(&[1, 2, 3], b"abc"), None),
        (utf8, texts(&[2, 1, 3], b"abc"), Some(ColumnFault::Ends)),
        (utf8, texts(&[1, 2, 4], b"abc"), Some(ColumnFault::Ends)),
        (utf8, texts(&[1, 2, 2], b"abc"), Some(ColumnFault::Ends)),
        (utf8, texts(&[1, 2, 3], &[b'a', 0xff, b'b']), Some(ColumnFault::Utf8)),
        (utf8, texts(&[1, 2, 3], "ßa".as_bytes()), Some(ColumnFault::Utf8)),
        (of(ColumnScalar::Binary), binaries(&[1, 2, 3], &[b'a', 0xff, b'b']), None),
        (of(ColumnScalar::Binary), binaries(&[2, 1, 3], &[b'a', 0xff, b'b']), Some(ColumnFault::Ends)),
        (list_of(ColumnScalar::Int64), lists(&[0, 2, 2], Scalars::Int64s(vec![1; 2])), None),
        (list_of(ColumnScalar::Int64), lists(&[0, 2], Scalars::Int64s(vec![1; 2])), short),
        (list_of(ColumnScalar::Int64), lists(&[2, 0, 2], Scalars::Int64s(vec![1; 2])), Some(ColumnFault::Ends)),
        (list_of(ColumnScalar::Int64), lists(&[0, 1, 3], Scalars::Int64s(vec![1; 2])), Some(ColumnFault::Ends)),
        (
            list_of(ColumnScalar::Utf8),
            lists(&[0, 1, 2], Scalars::Strings(text(&[1, 3], b"ab"))),
            Some(ColumnFault::Ends),
        ),
    ] {
        assert_eq!(fault(values.clone(), None, &field(column_type), 3), expected, "{column_type}: {values:?}");
    }
    let none = ReturnedColumns(Vec::new()).check(&[field(int64)], 3).map(|_| ());
    assert_eq!(none, Err(CallError::Columns { found: 0, declared: 1 }));
}
