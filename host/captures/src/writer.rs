//! The thread that writes capture files.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use larder_common::{compute::lower_priority, log_interval::LogInterval};

use super::{
    directory::CaptureDir,
    format::{CapturedCall, encode},
    metrics::CaptureMetrics,
    queue::{CallOrigin, CallQueue, QueuedCall, Reservation},
};

/// The state of the thread.
pub(crate) struct Writer {
    queue: Arc<CallQueue>,
    dir: CaptureDir,
    metrics: CaptureMetrics,
    open: Vec<OpenFile>,
    /// Makes the names of files of different processes unique.
    process: u32,
    /// The number of files so far.
    files: u64,
    failure_logged: LogInterval,
}

/// The calls of a file that is not written yet.
struct OpenFile {
    origin: CallOrigin,
    calls: Vec<CapturedCall>,
    reservations: Vec<Reservation>,
    since: Instant,
}

/// Disconnected when the thread ends.
pub(crate) struct Ended(Mutex<Receiver<()>>);

/// The niceness of the thread, so that requests have priority.
const NICE: i32 = 10;
/// The time after its first call at which a file is written. Calls that come later are in the next file.
const WRITE_AFTER: Duration = Duration::from_secs(5);
/// The size of the calls of a file in memory, after which it is written.
const FILE_BYTES: usize = 1 << 20;

// === impl Writer ===

impl Writer {
    pub(crate) fn new(queue: Arc<CallQueue>, dir: CaptureDir, metrics: CaptureMetrics) -> Self {
        // The standard library seeds each state randomly.
        let process = (RandomState::new().build_hasher().finish() >> 32) as u32;
        let failure_logged = LogInterval::default();
        Self { queue, dir, metrics, open: Vec::new(), process, files: 0, failure_logged }
    }

    pub(crate) fn start(self) -> io::Result<Ended> {
        let (sender, receiver) = channel();
        thread::Builder::new().name("larder-captures".to_owned()).spawn(move || {
            self.run();
            drop(sender);
        })?;
        Ok(Ended(Mutex::new(receiver)))
    }

    fn run(mut self) {
        lower_priority(NICE);
        self.dir.clean_up();
        loop {
            let due = self.open.iter().map(|file| file.since + WRITE_AFTER).min();
            let taken = self.queue.take(due);
            taken.calls.into_iter().for_each(|call| self.add(call));
            let (now, is_full) = (Instant::now(), taken.is_stopping || self.queue.is_half_full());
            let is_due = |file: &OpenFile| is_full || file.since + WRITE_AFTER <= now || file.bytes() >= FILE_BYTES;
            let (due, open) = std::mem::take(&mut self.open).into_iter().partition(is_due);
            self.open = open;
            due.into_iter().for_each(|file: OpenFile| self.write(file));
            if taken.is_stopping {
                return;
            }
        }
    }

    fn add(&mut self, queued: QueuedCall) {
        let QueuedCall { origin, call, reservation } = queued;
        let index = self.open.iter().position(|file| file.origin == origin).unwrap_or_else(|| {
            let (calls, reservations) = (Vec::new(), Vec::new());
            self.open.push(OpenFile { origin, calls, reservations, since: Instant::now() });
            self.open.len() - 1
        });
        self.open[index].calls.push(call);
        self.open[index].reservations.push(reservation);
    }

    /// Writes a file. If that fails, its rows are dropped and counted.
    fn write(&mut self, file: OpenFile) {
        let OpenFile { origin: CallOrigin { header, inputs, outputs }, calls, .. } = file;
        let rows = calls.iter().map(|call| call.rows.len() as u64).sum();
        let time = calls.first().map_or(0, |call| call.at);
        self.files += 1;
        let number = format!("{:08x}-{}", self.process, self.files);
        let contents = encode(&header, &inputs, &outputs, &calls).map_err(|error| error.to_string());
        let written = contents.and_then(|contents| {
            let written = self.dir.write(&header.plugin, time, header.kind, &number, &contents);
            written.map_err(|error| error.to_string())
        });
        match written {
            Ok(removed) => {
                self.metrics.written(header.kind).increment(rows);
                self.metrics.removed.increment(removed as u64);
            }
            Err(error) => {
                self.metrics.write_failed.increment(rows);
                if self.failure_logged.is_due() {
                    let (plugin, view) = (&header.plugin, &header.view);
                    tracing::warn!(plugin, view, rows, error, "capture write failed; dropped rows");
                }
            }
        }
    }
}

// === impl OpenFile ===

impl OpenFile {
    fn bytes(&self) -> usize {
        self.reservations.iter().map(|reservation| reservation.bytes).sum()
    }
}

// === impl Ended ===

impl Ended {
    /// Waits until the thread ends. Returns whether it ended within this time.
    pub(crate) fn wait(&self, within: Duration) -> bool {
        let receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.recv_timeout(within) == Err(RecvTimeoutError::Disconnected)
    }
}
