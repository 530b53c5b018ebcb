//! Runs a job in a thread, and hands over its rows.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

use arrow::array::RecordBatch;
use larder::offline::OfflineError;
use larder_training::{Progress, Report, TrainingError};
use pyo3::{
    Bound, PyResult, Python,
    types::{PyDict, PyDictMethods, PyList, PyListMethods},
};

use crate::{definitions::offline_error, errors::ErrorClass};

/// The rows of a training set. The job starts when the first rows are read, and stops when the stream is dropped.
#[derive(Debug)]
pub(crate) struct TrainingStream {
    state: Mutex<State>,
    report: Arc<Mutex<Option<Report>>>,
    progress: Arc<Progress>,
}

/// A job that is not started yet. It passes its batches to a function.
pub(crate) type Run = Box<
    dyn FnOnce(&Progress, &mut dyn FnMut(RecordBatch) -> Result<(), OfflineError>) -> Result<Report, OfflineError>
        + Send,
>;

enum State {
    Ready(Run),
    Running(Receiver<Result<RecordBatch, OfflineError>>),
    Ended,
}

/// The number of batches that the job may be ahead of the reader.
const BATCHES_AHEAD: usize = 2;
/// The longest time that a reader waits before it checks for signals.
const SLICE: Duration = Duration::from_millis(100);

// === impl TrainingStream ===

impl TrainingStream {
    pub(crate) fn new(run: Run) -> Self {
        Self { state: Mutex::new(State::Ready(run)), report: Arc::default(), progress: Arc::default() }
    }

    /// Returns the report, if all rows were read.
    pub(crate) fn report(&self) -> Option<Report> {
        lock(&self.report).clone()
    }

    /// Returns the next rows. Waits without holding the interpreter, because the job may need it to read the entity rows.
    pub(crate) fn next(&self, py: Python<'_>) -> PyResult<Option<RecordBatch>> {
        loop {
            let received = py.detach(|| {
                let mut state = lock(&self.state);
                if let State::Ready(_) = *state
                    && let State::Ready(run) = std::mem::replace(&mut *state, State::Ended)
                {
                    *state = State::Running(self.start(run)?);
                }
                let State::Running(receiver) = &*state else { return Ok(Err(RecvTimeoutError::Disconnected)) };
                let received = receiver.recv_timeout(SLICE);
                if !matches!(received, Ok(Ok(_)) | Err(RecvTimeoutError::Timeout)) {
                    *state = State::Ended;
                }
                Ok(received)
            });
            let received = received.map_err(|error: std::io::Error| {
                ErrorClass::Training.error(py, format!("cannot start a thread: {error}"))
            })?;
            match received {
                Ok(Ok(batch)) => return Ok(Some(batch)),
                Ok(Err(error)) => return Err(offline_error(py, &error)),
                Err(RecvTimeoutError::Disconnected) if self.report().is_some() => return Ok(None),
                // An error or an interrupt ended the run before, or the thread panicked, which is a bug in Larder.
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ErrorClass::Training.error(py, "the run ended before all rows were read".to_owned()));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            py.check_signals().inspect_err(|_| {
                self.progress.stop();
                *lock(&self.state) = State::Ended;
            })?;
        }
    }

    fn start(&self, run: Run) -> std::io::Result<Receiver<Result<RecordBatch, OfflineError>>> {
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        let (report, progress) = (Arc::clone(&self.report), Arc::clone(&self.progress));
        let run = move || {
            let done = run(&progress, &mut |batch| {
                // The reader was dropped.
                sender.send(Ok(batch)).map_err(|_| OfflineError::from(TrainingError::Stopped))
            });
            match done {
                Ok(done) => *lock(&report) = Some(done),
                // If the reader is gone, no one needs the error.
                Err(error) => _ = sender.send(Err(error)),
            }
        };
        thread::Builder::new().name("larder-training".to_owned()).spawn(run)?;
        Ok(receiver)
    }
}

impl Drop for TrainingStream {
    fn drop(&mut self) {
        // The thread is not joined: it may wait for the interpreter, which this thread holds.
        self.progress.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Converts a report. Durations are in seconds.
pub(crate) fn report_dict<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("rows", report.rows)?;
    dict.set_item("rows_without_time", report.rows_without_time)?;
    dict.set_item("parts", report.parts)?;
    let views = PyList::empty(py);
    for view in &report.views {
        let entry = PyDict::new(py);
        entry.set_item("view", &view.view)?;
        entry.set_item("ttl_seconds", view.ttl.map(|ttl| ttl.as_secs_f64()))?;
        for (name, count) in [
            ("feature_rows", view.feature_rows),
            ("skipped", view.skipped),
            ("row_groups_skipped", view.row_groups_skipped),
            ("matched", view.matched),
            ("expired", view.expired),
            ("not_found", view.not_found),
            ("no_key", view.no_key),
            ("late", view.late),
            ("same_time", view.same_time),
        ] {
            entry.set_item(name, count)?;
        }
        views.append(entry)?;
    }
    dict.set_item("views", views)?;
    let derived = PyList::empty(py);
    for view in &report.derived {
        let entry = PyDict::new(py);
        entry.set_item("view", &view.view)?;
        entry.set_item("failed", view.failed)?;
        derived.append(entry)?;
    }
    dict.set_item("derived_views", derived)?;
    Ok(dict)
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ready(..) => "Ready",
            Self::Running(_) => "Running",
            Self::Ended => "Ended",
        })
    }
}
