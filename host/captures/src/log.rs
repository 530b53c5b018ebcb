//! Captures calls of plugins: copies some of their rows to the queue of the thread that writes them.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use larder_common::clock::SharedClock;
use larder_model::model::Micros;
use larder_plugin_host::{CallObserver, Field, FrameBuilder, ObservedCall, Signature};

use super::{
    CaptureHeader, CaptureKind, CaptureSettings, SampleRequest,
    directory::CaptureDir,
    format::{CapturedCall, Column, Failure},
    metrics::CaptureMetrics,
    queue::{CallOrigin, CallQueue, QueuedCall},
    sampling::{FailedCalls, Sampling},
    selection::select,
    writer::{Ended, Writer},
};

/// Captures calls of plugins in files.
pub struct CaptureLog {
    settings: CaptureSettings,
    clock: SharedClock,
    queue: Arc<CallQueue>,
    failed: FailedCalls,
    sampling: Sampling,
    calls: AtomicI64,
    metrics: CaptureMetrics,
    ended: Ended,
}

/// The maximum size of the calls in memory.
const QUEUE_BYTES_MAX: usize = 8 << 20;
/// The maximum length of the message of a failed row in bytes. Longer messages are truncated.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4_096;

// === impl CaptureLog ===

impl CaptureLog {
    /// Starts the thread that writes files to `dir`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(dir: PathBuf, settings: CaptureSettings, clock: SharedClock) -> io::Result<Arc<Self>> {
        let (queue, metrics) = (CallQueue::new(QUEUE_BYTES_MAX), CaptureMetrics::bind());
        let dir = CaptureDir::new(dir, settings.bytes_max);
        let ended = Writer::new(Arc::clone(&queue), dir, metrics.clone()).start()?;
        let (failed, sampling) = (FailedCalls::new(settings.failed_per_minute), Sampling::new(settings.sample));
        let calls = AtomicI64::new(0);
        Ok(Arc::new(Self { settings, clock, queue, failed, sampling, calls, metrics, ended }))
    }

    /// Captures a sample of a plugin's calls from now on. Returns the end of the period.
    pub fn sample(&self, plugin: &str, request: &SampleRequest) -> Micros {
        self.sampling.start(plugin, request, self.clock.now())
    }

    /// Writes the calls in memory, and ends the thread. Blocks. Returns whether that was possible within this time. Later
    /// calls are not captured.
    pub fn stop(&self, within: Duration) -> bool {
        self.queue.stop();
        self.ended.wait(within)
    }

    fn capture(&self, call: &ObservedCall<'_>, kind: CaptureKind, rows_max: usize, now: Micros) {
        let bytes_of = |row: usize| call.inputs.bytes_of(row..row + 1) + call.outputs.bytes_of(row..row + 1);
        let failed = call.failed.iter().map(|failed| failed.row);
        let rows = select(call.inputs.rows(), failed, rows_max, bytes_of);
        if rows.is_empty() {
            return;
        }
        let failures: Vec<Option<Failure>> = rows.iter().map(|row| failure_of(call, *row)).collect();
        let messages: usize = failures.iter().flatten().map(|failure| failure.message.len()).sum();
        let bytes = rows.iter().map(|row| bytes_of(*row)).sum::<usize>() + messages + call.config.len();
        let Some(reservation) = self.queue.reserve(bytes) else {
            return self.metrics.queue_full.increment(rows.len() as u64);
        };
        if kind == CaptureKind::Sampled {
            self.sampling.count(&call.component.signature().name, rows.len());
        }
        let origin = origin_of(call, kind);
        let mut inputs = FrameBuilder::new(origin.inputs.iter().map(|(_, of)| *of), rows.len());
        for column in call.inputs.columns() {
            inputs.column(|to| rows.iter().for_each(|row| to.append(column, *row..row + 1)));
        }
        let mut outputs = FrameBuilder::new(origin.outputs.iter().map(|(_, of)| *of), rows.len());
        for column in call.outputs.columns() {
            outputs.column(|to| rows.iter().for_each(|row| to.append(column, *row..row + 1)));
        }
        let times = rows.iter().map(|row| call.inputs.reference_time(*row)).collect();
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let (inputs, outputs) = (inputs.finish(), outputs.finish());
        let call = CapturedCall { call: number, at: now, rows, times, inputs, outputs, failures };
        self.queue.push(QueuedCall { origin, call, reservation });
    }
}

impl CallObserver for CaptureLog {
    #[inline]
    fn observes_good_calls(&self) -> bool {
        self.sampling.is_on()
    }

    fn observe(&self, call: &ObservedCall<'_>) {
        let now = self.clock.now();
        if call.failed.is_empty() {
            let rows_max = self.sampling.rows_of(&call.component.signature().name, self.settings.rows_max, now);
            if rows_max > 0 {
                self.capture(call, CaptureKind::Sampled, rows_max, now);
            }
        } else if self.failed.take(call.view, now) {
            self.capture(call, CaptureKind::Failed, self.settings.rows_max, now);
        }
    }
}

impl fmt::Debug for CaptureLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureLog").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn origin_of(call: &ObservedCall<'_>, kind: CaptureKind) -> CallOrigin {
    let Signature { name, version, inputs, outputs, .. } = call.component.signature();
    let columns = |fields: &[Field]| -> Vec<Column> {
        fields.iter().map(|field| (field.name.clone(), field.column_type)).collect()
    };
    CallOrigin {
        header: CaptureHeader {
            plugin: name.clone(),
            version: version.clone(),
            digest: call.component.digest().to_string(),
            contract: call.component.contract().to_owned(),
            view: call.view.to_string(),
            config: call.config.to_string(),
            kind,
        },
        inputs: columns(inputs),
        outputs: columns(outputs),
    }
}

fn failure_of(call: &ObservedCall<'_>, row: usize) -> Option<Failure> {
    let index = call.failed.binary_search_by_key(&row, |failed| failed.row).ok()?;
    let error = &call.failed[index].error;
    Some(Failure { message: truncated(error.to_string()), kind: error.kind() })
}

/// Truncates the message of a failed row to [`MESSAGE_BYTES_MAX`] bytes.
pub(crate) fn truncated(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_message_is_truncated_at_character() {
        let longest = "a".repeat(MESSAGE_BYTES_MAX);
        assert_eq!(truncated(longest.clone()), longest);
        assert_eq!(truncated(format!("{longest}b")), longest);
        let split = "a".repeat(MESSAGE_BYTES_MAX - 1) + "ü";
        assert_eq!(truncated(split).len(), MESSAGE_BYTES_MAX - 1);
    }
}
