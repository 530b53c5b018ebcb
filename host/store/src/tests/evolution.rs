//! Tests of definitions that change while rows are stored.

use std::{collections::BTreeSet, sync::Arc};

use larder_model::{
    codec::{KeyVersion, RowHeader, RowSchema, RowView},
    model::{FeatureView, ScalarType, ValueRef},
};

use super::model::{Home, batch, change, declare, id, key, load, plain, tables, upsert, view, walk};
use crate::{
    LoadMode, OnlineStore, StoreError, ViewId,
    record::{SchemaRecord, VIEWS},
};

fn declare_one(store: &OnlineStore, view: &Arc<FeatureView>) -> ViewId {
    store.declare(&[Arc::clone(view)], KeyVersion::V3).unwrap()[0]
}

/// Returns the schema of a stored row, which it finds in the same way as readers do.
fn schema_of(store: &OnlineStore, view: ViewId, row: &[u8]) -> Arc<RowSchema> {
    let fingerprint = RowHeader::read(row).unwrap().fingerprint;
    let schemas = store.schemas(view).unwrap();
    Arc::clone(schemas.iter().find(|schema| schema.fingerprint() == fingerprint).unwrap())
}

#[test]
fn old_rows_stay_readable_after_changes() {
    let changed = [
        ("added", view("stats", &["value:Int64", "more:String"])),
        ("removed", view("stats", &["more:String"])),
        ("retyped", view("stats", &["value:Float64"])),
    ];
    for (what, changed) in changed {
        let home = Home::new();
        let store = home.open();
        let [one] = declare(&store, ["stats"]);
        load(&store, one, LoadMode::Upsert, &[change(1, 1, 41)]);

        assert_eq!(declare_one(&store, &changed), one, "{what}");
        let status = store.status(one).unwrap();
        assert_eq!((status.rows, status.position), (1, None), "{what}: the source is read from the start");
        assert!(status.freshness.last_success.is_some(), "{what}: it still counts as loaded");
        drop(store);

        let store = home.open();
        assert_eq!(declare_one(&store, &changed), one, "{what}");
        let row = store.reader().get(one, &id(1)).unwrap().unwrap();
        let schema = schema_of(&store, one, &row);
        let value = RowView::new(&schema, &row).unwrap().get(0).unwrap();
        assert!(matches!(value, ValueRef::Int64(41)), "{what}: {value:?}");
        let current = store.schemas(one).unwrap().last().map(|schema| schema.fingerprint());
        assert_eq!(current, Some(RowSchema::of(&changed.features).fingerprint()), "{what}: the current one is last");
    }
}

#[test]
fn earlier_definition_becomes_current_again() {
    let home = Home::new();
    let store = home.open();
    let [one] = declare(&store, ["stats"]);
    declare_one(&store, &view("stats", &["value:Float64"]));
    declare_one(&store, &plain("stats"));
    let fingerprints: Vec<_> = store.schemas(one).unwrap().iter().map(|schema| schema.fingerprint()).collect();
    assert_eq!(fingerprints.len(), 2);
    assert_eq!(fingerprints[1], RowSchema::of(&plain("stats").features).fingerprint());
}

#[test]
fn replacing_load_drops_unused_schemas() {
    let home = Home::new();
    let store = home.open();
    let one = declare_one(&store, &view("stats", &["old:String"]));
    declare_one(&store, &plain("stats"));
    assert_eq!(store.schemas(one).unwrap().len(), 2);
    load(&store, one, LoadMode::Replace, &[change(1, 1, 1)]);
    assert_eq!(store.schemas(one).unwrap().len(), 1);
    let row = store.reader().get(one, &id(1)).unwrap().unwrap();
    schema_of(&store, one, &row);
}

#[test]
fn schema_without_rows_is_dropped() {
    let home = Home::new();
    let store = home.open();
    let one = declare_one(&store, &view("stats", &["value:String"]));
    declare_one(&store, &plain("stats"));
    let count = || store.schemas(one).unwrap().len();
    load(&store, one, LoadMode::Upsert, &[change(1, 1, 1), change(2, 1, 2)]);
    store.put(one, &key(), &batch(&[change(3, 1, 3)]), true).unwrap();
    assert_eq!(count(), 2, "an upsert does not read all rows");
    store.drop_schemas_without_rows(one, &mut || false).unwrap();
    assert_eq!(count(), 2, "interrupted");
    store.drop_schemas_without_rows(one, &mut || true).unwrap();
    assert_eq!(count(), 1);

    // A stored row that no load replaced keeps its schema.
    declare_one(&store, &view("stats", &["value:Float64"]));
    store.drop_schemas_without_rows(one, &mut || true).unwrap();
    assert_eq!(count(), 2);
    let row = store.reader().get(one, &id(3)).unwrap().unwrap();
    schema_of(&store, one, &row);
}

