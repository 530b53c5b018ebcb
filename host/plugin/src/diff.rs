//! The differences between the outputs of two versions of a plugin for the same rows.
//!
//! `larder plugin diff` and shadow runs compare outputs with a [`Diff`]. It has a bounded size, however many rows it
//! compares: counts for each output, and the rows with the largest differences.

mod value;

use serde::{Deserialize, Serialize};

use self::value::{Comparison, compare};
use super::{
    ColumnRef, FailedRow, Inputs, Outputs, Signature, Transform,
    value_text::{input_text, shown, value_text},
};

/// The differences between the outputs of two versions, `old` and `new`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diff {
    /// Two numbers `a` and `b` are within the tolerance if `|a - b| <= tolerance * max(1, |a|, |b|)`.
    pub tolerance: f64,
    /// The number of compared rows, including rows that failed.
    pub rows: u64,
    /// The number of rows that failed in both versions.
    pub failed_both: u64,
    /// The number of rows that failed only in the old version.
    pub failed_old: u64,
    /// The number of rows that failed only in the new version.
    pub failed_new: u64,
    /// The first rows that failed in one version only.
    pub failures: Vec<FailedExample>,
    /// The outputs that both versions have, in the order of the new version.
    pub outputs: Vec<OutputDiff>,
    /// The outputs that only the old version has.
    pub only_old: Vec<String>,
    /// The outputs that only the new version has.
    pub only_new: Vec<String>,
}

/// The differences of one output. Rows that failed in a version are not counted here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputDiff {
    /// The output's name.
    pub name: String,
    /// The number of rows whose values have the same bits, or are both null.
    pub equal: u64,
    /// The number of rows whose values differ within the tolerance.
    pub within_tolerance: u64,
    /// The number of rows whose values differ by more than the tolerance.
    pub different: u64,
    /// The number of rows that are null only in the old version.
    pub null_to_value: u64,
    /// The number of rows that are null only in the new version.
    pub value_to_null: u64,
    /// The largest difference of two finite numbers. `None` if no numbers differ.
    pub largest: Option<f64>,
    /// The rows with the largest differences, in descending order. At most [`WORST_MAX`].
    pub worst: Vec<DifferentRow>,
    /// The first rows that are null in one version only. At most [`NULLS_MAX`].
    pub nulls: Vec<DifferentRow>,
}

/// A row for which an output differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DifferentRow {
    /// The number of the row, from 0, in the order in which rows were compared.
    pub row: u64,
    /// The inputs of the row, as text.
    pub inputs: Vec<NamedText>,
    /// The value in the old version, as text.
    pub old: String,
    /// The value in the new version, as text.
    pub new: String,
    /// The difference, if both values are finite numbers, or lists of them with equal lengths. For lists, this is the
    /// largest difference of two items.
    pub difference: Option<f64>,
}

/// A row that failed in one version only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedExample {
    /// The number of the row, as in [`DifferentRow::row`].
    pub row: u64,
    /// The inputs of the row, as text.
    pub inputs: Vec<NamedText>,
    /// The version that failed.
    pub failed: DiffSide,
    /// The error.
    pub error: String,
}

/// A version of a [`Diff`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiffSide {
    /// The old version.
    Old,
    /// The new version.
    New,
}

/// A value with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedText {
    /// The name of an input.
    pub name: String,
    /// Its value as text, which may be truncated.
    pub value: String,
}

/// The rows of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct DiffRows<'r> {
    /// The version whose inputs they are. Both versions computed them.
    pub transform: &'r Transform,
    /// The inputs.
    pub inputs: &'r Inputs,
    /// The outputs of the old version.
    pub old: &'r Outputs,
    /// The outputs of the new version.
    pub new: &'r Outputs,
}

/// The maximum number of rows in [`OutputDiff::worst`].
pub const WORST_MAX: usize = 10;
/// The maximum number of rows in [`OutputDiff::nulls`].
pub const NULLS_MAX: usize = 3;
/// The maximum number of rows in [`Diff::failures`].
const FAILURES_MAX: usize = 10;
/// The maximum number of inputs of a row that a diff has.
const INPUTS_MAX: usize = 64;

// === impl Diff ===

impl Diff {
    /// Creates an empty comparison of two versions.
    #[must_use]
    pub fn new(old: &Signature, new: &Signature, tolerance: f64) -> Self {
        let missing = |from: &Signature, of: &Signature| -> Vec<String> {
            let has = |name: &str| of.outputs.iter().any(|output| output.name == name);
            from.outputs.iter().filter(|output| !has(&output.name)).map(|output| output.name.clone()).collect()
        };
        let (only_old, only_new) = (missing(old, new), missing(new, old));
        let both = new.outputs.iter().filter(|output| !only_new.contains(&output.name));
        let outputs = both.map(|output| OutputDiff { name: output.name.clone(), ..OutputDiff::default() }).collect();
        Self {
            tolerance,
            rows: 0,
            failed_both: 0,
            failed_old: 0,
            failed_new: 0,
            failures: Vec::new(),
            outputs,
            only_old,
            only_new,
        }
    }

    /// Compares the outputs of rows. `old` and `new` are the signatures with which the comparison was created.
    pub fn add(&mut self, old: &Signature, new: &Signature, rows: DiffRows<'_>) {
        let first = self.rows;
        self.rows += rows.inputs.rows() as u64;
        self.add_failures(first, rows);
        for output in &mut self.outputs {
            let index = |of: &Signature| of.outputs.iter().position(|field| field.name == output.name);
            if let (Some(old), Some(new_index)) = (index(old), index(new)) {
                output.add(first, (old, new_index), new, self.tolerance, rows);
            }
        }
    }

