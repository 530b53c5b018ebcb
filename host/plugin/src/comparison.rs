//! Compares two versions of a plugin while requests are served: a shadow run.
//!
//! A version computes a request, and the inputs and outputs of some requests are copied to a queue. The thread of shadow
//! runs (`shadow.rs`) computes them with the other version, and adds the differences to a [`Diff`]. It also computes some
//! of them again with the same version: a version whose outputs then differ is not pure.

mod metrics;

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use larder_common::compute::thread_cpu_time;
use larder_model::model::DerivedView;
use serde::{Deserialize, Serialize};

use self::metrics::ComparisonMetrics;
use super::{
    Diff, DiffRows, DiffSide, Inputs, OutputDiff, Outputs, OwnInstance, RunCost, Signature, Transform, VitalCounts,
    acceptance::{ChangedOutput, changed_output},
    random::next_random,
    shadow::{ShadowThread, ShadowWork},
    vitals::Vitals,
};

/// A comparison of two versions of a plugin, `old` and `new`, in one derived view.
pub struct Comparison {
    old: Side,
    new: Side,
    /// Whether the version that computed a sample computes all of them again, to compare durations.
    repeats_all: AtomicBool,
    /// A request is sampled if a random number of 32 bits is below this number.
    threshold: AtomicU64,
    queue: Mutex<Queue>,
    /// Locked only by the thread.
    instances: Mutex<Instances>,
    report: Mutex<ComparisonReport>,
    metrics: ComparisonMetrics,
    thread: Arc<ShadowThread>,
}

/// One of the two versions.
struct Side {
    transform: Arc<Transform>,
    /// Counts of the results that requests receive from this version.
    vitals: Vitals,
    /// What the samples got from this version. Both versions computed the same rows. The durations are CPU times of the
    /// thread of shadow runs, of samples that both versions computed there.
    paired: Vitals,
}

/// The samples that wait to be computed.
#[derive(Default)]
struct Queue {
    samples: VecDeque<Sample>,
    bytes: usize,
}

/// A batch that one version computed for a request.
struct Sample {
    computed_by: DiffSide,
    inputs: Inputs,
    outputs: Outputs,
    /// The inputs of the other version, if they cannot be taken from `inputs`.
    other_inputs: Option<Inputs>,
    bytes: usize,
}

/// The instances in which the thread computes samples, and the costs of earlier instances.
struct Instances {
    old: OwnInstance<Arc<Transform>>,
    new: OwnInstance<Arc<Transform>>,
    earlier: (RunCost, RunCost),
}

/// The results of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComparisonReport {
    /// The differences.
    pub diff: Diff,
    /// The cost of the old version in shadow runs. Requests are not included.
    pub old_cost: RunCost,
    /// The cost of the new version in shadow runs. Requests are not included.
    pub new_cost: RunCost,
    /// The number of compared batches.
    pub samples: u64,
    /// The number of sampled batches that were dropped because the queue was full.
    pub dropped: u64,
    /// The number of rows that a version computed twice.
    pub repeated: u64,
    /// The number of batches whose outputs were different when the same version computed them again.
    pub impure: u64,
    /// The first such difference.
    pub first_impure: Option<String>,
}

/// The maximum size of the samples in the queue in bytes.
const QUEUE_BYTES_MAX: usize = 8 << 20;
/// The maximum number of rows of a sample. Of a larger batch, consecutive rows from a random position are sampled.
const ROWS_MAX: usize = 256;
/// One sample in this many is computed again by the version that computed it.
const REPEATED_EVERY: u64 = 100;

// === impl Comparison ===

impl Comparison {
    /// Starts a comparison of two bindings of a plugin to the same view. `ratio` is the share of requests that are sampled,
    /// from 0 to 1. A comparison that was interrupted continues with its last report, if it has the same outputs.
    ///
    /// # Errors
    /// If the thread for shadow runs cannot be started.
    pub fn start(
        (old, new): (&Arc<Transform>, &Arc<Transform>),
        view: &DerivedView,
        ratio: f64,
        tolerance: f64,
        last: Option<ComparisonReport>,
    ) -> std::io::Result<Arc<Self>> {
        let thread = Arc::clone(new.runtime().shadow_thread()?);
        let diff = Diff::new(old.component().signature(), new.component().signature(), tolerance);
        let report = last.filter(|last| last.is_of(&diff)).unwrap_or_else(|| ComparisonReport::new(diff));
        let comparison = Arc::new(Self {
            metrics: ComparisonMetrics::bind(&new.component().signature().name, view, &report.diff),
            old: Side::of(old),
            new: Side::of(new),
            repeats_all: AtomicBool::new(false),
            threshold: AtomicU64::new(0),
            queue: Mutex::default(),
            instances: Mutex::new(Instances {
                old: OwnInstance::new(Arc::clone(old)),
                new: OwnInstance::new(Arc::clone(new)),
                earlier: (report.old_cost, report.new_cost),
            }),
            report: Mutex::new(report),
            thread,
        });
        comparison.sample(ratio, false);
        let work: Weak<dyn ShadowWork> = Arc::<Self>::downgrade(&comparison);
        comparison.thread.add(work);
        Ok(comparison)
    }

