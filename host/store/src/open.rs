//! Opens the store file: creates it, checks it, and quarantines a damaged one.

use std::{
    fs::{self, File, OpenOptions},
    hash::{BuildHasher, RandomState},
    io, mem,
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use larder_common::clock::SharedClock;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTableMetadata, TableError};

use super::{
    StoreConfig, StoreError,
    metrics::StoreMetrics,
    open_marker::{OpenMarker, REBUILDS_MAX},
    record::{META, META_FORMAT, STORE_FORMAT, VIEWS},
    salvage::{self, Copies, copy_intact, read_or_none},
    space::open_limited,
    state::State,
};

/// A damaged file that was quarantined when the store was opened.
#[derive(Clone, Debug)]
pub struct Quarantine {
    /// The new path of the file.
    pub path: PathBuf,
    /// A description of the damage.
    pub why: String,
    /// The number of rows that were copied to the new store; `None` if the damaged file could not be read, or if too
    /// many attempts to read it failed, so the new store is empty.
    pub rows_kept: Option<u64>,
}

/// The prefix of the extension of a store file that is being created.
const UNFINISHED: &str = "new-";
/// The size of the page cache for a damaged file. It is small because each row is read once, in order.
const OLD_CACHE_BYTES: usize = 16 << 20;

/// Opens the file, or creates an empty store if there is none. A damaged file is quarantined and replaced by a new
/// store with its intact rows, or by an empty store if none can be read.
pub(super) fn open_or_replace(
    path: &Path,
    config: &StoreConfig,
    clock: &SharedClock,
) -> Result<(Database, Option<Quarantine>, OpenMarker), StoreError> {
    let marker = OpenMarker::new(path, clock);
    let requires_full_check = marker.requires_full_check();
    if marker.exists() && fs::metadata(path).map_or(true, |meta| meta.len() == 0) {
        tracing::error!(
            path = %path.display(),
            "the store file is missing or empty, although a store was open when the last process ended: all views are \
             loaded again, and rows that only callers wrote are lost"
        );
    }
    let check_on_open = config.check_on_open || requires_full_check;
    let (db, aside) = match open_checked(path, &StoreConfig { check_on_open, ..config.clone() }) {
        Ok(db) => {
            if requires_full_check {
                tracing::info!(path = %path.display(), "the store was not closed cleanly; all pages were checked");
            }
            (db, None)
        }
        Err(StoreError::Damaged(why)) => {
            let kept = if marker.allows_rebuild() { copy_at_open(path, config, &marker)? } else { None };
            let aside = match kept {
                Some((unfinished, copies)) => {
                    let aside = replace(path, &unfinished, clock, why)?;
                    for (view, rows) in &copies.lost {
                        StoreMetrics::rows_lost(view, *rows);
                        tracing::error!(view, rows, "rows of the view were lost to damage");
                    }
                    tracing::warn!(rows = copies.rows, "the damaged store was rebuilt from its intact rows");
                    Quarantine { rows_kept: Some(copies.rows), ..aside }
                }
                None => {
                    let aside = quarantine(path, clock, why)?;
                    let reason = if marker.allows_rebuild() {
                        "none of its rows can be read".to_owned()
                    } else {
                        format!("{REBUILDS_MAX} starts failed while they read it")
                    };
                    tracing::error!(
                        file = %aside.path.display(), reason,
                        "no rows of the damaged store were kept: all views are loaded again, and rows that only \
                         callers wrote are missing. hint: keep the file to recover them"
                    );
                    aside
                }
            };
            (open_checked(path, config)?, Some(aside))
        }
        Err(other) => return Err(other),
    };
    marker.create();
    Ok((db, aside, marker))
}

/// The new file, and a summary of the rows that were copied to it.
type Rebuilt = (PathBuf, Copies);

/// Copies the intact rows of a damaged file to a new file next to it; returns `None` if the damaged file cannot be
/// read. If the process is killed during the copy, the damaged file stays in place.
fn copy_at_open(path: &Path, config: &StoreConfig, marker: &OpenMarker) -> Result<Option<Rebuilt>, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(OLD_CACHE_BYTES);
    // A file that was closed cleanly can be opened read-only. For any other file, the database must first find the last
    // commit, and this writes to the file.
    if let Some(old) = read_or_none(|| builder.open_read_only(path).map_err(|error| open_error(path, error))) {
        let copied = copy_from(&old, path, config, marker);
        let _ = catch_unwind(AssertUnwindSafe(|| drop(old)));
        return copied;
    }
    let old = read_or_none(|| open_damaged(path));
    let Some(old) = old else { return Ok(None) };
    let copied = copy_from(&old, path, config, marker);
    if matches!(&copied, Ok(Some((_, copies))) if !copies.is_broken) {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(old)));
    } else {
        // Closing the database writes to the file again. If the database panics at a damaged page while it writes, the
        // process may end.
        mem::forget(old);
    }
    copied
}

