//! Runs the job of a training set in a thread, and hands over its rows.

use std::{
    fmt::{self, Debug, Formatter},
    mem, process,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use larder::offline::{Inputs, Location, OfflineError, Project, SetRequest};
use larder_training::{Limits, Progress, Report, TrainingError};
use pyo3::{PyResult, Python};

use crate::{
    definitions::offline_error,
    entities::EntityRows,
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

/// The definition of a training set, without the entity rows.
#[derive(Debug)]
pub(crate) struct TrainingSpec {
    pub(crate) project: Arc<Project>,
    pub(crate) request: SetRequest,
    pub(crate) limits: Limits,
}

/// What a manifest describes, except the output.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) request: SetRequest,
    pub(crate) inputs: Inputs,
    pub(crate) report: Report,
}

enum State {
    Ready(Box<(TrainingSpec, EntityRows)>),
    Running(Receiver<Result<RecordBatch, OfflineError>>),
    Ended,
}

/// The number of batches that the job may be ahead of the reader.
const BATCHES_AHEAD: usize = 2;

// === impl TrainingSpec ===

impl TrainingSpec {
    /// Returns the columns of the training set for entity rows with these columns.
    pub(crate) fn schema(&self, entities: SchemaRef) -> Result<SchemaRef, OfflineError> {
        let request = self.request.to_training();
        Ok(self.project.job(&request, self.limits, entities)?.schema())
    }

    /// Runs the job. Fails if an input changes during the run, because the manifest must describe the inputs that were read.
    fn run(
        self,
        mut entities: EntityRows,
        progress: &Progress,
        sender: &SyncSender<Result<RecordBatch, OfflineError>>,
    ) -> Result<Finished, OfflineError> {
        let request = self.request.to_training();
        let job = self.project.job(&request, self.limits, entities.schema())?;
        let describe = |entities: &EntityRows| {
            Inputs::of(&self.project.definitions().catalog, &job, &self.request, entities.describe()?)
        };
        let inputs = describe(&entities)?;
        let mut emit = |batch| {
            // The reader was dropped.
            sender.send(Ok(batch)).map_err(|_| OfflineError::from(TrainingError::Stopped))
        };
        let report = match &mut entities {
            EntityRows::Stream(rows) => job.run(rows, progress, &mut emit),
            EntityRows::Files(files) => job.run(files.read()?, progress, &mut emit),
        }?;
        let differences = inputs.differences(&describe(&entities)?);
        if !differences.is_empty() {
            return Err(OfflineError::InputsChanged { differences });
        }
        Ok(Finished { request: self.request.clone(), inputs, report })
    }
}

// === impl TrainingStream ===

impl TrainingStream {
    pub(crate) fn new(spec: TrainingSpec, entities: EntityRows) -> Self {
        Self {
            state: Mutex::new(State::Ready(Box::new((spec, entities)))),
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
            let State::Ready(ready) = &*lock(&self.state) else { return Ok(false) };
            let (spec, entities) = &**ready;
            let request = spec.request.to_training();
            let job = spec.project.job(&request, spec.limits, entities.schema())?;
            spec.project.check_output(at, &job, entities.files()).map(|()| true)
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
                    && let State::Ready(ready) = mem::replace(&mut *state, State::Ended)
                {
                    let (spec, entities) = *ready;
                    *state = State::Running(self.start(spec, entities)?);
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

    fn start(
        &self,
        spec: TrainingSpec,
        entities: EntityRows,
    ) -> std::io::Result<Receiver<Result<RecordBatch, OfflineError>>> {
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        let (finished, progress) = (Arc::clone(&self.finished), Arc::clone(&self.progress));
        let run = move || match spec.run(entities, &progress, &sender) {
            Ok(done) => _ = finished.set(done),
            // If the reader is gone, no one needs the error.
            Err(error) => _ = sender.send(Err(error)),
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
