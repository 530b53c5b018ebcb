//! A thread with a stack of known size, on which files are parsed and decoded.
//!
//! Files are untrusted input. The Parquet reader may need a larger stack than the caller's thread has, and it may
//! panic. This thread has a stack of the same size for all callers, `footer.rs` limits the depth of the recursion, and
//! a panic becomes an error.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
};

use larder_common::telemetry::panic_message;

use super::ReadFailure;

/// A thread that runs jobs one after the other. The thread ends when this handle is dropped.
#[derive(Debug)]
pub(crate) struct DecodeThread {
    jobs: mpsc::Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

/// The stack size in bytes: enough for a schema of the maximum depth, even without compiler optimizations.
const STACK_BYTES: usize = 8 << 20;

// === impl DecodeThread ===

impl DecodeThread {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let builder = thread::Builder::new().name("larder-decode".to_owned()).stack_size(STACK_BYTES);
        builder.spawn(move || queue.iter().for_each(|job| job()))?;
        Ok(Self { jobs })
    }

    /// Runs `read` on the thread, and waits for its result. A panic becomes an error.
    pub(crate) fn guarded<T, E>(&self, read: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, String>
    where
        T: Send + 'static,
        E: Into<ReadFailure> + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        let job = move || {
            let result = match catch_unwind(AssertUnwindSafe(read)) {
                Ok(result) => result.map_err(|error| error.into().0),
                Err(panic) => Err(format!("the reader panicked: {}", panic_message(&*panic))),
            };
            // The caller waits for the result, so the receiver still exists.
            let _ = sender.send(result);
        };
        let ended = || "the thread that decodes files has ended".to_owned();
        self.jobs.send(Box::new(job)).map_err(|_| ended())?;
        receiver.recv().map_err(|_| ended())?
    }
}

#[cfg(test)]
mod tests {
    use parquet::errors::ParquetError;

    use super::*;

    #[test]
    fn panic_becomes_an_error() {
        let thread = DecodeThread::start().unwrap();
        let failed: Result<(), String> = thread.guarded(|| -> Result<(), ParquetError> { panic!("of the reader") });
        assert_eq!(failed.unwrap_err(), "the reader panicked: of the reader");
        assert_eq!(thread.guarded(|| Ok::<_, ParquetError>(7)), Ok(7), "the thread continues with the next file");
    }
}
