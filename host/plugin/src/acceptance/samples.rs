//! Samples of the inputs that a version of a plugin computed recently. The acceptance checks of the next version compute
//! them, too.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::Inputs;

/// The most recent samples.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    batches: AtomicU64,
    samples: Mutex<VecDeque<Inputs>>,
}

/// The maximum number of samples.
const SAMPLES_MAX: usize = 16;
/// The maximum number of rows of a sample.
const ROWS_MAX: usize = 16;
/// The maximum size of a sample's columns in bytes. Larger batches are not sampled.
const BYTES_MAX: usize = 64 << 10;
/// One batch in this many is sampled, after the first ones.
const INTERVAL: u64 = 1_024;

// === impl Samples ===

impl Samples {
    /// Keeps the first rows of a batch, for a few batches.
    #[inline]
    pub(crate) fn note(&self, inputs: &Inputs) {
        let batch = self.batches.fetch_add(1, Ordering::Relaxed);
        if batch < SAMPLES_MAX as u64 || batch.is_multiple_of(INTERVAL) {
            self.keep(inputs);
        }
    }

    #[cold]
    fn keep(&self, inputs: &Inputs) {
        let rows = inputs.rows().min(ROWS_MAX);
        let row_bytes = inputs.frame().bytes().len() / inputs.rows().max(1);
        if rows == 0 || row_bytes * rows > BYTES_MAX {
            return;
        }
        let sample = inputs.slice(0..rows);
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Returns the samples, oldest first.
    pub(crate) fn get(&self) -> Vec<Inputs> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