    /// Returns the old version.
    #[must_use]
    pub fn old(&self) -> &Arc<Transform> {
        &self.old.transform
    }

    /// Returns the new version.
    #[must_use]
    pub fn new_version(&self) -> &Arc<Transform> {
        &self.new.transform
    }

    /// Returns the version that did not compute a batch.
    #[must_use]
    pub fn other(&self, computed_by: &Arc<Transform>) -> &Arc<Transform> {
        if Arc::ptr_eq(computed_by, &self.new.transform) { &self.old.transform } else { &self.new.transform }
    }

    /// Sets the share of requests that are sampled, from 0 to 1, and whether both versions compute all samples, so that their
    /// durations can be compared.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^32")]
    pub fn sample(&self, ratio: f64, repeats_all: bool) {
        self.repeats_all.store(repeats_all, Ordering::Relaxed);
        self.threshold.store((ratio.clamp(0.0, 1.0) * 2_f64.powi(32)) as u64, Ordering::Relaxed);
    }

    /// Counts a batch that a version computed for a request. Returns whether the batch should be passed to
    /// [`Comparison::offer`].
    pub fn note(&self, computed_by: &Arc<Transform>, outputs: &Outputs, took: Duration) -> bool {
        self.side(self.side_of(computed_by)).vitals.note(outputs, Some(took));
        u64::from(next_random()) < self.threshold.load(Ordering::Relaxed)
    }

    /// Adds a batch to the queue, or drops and counts it if the queue is full. Never waits for a computation.
    /// `other_inputs` must be given if the other version reads inputs that this one does not.
    pub fn offer(&self, computed_by: &Arc<Transform>, inputs: Inputs, outputs: &Outputs, other_inputs: Option<Inputs>) {
        let rows = inputs.rows();
        let (inputs, outputs, other_inputs) = if rows > ROWS_MAX {
            let start = next_random() as usize % (rows - ROWS_MAX + 1);
            let part = start..start + ROWS_MAX;
            let other_inputs = other_inputs.map(|inputs| inputs.slice(part.clone()));
            (inputs.slice(part.clone()), outputs.select(&part.collect::<Vec<_>>()), other_inputs)
        } else {
            (inputs, outputs.clone(), other_inputs)
        };
        let bytes = mem::size_of::<Sample>()
            + inputs.memory()
            + outputs.memory()
            + other_inputs.as_ref().map_or(0, Inputs::memory);
        let sample = Sample { computed_by: self.side_of(computed_by), inputs, outputs, other_inputs, bytes };
        let mut queue = self.queue();
        if queue.bytes + bytes > QUEUE_BYTES_MAX {
            return self.metrics.dropped();
        }
        queue.bytes += bytes;
        queue.samples.push_back(sample);
    }

    /// Returns the results so far.
    #[must_use]
    pub fn report(&self) -> ComparisonReport {
        let mut report = self.lock_report().clone();
        report.dropped += self.metrics.dropped_count();
        report
    }

    /// Returns what samples got from the old version and from the new one, for the same rows, since the comparison was
    /// started. The durations are CPU times, of samples that both versions computed on the thread of shadow runs.
    #[must_use]
    pub fn paired(&self) -> (VitalCounts, VitalCounts) {
        (self.old.paired.get(), self.new.paired.get())
    }

    /// Returns counts of the results that requests received from the old version and from the new one since the comparison
    /// was started.
    #[must_use]
    pub fn vitals(&self) -> (VitalCounts, VitalCounts) {
        (self.old.vitals.get(), self.new.vitals.get())
    }

    fn side_of(&self, transform: &Arc<Transform>) -> DiffSide {
        if Arc::ptr_eq(transform, &self.new.transform) { DiffSide::New } else { DiffSide::Old }
    }

