//! Tests of damaged files, concurrent owners, newer formats, invalid directories and full disks.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use larder_common::clock::ManualClock;
use larder_model::model::{EntityId, Micros};
use redb::{Database, TableDefinition};

use super::model::{
    Change, Dice, Home, NOW, ReferenceStore, batch, change, child_args, child_dir, config, declare, id, key, load,
};
use super::model::{run_in, test_name, upsert, walk};
use crate::{
    Freshness, LoadMode, OnlineStore, RowBatch, SpaceLimits, StoreConfig, StoreError,
    record::{META, META_FORMAT, RowTable, VIEWS, append_with_checksum},
};

const ROWS: [Change; 3] = [
    Change { id: 1, event: 10, created: None, value: 1 },
    Change { id: 2, event: 20, created: None, value: 2 },
    Change { id: 3, event: 30, created: None, value: 3 },
];

/// Creates a closed store with [`ROWS`].
fn stored() -> Home {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Upsert, &ROWS);
    home
}

/// Modifies the file of a closed store directly.
fn tamper(file: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let db = Database::open(file).unwrap();
    let txn = db.begin_write().unwrap();
    change(&txn);
    txn.commit().unwrap();
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    let mut file = File::options().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

/// Damages a store. Checks that it is quarantined with the reason `why`, and that a new store replaces it and works.
/// Also checks that kept rows have their values, and that a view with missing rows has no position, so that its source
/// is read from the start. Returns the number of kept rows.
fn assert_quarantined(damage: impl FnOnce(&Path), why: &str) -> usize {
    let home = stored();
    damage(&home.file());
    let store = home.open();
    let aside = store.quarantined().expect("damage was not detected");
    assert_eq!(home.files(), ["online.redb".to_owned(), format!("online.redb.corrupt-{}", NOW / 1_000_000)]);
    assert_eq!(aside.path, home.path().join(&home.files()[1]));
    assert!(aside.why.contains(why), "the reason was: {}", aside.why);
    let rows_kept = aside.rows_kept;

    let [view] = declare(&store, ["stats"]);
    let status = store.status(view).unwrap();
    let kept = ROWS.iter().filter(|row| {
        let stored = store.reader().get(view, &id(row.id)).unwrap();
        stored.inspect(|stored| assert_eq!(stored[..], row.row())).is_some()
    });
    let kept = kept.count();
    assert_eq!((status.rows, rows_kept.unwrap_or_default()), (kept as u64, kept as u64));
    if rows_kept.is_none() {
        assert_eq!((status.position, status.freshness, status.is_damaged), (None, Freshness::default(), false));
    } else if kept < ROWS.len() {
        assert_eq!((status.position, status.is_damaged, status.rows_lost), (None, true, (ROWS.len() - kept) as u64));
    }
    load(&store, view, LoadMode::Upsert, &ROWS);
    drop(store);
    let store = home.open();
    assert!(store.quarantined().is_none());
    assert_eq!(walk(&store, view).len(), ROWS.len());
    kept
}

#[test]
fn store_is_private_to_its_user() {
    let home = Home::new();
    let dir = home.path().join("a/b");
    drop(OnlineStore::open(&StoreConfig::new(&dir), ManualClock::at(NOW)).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("online.redb"))), (0o700, 0o600));
}

#[test]
fn truncated_file_is_quarantined() {
    let len = fs::metadata(stored().file()).unwrap().len();
    for len in [1, 63, 320, 4_095, 4_096, len / 2, len - 4_096, len - 1] {
        assert_quarantined(|file| File::options().write(true).open(file).unwrap().set_len(len).unwrap(), "");
    }
}

#[test]
fn zeroed_header_is_quarantined() {
    assert_quarantined(|file| overwrite(file, 0, &[0; 4_096]), "magic number");
}

#[test]
fn zeros_after_magic_number_are_quarantined() {
    assert_quarantined(|file| overwrite(file, 9, &[0; 500]), "");
}

#[test]
fn random_bytes_are_quarantined() {
    for (seed, len) in [(1, 10), (2, 5_000), (3, 80_000)] {
        assert_quarantined(|file| fs::write(file, Dice(seed).bytes(len)).unwrap(), "magic number");
    }
}

#[test]
fn text_file_is_quarantined() {
    assert_quarantined(|file| fs::write(file, "store: online\n").unwrap(), "");
}

