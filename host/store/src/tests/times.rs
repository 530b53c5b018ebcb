//! Tests which row wins if times differ by nanoseconds, if the source truncates times, or if rows are from the future.

use larder_model::{
    codec::{KeyVersion, RowBuilder, RowSchema},
    model::{Micros, ValueRef},
};

use super::model::{Home, NOW, change, declare, id, plain, walk};
use crate::{KeySignature, Load, LoadMode, OnlineStore, Postponed, RowBatch, RowTimes, Rule, ViewId};

const HOUR: Micros = 3_600_000_000;
const EXACT: RowTimes = RowTimes { tolerance: HOUR, coarse: false, is_static: false };
const COARSE: RowTimes = RowTimes { tolerance: HOUR, coarse: true, is_static: false };

/// A row to write: entity, event time, its additional nanoseconds, created time with its additional nanoseconds, value.
type Fine = (u8, Micros, u32, Option<(Micros, u32)>, i64);

fn row((_, event, event_nanos, created, value): Fine) -> Vec<u8> {
    let schema = RowSchema::of(&plain("any").features);
    let mut row = RowBuilder::new(&schema);
    row.begin(event, created.map(|(micros, _)| micros));
    row.set_nanos(event_nanos, created.map_or(0, |(_, nanos)| nanos));
    row.push(ValueRef::Int64(value)).unwrap();
    row.finish().unwrap().to_vec()
}

fn batch(times: RowTimes, rows: &[Fine]) -> RowBatch {
    let mut batch = RowBatch::new(Rule::Newest, times);
    rows.iter().for_each(|fine| batch.push(id(fine.0), &row(*fine)));
    batch
}

fn begin(store: &OnlineStore, view: ViewId, mode: LoadMode, times: RowTimes) -> Load<'_> {
    store.begin_load(view, mode).unwrap().with_times(times, true)
}

/// Begins a load, applies these batches, and finishes it.
fn load(store: &OnlineStore, view: ViewId, mode: LoadMode, times: RowTimes, batches: &[&[Fine]]) {
    let mut load = begin(store, view, mode, times);
    batches.iter().for_each(|rows| _ = load.apply(&batch(times, rows), Some("midway")).unwrap());
    load.finish(Some("end")).unwrap();
}

fn put(store: &OnlineStore, view: ViewId, times: RowTimes, rows: &[Fine]) {
    let key = KeySignature::of(&plain("any"), KeyVersion::V3);
    store.put(view, &key, &batch(times, rows), true).unwrap();
}

fn served(store: &OnlineStore, view: ViewId) -> Vec<Vec<u8>> {
    walk(store, view).into_values().collect()
}

