//! Checks and converts outputs whose plugin type allows values that the view's type does not.
//!
//! * Maps, structs and lists of lists are returned as JSON text. In a stored row, they are encoded in Feast's format.
//! * UUIDs, decimals and values of type `Json` are text in a stored row, too. The text is checked.
//! * Sets are returned as lists. In a stored row, they are sorted and have neither duplicates nor nulls.

use std::sync::Arc;

use larder_model::{
    codec::{Cell, is_text_of, json::nested_json, stored_set},
    model::{ScalarType, Value, ValueRef, ValueType},
};

use super::{CallError, ColumnRef, ColumnScalar, ColumnType, FailedRow, Field, Frame, FrameBuilder};

/// Texts of values of the types. Each is a value of only some of the types.
const EXAMPLES: [&str; 18] = [
    "0",
    "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    "00000000-0000-1000-8000-000000000000",
    "-1.5e3",
    "12.50",
    "[1, 2.5, null, \"a\"]",
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

/// The output columns of a view that are checked or converted, by their index in the signature.
#[derive(Debug, Default)]
pub(super) struct ViewOutputs(Vec<(usize, ValueType)>);

/// Returns the type of the value or of its items, if it is a text type that restricts its values.
pub(super) fn checked_text(value_type: ValueType) -> Option<ScalarType> {
    match value_type {
        ValueType::Scalar(scalar) | ValueType::List(scalar) | ValueType::Set(scalar) => {
            (scalar.is_text() && scalar != ScalarType::String).then_some(scalar)
        }
        ValueType::Nested(_) => None,
    }
}

// === impl ViewOutputs ===

impl ViewOutputs {
    /// Adds the column with this index, if the type needs it.
    pub(super) fn add(&mut self, index: usize, value_type: ValueType) {
        if matches!(value_type, ValueType::Nested(_) | ValueType::Set(_)) || checked_text(value_type).is_some() {
            self.0.push((index, value_type));
        }
    }

    /// Returns a copy of the frame with binary columns instead of the columns of nested types, and with sorted sets; `None`
    /// if the frame has these values already. A row whose text is not a value of the type is added to `failed`, and its
    /// outputs become null.
    pub(super) fn encode(&self, frame: &Frame, failed: &mut Vec<FailedRow>, outputs: &[Field]) -> Option<Frame> {
        let failed_before = failed.len();
        let mut converted = Vec::new();
        for (index, value_type) in &self.0 {
            let column = frame.column(*index);
            let mut fail = |row: usize| {
                let error = CallError::Text { output: outputs[*index].name.clone(), value_type: *value_type };
                if let Err(at) = failed.binary_search_by_key(&row, |failed| failed.row) {
                    failed.insert(at, FailedRow { row, error: Arc::new(error) });
                }
            };
            if let Some(scalar) = checked_text(*value_type) {
                (0..frame.rows()).filter(|row| !has_text_of(column, *row, scalar)).for_each(&mut fail);
            }
            match value_type {
                ValueType::Nested(_) => {
                    let encoded = (0..frame.rows()).map(|row| encoded(column, row, *value_type));
                    let values = encoded.enumerate().map(|(row, value)| {
                        value.unwrap_or_else(|| {
                            fail(row);
                            Value::Null
                        })
                    });
                    converted.push((*index, values.collect()));
                }
                ValueType::Set(item) => converted.extend(sorted_sets(column, *item).map(|sets| (*index, sets))),
                ValueType::Scalar(_) | ValueType::List(_) => {}
            }
        }
        if converted.is_empty() && failed.len() == failed_before {
            return None;
        }
        Some(rebuild(frame, failed, &converted))
    }
}

/// Returns the values of a column of sets as they are stored; `None` if the column has them already.
fn sorted_sets(column: ColumnRef<'_>, item: ScalarType) -> Option<Vec<Value>> {
    let mut changed = false;
    let set = |row: usize| {
        if !column.is_present(row) {
            return Value::Null;
        }
        let value = |at: usize| if column.is_item_present(at) { column.item(at).to_value() } else { Value::Null };
        let items: Vec<Value> = column.items(row..row + 1).map(value).collect();
        let stored = stored_set(items.clone(), item);
        changed |= stored != items;
        Value::List(stored)
    };
    let sets = (0..column.rows()).map(set).collect();
    changed.then_some(sets)
}

/// Copies a frame. Replaces the columns in `converted`, and the outputs of failed rows by nulls.
fn rebuild(frame: &Frame, failed: &[FailedRow], converted: &[(usize, Vec<Value>)]) -> Frame {
    let converted_of = |index: usize| converted.iter().find(|(of, _)| *of == index).map(|(_, values)| values);
    let is_failed = |row: usize| failed.binary_search_by_key(&row, |failed| failed.row).is_ok();
    let types = frame.columns().enumerate().map(|(index, column)| match converted_of(index) {
        Some(_) if !column.column_type().is_list => ColumnType::single(ColumnScalar::Binary),
        _ => column.column_type(),
    });
    let mut whole = FrameBuilder::new(types, frame.rows());
    for (index, column) in frame.columns().enumerate() {
        let converted = converted_of(index);
        whole.column(|to| {
            for row in 0..frame.rows() {
                match converted.map(|values| &values[row]) {
                    _ if is_failed(row) => to.push(ValueRef::Null),
                    Some(Value::List(items)) => to.push_list(items.iter().map(Value::as_item)),
                    Some(value) => to.push(value.as_item()),
                    None => to.append(column, row..row + 1),
                }
            }
        });
    }
    whole.finish()
}

/// Returns whether the texts of a row are values of the type. Returns true for a null.
fn has_text_of(column: ColumnRef<'_>, row: usize, scalar: ScalarType) -> bool {
    let is_text = |value: ValueRef<'_>| {
        let ValueRef::Bytes(text) = value else { return false };
        std::str::from_utf8(text).is_ok_and(|text| is_text_of(text, scalar))
    };
    if !column.is_present(row) {
        return true;
    }
    if column.column_type().is_list {
        return column.items(row..row + 1).all(|item| !column.is_item_present(item) || is_text(column.item(item)));
    }
    is_text(column.values().get(row))
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

/// Returns texts that the host passes for values of the type, or for the items of its lists. The first one is the
/// simplest. Empty for types whose texts are not checked.
pub(super) fn examples(value_type: ValueType) -> Vec<String> {
    if let Some(scalar) = checked_text(value_type) {
        return EXAMPLES.iter().filter(|text| is_text_of(text, scalar)).map(|text| (*text).to_owned()).collect();
    }
    let passed = |text: &&str| match Cell::from_json(text).ok()?.to_value(value_type).ok()? {
        Value::Bytes(bytes) => nested_json(&bytes),
        _ => None,
    };
    if !matches!(value_type, ValueType::Nested(_)) {
        return Vec::new();
    }
    EXAMPLES.iter().filter_map(passed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_values_of_the_type() {
        for (name, count) in [("Uuid", 2), ("TimeUuid", 2), ("Decimal", 3), ("Json", 10), ("Array(Uuid)", 2)] {
            assert!(examples(name.parse().unwrap()).len() >= count, "{name}");
        }
        assert!(examples("String".parse().unwrap()).is_empty() && examples("Int64".parse().unwrap()).is_empty());
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

    /// The view's type of the first output.
    fn outputs(value_type: &str) -> ViewOutputs {
        let mut outputs = ViewOutputs::default();
        outputs.add(0, value_type.parse().unwrap());
        outputs.add(1, "Int32".parse().unwrap());
        assert_eq!(outputs.0.len(), usize::from(value_type != "String"));
        outputs
    }

    fn encode(outputs: &ViewOutputs, frame: Frame, mut failed: Vec<FailedRow>) -> (Frame, Vec<FailedRow>) {
        let encoded = outputs.encode(&frame, &mut failed, &fields());
        (encoded.unwrap_or(frame), failed)
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
            let (encoded, failed) = encode(&outputs(name), frame(rows), Vec::new());
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
        let (encoded, failed) = encode(&outputs("Map"), frame(&rows), earlier);
        let errors: Vec<_> = failed.iter().map(|failed| (failed.row, failed.error.to_string())).collect();
        let wrong = "output 'profile' is not the JSON text of a value of type Map".to_owned();
        assert_eq!(errors, [(1, wrong.clone()), (2, wrong), (3, "bad".to_owned())]);
        assert_eq!(texts(&encoded), [Some("{}".to_owned()), None, None, None]);
        assert_eq!(encoded.column(1).null_count(), 3);
        assert_eq!(encoded.column(1).values().get(0), ValueRef::Int32(0));
    }

    #[test]
    fn view_types_are_checked() {
        const UUID: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
        for (name, good, bad) in [
            ("Uuid", UUID, "3f2504e0"),
            ("TimeUuid", UUID, ""),
            ("Decimal", "-12.50", "12,50"),
            ("Json", "{\"a\": [1]}", "{a: 1}"),
        ] {
            let rows = [Some(good), None, Some(bad), Some(good)];
            let (checked, failed) = encode(&outputs(name), frame(&rows), Vec::new());
            let errors: Vec<_> = failed.iter().map(|failed| (failed.row, failed.error.to_string())).collect();
            assert_eq!(errors, [(2, format!("output 'profile' is not a value of type {name}"))]);
            let values = checked.column(0);
            let present: Vec<bool> = (0..rows.len()).map(|row| values.is_present(row)).collect();
            assert_eq!(present, [true, false, false, true], "{name}");
            assert_eq!(values.values().get(3), ValueRef::Bytes(good.as_bytes()));
            assert_eq!(checked.column(1).null_count(), 1, "the failed row has no other outputs");
            assert_eq!(encode(&outputs(name), frame(&rows[..2]), Vec::new()).1.len(), 0, "{name}");
        }
        assert_eq!(encode(&outputs("String"), frame(&[Some("{")]), Vec::new()).1.len(), 0);
    }

    #[test]
    fn items_of_lists_are_checked() {
        let list = ColumnType { nullable_items: true, ..ColumnType::list(ColumnScalar::Utf8) };
        let mut frame = FrameBuilder::new([list], 3);
        frame.column(|column| {
            for items in [&[Some("1.5"), None][..], &[Some("2"), Some("x")], &[]] {
                let items =
                    items.iter().map(|item| item.map_or(ValueRef::Null, |item| ValueRef::Bytes(item.as_bytes())));
                column.push_list(items);
            }
        });
        let mut outputs = ViewOutputs::default();
        outputs.add(0, "Array(Decimal)".parse().unwrap());
        let (_, failed) = encode(&outputs, frame.finish(), Vec::new());
        assert_eq!(failed.iter().map(|failed| failed.row).collect::<Vec<_>>(), [1]);
    }
}