#[test]
fn older_database_version_is_quarantined() {
    // Changes the version bytes of both commit slots. The database then requires a manual upgrade.
    assert_quarantined(|file| (64..=192).step_by(128).for_each(|at| overwrite(file, at, &[1])), "upgrade");
}

#[test]
fn empty_file_becomes_new_store() {
    let home = Home::new();
    File::create(home.file()).unwrap();
    assert!(home.open().quarantined().is_none());
    assert_eq!(home.files(), ["online.redb"]);
}

#[test]
fn missing_views_table_is_quarantined() {
    let damage = |file: &Path| tamper(file, |txn| assert!(txn.delete_table(VIEWS).unwrap()));
    assert_quarantined(damage, "'views' does not exist");
}

#[test]
fn missing_format_is_quarantined() {
    assert_quarantined(|file| tamper(file, |txn| assert!(txn.delete_table(META).unwrap())), "no format record");
    let forget = |txn: &redb::WriteTransaction| {
        txn.open_table(META).unwrap().remove(META_FORMAT).unwrap();
    };
    assert_quarantined(|file| tamper(file, forget), "no format record");
}

#[test]
fn mistyped_table_is_quarantined() {
    let retype = |txn: &redb::WriteTransaction| {
        txn.delete_table(META).unwrap();
        txn.open_table(TableDefinition::<&str, u32>::new("meta")).unwrap();
    };
    assert_quarantined(|file| tamper(file, retype), "meta");
}

#[test]
fn file_with_missing_rows_is_quarantined() {
    let lose_one = |txn: &redb::WriteTransaction| {
        txn.open_table(RowTable::new("rows/0/0")).unwrap().remove(&id(2).0).unwrap().unwrap();
    };
    let kept = assert_quarantined(|file| tamper(file, lose_one), "view 'stats' has 2 rows, but its record has 3");
    assert_eq!(kept, 2, "the remaining rows are served");
    let lose_all = |txn: &redb::WriteTransaction| assert!(txn.delete_table(RowTable::new("rows/0/0")).unwrap());
    assert_quarantined(|file| tamper(file, lose_all), "view 'stats' has 0 rows, but its record has 3");
}

#[test]
fn unreadable_view_record_is_quarantined() {
    let scribble = |txn: &redb::WriteTransaction| {
        txn.open_table(VIEWS).unwrap().insert("stats", b"{\"id\":0}".as_slice()).unwrap();
    };
    // The schema and the key of the view's rows are unknown now.
    assert_quarantined(|file| tamper(file, scribble), "record of view 'stats'");
}

#[test]
fn flipped_header_bit_changes_no_row() {
    let home = stored();
    let mut reference = ReferenceStore::default();
    reference.apply(&ROWS);
    let image = fs::read(home.file()).unwrap();
    // The header takes 320 bytes. A stride of 13 bits hits every field and every bit position.
    let mut quarantined = 0;
    for bit in (0..320 * 8).step_by(13) {
        let home = Home::new();
        let mut image = image.clone();
        image[bit / 8] ^= 1 << (bit % 8);
        fs::write(home.file(), image).unwrap();
        let store = home.open();
        match store.quarantined() {
            Some(_) => quarantined += 1,
            None => assert_eq!(walk(&store, declare(&store, ["stats"])[0]), reference.rows(), "bit {bit}"),
        }
    }
    assert!((50..150).contains(&quarantined), "{quarantined} quarantined");
}

#[test]
fn source_replaces_unreadable_row() {
    let home = stored();
    tamper(&home.file(), |txn| {
        let mut checksummed = Vec::new();
        append_with_checksum(&id(2), b"no row", &mut checksummed);
        txn.open_table(RowTable::new("rows/0/0")).unwrap().insert(&id(2).0, checksummed.as_slice()).unwrap();
    });
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    assert_eq!(store.reader().get(view, &id(2)).unwrap().unwrap()[..], b"no row"[..]);
    let total = load(&store, view, LoadMode::Upsert, &ROWS);
    assert_eq!((total.changed(), total.unchanged, store.status(view).unwrap().rows), (1, 2, 3));
    assert_eq!(store.reader().get(view, &id(2)).unwrap().unwrap()[..], ROWS[1].row());
}

