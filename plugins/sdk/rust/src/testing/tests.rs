//! Tests of complete plugins with the test host: every type, required inputs, and faults.

mod allocations;

use std::{borrow::Cow, cell::Cell};

use super::{Host, Value, run};
use crate::{
    __private::{
        Instance, Plugin,
        types::{Batch, Field},
    },
    Column as InputColumn, Context, Fault, InputColumns, Inputs, List, OutputColumns, Outputs, Timestamp, plugin,
    run::describe,
};

/// Every type that an input can have.
#[derive(Inputs)]
struct Everything<'a> {
    a_bool: Option<bool>,
    an_i32: Option<i32>,
    an_i64: Option<i64>,
    an_f32: Option<f32>,
    an_f64: Option<f64>,
    a_text: Option<&'a str>,
    an_own_text: Option<String>,
    bytes: Option<&'a [u8]>,
    own_bytes: Option<Vec<u8>>,
    a_time: Option<Timestamp>,
    bools: Option<List<'a, bool>>,
    i32s: Option<&'a [i32]>,
    i64s: Option<Vec<i64>>,
    f32s: Option<List<'a, f32>>,
    f64s: Option<&'a [f64]>,
    texts: Option<List<'a, &'a str>>,
    own_texts: Option<Vec<String>>,
    blobs: Option<Vec<&'a [u8]>>,
    times: Option<Vec<Timestamp>>,
}

/// An output of every type in the contract.
#[derive(Outputs)]
struct Mirror<'a> {
    a_bool: Option<bool>,
    an_i32: Option<i32>,
    an_i64: Option<i64>,
    an_f32: Option<f32>,
    an_f64: Option<f64>,
    a_text: Option<Cow<'a, str>>,
    an_own_text: Option<String>,
    bytes: Option<&'a [u8]>,
    own_bytes: Option<Vec<u8>>,
    a_time: Option<Timestamp>,
    bools: Option<List<'a, bool>>,
    i32s: Option<&'a [i32]>,
    i64s: Option<Vec<i64>>,
    f32s: Option<Vec<f32>>,
    f64s: Option<&'a [f64]>,
    texts: Option<List<'a, &'a str>>,
    own_texts: Option<Vec<String>>,
    blobs: Option<Vec<&'a [u8]>>,
    times: Option<Vec<Timestamp>>,
}

/// Returns its inputs.
#[plugin(name = "mirror", version = "1.0.0")]
fn mirror<'a>(row: Everything<'a>) -> Mirror<'a> {
    Mirror {
        a_bool: row.a_bool,
        an_i32: row.an_i32,
        an_i64: row.an_i64,
        an_f32: row.an_f32,
        an_f64: row.an_f64,
        a_text: row.a_text.map(Cow::Borrowed),
        an_own_text: row.an_own_text,
        bytes: row.bytes,
        own_bytes: row.own_bytes,
        a_time: row.a_time,
        bools: row.bools,
        i32s: row.i32s,
        i64s: row.i64s,
        f32s: row.f32s.map(|list| list.iter().collect()),
        f64s: row.f64s,
        texts: row.texts,
        own_texts: row.own_texts,
        blobs: row.blobs,
        times: row.times,
    }
}

#[test]
fn every_type_round_trips() {
    let full = |text: &'static str, i: i32| {
        rows![{
            a_bool: i % 2 == 0, an_i32: i, an_i64: i64::from(i) << 40, an_f32: 0.1_f32, an_f64: 0.1, a_text: text,
            an_own_text: "own", bytes: text.as_bytes(), own_bytes: &[0_u8, 255][..], a_time: Timestamp(-5),
            bools: [true, false], i32s: [i, -i], i64s: [1_i64, 2, 3], f32s: [1.5_f32], f64s: [f64::MAX, f64::MIN],
            texts: ["", text, "ü"], own_texts: ["a"], blobs: [text.as_bytes()], times: [Timestamp(1), Timestamp(2)],
        }]
        .remove(0)
    };
    let mut all = Vec::new();
    // More than two presence words, with nulls in the middle and at the end.
    for i in 0..30 {
        all.push(full("größe", i));
        all.push(Vec::new());
        all.push(full("", -i));
        all.push(full("x", i));
        all.push(Vec::new());
    }
    let table = run::<mirror>(all.clone());
    for (i, row) in all.iter().enumerate() {
        for field in mirror::fields().inputs {
            let sent = row.iter().find(|(name, _)| *name == field.name).map_or(Value::Null, |(_, value)| value.clone());
            assert_eq!(table[field.name][i], sent, "{} of row {i}", field.name);
        }
    }
}

