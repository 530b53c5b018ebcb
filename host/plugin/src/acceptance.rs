//! Checks that a plugin keeps the rules of the contract, before it is used: `larder plugin check` and deployments run
//! the same checks.
//!
//! The plugin computes generated rows, and rows that its views served recently:
//!
//! * It computes the same outputs each time, in a new instance and in one that computed other rows before.
//! * Each row has the same outputs alone, in the batch and in the reversed batch.
//! * No row exceeds the limits on time, memory and output, and no result is malformed.
//! * No row calls a function that plugins do not have, such as a clock. The kits of interpreters report such calls.
//! * Not all rows fail.

mod compare;
mod generator;
mod samples;

use std::{fmt, time::Duration};

use self::compare::Difference;
pub(super) use self::compare::{ChangedOutput, changed_output};
pub use self::generator::RowGenerator;
pub(super) use self::samples::Samples;
use super::{
    CallError, FailedRow, Inputs, Interrupt, Outputs, OwnInstance, Transform, batch::Caller, error::has_hint,
    value_text::input_text,
};

/// What a plugin computed in its acceptance checks.
#[derive(Clone, Debug, Default)]
pub struct Acceptance {
    /// The number of generated rows.
    pub generated: usize,
    /// The number of rows that were served recently.
    pub served: usize,
    /// The number of rows that failed.
    pub failed: usize,
    /// The first row that failed, and its error.
    pub first_failed: Option<(TestRow, CallError)>,
}

/// Why a plugin is not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The outputs of a row differ between two computations of the same batch.
    #[error("it is not deterministic: {difference}. Training data would differ from served features")]
    NotDeterministic {
        /// The row and the outputs.
        difference: Box<Difference>,
    },
    /// The outputs of a row depend on other rows of the batch.
    #[error("the outputs of a row depend on other rows: {difference}")]
    NotIndependent {
        /// The row and the outputs.
        difference: Box<Difference>,
    },
    /// A call with several rows fails, although each of its rows can be computed alone.
    #[error("a call with {rows} rows failed, but each of the rows can be computed alone: {error}")]
    FailsTogether {
        /// The number of rows.
        rows: usize,
        /// The error of the call.
        error: CallError,
    },
    /// A row exceeds a limit, its outputs are malformed, or it calls a function that plugins do not have.
    #[error("{row} failed: {error}")]
    Limit {
        /// The row.
        row: TestRow,
        /// The error.
        error: CallError,
    },
    /// All rows fail.
    #[error("all {rows} rows failed. The first one is {row}: {error}")]
    FailsAlways {
        /// The number of rows.
        rows: usize,
        /// The first row.
        row: TestRow,
        /// The error of the first row.
        error: CallError,
    },
}

/// A row of the acceptance checks, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestRow {
    /// A generated row, with its inputs as text.
    Generated(usize, String),
    /// A row that was served recently. Its inputs are data of a caller, so they are not shown.
    Served(usize),
}

/// The maximum number of generated rows.
const ROWS_MAX: usize = 256;
/// The minimum number of generated rows.
const ROWS_MIN: usize = 32;
/// The CPU time that the generated rows of one pass should take. A pass of expensive rows has fewer of them.
const PASS_TIME: Duration = Duration::from_millis(500);
const SEED: u64 = 20_260_101;
/// The beginning of the message of a row in which a plugin called a function that plugins do not have. In the Python kit,
/// it is the name of the exception in `larder_plugin._replacing`.
const UNAVAILABLE: &str = "Unavailable: ";

// === impl Transform ===

impl Transform {
    /// Runs the acceptance checks. `live` is the version that serves the same view now; the rows that it served recently
    /// are checked, too.
    ///
    /// # Errors
    /// The first [`Rejection`].
    pub fn accept(&self, live: Option<&Self>) -> Result<Acceptance, Rejection> {
        let _checks = self.begin_checks();
        self.check_rows(live)
    }

    fn check_rows(&self, live: Option<&Self>) -> Result<Acceptance, Rejection> {
        let rows = self.affordable_rows();
        let (inputs, others) =
            (RowGenerator::new(SEED).inputs(self, rows), RowGenerator::new(!SEED).inputs(self, rows));
        let mut acceptance = Acceptance { generated: rows, ..Acceptance::default() };
        let mut errors = Vec::new();
        let outputs = self.check_batch(&inputs, &others, |row| TestRow::Generated(row, self.describe(&inputs, row)))?;
        errors.extend(outputs.failed().iter().map(|failed| {
            (TestRow::Generated(failed.row, self.describe(&inputs, failed.row)), (*failed.error).clone())
        }));
        for sample in live.iter().flat_map(|live| live.served_inputs()) {
            let Some(sample) = live.map(|live| self.adapt(&sample, live)) else { continue };
            let first = acceptance.served;
            acceptance.served += sample.rows();
            let outputs = self.check_batch(&sample, &others, |row| TestRow::Served(first + row))?;
            errors.extend(
                outputs.failed().iter().map(|failed| (TestRow::Served(first + failed.row), (*failed.error).clone())),
            );
        }
        let rows = acceptance.generated + acceptance.served;
        acceptance.failed = errors.len();
        match errors.into_iter().next() {
            Some((row, error)) if acceptance.failed == rows => Err(Rejection::FailsAlways { rows, row, error }),
            first => {
                acceptance.first_failed = first;
                Ok(acceptance)
            }
        }
    }

