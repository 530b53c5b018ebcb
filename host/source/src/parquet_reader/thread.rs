//! A thread with a stack of known size, on which files are parsed and decoded.
//!
//! Files are untrusted input. The Parquet reader may need more stack for one than the caller's thread has, and it may
//! panic. On this thread the stack is the same for all callers, recursion is bounded (`footer.rs`), and a panic becomes
//! an error.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
};

use larder_common::telemetry::panic_message;

use super::ReadFailure;

/// A thread that runs jobs one after the other. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct DecodeThread {
    jobs: mpsc::Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

/// Enough for a schema of the maximum depth, even without optimizations.
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

    /// Runs the Parquet reader on the thread, and waits for it. A panic of the reader is an error.
    pub(crate) fn guarded<T, E>(&self, read: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, String>
    where
        T: Send + 'static,
        E: Into<ReadFailure> + 'static,
    {
        let (answer, answered) = mpsc::sync_channel(1);
        let job = move || {
            let result = match catch_unwind(AssertUnwindSafe(read)) {
                Ok(result) => result.map_err(|error| error.into().0),
                Err(panic) => Err(format!("the reader panicked: {}", panic_message(&*panic))),
            };
            // The caller waits for it.
            let _ = answer.send(result);
        };
        let lost = || "the thread that decodes files has ended".to_owned();
        self.jobs.send(Box::new(job)).map_err(|_| lost())?;
        answered.recv().map_err(|_| lost())?
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
        assert_eq!(thread.guarded(|| Ok::<_, ParquetError>(7)), Ok(7), "the thread is there for the next file");
    }
}
