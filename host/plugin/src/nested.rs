//! Converts outputs of nested types. A plugin returns maps, structs and lists of lists as JSON text; in a stored row, they
//! are encoded in Feast's format.

use std::sync::Arc;

use larder_model::{
    codec::{Cell, json::nested_json},
    model::{Value, ValueRef, ValueType},
};

use super::{CallError, ColumnRef, ColumnScalar, ColumnType, FailedRow, Field, Frame, FrameBuilder};

/// JSON texts of values of nested types. Each is a value of only some of the types.
const EXAMPLES: [&str; 12] = [
    "{}",
    "[]",
    "{\"a\": \"x\"}",
    "{\"amount\": 12.5, \"items\": [1, 2], \"country\": \"CH\", \"name\": null}",
    "[{\"a\": 1}]",
    "[{\"a\": 1}, {\"b\": \"x\", \"c\": true}]",
    "[[1, 2], [3]]",
    "[[\"a\"], []]",
    "{\"1\": \"x\"}",
    "1767225600",
    "\"2026-11-29T18:30:00Z\"",
    "\"2026-11-29T18:30:00+01:00[Europe/Zurich]\"",
];

/// Returns the frame with the columns of these indexes encoded, as binary columns. A row whose text is not a value of the
/// type fails.
pub(super) fn encode(
    frame: Frame,
    mut failed: Vec<FailedRow>,
    nested: &[(usize, ValueType)],
    outputs: &[Field],
) -> (Frame, Vec<FailedRow>) {
    if nested.is_empty() {
        return (frame, failed);
    }
    let type_of = |position: usize| nested.iter().find(|(of, _)| *of == position).map(|(_, value_type)| *value_type);
    let mut values = Vec::with_capacity(nested.len());
    for (position, value_type) in nested {
        let column = frame.column(*position);
        let encoded: Vec<Option<Value>> = (0..frame.rows()).map(|row| encoded(column, row, *value_type)).collect();
        for row in (0..frame.rows()).filter(|row| encoded[*row].is_none()) {
            let error = CallError::Nested { output: outputs[*position].name.clone(), value_type: *value_type };
            if let Err(at) = failed.binary_search_by_key(&row, |failed| failed.row) {
                failed.insert(at, FailedRow { row, error: Arc::new(error) });
            }
        }
        values.push(encoded);
    }
    let is_failed = |row: usize| failed.binary_search_by_key(&row, |failed| failed.row).is_ok();
    let types = frame.columns().enumerate().map(|(position, column)| match type_of(position) {
        Some(_) => ColumnType::single(ColumnScalar::Binary),
        None => column.column_type(),
    });
    let mut whole = FrameBuilder::new(types, frame.rows());
    for (position, column) in frame.columns().enumerate() {
        let encoded = nested.iter().position(|(of, _)| *of == position).map(|index| &values[index]);
        whole.column(|to| {
            for row in 0..frame.rows() {
                match encoded {
                    _ if is_failed(row) => to.push(ValueRef::Null),
                    Some(values) => to.push(values[row].as_ref().map_or(ValueRef::Null, Value::as_item)),
                    None => to.append(column, row..row + 1),
                }
            }
        });
    }
    (whole.finish(), failed)
}

/// Returns the encoded value of a row; `None` if the text is not a value of the type.
fn encoded(column: ColumnRef<'_>, row: usize, value_type: ValueType) -> Option<Value> {
    if !column.is_present(row) {
        return Some(Value::Null);
    }
    let ValueRef::Bytes(text) = column.values().get(row) else { return None };
    let cell = Cell::from_json(std::str::from_utf8(text).ok()?).ok()?;
    cell.to_value(value_type).ok()
}

/// Returns texts that the host passes for values of a nested type. The first one is the simplest.
pub(super) fn examples(value_type: ValueType) -> Vec<String> {
    let passed = |text: &&str| match Cell::from_json(text).ok()?.to_value(value_type).ok()? {
        Value::Bytes(bytes) => nested_json(&bytes),
        _ => None,
    };
    EXAMPLES.iter().filter_map(passed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_values_of_the_type() {
        for (name, count) in [("Map", 3), ("Struct", 3), ("Array(Map)", 3), ("Array(Struct)", 3), ("Array(Array)", 3)] {
            let value_type: ValueType = name.parse().unwrap();
            let examples = examples(value_type);
            assert!(examples.len() >= count, "{name}: {examples:?}");
            for text in &examples {
                assert!(Cell::from_json(text).unwrap().to_value(value_type).is_ok(), "{name}: {text}");
            }
        }
    }

    fn frame(texts: &[Option<&str>]) -> Frame {
        let mut frame = FrameBuilder::new([ColumnType::TEXT, ColumnType::single(ColumnScalar::Int32)], texts.len());
        let values = texts.iter().map(|text| text.map_or(ValueRef::Null, |text| ValueRef::Bytes(text.as_bytes())));
        frame.column(|column| column.extend(values));
        frame.column(|column| column.extend((0..).map(ValueRef::Int32)));
        frame.finish()
    }

    fn fields() -> Vec<Field> {
        let field =
            |name: &str, column_type| Field { name: name.to_owned(), column_type, nullable: true, doc: String::new() };
        vec![field("profile", ColumnType::TEXT), field("n", ColumnType::single(ColumnScalar::Int32))]
    }

    fn texts(frame: &Frame) -> Vec<Option<String>> {
        let text = |row: usize| match frame.column(0).values().get(row) {
            ValueRef::Bytes(bytes) if frame.column(0).is_present(row) => nested_json(bytes),
            _ => None,
        };
        (0..frame.rows()).map(text).collect()
    }

    #[test]
    fn json_text_becomes_nested_value() {
        let texts_of = |name: &str, rows: &[Option<&str>]| {
            let (encoded, failed) = encode(frame(rows), Vec::new(), &[(0, name.parse().unwrap())], &fields());
            assert_eq!(failed.len(), 0);
            texts(&encoded)
        };
        let map = r#"{"a":1,"b":[1.5,2.0],"c":{"d":"e"}}"#;
        let result = texts_of("Map", &[Some(map), None, Some("{}")]);
        assert_eq!((result[0].as_deref(), result[1].as_deref(), result[2].as_deref()), (Some(map), None, Some("{}")));
        assert_eq!(texts_of("Array(Array)", &[Some("[[1,2],[3]]")])[0].as_deref(), Some("[[1,2],[3]]"));
    }

    #[test]
    fn text_of_another_type_fails_the_row() {
        let rows = [Some("{}"), Some("{"), Some("[1]"), Some(r#"{"a": 1}"#)];
        let earlier = vec![FailedRow { row: 3, error: Arc::new(CallError::Row("bad".to_owned())) }];
        let (encoded, failed) = encode(frame(&rows), earlier, &[(0, "Map".parse().unwrap())], &fields());
        let errors: Vec<_> = failed.iter().map(|failed| (failed.row, failed.error.to_string())).collect();
        let wrong = "output 'profile' is not the JSON text of a value of type Map".to_owned();
        assert_eq!(errors, [(1, wrong.clone()), (2, wrong), (3, "bad".to_owned())]);
        assert_eq!(texts(&encoded), [Some("{}".to_owned()), None, None, None]);
        assert_eq!(encoded.column(1).null_count(), 3);
        assert_eq!(encoded.column(1).values().get(0), ValueRef::Int32(0));
    }
}