#[test]
fn frame_matches_contract_without_spare_capacity() {
    let one = sums(&words(&[1, bits(1.5), 1, bits(2.0)]), 1).unwrap();
    assert_eq!(one, words(&[1, bits(3.5)]));
    assert_eq!(one.capacity(), one.len(), "a vector with spare capacity would be copied");
    // Three rows; the second one lacks the required input.
    let heads = [0b101, bits(1.0), 0, bits(3.0), 0b111, bits(1.0), bits(2.0), bits(3.0)];
    assert_eq!(sums(&words(&heads), 3).unwrap(), words(&[0b101, bits(2.0), 0, bits(6.0)]));
}

#[derive(Inputs)]
struct Three<'a> {
    flag: Option<bool>,
    text: Option<&'a str>,
    list: Option<List<'a, Option<&'a str>>>,
}

#[derive(Outputs)]
struct ThreeAgain<'a> {
    flag: Option<bool>,
    text: Option<&'a str>,
    list: Option<List<'a, Option<&'a str>>>,
}

/// Returns its inputs.
#[plugin(name = "three", version = "1.0.0")]
fn three<'a>(row: Three<'a>) -> ThreeAgain<'a> {
    ThreeAgain { flag: row.flag, text: row.text, list: row.list }
}

/// The example in the contract: (true, "hi", ["a", null, "bc"]) and (null, null, []).
#[test]
fn contract_example_is_read_and_written() {
    let frame = [
        &words(&[1, 1, 1, 2 | 2 << 32, 3, 3 | 3 << 32])[..],
        b"hi\0\0\0\0\0\0",
        &words(&[5, 1 | 1 << 32, 3]),
        b"abc\0\0\0\0\0",
    ];
    let frame = frame.concat();
    let instance = Instance::new();
    instance.configure::<three>("null").unwrap();
    let again = instance.transform::<three>(2, &frame).unwrap().outputs;
    assert_eq!(again, frame);
    assert_eq!(again.capacity(), again.len(), "a vector with spare capacity would be copied");
    let table = run::<three>(rows![
        { flag: true, text: "hi", list: [Some("a"), None, Some("bc")] },
        { list: Vec::<Value>::new() },
    ]);
    assert_eq!(table["text"], [Value::from("hi"), Value::Null]);
    assert_eq!(table["list"][0], [Some("a"), None, Some("bc")]);
    assert_eq!(table["list"][1], Value::List(Vec::new()));
    let signature = describe::<three>();
    let nullable = |fields: &[Field]| fields.iter().map(|field| field.nullable_items).collect::<Vec<_>>();
    assert_eq!(nullable(&signature.inputs), [false, false, true]);
    assert_eq!(nullable(&signature.outputs), [false, false, true]);
}

/// A required input and an optional one.
#[derive(Inputs)]
struct Numbers {
    /// The required input.
    left: f64,
    right: Option<f64>,
}

#[derive(Outputs)]
struct Sum {
    sum: f64,
}

/// The sum of two numbers.
#[plugin(name = "sum", version = "1.2.3")]
fn sum(numbers: Numbers) -> Sum {
    Sum { sum: numbers.left + numbers.right.unwrap_or(0.0) }
}

