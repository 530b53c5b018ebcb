//! Limits the growth of the store file.
//!
//! A small source can expand to a large store: a Parquet file of 1 MB can decode to gigabytes of repeated text. Without
//! a limit, such a load could fill a disk that other processes share. [`LimitedFile`] is the storage backend of the
//! database. It rejects two kinds of writes: a write that would take more disk space than `file_bytes_max` allows, and
//! a write past the end of the file's data, and past 16 MiB, while the file system has less free space than
//! `free_bytes_min`. The database handles both like a full disk: the transaction fails, committed data keeps serving,
//! and transactions that fit into free pages still succeed.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    ops::Bound,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use redb::{BackendError, Builder, Database, DatabaseError, StorageBackend, backends::FileBackend};
use rustix::fs::{SeekFrom, fstatvfs, seek};

/// Limits on the disk space of the store file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceLimits {
    /// The minimum free space of the file system, in bytes (`store: free_bytes_min`). While less space is free, the
    /// file does not grow beyond 16 MiB, or beyond its current size if it is larger. `None`: 5 % of the file system, at
    /// most 1 GiB.
    pub free_bytes_min: Option<u64>,
    /// The maximum disk space of the file, in bytes (`store: file_bytes_max`). `None`: no limit.
    pub file_bytes_max: Option<u64>,
}

/// A file of the database, with limits on its growth.
#[derive(Debug)]
struct LimitedFile {
    inner: FileBackend,
    /// The same open file, for its metadata.
    file: File,
    limits: SpaceLimits,
    /// An upper bound of the disk space of the file, in bytes.
    bytes: AtomicU64,
    /// The highest offset that was written since the file was opened. When free space becomes low, this is raised to
    /// the end of the data in the whole file. The file's length cannot be used, because the database extends the file
    /// in advance.
    end: AtomicU64,
    /// The number of bytes written past `end` since the last check of the free space. This is an upper bound on the
    /// disk space that these writes took.
    unchecked: AtomicU64,
    /// Whether the last check found too little free space.
    is_space_low: AtomicBool,
    /// Whether the database is open. Writes of the database while it opens and repairs the file are not limited, so
    /// that stored data stays readable.
    is_open: Arc<AtomicBool>,
}

/// The space of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Space {
    free: u64,
    total: u64,
}

/// A file can always grow to this size, so that a server without stored rows can start even if free space is low.
const SMALL_BYTES: u64 = 16 << 20;
const FREE_DIVISOR: u64 = 20;
const FREE_DEFAULT_MAX: u64 = 1 << 30;
/// The unit of `st_blocks`. It is independent of the file system's block size.
const BLOCK_BYTES: u64 = 512;
/// The number of bytes that may be written past [`LimitedFile::end`] between two checks of the free space.
const CHECK_BYTES: u64 = 256 << 10;

// === impl SpaceLimits ===

impl SpaceLimits {
    /// Checks the free space of the file system.
    ///
    /// # Errors
    /// A message with the free space and the setting if there is too little.
    fn check_free(self, space: Space) -> Result<(), String> {
        let min = self.free_bytes_min.unwrap_or_else(|| (space.total / FREE_DIVISOR).min(FREE_DEFAULT_MAX));
        if space.free >= min {
            return Ok(());
        }
        let free = space.free;
        Err(format!(
            "its file system has {free} free bytes, but 'store: free_bytes_min' is {min}. hint: free disk space or \
             lower 'store: free_bytes_min'"
        ))
    }
}

/// Opens the database in a file, or creates one if the file is empty or missing.
pub(super) fn open_limited(builder: &Builder, path: &Path, limits: SpaceLimits) -> Result<Database, DatabaseError> {
    let file = LimitedFile::at(path, limits)?;
    let is_open = Arc::clone(&file.is_open);
    let db = builder.create_with_backend(file)?;
    is_open.store(true, Ordering::Relaxed);
    Ok(db)
}

// === impl LimitedFile ===

impl LimitedFile {
    /// Opens a file, or creates an empty one.
    fn at(path: &Path, limits: SpaceLimits) -> Result<Self, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let inner = FileBackend::new(file.try_clone()?)?;
        let opened = Self {
            inner,
            file,
            limits,
            bytes: AtomicU64::new(0),
            end: AtomicU64::new(0),
            unchecked: AtomicU64::new(0),
            is_space_low: AtomicBool::new(false),
            is_open: Arc::default(),
        };
        opened.bytes.store(opened.bytes_on_disk()?, Ordering::Relaxed);
        // Check the free space now, because the file is also reopened after each failed transaction: without this
        // check, it would grow a little with each retry.
        let _ = opened.check_free()?;
        Ok(opened)
    }

    fn bytes_on_disk(&self) -> io::Result<u64> {
        Ok(bytes_on_disk(&self.file.metadata()?))
    }

    /// Checks the limits before a write of `len` bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] if a limit is exceeded, and I/O errors of the checks.
    fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        if !self.is_open.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.check_file(offset, len)?;
        let end = offset.saturating_add(len);
        if end <= self.end.load(Ordering::Relaxed) {
            return Ok(());
        }
        let unchecked = self.unchecked.fetch_add(len, Ordering::Relaxed) + len;
        if end > SMALL_BYTES
            && (self.is_space_low.load(Ordering::Relaxed) || unchecked >= CHECK_BYTES)
            && let Err(why) = self.check_free()?
            && end > self.end.load(Ordering::Relaxed)
        {
            return Err(disk_full(why));
        }
        // There is no race, because only one thread writes.
        self.end.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    /// Checks that a write does not exceed the maximum disk space of the file.
    fn check_file(&self, offset: u64, len: u64) -> io::Result<()> {
        let Some(max) = self.limits.file_bytes_max else { return Ok(()) };
        // Assume that each write takes new space, and measure the file only when the assumed size exceeds the limit.
        let upper_bound = self.bytes.fetch_add(len, Ordering::Relaxed).saturating_add(len);
        if upper_bound <= max {
            return Ok(());
        }
        let bytes = self.bytes_on_disk()?;
        if bytes.saturating_add(len) > max && !self.is_allocated(offset, len) {
            return Err(disk_full(format!(
                "its file takes {bytes} bytes and needs {len} more, but 'store: file_bytes_max' is {max}. hint: raise \
                 'store: file_bytes_max' or store fewer rows"
            )));
        }
        self.bytes.store(bytes.saturating_add(len), Ordering::Relaxed);
        Ok(())
    }

    /// Returns whether all blocks of a range are allocated, so that a write to it needs no new space.
    fn is_allocated(&self, offset: u64, len: u64) -> bool {
        seek(&self.file, SeekFrom::Hole(offset)).is_ok_and(|hole| hole >= offset.saturating_add(len))
    }

    /// Checks the free space of the file system. When it becomes too low, raises [`LimitedFile::end`] to the end of
    /// the data in the whole file.
    fn check_free(&self) -> io::Result<Result<(), String>> {
        self.unchecked.store(0, Ordering::Relaxed);
        let stat = fstatvfs(&self.file)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let checked = self.limits.check_free(Space { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) });
        let was_low = self.is_space_low.swap(checked.is_err(), Ordering::Relaxed);
        if checked.is_err() && !was_low {
            self.end.fetch_max(end_of_data(&self.file), Ordering::Relaxed);
        }
        Ok(checked)
    }
}

