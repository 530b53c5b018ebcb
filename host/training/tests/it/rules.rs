//! The rules of the join, one by one, and the errors of bad input.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{
        ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray,
        TimestampSecondArray,
    },
    datatypes::{DataType, Field, Schema},
};
use larder_serving::{Selection, TtlPolicy};
use larder_training::{Limits, Progress, TrainingError, TrainingRequest, kernel::Visibility};

use crate::files::{Files, SECOND, column, customers, features, ints, times};

const A: Option<&str> = Some("a");

/// Returns the visits of customer `a` at a time.
fn visits(files: &Files, request: &TrainingRequest<'_>, at: i64) -> Option<i64> {
    let set = files.join(request, &[customers(&[(A, Some(at * SECOND))])]).unwrap();
    column(&set, "visits")[0]
}

#[test]
fn event_at_row_time_is_used() {
    let files = Files::new();
    files.stats("a", &[(A, Some(20 * SECOND), None, Some(1))]);
    let request = features(&["stats:visits"]);
    assert_eq!([19, 20, 21].map(|at| visits(&files, &request, at)), [None, Some(1), Some(1)]);
}

#[test]
fn ttl_includes_its_bound() {
    let files = Files::new();
    files.stats("a", &[(A, Some(20 * SECOND), None, Some(1))]);
    let rows = customers(&[(A, Some(30 * SECOND)), (A, Some(30 * SECOND + 1))]);
    for (ttl, expired) in [(TtlPolicy::Null, None), (TtlPolicy::Mark, Some(1)), (TtlPolicy::Ignore, Some(1))] {
        let request = TrainingRequest { ttl, ..features(&["stats:visits"]) };
        let set = files.join(&request, std::slice::from_ref(&rows)).unwrap();
        assert_eq!(column(&set, "visits"), [Some(1), expired], "{ttl:?}");
        assert_eq!((set.report.views[0].matched, set.report.views[0].expired), (1, 1));
    }
}

#[test]
fn newest_null_hides_older_values() {
    let files = Files::new();
    files.stats("a", &[(A, Some(20 * SECOND), None, Some(1)), (A, Some(21 * SECOND), None, None)]);
    assert_eq!(visits(&files, &features(&["stats:visits"]), 25), None);
}

#[test]
fn last_read_row_wins_full_tie() {
    let files = Files::new();
    let row = |visits| (A, Some(20 * SECOND), Some(20 * SECOND), Some(visits));
    files.stats("0", &[row(1), row(2)]);
    files.stats("1", &[row(3)]);
    assert_eq!(visits(&files, &features(&["stats:visits"]), 25), Some(3));
}

#[test]
fn late_rows_are_used_and_counted() {
    let files = Files::new();
    files.stats(
        "a",
        &[(A, Some(20 * SECOND), Some(20 * SECOND), Some(1)), (A, Some(21 * SECOND), Some(60 * SECOND), Some(2))],
    );
    let rows = [customers(&[(A, Some(25 * SECOND))])];
    let request = features(&["stats:visits"]);
    let set = files.join(&request, &rows).unwrap();
    assert_eq!((column(&set, "visits"), set.report.views[0].late), (vec![Some(2)], 1));
    let set = files.join(&TrainingRequest { visibility: Visibility::Created, ..request }, &rows).unwrap();
    assert_eq!((column(&set, "visits"), set.report.views[0].late), (vec![Some(1)], 0));
}

/// Feast's file store drops a row if one view has no match, and collapses equal entity rows.
#[test]
fn all_rows_stay_in_their_order() {
    let files = Files::new();
    files.stats("a", &[(A, Some(20 * SECOND), None, Some(1)), (Some("b"), Some(21 * SECOND), None, Some(2))]);
    files.limits(&[("a", 0, 7)]);
    let at = Some(25 * SECOND);
    let rows = [
        customers(&[(Some("b"), at), (A, at), (Some("unknown"), at), (A, at)]),
        customers(&[(None, at), (A, None), (A, Some(5 * SECOND))]),
    ];
    let request = TrainingRequest { selection: Selection::Service("both".into()), ..features(&[]) };
    let set = files.join(&request, &rows).unwrap();
    assert_eq!(column(&set, "label"), [Some(0), Some(1), Some(2), Some(3), Some(0), Some(1), Some(2)]);
    assert_eq!(column(&set, "visits"), [Some(2), Some(1), None, Some(1), None, None, None]);
    assert_eq!(column(&set, "limit"), [None, Some(7), None, Some(7), None, None, Some(7)]);
    let names =
        |batch: &RecordBatch| batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let expected = ["customer_id", "event_timestamp", "label", "visits", "plan", "limit"];
    assert!(set.batches.iter().all(|batch| names(batch) == expected));
    for (before, after) in rows.iter().zip(&set.batches) {
        assert_eq!(before.columns(), &after.columns()[..3], "the caller's columns are unchanged");
    }
    assert_eq!((set.report.rows, set.report.rows_without_time), (7, 1));
}

