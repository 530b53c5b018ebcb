//! Runs jobs in threads, and stops them when a signal handler raises an exception, such as `KeyboardInterrupt`.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use larder_training::Progress;
use pyo3::{PyErr, PyResult, Python};

use crate::errors::ErrorClass;

/// The longest time that a caller waits before it checks for signals.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// Runs a job that does not need the interpreter, in a thread of its own. Returns after the job has ended. If a signal
/// handler raises an exception, the job is stopped, and the result is the exception.
pub(crate) fn run_interruptible<T: Send + 'static>(
    py: Python<'_>,
    job: impl FnOnce(&Progress) -> T + Send + 'static,
) -> PyResult<T> {
    let (sender, receiver) = channel();
    let progress = Arc::new(Progress::default());
    let run = {
        let progress = Arc::clone(&progress);
        // The receiver is only dropped after the result was received.
        move || _ = sender.send(job(&progress))
    };
    thread::Builder::new().name("larder-job".to_owned()).spawn(run).map_err(|error| thread_error(py, &error))?;
    let mut raised = None;
    let result = py.detach(|| {
        let receiver = receiver;
        loop {
            match receiver.recv_timeout(SLICE) {
                Ok(result) => return Some(result),
                // The thread panicked.
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(Err(error)) = Python::try_attach(|py| py.check_signals()) {
                progress.stop();
                raised.get_or_insert(error);
            }
        }
    });
    match (raised, result) {
        (Some(error), _) => Err(error),
        (None, Some(result)) => Ok(result),
        (None, None) => Err(ErrorClass::Training.error(py, "the run panicked. This is a bug in Larder".to_owned())),
    }
}

/// Returns the error of a thread that cannot be started.
pub(crate) fn thread_error(py: Python<'_>, error: &io::Error) -> PyErr {
    ErrorClass::Training.error(py, format!("cannot start a thread: {error}"))
}
