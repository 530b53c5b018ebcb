//! Tests of capture files: round trips, and files that are not captures.

use std::{fs, sync::Arc};

use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::Schema,
    ipc::writer::FileWriter,
};
use larder_model::model::ValueRef;
use larder_plugin_host::{ColumnScalar, Frame, FrameBuilder};

use super::*;
use crate::{
    CaptureKind,
    columns::column_array,
    format::{CapturedCall, Failure, encode},
};

const DOUBLE: ColumnType = ColumnType::single(ColumnScalar::Float64);

fn header() -> CaptureHeader {
    CaptureHeader {
        plugin: "ratio".to_owned(),
        version: "1.2.3".to_owned(),
        digest: "ab".repeat(32),
        contract: "0.3".to_owned(),
        view: "ratios".to_owned(),
        config: "{\"floor\": 1}".to_owned(),
        kind: CaptureKind::Failed,
    }
}

fn column(name: &str, of: ColumnType) -> Column {
    (name.to_owned(), of)
}

fn frame(values: &[Option<f64>]) -> Frame {
    let mut frame = FrameBuilder::new([DOUBLE], values.len());
    frame.column(|column| column.extend(values.iter().map(|value| value.map_or(ValueRef::Null, ValueRef::Float64))));
    frame.finish()
}

fn call(number: i64, values: &[Option<f64>]) -> CapturedCall {
    let failure = Failure { message: "x is null".to_owned(), kind: "row" };
    CapturedCall {
        call: number,
        at: 0,
        rows: (0..values.len()).map(|row| 10 * row).collect(),
        times: (0..).map(|row| -row).take(values.len()).collect(),
        inputs: frame(values),
        outputs: frame(values),
        failures: values.iter().map(|value| value.is_none().then(|| failure.clone())).collect(),
    }
}

fn contents(header: &CaptureHeader) -> Vec<u8> {
    let calls = [call(3, &[Some(-0.0), None]), call(5, &[Some(f64::from_bits(0x7ff8_0000_0000_0abc))])];
    encode(header, &[column("x", DOUBLE)], &[column("y", DOUBLE)], &calls).unwrap()
}

fn opened(contents: &[u8]) -> Result<CaptureFile, CaptureError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("failed.arrow");
    fs::write(&path, contents).unwrap();
    CaptureFile::open(&path)
}

/// Returns the contents with other metadata or other columns.
fn changed(change: impl FnOnce(&mut Vec<(String, String)>, &mut Vec<(Field, ArrayRef)>)) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("failed.arrow");
    fs::write(&path, contents(&header())).unwrap();
    let file = ArrowFile::open(&path).unwrap();
    let batch = file.batch(0).unwrap();
    let metadata = file.schema().metadata().iter();
    let mut metadata = metadata.map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let fields = file.schema().fields().iter().map(|field| Field::clone(field));
    let mut columns = fields.zip(batch.columns().iter().cloned()).collect();
    change(&mut metadata, &mut columns);
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let metadata: std::collections::HashMap<String, String> = metadata.into_iter().collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
    let mut writer = FileWriter::try_new(Vec::new(), &schema).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn error_of(contents: &[u8]) -> String {
    let error = opened(contents).unwrap_err().to_string();
    assert!(error.contains("failed.arrow") && error.matches("hint:").count() == 1, "{error}");
    error
}

#[test]
fn captured_calls_survive_the_file() {
    let file = opened(&contents(&header())).unwrap();
    assert_eq!(file.header(), &header());
    assert_eq!((file.inputs(), file.outputs()), (&[column("x", DOUBLE)][..], &[column("y", DOUBLE)][..]));
    assert_eq!(file.batch_count(), 1);
    let rows = file.batch(0).unwrap();
    assert_eq!(
        (&rows.calls[..], &rows.rows_in_call[..], &rows.times[..]),
        (&[3, 3, 5][..], &[0, 10, 0][..], &[0, -1, 0][..])
    );
    let failures: Vec<_> = (0..rows.len()).map(|row| rows.failure(row)).collect();
    assert_eq!(failures, [None, Some(("x is null", "row")), None]);
    let all = frame(&[Some(-0.0), None, Some(f64::from_bits(0x7ff8_0000_0000_0abc))]);
    let wanted = column_array("x", all.column(0)).unwrap();
    assert_eq!(rows.inputs[0].to_data(), wanted.to_data());
    assert_eq!(rows.outputs[0].to_data(), wanted.to_data());
}