fn bits(value: f64) -> u64 {
    value.to_bits()
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn sums(frame: &[u8], rows: u32) -> Result<Vec<u8>, String> {
    let instance = Instance::new();
    instance.configure::<sum>("null")?;
    let Batch { outputs, failed } = instance.transform::<sum>(rows, frame)?;
    assert!(failed.is_empty());
    Ok(outputs)
}

#[test]
fn row_without_required_input_is_null() {
    let table = run::<sum>(rows![{ left: 1, right: 2.0 }, { right: 2.0 }, { left: 1.0 }]);
    assert_eq!(table["sum"][0], 3.0);
    assert!(table["sum"][1].is_null());
    assert_eq!(table["sum"][2], 1.0);
    let signature = describe::<sum>();
    assert_eq!((signature.name.as_str(), signature.version.as_str()), ("sum", "1.2.3"));
    assert_eq!(signature.doc, "The sum of two numbers.");
    let inputs: Vec<_> = signature.inputs.iter().map(|input| (&*input.name, input.nullable, &*input.doc)).collect();
    assert_eq!(inputs, [("left", false, "The required input."), ("right", true, "")]);
    assert!(signature.outputs[0].nullable);
}

#[test]
fn frame_of_wrong_size_is_rejected() {
    let fault = |frame: &[u8], rows| sums(frame, rows).unwrap_err();
    let good = words(&[1, bits(1.0), 1, bits(2.0)]);
    assert!(sums(&good, 1).is_ok());
    let fewer = "received a frame of 24 bytes, but the heads of this plugin's inputs take 32";
    assert_eq!(fault(&good[..24], 1), fewer);
    assert_eq!(fault(&good[..31], 1), "the frame has 31 bytes, which is not a multiple of 8");
    let more_rows = "received a frame of 32 bytes, but the heads of this plugin's inputs take 48";
    assert_eq!(fault(&good, 2), more_rows);
    let more = [good, words(&[0])].concat();
    assert_eq!(fault(&more, 1), "the received frame has 8 bytes more than this plugin's inputs");
}

#[test]
fn frame_is_read_at_any_address() {
    let good = words(&[1, bits(1.0), 1, bits(2.0)]);
    for shift in 0..8 {
        let shifted = [vec![0xff; shift], good.clone()].concat();
        assert_eq!(sums(&shifted[shift..], 1).unwrap(), words(&[1, bits(3.0)]), "shifted by {shift} bytes");
    }
}

#[derive(Inputs)]
struct Words<'a> {
    text: Option<&'a str>,
    list: Option<List<'a, &'a str>>,
}

#[derive(Outputs)]
struct Count {
    count: i64,
}

/// Counts bytes.
#[plugin(name = "count", version = "1.0.0")]
fn count(words: Words<'_>) -> Count {
    let list: usize = words.list.into_iter().flatten().map(str::len).sum();
    Count { count: (words.text.map_or(0, str::len) + list) as i64 }
}

#[test]
fn bad_ends_and_text_name_the_input() {
    // Two rows with a string and a list: presence and ends of both, the text's bytes, and the items' ends and bytes.
    let call = |text: ([u32; 2], &[u8]), lists: [u32; 2], items: (&[u32], &[u8])| {
        let mut frame = Vec::new();
        let mut add = |part: &[u8]| {
            frame.extend_from_slice(part);
            frame.resize(frame.len().next_multiple_of(8), 0);
        };
        let ends = |ends: &[u32]| ends.iter().flat_map(|end| end.to_le_bytes()).collect::<Vec<u8>>();
        for part in [&[0b11][..], &ends(&text.0), &[0b11], &ends(&lists), text.1, &ends(items.0), items.1] {
            add(part);
        }
        let instance = Instance::new();
        instance.configure::<count>("null").unwrap();
        instance.transform::<count>(2, &frame).map(|batch| batch.outputs)
    };
    let (text, lists, items): (_, _, (&[u32], &[u8])) = (([1, 2], &b"ab"[..]), [0, 2], (&[1, 2], b"cd"));
    assert_eq!(call(text, lists, items).unwrap(), words(&[0b11, 1, 3]));
    let fault = |text, lists, items| call(text, lists, items).unwrap_err();
    assert_eq!(fault(([2, 1], b"ab"), lists, items), "the end offsets of input 'text' decrease");
    assert_eq!(fault(([1, 99], b"ab"), lists, items), "the received frame ends before the end of input 'text'");
    assert_eq!(fault(([1, 2], b"\xff\xff"), lists, items), "input 'text' has text that is not UTF-8");
    assert_eq!(fault(([1, 2], "é".as_bytes()), lists, items), "input 'text' has text that is not UTF-8");
    assert_eq!(fault(text, [2, 1], items), "the end offsets of input 'list' decrease");
    assert_eq!(fault(text, [0, 99], items), "the received frame ends before the end of input 'list'");
    assert_eq!(fault(text, [0, u32::MAX], items), "the received frame ends before the end of input 'list'");
    assert_eq!(fault(text, lists, (&[2, 1], b"cd")), "the end offsets of input 'list' decrease");
    assert_eq!(fault(text, lists, (&[1, 2], "é".as_bytes())), "input 'list' has text that is not UTF-8");
    let surplus = fault(text, [0, 0], items);
    assert_eq!(surplus, "the received frame has 16 bytes more than this plugin's inputs");
}