fn copy_from<D: ReadableDatabase>(
    old: &D,
    path: &Path,
    config: &StoreConfig,
    marker: &OpenMarker,
) -> Result<Option<Rebuilt>, StoreError> {
    let before = marker.note_rebuild();
    let copied = copy_records(old, path, config);
    if copied.is_err() {
        // The rebuild failed without ending the process, for example because the disk is full. So it does not count
        // toward the limit on rebuilds, and the next start may try again.
        marker.write(&before);
    }
    copied
}

fn copy_records<D: ReadableDatabase>(
    old: &D,
    path: &Path,
    config: &StoreConfig,
) -> Result<Option<Rebuilt>, StoreError> {
    let Some(records) = salvage::records(old) else { return Ok(None) };
    tracing::warn!(path = %path.display(), "rebuilding the damaged store from its intact rows");
    let (unfinished, new) = create_unfinished(path, config)?;
    let copied = copy_intact(Some(old), records, &new);
    drop(new);
    let copies = copied.inspect_err(|_| _ = fs::remove_file(&unfinished))?;
    Ok(Some((unfinished, copies)))
}

/// Opens the file, or creates it if it is missing or empty. Checks that its format is supported, and that each view has
/// as many rows as its record states.
pub(super) fn open_checked(path: &Path, config: &StoreConfig) -> Result<Database, StoreError> {
    let new = match fs::metadata(path) {
        Ok(meta) => meta.len() == 0,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(source) => return Err(StoreError::Io { action: "open", path: path.to_owned(), source }),
    };
    let mut builder = Database::builder();
    builder.set_cache_size(config.page_cache_bytes_max);
    builder.set_check_integrity_on_open(config.check_on_open);
    // A file of arbitrary bytes must not end the process, even if the database panics.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        if new {
            return create(&builder, path, config);
        }
        let db = open_file(&builder, path, config)?;
        check(&db, path)?;
        remove_unfinished(path);
        Ok(db)
    }));
    opened.unwrap_or_else(|panic| Err(StoreError::from_panic(&*panic)))
}

/// Opens a damaged file to copy its rows, without checks.
///
/// # Errors
/// [`StoreError::Damaged`] if it cannot be opened because of the damage, and other errors if a retry may succeed.
pub(super) fn open_damaged(path: &Path) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(OLD_CACHE_BYTES);
    let opened = catch_unwind(AssertUnwindSafe(|| builder.open(path).map_err(|error| open_error(path, error))));
    opened.unwrap_or_else(|panic| Err(StoreError::from_panic(&*panic)))
}

/// Creates a new store under a temporary name, and links it to its final name when it is complete. If the process is
/// killed before that, the next process does not find an incomplete file, which it would treat as a damaged store.
fn create(builder: &Builder, path: &Path, config: &StoreConfig) -> Result<Database, StoreError> {
    match fs::metadata(path) {
        // An empty file, for example one that `touch` created, has no data to keep, but the name must be free.
        Ok(meta) if meta.len() == 0 => fs::remove_file(path).map_err(io("replace", path))?,
        _ => {}
    }
    let (unfinished, db) = unfinished_in(builder, path, config)?;
    let made = db.and_then(|db| {
        // A hard link fails if the name exists, whereas a rename would replace the existing file. So if two processes
        // start at the same time, only one of them creates the store.
        fs::hard_link(&unfinished, path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => StoreError::InUse { path: path.to_owned() },
            _ => io("create", path)(source),
        })?;
        Ok(db)
    });
    // If the removal fails, the next start removes the file.
    let _ = fs::remove_file(&unfinished);
    made
}

/// Creates a new store next to `path`, under a name that no other process uses, for a caller that fills it and moves it
/// to `path`.
pub(super) fn create_unfinished(path: &Path, config: &StoreConfig) -> Result<(PathBuf, Database), StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(config.page_cache_bytes_max);
    let (unfinished, db) = unfinished_in(&builder, path, config)?;
    let db = db.inspect_err(|_| _ = fs::remove_file(&unfinished))?;
    Ok((unfinished, db))
}