#[test]
fn newer_format_is_rejected_unchanged() {
    let home = stored();
    tamper(&home.file(), |txn| {
        txn.open_table(META).unwrap().insert(META_FORMAT, 3).unwrap();
    });
    for _ in 0..2 {
        let error = home.try_open().unwrap_err();
        assert!(matches!(error, StoreError::Newer { found: 3, known: 2, .. }), "{error}");
        assert!(error.to_string().contains("hint: use a newer version"), "{error}");
        assert_eq!(home.files(), ["online.redb"]);
    }
    tamper(&home.file(), |txn| {
        txn.open_table(META).unwrap().insert(META_FORMAT, 2).unwrap();
    });
    let store = home.open();
    assert_eq!(walk(&store, declare(&store, ["stats"])[0]).len(), 3, "the newer Larder still finds its rows");
}

#[test]
fn older_format_is_quarantined() {
    let age = |txn: &redb::WriteTransaction| {
        txn.open_table(META).unwrap().insert(META_FORMAT, 1).unwrap();
    };
    assert_quarantined(|file| tamper(file, age), "its format is 1");
}

#[test]
fn quarantines_in_one_second_are_kept() {
    let home = Home::new();
    for n in 0..3 {
        fs::write(home.file(), format!("damage {n}")).unwrap();
        home.open();
    }
    let aside = format!("online.redb.corrupt-{}", NOW / 1_000_000);
    assert_eq!(home.files(), ["online.redb".to_owned(), aside.clone(), aside.clone() + "-2", aside + "-3"]);
}

/// Changes a byte of a row's value in a closed store, which only the row's checksum can detect.
fn damage_value(file: &Path, row: &[u8]) {
    let mut image = fs::read(file).unwrap();
    let copies: Vec<usize> = (0..image.len() - row.len()).filter(|&at| image[at..].starts_with(row)).collect();
    assert!(!copies.is_empty(), "the row is not in the file");
    for at in copies {
        image[at + row.len() - 1] ^= 0x40;
    }
    fs::write(file, image).unwrap();
}

#[test]
fn damaged_value_is_never_served() {
    let home = stored();
    damage_value(&home.file(), &ROWS[1].row());
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    assert_eq!(store.failure(), None, "the damage was not read yet");
    let error = store.reader().get(view, &id(2)).unwrap_err();
    assert!(matches!(&error, StoreError::Damaged(what) if what.contains("view 'stats'")), "{error}");
    assert!(error.to_string().contains(&id(2).to_string()), "{error}");
    for change in [ROWS[0], ROWS[2]] {
        assert_eq!(store.reader().get(view, &id(change.id)).unwrap().unwrap()[..], change.row(), "others are served");
    }
    assert!(store.failure().unwrap().contains("does not match its checksum"));
    drop(store);
    home.clock.set(NOW + LONG);

    let store = home.open();
    let aside = store.quarantined().expect("a file with known damage is checked completely");
    assert_eq!(aside.rows_kept, Some(2));
    drop(store);
    assert!(!has_marker(&home), "the new file has no marker");
}

/// Covers a view that only callers write, and a view that also has a source. In both cases, the rows that callers wrote
/// are in no source.
#[test]
fn caller_rows_survive_damage_at_start() {
    let home = Home::new();
    let store = home.open();
    let [local, both] = declare(&store, ["local", "both"]);
    let written = [change(7, 70, 7), change(8, 80, 8)];
    store.put(local, &key(), &batch(&written), false).unwrap();
    load(&store, both, LoadMode::Upsert, &ROWS);
    store.put(both, &key(), &batch(&written), true).unwrap();
    let marker = fs::read(home.marker()).unwrap();
    drop(store);
    // According to the marker, the previous process ended soon after it opened the store, so the whole file is checked.
    fs::write(home.marker(), &marker).unwrap();
    damage_value(&home.file(), &ROWS[1].row());

    let store = home.open();
    assert_eq!(store.quarantined().unwrap().rows_kept, Some(6));
    let [local, both] = declare(&store, ["local", "both"]);
    let of = |view, n| store.reader().get(view, &id(n)).unwrap().map(|row| row.to_vec());
    for row in &written {
        assert_eq!((of(local, row.id), of(both, row.id)), (Some(row.row()), Some(row.row())));
    }
    assert_eq!((of(both, 2), of(both, 3)), (None, Some(ROWS[2].row())));
    let is_damaged = |view| store.status(view).unwrap().is_damaged;
    assert_eq!((is_damaged(local), is_damaged(both)), (false, true));
    load(&store, both, LoadMode::Replace, &ROWS);
    assert!(!is_damaged(both));
    assert_eq!(walk(&store, both).len(), 5, "the source's rows, and the rows of callers");
}

