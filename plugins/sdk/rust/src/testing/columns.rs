//! Converts rows of values to a frame, and back.

use std::fmt::Debug;

use super::{Row, Value};
use crate::{
    __private::types::ScalarType,
    Timestamp,
    frame::{Frame, Part, aligned, append, end, words},
    input::{FrameError, Reader, type_name},
    list::bounds,
    run::{ColumnType, FieldSpec},
};

/// Values in the layout of a frame: slots of fixed width, or ends and the data that they delimit.
struct Encoded {
    slots: Vec<u8>,
    data: Option<Vec<u8>>,
}

/// The values of a column, before they are split into lists.
enum Decoded<'a> {
    Fixed(Vec<Value>),
    Texts(&'a [u32], &'a [u8]),
    Blobs(&'a [u32], &'a [u8]),
}

/// A frame that is being written.
#[derive(Default)]
struct Parts {
    heads: Vec<u8>,
    tails: Vec<u8>,
}

/// Returns the frame of these rows of inputs. If the plugin reads the time, it begins with the reference times of the rows.
#[track_caller]
pub(super) fn write(fields: &[FieldSpec], reads_time: bool, rows: &[(Row, Timestamp)]) -> Vec<u8> {
    let mut parts = Parts::default();
    if reads_time {
        let times: Vec<Value> = rows.iter().map(|(_, time)| Value::Time(*time)).collect();
        parts.write("as_of", ColumnType::scalar(ScalarType::Timestamp), &times.iter().collect::<Vec<_>>());
    }
    for field in fields {
        let values: Vec<&Value> = rows.iter().map(|(row, _)| value(row, field.name)).collect();
        parts.write(field.name, field.column_type, &values);
    }
    [parts.heads, parts.tails].concat()
}

impl Parts {
    /// Writes a column.
    #[track_caller]
    fn write(&mut self, name: &str, of: ColumnType, values: &[&Value]) {
        let wrong = |value: &Value| -> ! { panic!("input '{name}' is {}, got {value:?}", type_name(of)) };
        append(&mut self.heads, &presence(values));
        if !of.is_list {
            let encoded = encode(of.scalar, values).unwrap_or_else(|value| wrong(value));
            append(&mut self.heads, &encoded.slots);
            append(&mut self.tails, &encoded.data.unwrap_or_default());
            return;
        }
        let (mut ends, mut items) = (Vec::new(), Vec::new());
        for value in values {
            match value {
                Value::List(list) => items.extend(list),
                Value::Null => {}
                value => wrong(value),
            }
            ends.extend(end(items.len()));
        }
        append(&mut self.heads, &ends);
        if of.nullable_items {
            append(&mut self.tails, &presence(&items));
        } else {
            let has_null = items.iter().any(|item| item.is_null());
            assert!(
                !has_null,
                "input '{name}' has a null item. hint: use Option for the items, as in Vec<Option<f64>>"
            );
        }
        let encoded = encode(of.scalar, &items).unwrap_or_else(|value| wrong(value));
        append(&mut self.tails, &encoded.slots);
        append(&mut self.tails, &encoded.data.unwrap_or_default());
    }
}

/// Returns the presence bitmap of these values.
fn presence(values: &[&Value]) -> Vec<u8> {
    let mut presence = vec![0; words(values.len()) * 8];
    let present = values.iter().enumerate().filter(|(_, value)| !value.is_null());
    present.for_each(|(i, _)| presence[i / 8] |= 1 << (i % 8));
    presence
}

/// Returns the values of a frame of outputs, with a column for each output.
#[track_caller]
pub(super) fn read(fields: &[FieldSpec], frame: &[u8], rows: usize) -> Vec<Vec<Value>> {
    let invalid = |error: &dyn Debug| -> ! { panic!("the frame of outputs is invalid: {error:?}") };
    let frame = aligned(frame);
    let mut frame = Frame::open(&frame, rows, false, fields).unwrap_or_else(|fault| invalid(&fault));
    let columns = fields.iter().map(|field| read_column(field.column_type, &mut frame)).collect::<Result<_, _>>();
    let columns = columns.unwrap_or_else(|error| invalid(&error));
    frame.close().unwrap_or_else(|fault| invalid(&fault));
    columns
}

fn read_column(of: ColumnType, frame: &mut Frame<'_>) -> Result<Vec<Value>, FrameError> {
    let rows = frame.rows;
    let presence = Reader::new(frame.presence()?, (), rows);
    let values: Vec<Value> = if of.is_list {
        let (ends, count) = frame.ends(Part::Head, rows)?;
        let presence =
            if of.nullable_items { Some(Reader::new(frame.take(Part::Tail, words(count))?, (), count)) } else { None };
        let items = decode(of.scalar, frame, Part::Tail, count)?;
        let item = |i| if presence.is_none_or(|presence| presence.is_present(i)) { items.at(i) } else { Value::Null };
        let list = |row| {
            let (start, end) = bounds(ends, row);
            Value::List((start..end).map(item).collect())
        };
        (0..rows).map(list).collect()
    } else {
        let slots = decode(of.scalar, frame, Part::Head, rows)?;
        (0..rows).map(|row| slots.at(row)).collect()
    };
    let or_null = |(row, value)| if presence.is_present(row) { value } else { Value::Null };
    Ok(values.into_iter().enumerate().map(or_null).collect())
}

