//! Provides the bytes of a file to the Parquet reader: from a file on disk, or from parts of an object.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    io::{self, BufReader, Read},
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use parquet::{
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};

use crate::SourceError;

/// Bytes of a file, at any offset.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// A file on disk, and its length.
    File(Arc<File>, u64),
    /// Parts of an object with their offsets, sorted by offset, and the object's length.
    Parts(Arc<Vec<(u64, Bytes)>>, u64),
    /// An object whose parts are fetched on demand.
    Windows(Arc<Windows>),
}

/// Columns of an object, with a part of each column in memory.
pub(crate) struct Windows {
    /// The byte ranges of the columns.
    chunks: Vec<Range<u64>>,
    /// The size of a part in bytes.
    window: u64,
    /// The length of the object in bytes.
    length: u64,
    fetch: Box<Fetch>,
    state: Mutex<WindowState>,
}

type Fetch = dyn Fn(Range<u64>) -> Result<Bytes, SourceError> + Send + Sync;

#[derive(Default)]
struct WindowState {
    /// For each column, the offset of the part in memory, and the part.
    parts: HashMap<usize, (u64, Bytes)>,
    /// The error of the last failed fetch, until it is taken.
    failure: Option<SourceError>,
}

/// Reads an input sequentially, starting at an offset.
#[derive(Debug)]
pub(crate) struct From {
    input: Input,
    at: u64,
}

/// The buffer for reading page headers, which take about 50 bytes.
const HEADER_BUFFER: usize = 256;

// === impl Windows ===

impl Windows {
    /// Creates an input for the columns of an object at these ranges. Parts of `window` bytes are read with `fetch`.
    pub(crate) fn new(
        chunks: Vec<Range<u64>>,
        window: u64,
        length: u64,
        fetch: impl Fn(Range<u64>) -> Result<Bytes, SourceError> + Send + Sync + 'static,
    ) -> Self {
        Self { chunks, window, length, fetch: Box::new(fetch), state: Mutex::default() }
    }

    /// Returns at least `least` bytes from `start` on, and more if they are in memory. Returns `None` if `start` is not
    /// in a column, if the column has fewer bytes left, or if the fetch failed. After a failed fetch,
    /// [`Input::take_failure`] returns its error.
    fn at(&self, start: u64, least: u64) -> Option<Bytes> {
        let column = self.chunks.iter().position(|chunk| chunk.contains(&start))?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((from, bytes)) = state.parts.get(&column) {
            let offset = start.checked_sub(*from).and_then(|offset| usize::try_from(offset).ok());
            let left = offset.and_then(|offset| (offset < bytes.len()).then(|| bytes.slice(offset..)));
            if let Some(left) = left.filter(|left| left.len() as u64 >= least) {
                return Some(left);
            }
        }
        let end = self.chunks[column].end.min(start.saturating_add(self.window.max(least)));
        // Drops the old part before the new one is fetched, so that only one is in memory.
        state.parts.remove(&column);
        match (self.fetch)(start..end) {
            Ok(bytes) => {
                state.parts.insert(column, (start, bytes.clone()));
                Some(bytes).filter(|bytes| bytes.len() as u64 >= least)
            }
            Err(error) => {
                state.failure = Some(error);
                None
            }
        }
    }
}

impl fmt::Debug for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Windows").field("chunks", &self.chunks).finish_non_exhaustive()
    }
}

// === impl Input ===

impl Input {
    /// Returns the error of the last failed fetch, if there was one, and clears it.
    pub(super) fn take_failure(&self) -> Option<SourceError> {
        match self {
            Self::Windows(windows) => windows.state.lock().unwrap_or_else(PoisonError::into_inner).failure.take(),
            Self::File(..) | Self::Parts(..) => None,
        }
    }

    /// Returns the part that contains an offset, from that offset on.
    fn part(parts: &[(u64, Bytes)], at: u64) -> Option<Bytes> {
        let next = parts.partition_point(|(start, _)| *start <= at);
        let (start, bytes) = parts.get(next.checked_sub(1)?)?;
        let offset = usize::try_from(at - start).ok()?;
        (offset < bytes.len()).then(|| bytes.slice(offset..))
    }
}

impl Length for Input {
    fn len(&self) -> u64 {
        match self {
            Self::File(_, length) | Self::Parts(_, length) => *length,
            Self::Windows(windows) => windows.length,
        }
    }
}

impl ChunkReader for Input {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(BufReader::with_capacity(HEADER_BUFFER, From { input: self.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let beyond = || {
            let size = Length::len(self);
            ParquetError::EOF(format!("it refers to {length} bytes at offset {start}, but has only {size}"))
        };
        // Checked before memory is allocated, because a header may claim any length.
        if start.checked_add(length as u64).is_none_or(|end| end > Length::len(self)) {
            return Err(beyond());
        }
        if length == 0 {
            return Ok(Bytes::new());
        }
        let part = match self {
            Self::File(file, _) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, start)?;
                return Ok(bytes.into());
            }
            Self::Parts(parts, _) => Self::part(parts, start),
            Self::Windows(windows) => windows.at(start, length as u64),
        };
        Ok(part.filter(|part| part.len() >= length).ok_or_else(beyond)?.slice(..length))
    }
}

// === impl From ===

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = match &self.input {
            Input::File(file, _) => {
                let read = file.read_at(buffer, self.at)?;
                self.at += read as u64;
                return Ok(read);
            }
            Input::Parts(parts, _) => Input::part(parts, self.at),
            Input::Windows(windows) => windows.at(self.at, 1),
        };
        let part = part.unwrap_or_default();
        let length = part.len().min(buffer.len());
        buffer[..length].copy_from_slice(&part[..length]);
        self.at += length as u64;
        Ok(length)
    }
}
