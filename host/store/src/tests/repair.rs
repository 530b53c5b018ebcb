//! Tests of damage that is found while the store is open, and repaired without a restart.

use std::{fs, sync::Arc, time::Duration};

use larder_model::{codec::KeyVersion, model::EntityId};

use super::model::{Dice, Home, batch, change, declare, id, load, plain, upsert, walk};
use crate::{
    KeySignature, LoadMode, OnlineStore, RowBatch, Scanned, StoreError, ViewId, record::RowTable, state::State,
};

/// Creates rows of `n` entities, which differ in their first bytes.
fn many(n: u32) -> RowBatch {
    let row = change(0, 1, 1).row();
    let mut batch = RowBatch::default();
    for i in 0..n {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&i.wrapping_mul(0x9e37_79b9).to_le_bytes());
        batch.push(EntityId(id), &row);
    }
    batch
}

fn scan(store: &OnlineStore) -> Result<Option<Scanned>, StoreError> {
    store.scan(&mut |_| true)
}

/// Repairs the damage that a scan finds, and reloads the views that lost rows, as a server does. Returns whether there
/// was damage.
fn repair_and_reload(store: &OnlineStore, source: &RowBatch) -> bool {
    let mut was_damaged = false;
    for _ in 0..3 {
        if scan(store).is_ok() && store.failure().is_none() {
            return was_damaged;
        }
        was_damaged = true;
        assert!(store.failure().is_some(), "damage is a failure");
        store.repair().unwrap().expect("damage is repaired");
        assert_eq!(store.failure(), None);
        for name in store.damaged_views() {
            let [view] = declare(store, [&*name]);
            assert_eq!(store.status(view).unwrap().position, None, "its source is read from the start");
            let mut load = upsert(store, view);
            load.apply(source, Some("all")).unwrap();
            load.finish(Some("all")).unwrap();
            let status = store.status(view).unwrap();
            assert_eq!((status.is_damaged, status.rows_lost), (false, 0));
        }
    }
    panic!("new damage is found after each repair");
}

fn found(store: &OnlineStore, view: ViewId, id: &EntityId) -> Result<Option<Vec<u8>>, StoreError> {
    store.reader().get(view, id).map(|row| row.map(|row| row.to_vec()))
}

/// Changes a byte of every copy of a row in a closed store.
fn damage_value(home: &Home, row: &[u8]) {
    let mut image = fs::read(home.file()).unwrap();
    let copies: Vec<usize> = (0..image.len() - row.len()).filter(|&at| image[at..].starts_with(row)).collect();
    assert!(!copies.is_empty(), "the row is not in the file");
    copies.into_iter().for_each(|at| image[at + row.len() - 1] ^= 0x40);
    fs::write(home.file(), image).unwrap();
}

/// Flips one bit in each of many copies of a file that has pages of every kind. Checks that, once a scan finds no
/// damage, every row is found as it was written.
#[test]
fn flipped_bit_anywhere_is_repaired() {
    let home = Home::with_hot(0);
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let source = many(600);
    upsert(&store, view).apply(&source, Some("all")).unwrap();
    let rows = walk(&store, view);
    drop(store);
    let image = fs::read(home.file()).unwrap();
    // Only chunks that were written are damaged.
    let used: Vec<usize> =
        image.chunks(64).enumerate().filter(|(_, c)| c.iter().any(|b| *b != 0)).map(|(n, _)| n).collect();
    let mut dice = Dice(0x5eed);
    let (mut quarantined, mut repaired_count, mut hidden, mut unharmed) = (0, 0, 0, 0);
    for _ in 0..50 {
        let chunk = used[usize::try_from(dice.below(used.len() as u64)).unwrap()];
        let bit = (chunk * 64 * 8) + usize::try_from(dice.below(64 * 8)).unwrap();
        let damaged = Home::with_hot(0);
        let mut image = image.clone();
        image[bit / 8] ^= 1 << (bit % 8);
        fs::write(damaged.file(), image).unwrap();
        let store = damaged.open();
        if store.quarantined().is_some() {
            quarantined += 1;
            continue;
        }
        let state = store.reader();
        let is_hidden = rows.keys().any(|id| matches!(state.get(ViewId::from_number(0), id), Ok(None)));
        drop(state);
        let was_damaged = repair_and_reload(&store, &source);
        for (id, row) in &rows {
            let found = found(&store, ViewId::from_number(0), id).unwrap_or_else(|error| panic!("bit {bit}: {error}"));
            assert_eq!(found.as_ref(), Some(row), "bit {bit}");
        }
        repaired_count += u32::from(was_damaged);
        hidden += u32::from(is_hidden);
        unharmed += u32::from(!was_damaged);
        if !was_damaged {
            // Closing the store writes to the file, and the database may end the process at a damaged page of its
            // internal lists.
            std::mem::forget(store);
        }
    }
    println!("{quarantined} quarantined, {repaired_count} repaired, {hidden} hid rows before, {unharmed} unharmed");
    assert!(repaired_count > 5 && hidden > 0, "{repaired_count} repaired, {hidden} hid rows");
}