    /// Checks a batch. `others` are rows that an instance computes first. `row` describes a row for messages.
    fn check_batch(
        &self,
        inputs: &Inputs,
        others: &Inputs,
        row: impl Fn(usize) -> TestRow,
    ) -> Result<Outputs, Rejection> {
        let (used, fresh) = (OwnInstance::recording(self), OwnInstance::recording(self));
        let _ = used.compute(others);
        // Only errors of this batch are reported.
        let together = used.compute(inputs);
        if let Some(FailedRow { row: index, error }) =
            together.failed().iter().find(|failed| is_violation(&failed.error))
        {
            return Err(Rejection::Limit { row: row(*index), error: (**error).clone() });
        }
        // Dividing a failed call hides the failure of a plugin that cannot compute several rows together.
        let good: Vec<usize> = (0..inputs.rows()).filter(|index| !together.is_failed(*index)).collect();
        if used.failed_together().is_some() && good.len() > 1 {
            let _ = used.compute(&inputs.select(&good));
            if let Some((rows, error)) = used.failed_together() {
                return Err(Rejection::FailsTogether { rows, error });
            }
        }
        let fields = &self.component().signature().outputs;
        let same = |index: usize| index;
        for (outputs, when) in [
            (used.compute(inputs), "when the same instance computes it again"),
            (fresh.compute(inputs), "in a new instance"),
        ] {
            if let Some(difference) = compare::first(fields, (&together, same), (&outputs, same), when) {
                return Err(Rejection::NotDeterministic { difference: Box::new(difference.of(&row)) });
            }
        }
        let rows = inputs.rows();
        let reversed: Vec<usize> = (0..rows).rev().collect();
        // In a new instance, the last row comes first, so outputs that depend on the first row of an instance differ, too.
        let outputs = OwnInstance::recording(self).compute(&inputs.select(&reversed));
        let when = "if the order of the rows is reversed";
        if let Some(difference) = compare::first(fields, (&together, same), (&outputs, |index| rows - 1 - index), when)
        {
            return Err(Rejection::NotIndependent { difference: Box::new(difference.of(&row)) });
        }
        for index in 0..rows {
            let alone = fresh.compute(&inputs.slice(index..index + 1));
            if let Some(difference) = compare::row(fields, (&together, index), (&alone, 0), "alone") {
                return Err(Rejection::NotIndependent { difference: Box::new(difference.of(&row)) });
            }
        }
        Ok(together)
    }

    /// Returns the number of rows whose computation in a batch takes about [`PASS_TIME`].
    fn affordable_rows(&self) -> usize {
        let one = self.expected(1).max(Duration::from_nanos(1));
        let rows = PASS_TIME.as_nanos() / one.as_nanos();
        usize::try_from(rows).unwrap_or(ROWS_MAX).clamp(ROWS_MIN, ROWS_MAX)
    }

    /// Returns the inputs of a row as text.
    fn describe(&self, inputs: &Inputs, row: usize) -> String {
        let columns = inputs.columns();
        let fields = &self.component().signature().inputs;
        let cells = fields.iter().zip(columns);
        let cells = cells.map(|(field, column)| format!("{} = {}", field.name, input_text(column, row)));
        cells.collect::<Vec<_>>().join(", ")
    }
}

/// Returns whether an error means that the plugin breaks a rule, whatever its inputs are.
fn is_violation(error: &CallError) -> bool {
    if let CallError::Row(message) | CallError::Fault(message) = error {
        return message.starts_with(UNAVAILABLE);
    }
    !matches!(
        error,
        CallError::Cast { .. }
            | CallError::Skipped
            | CallError::Busy(_)
            | CallError::Interrupt(Interrupt::Trap(_) | Interrupt::Panic(_) | Interrupt::Elapsed(_))
    )
}

// === impl Rejection ===

impl Rejection {
    /// Returns the message with a hint. `or` is another option, after the first one.
    #[must_use]
    pub fn with_hint(&self, or: &str) -> String {
        let message = self.to_string();
        // The plugin's own message may have a hint.
        if has_hint(&message) { format!("{message}{or}") } else { format!("{message}. hint: {}{or}", self.hint()) }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::NotDeterministic { .. } => {
                "keep no state between rows, and do not depend on randomness or on the order of a hash table"
            }
            Self::FailsTogether { .. } => "correct the function that computes several rows",
            Self::NotIndependent { .. } => "compute each row by itself, because Larder may divide a batch at any row",
            Self::Limit { error: CallError::Row(_) | CallError::Fault(_), .. } => "do not call this function",
            Self::Limit { error, .. } => error.hint(),
            Self::FailsAlways { .. } => "correct the code, and try rows with `larder plugin run`",
        }
    }
}

// === impl TestRow ===

impl fmt::Display for TestRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generated(row, inputs) => write!(f, "generated row {row} ({inputs})"),
            Self::Served(row) => write!(f, "row {row} of the rows that were served recently"),
        }
    }
}