/// Returns the disk space that a file takes, in bytes.
pub(super) fn bytes_on_disk(meta: &Metadata) -> u64 {
    meta.blocks().saturating_mul(BLOCK_BYTES)
}

fn disk_full(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, why)
}

/// Returns the end of the last data range of a sparse file.
fn end_of_data(file: &File) -> u64 {
    // Moving the file position is safe, because the database reads and writes at explicit offsets.
    let mut end = 0;
    while let Ok(data) = seek(file, SeekFrom::Data(end))
        && let Ok(hole) = seek(file, SeekFrom::Hole(data))
        && hole > end
    {
        end = hole;
    }
    end
}

impl StorageBackend for LimitedFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(offset, data.len() as u64)?;
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const OFF: SpaceLimits = SpaceLimits { free_bytes_min: Some(0), file_bytes_max: None };
    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    #[test]
    fn default_free_space_follows_disk_size() {
        let limits = SpaceLimits::default();
        let check = |free, total| limits.check_free(Space { free, total });
        assert!(check(GIB, 500 * GIB).is_ok() && check(GIB - 1, 500 * GIB).is_err());
        assert!(check(GIB / 2, 10 * GIB).is_ok() && check(GIB / 2 - 1, 10 * GIB).is_err());
        let error = check(7, 20 << 20).unwrap_err();
        assert_eq!(
            error,
            "its file system has 7 free bytes, but 'store: free_bytes_min' is 1048576. hint: free disk space or lower \
             'store: free_bytes_min'"
        );
        assert!(OFF.check_free(Space { free: 0, total: GIB }).is_ok());
    }

    fn open(path: &Path, limits: SpaceLimits) -> LimitedFile {
        let file = LimitedFile::at(path, limits).unwrap();
        file.is_open.store(true, Ordering::Relaxed);
        file
    }

    #[test]
    fn file_never_exceeds_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let limits = SpaceLimits { file_bytes_max: Some(MIB), ..OFF };
        // The file is reopened, as after a failed transaction.
        for _ in 0..3 {
            let file = open(&path, limits);
            file.set_len(64 * MIB).unwrap();
            // The pages are scattered over the file.
            for page in 0..256 {
                file.write(page * 5 * 4_096, &[1; 4_096]).unwrap();
            }
            let error = file.write(4_096, &[1; 4_096]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            assert!(
                error.to_string().contains("1048576 bytes and needs 4096 more, but 'store: file_bytes_max' is 1048576"),
                "{error}"
            );
            file.write(0, &[1; 4_096]).unwrap();
            assert_eq!(file.bytes_on_disk().unwrap(), MIB);
            file.close().unwrap();
        }
        let file = LimitedFile::at(&path, limits).unwrap();
        file.write(4_096, &[1; 4_096]).expect("opening is not limited");
    }

    #[test]
    fn low_disk_space_stops_growth_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let limits = SpaceLimits { free_bytes_min: Some(u64::MAX), file_bytes_max: None };
        let file = open(&path, OFF);
        file.set_len(64 * MIB).unwrap();
        file.write(20 * MIB, &[1; 4_096]).unwrap();
        file.close().unwrap();
        drop(file);
        for _ in 0..3 {
            let file = open(&path, limits);
            for offset in [0, 15 * MIB, 17 * MIB, 20 * MIB] {
                file.write(offset, &[1; 4_096]).expect("a write within the data succeeds");
            }
            let error = file.write(20 * MIB + 4_096, &[1; 1]).unwrap_err();
            assert!(error.to_string().contains("'store: free_bytes_min' is 18446744073709551615"), "{error}");
            file.close().unwrap();
        }
        assert_eq!(end_of_data(&File::open(&path).unwrap()), 20 * MIB + 4_096);
        // A file below 16 MiB can still grow.
        let file = open(&dir.path().join("small"), limits);
        file.set_len(64 * MIB).unwrap();
        file.write(16 * MIB - 4_096, &[1; 4_096]).unwrap();
        file.write(16 * MIB - 4_095, &[1; 4_096]).unwrap_err();
        fs::remove_file(&path).unwrap();
    }
}