/// In Feast's Spark store, the keys (1, 23) and (12, 3) are mixed up.
#[test]
fn composite_keys_do_not_collide() {
    let files = Files::new();
    files.write(
        "sales/a.parquet",
        vec![
            ("customer_id", Arc::new(StringArray::from(vec!["1", "12"]))),
            ("shop_id", ints([Some(23), Some(3)].into_iter())),
            ("at", times([Some(0), Some(0)].into_iter())),
            ("sold", ints([Some(100), Some(200)].into_iter())),
        ],
    );
    let rows = RecordBatch::try_from_iter([
        ("customer_id", Arc::new(StringArray::from(vec!["12", "1", "1"])) as ArrayRef),
        ("shop_id", ints([Some(3), Some(23), Some(3)].into_iter())),
        ("event_timestamp", times([Some(1), Some(1), Some(1)].into_iter())),
    ]);
    let set = files.join(&features(&["sales:sold"]), &[rows.unwrap()]).unwrap();
    assert_eq!(column(&set, "sold"), [Some(200), Some(100), None]);
}

#[test]
fn integers_with_nulls_stay_exact() {
    let files = Files::new();
    let large = (1 << 53) + 1;
    files.stats("a", &[(A, Some(0), None, Some(large))]);
    let set = files.join(&features(&["stats:visits"]), &[customers(&[(A, Some(0)), (Some("b"), Some(0))])]).unwrap();
    assert_eq!(column(&set, "visits"), [Some(large), None]);
    assert_eq!(*set.batches[0].column_by_name("visits").unwrap().data_type(), DataType::Int64);
}

#[test]
fn times_keep_their_type_and_zone() {
    let files = Files::new();
    files.stats("a", &[(A, Some(20 * SECOND), None, Some(1))]);
    let rows = |array: ArrayRef| {
        RecordBatch::try_from_iter([
            ("customer_id", Arc::new(StringArray::from(vec!["a", "a"])) as ArrayRef),
            ("event_timestamp", array),
        ])
        .unwrap()
    };
    for array in [
        Arc::new(TimestampMicrosecondArray::from(vec![19 * SECOND, 20 * SECOND])) as ArrayRef,
        Arc::new(
            TimestampNanosecondArray::from(vec![19 * 1_000 * SECOND, 20 * 1_000 * SECOND]).with_timezone("+02:00"),
        ),
    ] {
        let set = files.join(&features(&["stats:visits"]), &[rows(Arc::clone(&array))]).unwrap();
        assert_eq!(column(&set, "visits"), [None, Some(1)]);
        assert_eq!(set.batches[0].column(1), &array);
    }
}

#[test]
fn event_times_and_full_names_exist() {
    let files = Files::new();
    files.stats("a", &[(A, Some(20 * SECOND), None, Some(1))]);
    let request = TrainingRequest { event_timestamps: true, full_feature_names: true, ..features(&["stats:visits"]) };
    let set = files.join(&request, &[customers(&[(A, Some(25 * SECOND)), (A, None)])]).unwrap();
    assert_eq!(column(&set, "stats__visits"), [Some(1), None]);
    assert_eq!(column(&set, "stats__visits__event_timestamp"), [Some(20 * SECOND), None]);
}

/// Returns entity rows, one column of which has the type of Ray's columns of Python objects.
fn with_objects(column: &str) -> RecordBatch {
    let rows = customers(&[(A, Some(0))]);
    let objects = HashMap::from([("ARROW:extension:name".to_owned(), "ray.data.arrow_pickled_object".to_owned())]);
    let schema = rows.schema();
    let fields = schema.fields().iter().map(|field| {
        let field = Field::clone(field);
        if field.name() == column { field.with_metadata(objects.clone()) } else { field }
    });
    let schema = Schema::new(fields.collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), rows.columns().to_vec()).unwrap()
}