/// Returns a sum, `None` or a fault, depending on the inputs.
#[plugin(name = "picky", version = "1.0.0")]
fn picky(context: &Context, numbers: Numbers) -> Result<Option<Sum>, Fault> {
    if numbers.left < 0.0 {
        return Err(Fault::new(format_args!("{} is negative", numbers.left)));
    }
    Ok((numbers.left > 0.0).then_some(Sum { sum: numbers.left + context.as_of.0 as f64 }))
}

#[test]
fn fault_fails_only_its_row() {
    let table = run::<picky>(rows![{ left: -1.0 }, { left: 1.0 }, { left: 0.0 }, {}, { left: -2.5 }]);
    assert_eq!(table["sum"], [Value::Null, 1.0.into(), Value::Null, Value::Null, Value::Null]);
    assert_eq!(table.failed(), [(0, "-1 is negative"), (4, "-2.5 is negative")]);
    assert!(describe::<picky>().outputs[0].nullable, "the function can return `None`");
    assert_eq!(run::<picky>(rows![{ left: 1.0 }, {}]).failed(), []);
}

/// Fails rows without a number.
#[plugin(name = "strict", version = "1.0.0")]
fn strict(words: Words<'_>) -> Result<Lengths, Fault> {
    let text = words.text.ok_or("there is no text")?;
    Ok(Lengths { number: text.parse()?, text: text.to_owned(), lengths: vec![text.len() as i64] })
}

#[derive(Outputs)]
struct Lengths {
    number: i32,
    text: String,
    lengths: Vec<i64>,
}

#[test]
fn failed_row_is_null_in_required_outputs() {
    let table = run::<strict>(rows![{ text: "12" }, { text: "x" }, {}, { text: "345" }]);
    assert_eq!(table.failed(), [(1, "invalid digit found in string"), (2, "there is no text")]);
    assert_eq!(table["number"], [12.into(), Value::Null, Value::Null, 345.into()]);
    assert_eq!(table["text"], ["12".into(), Value::Null, Value::Null, "345".into()]);
    assert_eq!(table["lengths"], [vec![2_i64].into(), Value::Null, Value::Null, vec![3_i64].into()]);
    assert!(describe::<strict>().outputs.iter().all(|output| !output.nullable));
}

/// Adds the row's reference time to a number.
#[plugin(name = "clock", version = "1.0.0")]
fn clock(numbers: Numbers, context: &Context) -> Sum {
    Sum { sum: numbers.left + context.as_of.0 as f64 }
}

#[derive(OutputColumns)]
struct Hours {
    hour: Vec<i64>,
}

/// Returns the hour of each row's reference time, in UTC.
#[plugin(name = "hours", version = "1.0.0", by = "columns")]
fn hours(contexts: &[Context], _amounts: Amounts<'_>) -> Hours {
    Hours { hour: contexts.iter().map(|context| context.as_of.0 / 3_600_000_000 % 24).collect() }
}

#[test]
fn each_row_has_its_own_time() {
    let host = Host::<clock>::new();
    let rows = || rows![{ left: 1.0 }, { left: 2.0 }, {}];
    assert_eq!(host.run(rows()).unwrap()["sum"], [1.0.into(), 2.0.into(), Value::Null]);
    let same = host.clone().as_of(Timestamp(10)).run(rows()).unwrap();
    assert_eq!(same["sum"], [11.0.into(), 12.0.into(), Value::Null]);
    let each = host.as_of_each([10, -20, 30].map(Timestamp)).run(rows()).unwrap();
    assert_eq!(each["sum"], [11.0.into(), Value::from(-18.0), Value::Null]);
    let hours = Host::<hours>::new().as_of_each([3, 29].map(|hour| Timestamp(hour * 3_600_000_000)));
    assert_eq!(hours.run(rows![{}, {}]).unwrap()["hour"], [3_i64, 5].map(Value::from));
    assert!(describe::<clock>().reads_time && describe::<hours>().reads_time && !describe::<sum>().reads_time);
}

