//! The columns that a well-behaved plugin returns. The modes corrupt them.

use crate::bindings::{
    Column,
    larder::transform::types::{Lists, Scalars, Values, VarBytes},
};

/// The index of each output among the columns.
pub(crate) const Y: usize = 0;
pub(crate) const FLAG: usize = 1;
pub(crate) const TEXT: usize = 2;
pub(crate) const ITEMS: usize = 3;
pub(crate) const WORDS: usize = 4;

/// The value of `text` in every row.
const SAID: &str = "all is well";
/// The value of `words` in every row.
const WORDS_SAID: [&str; 2] = ["all", "well"];

/// Returns the values of `x`, with 0 for nulls.
pub(crate) fn numbers(inputs: &[Column]) -> &[f64] {
    match inputs.first().map(|column| &column.values) {
        Some(Values::Scalars(Scalars::Float64s(values))) => values,
        _ => &[],
    }
}

pub(crate) fn good(rows: usize, x: &[f64]) -> Vec<Column> {
    let x: Vec<f64> = (0..rows).map(|row| x.get(row).copied().unwrap_or(0.0)).collect();
    let ends = |each: usize| (1..=rows).map(|row| end(row * each)).collect::<Vec<u32>>();
    let words = texts(rows * WORDS_SAID.len(), |i| WORDS_SAID[i % WORDS_SAID.len()]);
    vec![
        scalars(Scalars::Float64s(x.iter().map(|x| 2.0 * x).collect())),
        scalars(Scalars::Bools(x.iter().map(|x| u8::from(*x > 0.0)).collect())),
        scalars(Scalars::Strings(texts(rows, |_| SAID))),
        lists(ends(1), Scalars::Float64s(x)),
        lists(ends(WORDS_SAID.len()), Scalars::Strings(words)),
    ]
}

pub(crate) fn texts<'a>(count: usize, text: impl Fn(usize) -> &'a str) -> VarBytes {
    let mut var = VarBytes { ends: Vec::with_capacity(count), data: Vec::new() };
    for i in 0..count {
        var.data.extend_from_slice(text(i).as_bytes());
        var.ends.push(end(var.data.len()));
    }
    var
}

pub(crate) fn scalars(values: Scalars) -> Column {
    Column { values: Values::Scalars(values), validity: None }
}

pub(crate) fn lists(ends: Vec<u32>, items: Scalars) -> Column {
    Column { values: Values::Lists(Lists { ends, items }), validity: None }
}

fn end(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