#[test]
fn rows_in_errors_count_all_batches() {
    let files = Files::new();
    files.stats("a", &[(A, Some(0), None, Some(1))]);
    let rows = |times: Vec<i64>| {
        let ids: ArrayRef = Arc::new(StringArray::from(vec!["a"; times.len()]));
        let times: ArrayRef = Arc::new(TimestampSecondArray::from(times));
        RecordBatch::try_from_iter([("customer_id", ids), ("event_timestamp", times)]).unwrap()
    };
    let batches = [rows(vec![0, 1, 2]), rows(vec![3, i64::MAX])];
    let error = files.join(&features(&["stats:visits"]), &batches).unwrap_err().to_string();
    assert!(error.starts_with("column 'event_timestamp' of the entity rows: row 4: "), "{error}");
}

#[test]
fn errors_name_the_column() {
    let files = Files::new();
    files.stats("a", &[(A, Some(0), None, Some(1))]);
    let message =
        |request: &TrainingRequest<'_>, rows: RecordBatch| files.join(request, &[rows]).unwrap_err().to_string();
    let request = features(&["stats:visits"]);
    let rows = |name: &str, time: ArrayRef| {
        RecordBatch::try_from_iter([("customer_id", Arc::new(StringArray::from(vec!["a"])) as ArrayRef), (name, time)])
            .unwrap()
    };
    assert_eq!(
        message(&request, rows("event_timestmp", times([Some(0)].into_iter()))),
        "the entity rows have no column 'event_timestamp' with their times. Their columns are 'customer_id', 'event_timestmp'"
    );
    assert_eq!(
        message(&request, rows("event_timestamp", Arc::new(StringArray::from(vec!["2026-11-30"])))),
        "column 'event_timestamp' of the entity rows: the column is String, not a timestamp or a date"
    );
    assert_eq!(
        message(&request, with_objects("event_timestamp")).split('(').next(),
        Some("column 'event_timestamp' has Python objects ")
    );
    assert_eq!(
        message(&request, with_objects("customer_id")).split('(').next(),
        Some("column 'customer_id' has Python objects ")
    );
    assert!(files.join(&request, &[with_objects("label")]).is_ok());
    let collision = RecordBatch::try_from_iter([
        ("customer_id", Arc::new(StringArray::from(vec!["a"])) as ArrayRef),
        ("event_timestamp", times([Some(0)].into_iter())),
        ("visits", Arc::new(Int64Array::from(vec![1]))),
    ]);
    assert!(
        matches!(files.join(&request, &[collision.unwrap()]), Err(TrainingError::Collision(name)) if name == "visits")
    );
    let keyless = RecordBatch::try_from_iter([("event_timestamp", times([Some(0)].into_iter()))]).unwrap();
    assert_eq!(message(&request, keyless), "the entity rows have no column 'customer_id'. hint: add the join key");
    let unknown = features(&["stats:visit"]);
    assert!(message(&unknown, customers(&[(A, Some(0))])).contains("did you mean 'visits'?"));
}

#[test]
fn missing_files_name_the_view() {
    let files = Files::new();
    let why = files.join(&features(&["stats:visits"]), &[customers(&[(A, Some(0))])]).unwrap_err().to_string();
    assert!(why.starts_with("feature view 'stats': ") && why.contains("the directory has no *.parquet file"), "{why}");
}

/// The files have row groups of four rows, one for each ten seconds.
#[test]
fn unneeded_row_groups_are_skipped() {
    let files = Files::new();
    let row = |at: i64| (A, Some(at * SECOND), None, Some(at));
    let rows: Vec<_> = [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32, 33].map(row).into();
    files.stats("a", &rows);
    let entities = [customers(&[(A, Some(22 * SECOND)), (Some("b"), Some(24 * SECOND))])];
    let request = features(&["stats:visits"]);
    let set = files.join(&request, &entities).unwrap();
    let report = &set.report.views[0];
    assert_eq!((column(&set, "visits"), report.feature_rows, report.row_groups_skipped), (vec![Some(22), None], 8, 2));
    // Expired rows are needed to mark them, but later rows are not.
    let set = files.join(&TrainingRequest { ttl: TtlPolicy::Mark, ..request }, &entities).unwrap();
    let report = &set.report.views[0];
    assert_eq!((column(&set, "visits"), report.feature_rows, report.row_groups_skipped), (vec![Some(22), None], 12, 1));
}