#[test]
#[should_panic(expected = "as_of_each has 1 times for 2 rows")]
fn missing_time_panics() {
    let _ = Host::<clock>::new().as_of_each([Timestamp(0)]).run(rows![{}, {}]);
}

#[test]
fn frame_without_time_is_rejected() {
    let instance = Instance::new();
    instance.configure::<clock>("null").unwrap();
    let call = |frame: &[u64]| instance.transform::<clock>(1, &words(frame)).map(|batch| batch.outputs);
    let inputs = [1, bits(1.0), 0, 0];
    assert_eq!(call(&[&[1, 7], &inputs[..]].concat()).unwrap(), words(&[1, bits(8.0)]));
    assert_eq!(call(&[&[0, 0], &inputs[..]].concat()).unwrap_err(), "the received frame has a row without a time");
    assert!(call(&inputs).unwrap_err().contains("the heads of this plugin's inputs take 48"));
}

#[derive(Inputs)]
struct Holes<'a> {
    flags: Option<List<'a, Option<bool>>>,
    numbers: Option<Vec<Option<f64>>>,
    texts: Option<Vec<Option<String>>>,
    blobs: List<'a, Option<&'a [u8]>>,
}

#[derive(Outputs)]
struct HolesAgain<'a> {
    flags: Option<List<'a, Option<bool>>>,
    numbers: Option<Vec<Option<f64>>>,
    texts: Option<Vec<Option<Cow<'a, str>>>>,
    blobs: Vec<Option<&'a [u8]>>,
    first: [Option<bool>; 2],
}

/// Returns its inputs.
#[plugin(name = "holes", version = "1.0.0")]
fn holes<'a>(row: Holes<'a>) -> HolesAgain<'a> {
    HolesAgain {
        flags: row.flags,
        numbers: row.numbers,
        texts: row.texts.map(|texts| texts.into_iter().map(|text| text.map(Cow::Owned)).collect()),
        blobs: row.blobs.iter().collect(),
        first: [0, 1].map(|i| row.flags.and_then(|flags| flags.get(i)).flatten()),
    }
}

#[test]
fn null_items_round_trip() {
    let many: Vec<Option<f64>> = (0..130).map(|i| (i % 3 != 0).then_some(f64::from(i))).collect();
    let blob = |bytes: &'static [u8]| Value::from(bytes);
    let table = run::<holes>(rows![
        { flags: [Some(true), None], numbers: many.clone(), texts: [None, Some("ü"), None], blobs: [blob(b"a"), Value::Null] },
        { flags: [None::<bool>; 9], numbers: Vec::<f64>::new(), blobs: Vec::<Value>::new() },
        { flags: [Some(false), Some(true), None], numbers: [1.0], texts: ["x"], blobs: [Value::Null, blob(b"")] },
        { flags: [true] },
    ]);
    assert_eq!(table["flags"][0], [Some(true), None]);
    assert_eq!(table["flags"][1], [None::<bool>; 9]);
    assert_eq!(table["numbers"][0], Value::from(many));
    assert_eq!(table["numbers"][2], [1.0]);
    assert_eq!(table["texts"], [Value::from([None, Some("ü"), None]), Value::Null, ["x"].into(), Value::Null]);
    assert_eq!(table["blobs"][0], Value::List(vec![blob(b"a"), Value::Null]));
    assert_eq!(table["blobs"][2], Value::List(vec![Value::Null, blob(b"")]));
    assert_eq!(table["first"][0], [Some(true), None]);
    assert_eq!(table["first"][2], [Some(false), Some(true)]);
    assert!(table["flags"][3].is_null(), "the required input is null");
    let signature = describe::<holes>();
    assert!(signature.inputs.iter().chain(&signature.outputs).all(|field| field.nullable_items));
}

#[test]
#[should_panic(expected = "input 'list' has a null item. hint: use Option for the items")]
fn null_item_of_required_items_panics() {
    let _ = run::<count>(rows![{ list: [Some("a"), None] }]);
}

#[derive(InputColumns)]
struct Amounts<'a> {
    amount: InputColumn<'a, f64>,
    label: InputColumn<'a, &'a str>,
}

#[derive(OutputColumns)]
struct Shares {
    doubled: Vec<Option<f64>>,
    shouted: Vec<String>,
}

