//! Compares outputs bit by bit, and describes the first difference.

use std::fmt;

use larder_model::model::Value;

use super::TestRow;
use crate::{
    CallError, ColumnScalar, Field, Outputs,
    value_text::{same_bits, shown, value_text},
};

/// A row whose outputs differ.
#[derive(Clone, Debug)]
pub struct Difference {
    row: TestRow,
    found: Found,
}

/// An output that differs.
#[derive(Clone, Debug)]
pub(super) struct Found {
    index: usize,
    output: String,
    first: String,
    second: String,
    when: &'static str,
}

// === impl Found ===

impl Found {
    /// Adds the description of the row.
    pub(super) fn of(self, row: impl FnOnce(usize) -> TestRow) -> Difference {
        Difference { row: row(self.index), found: self }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, found: Found { output, first, second, when, .. } } = self;
        write!(f, "output '{output}' of {row} is {first}, but {second} {when}")
    }
}

/// Returns the first difference of two batches of outputs. Each is given with a function that returns the index of a row
/// in it.
pub(super) fn first(
    fields: &[Field],
    (outputs, index): (&Outputs, impl Fn(usize) -> usize),
    (others, other_index): (&Outputs, impl Fn(usize) -> usize),
    when: &'static str,
) -> Option<Found> {
    (0..outputs.rows()).find_map(|i| row(fields, (outputs, index(i)), (others, other_index(i)), when))
}

/// Returns the first difference of two rows. Each is given by its outputs and its index in them.
pub(super) fn row(
    fields: &[Field],
    (outputs, index): (&Outputs, usize),
    (others, other_index): (&Outputs, usize),
    when: &'static str,
) -> Option<Found> {
    fields.iter().enumerate().find_map(|(column, field)| {
        let one = cell(outputs, column, index);
        let other = cell(others, column, other_index);
        let found = |first, second| Found { index, output: field.name.clone(), first, second, when };
        let scalar = field.column_type.scalar;
        (!one.equals(&other)).then(|| found(one.text(scalar), other.text(scalar)))
    })
}

/// An output that has different values in two computations of a row.
#[derive(Clone, Debug)]
pub(crate) struct ChangedOutput {
    /// The output's name.
    pub(crate) output: String,
    /// The values, as text.
    pub(crate) first: String,
    pub(crate) second: String,
}

/// Returns the first output that differs between two computations of the same rows. Ignores rows that exceeded a limit or
/// were not computed, because that can depend on other rows and on the machine.
pub(crate) fn changed_output(fields: &[Field], outputs: &Outputs, others: &Outputs) -> Option<ChangedOutput> {
    let is_ignored = |outputs: &Outputs, row: usize| {
        let failed = outputs.failed().iter().find(|failed| failed.row == row);
        failed.is_some_and(|failed| !matches!(*failed.error, CallError::Row(_) | CallError::Fault(_)))
    };
    let rows = (0..outputs.rows()).filter(|index| !is_ignored(outputs, *index) && !is_ignored(others, *index));
    let mut found = rows.filter_map(|index| row(fields, (outputs, index), (others, index), ""));
    found.next().map(|Found { output, first, second, .. }| ChangedOutput { output, first, second })
}

/// An output of a row, or the error of the row.
enum Cell {
    Value(Value),
    Failed(String),
}

fn cell(outputs: &Outputs, column: usize, row: usize) -> Cell {
    match outputs.failed().binary_search_by_key(&row, |failed| failed.row) {
        Ok(at) => Cell::Failed(outputs.failed()[at].error.to_string()),
        Err(_) => Cell::Value(outputs.output(column).get(row).to_value()),
    }
}

// === impl Cell ===

impl Cell {
    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Value(one), Self::Value(other)) => same_bits(one, other),
            (Self::Failed(one), Self::Failed(other)) => one == other,
            _ => false,
        }
    }

    fn text(&self, scalar: ColumnScalar) -> String {
        match self {
            Self::Value(value) => shown(&value_text(value, scalar)),
            Self::Failed(error) => format!("a failure ({})", shown(error)),
        }
    }
}
