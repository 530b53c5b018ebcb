//! Tests of Arrow files that are foreign, damaged or hostile.

use std::{fs, path::Path};

use arrow::{
    array::{ArrayRef, DictionaryArray, Int32Array, Int64Array, ListArray, NullArray, StringArray, UInt32Array},
    compute::cast,
    datatypes::{Field, Int32Type},
    ipc::writer::{FileWriter, StreamWriter},
    util::display::array_value_to_string,
};

use super::*;

fn array() -> ArrayRef {
    Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))
}

fn file_of(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, of)| (name, of, true)));
    let batch = batch.unwrap();
    let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.write(&batch.slice(0, 1)).unwrap();
    writer.into_inner().unwrap()
}

/// Reads all record batches of a file with these contents.
fn read(contents: &[u8]) -> Result<Vec<RecordBatch>, CaptureError> {
    read_at(&tempfile::tempdir().unwrap().path().join("rows.arrow"), contents)
}

fn read_at(path: &Path, contents: &[u8]) -> Result<Vec<RecordBatch>, CaptureError> {
    fs::write(path, contents).unwrap();
    let file = ArrowFile::open(path)?;
    (0..file.batch_count()).map(|index| file.batch(index)).collect()
}

fn error_of(contents: &[u8]) -> String {
    let error = read(contents).unwrap_err().to_string();
    assert!(error.contains("rows.arrow") && error.matches("hint:").count() == 1, "{error}");
    error
}

#[test]
fn batches_are_read() {
    let text: ArrayRef =
        Arc::new(vec![Some("a"), Some("b"), Some("a")].into_iter().collect::<DictionaryArray<Int32Type>>());
    let batches = read(&file_of(vec![("x", array()), ("text", text)])).unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(batches[0].column(0), &array());
    let text = cast(batches[0].column(1), &DataType::Utf8).unwrap();
    assert_eq!(text.as_ref(), &StringArray::from(vec!["a", "b", "a"]));
}

#[test]
fn other_files_are_rejected() {
    for contents in [&b""[..], b"ARROW1", b"PAR1 is the beginning of Parquet. PAR1", b"{\"x\": 1}", &[0; 100]] {
        assert!(error_of(contents).contains("is not an Arrow file"), "{contents:?}");
    }
    let batch = RecordBatch::try_from_iter([("x", array())]).unwrap();
    let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    stream.write(&batch).unwrap();
    assert!(error_of(&stream.into_inner().unwrap()).contains("is not an Arrow file"), "a stream is not a file");
}

#[test]
fn truncated_file_is_rejected() {
    let contents = file_of(vec![("x", array())]);
    for length in 0..contents.len() {
        assert!(read(&contents[..length]).is_err(), "{length} bytes");
    }
}

/// No damage causes a panic of this process, or an allocation that is larger than the file.
#[test]
fn damaged_bytes_never_panic() {
    let items: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
    ]));
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("bcd")]));
    let contents = file_of(vec![("x", array()), ("items", items), ("text", text)]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.arrow");
    for index in 0..contents.len() {
        for bits in [0xff, 0x01] {
            let mut damaged = contents.clone();
            damaged[index] ^= bits;
            for batch in read_at(&path, &damaged).into_iter().flatten() {
                assert!(batch.num_rows() <= 8 * contents.len());
                // Each value can be read.
                for column in batch.columns() {
                    (0..batch.num_rows()).for_each(|row| _ = array_value_to_string(column, row));
                }
            }
        }
    }
}

#[test]
fn claimed_footer_size_is_checked() {
    let mut contents = file_of(vec![("x", array())]);
    let length_at = contents.len() - 10;
    contents[length_at..length_at + 4].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    assert!(error_of(&contents).contains("its footer is larger than the file"));
    // A file that really is this large.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.arrow");
    let file = fs::File::create(&path).unwrap();
    let large = FOOTER_BYTES_MAX + 1;
    file.write_all_at(MAGIC, 0).unwrap();
    file.write_all_at(&[&u32::try_from(large).unwrap().to_le_bytes()[..], MAGIC].concat(), large + 8).unwrap();
    let error = ArrowFile::open(&path).unwrap_err().to_string();
    assert!(error.contains("the footer has 16777217 bytes, but at most 16777216 are allowed"), "{error}");
}

#[test]
fn types_that_multiply_rows_are_rejected() {
    let nulls: ArrayRef = Arc::new(NullArray::new(3));
    assert!(error_of(&file_of(vec![("nothing", nulls)])).contains("column 'nothing' has the type Null"));
    let field = Arc::new(Field::new_list_field(DataType::Int32, true));
    let values = Arc::new(Int32Array::from(vec![1, 2]));
    let views = arrow::array::ListViewArray::new(field, vec![0, 0].into(), vec![2, 2].into(), values, None);
    assert!(error_of(&file_of(vec![("views", Arc::new(views))])).contains("column 'views'"));
    let ends = Int32Array::from(vec![3]);
    let runs = arrow::array::RunArray::<Int32Type>::try_new(&ends, &UInt32Array::from(vec![7])).unwrap();
    assert!(error_of(&file_of(vec![("runs", Arc::new(runs))])).contains("column 'runs'"));
}