    fn side(&self, side: DiffSide) -> &Side {
        match side {
            DiffSide::Old => &self.old,
            DiffSide::New => &self.new,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is consistent after every statement that can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_report(&self) -> MutexGuard<'_, ComparisonReport> {
        // If adding a sample panicked, the sample is counted in part.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compute(&self, sample: &Sample) {
        // The instances are consistent after every call, even if the call panicked.
        let instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        let (by, other, same_instance, other_instance) = match sample.computed_by {
            DiffSide::Old => (&self.old, &self.new, &instances.old, &instances.new),
            DiffSide::New => (&self.new, &self.old, &instances.new, &instances.old),
        };
        let adapted = sample.other_inputs.is_none().then(|| other.transform.adapt(&sample.inputs, &by.transform));
        let other_inputs = sample.other_inputs.as_ref().or(adapted.as_ref()).unwrap_or(&sample.inputs);
        let (others, took_other) = timed(|| other_instance.compute(other_inputs));
        let is_repeated =
            self.repeats_all.load(Ordering::Relaxed) || self.lock_report().samples.is_multiple_of(REPEATED_EVERY);
        let (again, took_again) = if is_repeated {
            let (again, took) = timed(|| same_instance.compute(&sample.inputs));
            (Some(again), Some(took))
        } else {
            (None, None)
        };
        by.paired.note(&sample.outputs, took_again);
        other.paired.note(&others, took_again.map(|_| took_other));
        let changed = again.and_then(|again| changed_output(&by.signature().outputs, &sample.outputs, &again));
        let (old, new) = match sample.computed_by {
            DiffSide::Old => (&sample.outputs, &others),
            DiffSide::New => (&others, &sample.outputs),
        };
        let mut report = self.lock_report();
        let before: Vec<u64> = report.diff.outputs.iter().map(OutputDiff::changed).collect();
        let rows = DiffRows { transform: &by.transform, inputs: &sample.inputs, old, new };
        report.diff.add(self.old.signature(), self.new.signature(), rows);
        self.metrics.compared(sample.inputs.rows(), &before, &report.diff);
        report.old_cost = instances.earlier.0.plus(instances.old.cost());
        report.new_cost = instances.earlier.1.plus(instances.new.cost());
        report.repeated += if is_repeated { sample.inputs.rows() as u64 } else { 0 };
        report.samples += 1;
        if let Some(changed) = changed {
            self.metrics.impure();
            report.note_impure(by.signature(), &changed);
        }
    }
}

impl ShadowWork for Comparison {
    fn compute_next(&self) -> bool {
        let mut queue = self.queue();
        let Some(sample) = queue.samples.pop_front() else { return false };
        queue.bytes -= sample.bytes;
        drop(queue);
        self.compute(&sample);
        true
    }
}

impl std::fmt::Debug for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Comparison")
            .field("old", &self.old.transform)
            .field("new", &self.new.transform)
            .finish_non_exhaustive()
    }
}

// === impl Side ===

impl Side {
    fn of(transform: &Arc<Transform>) -> Self {
        let outputs = transform.component().signature().outputs.len();
        Self { transform: Arc::clone(transform), vitals: Vitals::new(outputs), paired: Vitals::new(outputs) }
    }

    fn signature(&self) -> &Signature {
        self.transform.component().signature()
    }
}

/// Returns a result and the CPU time of its computation.
fn timed<T>(compute: impl FnOnce() -> T) -> (T, Duration) {
    let before = thread_cpu_time();
    let result = compute();
    (result, thread_cpu_time().saturating_sub(before))
}

// === impl ComparisonReport ===

impl ComparisonReport {
    fn new(diff: Diff) -> Self {
        Self {
            diff,
            old_cost: RunCost::default(),
            new_cost: RunCost::default(),
            samples: 0,
            dropped: 0,
            repeated: 0,
            impure: 0,
            first_impure: None,
        }
    }

    /// Records that a version computed other outputs for the same row. The values are data of a caller, so the log does not
    /// have them.
    fn note_impure(&mut self, signature: &Signature, changed: &ChangedOutput) {
        let Signature { name: plugin, version, .. } = signature;
        let ChangedOutput { output, first, second } = changed;
        if self.impure == 0 {
            tracing::error!(
                plugin,
                version,
                output,
                "plugin is not pure: it computed different values when it computed a row again; see `larder plugin diff`"
            );
        }
        self.impure += 1;
        self.first_impure.get_or_insert_with(|| {
            format!("output '{output}' of version {version} was {first}, but {second} when the row was computed again")
        });
    }

    /// Returns whether this is a report of the same outputs with the same tolerance as an empty comparison.
    fn is_of(&self, empty: &Diff) -> bool {
        let names = |diff: &Diff| diff.outputs.iter().map(|output| output.name.clone()).collect::<Vec<_>>();
        self.diff.tolerance.to_bits() == empty.tolerance.to_bits()
            && names(&self.diff) == names(empty)
            && (&self.diff.only_old, &self.diff.only_new) == (&empty.only_old, &empty.only_new)
    }
}