#[test]
fn older_nanosecond_never_wins() {
    let older: Fine = (1, NOW, 100, None, 1);
    let newer: Fine = (1, NOW, 101, None, 2);
    let created: Fine = (1, NOW, 101, Some((5, 7)), 3);
    let created_later: Fine = (1, NOW, 101, Some((5, 8)), 4);
    for (loser, winner) in [(older, newer), (newer, created), (created, created_later), (older, created_later)] {
        let home = Home::new();
        let store = home.open();
        for (place, (first, second)) in [(loser, winner), (winner, loser)].into_iter().enumerate() {
            let [upserted, twice, replaced, runs, first_load, written] = declare(
                &store,
                ["a", "b", "c", "d", "e", "f"].map(|name| format!("{name}{place}").leak() as &'static str),
            );
            load(&store, upserted, LoadMode::Upsert, EXACT, &[&[first, second]]);
            load(&store, twice, LoadMode::Upsert, EXACT, &[&[first]]);
            load(&store, twice, LoadMode::Upsert, EXACT, &[&[second]]);
            load(&store, replaced, LoadMode::Replace, EXACT, &[&[first, second]]);
            load(&store, runs, LoadMode::Replace, EXACT, &[&[first], &[second]]);
            load(&store, first_load, LoadMode::First, EXACT, &[&[first], &[second]]);
            put(&store, written, EXACT, &[first]);
            put(&store, written, EXACT, &[second]);
            for view in [upserted, twice, replaced, runs, first_load, written] {
                assert_eq!(served(&store, view), [row(winner)], "{first:?}, then {second:?}, view {view:?}");
            }
            // A replacing load merges written rows into its own rows by the same rule.
            put(&store, runs, EXACT, &[second]);
            load(&store, runs, LoadMode::Replace, EXACT, &[&[first]]);
            assert_eq!(served(&store, runs), [row(winner)]);
        }
    }
}

#[test]
fn source_with_truncated_times_catches_up() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let second = 1_000_000;
    let written: Fine = (1, NOW, 987_654_000, Some((NOW, 5)), 1);
    let next_second: Fine = (2, NOW + second, 1, None, 2);
    put(&store, view, COARSE, &[written, next_second]);
    // Two rows that callers wrote are compared by their exact times.
    put(&store, view, COARSE, &[(1, NOW, 987_653_999, Some((NOW, 5)), 9)]);
    assert_eq!(served(&store, view), [row(written), row(next_second)]);

    let corrected: Fine = (1, NOW, 0, None, 3);
    let older: Fine = (2, NOW, 0, None, 4);
    load(&store, view, LoadMode::Replace, COARSE, &[&[corrected, older]]);
    assert_eq!(served(&store, view), [row(corrected), row(next_second)]);
    // The written row of entity 1 was dropped, so from then on, the source's row wins.
    load(&store, view, LoadMode::Replace, COARSE, &[&[(1, NOW - second, 0, None, 5), older]]);
    assert_eq!(served(&store, view), [row((1, NOW - second, 0, None, 5)), row(next_second)]);
    // A written row with a time in the same second ties with the source's row, and wins because it arrives later.
    let again: Fine = (1, NOW - second, 5, None, 6);
    put(&store, view, COARSE, &[again]);
    assert_eq!(served(&store, view)[0], row(again));
}

#[test]
fn any_arrival_replaces_stored_future_row() {
    let home = Home::new();
    let store = home.open();
    let views = declare(&store, ["upserted", "written", "overlaid"]);
    let future: Fine = (1, NOW + HOUR + 1, 0, None, 99);
    let past: Fine = (1, NOW - HOUR, 0, None, 1);
    for view in views {
        // Writes the row as a version did that did not check event times.
        put(&store, view, RowTimes::default(), &[future]);
        assert_eq!(served(&store, view), [row(future)]);
    }
    let [upserted, written, overlaid] = views;
    begin(&store, upserted, LoadMode::Upsert, EXACT).apply(&batch(EXACT, &[past]), None).unwrap();
    put(&store, written, EXACT, &[past]);
    load(&store, overlaid, LoadMode::Replace, EXACT, &[&[past]]);
    for view in views {
        assert_eq!(served(&store, view), [row(past)], "{view:?}");
    }
    // A row with an event time within the tolerance is compared like any other row.
    let soon: Fine = (2, NOW + HOUR, 0, None, 2);
    put(&store, written, EXACT, &[soon]);
    put(&store, written, EXACT, &[(2, NOW, 0, None, 3)]);
    assert_eq!(served(&store, written), [row(past), row(soon)]);
}

