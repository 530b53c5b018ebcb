//! `larder init`: the files that it writes, and the definitions that it infers from Parquet files.

use ::parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    schema::{parser::parse_message_type, types::SchemaDescriptor},
};
use arrow::array::{FixedSizeBinaryArray, Float32Array, Float64Array, Int32Array, RecordBatch, UInt64Array};

use super::*;

#[test]
fn init_output_passes_check() {
    let home = Home::empty();
    let made = home.run(["init", "new dir"]);
    made.assert_code(0);
    // The printed command works as printed.
    assert!(made.out.contains("larder serve --config 'new dir/larder.yaml'"), "{}", made.out);
    home.run(["check", "--config", "new dir/larder.yaml"]).assert_code(0);

    home.write("new dir/larder.yaml", LARDER_YAML);
    home.run(["init", "new dir"]).assert_code(1).assert_complains(&["new dir/larder.yaml exists already"]);
    assert_eq!(fs::read_to_string(home.path("new dir/larder.yaml")).unwrap(), LARDER_YAML);

    home.write("half/features/churn.yaml", GOOD);
    home.run(["init", "half"]).assert_code(1).assert_complains(&["churn.yaml exists already; nothing was written"]);
    assert!(!home.path("half/larder.yaml").try_exists().unwrap());
}

#[test]
fn init_without_files_has_its_data() {
    let home = Home::empty();
    home.run(["init", "."]).assert_code(0);
    let checked = home.run(["check"]);
    assert!(checked.assert_code(0).out.contains("no errors"), "{}", checked.out);
    home.run(["sync"]).assert_code(0);
    home.run(["verify"]).assert_code(0);
}

#[test]
fn init_infers_definitions_that_serve() {
    let home = Home::golden();
    for file in ["larder.yaml", "features/feast_repo.yaml", "features/derived.yaml"] {
        fs::remove_file(home.path(file)).unwrap();
    }
    let made = home.run([
        "init",
        "--from",
        "data/driver_stats.parquet",
        "data/pair_stats.parquet",
        "data/customer_stats.parquet",
    ]);
    made.assert_code(0);
    let written = fs::read_to_string(home.path("features/inferred.yaml")).unwrap();
    for line in [
        "  - {name: driver, join_key: driver_id, type: Int64}  # confirm",
        "    entities: [customer, driver]  # confirm: ",
        "      timestamp_field: event_timestamp  # confirm",
        "      created_timestamp_column: created  # confirm",
        "      - {name: conv_rate, type: Float64}",
        "      - {name: embedding, type: Array(Float32)}",
    ] {
        assert!(written.contains(line), "no '{line}' in:\n{written}");
    }
    let config = fs::read_to_string(home.path("larder.yaml")).unwrap();
    home.write("larder.yaml", &config.replace("listen: 127.0.0.1:9566", "listen: off"));
    let checked = home.run(["check"]);
    assert!(checked.assert_code(0).out.contains("3 feature views"), "{}\n{}", checked.out, checked.err);
    home.run(["sync"]).assert_code(0);
    let got = home.run(["get", "--json", "--feature", "driver_stats:conv_rate", "driver_id=1001"]);
    assert!(got.assert_code(0).out.contains("0.6001"), "{}", got.out);
    home.run(["init", "--from", "data/*.parquet"]).assert_code(1).assert_complains(&["exists already"]);
    home.run(["init", "other", "--from", "nothing/*.parquet"]).assert_code(1);
    // A pattern in shell syntax.
    let all = home.run(["init", "other", "--from", "data/*_stats.parquet"]);
    assert!(all.assert_code(0).out.contains("mapped_stats: key cust, event time ts"), "{}", all.out);
    home.run(["check", "--config", "other/larder.yaml"]).assert_code(0);
}

/// Returns the definitions that `init --from` writes for these files, after `check` has accepted them.
fn inferred(home: &Home, dir: &str, from: &[&str]) -> String {
    home.run([&["init", dir, "--from"], from].concat()).assert_code(0);
    home.run(["check", "--config", &format!("{dir}/larder.yaml")]).assert_code(0);
    fs::read_to_string(home.path(&format!("{dir}/features/inferred.yaml"))).unwrap()
}

fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

#[test]
fn init_keeps_the_names_of_columns() {
    let home = Home::empty();
    let columns = vec![("id", ints(0..200)), ("a b", ints(0..200)), ("a_b", ints(0..200)), ("größe", ints(0..200))];
    parquet::write(&home.path("data/odd.parquet"), &columns);
    let written = inferred(&home, "odd", &["data/odd.parquet"]);
    for line in ["{name: \"a b\", type: Int64}", "{name: a_b, type: Int64}", "{name: \"größe\", type: Int64}"] {
        assert!(written.contains(line), "no '{line}' in:\n{written}");
    }
    assert!(!written.contains("field_mapping"), "{written}");
}

