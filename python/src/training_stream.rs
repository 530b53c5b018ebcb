//! Runs the job of a training set in a thread, and hands over its rows.

use std::{
    fmt::{self, Debug, Formatter},
    mem, process,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
};

use arrow::array::RecordBatch;
use larder::offline::{Inputs, Location, OfflineError, SetRequest};
use larder_training::{Progress, Report, TrainingError};
use pyo3::{PyResult, Python};

use crate::{
    definitions::offline_error,
    errors::ErrorClass,
    interrupt::{SLICE, thread_error},
};

/// The rows of a training set. The job starts when the first rows are read, and stops when the stream is dropped.
#[derive(Debug)]
pub(crate) struct TrainingStream {
    state: Mutex<State>,
    finished: Arc<OnceLock<Finished>>,
    progress: Arc<Progress>,
    /// The process that created the stream. Its threads do not exist in a child process after a fork.
    process: u32,
}

/// A job that is not started yet.
pub(crate) trait Run: Send {
    /// Checks that an output is not one of the inputs.
    fn check_output(&self, at: &Location) -> Result<(), OfflineError>;

    /// Runs the job, and passes its batches to `emit`.
    fn run(self: Box<Self>, progress: &Progress, emit: &mut Emit<'_>) -> Result<Finished, OfflineError>;
}

/// A function that receives the batches of a job.
pub(crate) type Emit<'e> = dyn FnMut(RecordBatch) -> Result<(), OfflineError> + 'e;

/// The results of a run, except its rows.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) report: Report,
    /// The request and the inputs, from which the same set can be built again. `None` for a step of a distributed join, and for
    /// derived features of a frame.
    pub(crate) origin: Option<(SetRequest, Inputs)>,
}

enum State {
    Ready(Box<dyn Run>),
    Running(Receiver<Result<RecordBatch, OfflineError>>),
    Ended,
}

/// The number of batches that the job may be ahead of the reader.
const BATCHES_AHEAD: usize = 2;

// === impl TrainingStream ===

impl TrainingStream {
    pub(crate) fn new(run: Box<dyn Run>) -> Self {
        Self {
            state: Mutex::new(State::Ready(run)),
            finished: Arc::default(),
            progress: Arc::default(),
            process: process::id(),
        }
    }

    /// Returns the description of the run, if all rows were read.
    pub(crate) fn finished(&self) -> Option<&Finished> {
        self.finished.get()
    }

    /// Checks that an output is not one of the inputs. The rows must not have been read before.
    pub(crate) fn check_output(&self, py: Python<'_>, at: &Location) -> PyResult<()> {
        self.check_process(py)?;
        let checked = py.detach(|| {
            let State::Ready(run) = &*lock(&self.state) else { return Ok(false) };
            run.check_output(at).map(|()| true)
        });
        match checked {
            Ok(true) => Ok(()),
            Ok(false) => Err(ErrorClass::Training.error(py, "rows of the set were already read".to_owned())),
            Err(error) => Err(offline_error(py, &error)),
        }
    }

    /// Returns the next rows. Waits without holding the interpreter, because the job may need it to read the entity rows.
    pub(crate) fn next(&self, py: Python<'_>) -> PyResult<Option<RecordBatch>> {
        self.check_process(py)?;
        loop {
            let received = py.detach(|| {
                let mut state = lock(&self.state);
                if let State::Ready(..) = *state
                    && let State::Ready(run) = mem::replace(&mut *state, State::Ended)
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
            match received.map_err(|error| thread_error(py, &error))? {
                Ok(Ok(batch)) => return Ok(Some(batch)),
                Ok(Err(error)) => return Err(offline_error(py, &error)),
                Err(RecvTimeoutError::Disconnected) if self.finished().is_some() => return Ok(None),
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

    fn start(&self, run: Box<dyn Run>) -> std::io::Result<Receiver<Result<RecordBatch, OfflineError>>> {
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        let (finished, progress) = (Arc::clone(&self.finished), Arc::clone(&self.progress));
        let run = move || {
            let done = run.run(&progress, &mut |batch| {
                // The reader was dropped.
                sender.send(Ok(batch)).map_err(|_| OfflineError::from(TrainingError::Stopped))
            });
            match done {
                Ok(done) => _ = finished.set(done),
                // If the reader is gone, no one needs the error.
                Err(error) => _ = sender.send(Err(error)),
            }
        };
        thread::Builder::new().name("larder-training".to_owned()).spawn(run)?;
        Ok(receiver)
    }

    /// After a fork, the thread that sends the rows exists only in the parent process.
    fn check_process(&self, py: Python<'_>) -> PyResult<()> {
        if self.process == process::id() {
            return Ok(());
        }
        let message = "the run belongs to the parent process. hint: start the run after the fork";
        Err(ErrorClass::Training.error(py, message.to_owned()))
    }
}

impl Drop for TrainingStream {
    fn drop(&mut self) {
        if self.process == process::id() {
            // The thread is not joined: it may wait for the interpreter, which this thread holds.
            self.progress.stop();
        } else {
            // Dropping a receiver uses locks, which a thread of the parent process may have held during the fork.
            let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            mem::forget(mem::replace(state, State::Ended));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Debug for State {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready(..) => "Ready",
            Self::Running(_) => "Running",
            Self::Ended => "Ended",
        })
    }
}