#[test]
fn full_load_postpones_stored_future_rows() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let at = NOW + 2 * HOUR;
    let (loaded, written): (Fine, Fine) = ((1, at, 0, None, 1), (2, at + 1, 0, None, 2));
    load(&store, view, LoadMode::Upsert, RowTimes::default(), &[&[loaded]]);
    put(&store, view, RowTimes::default(), &[written]);
    assert_eq!(served(&store, view).len(), 2);
    let reader = store.reader();
    assert!(reader.get(view, &id(2)).unwrap().is_some(), "it is in the hot cache now");
    drop(reader);

    let other: Fine = (3, NOW, 0, None, 3);
    load(&store, view, LoadMode::Upsert, EXACT, &[&[other]]);
    assert_eq!(served(&store, view), [row(other)]);
    assert!(store.reader().get(view, &id(2)).unwrap().is_none());
    assert_eq!(store.postponed(view), Some(Postponed { first: at, last: at + 1 }));
    let status = store.status(view).unwrap();
    assert_eq!((status.rows, status.freshness.newest_event), (1, Some(NOW)));

    // When the two rows are due, the source has one of them, and the other was kept as a written row.
    home.clock.set(at + 1 - HOUR);
    load(&store, view, LoadMode::Upsert, EXACT, &[&[loaded]]);
    assert_eq!(served(&store, view), [row(loaded), row(written), row(other)]);
    assert_eq!(store.postponed(view), None);
}

#[test]
fn wrong_clock_removes_nothing() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let stored: Fine = (1, NOW, 0, None, 1);
    load(&store, view, LoadMode::Upsert, EXACT, &[&[stored]]);
    // The process started before the machine's clock was set, so all rows are from the future.
    home.clock.set(0);
    let mut postponing = begin(&store, view, LoadMode::Upsert, EXACT);
    let mut rows = batch(EXACT, &[]);
    rows.postpone(NOW);
    postponing.apply(&rows, None).unwrap();
    postponing.finish(Some("end")).unwrap();
    assert_eq!(served(&store, view), [row(stored)]);
}

#[test]
fn postponed_times_survive_restart() {
    let home = Home::new();
    let store = home.open();
    let [upserted, replaced] = declare(&store, ["upserted", "replaced"]);
    let mut rows = batch(EXACT, &[(1, NOW, 0, None, 1)]);
    rows.postpone(NOW + 3 * HOUR);
    rows.postpone(NOW + 2 * HOUR);
    let both = Some(Postponed { first: NOW + 2 * HOUR, last: NOW + 3 * HOUR });
    // The load is interrupted after a commit. The rows that it skipped must not be lost.
    begin(&store, upserted, LoadMode::Upsert, EXACT).apply(&rows, Some("midway")).unwrap();
    let mut load = begin(&store, replaced, LoadMode::Replace, EXACT);
    load.apply(&rows, Some("midway")).unwrap();
    assert_eq!(store.postponed(replaced), None, "nothing of it is served yet");
    drop(load);
    drop(store);

    let store = home.open();
    declare(&store, ["upserted", "replaced"]);
    assert_eq!(store.postponed(upserted), both);
    let resumed = store.resume_load(replaced).unwrap().with_times(EXACT, false);
    resumed.finish(Some("end")).unwrap();
    assert_eq!(store.postponed(replaced), both);

    // A load of a part of the source extends the span. A load of the whole source replaces it.
    let mut part = store.begin_load(upserted, LoadMode::Upsert).unwrap().with_times(EXACT, false);
    let mut more = batch(EXACT, &[]);
    more.postpone(NOW + 9 * HOUR);
    part.apply(&more, None).unwrap();
    part.finish(None).unwrap();
    assert_eq!(store.postponed(upserted), Some(Postponed { first: NOW + 2 * HOUR, last: NOW + 9 * HOUR }));
    begin(&store, upserted, LoadMode::Upsert, EXACT).finish(Some("end")).unwrap();
    assert_eq!(store.postponed(upserted), None);
    super::model::load(&store, replaced, LoadMode::Replace, &[change(1, NOW, 1)]);
    assert_eq!(store.postponed(replaced), None);
}

#[test]
fn loaded_rows_exclude_written_ones() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    assert_eq!(store.loaded_rows(view), None);
    put(&store, view, EXACT, &[(1, NOW, 0, None, 1), (2, NOW, 0, None, 2)]);
    load(&store, view, LoadMode::Replace, EXACT, &[&[(1, NOW - 1, 0, None, 3)]]);
    assert_eq!((store.status(view).unwrap().rows, store.loaded_rows(view)), (2, Some(1)));
}
