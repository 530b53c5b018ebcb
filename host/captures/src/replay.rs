//! Compares captured outputs with the outputs that a plugin computes now.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Float32Type, Float64Type},
    util::display::array_value_to_string,
};
use larder_columns::ArrayError;
use larder_plugin_host::{AsOf, ColumnType, Inputs, Outputs, Signature, Transform};

use super::{
    CaptureFile, CapturedRows,
    columns::{column_array, fill_column},
    log::truncated,
};

/// The result of a comparison of captured rows with the rows that a plugin computes now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// The number of captured rows.
    pub rows: u64,
    /// The number of rows with outputs that are equal in all bits.
    pub equal: u64,
    /// The number of rows that failed, and that fail again.
    pub failed_again: u64,
    /// The number of captured rows that failed because of a limit on time or memory. Whether another computation exceeds
    /// such a limit depends on the machine, so the rows are not compared.
    pub limited: u64,
    /// The number of captured rows that the plugin was not called for, so that they are not compared.
    pub not_computed: u64,
    /// The number of rows that differ.
    pub different: u64,
    /// The first differences.
    pub differences: Vec<ReplayDifference>,
    /// The first rows that fail again with another message. They are not counted as different.
    pub other_messages: Vec<ReplayDifference>,
}

/// A difference of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayDifference {
    /// The file.
    pub file: String,
    /// The number of the call.
    pub call: i64,
    /// The index of the row in its call.
    pub row_in_call: i64,
    /// The output; `None` if the row failed.
    pub output: Option<String>,
    /// The captured value or message.
    pub captured: String,
    /// The value or the message now.
    pub now: String,
}

/// An output that the plugin computes now.
enum Now {
    Values(ArrayRef),
    OtherType(ColumnType),
    Missing,
}

/// The maximum number of differences that are kept.
const DIFFERENCES_MAX: usize = 20;
/// The maximum number of characters of a value in a difference.
const VALUE_CHARS_MAX: usize = 200;

// === impl CapturedRows ===

impl CapturedRows {
    /// Returns the captured inputs for a plugin, with their reference times.
    ///
    /// # Errors
    /// A message, if the plugin has an input that the file lacks, or an input of another type.
    pub fn inputs_for(&self, transform: &Transform, file: &CaptureFile) -> Result<Inputs, String> {
        let mut inputs = transform.input_batch(AsOf::Each(self.times.as_slice().into()), self.len());
        let signature = transform.component().signature();
        for input in &signature.inputs {
            let index = file.inputs().iter().position(|(name, _)| *name == input.name).ok_or_else(|| {
                format!(
                    "plugin '{}' {} reads '{}', which the capture of {} {} does not have. hint: capture calls of a \
                     version that reads it, or pass rows with --input",
                    signature.name,
                    signature.version,
                    input.name,
                    file.header().plugin,
                    file.header().version
                )
            })?;
            let found = file.inputs()[index].1;
            if !found.has_values_of(input.column_type) {
                return Err(format!(
                    "input '{}' is {} in plugin '{}' {}, but {found} in the capture. hint: pass rows with --input",
                    input.name, input.column_type, signature.name, signature.version
                ));
            }
            inputs.column(|column| fill_column(column, &self.inputs[index]));
        }
        Ok(inputs.finish())
    }
}

// === impl Replay ===

