//! Whole plugins through the host of tests: every type, the rule of required inputs, faults.

use std::{borrow::Cow, cell::Cell};

use super::{Host, Value, run};
use crate::{
    __private::{
        Batch, Instance, Plugin,
        types::{self, Column, Lists, Scalars, Values, VarBytes},
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

/// The same, as outputs.
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

/// Gives back what it gets.
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
fn every_type_comes_back_as_it_went() {
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
    // More than one byte of bitmap, with nulls amid and at the end.
    for i in 0..9 {
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
fn outputs_have_no_room_to_spare_and_no_bitmap_without_nulls() {
    let columns = [float64s(vec![1.0, 2.0, 3.0]), float64s(vec![1.0; 3])];
    let computed = sums(&columns, 3).unwrap();
    let Values::Scalars(Scalars::Float64s(values)) = &computed[0].values else { panic!("a double") };
    assert_eq!((values.len(), values.capacity()), (3, 3));
    assert!(computed[0].validity.is_none());
}

/// Two inputs, one of which has to be there.
#[derive(Inputs)]
struct Numbers {
    /// What has to be there.
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

fn float64s(values: Vec<f64>) -> Column {
    Column { values: Values::Scalars(Scalars::Float64s(values)), validity: None }
}

fn sums(columns: &[Column], rows: usize) -> Result<Vec<Column>, Fault> {
    sum::transform(&(), &Context::default(), Batch { columns, rows })
}

#[test]
fn a_row_without_a_required_input_is_null_and_the_signature_says_so() {
    let table = run::<sum>(rows![{ left: 1, right: 2.0 }, { right: 2.0 }, { left: 1.0 }]);
    assert_eq!(table["sum"][0], 3.0);
    assert!(table["sum"][1].is_null());
    assert_eq!(table["sum"][2], 1.0);
    let signature = describe::<sum>();
    assert_eq!((signature.name.as_str(), signature.version.as_str()), ("sum", "1.2.3"));
    assert_eq!(signature.doc, "The sum of two numbers.");
    let inputs: Vec<_> = signature.inputs.iter().map(|input| (&*input.name, input.nullable, &*input.doc)).collect();
    assert_eq!(inputs, [("left", false, "What has to be there."), ("right", true, "")]);
    assert!(signature.outputs[0].nullable);
}

#[test]
fn columns_that_are_not_as_declared_are_named() {
    let fault = |columns: &[Column], rows| sums(columns, rows).unwrap_err().message().to_owned();
    let ints = Column { values: Values::Scalars(Scalars::Int64s(vec![1])), validity: None };
    assert_eq!(fault(&[float64s(vec![1.0]), ints], 1), "input 'right' is Int64, and the plugin declares Float64");
    let list = Values::Lists(Lists { ends: vec![1], items: Scalars::Float64s(vec![1.0]) });
    let list = Column { values: list, validity: None };
    assert_eq!(
        fault(&[list, float64s(vec![1.0])], 1),
        "input 'left' is Array(Float64), and the plugin declares Float64"
    );
    assert_eq!(fault(&[float64s(vec![1.0])], 1), "1 columns came for the 2 inputs of this plugin");
    assert_eq!(fault(&vec![float64s(vec![1.0]); 3], 1), "3 columns came for the 2 inputs of this plugin");
    assert_eq!(fault(&[float64s(vec![1.0]), float64s(Vec::new())], 1), "input 'right' has 0 slots for 1 rows");
    let short = Column { validity: Some(vec![1]), ..float64s(vec![1.0; 9]) };
    assert_eq!(
        fault(&[short, float64s(vec![1.0; 9])], 9),
        "input 'left' has a validity bitmap that does not fit 9 rows"
    );
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
fn ends_and_texts_that_are_none_are_named() {
    let call = |text: VarBytes, list: (Vec<u32>, VarBytes)| {
        let rows = text.ends.len();
        let list = Values::Lists(Lists { ends: list.0, items: Scalars::Strings(list.1) });
        let columns = [Values::Scalars(Scalars::Strings(text)), list].map(|values| Column { values, validity: None });
        count::transform(&(), &Context::default(), Batch { columns: &columns, rows })
    };
    let var = |ends: &[u32], data: &[u8]| VarBytes { ends: ends.to_vec(), data: data.to_vec() };
    let good = || (vec![0, 2], var(&[1, 2], b"ab"));
    let fault = |text, list| call(text, list).unwrap_err().message().to_owned();
    assert!(call(var(&[1, 2], b"ab"), good()).is_ok());
    assert_eq!(fault(var(&[2, 1], b"a"), good()), "input 'text' has ends that run backwards or beyond its data");
    assert_eq!(fault(var(&[1, 3], b"ab"), good()), "input 'text' has ends that run backwards or beyond its data");
    assert_eq!(fault(var(&[1, 1], b"ab"), good()), "input 'text' has ends that run backwards or beyond its data");
    assert_eq!(fault(var(&[1, 2], b"\xff\xff"), good()), "input 'text' has text that is not UTF-8");
    assert_eq!(fault(var(&[1, 2], "é".as_bytes()), good()), "input 'text' has text that is not UTF-8");
    let beyond = (vec![0, 3], var(&[1, 2], b"ab"));
    assert_eq!(fault(var(&[1, 2], b"ab"), beyond), "input 'list' has ends that run backwards or beyond its data");
    let items = (vec![0, 2], var(&[2, 1], b"a"));
    assert_eq!(fault(var(&[1, 2], b"ab"), items), "input 'list' has ends that run backwards or beyond its data");
    assert_eq!(fault(var(&[1, 2], b"ab"), (vec![0], var(&[], b""))), "input 'list' has 1 slots for 2 rows");
}

/// None, or a fault, by the input.
#[plugin(name = "picky", version = "1.0.0")]
fn picky(context: &Context, numbers: Numbers) -> Result<Option<Sum>, Fault> {
    if numbers.left < 0.0 {
        return Err(Fault::bad_input("a negative number"));
    }
    Ok((numbers.left > 0.0).then_some(Sum { sum: numbers.left + context.as_of.0 as f64 }))
}

#[test]
fn a_function_may_have_nothing_to_say_or_give_up() {
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

/// Twice an amount.
#[plugin(name = "columns", version = "1.0.0", by = "columns")]
fn columns(amounts: Amounts<'_>) -> Shares {
    let mut shouted: Vec<String> = amounts.label.iter().map(|label| label.unwrap_or("nobody").to_uppercase()).collect();
    if amounts.amount.values().first() == Some(&13.0) {
        shouted.clear();
    }
    Shares { doubled: (0..amounts.amount.len()).map(|row| amounts.amount.get(row).map(|x| 2.0 * x)).collect(), shouted }
}

#[test]
fn functions_of_columns_get_all_rows_at_once() {
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

/// Counts its calls, which no plugin should.
#[plugin(name = "counter", version = "1.0.0")]
fn counter(_row: Numbers) -> Sum {
    CALLS.set(CALLS.get() + 1.0);
    Sum { sum: CALLS.get() }
}

#[test]
#[should_panic(expected = "gave something else the second time")]
fn a_plugin_that_remembers_is_found_out() {
    let _ = run::<counter>(rows![{ left: 1.0 }]);
}

#[test]
#[should_panic(expected = "a row has 'lift', and the plugin's inputs are left, right")]
fn a_mistyped_input_is_told() {
    let _ = run::<sum>(rows![{ lift: 1.0 }]);
}

#[test]
#[should_panic(expected = "input 'left' is Float64, got Text(\"1\")")]
fn a_value_of_another_type_is_told() {
    let _ = run::<sum>(rows![{ left: "1" }]);
}

#[test]
fn a_configuration_that_nobody_reads_is_a_fault() {
    assert!(Host::<sum>::new().config("{}").run(Vec::new()).is_ok());
    let fault = Host::<sum>::new().config(r#"{"scale": 2}"#).run(Vec::new()).unwrap_err();
    assert!(fault.message().contains("takes no configuration"), "{fault}");
}

#[test]
fn an_instance_that_is_not_configured_does_not_answer() {
    let fault = Instance::new().transform::<sum>(types::Context { as_of: 0 }, 0, &[]).unwrap_err();
    assert!(matches!(fault, types::Fault::Internal(message) if message.contains("before configure")));
}

#[cfg(feature = "config")]
mod config {
    use std::collections::BTreeMap;

    use super::*;

    type Scales = BTreeMap<String, f64>;

    /// Scales.
    #[plugin(name = "scaled", version = "1.0.0")]
    fn scaled(numbers: Numbers, scales: &Scales) -> Sum {
        Sum { sum: numbers.left * scales.get("by").copied().unwrap_or(1.0) }
    }

    /// Says whether there is a configuration.
    #[plugin(name = "configured", version = "1.0.0")]
    fn configured(scales: &Option<Scales>, numbers: Numbers) -> Sum {
        Sum { sum: if scales.is_some() { numbers.left } else { -1.0 } }
    }

    #[test]
    fn a_configuration_is_read_and_its_mistakes_are_told() {
        let scaled = |json: &str| Host::<scaled>::new().config(json).run(rows![{ left: 2.0 }]);
        assert_eq!(scaled(r#"{"by": 3}"#).unwrap()["sum"][0], 6.0);
        assert_eq!(scaled("null").unwrap()["sum"][0], 2.0, "no configuration is an empty one");
        let message = scaled(r#"{"by": "much"}"#).unwrap_err().message().to_owned();
        assert!(message.contains("invalid type: string \"much\", expected f64"), "{message}");
        assert!(scaled("{").unwrap_err().message().contains("EOF"));
        let table = Host::<configured>::new().run(rows![{ left: 2.0 }]).unwrap();
        assert_eq!(table["sum"][0], -1.0, "the type knows what no configuration is");
    }
}
