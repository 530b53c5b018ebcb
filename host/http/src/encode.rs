//! Encodes an [`Answer`] as Feast's JSON, directly into one buffer.
//!
//! The layout is column-major: one result per column, each with the values, statuses and event times of all rows. Much
//! of the output is copied instead of formatted: cached rows have their values as text, all features of a view have the
//! same event times, and most statuses are equal.

use std::ops::Range;

use larder_model::{
    codec::json::{boolean, float, int, separate, text, value},
    model::Rfc3339,
};
use larder_serving::{
    Answer, ColumnFrom, EchoedValue, FeatureColumn, Plan, ReadText, RequestError, ResponseBudget, Status,
};
use smallvec::SmallVec;

/// The separators around a column. The first column has no leading comma.
const BEGIN: &[u8] = br#",{"values":["#;
const STATUSES: &[u8] = br#"],"statuses":["#;
const EVENT_TIMES: &[u8] = br#"],"event_timestamps":["#;
const END: &[u8] = b"]}";

const EPOCH: &[u8] = br#""1970-01-01T00:00:00Z""#;

/// The positions of parts of the output that occur in several columns. Later columns copy them from there.
#[derive(Default)]
struct Runs {
    present: Option<Range<usize>>,
    epochs: Option<Range<usize>>,
}

/// The repeated parts of the output for the columns of one read.
#[derive(Default)]
struct ReadRuns<'a> {
    /// The rows as text, if all of them are cached as text.
    text: Option<ReadText<'a>>,
    /// The statuses and event times of a column whose values were copied from `text`, up to the end of the column.
    rest: Option<Range<usize>>,
    event_times: Option<Range<usize>>,
}

/// The maximum total length of a status and an event time with their separators, in bytes.
const CELL_BYTES_MAX: usize = 64;

/// The maximum total length of the separators in a column, in bytes.
const COLUMN_BYTES: usize = 96;

/// An upper bound on the ratio of a value's size in JSON to its size in a row. A control character becomes six bytes,
/// and a single-precision number is printed with the digits of a double.
const EXPANSION_MAX: usize = 8;

/// Encodes the body of an answer.
#[must_use]
pub fn encode_answer(answer: &Answer<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    // A budget without limits never fails.
    let _ = write_answer(answer, &mut out, &mut ResponseBudget::unbounded());
    out
}