/// Creates an empty store next to `path`. If `Ok` is returned, the file exists, even if the store in it could not be
/// created.
fn unfinished_in(
    builder: &Builder,
    path: &Path,
    config: &StoreConfig,
) -> Result<(PathBuf, Result<Database, StoreError>), StoreError> {
    // A process ID would not be unique: a process in another container may have the same one.
    let unfinished = path.with_extension(format!("{UNFINISHED}{:016x}", RandomState::new().hash_one(0)));
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished);
    made.map_err(io("create", &unfinished))?;
    let db = open_file(builder, &unfinished, config);
    let db = db.and_then(|db| initialize(&db).map(|()| db));
    Ok((unfinished, db))
}

/// Opens a database, or creates one in an empty file.
fn open_file(builder: &Builder, path: &Path, config: &StoreConfig) -> Result<Database, StoreError> {
    open_limited(builder, path, config.space).map_err(|error| open_error(path, error))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

/// Removes files that interrupted creations left. This may remove the file of another process that is creating a store
/// now, but that process fails anyway, because the store exists.
fn remove_unfinished(path: &Path) {
    let Some(entries) = path.parent().and_then(|dir| fs::read_dir(dir).ok()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let extension = Path::new(&name).extension().map(|extension| extension.to_string_lossy().into_owned());
        if extension.is_some_and(|extension| extension.starts_with(UNFINISHED)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::InUse { path: path.to_owned() }
        }
        other => match redb::Error::from(other).into() {
            StoreError::Database(error) => match *error {
                redb::Error::Io(source) => StoreError::Io { action: "open", path: path.to_owned(), source },
                other => StoreError::Database(Box::new(other)),
            },
            known => known,
        },
    }
}

fn initialize(db: &Database) -> Result<(), StoreError> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    txn.open_table(META)?.insert(META_FORMAT, u64::from(STORE_FORMAT))?;
    txn.open_table(VIEWS)?;
    txn.commit()?;
    Ok(())
}

fn check(db: &Database, path: &Path) -> Result<(), StoreError> {
    let txn = db.begin_read()?;
    let missing = |what: &str| StoreError::Damaged(format!("it has no {what}"));
    let format = match txn.open_table(META) {
        Ok(meta) => meta.get(META_FORMAT)?.map(|format| format.value()),
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(other) => return Err(other.into()),
    };
    let found = u32::try_from(format.ok_or_else(|| missing("format record"))?).unwrap_or(u32::MAX);
    if found > STORE_FORMAT {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: STORE_FORMAT });
    }
    if found < STORE_FORMAT {
        // Older formats are not converted: sources are read again. Rows that only callers wrote stay in the quarantined
        // file.
        return Err(StoreError::Damaged(format!(
            "its format is {found}, and this version of Larder only reads format {STORE_FORMAT}"
        )));
    }
    // Reading the state opens the table of each view's rows. Counting the rows of a table reads only the root of its
    // tree.
    for view in State::read(db, 0)?.views()? {
        let rows = view.rows.as_ref().map_or(Ok(0), ReadableTableMetadata::len)?;
        if rows != view.record.rows {
            let message = format!("view '{}' has {rows} rows, but its record has {}", view.name, view.record.rows);
            return Err(StoreError::Damaged(message));
        }
    }
    Ok(())
}

/// Renames a damaged file to `<path>.corrupt-<seconds since 1970>`, with a number if that name exists.
fn quarantine(path: &Path, clock: &SharedClock, why: String) -> Result<Quarantine, StoreError> {
    let name = format!("{}.corrupt-{}", path.display(), clock.now() / 1_000_000);
    let mut aside = PathBuf::from(&name);
    let mut n = 1;
    while aside.try_exists().unwrap_or(false) {
        n += 1;
        aside = PathBuf::from(format!("{name}-{n}"));
    }
    fs::rename(path, &aside).map_err(|source| StoreError::Io { action: "rename", path: path.to_owned(), source })?;
    tracing::error!(path = %path.display(), moved_to = %aside.display(), why, "the store is damaged; the file was quarantined");
    Ok(Quarantine { path: aside, why, rows_kept: None })
}

/// Moves a damaged file to its quarantine path, and the rebuilt file to the store's path.
pub(super) fn replace(
    path: &Path,
    unfinished: &Path,
    clock: &SharedClock,
    why: String,
) -> Result<Quarantine, StoreError> {
    let aside = quarantine(path, clock, why)?;
    if let Err(error) = fs::rename(unfinished, path) {
        // Move the damaged file back: without it, the next start would create an empty store.
        let _ = fs::rename(&aside.path, path);
        return Err(io("rename", unfinished)(error));
    }
    if let Some(dir) = path.parent() {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync", dir))?;
    }
    Ok(aside)
}