impl Replay {
    /// Returns whether no row differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.different == 0
    }

    /// Compares rows of a file with the outputs that a plugin with this signature computes for the same inputs.
    ///
    /// # Errors
    /// [`ArrayError`], if the outputs are too large for Arrow.
    pub fn add(
        &mut self,
        file: &CaptureFile,
        rows: &CapturedRows,
        signature: &Signature,
        outputs: &Outputs,
    ) -> Result<(), ArrayError> {
        let columns = file.outputs().iter().zip(&rows.outputs).map(|(column, captured)| {
            let index = signature.outputs.iter().position(|output| output.name == column.0);
            let now = match index.map(|index| outputs.frame().column(index)) {
                None => Now::Missing,
                Some(now) if !now.column_type().has_values_of(column.1) => Now::OtherType(now.column_type()),
                Some(now) => Now::Values(column_array(&column.0, now)?),
            };
            Ok((column, captured, now))
        });
        let columns = columns.collect::<Result<Vec<_>, ArrayError>>()?;
        for row in 0..rows.len() {
            self.rows += 1;
            let of = |output: Option<&str>, captured: String, now: String| ReplayDifference {
                file: file.path().to_owned(),
                call: rows.calls[row],
                row_in_call: rows.rows_in_call[row],
                output: output.map(str::to_owned),
                captured: shown(captured),
                now: shown(now),
            };
            // The host found the text invalid after the plugin had computed it.
            let captured = rows.failure(row).filter(|(_, kind)| *kind != "text");
            let now = outputs.failed().binary_search_by_key(&row, |failed| failed.row).ok();
            let now = now.map(|index| &*outputs.failed()[index].error);
            match (captured, now) {
                (Some((_, "cast" | "skipped" | "busy")), _) => self.not_computed += 1,
                (Some((_, kind)), _) if is_limit(kind) => self.limited += 1,
                (Some((message, _)), Some(now)) => {
                    self.failed_again += 1;
                    let now = truncated(now.to_string());
                    if now != message {
                        keep(&mut self.other_messages, of(None, message.to_owned(), now));
                    }
                }
                (Some((message, _)), None) => {
                    self.different += 1;
                    keep(&mut self.differences, of(None, format!("failed: {message}"), "computed".to_owned()));
                }
                (None, Some(now)) => {
                    self.different += 1;
                    keep(&mut self.differences, of(None, "computed".to_owned(), format!("failed: {now}")));
                }
                (None, None) => {
                    let mut differs = false;
                    for (column, captured, now) in &columns {
                        if let Some((captured, now)) = difference(column.1, captured, now, row) {
                            differs = true;
                            keep(&mut self.differences, of(Some(&column.0), captured, now));
                        }
                    }
                    *(if differs { &mut self.different } else { &mut self.equal }) += 1;
                }
            }
        }
        Ok(())
    }
}

fn keep(differences: &mut Vec<ReplayDifference>, difference: ReplayDifference) {
    if differences.len() < DIFFERENCES_MAX {
        differences.push(difference);
    }
}

/// Returns whether errors of this kind depend on the machine.
fn is_limit(kind: &str) -> bool {
    matches!(kind, "timeout" | "memory")
}

/// Returns the captured value of a row and the value now, if they are not equal in all bits.
fn difference(column_type: ColumnType, captured: &ArrayRef, now: &Now, row: usize) -> Option<(String, String)> {
    let now = match now {
        Now::Values(now) => now,
        Now::Missing => return Some((text(captured, row), "the plugin has no such output".to_owned())),
        Now::OtherType(of) => return Some((format!("a value of type {column_type}"), format!("a value of type {of}"))),
    };
    let is_equal = match (captured.is_null(row), now.is_null(row)) {
        (false, false) if matches!(captured.data_type(), DataType::List(_)) => {
            captured.as_list::<i32>().value(row).to_data() == now.as_list::<i32>().value(row).to_data()
        }
        _ => captured.slice(row, 1).to_data() == now.slice(row, 1).to_data(),
    };
    if is_equal {
        return None;
    }
    let (captured_text, now_text) = (text(captured, row), text(now, row));
    if captured_text == now_text {
        return Some((with_bits(captured_text, captured, row), with_bits(now_text, now, row)));
    }
    Some((captured_text, now_text))
}

fn text(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "null".to_owned();
    }
    array_value_to_string(array, row).unwrap_or_default()
}

/// Adds the bits of a float, because two NaNs with different bits have the same text.
fn with_bits(text: String, array: &ArrayRef, row: usize) -> String {
    match array.data_type() {
        DataType::Float64 => format!("{text} ({:#018x})", array.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Float32 => format!("{text} ({:#010x})", array.as_primitive::<Float32Type>().value(row).to_bits()),
        _ => text,
    }
}

fn shown(text: String) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