#[test]
fn plugin_without_inputs_has_no_input_column() {
    let mut call = call(0, &[Some(1.0)]);
    call.inputs = FrameBuilder::new([], 1).finish();
    let file = opened(&encode(&header(), &[], &[column("y", DOUBLE)], &[call]).unwrap()).unwrap();
    assert!(file.inputs().is_empty() && file.batch(0).unwrap().inputs.is_empty());
}

#[test]
fn file_without_calls_is_valid() {
    let file = opened(&encode(&header(), &[column("x", DOUBLE)], &[column("y", DOUBLE)], &[]).unwrap()).unwrap();
    assert!(file.batch(0).unwrap().is_empty());
}

#[test]
fn later_format_is_reported() {
    let later = changed(|metadata, _| metadata.push((FORMAT_KEY.to_owned(), "2".to_owned())));
    assert!(error_of(&later).contains("is a capture in format 2, but this Larder reads format 1"));
    let broken = changed(|metadata, _| metadata.push((FORMAT_KEY.to_owned(), "x\n".to_owned())));
    assert!(error_of(&broken).contains("its format is 'x\\n'"));
}

#[test]
fn foreign_arrow_file_is_rejected() {
    let foreign = changed(|metadata, _| metadata.clear());
    assert!(error_of(&foreign).contains("is an Arrow file, but not a capture: its metadata has no 'larder.capture'"));
    for key in ["plugin", "version", "digest", "contract", "view", "config", "kind"] {
        let key = format!("larder.capture.{key}");
        let without = changed(|metadata, _| metadata.retain(|(name, _)| *name != key));
        assert!(error_of(&without).contains(&format!("its metadata has no '{key}'")));
    }
    let kind = changed(|metadata, _| metadata.push(("larder.capture.kind".to_owned(), "good".to_owned())));
    assert!(error_of(&kind).contains("the unknown kind 'good'"));
}

#[test]
fn wrong_columns_are_reported() {
    for name in [CALL, ROW_IN_CALL, REFERENCE_TIME, OUTPUTS, FAILED, ERROR_KIND] {
        let without = changed(|_, columns| columns.retain(|(field, _)| field.name() != name));
        assert!(error_of(&without).contains(&format!("it does not have exactly one column '{name}'")), "{name}");
        let twice = changed(|_, columns| {
            let column = columns.iter().find(|(field, _)| field.name() == name).unwrap().clone();
            columns.push(column);
        });
        assert!(error_of(&twice).contains(&format!("it does not have exactly one column '{name}'")), "{name}");
        let other = changed(|_, columns| {
            let (field, array) = columns.iter_mut().find(|(field, _)| field.name() == name).unwrap();
            let numbers = arrow::array::UInt8Array::from(vec![1, 2, 3]);
            (*field, *array) = (Field::new(name, DataType::UInt8, false), Arc::new(numbers));
        });
        assert!(error_of(&other).contains(&format!("column '{name}' has the type UInt8 instead of")), "{name}");
    }
    let more = changed(|_, columns| {
        columns.push((Field::new("more", DataType::Int64, false), Arc::new(Int64Array::from(vec![1, 2, 3]))));
    });
    assert!(error_of(&more).contains("it has an unknown column 'more'"));
}

#[test]
fn null_in_required_column_is_reported() {
    let contents = changed(|_, columns| {
        columns[0] = (Field::new(CALL, DataType::Int64, true), Arc::new(Int64Array::from(vec![Some(1), None, None])));
    });
    let file = opened(&contents).unwrap();
    let error = file.batch(0).unwrap_err().to_string();
    assert!(error.contains("record batch 0 has nulls where a capture has none"), "{error}");
}