    fn add_failures(&mut self, first: u64, rows: DiffRows<'_>) {
        let DiffRows { old, new, .. } = rows;
        for FailedRow { row, error } in old.failed() {
            if new.is_failed(*row) {
                self.failed_both += 1;
            } else {
                self.failed_old += 1;
                self.add_failure(first, rows, *row, DiffSide::Old, &error.to_string());
            }
        }
        for FailedRow { row, error } in new.failed().iter().filter(|failed| !old.is_failed(failed.row)) {
            self.failed_new += 1;
            self.add_failure(first, rows, *row, DiffSide::New, &error.to_string());
        }
    }

    fn add_failure(&mut self, first: u64, rows: DiffRows<'_>, row: usize, failed: DiffSide, error: &str) {
        if self.failures.len() < FAILURES_MAX {
            let error = shown(error);
            self.failures.push(FailedExample { row: first + row as u64, inputs: rows.inputs_of(row), failed, error });
        }
    }

    /// Returns whether all rows have the same bits in all outputs, and the same rows failed.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.is_within_tolerance() && self.outputs.iter().all(|output| output.within_tolerance == 0)
    }

    /// Returns whether no value differs by more than the tolerance, the same values are null, and the same rows failed.
    #[must_use]
    pub fn is_within_tolerance(&self) -> bool {
        self.failed_old + self.failed_new == 0 && self.outputs.iter().all(|output| output.changed() == 0)
    }

    /// Returns the number of rows that were computed by both versions.
    #[must_use]
    pub fn computed(&self) -> u64 {
        self.rows - self.failed_both - self.failed_old - self.failed_new
    }
}

// === impl OutputDiff ===

impl OutputDiff {
    fn add(
        &mut self,
        first: u64,
        (old, new): (usize, usize),
        signature: &Signature,
        tolerance: f64,
        rows: DiffRows<'_>,
    ) {
        let (of_old, of_new) = (rows.old.output(old), rows.new.output(new));
        let scalar = signature.outputs[new].column_type.scalar;
        for row in 0..rows.inputs.rows() {
            if rows.old.is_failed(row) || rows.new.is_failed(row) {
                continue;
            }
            let (before, after) = (of_old.get(row), of_new.get(row));
            // A null item has the value that is served for it, so the presence of items is compared, too.
            let compared = match compare(before, after, tolerance) {
                Comparison::Equal if has_other_items(of_old.column(), of_new.column(), row) => {
                    Comparison::Different(None)
                }
                compared => compared,
            };
            let example = |difference| DifferentRow {
                row: first + row as u64,
                inputs: rows.inputs_of(row),
                old: shown(&value_text(&before.to_value(), scalar)),
                new: shown(&value_text(&after.to_value(), scalar)),
                difference,
            };
            match compared {
                Comparison::Equal => self.equal += 1,
                Comparison::NullToValue | Comparison::ValueToNull => {
                    let is_null_now = compared == Comparison::ValueToNull;
                    *(if is_null_now { &mut self.value_to_null } else { &mut self.null_to_value }) += 1;
                    if self.nulls.len() < NULLS_MAX {
                        self.nulls.push(example(None));
                    }
                }
                Comparison::Within(difference) => {
                    self.within_tolerance += 1;
                    self.keep(Some(difference), example);
                }
                Comparison::Different(difference) => {
                    self.different += 1;
                    self.keep(difference, example);
                }
            }
        }
    }

    /// Keeps a row if its difference is one of the largest. A difference that is not a number counts as the largest.
    fn keep(&mut self, difference: Option<f64>, example: impl FnOnce(Option<f64>) -> DifferentRow) {
        if let Some(difference) = difference {
            self.largest = Some(self.largest.map_or(difference, |largest| largest.max(difference)));
        }
        let rank = |difference: Option<f64>| difference.unwrap_or(f64::INFINITY);
        let at = self.worst.partition_point(|known| rank(known.difference) >= rank(difference));
        if at < WORST_MAX {
            self.worst.insert(at, example(difference));
            self.worst.truncate(WORST_MAX);
        }
    }

    /// Returns the number of rows whose values differ by more than the tolerance, or are null in one version only.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.different + self.null_to_value + self.value_to_null
    }

    /// Returns the number of compared values.
    #[must_use]
    pub fn compared(&self) -> u64 {
        self.equal + self.within_tolerance + self.changed()
    }
}

/// Returns whether different items of a list are null.
fn has_other_items(old: ColumnRef<'_>, new: ColumnRef<'_>, row: usize) -> bool {
    let has_null_items = |column: ColumnRef<'_>| column.column_type().is_list && column.has_null_items();
    let items = |column: ColumnRef<'_>| {
        let items = column.items(row..row + 1);
        items.map(|item| column.is_item_present(item)).collect::<Vec<_>>()
    };
    (has_null_items(old) || has_null_items(new)) && items(old) != items(new)
}

// === impl DiffRows ===

impl DiffRows<'_> {
    /// Returns the inputs of a row as text.
    fn inputs_of(&self, row: usize) -> Vec<NamedText> {
        let fields = &self.transform.component().signature().inputs;
        let columns = self.inputs.columns();
        let inputs = fields.iter().zip(columns).take(INPUTS_MAX);
        inputs.map(|(field, column)| NamedText { name: field.name.clone(), value: input_text(column, row) }).collect()
    }
}
