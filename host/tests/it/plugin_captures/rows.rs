//! Parquet and Arrow files as rows of `larder plugin run` and `bench`, and Parquet files that `run` writes.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray},
    datatypes::Float64Type,
    ipc::writer::FileWriter,
};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};

use super::*;
use crate::{binary::peak_mebibytes, guests::guest};

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, of)| (name, of, true))).unwrap()
}

fn write_parquet(path: &Path, batches: &[RecordBatch]) {
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batches[0].schema(), None).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.close().unwrap();
}

fn write_arrow(path: &Path, batches: &[RecordBatch]) {
    let mut writer = FileWriter::try_new(fs::File::create(path).unwrap(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
}

fn read_parquet(path: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
    reader.build().unwrap().map(Result::unwrap).collect()
}

fn doubles(count: usize) -> ArrayRef {
    Arc::new((0..count).map(|row| row as f64).collect::<Float64Array>())
}

fn home() -> Home {
    let home = Home::empty();
    fs::copy(guest("hostile"), home.path("hostile.wasm")).unwrap();
    home
}

const TRAP: &str = r#"{"mode": "trap", "bad": 1000}"#;

#[test]
fn parquet_and_arrow_rows_give_the_same_outputs() {
    let home = home();
    let x: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), None, Some(-0.0), Some(0.1)]));
    let rows = batch(vec![("other", Arc::new(StringArray::from(vec!["a"; 4]))), ("x", x)]);
    write_parquet(&home.path("rows.parquet"), std::slice::from_ref(&rows));
    write_arrow(&home.path("rows.arrow"), &[rows.slice(0, 3), rows.slice(3, 1)]);
    home.write("rows.json", r#"[{"x": 1.0}, {}, {"x": -0.0}, {"x": 0.1}]"#);
    let outputs = |file: &str| {
        let ended = run(&home, ["plugin", "run", "hostile.wasm", "--input", file, "--json"]);
        serde_json::from_str::<Value>(&ended.assert_code(0).out).unwrap()
    };
    let expected = outputs("rows.json");
    assert_eq!(expected[3]["y"], json!(0.2));
    assert_eq!(outputs("rows.parquet"), expected);
    assert_eq!(outputs("rows.arrow"), expected);
    run(&home, ["plugin", "bench", "hostile.wasm", "--input", "rows.arrow"]).assert_code(0);
}

#[test]
fn written_parquet_has_inputs_outputs_and_errors() {
    let home = home();
    write_parquet(&home.path("rows.parquet"), &[batch(vec![("x", doubles(1_010))])]);
    let args =
        ["plugin", "run", "hostile.wasm", "--input", "rows.parquet", "--view-config", TRAP, "--out", "out.parquet"];
    let ended = run(&home, args);
    ended.assert_code(1).assert_complains(&["10 of 1010 rows failed", "row 1000 failed: it trapped"]);
    assert!(ended.out.contains("1,010 rows written to out.parquet"), "{}", ended.out);
    let batches = read_parquet(&home.path("out.parquet"));
    let names: Vec<String> = batches[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["x", "y", "flag", "text", "items", "words", "failed"]);
    let row = |row: usize| {
        let (x, y) =
            (batches[0].column(0).as_primitive::<Float64Type>(), batches[0].column(1).as_primitive::<Float64Type>());
        let failed = batches[0].column(6).as_string::<i32>();
        (
            x.value(row),
            y.is_valid(row).then(|| y.value(row)),
            failed.is_valid(row).then(|| failed.value(row).to_owned()),
        )
    };
    assert_eq!(row(999), (999.0, Some(1998.0), None));
    let (x, y, failed) = row(1_000);
    assert!((x, y) == (1_000.0, None) && failed.is_some_and(|failed| failed.contains("it trapped")));
    // Without an end of the run, there is no file.
    fs::write(home.path("broken.parquet"), "PAR1 broken PAR1").unwrap();
    run(&home, ["plugin", "run", "hostile.wasm", "--input", "broken.parquet", "--out", "none.parquet"]).assert_code(1);
    assert!(!home.path("none.parquet").is_file());
}

#[test]
fn wrong_columns_are_named() {
    let home = home();
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    for (name, rows, words) in [
        (
            "missing",
            batch(vec![("amount", doubles(1))]),
            "column 'x' is missing, which plugin 'hostile' reads as Float64",
        ),
        ("misspelled", batch(vec![("X", doubles(1))]), "did you mean 'X'? If so, rename the column to 'x'"),
        ("text", batch(vec![("x", text)]), "column 'x'"),
    ] {
        write_parquet(&home.path(&format!("{name}.parquet")), std::slice::from_ref(&rows));
        write_arrow(&home.path(&format!("{name}.arrow")), &[rows]);
        for extension in ["parquet", "arrow"] {
            let file = format!("{name}.{extension}");
            let ended = run(&home, ["plugin", "run", "hostile.wasm", "--input", &file]);
            ended.assert_code(1).assert_complains(&[words, &file]);
        }
    }
    let lists = arrow::array::ListArray::from_iter_primitive::<Float64Type, _, _>(vec![Some(vec![Some(1.0)])]);
    write_parquet(&home.path("lists.parquet"), &[batch(vec![("x", Arc::new(lists))])]);
    let ended = run(&home, ["plugin", "run", "hostile.wasm", "--input", "lists.parquet"]);
    ended.assert_code(1).assert_complains(&[
        "column 'x' has the type List",
        "but plugin 'hostile' reads it as Float64",
        "hint: convert",
    ]);
}

/// The file is much larger than the memory that the command uses.
#[test]
fn large_files_are_read_in_batches() {
    const ROWS: usize = 4_000_000;
    let home = home();
    // Columns that the plugin does not read are decoded, too.
    let padding: ArrayRef = Arc::new((0..ROWS as i64).collect::<Int64Array>());
    let rows = batch(vec![("x", doubles(ROWS)), ("id", padding)]);
    let parts: Vec<RecordBatch> = (0..40).map(|part| rows.slice(part * ROWS / 40, ROWS / 40)).collect();
    write_parquet(&home.path("rows.parquet"), &parts);
    write_arrow(&home.path("rows.arrow"), &parts);
    drop((rows, parts));
    let peak = |file: &str, out: &str| {
        let args = ["plugin", "run", "hostile.wasm", "--input", file, "--out", out];
        let mut command = tool(&home, args);
        let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        let peak = peak_mebibytes(&mut child);
        assert!(child.wait().unwrap().success());
        let rows: usize = read_parquet(&home.path(out)).iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, ROWS);
        peak
    };
    let (parquet, arrow) = (peak("rows.parquet", "a.parquet"), peak("rows.arrow", "b.parquet"));
    // The inputs and outputs of all rows take at least 200 MiB.
    assert!(parquet < 350 && arrow < 350, "{parquet} MiB, {arrow} MiB");
}