#[test]
fn damaged_row_is_repaired_without_restart() {
    let rows = [change(1, 10, 1), change(2, 20, 2), change(3, 30, 3)];
    let home = Home::new();
    let store = home.open();
    let [view, other] = declare(&store, ["stats", "other"]);
    load(&store, view, LoadMode::Upsert, &rows);
    load(&store, other, LoadMode::Upsert, &rows[..1]);
    drop(store);
    damage_value(&home, &rows[1].row());

    let store = home.open();
    found(&store, view, &id(2)).unwrap_err();
    assert!(store.failure().is_some());
    let repaired = store.repair().unwrap().unwrap();
    assert_eq!((repaired.rows, &*repaired.lost), (3, &[("stats".to_owned(), 1)][..]));
    assert!(repaired.quarantine_path.try_exists().unwrap(), "the damaged file is kept");
    assert_eq!(store.failure(), None);
    assert_eq!(store.damaged_views(), ["stats"]);
    assert_eq!(store.status(other).unwrap().position.as_deref(), Some("end"), "another view is untouched");
    assert_eq!(store.status(view).unwrap().rows_lost, 1);

    // The record of the damage survives a restart, and a full load clears it.
    drop(store);
    let store = home.open();
    assert!(store.quarantined().is_none());
    assert_eq!(store.damaged_views(), ["stats"]);
    load(&store, view, LoadMode::Upsert, &rows);
    assert!(store.damaged_views().is_empty());
    assert_eq!(found(&store, view, &id(2)).unwrap().unwrap(), rows[1].row());
    assert_eq!(scan(&store).unwrap().unwrap().rows, 4);
}

#[test]
fn write_repairs_damage_first() {
    let rows = [change(1, 10, 1), change(2, 20, 2)];
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Upsert, &rows);
    drop(store);
    damage_value(&home, &rows[0].row());
    let store = home.open();
    scan(&store).unwrap_err();
    let key = KeySignature::of(&plain("stats"), KeyVersion::V3);
    assert_eq!(store.put(view, &key, &batch(&rows[1..]), true).unwrap().unchanged, 1);
    assert_eq!((store.failure(), store.damaged_views()), (None, vec!["stats".to_owned()]));
    load(&store, view, LoadMode::Upsert, &rows);
    assert!(store.damaged_views().is_empty());
    assert_eq!(walk(&store, view).len(), 2);
}

#[test]
fn load_from_before_repair_is_rejected() {
    let rows = [change(1, 10, 1), change(2, 20, 2)];
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Upsert, &rows);
    drop(store);
    damage_value(&home, &rows[0].row());
    let store = home.open();
    let mut began = upsert(&store, view);
    scan(&store).unwrap_err();
    store.repair().unwrap().unwrap();
    let error = began.apply(&batch(&[change(3, 1, 1)]), Some("beyond")).unwrap_err();
    assert!(matches!(error, StoreError::Superseded { .. }), "{error}");
    assert_eq!(store.status(view).unwrap().position, None);
}

#[test]
fn caller_rows_survive_repair() {
    let home = Home::new();
    let store = home.open();
    let [view, local] = declare(&store, ["stats", "local"]);
    let key = KeySignature::of(&plain("stats"), KeyVersion::V3);
    load(&store, view, LoadMode::Upsert, &[change(1, 10, 1)]);
    store.put(view, &key, &batch(&[change(2, 20, 2)]), true).unwrap();
    store.put(local, &key, &batch(&[change(3, 30, 3), change(4, 40, 4)]), false).unwrap();
    drop(store);
    damage_value(&home, &change(4, 40, 4).row());

    let store = home.open();
    scan(&store).unwrap_err();
    store.repair().unwrap().unwrap();
    assert_eq!(store.damaged_views(), ["local"]);
    store.accept_loss(local).unwrap();
    assert!(store.damaged_views().is_empty());
    assert_eq!(store.status(local).unwrap().rows_lost, 1, "the loss stays visible");
    assert_eq!(found(&store, local, &id(3)).unwrap().unwrap(), change(3, 30, 3).row());
    // The row that a caller wrote is still merged into the next generation.
    load(&store, view, LoadMode::Replace, &[change(1, 10, 1)]);
    assert_eq!(found(&store, view, &id(2)).unwrap().unwrap(), change(2, 20, 2).row());
}

