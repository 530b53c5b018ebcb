//! The thread that writes the log.

use std::{
    fmt,
    hash::{BuildHasher, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use larder_common::{compute::lower_priority, log_interval::LogInterval};
use larder_model::model::{Micros, Rfc3339};
use larder_serving::{AnswerQueue, LoggedAnswer, LoggedService};
use larder_source::aws::Aws;

use super::{
    FeatureLogSettings, LastLoad, LogSchema, LogTarget, Origin, Roll,
    file::{ClosedFile, OpenFile},
    load_times::LoadTimes,
    metrics::LogMetrics,
    record::{Record, batch, view_id},
};

/// The feature log of a server. Its thread starts when a service is logged.
pub struct FeatureLog {
    shared: Arc<Shared>,
    thread: Mutex<Option<Receiver<()>>>,
}

/// The state that the thread and the server share.
struct Shared {
    queue: Arc<AnswerQueue>,
    settings: Mutex<FeatureLogSettings>,
    is_stopping: AtomicBool,
    aws: Arc<Aws>,
    last_load: Box<LastLoad>,
}

/// The state of the thread.
struct Writer {
    shared: Arc<Shared>,
    target: LogTarget,
    roll: Roll,
    services: Vec<ServiceFile>,
    loads: LoadTimes,
    ids: RequestIds,
    /// The number of files that this process has written.
    files: u64,
    metrics: LogMetrics,
    failure_logged: LogInterval,
    /// Disconnected when the thread ends.
    _ended: Sender<()>,
}

/// The open file of a service.
struct ServiceFile {
    service: Arc<LoggedService>,
    schema: LogSchema,
    file: OpenFile,
    /// The time of the first row, which is a part of the file's name.
    begins: Micros,
}

/// Creates IDs of requests, in the form of a UUID. They differ between processes with high probability.
struct RequestIds {
    process: u64,
    next: u64,
}

/// The niceness of the thread, so that lookups have priority. A log that cannot keep up drops rows.
const NICE: i32 = 10;

/// The number of attempts to write a file, and the pause before the second one. Each further pause is twice as long.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

// === impl FeatureLog ===

impl FeatureLog {
    /// Creates a log without a target and without a thread. `last_load` returns the times of loads of views.
    #[must_use]
    pub fn new(aws: Arc<Aws>, last_load: Box<LastLoad>) -> Self {
        let settings = FeatureLogSettings::default();
        let shared = Shared {
            queue: AnswerQueue::new(settings.queue_bytes_max),
            settings: Mutex::new(settings),
            is_stopping: AtomicBool::new(false),
            aws,
            last_load,
        };
        Self { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// Returns the queue for answers.
    #[must_use]
    pub fn queue(&self) -> &Arc<AnswerQueue> {
        &self.shared.queue
    }

    /// Changes the settings. If the target changed, open files are written to the previous one.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn apply(&self, settings: &FeatureLogSettings) -> std::io::Result<()> {
        self.shared.queue.set_bytes_max(settings.queue_bytes_max);
        *self.shared.settings() = settings.clone();
        // The value is valid after every statement, so the one behind a poisoned lock is valid.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none()
            && let Some(target) = &settings.target
        {
            let (sender, ended) = channel();
            let writer = Writer::new(&self.shared, target.clone(), settings.roll, sender);
            thread::Builder::new().name("larder-feature-log".to_owned()).spawn(move || writer.run())?;
            *thread = Some(ended);
        }
        drop(thread);
        self.shared.queue.interrupt();
        Ok(())
    }

    /// Writes all answers in the queue and all open files, and ends the thread. Blocks. Returns whether that was possible within
    /// this time. Answers that arrive later are not written.
    pub fn stop(&self, within: Duration) -> bool {
        let Some(ended) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return true };
        self.shared.is_stopping.store(true, Ordering::Release);
        self.shared.queue.interrupt();
        ended.recv_timeout(within) == Err(RecvTimeoutError::Disconnected)
    }
}

impl fmt::Debug for FeatureLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeatureLog").field("queue", &self.shared.queue).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn settings(&self) -> std::sync::MutexGuard<'_, FeatureLogSettings> {
        // Settings are replaced in one statement, so the ones behind a poisoned lock are valid.
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Writer ===

impl Writer {
    fn new(shared: &Arc<Shared>, target: LogTarget, roll: Roll, ended: Sender<()>) -> Self {
        Self {
            shared: Arc::clone(shared),
            target,
            roll,
            services: Vec::new(),
            loads: LoadTimes::default(),
            ids: RequestIds::new(),
            files: 0,
            metrics: LogMetrics::bind(),
            failure_logged: LogInterval::default(),
            _ended: ended,
        }
    }

    fn run(mut self) {
        lower_priority(NICE);
        self.target.clean_up();
        loop {
            let answers = self.shared.queue.take(self.next_due());
            let is_stopping = self.shared.is_stopping.load(Ordering::Acquire);
            self.add_all(answers);
            if is_stopping {
                // Answers that arrived between the two calls.
                let last = self.shared.queue.take(Some(Instant::now()));
                self.add_all(last);
                self.close_all(|_| true);
                return;
            }
            // After the answers are added, so that those from before a change are in the previous target.
            self.apply_settings();
            let now = Instant::now();
            let roll = self.roll;
            self.close_all(|open| open.file.due(&roll).is_some_and(|due| due <= now));
            self.limit_memory();
        }
    }

    fn apply_settings(&mut self) {
        let settings = self.shared.settings().clone();
        self.roll = settings.roll;
        match settings.target {
            Some(target) if target != self.target => {
                self.close_all(|_| true);
                target.clean_up();
                self.target = target;
            }
            Some(_) => {}
            // No service is logged any more. The target stays for the answers to requests that began before.
            None => self.close_all(|_| true),
        }
    }

    /// Returns when the first open file is complete.
    fn next_due(&self) -> Option<Instant> {
        self.services.iter().filter_map(|open| open.file.due(&self.roll)).min()
    }

    /// Adds answers to the files of their services.
    fn add_all(&mut self, answers: Vec<LoggedAnswer>) {
        let mut groups: Vec<(Arc<LoggedService>, Vec<Record>)> = Vec::new();
        for answer in answers {
            let record = Record { request_id: self.ids.next(), answer };
            let service = &record.answer.service;
            match groups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, service)) {
                Some((_, records)) => records.push(record),
                None => groups.push((Arc::clone(service), vec![record])),
            }
        }
        for (service, records) in groups {
            let rows: usize = records.iter().map(|record| record.answer.answer.rows).sum();
            if let Err(error) = self.add(&service, &records) {
                self.metrics.not_converted.increment(rows as u64);
                tracing::error!(service = %service.name, rows, error, "feature log conversion failed; dropped rows");
            }
        }
    }

    fn add(&mut self, service: &Arc<LoggedService>, records: &[Record]) -> Result<(), String> {
        let known = self.services.iter().position(|open| Arc::ptr_eq(&open.service, service));
        let schema = match known {
            Some(index) => self.services[index].schema.clone(),
            None => LogSchema::of(&service.catalog, &service.name).ok_or("the service is not defined")?,
        };
        self.note_loads(&schema, records);
        let batch = batch(&schema, records, &self.loads).map_err(|error| error.to_string())?;
        let index = match known.or_else(|| self.services.iter().position(|open| open.service.name == service.name)) {
            Some(index) if self.services[index].schema == schema => {
                self.services[index].service = Arc::clone(service);
                index
            }
            other => {
                // A file has one schema.
                if let Some(index) = other {
                    let open = self.services.swap_remove(index);
                    self.close(open);
                }
                let file = OpenFile::new(&service.name, batch.schema()).map_err(|error| error.to_string())?;
                let begins = records.first().map_or(0, |record| record.answer.answer.now);
                self.services.push(ServiceFile { service: Arc::clone(service), schema, file, begins });
                self.services.len() - 1
            }
        };
        self.services[index].file.add(&batch).map_err(|error| error.to_string())
    }

    /// Notes the last loads of the views that the records read.
    fn note_loads(&mut self, schema: &LogSchema, records: &[Record]) {
        for column in &schema.columns {
            let Origin::Loaded(view) = &column.origin else { continue };
            if let Some(id) = records.iter().find_map(|record| view_id(&record.answer.answer, view)) {
                self.loads.note(id, (self.shared.last_load)(id));
            }
        }
    }

    /// Closes the largest files while all open files together exceed the size of a file.
    fn limit_memory(&mut self) {
        while self.services.iter().map(|open| open.file.bytes()).sum::<usize>() >= self.roll.bytes {
            let largest = self.services.iter().enumerate().max_by_key(|(_, open)| open.file.bytes());
            let Some((largest, _)) = largest else { return };
            let open = self.services.swap_remove(largest);
            self.close(open);
        }
    }

    fn close_all(&mut self, is_complete: impl Fn(&ServiceFile) -> bool) {
        let (complete, open) = std::mem::take(&mut self.services).into_iter().partition(is_complete);
        self.services = open;
        complete.into_iter().for_each(|open: ServiceFile| self.close(open));
    }

    fn close(&mut self, open: ServiceFile) {
        let (rows, begins) = (open.file.rows(), open.begins);
        match open.file.close() {
            Ok(file) => self.write(file, begins),
            Err(error) => {
                self.metrics.not_converted.increment(rows);
                tracing::error!(service = %open.service.name, rows, %error, "feature log encoding failed; dropped rows");
            }
        }
    }

    /// Writes a file. Retries a few times, and then drops its rows.
    fn write(&mut self, file: ClosedFile, begins: Micros) {
        let target = &self.target;
        let ClosedFile { service, bytes, rows } = file;
        let bytes = Bytes::from(bytes);
        self.files += 1;
        let time: String = Rfc3339::of(begins).as_str().chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let name = format!("{time}-{:016x}-{}.parquet", self.ids.process, self.files);
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS {
            let error = match target.write(&self.shared.aws, &service, &name, &bytes) {
                Ok(()) => {
                    self.metrics.rows.increment(rows);
                    self.metrics.bytes.increment(bytes.len() as u64);
                    return;
                }
                Err(error) => error,
            };
            self.metrics.failures.increment(1);
            if self.failure_logged.is_due() {
                tracing::warn!(%target, %service, attempt, %error, "feature log write failed");
            }
            if attempt < ATTEMPTS {
                thread::sleep(pause);
                pause *= 2;
            }
        }
        self.metrics.not_written.increment(rows);
        tracing::error!(%target, %service, rows, "feature log write failed; dropped rows");
    }
}

// === impl RequestIds ===

impl RequestIds {
    fn new() -> Self {
        // The hasher has random keys.
        Self { process: std::hash::RandomState::new().build_hasher().finish(), next: 0 }
    }

    fn next(&mut self) -> String {
        self.next += 1;
        let (high, low) = (self.process, self.next);
        let (a, b, c) = (high >> 32, (high >> 16) & 0xffff, high & 0xffff);
        format!("{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", low >> 48, low & 0xffff_ffff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_differ() {
        let mut ids = RequestIds { process: 0x0123_4567_89ab_cdef, next: 0 };
        assert_eq!(ids.next(), "01234567-89ab-cdef-0000-000000000001");
        assert_eq!(ids.next(), "01234567-89ab-cdef-0000-000000000002");
        assert_ne!(RequestIds::new().process, RequestIds::new().process);
    }
}
