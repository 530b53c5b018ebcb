//! Tests of frames: their exact bytes, round trips of values, and malicious bytes.

use larder_model::{
    codec::{RowBuilder, RowSchema, RowView},
    model::Value,
};
use proptest::prelude::*;

use super::{layout::padded, *};
use crate::{Field, Outputs};

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

/// The columns of a batch, each with its type and a list of its values.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) rows: usize,
    pub(crate) columns: Vec<(ColumnType, Vec<Value>)>,
}

// === impl Batch ===

impl Batch {
    pub(crate) fn types(&self) -> impl Iterator<Item = ColumnType> {
        self.columns.iter().map(|(of, _)| *of)
    }

    pub(crate) fn fields(&self) -> Vec<Field> {
        self.types().map(|of| Field { column_type: of, ..field(of.scalar, of.is_list) }).collect()
    }

    pub(crate) fn values(&self) -> Vec<Vec<Value>> {
        self.columns.iter().map(|(_, values)| values.clone()).collect()
    }

    pub(crate) fn frame(&self) -> Frame {
        let mut frame = FrameBuilder::new(self.types(), self.rows);
        for (_, values) in &self.columns {
            frame.column(|column| fill(column, values));
        }
        frame.finish()
    }

    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        let select = |values: &Vec<Value>| rows.iter().map(|row| values[*row].clone()).collect();
        let columns = self.columns.iter().map(|(of, values)| (*of, select(values))).collect();
        Self { rows: rows.len(), columns }
    }
}

/// Adds rows one by one.
pub(crate) fn fill(column: &mut ColumnWriter<'_>, values: &[Value]) {
    for value in values {
        match value {
            Value::List(items) => column.push_list(items.iter().map(Value::as_item)),
            value => column.push(value.as_item()),
        }
    }
}

/// Reads all values of a frame.
pub(crate) fn values(frame: Frame) -> Vec<Vec<Value>> {
    let rows = frame.rows();
    let types: Vec<_> = frame.columns().map(|column| column.column_type().scalar.into()).collect();
    let outputs = Outputs::new(frame, &types, Vec::new());
    let column = |index: usize| (0..rows).map(|row| outputs.output(index).get(row).to_value()).collect();
    (0..outputs.len()).map(column).collect()
}

fn scalar(of: ColumnScalar) -> BoxedStrategy<Value> {
    match of {
        ColumnScalar::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        ColumnScalar::Int32 => any::<i32>().prop_map(Value::Int32).boxed(),
        ColumnScalar::Int64 => any::<i64>().prop_map(Value::Int64).boxed(),
        // The minimum is the placeholder for a null time.
        ColumnScalar::Timestamp => (i64::MIN + 1..).prop_map(Value::Int64).boxed(),
        // NaN is not equal to anything, including itself.
        ColumnScalar::Float32 => (-1e9_f32..1e9).prop_map(Value::Float32).boxed(),
        ColumnScalar::Float64 => (-1e9_f64..1e9).prop_map(Value::Float64).boxed(),
        ColumnScalar::Utf8 => "[a-zü日]{0,5}".prop_map(|text| Value::Bytes(text.into_bytes())).boxed(),
        ColumnScalar::Binary => prop::collection::vec(any::<u8>(), 0..5).prop_map(Value::Bytes).boxed(),
    }
}

/// Generates columns of any types, most of them with nulls.
pub(crate) fn batch() -> impl Strategy<Value = Batch> {
    let column = |rows: usize| {
        (prop::sample::select(SCALARS.to_vec()), any::<bool>(), 0..4_u32).prop_flat_map(move |(of, is_list, nulls)| {
            let value = if is_list {
                prop::collection::vec(scalar(of), 0..4).prop_map(Value::List).boxed()
            } else {
                scalar(of)
            };
            let row = prop_oneof![3 => value, nulls => Just(Value::Null)];
            (Just(ColumnType { scalar: of, is_list, nullable_items: false }), prop::collection::vec(row, rows))
        })
    };
    (0..40_usize).prop_flat_map(move |rows| {
        prop::collection::vec(column(rows), 0..5).prop_map(move |columns| Batch { rows, columns })
    })
}