#[test]
fn statuses_are_marked() {
    let files = Files::new();
    files.stats("a", &[(A, Some(20 * SECOND), None, Some(1))]);
    let request = TrainingRequest { ttl: TtlPolicy::Mark, event_timestamps: true, ..features(&["stats:visits"]) };
    let rows = [customers(&[(A, Some(30 * SECOND)), (A, Some(31 * SECOND)), (A, Some(0)), (A, None)])];
    let set = files.join(&request, &rows).unwrap();
    assert_eq!(column(&set, "visits"), [Some(1), Some(1), None, None]);
    let statuses = set.batches[0].column_by_name("visits__status").unwrap().as_string::<i32>();
    let statuses: Vec<_> = statuses.iter().collect();
    assert_eq!(statuses, [Some("PRESENT"), Some("OUTSIDE_MAX_AGE"), Some("NOT_FOUND"), None]);
    let times = column(&set, "visits__event_timestamp");
    assert_eq!(times, [Some(20 * SECOND), Some(20 * SECOND), None, None]);
}

#[test]
fn strict_rejects_incomplete_rows() {
    let files = Files::new();
    files.stats("a", &[(A, Some(20 * SECOND), None, Some(1))]);
    let request = TrainingRequest { strict: true, ..features(&["stats:visits"]) };
    let message =
        |rows: &[(Option<&str>, Option<i64>)]| files.join(&request, &[customers(rows)]).unwrap_err().to_string();
    assert!(files.join(&request, &[customers(&[(A, Some(0))])]).is_ok());
    assert_eq!(message(&[(A, Some(0)), (A, None)]), "some entity rows have nulls in the time column 'event_timestamp'");
    assert_eq!(message(&[(None, Some(0))]), "some entity rows have no complete key for feature view 'stats'");
}

#[test]
fn duplicate_columns_are_rejected() {
    let files = Files::new();
    let rows = customers(&[(A, Some(0))]);
    let schema = rows.schema();
    let fields: Vec<_> = schema.fields().iter().chain([&schema.fields()[2]]).cloned().collect();
    let arrays = rows.columns().iter().chain([rows.column(2)]).cloned().collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
    let why = files.join(&features(&["stats:visits"]), &[rows]).unwrap_err().to_string();
    assert_eq!(why, "the entity rows have more than one column 'label'");
}

/// A view's memory does not depend on the number of its feature rows, and entity rows that do not fit are joined in parts.
#[test]
fn parts_give_the_same_set() {
    let files = Files::new();
    let rows: Vec<_> = (0..200).map(|at| (A, Some(at * SECOND), None, Some(at))).collect();
    files.stats("a", &rows);
    let entities: Vec<_> = (0..200).map(|at| (A, Some(at * SECOND))).collect();
    let entities: Vec<_> = entities.chunks(50).map(customers).collect();
    let request = features(&["stats:visits"]);
    let whole = files.join(&request, &entities).unwrap();
    assert_eq!(whole.report.parts, 1);
    let in_parts = files.join_within(&request, Limits { memory: 8 << 10, ..Limits::default() }, &entities).unwrap();
    assert!((2..100).contains(&in_parts.report.parts), "{}", in_parts.report.parts);
    assert_eq!(column(&in_parts, "visits"), column(&whole, "visits"));
    assert_eq!(in_parts.report.views[0].matched, 200);
}

#[test]
fn stopped_job_returns_an_error() {
    let files = Files::new();
    files.stats("a", &[(A, Some(20 * SECOND), None, Some(1))]);
    let progress = Progress::default();
    progress.stop();
    let stopped =
        files.join_with(&features(&["stats:visits"]), Limits::default(), &[customers(&[(A, Some(0))])], &progress);
    assert!(matches!(stopped, Err(TrainingError::Stopped)));
}

/// A file that is replaced during a join may have rows in other positions.
#[test]
fn replaced_file_fails_the_join() {
    let files = Files::new();
    files.stats("a", &[(A, Some(20 * SECOND), None, Some(1))]);
    let rows = [customers(&[(A, Some(30 * SECOND))])];
    let replaced = files.join_then(&features(&["stats:visits"]), &rows, || {
        files.stats("a", &[(A, Some(20 * SECOND), None, Some(2)), (A, Some(21 * SECOND), None, Some(3))]);
    });
    assert!(matches!(replaced, Err(TrainingError::Changed(view)) if view == "stats"));
}
