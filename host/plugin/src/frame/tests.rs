//! Tests of frames: drawn byte by byte, encoded and decoded, and malicious.

use larder_model::model::Value;
use proptest::prelude::*;

use super::*;
use crate::{
    Column as Built, Output,
    column::tests::{SCALARS, build},
};

fn field(scalar: ColumnScalar, is_list: bool) -> Field {
    let column_type = ColumnType { scalar, is_list };
    Field { name: "f".to_owned(), column_type, nullable: true, doc: String::new() }
}

/// Returns columns of every type, with values, empty ones and nulls.
fn columns(rows: usize) -> (Vec<Field>, Vec<Column>) {
    let fields: Vec<Field> = SCALARS.iter().flat_map(|of| [field(*of, false), field(*of, true)]).collect();
    let value = |of: ColumnScalar, i: usize| match of {
        ColumnScalar::Bool => Value::Bool(i.is_multiple_of(2)),
        ColumnScalar::Int32 => Value::Int32(i32::try_from(i).unwrap() - 3),
        ColumnScalar::Int64 | ColumnScalar::Timestamp => Value::Int64(i64::MIN + i64::try_from(i).unwrap()),
        ColumnScalar::Float32 => Value::Float32(0.5),
        ColumnScalar::Float64 => Value::Float64(-0.0),
        ColumnScalar::Utf8 | ColumnScalar::Binary => Value::Bytes("größe".repeat(i % 3).into_bytes()),
    };
    let column = |(place, field): (usize, &Field)| {
        let ColumnType { scalar, is_list } = field.column_type;
        // Some columns have no nulls, and others have one in three rows.
        let row = |row: usize| match (place % 3 == 0 && row % 3 == 1, is_list) {
            (true, _) => Value::Null,
            (false, true) => Value::List((0..row % 4).map(|i| value(scalar, row + i)).collect()),
            (false, false) => value(scalar, row),
        };
        build(field.column_type, &(0..rows).map(row).collect::<Vec<_>>()).0
    };
    let columns = fields.iter().enumerate().map(column).collect();
    (fields, columns)
}