fn field(scalar: ColumnScalar, is_list: bool) -> Field {
    let column_type = ColumnType { scalar, is_list, nullable_items: false };
    Field { name: "f".to_owned(), column_type, nullable: true, doc: String::new() }
}

/// Returns columns of every type, with values, empty ones and nulls.
fn columns(rows: usize) -> Batch {
    let fields: Vec<Field> = SCALARS.iter().flat_map(|of| [field(*of, false), field(*of, true)]).collect();
    let value = |of: ColumnScalar, i: usize| match of {
        ColumnScalar::Bool => Value::Bool(i.is_multiple_of(2)),
        ColumnScalar::Int32 => Value::Int32(i32::try_from(i).unwrap() - 3),
        ColumnScalar::Int64 => Value::Int64(i64::MIN + i64::try_from(i).unwrap()),
        ColumnScalar::Timestamp => Value::Int64(i64::MAX - i64::try_from(i).unwrap()),
        ColumnScalar::Float32 => Value::Float32(0.5),
        ColumnScalar::Float64 => Value::Float64(-0.0),
        ColumnScalar::Utf8 | ColumnScalar::Binary => Value::Bytes("größe".repeat(i % 3).into_bytes()),
    };
    let column = |(index, field): (usize, &Field)| {
        let ColumnType { scalar, is_list, .. } = field.column_type;
        // In every third column, every third row is null. The other columns have no nulls.
        let row = |row: usize| match (index % 3 == 0 && row % 3 == 1, is_list) {
            (true, _) => Value::Null,
            (false, true) => Value::List((0..row % 4).map(|i| value(scalar, row + i)).collect()),
            (false, false) => value(scalar, row),
        };
        (field.column_type, (0..rows).map(row).collect::<Vec<_>>())
    };
    Batch { rows, columns: fields.iter().enumerate().map(column).collect() }
}

/// Validates a frame, and returns its values.
fn read_values(bytes: &[u8], fields: &[Field], rows: usize) -> Result<Vec<Vec<Value>>, FrameFault> {
    read(bytes.to_vec(), fields, rows, &[]).map(values)
}

fn fault(bytes: &[u8], fields: &[Field], rows: usize) -> Option<FrameFault> {
    read(bytes.to_vec(), fields, rows, &[]).err()
}

