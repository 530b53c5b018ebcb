//! Writes log lines to standard error on a separate thread, so that no other thread waits for the reader.
//!
//! The reader of a log may be gone, or may stop reading while its pipe is full. A thread that writes a line itself
//! would get an error in the first case, and would block forever in the second case. So lines are added to a queue with
//! a limit in bytes. Lines beyond the limit, and lines that cannot be written, are dropped and counted.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use metrics::{counter, describe_counter};

/// Lines that wait to be written.
#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether a line that was taken from the queue is being written.
    writing: bool,
    /// The number of lines that were dropped since the last line was taken from the queue.
    dropped: u64,
}

/// A writer that adds the bytes of each `write` call to the queue as one line.
#[derive(Debug)]
pub(super) struct LineSender(Arc<Queue>);

/// The maximum number of bytes of queued lines.
const QUEUE_BYTES_MAX: usize = 1 << 20;
const DROPPED: &str = "larder_log_lines_dropped_total";

/// Returns the writer of log lines. Each line must be written with a single `write` call, as `tracing_subscriber` does.
pub(super) fn writer() -> LineSender {
    LineSender(Arc::clone(queue()))
}

/// Queues a line for standard error, after the log lines that are already queued. Returns before the line is written;
/// [`flush_logs`] waits for that.
pub fn write_line(text: &str) {
    queue().push(format!("{text}\n").into_bytes());
}

/// Waits until all queued lines are written, but at most `timeout`, because the reader may have stopped reading.
pub fn flush_logs(timeout: Duration) {
    if let Some(queue) = QUEUE.get() {
        queue.flush(timeout);
    }
}

static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

fn queue() -> &'static Arc<Queue> {
    QUEUE.get_or_init(|| {
        describe_counter!(DROPPED, "Log lines dropped because the reader of standard error was slow or had closed it.");
        let queue = Arc::new(Queue::new(QUEUE_BYTES_MAX));
        let writing = Arc::clone(&queue);
        // If the thread cannot be started, no line is written, and the program continues.
        let _ = thread::Builder::new().name("log-writer".to_owned()).spawn(move || writing.write_to(io::stderr()));
        queue
    })
}

// === impl Queue ===

impl Queue {
    fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), bytes_max }
    }

    fn push(&self, line: Vec<u8>) {
        let mut state = self.state();
        if state.bytes + line.len() > self.bytes_max {
            state.dropped += 1;
            drop(state);
            counter!(DROPPED).increment(1);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        drop(state);
        self.changed.notify_all();
    }

    /// Writes queued lines as they arrive. Never returns.
    fn write_to(&self, mut out: impl Write) {
        loop {
            let mut state = self.state();
            state.writing = false;
            self.changed.notify_all();
            while state.lines.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            // Lines are taken one at a time, because the limit in bytes does not include a line that was taken from the
            // queue.
            let line = state.lines.pop_front().unwrap_or_default();
            state.bytes -= line.len();
            state.writing = true;
            let dropped = std::mem::take(&mut state.dropped);
            drop(state);
            if dropped > 0 {
                let _ = writeln!(out, "log lines dropped here because the reader was too slow: {dropped}");
            }
            if out.write_all(&line).and_then(|()| out.flush()).is_err() {
                counter!(DROPPED).increment(1);
            }
        }
    }

    fn flush(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        let mut state = self.state();
        while state.writing || !state.lines.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for LineSender {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// An output that blocks until the test receives the bytes of the `write` call.
    struct BlockingOutput(SyncSender<Vec<u8>>);

    impl Write for BlockingOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn blocking_queue(bytes_max: usize) -> (Arc<Queue>, Receiver<Vec<u8>>) {
        let (sender, receiver) = sync_channel(0);
        let queue = Arc::new(Queue::new(bytes_max));
        let writing = Arc::clone(&queue);
        thread::spawn(move || writing.write_to(BlockingOutput(sender)));
        (queue, receiver)
    }

    #[test]
    fn lines_are_written_in_order() {
        let (queue, lines) = blocking_queue(1_000);
        for line in ["1\n", "2\n", "3\n"] {
            queue.push(line.into());
        }
        for line in ["1\n", "2\n", "3\n"] {
            assert_eq!(lines.recv_timeout(LONG).unwrap(), line.as_bytes());
        }
        queue.flush(LONG);
        assert!(queue.state().lines.is_empty());
    }

    #[test]
    fn stalled_reader_blocks_no_writer() {
        let (queue, lines) = blocking_queue(10);
        queue.push(b"first\n".to_vec());
        // Wait until the thread has taken the line and waits for the reader.
        while !queue.state().writing {
            thread::yield_now();
        }
        queue.push(b"12345678\n".to_vec());
        queue.push(b"of two bytes more\n".to_vec());
        queue.push(b"and another\n".to_vec());
        queue.flush(Duration::from_millis(1));
        assert_eq!(queue.state().bytes, 9, "only the line that fits is queued");
        assert_eq!(lines.recv_timeout(LONG).unwrap(), b"first\n");
        let written: Vec<u8> = (0..2).flat_map(|_| lines.recv_timeout(LONG).unwrap()).collect();
        let written = String::from_utf8(written).unwrap();
        assert!(written.starts_with("log lines dropped here because the reader was too slow: 2"), "{written}");
    }

    #[test]
    fn closed_reader_blocks_no_writer() {
        let (queue, lines) = blocking_queue(100);
        drop(lines);
        for _ in 0..100 {
            queue.push(b"0123456789\n".to_vec());
            queue.flush(LONG);
        }
        assert!(queue.state().lines.is_empty());
    }
}
