//! `larder training-set`: its values are those of a server at the same time, and its errors leave no file.

use std::{fs, fs::File, path::Path, sync::Arc};

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, Int64Type};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use serde_json::{Value, json};

use crate::{binary::Home, guests::guest, wire};

/// 2100-01-01, when all rows of the golden views are visible.
const LATER: i64 = 4_102_444_800_000_000;

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let rows =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

/// Writes entity rows of these drivers at this time.
fn write_entities(home: &Home, drivers: &[i64], time: i64) {
    let times = TimestampMicrosecondArray::from_iter_values(drivers.iter().map(|_| time)).with_timezone("UTC");
    write(
        &home.path("entities.parquet"),
        vec![
            ("driver_id", Arc::new(Int64Array::from(drivers.to_vec())) as ArrayRef),
            ("event_timestamp", Arc::new(times)),
            ("amount", Arc::new(Float64Array::from_iter_values(drivers.iter().map(|_| 2.0)))),
            ("hour", Arc::new(Int64Array::from_iter_values(drivers.iter().map(|_| 3)))),
        ],
    );
}

fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn training_set(home: &Home, more: &[&str]) -> crate::binary::Ended {
    let args = ["training-set", "--entities", "entities.parquet", "--out", "set.parquet"];
    home.run(args.into_iter().chain(more.iter().copied()))
}

/// The values of stored and derived features are those that a server returns at the same time.
#[test]
fn set_equals_responses() {
    let home = Home::golden_loaded();
    fs::create_dir_all(home.path("plugins")).unwrap();
    fs::copy(guest("feast_odfv/odfv_python"), home.path("plugins/odfv_python.wasm")).unwrap();
    let drivers = [1001, 9999, 1002, 1001];
    write_entities(&home, &drivers, LATER);
    let features =
        ["driver_stats:conv_rate", "driver_stats:avg_daily_trips", "odfv_python:conv_x_amount", "odfv_python:label"];
    let args: Vec<&str> = features.iter().flat_map(|feature| ["--feature", feature]).collect();
    let ended = training_set(&home, &args);
    ended.assert_code(0);
    assert!(ended.out.contains("wrote 4 rows to set.parquet"), "{}", ended.out);
    let set = read(&home.path("set.parquet"));

    let (_host, address) = home.serve();
    let body = json!({
        "features": features,
        "entities": { "driver_id": drivers, "amount": [2.0, 2.0, 2.0, 2.0], "hour": [3, 3, 3, 3] },
    });
    let answer = wire::send(address, "POST", "/get-online-features", &[], body.to_string().as_bytes());
    let bits = |value: &Value| value.as_f64().map(f64::to_bits);
    for name in ["conv_rate", "conv_x_amount"] {
        let expected: Vec<_> = answer.column(name)["values"].as_array().unwrap().iter().map(bits).collect();
        let found: Vec<_> =
            set[name].as_primitive::<Float64Type>().iter().map(|value| value.map(f64::to_bits)).collect();
        assert_eq!(found, expected, "{name}");
        assert!(found[0].is_some() && found[1].is_none(), "{name}");
    }
    let trips: Vec<_> = set["avg_daily_trips"].as_primitive::<Int64Type>().iter().collect();
    let expected: Vec<_> =
        answer.column("avg_daily_trips")["values"].as_array().unwrap().iter().map(Value::as_i64).collect();
    assert_eq!(trips, expected);
    let labels: Vec<_> = set["label"].as_string::<i32>().iter().collect();
    let values = answer.column("label")["values"].clone();
    let expected: Vec<_> = values.as_array().unwrap().iter().map(Value::as_str).collect();
    assert_eq!(labels, expected);
}

#[test]
fn mistakes_leave_no_file() {
    let home = Home::golden();
    write_entities(&home, &[1001], LATER);
    for (args, code, words) in [
        (&["--feature", "driver_stats:conv_rat"][..], 1, "did you mean 'conv_rate'?"),
        (&[], 2, "no features selected. hint: use --service NAME, or --feature VIEW:FEATURE"),
        (
            &["--feature", "driver_stats:conv_rate", "--time-column", "event_time"],
            1,
            "no column 'event_time' with their times. Their columns are 'driver_id', 'event_timestamp', 'amount', 'hour'. hint: \
             name the time column with --time-column",
        ),
        (
            &["--feature", "odfv_python:label"],
            1,
            "needs plugin 'odfv_python', which is not loaded. hint: put odfv_python.wasm",
        ),
        (&["--feature", "driver_stats:conv_rate", "--entities", "absent.parquet"], 2, "cannot be used multiple times"),
    ] {
        training_set(&home, args).assert_code(code).assert_complains(&[words]);
        let left: Vec<_> = fs::read_dir(home.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("set.parquet")), "{left:?}");
    }
    home.run([
        "training-set",
        "--entities",
        "absent.parquet",
        "--out",
        "set.parquet",
        "--feature",
        "driver_stats:conv_rate",
    ])
    .assert_code(1)
    .assert_complains(&["absent.parquet"]);
}

#[test]
fn times_as_text_have_hint() {
    let home = Home::golden();
    let (drivers, times) = (Int64Array::from(vec![1001]), StringArray::from(vec!["2026-11-30"]));
    write(
        &home.path("entities.parquet"),
        vec![("driver_id", Arc::new(drivers) as ArrayRef), ("event_timestamp", Arc::new(times))],
    );
    let hint = ". hint: convert the text first, for example in SQL with CAST(event_timestamp AS TIMESTAMPTZ)";
    training_set(&home, &["--feature", "driver_stats:conv_rate"]).assert_code(1).assert_complains(&[hint]);
}

/// The package writes manifests of sets whose entity rows were a data frame.
#[test]
fn data_frame_manifest_is_rejected() {
    let home = Home::golden();
    write_entities(&home, &[1001], LATER);
    training_set(&home, &["--feature", "driver_stats:conv_rate"]).assert_code(0);
    let path = home.path("set.parquet.manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["inputs"]["entities"] = json!({ "path": null, "files": {} });
    fs::write(home.path("frame.json"), manifest.to_string()).unwrap();
    let expected = "frame.json: the entity rows were a data frame, so the manifest does not identify them. hint: write the \
                    entity rows to a Parquet file, and build the set with --entities PATH";
    home.run(["training-set", "--from", "frame.json", "--out", "again.parquet"])
        .assert_code(1)
        .assert_complains(&[expected]);
    training_set(&home, &["--from", "frame.json"]).assert_code(1).assert_complains(&[expected]);
}