#[test]
fn frame_layout_equals_the_contract() {
    let text = |text: &str| Value::Bytes(text.into());
    let batch = Batch {
        rows: 3,
        columns: vec![
            (
                field(ColumnScalar::Float64, false).column_type,
                vec![Value::Float64(1.0), Value::Null, Value::Float64(3.0)],
            ),
            (field(ColumnScalar::Utf8, false).column_type, vec![text("a"), text(""), text("bc")]),
            (
                field(ColumnScalar::Binary, true).column_type,
                vec![Value::List(vec![]), Value::List(vec![text("de")]), Value::List(vec![text("fghijkl")])],
            ),
        ],
    };
    let mut drawn = Vec::new();
    // Heads: presence bits, then slots. The slots of text and lists are ends, followed by four bytes of padding.
    drawn.extend([0b101, 0, 0, 0, 0, 0, 0, 0]);
    [1.0_f64, 0.0, 3.0].iter().for_each(|value| drawn.extend(value.to_le_bytes()));
    drawn.extend([0b111, 0, 0, 0, 0, 0, 0, 0]);
    drawn.extend([1, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    drawn.extend([0b111, 0, 0, 0, 0, 0, 0, 0]);
    drawn.extend([0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    // Tails: the contents of the strings; the ends of the list items, and their contents.
    drawn.extend(b"abc\0\0\0\0\0");
    drawn.extend([2, 0, 0, 0, 9, 0, 0, 0]);
    drawn.extend(b"defghijkl\0\0\0\0\0\0\0");
    assert_eq!(batch.frame().bytes(), drawn);
    assert_eq!(read_values(&drawn, &batch.fields(), 3).unwrap(), batch.values());
}

/// Reads the example frame in the text of a contract. Each line of the example has one or two groups of an offset and
/// eight bytes.
fn example(contract: &str) -> Vec<u8> {
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
    assert_eq!(offsets, (0..parts.len()).map(|i| i * 8).collect::<Vec<_>>());
    parts.into_iter().flat_map(|(_, bytes)| bytes).collect()
}

/// Checks the examples in the contracts, which have the rows (true, "hi", [...]) and (null, null, []).
#[test]
fn contract_examples_are_exact() {
    let text = |text: &str| Value::Bytes(text.into());
    let check = |contract: &str, list_type: ColumnType, items: Vec<Value>, len: usize| {
        let columns = vec![
            (ColumnType::single(ColumnScalar::Bool), vec![Value::Bool(true), Value::Null]),
            (ColumnType::TEXT, vec![text("hi"), Value::Null]),
            (list_type, vec![Value::List(items), Value::List(Vec::new())]),
        ];
        let (batch, frame) = (Batch { rows: 2, columns }, example(contract));
        assert_eq!((frame.len(), batch.frame().bytes()), (len, &*frame));
        let parsed = read(frame, &batch.fields(), 2, &[]).unwrap();
        assert!(parsed.columns().zip(batch.frame().columns()).all(|(parsed, built)| parsed == built));
    };
    let list = ColumnType::list(ColumnScalar::Utf8);
    check(include_str!("../../../../wit/0.2.0/transform.wit"), list, vec![text("a"), text("bc")], 72);
    let nullable = ColumnType { nullable_items: true, ..list };
    let items = vec![text("a"), Value::Null, text("bc")];
    check(include_str!("../../../../wit/0.3.0/transform.wit"), nullable, items, 88);
}

/// Returns a column of lists of a type. Items may be null.
fn nullable_lists(scalar: ColumnScalar, lists: Vec<Value>) -> Batch {
    let of = ColumnType { nullable_items: true, ..ColumnType::list(scalar) };
    Batch { rows: lists.len(), columns: vec![(of, lists)] }
}

#[test]
fn null_items_become_feast_defaults() {
    let defaults = |scalar: ColumnScalar, value: Value| {
        let lists = [vec![value.clone(), Value::Null], vec![Value::Null], vec![], vec![value]];
        let lists = lists.map(Value::List).into_iter().chain([Value::Null]).collect();
        let batch = nullable_lists(scalar, lists);
        let frame = read(batch.frame().bytes().to_vec(), &batch.fields(), 5, &[]).unwrap();
        assert!(frame.column(0).has_null_items());
        format!("{:?}", values(frame)[0])
    };
    assert_eq!(
        defaults(ColumnScalar::Int32, Value::Int32(7)),
        "[List([Int32(7), Int32(0)]), List([Int32(0)]), List([]), List([Int32(7)]), Null]"
    );
    assert_eq!(
        defaults(ColumnScalar::Float64, Value::Float64(7.0)),
        "[List([Float64(7.0), Float64(NaN)]), List([Float64(0.0)]), List([]), List([Float64(7.0)]), Null]"
    );
    assert_eq!(
        defaults(ColumnScalar::Utf8, Value::Bytes(b"a".to_vec())),
        "[List([Bytes([97]), Bytes([])]), List([Bytes([])]), List([]), List([Bytes([97])]), Null]"
    );
}

#[test]
fn null_items_survive_copies() {
    for scalar in SCALARS {
        let item = match scalar {
            ColumnScalar::Bool => Value::Bool(true),
            ColumnScalar::Int32 => Value::Int32(1),
            ColumnScalar::Int64 | ColumnScalar::Timestamp => Value::Int64(1),
            ColumnScalar::Float32 => Value::Float32(1.0),
            ColumnScalar::Float64 => Value::Float64(1.0),
            ColumnScalar::Utf8 | ColumnScalar::Binary => Value::Bytes(b"a".to_vec()),
        };
        // 100 rows of 0 to 6 items, about a third of which are null.
        let item_of = |at: usize| if at.is_multiple_of(3) { Value::Null } else { item.clone() };
        let list = |row: usize| (row..row + row % 7).map(&item_of);
        let batch = nullable_lists(scalar, (0..100).map(|row| Value::List(list(row).collect())).collect());
        let frame = read(batch.frame().bytes().to_vec(), &batch.fields(), 100, &[]).unwrap();
        assert_eq!(frame.bytes(), batch.frame().bytes());
        let rows: Vec<usize> = (0..100).rev().step_by(3).collect();
        let selected = frame.select(&rows);
        assert_eq!(selected.bytes(), batch.select(&rows).frame().bytes(), "{scalar:?}");
        assert_eq!(frame.bytes_of(3..50), frame.slice(3..50).bytes().len());
        assert_eq!(frame.slice(3..50).bytes(), batch.select(&(3..50).collect::<Vec<_>>()).frame().bytes());
        // In a column without null items, lists with null items are null.
        let mut strict = FrameBuilder::new([ColumnType::list(scalar)], 100);
        strict.column(|to| to.append(frame.column(0), 0..100));
        let strict = strict.finish();
        for row in 0..100 {
            let has_null = list(row).any(|item| item == Value::Null);
            assert_eq!(strict.column(0).is_present(row), !has_null, "{scalar:?}, row {row}");
        }
        let mut back = FrameBuilder::new(batch.types(), 100);
        back.column(|to| to.append(strict.column(0), 0..100));
        assert!(!back.finish().column(0).has_null_items());
    }
}

#[test]
fn null_items_survive_casts() {
    let lists = [vec![Value::Int32(1), Value::Null], vec![Value::Int32(2)], vec![Value::Null], vec![]];
    let frame = nullable_lists(ColumnScalar::Int32, lists.map(Value::List).into()).frame();
    let of = ColumnType::list(ColumnScalar::Float64);
    let cast = |nullable_items: bool, rows: std::ops::Range<usize>| {
        let mut cast = FrameBuilder::new([ColumnType { nullable_items, ..of }], rows.len());
        cast.column(|to| to.append_cast(frame.column(0), rows, |row| panic!("row {row} does not change")));
        let cast = cast.finish();
        let items = |row: usize| cast.column(0).items(row..row + 1).map(|item| cast.column(0).item(item));
        let list =
            |row: usize| cast.column(0).is_present(row).then(|| items(row).map(|item| item.to_value()).collect());
        (0..cast.rows()).map(list).collect::<Vec<Option<Vec<Value>>>>()
    };
    let [one, two] = [1.0, 2.0].map(Value::Float64);
    let nullable = [vec![one, Value::Null], vec![two.clone()], vec![Value::Null], vec![]].map(Some);
    assert_eq!(cast(true, 0..4), nullable);
    assert_eq!(cast(true, 1..3), nullable[1..3]);
    // In a column without null items, lists with null items are null.
    assert_eq!(cast(false, 0..4), [None, Some(vec![two]), None, Some(vec![])]);
}

#[test]
fn placeholder_for_null_times_is_null() {
    let times = [Value::Int64(i64::MIN), Value::Int64(1), Value::Int64(i64::MIN + 1)];
    let fields = [("times".into(), "Array(UnixTimestamp)".parse().unwrap())];
    let schema = RowSchema::new(fields);
    let mut row = RowBuilder::new(&schema);
    row.begin(0, None);
    row.push_value(&Value::List(times.to_vec())).unwrap();
    let row = row.finish().unwrap().to_vec();
    let list = RowView::new(&schema, &row).unwrap().get(0).unwrap();
    let list_of = |nullable_items| ColumnType { nullable_items, ..ColumnType::list(ColumnScalar::Timestamp) };
    let types = [ColumnType::TIMESTAMP, list_of(true), list_of(false), ColumnType::single(ColumnScalar::Int64)];
    let mut frame = FrameBuilder::new(types, 3);
    frame.column(|column| column.extend(times.iter().map(Value::as_item)));
    frame.column(|column| column.push(list));
    frame.column(|column| column.push(list));
    frame.column(|column| column.extend(times.iter().map(Value::as_item)));
    let frame = frame.finish();
    let present = |column: usize| (0..3).map(|row| frame.column(column).is_present(row)).collect::<Vec<_>>();
    assert_eq!(present(0), [false, true, true]);
    assert_eq!(present(1), [true, false, false]);
    assert_eq!([0, 1, 2].map(|item| frame.column(1).is_item_present(item)), [false, true, true]);
    assert_eq!(present(2), [false, false, false], "items cannot be null");
    assert_eq!(present(3), [true, true, true], "no times");
}

#[test]
fn values_in_null_items_are_cleared() {
    let batch = nullable_lists(ColumnScalar::Int32, vec![Value::List(vec![Value::Null, Value::Int32(2)])]);
    let clean = batch.frame();
    let mut bytes = clean.bytes().to_vec();
    // Presence and slots of one row take 16 bytes, and the presence of the items another 8.
    bytes[24] = 9;
    assert_eq!(read(bytes.clone(), &batch.fields(), 1, &[]).unwrap().bytes(), clean.bytes());
    // Presence bits beyond the two items are not allowed.
    bytes[16] |= 0b100;
    let faulty = FrameFault::Column(0, ColumnFault::ItemPresence { items: 2 });
    assert_eq!(fault(&bytes, &batch.fields(), 1), Some(faulty));
}

#[test]
fn failed_rows_have_no_values() {
    let fields = |nullable: bool| {
        let mut fields = [field(ColumnScalar::Int32, false)];
        fields[0].nullable = nullable;
        fields
    };
    let values = [Value::Int32(1), Value::Null, Value::Int32(3)];
    let batch = Batch { rows: 3, columns: vec![(ColumnType::single(ColumnScalar::Int32), values.to_vec())] };
    let check = |nullable: bool, failed: &[usize]| {
        read(batch.frame().bytes().to_vec(), &fields(nullable), 3, failed).map(|frame| frame.column(0).null_count())
    };
    for nullable in [false, true] {
        assert_eq!(check(nullable, &[1]), Ok(1), "only the failed row is null");
        let fault = FrameFault::Column(0, ColumnFault::FailedValue { row: 0 });
        assert_eq!(check(nullable, &[0, 1]), Err(fault));
    }
    assert_eq!(check(true, &[]), Ok(1));
    assert_eq!(check(false, &[]), Err(FrameFault::Column(0, ColumnFault::Null)));
}

#[test]
fn nonzero_padding_is_reported() {
    let batch = columns(9);
    let frame = batch.frame();
    // The first column has nine bools: eight bytes of presence bits, nine slots, then seven bytes of padding.
    for at in 17..24 {
        let mut bytes = frame.bytes().to_vec();
        bytes[at] = 1;
        let padding = FrameFault::Column(0, ColumnFault::Padding);
        assert_eq!(fault(&bytes, &batch.fields(), 9), Some(padding), "byte {at}");
    }
}

#[test]
fn every_type_round_trips() {
    for rows in [0, 1, 2, 7, 8, 9, 63, 64, 65, 130] {
        let batch = columns(rows);
        let frame = batch.frame();
        assert_eq!(read_values(frame.bytes(), &batch.fields(), rows).unwrap(), batch.values(), "{rows} rows");
        let parsed = read(frame.bytes().to_vec(), &batch.fields(), rows, &[]).unwrap();
        assert_eq!(parsed.bytes(), frame.bytes(), "{rows} rows: a valid frame is kept as it is");
        let copy = parsed.slice(0..rows);
        assert_eq!(copy.bytes(), frame.bytes(), "{rows} rows: outputs are valid inputs");
    }
}

#[test]
fn truncated_or_extended_frame_is_rejected() {
    let batch = columns(9);
    let (fields, mut frame) = (batch.fields(), batch.frame().bytes().to_vec());
    for len in 0..frame.len() {
        let fault = fault(&frame[..len], &fields, 9).unwrap();
        assert!(matches!(fault, FrameFault::Column(_, ColumnFault::Cut)), "{len} bytes: {fault:?}");
    }
    for more in 1..=9 {
        frame.push(0);
        assert_eq!(fault(&frame, &fields, 9), Some(FrameFault::Surplus(more)));
    }
    // A frame with more or fewer rows than the call is invalid.
    frame.truncate(frame.len() - 9);
    assert!(fault(&frame, &fields, 10).is_some() && fault(&frame, &fields, 8).is_some());
}

#[test]
fn presence_beyond_the_rows_is_reported() {
    let bools = [field(ColumnScalar::Bool, false)];
    let check = |presence: u64, rows: usize| fault(&[presence.to_le_bytes(), [0; 8]].concat(), &bools, rows);
    let beyond = |rows: usize| Some(FrameFault::Column(0, ColumnFault::Validity { rows }));
    assert_eq!(check(0b111, 3), None);
    assert_eq!(check(0b101, 3), None);
    assert_eq!(check(0b1111, 3), beyond(3), "in the last byte with rows");
    assert_eq!(check(1 << 8, 3), beyond(3), "in a byte without rows");
    assert_eq!(check(1 << 63, 8), beyond(8));
}

#[test]
fn null_in_non_nullable_column_is_reported() {
    let batch = Batch { rows: 3, columns: columns(3).columns.split_off(6) };
    for index in 0..batch.columns.len() {
        let mut fields = batch.fields();
        fields[index].nullable = false;
        let expected = batch.columns[index].1.contains(&Value::Null);
        let expected = expected.then_some(FrameFault::Column(index, ColumnFault::Null));
        assert_eq!(fault(batch.frame().bytes(), &fields, 3), expected);
    }
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
        let cut = Some(FrameFault::Column(0, ColumnFault::Cut));
        assert_eq!(fault(&row(u32::MAX), std::slice::from_ref(&field), 1), cut);
        assert_eq!(fault(&row(0), &[field], 1), None);
    }
}

#[test]
fn invalid_contents_are_reported() {
    let ends = |ends: [u32; 3]| ends.iter().flat_map(|end| end.to_le_bytes()).chain([0; 4]).collect::<Vec<u8>>();
    let part = |bytes: &[u8]| [bytes, &vec![0; padded(bytes.len()) - bytes.len()]].concat();
    let with_presence = |parts: &[Vec<u8>]| [&[0b111, 0, 0, 0, 0, 0, 0, 0][..], &parts.concat()].concat();
    let texts = |slots: [u32; 3], data: &[u8]| with_presence(&[ends(slots), part(data)]);
    let lists = |slots: [u32; 3], items: [u32; 3], data: &[u8]| with_presence(&[ends(slots), ends(items), part(data)]);
    let (utf8, binary) = (ColumnScalar::Utf8, ColumnScalar::Binary);
    for (scalar, is_list, bytes, expected) in [
        (ColumnScalar::Bool, false, with_presence(&[part(&[0, 1, 2])]), Some(ColumnFault::Bool)),
        (ColumnScalar::Bool, true, with_presence(&[ends([1, 2, 3]), part(&[0, 1, 2])]), Some(ColumnFault::Bool)),
        (utf8, false, texts([2, 3, 5], "ßaß".as_bytes()), None),
        (utf8, false, texts([3, 2, 5], "ßaß".as_bytes()), Some(ColumnFault::Ends)),
        (utf8, false, texts([2, 4, 5], "ßaß".as_bytes()), Some(ColumnFault::Utf8)),
        (utf8, false, texts([1, 2, 3], &[b'a', 0xff, b'b']), Some(ColumnFault::Utf8)),
        (binary, false, texts([1, 2, 3], &[b'a', 0xff, b'b']), None),
        (binary, false, texts([2, 1, 3], &[b'a', 0xff, b'b']), Some(ColumnFault::Ends)),
        (utf8, true, lists([0, 1, 3], [1, 2, 3], b"abc"), None),
        (utf8, true, lists([1, 0, 3], [1, 2, 3], b"abc"), Some(ColumnFault::Ends)),
        (utf8, true, lists([0, 1, 3], [2, 1, 3], b"abc"), Some(ColumnFault::Ends)),
        (utf8, true, lists([0, 1, 3], [1, 2, 3], "ßa".as_bytes()), Some(ColumnFault::Utf8)),
        (binary, true, lists([0, 1, 3], [2, 1, 3], b"abc"), Some(ColumnFault::Ends)),
        (ColumnScalar::Int32, true, with_presence(&[ends([1, 0, 2]), vec![0; 8]]), Some(ColumnFault::Ends)),
    ] {
        let expected = expected.map(|fault| FrameFault::Column(0, fault));
        assert_eq!(fault(&bytes, &[field(scalar, is_list)], 3), expected, "{scalar:?}, list: {is_list}, {bytes:?}");
    }
}

#[test]
fn values_in_null_slots_are_cleared() {
    let batch = Batch { rows: 9, columns: columns(9).columns };
    let present = batch.clone().columns.into_iter().map(|(of, rows)| {
        let filled = rows.iter().find(|row| !matches!(row, Value::Null)).unwrap().clone();
        (of, rows.into_iter().map(|row| if row == Value::Null { filled.clone() } else { row }).collect())
    });
    let present = Batch { rows: 9, columns: present.collect() };
    let frame = present.frame();
    // One row of one column is null at a time, and its slot still has a value.
    for (index, parts) in frame.columns.iter().enumerate() {
        for row in [1, 3, 8] {
            let mut bytes = frame.bytes().to_vec();
            bytes[parts.presence + row / 8] &= !(1 << (row % 8));
            let mut expected = present.clone();
            expected.columns[index].1[row] = Value::Null;
            let cleared = read(bytes, &present.fields(), 9, &[]).unwrap();
            assert_eq!(cleared.bytes(), expected.frame().bytes(), "{:?}, row {row}", parts.column_type);
            assert_eq!(values(cleared), expected.values());
        }
    }
}

proptest! {
    /// Arbitrary bytes never cause a panic: they are accepted or rejected, and all values of an accepted frame can be read.
    #[test]
    fn no_bytes_are_too_much(
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), 0..8_u8, any::<u8>()], 0..400),
        rows in 0..20_usize,
        picked in prop::collection::vec((0..SCALARS.len(), any::<bool>()), 1..4),
    ) {
        let fields: Vec<Field> = picked.iter().map(|(of, is_list)| field(SCALARS[*of], *is_list)).collect();
        if let Ok(columns) = read_values(&bytes, &fields, rows) {
            prop_assert_eq!(columns.len(), fields.len());
            prop_assert!(columns.iter().all(|column| column.len() == rows));
        }
    }

    /// A valid frame with some changed bytes is either accepted or rejected. An accepted frame can be copied for
    /// another plugin.
    #[test]
    fn changed_bytes_are_survived(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![0..9_u8, any::<u8>()]), 1..6),
        rows in 1..70_usize,
    ) {
        let batch = columns(rows);
        let mut bytes = batch.frame().bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(frame) = read(bytes, &batch.fields(), rows, &[]) {
            let copy = frame.slice(0..rows);
            prop_assert_eq!(copy.bytes(), frame.bytes());
            values(frame);
        }
    }
}