#[test]
fn frame_layout_equals_the_contract() {
    let text = |ends: &[u32], data: &str| VarBytes { ends: ends.to_vec(), data: data.into() };
    let columns = [
        Column { values: Values::Scalars(Scalars::Float64s(vec![1.0, 0.0, 3.0])), validity: Some(vec![0b101]) },
        Column { values: Values::Scalars(Scalars::Strings(text(&[1, 1, 3], "abc"))), validity: None },
        Column {
            values: Values::Lists(Lists { ends: vec![0, 1, 2], items: Scalars::Binaries(text(&[2, 9], "defghijkl")) }),
            validity: None,
        },
    ];
    let fields =
        [field(ColumnScalar::Float64, false), field(ColumnScalar::Utf8, false), field(ColumnScalar::Binary, true)];
    let mut drawn = Vec::new();
    // Heads: presence, then slots, or ends and four zeros.
    drawn.extend([0b101, 0, 0, 0, 0, 0, 0, 0]);
    [1.0_f64, 0.0, 3.0].iter().for_each(|value| drawn.extend(value.to_le_bytes()));
    drawn.extend([0b111, 0, 0, 0, 0, 0, 0, 0]);
    drawn.extend([1, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    drawn.extend([0b111, 0, 0, 0, 0, 0, 0, 0]);
    drawn.extend([0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    // Tails: bytes; ends of items, then their bytes.
    drawn.extend(b"abc\0\0\0\0\0");
    drawn.extend([2, 0, 0, 0, 9, 0, 0, 0]);
    drawn.extend(b"defghijkl\0\0\0\0\0\0\0");
    assert_eq!(write(&columns, 3), drawn);
    assert_eq!(read(&drawn, &fields, 3).unwrap(), columns);
}

/// Checks the contract's own example: (true, "hi", ["a", "bc"]) and (null, null, []).
#[test]
fn contract_example_is_exact() {
    let fields = [field(ColumnScalar::Bool, false), field(ColumnScalar::Utf8, false), field(ColumnScalar::Utf8, true)];
    let contract = include_str!("../../../../wit/0.2.0/transform.wit");
    // Lines have an offset and eight bytes, once or twice; the bytes on the right follow those on the left.
    let mut parts: Vec<(usize, Vec<u8>)> = Vec::new();
    for line in contract.lines().filter_map(|line| line.strip_prefix("/// ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for (i, word) in words.iter().enumerate() {
            let bytes = words.iter().skip(i + 1).take(8).map_while(|byte| u8::from_str_radix(byte, 16).ok());
            let bytes: Vec<u8> = bytes.collect();
            if let (Ok(at), 8) = (word.parse(), bytes.len()) {
                parts.push((at, bytes));
            }
        }
    }
    parts.sort();
    parts.dedup();
    let offsets: Vec<usize> = parts.iter().map(|(at, _)| *at).collect();
    assert_eq!(offsets, (0..9).map(|i| i * 8).collect::<Vec<_>>());
    let frame: Vec<u8> = parts.into_iter().flat_map(|(_, bytes)| bytes).collect();
    let text = |text: &str| Value::Bytes(text.into());
    let columns = [
        build(fields[0].column_type, &[Value::Bool(true), Value::Null]).0,
        build(fields[1].column_type, &[text("hi"), Value::Null]).0,
        build(fields[2].column_type, &[Value::List(vec![text("a"), text("bc")]), Value::List(Vec::new())]).0,
    ];
    assert_eq!(write(&columns, 2), frame);
    assert_eq!(read(&frame, &fields, 2).unwrap(), columns);
}

#[test]
fn nonzero_padding_is_reported() {
    let (fields, columns) = columns(9);
    let frame = write(&columns, 9);
    // Of nine rows of bools: after presence, nine slots and seven zeros.
    for at in 17..24 {
        let mut frame = frame.clone();
        frame[at] = 1;
        assert_eq!(read(&frame, &fields, 9), Err(FrameFault::Column(0, ColumnFault::Padding)), "byte {at}");
    }
}

#[test]
fn every_type_round_trips() {
    for rows in [0, 1, 2, 7, 8, 9, 63, 64, 65, 130] {
        let (fields, columns) = columns(rows);
        let frame = write(&columns, rows);
        let lengths: usize = columns.iter().map(|column| len(column, rows)).sum();
        assert_eq!(frame.len(), lengths, "{rows} rows: the room that was made is the room that was taken");
        assert_eq!(read(&frame, &fields, rows).unwrap(), columns, "{rows} rows");
    }
}

#[test]
fn truncated_or_extended_frame_is_rejected() {
    let (fields, columns) = columns(9);
    let mut frame = write(&columns, 9);
    for len in 0..frame.len() {
        let fault = read(&frame[..len], &fields, 9).unwrap_err();
        assert!(matches!(fault, FrameFault::Column(_, ColumnFault::Cut)), "{len} bytes: {fault:?}");
    }
    for more in 1..=9 {
        frame.push(0);
        assert_eq!(read(&frame, &fields, 9), Err(FrameFault::Surplus(more)));
    }
    // Surplus rows are as wrong as missing ones.
    frame.truncate(frame.len() - 9);
    assert!(read(&frame, &fields, 10).is_err() && read(&frame, &fields, 8).is_err());
}

#[test]
fn presence_beyond_the_rows_is_told() {
    let bools = [field(ColumnScalar::Bool, false)];
    let check = |presence: u64, rows: usize| {
        let frame = [presence.to_le_bytes(), [0; 8]].concat();
        let columns = read(&frame, &bools, rows).map_err(|fault| match fault {
            FrameFault::Column(0, fault) => fault,
            other => panic!("{other:?}"),
        })?;
        let column = Built(columns.into_iter().next().unwrap());
        Output::check(column, bools[0].column_type, true, rows).map(|_| ())
    };
    assert_eq!(check(0b111, 3), Ok(()));
    assert_eq!(check(0b101, 3), Ok(()));
    assert_eq!(check(0b1111, 3), Err(ColumnFault::Validity { rows: 3 }), "in a byte that has rows");
    assert_eq!(check(1 << 8, 3), Err(ColumnFault::Validity { rows: 3 }), "in a byte that has none");
    assert_eq!(check(1 << 63, 8), Err(ColumnFault::Validity { rows: 8 }));
}

#[test]
fn ends_beyond_everything_take_no_memory() {
    let row = |end: u32| [&1_u64.to_le_bytes()[..], &end.to_le_bytes(), &[0; 4]].concat();
    for field in [
        field(ColumnScalar::Utf8, false),
        field(ColumnScalar::Float64, true),
        field(ColumnScalar::Bool, true),
        field(ColumnScalar::Utf8, true),
    ] {
        let cut = Err(FrameFault::Column(0, ColumnFault::Cut));
        assert_eq!(read(&row(u32::MAX), std::slice::from_ref(&field), 1), cut);
        assert!(read(&row(0), &[field], 1).is_ok());
    }
}

proptest! {
    /// Any bytes are either read or rejected, and valid columns can be read to the end.
    #[test]
    fn no_bytes_are_too_much(
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), 0..8_u8, any::<u8>()], 0..400),
        rows in 0..20_usize,
        picked in prop::collection::vec((0..SCALARS.len(), any::<bool>()), 1..4),
    ) {
        let fields: Vec<Field> = picked.iter().map(|(of, is_list)| field(SCALARS[*of], *is_list)).collect();
        if let Ok(columns) = read(&bytes, &fields, rows) {
            prop_assert_eq!(columns.len(), fields.len());
            for (column, field) in columns.into_iter().zip(&fields) {
                if let Ok(output) = Output::check(Built(column), field.column_type, true, rows) {
                    (0..rows).for_each(|row| _ = output.get(row));
                }
            }
        }
    }

    /// A valid frame with some changed bytes is read or rejected.
    #[test]
    fn changed_bytes_are_survived(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![0..9_u8, any::<u8>()]), 1..6),
        rows in 1..70_usize,
    ) {
        let (fields, columns) = columns(rows);
        let mut frame = write(&columns, rows);
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if let Ok(columns) = read(&frame, &fields, rows) {
            for (column, field) in columns.into_iter().zip(&fields) {
                if let Ok(output) = Output::check(Built(column), field.column_type, true, rows) {
                    (0..rows).for_each(|row| _ = output.get(row));
                }
            }
        }
    }
}