#[test]
fn init_infers_type_for_all_files() {
    let home = Home::empty();
    let narrow: ArrayRef = Arc::new(Int32Array::from_iter_values(0..200));
    let single: ArrayRef = Arc::new(Float32Array::from_iter_values((0..200_u8).map(f32::from)));
    let double: ArrayRef = Arc::new(Float64Array::from_iter_values((0..200_u8).map(f64::from)));
    let unsigned: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..200));
    let first = vec![("id", ints(0..200)), ("n", narrow), ("f", single), ("u", Arc::clone(&unsigned))];
    parquet::write(&home.path("data/day=1/part-0.parquet"), &first);
    let second = vec![("id", ints(200..400)), ("n", ints(200..400)), ("f", double), ("u", unsigned)];
    parquet::write(&home.path("data/day=2/part-0.parquet"), &second);
    let written = inferred(&home, "all", &["data"]);
    for line in [
        "{name: \"n\", type: Int64}",
        "{name: f, type: Float64}",
        "{name: day, type: Int64}",
        "# confirm: 'u' is unsigned; values above 9223372036854775807 are null",
    ] {
        assert!(written.contains(line), "no '{line}' in:\n{written}");
    }
    // If values of some files exceed the type of a column in the first file, there is a warning.
    let path = home.path("all/features/inferred.yaml");
    fs::write(path, written.replace("{name: \"n\", type: Int64}", "{name: \"n\", type: Int32}")).unwrap();
    let checked = home.run(["check", "--config", "all/larder.yaml"]);
    let words = "column 'n': the type is Int64 here, but Int32 in other files; values that are not Int32 are null";
    assert!(checked.assert_code(0).out.contains(words), "{}{}", checked.out, checked.err);
}

/// The values of the inferred feature are the UUIDs of the file.
#[test]
fn init_infers_uuids() {
    let home = Home::empty();
    let message = "message rows { required int64 user_id; required fixed_len_byte_array(16) device (UUID); \
                   required fixed_len_byte_array(16) digest; }";
    let schema = Arc::new(parse_message_type(message).unwrap());
    let bytes = |byte: u8| FixedSizeBinaryArray::try_from_iter([[byte; 16]; 200].into_iter()).unwrap();
    let columns: [(&str, ArrayRef); 3] =
        [("user_id", ints(0..200)), ("device", Arc::new(bytes(0x12))), ("digest", Arc::new(bytes(0x34)))];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let options = ArrowWriterOptions::new().with_parquet_schema(SchemaDescriptor::new(schema));
    let file = fs::File::create(home.path("devices.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new_with_options(file, rows.schema(), options).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let written = inferred(&home, ".", &["devices.parquet"]);
    assert!(written.contains("{name: device, type: Uuid}"), "{written}");
    assert!(written.contains("{name: digest, type: Bytes}"), "{written}");
    home.run(["sync"]).assert_code(0);
    let got = home.run(["get", "--json", "--feature", "devices_features:device", "user_id=7"]);
    assert!(got.assert_code(0).out.contains("12121212-1212-1212-1212-121212121212"), "{}", got.out);
}

#[test]
fn init_finds_tables_and_composite_keys() {
    let home = Home::empty();
    let pairs = vec![
        ("year", ints((0..400).map(|_| 2026))),
        ("row", ints((0..400).map(|n| n / 20))),
        ("place", ints((0..400).map(|n| n % 20))),
        ("x", ints(0..400)),
    ];
    let renamed = vec![("customer_id", ints(0..400)), ("spent", ints(0..400)), ("row", ints(0..400))];
    parquet::write(&home.path("data/seats.parquet"), &pairs);
    parquet::write(&home.path("data/customers.parquet"), &renamed);
    let written = inferred(&home, "two", &["data"]);
    for line in [
        "- name: customers_features",
        "- name: seats_features",
        "# Not included: seats_features, because feature names clash.",
    ] {
        assert!(written.contains(line), "no '{line}' in:\n{written}");
    }
    let no_single = vec![
        ("year", ints((0..400).map(|_| 2026))),
        ("row", ints((0..400).map(|n| n / 20))),
        ("place", ints((0..400).map(|n| n % 20))),
        ("x", ints((0..400).map(|n| n % 3))),
    ];
    parquet::write(&home.path("more/seats.parquet"), &no_single);
    let written = inferred(&home, "more_seats", &["more/seats.parquet"]);
    assert!(written.contains("entities: [row, place]  # confirm: unique in the first"), "{written}");
    let same = vec![
        ("kind", ints((0..400).map(|n| n % 7))),
        ("x", Arc::new(Float64Array::from_iter_values((0..400_i32).map(f64::from))) as ArrayRef),
    ];
    parquet::write(&home.path("same/kinds.parquet"), &same);
    let written = inferred(&home, "kinds", &["same/kinds.parquet"]);
    assert!(
        written
            .contains("# confirm: guessed: not unique in the first 400 rows; Larder serves only one row for each key"),
        "{written}"
    );
}