#[test]
fn key_change_drops_rows_and_tables() {
    let retyped = {
        let mut view = FeatureView::clone(&plain("stats"));
        view.join_keys[0].value_type = ScalarType::String;
        Arc::new(view)
    };
    for (view, version) in [(retyped, KeyVersion::V3), (plain("stats"), KeyVersion::V2)] {
        let home = Home::new();
        let store = home.open();
        let [one, other] = declare(&store, ["stats", "other"]);
        load(&store, one, LoadMode::Upsert, &[change(1, 1, 1)]);
        load(&store, other, LoadMode::Upsert, &[change(1, 1, 1)]);
        let mut interrupted = store.begin_load(one, LoadMode::Replace).unwrap();
        interrupted.apply(&batch(&[change(2, 1, 1)]), Some("midway")).unwrap();
        drop(interrupted);
        assert!(store.reader().get(one, &id(1)).unwrap().is_some(), "in the hot cache now");

        assert_eq!(store.declare(&[view], version).unwrap(), [one], "the id stays");
        assert_eq!(store.reader().get(one, &id(1)).unwrap(), None);
        assert_eq!(walk(&store, one).len() + walk(&store, other).len(), 1, "the other view keeps its row");
        let status = store.status(one).unwrap();
        assert_eq!((status.rows, status.position, status.freshness), (0, None, Default::default()));
        load(&store, one, LoadMode::Upsert, &[change(3, 1, 1)]);
        drop(store);
        assert_eq!(tables(&home).len(), 4, "meta, views, and one per view: {:?}", tables(&home));
        assert_eq!(walk(&home.open(), one).len(), 1);
    }
}

#[test]
fn repeated_declaration_changes_nothing() {
    let home = Home::new();
    let store = home.open();
    let [one] = declare(&store, ["stats"]);
    load(&store, one, LoadMode::Upsert, &[change(1, 1, 1)]);
    let (status, rows) = (store.status(one), walk(&store, one));
    assert_eq!(declare(&store, ["stats"]), [one]);
    assert_eq!((store.status(one), walk(&store, one)), (status, rows));
    assert_eq!(store.schemas(one).unwrap().len(), 1);
}

#[test]
fn ids_are_stable_and_never_reused() {
    let home = Home::new();
    let store = home.open();
    let [b, a] = declare(&store, ["b", "a"]);
    drop(store);
    let store = home.open();
    let [a_again, c] = declare(&store, ["a", "c"]);
    assert_eq!(a, a_again);
    drop(store);
    // The ids of `a` and `c` stay reserved, although these views are not declared now.
    let [d, b_again] = declare(&home.open(), ["d", "b"]);
    assert_eq!(b, b_again);
    assert_eq!(BTreeSet::from([a, b, c, d]).len(), 4);
}

#[test]
fn load_with_old_definition_is_rejected() {
    let home = Home::new();
    let store = home.open();
    let [one] = declare(&store, ["stats"]);
    for mode in [LoadMode::Upsert, LoadMode::Replace] {
        for (changed, version) in [(plain("stats"), KeyVersion::V2), (view("stats", &["value:String"]), KeyVersion::V3)]
        {
            declare(&store, ["stats"]);
            let mut load = store.begin_load(one, mode).unwrap();
            load.apply(&batch(&[change(1, 1, 1)]), Some("under the old definition")).unwrap();
            store.declare(&[changed], version).unwrap();
            let before = store.status(one);
            let error = load.apply(&batch(&[change(2, 1, 1)]), Some("too late")).unwrap_err();
            assert!(matches!(&error, StoreError::Superseded { view } if view == "stats"), "{error}");
            let error = load.finish(Some("too late")).unwrap_err();
            assert!(matches!(error, StoreError::Superseded { .. }), "{error}");
            assert_eq!(store.status(one), before, "the position stays cleared");
        }
    }
    drop(store);
    assert!(home.open().quarantined().is_none());
}

#[test]
fn load_uses_the_committed_record() {
    let home = Home::new();
    let store = home.open();
    let [one] = declare(&store, ["stats"]);
    let mut load = upsert(&store, one);
    load.apply(&batch(&[change(1, 1, 1)]), Some("here")).unwrap();

    // Writes a declaration that is committed but not visible to readers yet.
    let (_, mut record) = store.record(one).unwrap();
    record.schemas.push(SchemaRecord::of(&RowSchema::of(&view("stats", &["value:String"]).features)));
    let writer = store.writer.lock().unwrap();
    let txn = writer.as_ref().unwrap().begin_write().unwrap();
    txn.open_table(VIEWS).unwrap().insert("stats", record.encode().as_slice()).unwrap();
    txn.commit().unwrap();
    drop(writer);

    assert!(matches!(load.apply(&batch(&[change(2, 1, 1)]), None), Err(StoreError::Superseded { .. })));
    drop(load);
    let replacing = store.begin_load(one, LoadMode::Replace).unwrap();
    assert_eq!(store.schemas(one).unwrap().len(), 2, "the declaration is not lost");
    replacing.finish(None).unwrap();
}
