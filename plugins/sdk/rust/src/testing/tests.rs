//! Tests of complete plugins with the test host: every type, required inputs, and faults.

use std::{borrow::Cow, cell::Cell};

use super::{Host, Value, run};
use crate::{
    __private::{Instance, Plugin, types},
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
    list: Option<List<'a, &'a str>>,
}

#[derive(Outputs)]
struct ThreeAgain<'a> {
    flag: Option<bool>,
    text: Option<&'a str>,
    list: Option<List<'a, &'a str>>,
}

/// Returns its inputs.
#[plugin(name = "three", version = "1.0.0")]
fn three<'a>(row: Three<'a>) -> ThreeAgain<'a> {
    ThreeAgain { flag: row.flag, text: row.text, list: row.list }
}

/// The example in the contract: (true, "hi", ["a", "bc"]) and (null, null, []).
#[test]
fn contract_example_is_read_and_written() {
    let frame = [
        &words(&[1, 1, 1, 2 | 2 << 32, 3, 2 | 2 << 32])[..],
        b"hi\0\0\0\0\0\0",
        &words(&[1 | 3 << 32]),
        b"abc\0\0\0\0\0",
    ];
    let frame = frame.concat();
    let instance = Instance::new();
    instance.configure::<three>("null").unwrap();
    let again = instance.transform::<three>(types::Context { as_of: 0 }, 2, &frame).unwrap();
    assert_eq!(again, frame);
    assert_eq!(again.capacity(), again.len(), "a vector with spare capacity would be copied");
    let row = || rows![{ flag: true, text: "hi", list: ["a", "bc"] }].remove(0);
    let nothing = rows![{ list: Vec::<Value>::new() }].remove(0);
    let table = run::<three>(vec![row(), nothing]);
    assert_eq!(table["text"], [Value::from("hi"), Value::Null]);
    assert_eq!(table["list"][1], Value::List(Vec::new()));
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

fn sums(frame: &[u8], rows: u32) -> Result<Vec<u8>, types::Fault> {
    let instance = Instance::new();
    instance.configure::<sum>("null")?;
    instance.transform::<sum>(types::Context { as_of: 0 }, rows, frame)
}

fn message_of(fault: types::Fault) -> String {
    Fault::from(fault).message().to_owned()
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
    let fault = |frame: &[u8], rows| message_of(sums(frame, rows).unwrap_err());
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
        instance.transform::<count>(types::Context { as_of: 0 }, 2, &frame)
    };
    let (text, lists, items): (_, _, (&[u32], &[u8])) = (([1, 2], &b"ab"[..]), [0, 2], (&[1, 2], b"cd"));
    assert_eq!(call(text, lists, items).unwrap(), words(&[0b11, 1, 3]));
    let fault = |text, lists, items| message_of(call(text, lists, items).unwrap_err());
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
        return Err(Fault::bad_input("a negative number"));
    }
    Ok((numbers.left > 0.0).then_some(Sum { sum: numbers.left + context.as_of.0 as f64 }))
}

#[test]
fn function_may_return_none_or_fault() {
    let host = Host::<picky>::new().as_of(Timestamp(10));
    let table = host.run(rows![{ left: 1.0 }, { left: 0.0 }]).unwrap();
    assert_eq!(table["sum"][0], 11.0);
    assert!(table["sum"][1].is_null());
    assert!(describe::<picky>().outputs[0].nullable);
    assert_eq!(host.run(rows![{ left: 1.0 }, { left: -1.0 }]), Err(Fault::bad_input("a negative number")));
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
    let fault = Host::<columns>::new().run(rows![{ amount: 13 }]).unwrap_err();
    assert_eq!(fault.message(), "output 'shouted' has 0 values for 1 rows");
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
    let fault = Instance::new().transform::<sum>(types::Context { as_of: 0 }, 0, &[]).unwrap_err();
    assert!(matches!(fault, types::Fault::Internal(message) if message.contains("before configure")));
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