/// Appends the body of an answer.
///
/// # Errors
/// Errors of [`ResponseBudget::reserve`]; the caller must then discard the appended bytes.
pub(super) fn write_answer(
    answer: &Answer<'_>,
    out: &mut Vec<u8>,
    budget: &mut ResponseBudget,
) -> Result<(), RequestError> {
    let plan = &*answer.plan;
    let columns = plan.entity_columns.len() + plan.feature_columns.len();
    // Reserves the approximate size of a response in which all values are numbers. If the body becomes larger, the
    // buffer grows and is copied.
    budget.reserve(out, 0, 256 + columns * (COLUMN_BYTES + answer.rows * 48))?;
    let mut runs = Runs::default();
    let read_runs = |read| ReadRuns { text: answer.text(read), ..ReadRuns::default() };
    let mut reads: SmallVec<[ReadRuns<'_>; 4]> = (0..plan.reads.len()).map(read_runs).collect();
    out.extend_from_slice(br#"{"results":["#);
    for index in 0..plan.entity_columns.len() {
        begin_column(out, index);
        entity_column(out, answer, index, &mut runs, budget)?;
    }
    for (i, column) in plan.feature_columns.iter().enumerate() {
        begin_column(out, plan.entity_columns.len() + i);
        feature_column(out, answer, column, &mut reads, &mut runs, budget)?;
    }
    let tail = plan.encoded.get_or_init(|| tail(plan));
    budget.reserve(out, tail.len(), tail.len())?;
    out.extend_from_slice(tail);
    Ok(())
}

fn feature_column(
    out: &mut Vec<u8>,
    answer: &Answer<'_>,
    column: &FeatureColumn,
    reads: &mut [ReadRuns<'_>],
    runs: &mut Runs,
    budget: &mut ResponseBudget,
) -> Result<(), RequestError> {
    let cells_max = COLUMN_BYTES + answer.rows * CELL_BYTES_MAX;
    let (read, feature) = match column.from {
        ColumnFrom::Read { read, feature } => (Some(read), feature),
        ColumnFrom::Step { feature, .. } => (None, feature),
    };
    if let Some(read) = read {
        let ReadRuns { text, rest, event_times } = &mut reads[read];
        if let Some(text) = text
            && text.append_values(feature, cells_max, out, budget)?
        {
            write_or_copy(out, rest, |out| {
                out.extend_from_slice(STATUSES);
                write_statuses(out, text.statuses());
                out.extend_from_slice(EVENT_TIMES);
                write_or_copy(out, event_times, |out| write_event_times(out, answer, read, Some(text)));
                out.extend_from_slice(END);
            });
            return Ok(());
        }
    }
    let mut statuses: SmallVec<[Status; 16]> = SmallVec::with_capacity(answer.rows);
    for (row, cell) in answer.cells(column.from).enumerate() {
        let bytes = cell.value.bytes();
        budget.reserve(out, 0, bytes * EXPANSION_MAX + COLUMN_BYTES)?;
        separate(out, row);
        match cell.status {
            Status::NotFound => out.extend_from_slice(b"null"),
            _ => value(out, cell.value, column.value_type),
        }
        statuses.push(cell.status);
    }
    budget.reserve(out, 0, cells_max)?;
    out.extend_from_slice(STATUSES);
    if statuses.iter().all(|status| *status == Status::Present) {
        write_or_copy(out, &mut runs.present, |out| repeat(out, status_name(Status::Present), answer.rows));
    } else {
        write_statuses(out, statuses.into_iter());
    }
    out.extend_from_slice(EVENT_TIMES);
    match read {
        // As in Feast, computed values have no event time.
        None => write_or_copy(out, &mut runs.epochs, |out| repeat(out, EPOCH, answer.rows)),
        Some(read) => {
            let ReadRuns { text, event_times, .. } = &mut reads[read];
            write_or_copy(out, event_times, |out| write_event_times(out, answer, read, text.as_ref()));
        }
    }
    out.extend_from_slice(END);
    Ok(())
}

fn begin_column(out: &mut Vec<u8>, index: usize) {
    out.extend_from_slice(&BEGIN[usize::from(index == 0)..]);
}

/// Writes a part of the output and records its position in `run`. If `run` already has a position, copies the part from
/// there.
fn write_or_copy(out: &mut Vec<u8>, run: &mut Option<Range<usize>>, write: impl FnOnce(&mut Vec<u8>)) {
    match run {
        Some(run) => out.extend_from_within(run.clone()),
        None => {
            let start = out.len();
            write(out);
            *run = Some(start..out.len());
        }
    }
}

/// Returns the part of the body after the results, which is the same for all answers of a plan.
fn tail(plan: &Plan) -> Box<[u8]> {
    let mut out = br#"],"metadata":{"feature_names":["#.to_vec();
    let entities = plan.entity_columns.iter().map(|column| &*column.name);
    let features = plan.feature_columns.iter().map(|column| column.name.as_str());
    for (i, name) in entities.chain(features).enumerate() {
        separate(&mut out, i);
        text(&mut out, name);
    }
    out.push(b']');
    if let Some(views) = &plan.view_metadata {
        out.extend_from_slice(br#","feature_view_metadata":["#);
        for (i, view) in views.iter().enumerate() {
            separate(&mut out, i);
            out.extend_from_slice(br#"{"name":"#);
            text(&mut out, view);
            out.push(b'}');
        }
        out.push(b']');
    }
    out.extend_from_slice(b"}}");
    out.into_boxed_slice()
}

fn entity_column(
    out: &mut Vec<u8>,
    answer: &Answer<'_>,
    index: usize,
    runs: &mut Runs,
    budget: &mut ResponseBudget,
) -> Result<(), RequestError> {
    let texts = answer.entity_column(index).iter().map(|value| match value {
        EchoedValue::Text(text) => text.len() * EXPANSION_MAX,
        _ => 0,
    });
    budget.reserve(out, 0, texts.sum::<usize>() + COLUMN_BYTES + answer.rows * CELL_BYTES_MAX)?;
    for (row, value) in answer.entity_column(index).iter().enumerate() {
        separate(out, row);
        match value {
            EchoedValue::Null => out.extend_from_slice(b"null"),
            EchoedValue::Int(v) => int(out, *v),
            EchoedValue::Float(v) => float(out, *v),
            EchoedValue::Text(v) => text(out, v),
            EchoedValue::Bool(v) => boolean(out, *v),
        }
    }
    out.extend_from_slice(STATUSES);
    write_or_copy(out, &mut runs.present, |out| repeat(out, status_name(Status::Present), answer.rows));
    out.extend_from_slice(EVENT_TIMES);
    write_or_copy(out, &mut runs.epochs, |out| repeat(out, EPOCH, answer.rows));
    out.extend_from_slice(END);
    Ok(())
}

fn write_event_times(out: &mut Vec<u8>, answer: &Answer<'_>, read: usize, text: Option<&ReadText<'_>>) {
    for row in 0..answer.rows {
        let copied = text.is_some_and(|text| text.append_event_time(row, row > 0, out));
        if !copied {
            separate(out, row);
            event_time(out, answer, read, row);
        }
    }
}

fn event_time(out: &mut Vec<u8>, answer: &Answer<'_>, read: usize, row: usize) {
    match answer.event_time(read, row) {
        None => out.extend_from_slice(EPOCH),
        Some(time) => {
            out.push(b'"');
            out.extend_from_slice(Rfc3339::of(time).as_bytes());
            out.push(b'"');
        }
    }
}

fn status_name(status: Status) -> &'static [u8] {
    match status {
        Status::Present => br#""PRESENT""#,
        Status::NotFound => br#""NOT_FOUND""#,
        Status::OutsideMaxAge => br#""OUTSIDE_MAX_AGE""#,
        Status::Invalid => br#""INVALID""#,
    }
}

fn write_statuses(out: &mut Vec<u8>, statuses: impl Iterator<Item = Status>) {
    for (row, status) in statuses.enumerate() {
        separate(out, row);
        out.extend_from_slice(status_name(status));
    }
}

fn repeat(out: &mut Vec<u8>, item: &[u8], times: usize) {
    for i in 0..times {
        separate(out, i);
        out.extend_from_slice(item);
    }
}