#[test]
fn file_that_crashes_starts_is_quarantined() {
    let home = stored();
    damage_value(&home.file(), &ROWS[1].row());
    fs::write(home.marker(), format!("{NOW}\n{}", "rebuilding\n".repeat(9))).unwrap();
    let image = fs::read(home.file()).unwrap();
    assert_eq!(home.open().quarantined().unwrap().rows_kept, Some(2), "the tenth attempt is made");
    fs::write(home.file(), image).unwrap();
    fs::write(home.marker(), format!("{NOW}\n{}", "rebuilding\n".repeat(10))).unwrap();
    assert_eq!(home.open().quarantined().unwrap().rows_kept, None);
}

#[test]
fn rebuild_without_disk_space_is_retried() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    upsert(&store, view).apply(&many(0, 60_000), Some("all")).unwrap();
    load(&store, view, LoadMode::Upsert, &ROWS);
    let marker = fs::read(home.marker()).unwrap();
    drop(store);
    // According to the marker, the previous process ended soon after it opened the store, so the whole file is checked.
    fs::write(home.marker(), &marker).unwrap();
    damage_value(&home.file(), &ROWS[1].row());
    let image = fs::read(home.file()).unwrap();

    let space = SpaceLimits { free_bytes_min: None, file_bytes_max: Some(1 << 20) };
    let config = crate::StoreConfig { space, ..home.config() };
    // This is more often than rebuilds that end the process would be tried.
    for _ in 0..12 {
        let error = OnlineStore::open(&config, ManualClock::at(NOW)).map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull(_)), "{error}");
        assert_eq!(fs::read(home.marker()).unwrap(), marker);
    }
    assert!(fs::read(home.file()).unwrap() == image, "the damaged file stays in place");
    let store = home.open();
    assert_eq!(store.quarantined().unwrap().rows_kept, Some(60_002));
}

/// If a process opens the store this many microseconds after the previous process opened it, it does not check the
/// whole file.
const LONG: Micros = 121_000_000;

fn has_marker(home: &Home) -> bool {
    home.marker().try_exists().unwrap()
}

#[test]
fn early_exit_triggers_full_check() {
    let home = stored();
    assert!(!has_marker(&home), "a closed store has no marker");
    let store = home.open();
    let marker = fs::read(home.marker()).unwrap();
    drop(store);
    damage_value(&home.file(), &ROWS[1].row());

    // The marker says that the previous process ended without closing the store, long after it had opened it.
    fs::write(home.marker(), &marker).unwrap();
    home.clock.set(NOW + LONG);
    assert!(home.open().quarantined().is_none());
    // The previous process ended soon after it had opened the store, so the next one might fail at the same page.
    fs::write(home.marker(), &marker).unwrap();
    home.clock.set(NOW + LONG - 2_000_000);
    assert!(home.open().quarantined().is_some());
}

#[test]
fn marker_exists_while_store_is_open() {
    let home = stored();
    let store = home.open();
    assert!(has_marker(&home));
    drop(home.try_open().unwrap_err());
    assert!(has_marker(&home), "a failed open leaves the owner's marker");
    drop(store);
    assert!(!has_marker(&home));
}

#[test]
fn source_replaces_damaged_value() {
    let home = stored();
    damage_value(&home.file(), &ROWS[1].row());
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let total = load(&store, view, LoadMode::Upsert, &ROWS);
    assert_eq!((total.updated, total.unchanged), (1, 2));
    assert_eq!(store.reader().get(view, &id(2)).unwrap().unwrap()[..], ROWS[1].row());
}

#[test]
fn check_on_open_finds_unread_damage() {
    let home = stored();
    damage_value(&home.file(), &ROWS[1].row());
    let open = |check_on_open| {
        let config = crate::StoreConfig { check_on_open, ..home.config() };
        OnlineStore::open(&config, Arc::clone(&home.clock) as _).unwrap()
    };
    assert!(open(false).quarantined().is_none());
    assert!(open(true).quarantined().is_some());
    assert!(open(true).quarantined().is_none(), "an undamaged file passes");
}