/// Doubles an amount.
#[plugin(name = "columns", version = "1.0.0", by = "columns")]
fn columns(amounts: Amounts<'_>) -> Shares {
    let mut shouted: Vec<String> = amounts.label.iter().map(|label| label.unwrap_or("nobody").to_uppercase()).collect();
    if amounts.amount.values().first() == Some(&13.0) {
        shouted.clear();
    }
    Shares { doubled: (0..amounts.amount.len()).map(|row| amounts.amount.get(row).map(|x| 2.0 * x)).collect(), shouted }
}

#[test]
fn column_function_gets_all_rows() {
    let table = run::<columns>(rows![{ amount: 1.5, label: "a" }, { label: "b" }, { amount: 2.0 }]);
    assert_eq!(table["doubled"][0], 3.0);
    assert!(table["doubled"][1].is_null());
    assert_eq!(table["shouted"], ["A", "B", "NOBODY"].map(Value::from));
    let outputs: Vec<bool> = describe::<columns>().outputs.iter().map(|output| output.nullable).collect();
    assert_eq!(outputs, [true, false]);
    let table = run::<columns>(rows![{ amount: 13 }]);
    assert_eq!(table.failed(), [(0, "output 'shouted' has 0 values for 1 rows")]);
}

/// Fails the whole batch if a label is missing.
#[plugin(name = "labels", version = "1.0.0", by = "columns")]
fn labels(amounts: Amounts<'_>) -> Result<Shares, Fault> {
    let labels: Option<Vec<&str>> = amounts.label.iter().collect();
    let shouted = labels.ok_or("a label is missing")?.into_iter().map(str::to_uppercase).collect();
    Ok(Shares { doubled: vec![None; amounts.label.len()], shouted })
}

#[test]
fn failed_batch_is_tried_row_by_row() {
    let instance = Instance::new();
    instance.configure::<labels>("null").unwrap();
    let two_nulls = words(&[0, 0, 0, 0, 0]);
    assert_eq!(instance.transform::<labels>(2, &two_nulls).err().unwrap(), "a label is missing");
    let table = run::<labels>(rows![{ label: "a" }, { amount: 1.0 }, { label: "b" }]);
    assert_eq!(table["shouted"], ["A".into(), Value::Null, "B".into()]);
    assert_eq!(table.failed(), [(1, "a label is missing")]);
}

#[derive(OutputColumns)]
struct Totals {
    total: Vec<f64>,
}

/// Returns the total of the batch for each row, although a row may not depend on other rows.
#[plugin(name = "totals", version = "1.0.0", by = "columns")]
fn totals(amounts: Amounts<'_>) -> Totals {
    Totals { total: vec![amounts.amount.values().iter().sum(); amounts.amount.len()] }
}

#[test]
#[should_panic(
    expected = "output 'total' of rows 0, 2 has one value in the batch, and another one alone. hint: compute"
)]
fn use_of_other_rows_is_detected() {
    let _ = run::<totals>(rows![{ amount: 1.0 }, { amount: 3.0 }, { amount: -1.0 }]);
}

/// Changes the signs of amounts that are not sorted, although the order of rows must not matter. The sign of 0 counts.
#[plugin(name = "ordered", version = "1.0.0", by = "columns")]
fn ordered(amounts: Amounts<'_>) -> Totals {
    let amounts = amounts.amount.values();
    Totals { total: amounts.iter().map(|amount| if amounts.is_sorted() { *amount } else { -amount }).collect() }
}

#[test]
#[should_panic(
    expected = "output 'total' of rows 0, 1, 2 has one value in the batch, and another one in reversed order"
)]
fn use_of_order_is_detected() {
    let _ = run::<ordered>(rows![{}, { amount: 1.0 }, { amount: 2.0 }]);
}

/// Fails rows of batches with several rows.
#[plugin(name = "lonely", version = "1.0.0", by = "columns")]
fn lonely(amounts: Amounts<'_>) -> Result<Totals, Fault> {
    let amounts = amounts.amount.values();
    if amounts.len() > 1 { Err(Fault::new("too many rows")) } else { Ok(Totals { total: amounts.to_vec() }) }
}

#[test]
#[should_panic(expected = "the batch fails, but no row fails alone: too many rows. hint: compute each row by itself")]
fn fault_of_batch_size_is_detected() {
    let _ = run::<lonely>(rows![{}, {}]);
}