#[test]
fn truncated_file_is_detected_and_rebuilt() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    upsert(&store, view).apply(&many(600), Some("all")).unwrap();
    let len = fs::metadata(home.file()).unwrap().len();
    store.check_and_reopen();
    assert_eq!(store.failure(), None);
    fs::File::options().write(true).open(home.file()).unwrap().set_len(len / 2).unwrap();
    store.check_and_reopen();
    assert!(store.failure().unwrap().contains("was truncated"), "{:?}", store.failure());
    store.repair().unwrap().unwrap();
    assert_eq!(store.failure(), None);
    let mut load = upsert(&store, view);
    load.apply(&many(600), Some("all")).unwrap();
    load.finish(Some("all")).unwrap();
    assert_eq!((walk(&store, view).len(), store.damaged_views().len()), (600, 0));
    assert_eq!(scan(&store).unwrap().unwrap().rows, 600);
}

#[test]
fn scan_pauses_and_stops_on_request() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    upsert(&store, view).apply(&many(5_000), Some("all")).unwrap();
    let mut pauses = 0;
    let scanned = store.scan(&mut |worked: Duration| {
        pauses += 1;
        worked < Duration::from_secs(60)
    });
    assert_eq!((scanned.unwrap().unwrap().rows, pauses), (5_000, 3));
    assert_eq!(store.scan(&mut |_| false).unwrap(), None);
    assert_eq!(store.failure(), None);
}

#[test]
fn missing_file_rejects_writes() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Upsert, &[change(1, 10, 1)]);
    let aside = home.path().join("aside");
    let key = KeySignature::of(&plain("stats"), KeyVersion::V3);
    let put = |n: u8| store.put(view, &key, &batch(&[change(n, 1, 1)]), true);
    for replacement in [None, Some(fs::read(home.file()).unwrap())] {
        fs::rename(home.file(), &aside).unwrap();
        replacement.iter().for_each(|bytes| fs::write(home.file(), bytes).unwrap());
        let error = put(2).unwrap_err();
        assert!(matches!(error, StoreError::Gone { .. }), "{error}");
        assert!(store.failure().unwrap().contains("hint:"), "{:?}", store.failure());
        assert_eq!(found(&store, view, &id(1)).unwrap().unwrap(), change(1, 10, 1).row(), "lookups continue");
        // A repair never replaces another file at the path.
        assert!(store.repair().is_ok_and(|repaired| repaired.is_none()));
        fs::rename(&aside, home.file()).unwrap();
        store.check_and_reopen();
        assert_eq!(store.failure(), None, "it was moved back");
    }
    assert_eq!(put(2).unwrap().inserted, 1);
}

/// After a failed write, the damaged file may be closed, and the checks at opening may fail.
#[test]
fn closed_file_is_repaired() {
    let rows = [change(1, 10, 1), change(2, 20, 2), change(3, 30, 3)];
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Upsert, &rows);
    drop(store);
    damage_value(&home, &rows[1].row());
    let store = home.open();
    found(&store, view, &id(2)).unwrap_err();
    let state = store.state.load_full();
    let closed = State::closed(state.commit, &StoreError::Damaged("test".to_owned()), state.records());
    let table = state.records()[0].1.table_name(0);
    drop(state);
    store.state.store(Arc::new(closed));
    *store.writer.lock().unwrap() = None;
    // The view's record has another number of rows now, so the file does not pass the checks.
    let db = redb::Database::open(home.file()).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(RowTable::new(&table)).unwrap().remove(&id(3).0).unwrap();
    txn.commit().unwrap();
    drop(db);
    let repaired = store.repair().unwrap().unwrap();
    assert_eq!((repaired.rows, &*repaired.lost), (1, &[("stats".to_owned(), 2)][..]));
    assert_eq!(found(&store, view, &id(1)).unwrap().unwrap(), rows[0].row());
}