/// Flips one bit in each of many copies of a file that has pages of every kind.
#[test]
fn flipped_bit_never_changes_served_value() {
    let home = Home::with_hot(0);
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    upsert(&store, view).apply(&many(0, 1_000), Some("all")).unwrap();
    let rows = walk(&store, view);
    drop(store);
    let image = fs::read(home.file()).unwrap();
    let mut dice = Dice(0xb17);
    let (mut quarantined, mut errors, mut hidden, mut unharmed) = (0, 0, 0, 0);
    for _ in 0..300 {
        let bit = usize::try_from(dice.below(image.len() as u64 * 8)).unwrap();
        let damaged = Home::with_hot(0);
        let mut image = image.clone();
        image[bit / 8] ^= 1 << (bit % 8);
        fs::write(damaged.file(), image).unwrap();
        let store = damaged.open();
        if store.quarantined().is_some() {
            quarantined += 1;
            continue;
        }
        let [view] = declare(&store, ["stats"]);
        let reader = store.reader();
        let (mut harmed, mut missing) = (false, false);
        for (id, row) in rows.iter().step_by(7) {
            match reader.get(view, id) {
                Ok(Some(found)) => assert_eq!(found[..], row[..], "bit {bit} changed a row"),
                Ok(None) => missing = true,
                Err(_) => harmed = true,
            }
        }
        errors += u32::from(harmed);
        hidden += u32::from(missing);
        unharmed += u32::from(!harmed && !missing);
        drop(reader);
        // Closing the store writes to the file, and the database may end the process at a damaged page. This test only
        // checks reads.
        std::mem::forget(store);
    }
    println!(
        "{quarantined} quarantined, {errors} with errors, {hidden} with rows that are not found, {unharmed} unharmed"
    );
    assert!(errors > 0 && unharmed > 0);
}

#[test]
fn store_of_this_process_is_locked() {
    let home = Home::new();
    let store = home.open();
    let error = home.try_open().unwrap_err();
    assert!(matches!(&error, StoreError::InUse { path } if *path == home.file()), "{error}");
    drop(store);
    home.open();
}

#[test]
fn child_fails_to_open_locked_store() {
    let Some(dir) = child_dir() else { return };
    println!("child: {}", OnlineStore::open(&config(&dir, 0), ManualClock::at(NOW)).unwrap_err());
}

#[test]
fn store_of_another_process_is_locked() {
    let home = stored();
    let store = home.open();
    let test = test_name!(child_fails_to_open_locked_store);
    let said = run_in(home.path(), child_args(&test)).output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains(&format!("child: store {} is in use by another Larder", home.file().display())), "{said}");
    let [view] = declare(&store, ["stats"]);
    assert_eq!((walk(&store, view).len(), home.files().len()), (3, 1), "the owner is not disturbed");
}

#[test]
fn invalid_data_dir_is_reported() {
    let home = Home::new();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    for dir in [file.clone(), file.join("below")] {
        let error = OnlineStore::open(&config(&dir, 0), Arc::clone(&home.clock) as _).unwrap_err();
        assert!(matches!(&error, StoreError::Io { action: "create", path, .. } if *path == dir), "{error}");
        assert!(error.to_string().starts_with(&format!("cannot create {}: ", dir.display())), "{error}");
    }
    fs::create_dir(home.file()).unwrap();
    let error = home.try_open().unwrap_err();
    assert!(matches!(&error, StoreError::Io { action: "open", path, .. } if *path == home.file()), "{error}");
}

/// Creates rows of `n` entities that differ in their first bytes.
fn many(first: u32, n: u32) -> RowBatch {
    let row = change(0, 1, 1).row();
    let mut batch = RowBatch::default();
    for i in first..first + n {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&i.wrapping_mul(0x9e37_79b9).to_le_bytes());
        batch.push(EntityId(id), &row);
    }
    batch
}

/// Fills the remaining disk space.
fn fill(ballast: &Path) {
    let mut file = File::create(ballast).unwrap();
    while file.write_all(&[1; 4_096]).is_ok() {}
}

