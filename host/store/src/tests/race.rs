//! Tests of readers that race with commits: after a commit that changed a row, no older copy of the row is served.

use std::{
    thread,
    time::{Duration, Instant},
};

use larder_common::clock::ManualClock;
use larder_model::{
    codec::RowHeader,
    model::{EntityId, Micros},
};
use redb::{Database, ReadableDatabase, ReadableTableMetadata};

use super::model::{Home, batch, change, declare, id, load, upsert};
use crate::{
    LoadMode, Lookup, OnlineStore, Reader, Row, RowBatch, SpaceLimits, StoreConfig, StoreError, ViewId,
    record::{RowTable, append_with_checksum},
};

/// Returns the event time of a row, which these tests use as its version; -1 if there is no row.
fn version(reader: &Reader<'_>, view: ViewId, byte: u8) -> Micros {
    reader.get(view, &id(byte)).unwrap().map_or(-1, |row| RowHeader::read(&row).unwrap().event_time)
}

#[test]
fn late_reader_never_restores_replaced_row() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Upsert, &[change(1, 1, 0)]);

    let late = store.reader();
    load(&store, view, LoadMode::Upsert, &[change(1, 2, 0), change(2, 2, 0)]);
    assert_eq!(version(&late, view, 1), 1, "a late reader sees its own state");
    assert_eq!(version(&late, view, 2), -1);
    assert_eq!(version(&store.reader(), view, 1), 2, "the late reader's copy is not served");
    assert_eq!(version(&store.reader(), view, 2), 2, "the late reader's cached missing row is not served");
    assert_eq!(version(&late, view, 1), 1, "a late reader still sees its own state");
    assert_eq!(version(&late, view, 2), -1);
    assert_eq!(version(&store.reader(), view, 1), 2);
}

#[test]
fn commit_waits_for_earlier_publication() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let on_disk = |writer: &Option<Database>| {
        let table = writer.as_ref().unwrap().begin_read().unwrap().open_table(RowTable::new("rows/0/0"));
        table.map_or(0, |table| table.len().unwrap())
    };
    thread::scope(|scope| {
        // Holding the lock simulates another commit that is being published.
        let before = store.writer.lock().unwrap();
        let writer = scope.spawn(|| load(&store, view, LoadMode::Upsert, &[change(1, 1, 1)]));
        let until = Instant::now() + Duration::from_millis(100);
        while Instant::now() < until {
            assert_eq!(on_disk(&before), 0, "committed while old copies of its rows are still valid");
            thread::yield_now();
        }
        drop(before);
        writer.join().unwrap();
        assert_eq!(on_disk(&store.writer.lock().unwrap()), 1);
    });
}

#[test]
fn reopening_is_invisible_to_readers() {
    let home = Home::with_hot(0);
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Upsert, &[change(1, 1, 1)]);
    let reopened = 50;
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let read = || {
            let mut reads = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(version(&store.reader(), view, 1), 1);
                assert_eq!(store.status(view).unwrap().rows, 1);
                reads += 1;
            }
            reads
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        for _ in 0..reopened {
            store.note_failure(&StoreError::Database(Box::new(redb::Error::PreviousIo)));
            store.check_and_reopen();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let reads = readers.map(|reader| reader.join().unwrap());
        assert!(reads.iter().all(|reads| *reads > 0), "{reads:?}");
    });
    assert_eq!(store.failure(), None);
    let applied = load(&store, view, LoadMode::Upsert, &[change(1, 2, 2)]);
    assert_eq!((applied.updated, version(&store.reader(), view, 1)), (1, 2));
}

#[test]
fn copy_from_before_reopening_is_invalid() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Upsert, &[change(1, 1, 1)]);
    assert_eq!(version(&store.reader(), view, 1), 1, "now it is cached");
    // This commit simulates one that reached the disk, but whose last step failed, so the cached copy was not
    // invalidated.
    {
        let writer = store.writer.lock().unwrap();
        let txn = writer.as_ref().unwrap().begin_write().unwrap();
        let mut checksummed = Vec::new();
        append_with_checksum(&id(1), &change(1, 2, 2).row(), &mut checksummed);
        txn.open_table(RowTable::new("rows/0/0")).unwrap().insert(&id(1).0, checksummed.as_slice()).unwrap();
        txn.commit().unwrap();
    }
    assert_eq!(version(&store.reader(), view, 1), 1);
    store.note_failure(&StoreError::Database(Box::new(redb::Error::PreviousIo)));
    store.check_and_reopen();
    assert_eq!(version(&store.reader(), view, 1), 2);
}

#[test]
fn was_reopened_reports_reopened_store() {
    let home = Home::new();
    let space = SpaceLimits { free_bytes_min: None, file_bytes_max: Some(1 << 20) };
    let store = OnlineStore::open(&StoreConfig { space, ..home.config() }, ManualClock::at(0)).unwrap();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Upsert, &[change(1, 1, 1)]);
    let closed = || StoreError::Database(Box::new(redb::Error::PreviousIo));
    let seen = store.visible_commit();
    assert!(!store.was_reopened(&closed(), seen), "no write has failed");
    let mut large = RowBatch::default();
    for n in 0..40_000_u32 {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&n.to_le_bytes());
        large.push(EntityId(key), &change(0, 1, 1).row());
    }
    let error = upsert(&store, view).apply(&large, None).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull(_)), "{error}");
    assert!(store.was_reopened(&closed(), seen));
    assert!(!store.was_reopened(&StoreError::Damaged(String::new()), seen), "reopening does not help");
    assert_eq!(version(&store.reader(), view, 1), 1);
}