fn decode<'a>(of: ScalarType, frame: &mut Frame<'a>, part: Part, count: usize) -> Result<Decoded<'a>, FrameError> {
    macro_rules! fixed {
        ($raw:ty, $read:expr) => {
            Decoded::Fixed(frame.take::<$raw>(part, count)?.iter().copied().map($read).collect())
        };
    }
    let mut var = || -> Result<_, FrameError> {
        let (ends, bytes) = frame.ends(part, count)?;
        Ok((ends, frame.take(Part::Tail, bytes)?))
    };
    Ok(match of {
        ScalarType::Utf8 => var().map(|(ends, data)| Decoded::Texts(ends, data))?,
        ScalarType::Binary => var().map(|(ends, data)| Decoded::Blobs(ends, data))?,
        ScalarType::Bool => fixed!(u8, |value| Value::Bool(value != 0)),
        ScalarType::Int32 => fixed!(i32, Value::from),
        ScalarType::Int64 => fixed!(i64, Value::from),
        ScalarType::Float32 => fixed!(f32, Value::from),
        ScalarType::Float64 => fixed!(f64, Value::from),
        ScalarType::Timestamp => fixed!(i64, |value| Value::Time(Timestamp(value))),
    })
}

impl Decoded<'_> {
    fn at(&self, i: usize) -> Value {
        let slot = |ends, data: &[u8]| {
            let (start, end) = bounds(ends, i);
            data[start..end].to_vec()
        };
        match self {
            Self::Fixed(values) => values[i].clone(),
            Self::Texts(ends, data) => Value::Text(String::from_utf8_lossy(&slot(ends, data)).into_owned()),
            Self::Blobs(ends, data) => Value::Bytes(slot(ends, data)),
        }
    }
}

fn value<'r>(row: &'r Row, name: &str) -> &'r Value {
    row.iter().find(|(own, _)| *own == name).map_or(&Value::Null, |(_, value)| value)
}

/// Encodes values of one type, with zeros for nulls. If a value has another type, returns it as the error.
fn encode<'v>(of: ScalarType, values: &[&'v Value]) -> Result<Encoded, &'v Value> {
    let fixed = |slots: Vec<u8>| Encoded { slots, data: None };
    Ok(match of {
        ScalarType::Bool => fixed(all(values, |value| match value {
            Value::Bool(value) => Some([u8::from(*value)]),
            _ => None,
        })?),
        ScalarType::Int32 => fixed(all(values, |value| match value {
            Value::Int(value) => i32::try_from(*value).ok().map(i32::to_le_bytes),
            _ => None,
        })?),
        ScalarType::Int64 => fixed(all(values, |value| match value {
            Value::Int(value) => Some(value.to_le_bytes()),
            _ => None,
        })?),
        ScalarType::Float32 => fixed(all(values, |value| number(value).map(|value| (value as f32).to_le_bytes()))?),
        ScalarType::Float64 => fixed(all(values, |value| number(value).map(f64::to_le_bytes))?),
        ScalarType::Timestamp => fixed(all(values, |value| match value {
            Value::Time(Timestamp(micros)) => Some(micros.to_le_bytes()),
            _ => None,
        })?),
        ScalarType::Utf8 => var(values, |value| match value {
            Value::Text(text) => Some(text.as_bytes()),
            _ => None,
        })?,
        ScalarType::Binary => var(values, |value| match value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        })?,
    })
}

fn all<'v, const WIDTH: usize>(
    values: &[&'v Value],
    read: impl Fn(&Value) -> Option<[u8; WIDTH]>,
) -> Result<Vec<u8>, &'v Value> {
    let read = |value: &&'v Value| if value.is_null() { Ok([0; WIDTH]) } else { read(value).ok_or(*value) };
    Ok(values.iter().map(read).collect::<Result<Vec<_>, _>>()?.concat())
}

fn var<'v>(values: &[&'v Value], read: impl Fn(&'v Value) -> Option<&'v [u8]>) -> Result<Encoded, &'v Value> {
    let (mut ends, mut data) = (Vec::new(), Vec::new());
    for value in values {
        if !value.is_null() {
            data.extend_from_slice(read(value).ok_or(*value)?);
        }
        ends.extend(end(data.len()));
    }
    Ok(Encoded { slots: ends, data: Some(data) })
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        Value::Int(value) => Some(*value as f64),
        _ => None,
    }
}