/// Runs in a child process, in a file system of 3 MiB.
#[test]
fn child_fills_its_disk() {
    let Some(dir) = child_dir() else { return };
    // No hot cache and almost no page cache, so that reads reach the file.
    let config = |dir: &Path| crate::StoreConfig { page_cache_bytes_max: 1 << 16, ..config(dir, 0) };
    let open = |dir: &Path| OnlineStore::open(&config(dir), ManualClock::at(NOW));
    let (data, ballast) = (dir.join("data"), dir.join("ballast"));

    fill(&ballast);
    assert!(matches!(open(&data), Err(StoreError::DiskFull(_))), "no space for a new store");
    fs::remove_file(&ballast).unwrap();

    let store = open(&data).unwrap();
    assert!(store.quarantined().is_none(), "an unfinished store was left: {:?}", store.quarantined());
    let [view] = declare(&store, ["stats"]);
    let mut before = upsert(&store, view);
    before.apply(&many(0, 2_000), Some("before")).unwrap();
    before.apply(&batch(&ROWS), Some("before")).unwrap();
    let rows = walk(&store, view);
    fill(&ballast);
    let error = before.apply(&many(1_000_000, 10_000), Some("full")).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull(_)), "{error}");
    let assert_as_before = |store: &OnlineStore| {
        let status = store.status(view).unwrap();
        assert_eq!((status.rows, status.position.as_deref()), (2_003, Some("before")));
        assert!(walk(store, view) == rows, "rows have changed");
        for change in ROWS {
            assert_eq!(store.reader().get(view, &id(change.id)).unwrap().unwrap()[..], change.row());
        }
    };
    // The disk is still full. Committed rows are served anyway, also from the file.
    for _ in 0..2 {
        assert_as_before(&store);
        assert_eq!(store.failure(), None);
        assert!(matches!(before.apply(&many(1_000_000, 10_000), Some("full")), Err(StoreError::DiskFull(_))));
    }
    drop(before);
    drop(store);

    let store = open(&data).unwrap();
    assert!(store.quarantined().is_none(), "{:?}", store.quarantined());
    assert_as_before(&store);
    let mut after = upsert(&store, view);
    assert!(matches!(after.apply(&many(1_000_000, 10_000), Some("full")), Err(StoreError::DiskFull(_))));

    // The same load can write again as soon as there is space.
    fs::remove_file(&ballast).unwrap();
    let applied = after.apply(&many(1_000_000, 5_000), Some("space again")).unwrap();
    assert_eq!((applied.inserted, store.status(view).unwrap().rows), (5_000, 7_003));

    // The same holds for a load that builds a generation, if the disk becomes full while it writes a run and while it
    // merges.
    let mut built = store.begin_load(view, LoadMode::Replace).unwrap();
    let mut runs = 0;
    let error = loop {
        match built.apply(&many(runs * 100, 300), None) {
            Ok(_) => runs += 1,
            Err(error) => break error,
        }
        if runs == 3 {
            fill(&ballast);
        }
    };
    assert!(matches!(error, StoreError::DiskFull(_)), "after {runs} runs: {error}");
    let error = built.merge_runs(&mut || true).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull(_)), "{error}");
    assert_eq!((store.status(view).unwrap().rows, walk(&store, view).len()), (7_003, 7_003));
    fs::remove_file(&ballast).unwrap();
    let rows = u64::from(runs - 1) * 100 + 300;
    assert_eq!(built.merge_runs(&mut || true).unwrap(), Some(rows));
    built.finish(Some("built")).unwrap();
    assert_eq!((store.status(view).unwrap().rows, walk(&store, view).len() as u64), (rows, rows));
    println!("child: done");
}

#[test]
fn full_disk_loses_nothing() {
    let may_mount = Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status();
    if !may_mount.is_ok_and(|status| status.success()) {
        println!("skipped: this user may not mount a file system to fill (unshare -m)");
        return;
    }
    let home = Home::new();
    let mount = "mount -t tmpfs -o size=3m larder \"$0\" && exec \"$@\"";
    let mut args: Vec<OsString> = ["unshare", "-m", "sh", "-c", mount].map(Into::into).into();
    args.push(home.path().into());
    args.extend(child_args(&test_name!(child_fills_its_disk)));
    let mut child = run_in(home.path(), args).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success() && said.contains("child: done"), "{said}");
}

#[test]
fn interrupted_creation_is_not_damage() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = crate::StoreConfig::new(dir.path());
    std::fs::write(dir.path().join("online.new-0123456789abcdef"), b"half a file").unwrap();
    for _ in 0..2 {
        let store = OnlineStore::open(&config, larder_common::clock::ManualClock::at(0)).unwrap();
        assert!(store.quarantined().is_none());
    }
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["online.redb"], "the leftover file was removed");
}