/// Fails every second row.
#[plugin(name = "moody", version = "1.0.0")]
fn moody(_row: Numbers) -> Result<Sum, Fault> {
    CALLS.set(CALLS.get() + 1.0);
    if CALLS.get() % 2.0 == 0.0 { Err("an even call".into()) } else { Ok(Sum { sum: 1.0 }) }
}

#[test]
#[should_panic(expected = "rows 0, 1 fail either in the batch or in reversed order, but not in both")]
fn fault_of_earlier_call_is_detected() {
    let _ = run::<moody>(rows![{ left: 1.0 }, { left: 1.0 }]);
}

#[test]
fn values_with_same_bits_are_equal() {
    let same = |a: Value, b: Value| a.has_same_bits(&b);
    assert!(same(f64::NAN.into(), (-f64::NAN).into()));
    assert!(!same(0.0.into(), (-0.0).into()));
    assert!(!same([0.0].into(), [-0.0].into()) && same([0.0].into(), [0.0].into()));
    assert!(!same([1.0].into(), [1.0, 1.0].into()));
    assert!(same("a".into(), "a".into()) && !same(Value::Null, 0.0.into()));
}

thread_local! {
    static CALLS: Cell<f64> = const { Cell::new(0.0) };
}

/// Returns the number of calls so far, which violates the rule that equal inputs give equal outputs.
#[plugin(name = "counter", version = "1.0.0")]
fn counter(_row: Numbers) -> Sum {
    CALLS.set(CALLS.get() + 1.0);
    Sum { sum: CALLS.get() }
}

#[test]
#[should_panic(expected = "gave a different result the second time")]
fn stateful_plugin_is_detected() {
    let _ = run::<counter>(rows![{ left: 1.0 }]);
}

#[test]
#[should_panic(expected = "a row has 'lift', but the plugin's inputs are left, right")]
fn unknown_input_name_panics() {
    let _ = run::<sum>(rows![{ lift: 1.0 }]);
}

#[test]
#[should_panic(expected = "input 'left' is Float64, got Text(\"1\")")]
fn value_of_wrong_type_panics() {
    let _ = run::<sum>(rows![{ left: "1" }]);
}

#[test]
fn unused_configuration_is_a_fault() {
    assert!(Host::<sum>::new().config("{}").run(Vec::new()).is_ok());
    let fault = Host::<sum>::new().config(r#"{"scale": 2}"#).run(Vec::new()).unwrap_err();
    assert!(fault.message().contains("takes no configuration"), "{fault}");
}

#[test]
fn unconfigured_instance_returns_fault() {
    let fault = Instance::new().transform::<sum>(0, &[]).err().unwrap();
    assert_eq!(fault, "transform was called before configure");
}

#[cfg(feature = "config")]
mod config {
    use std::collections::BTreeMap;

    use super::*;

    type Scales = BTreeMap<String, f64>;

    /// Multiplies by a configured factor.
    #[plugin(name = "scaled", version = "1.0.0")]
    fn scaled(numbers: Numbers, scales: &Scales) -> Sum {
        Sum { sum: numbers.left * scales.get("by").copied().unwrap_or(1.0) }
    }

    /// Returns -1 if there is no configuration.
    #[plugin(name = "configured", version = "1.0.0")]
    fn configured(scales: &Option<Scales>, numbers: Numbers) -> Sum {
        Sum { sum: if scales.is_some() { numbers.left } else { -1.0 } }
    }

    #[test]
    fn configuration_is_read_and_checked() {
        let scaled = |json: &str| Host::<scaled>::new().config(json).run(rows![{ left: 2.0 }]);
        assert_eq!(scaled(r#"{"by": 3}"#).unwrap()["sum"][0], 6.0);
        assert_eq!(scaled("null").unwrap()["sum"][0], 2.0, "no configuration is read as an empty one");
        let message = scaled(r#"{"by": "much"}"#).unwrap_err().message().to_owned();
        assert!(message.contains("invalid type: string \"much\", expected f64"), "{message}");
        assert!(scaled("{").unwrap_err().message().contains("EOF"));
        let table = Host::<configured>::new().run(rows![{ left: 2.0 }]).unwrap();
        assert_eq!(table["sum"][0], -1.0, "the type accepts null");
    }
}