#[test]
fn unopenable_file_fails_reads() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Upsert, &[change(1, 1, 1)]);
    let bytes = std::fs::read(home.file()).unwrap();
    std::fs::write(home.file(), "").unwrap();
    store.note_failure(&StoreError::Database(Box::new(redb::Error::PreviousIo)));
    store.check_and_reopen();
    assert!(store.failure().is_some());
    let error = store.reader().get(view, &id(1)).unwrap_err();
    assert!(matches!(error, StoreError::Closed(_)), "a closed store is not an empty one: {error}");
    assert!(store.schemas(view).is_err() && store.status(view).is_none());
    assert!(store.begin_load(view, LoadMode::Upsert).is_err());

    std::fs::write(home.file(), bytes).unwrap();
    store.check_and_reopen();
    assert_eq!(version(&store.reader(), view, 1), 1);
    // The check also detected the truncation, so the file is rebuilt.
    store.repair().unwrap().unwrap();
    assert_eq!((store.failure(), version(&store.reader(), view, 1)), (None, 1));
    assert!(store.damaged_views().is_empty());
}

#[test]
fn moved_file_is_not_reopened() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Upsert, &[change(1, 1, 1)]);
    let aside = home.path().join("aside");
    std::fs::rename(home.file(), &aside).unwrap();
    std::fs::create_dir(home.file()).unwrap();
    store.note_failure(&StoreError::Database(Box::new(redb::Error::PreviousIo)));
    store.check_and_reopen();
    assert!(store.failure().unwrap().contains("was replaced"), "{:?}", store.failure());
    assert_eq!(version(&store.reader(), view, 1), 1, "the open file is served");

    std::fs::remove_dir(home.file()).unwrap();
    std::fs::rename(&aside, home.file()).unwrap();
    store.check_and_reopen();
    assert_eq!((store.failure(), version(&store.reader(), view, 1)), (None, 1));
}

/// The number of rows that each commit changes. Readers check only a few of them, the watched ones.
const CHANGED: u8 = 200;
const WATCHED: [u8; 3] = [0, 99, 199];

/// Reads the watched rows until `until`. Checks that versions never go backwards, that a reader that saw a position
/// finds the rows of this position, and that all rows of one reader are from one commit. Returns the number of reads.
fn watch(store: &OnlineStore, views: &[ViewId], until: Instant) -> u64 {
    let mut seen = vec![[-1; WATCHED.len()]; views.len()];
    let mut reads = 0;
    while Instant::now() < until || reads == 0 {
        for (&view, seen) in views.iter().zip(&mut seen) {
            for (byte, seen) in WATCHED.into_iter().zip(seen) {
                let position = store.status(view).unwrap().position.map_or(-1, |n| n.parse().unwrap());
                let now = version(&store.reader(), view, byte);
                assert!(now >= *seen, "{view:?} entity {byte}: version {now} after {seen}");
                assert!(now >= position, "{view:?} entity {byte}: version {now} at position {position}");
                *seen = now;
                reads += 1;
            }
            let mut together = Vec::new();
            let note = |_, _, row: Option<Row>| {
                together.push(row.map(|row| RowHeader::read(&row).unwrap().event_time));
                Ok::<_, StoreError>(())
            };
            store.reader().get_each(&[Lookup { view, values: 1 }], &WATCHED.map(id), note).unwrap();
            assert!(together.windows(2).all(|two| two[0] == two[1]), "{view:?}: versions {together:?} at once");
        }
    }
    reads
}

/// Runs one writer per view that commits increasing versions for a second, while readers watch all views.
fn race(store: &OnlineStore, views: &[ViewId]) {
    let until = Instant::now() + Duration::from_secs(1);
    let write = |view| {
        let mut load = upsert(store, view);
        let mut n = 0;
        while Instant::now() < until || n < 3 {
            n += 1;
            let changes: Vec<_> = (0..CHANGED).map(|byte| change(byte, n, n)).collect();
            load.apply(&batch(&changes), Some(&n.to_string())).unwrap();
        }
        n
    };
    thread::scope(|scope| {
        let watchers: Vec<_> = (0..3).map(|_| scope.spawn(|| watch(store, views, until))).collect();
        let writers: Vec<_> = views.iter().map(|&view| scope.spawn(move || write(view))).collect();
        let commits: Vec<i64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        let reads: Vec<u64> = watchers.into_iter().map(|watcher| watcher.join().unwrap()).collect();
        println!("{commits:?} commits, {reads:?} reads");
    });
}

#[test]
fn versions_never_decrease_with_one_writer() {
    let home = Home::new();
    let store = home.open();
    let views = declare(&store, ["stats"]);
    race(&store, &views);
}

#[test]
fn versions_never_decrease_with_two_loads() {
    // The cache is too small for all watched rows, so that entries are evicted all the time.
    let home = Home::with_hot(500);
    let store = home.open();
    let views = declare(&store, ["one", "two"]);
    race(&store, &views);
}
