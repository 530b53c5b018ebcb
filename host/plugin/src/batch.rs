//! Computes a batch with as many calls as it needs, so that a row that fails does not affect other rows.
//!
//! A batch is divided into calls that are expected to take a fraction of the time limit. If a call fails, the rows that
//! make it fail are found by dividing the call: each half is called again, down to single rows. A call with several
//! rows may take only 16 times its expected time, or a fifth of the limit if that is longer, because its rows can be called
//! again; a single row may take as long as the limit allows. So with [`OnFailure::FindRows`], a row usually fails only if the plugin cannot
//! compute it alone.
//!
//! The number of failed calls of a batch is limited. After [`FAILED_CALLS_MAX`], further failed calls are not divided,
//! and all of their rows fail. After [`FAILED_CALLS_END`], the rows that are left fail without a call.

use std::{ops::Range, sync::Arc, time::Duration};

use larder_common::compute::checkpoint;

use super::{
    CallError, ColumnType, FailedRow, Frame, FrameBuilder, Inputs, Interrupt, PluginLimits, call_clock::Cost,
    world::Validated,
};

/// What happens after a failed call of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Divides calls that return an error, up to a few of them. For all other failures, returns [`NeedsIsolation`], so
    /// that the caller computes the batch again on a compute thread. Each call gets at most 16 times the time that it is
    /// expected to take, or a millisecond if that is longer, because it blocks a serving thread.
    Inline,
    /// As [`OnFailure::Inline`], for a compute thread: the caller computes the batch again on an isolation thread, and a
    /// call gets at least a fifth of the time limit.
    Escalate,
    /// Finds the rows that fail, by repeating the call with fewer rows.
    FindRows,
    /// All rows of the call fail, unless it used too much time. Then the call is divided, because a slow call must not
    /// fail only because other calls fail. The CPU time of failed calls is limited.
    FailCall,
}

/// The error of a batch that has to be computed again on other threads, or whose caller has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeedsIsolation;

/// Calls a plugin.
pub(super) trait Caller {
    /// Calls the plugin once. `time` is the limit on CPU time.
    fn call_once(&self, inputs: &Inputs, time: Duration) -> Called;
    /// Returns the limits.
    fn limits(&self) -> &PluginLimits;
    /// Returns the CPU time that a call with this many rows is expected to take.
    fn expected(&self, rows: usize) -> Duration;
    /// Records the CPU time of a call with this many rows.
    fn note_cost(&self, rows: usize, cpu: Duration);
    /// Returns the types of the outputs.
    fn output_types(&self) -> Vec<ColumnType>;
}

/// The result of a single call.
pub(super) struct Called {
    pub(super) result: Result<Validated, CallError>,
    pub(super) cost: Cost,
}

/// A batch that is being computed.
pub(super) struct Batch<'b, C> {
    caller: &'b C,
    inputs: &'b Inputs,
    on_failure: OnFailure,
    /// The outputs of the rows that are done, in order.
    parts: Vec<Frame>,
    failed: Vec<FailedRow>,
    failed_calls: usize,
    /// The number of failed calls that were not divided and used all of the time limit.
    timeouts: usize,
    elapsed: Duration,
    /// The CPU time of the calls that did not fail.
    cpu: Duration,
    /// The CPU time of the calls that trapped, exceeded a limit or returned an invalid result, except those whose rows were
    /// all computed by further calls.
    failed_cpu: Duration,
    /// The CPU time of the failed calls that were not divided.
    undivided_cpu: Duration,
    /// The CPU time of the calls that returned an error.
    fault_cpu: Duration,
    /// The number of rows whose calls failed.
    rows_of_failed_calls: usize,
}

/// The maximum number of failed calls of a batch. Further failed calls are not divided.
const FAILED_CALLS_MAX: usize = 256;
/// The number of failed calls after which no further calls are made. The rows that are left fail.
const FAILED_CALLS_END: usize = FAILED_CALLS_MAX + 64;
/// The maximum number of calls of a batch that are not divided, use all of the time limit and fail. After that, failed
/// calls are not divided.
const TIMEOUTS_MAX: usize = 16;
/// With [`OnFailure::FailCall`], failed calls of a batch that are not divided take at most this many times the time limit.
/// After that, the rows that are left fail.
const FAILED_LIMITS_MAX: u32 = 4;
/// The maximum number of errors that a plugin returned before a batch is computed again on other threads. Such an error
/// costs little.
const FAULTS_INLINE: usize = 16;
/// The maximum CPU time of calls on a serving thread that returned an error.
const FAULTS_INLINE_CPU: Duration = Duration::from_millis(1);
/// A call is expected to take at most one in this many parts of the time limit.
const LIMIT_SHARE: u32 = 4;
/// A call with several rows, or on a serving thread, may take this many times its expected time.
const EXPECTED_FACTOR: u32 = 16;
/// Such a call may take at least one in this many parts of the time limit.
const QUICK_SHARE: u32 = 5;
/// A call on a serving thread may take at least this time, which is the resolution of the limit.
const INLINE_LEAST: Duration = Duration::from_millis(1);
/// The inputs of a call take at most one in this many parts of an instance's memory.
const MEMORY_SHARE: usize = 8;

// === impl Called ===

impl Called {
    /// Returns the result of a call that was not made.
    pub(super) fn failed(error: CallError) -> Self {
        Self { result: Err(error), cost: Cost::default() }
    }
}

// === impl Batch ===

impl<'b, C: Caller> Batch<'b, C> {
    pub(super) fn new(caller: &'b C, inputs: &'b Inputs, on_failure: OnFailure) -> Self {
        Self {
            caller,
            inputs,
            on_failure,
            parts: Vec::with_capacity(1),
            failed: Vec::new(),
            failed_calls: 0,
            timeouts: 0,
            elapsed: Duration::ZERO,
            cpu: Duration::ZERO,
            failed_cpu: Duration::ZERO,
            undivided_cpu: Duration::ZERO,
            fault_cpu: Duration::ZERO,
            rows_of_failed_calls: 0,
        }
    }

    /// Computes all rows.
    ///
    /// # Errors
    /// [`NeedsIsolation`], if `on_failure` is [`OnFailure::Inline`] or [`OnFailure::Escalate`] and a failed call may not be
    /// divided, or if the task of the current thread is abandoned.
    pub(super) fn run(&mut self) -> Result<(), NeedsIsolation> {
        let rows = self.inputs.rows();
        if rows == 0 {
            return self.compute(0..0);
        }
        let mut start = 0;
        while start < rows {
            let end = start + self.rows_per_call(start..rows);
            let (failed_calls, failed_rows) = (self.failed_calls, self.rows_of_failed_calls);
            let (cpu, failed_cpu) = (self.cpu, self.failed_cpu);
            self.compute(start..end)?;
            if self.failed_calls > failed_calls && self.rows_of_failed_calls == failed_rows {
                // The call took longer than expected, but each of its rows can be computed.
                self.caller.note_cost(end - start, self.cpu - cpu);
                self.failed_cpu = failed_cpu;
            }
            let is_divided = end - start < rows;
            start = end;
            if is_divided && start == rows && self.rows_of_failed_calls == 0 {
                // Calls with this many rows are not made while they are expected to take long. Without this, the
                // expectation would never change.
                self.caller.note_cost(rows, self.cpu);
            }
        }
        Ok(())
    }

    /// Returns the outputs of all rows, and the rows that failed, in ascending order.
    pub(super) fn finish(self) -> (Frame, Vec<FailedRow>) {
        let mut parts = self.parts;
        let frame = match &*parts {
            [_] => parts.swap_remove(0),
            _ => Frame::concat(self.caller.output_types(), &parts),
        };
        (frame, self.failed)
    }

    /// Returns the total duration of all calls.
    pub(super) fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Returns the CPU time of the calls that trapped, exceeded a limit or returned an invalid result, except those whose rows
    /// were all computed by further calls.
    pub(super) fn failed_cpu(&self) -> Duration {
        self.failed_cpu
    }

    /// Returns the CPU time of the calls that returned an error.
    pub(super) fn fault_cpu(&self) -> Duration {
        self.fault_cpu
    }

    /// Returns the number of rows of the next call, if these rows are left.
    fn rows_per_call(&self, left: Range<usize>) -> usize {
        let limits = self.caller.limits();
        let rows_max = self.inputs.rows_of_same_time(left.clone()).min(limits.rows_per_call).max(1);
        let rows_max = self.rows_that_fit(left.start, rows_max, limits.memory_bytes / MEMORY_SHARE);
        let is_quick = |rows: usize| self.caller.expected(rows) <= limits.time / LIMIT_SHARE;
        if is_quick(rows_max) {
            return rows_max;
        }
        let powers = (0..=rows_max.ilog2()).rev().map(|power| 1 << power);
        powers.filter(|rows| *rows < rows_max).find(|rows| is_quick(*rows)).unwrap_or(1)
    }

    /// Returns how many rows from `start` on have inputs of at most `bytes_max` bytes: at least 1, and at most `rows_max`.
    fn rows_that_fit(&self, start: usize, rows_max: usize, bytes_max: usize) -> usize {
        let frame = self.inputs.frame();
        let fits = |rows: usize| frame.bytes_of(start..start + rows) <= bytes_max;
        if frame.bytes().len() <= bytes_max || fits(rows_max) {
            return rows_max;
        }
        // The sizes of rows differ, so the number of rows is found by bisection.
        let (mut fitting, mut too_many) = (1, rows_max);
        while too_many - fitting > 1 {
            let middle = fitting.midpoint(too_many);
            if fits(middle) { fitting = middle } else { too_many = middle }
        }
        fitting
    }

    /// Computes some rows, which follow the rows that are done.
    fn compute(&mut self, rows: Range<usize>) -> Result<(), NeedsIsolation> {
        if self.is_over() || self.failed_calls >= FAILED_CALLS_END {
            self.fail(rows, CallError::Skipped);
            return Ok(());
        }
        if checkpoint() {
            return Err(NeedsIsolation);
        }
        let is_whole = rows.len() == self.inputs.rows();
        let slice = if is_whole { None } else { Some(self.inputs.slice(rows.clone())) };
        let time = self.time(rows.len());
        let called = self.caller.call_once(slice.as_ref().unwrap_or(self.inputs), time);
        self.elapsed += called.cost.elapsed;
        match called.result {
            Ok((outputs, failed)) => {
                self.cpu += called.cost.cpu;
                let failed = failed.into_iter().map(|(row, message)| FailedRow {
                    row: rows.start + row,
                    error: Arc::new(CallError::Row(message)),
                });
                self.failed.extend(failed);
                self.parts.push(outputs);
                Ok(())
            }
            Err(error) => {
                // The cost is not recorded: the rows may be endless, and the batches of other callers would then move to
                // the compute threads.
                if matches!(error, CallError::Fault(_)) {
                    self.fault_cpu += called.cost.cpu;
                } else {
                    self.failed_cpu += called.cost.cpu;
                }
                self.recover(rows, error, called.cost.cpu)
            }
        }
    }

    /// Handles a failed call with these rows, which used this CPU time.
    fn recover(&mut self, rows: Range<usize>, error: CallError, cpu: Duration) -> Result<(), NeedsIsolation> {
        if matches!(error, CallError::Busy(_)) {
            // The rows did not cause the error, and the next call would fail, too.
            self.fail(rows, error);
            return Ok(());
        }
        let is_fault = matches!(error, CallError::Fault(_));
        let is_cheap = self.on_failure == OnFailure::Escalate || self.fault_cpu <= FAULTS_INLINE_CPU;
        let may_divide = match self.on_failure {
            OnFailure::Inline | OnFailure::Escalate if is_fault && is_cheap && self.failed_calls < FAULTS_INLINE => {
                true
            }
            OnFailure::Inline | OnFailure::Escalate => return Err(NeedsIsolation),
            OnFailure::FindRows => self.failed_calls < FAILED_CALLS_MAX && self.timeouts < TIMEOUTS_MAX,
            OnFailure::FailCall => is_timeout(&error) && !self.is_over(),
        };
        self.failed_calls += 1;
        if may_divide && rows.len() > 1 {
            let middle = rows.start + rows.len() / 2;
            self.compute(rows.start..middle)?;
            return self.compute(middle..rows.end);
        }
        self.undivided_cpu += cpu;
        if is_timeout(&error) {
            self.timeouts += 1;
        }
        self.fail(rows, error);
        Ok(())
    }

    /// Returns the time limit of a call with this many rows.
    fn time(&self, rows: usize) -> Duration {
        let limit = self.caller.limits().time;
        let least = match self.on_failure {
            OnFailure::Inline => INLINE_LEAST,
            OnFailure::FindRows | OnFailure::FailCall if rows <= 1 => limit,
            _ => limit / QUICK_SHARE,
        };
        (self.caller.expected(rows) * EXPECTED_FACTOR).max(least).min(limit)
    }

    /// Returns whether failed calls used all of the time that a batch has without a search for the failed rows.
    fn is_over(&self) -> bool {
        self.on_failure == OnFailure::FailCall && self.undivided_cpu >= self.caller.limits().time * FAILED_LIMITS_MAX
    }

    /// Records that rows failed.
    fn fail(&mut self, rows: Range<usize>, error: CallError) {
        self.rows_of_failed_calls += rows.len();
        let error = Arc::new(error);
        self.parts.push(FrameBuilder::new(self.caller.output_types(), rows.len()).finish());
        self.failed.extend(rows.map(|row| FailedRow { row, error: Arc::clone(&error) }));
    }
}

fn is_timeout(error: &CallError) -> bool {
    matches!(error, CallError::Interrupt(Interrupt::Timeout(_)))
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, iter};

    use larder_model::model::ValueRef;

    use super::*;
    use crate::{ColumnScalar, InputsBuilder, PluginSettings, inputs::TimeColumn};

    /// A plugin without outputs. All of its calls succeed.
    struct Plugin {
        limits: PluginLimits,
        /// Whether each call with several rows, or with less than the whole limit, fails.
        is_slow: bool,
        /// Whether each call fails.
        is_endless: bool,
        /// The CPU time of each row, which is known before the first call.
        row_time: Duration,
        /// The number of rows and the bytes of inputs of each call.
        calls: RefCell<Vec<(usize, usize)>>,
        /// The number of rows of each recorded cost.
        noted: RefCell<Vec<usize>>,
    }

    const ROWS: usize = 4_096;
    const ITEMS: usize = 64;

    impl Caller for Plugin {
        fn call_once(&self, inputs: &Inputs, time: Duration) -> Called {
            self.calls.borrow_mut().push((inputs.rows(), inputs.frame().bytes().len()));
            if self.is_endless || (self.is_slow && (time < self.limits.time || inputs.rows() > 1)) {
                let error = CallError::Interrupt(Interrupt::Timeout(time));
                return Called { result: Err(error), cost: Cost { elapsed: time, cpu: time } };
            }
            Called { result: Ok((FrameBuilder::new([], inputs.rows()).finish(), Vec::new())), cost: Cost::default() }
        }

        fn limits(&self) -> &PluginLimits {
            &self.limits
        }

        fn expected(&self, rows: usize) -> Duration {
            self.row_time * u32::try_from(rows).unwrap()
        }

        fn note_cost(&self, rows: usize, _: Duration) {
            self.noted.borrow_mut().push(rows);
        }

        fn output_types(&self) -> Vec<ColumnType> {
            Vec::new()
        }
    }

    fn plugin(limits: PluginLimits, row_time: Duration) -> Plugin {
        let (calls, noted) = (RefCell::default(), RefCell::default());
        Plugin { limits, is_slow: false, is_endless: false, row_time, calls, noted }
    }

    /// Computes rows with a list of doubles each. Returns the number of rows and the bytes of inputs of each call.
    fn calls(limits: PluginLimits, row_time: Duration) -> Vec<(usize, usize)> {
        calls_of(limits, row_time, |_| ITEMS)
    }

    /// Does the same with the given number of doubles in each row.
    fn calls_of(limits: PluginLimits, row_time: Duration, items_of: impl Fn(usize) -> usize) -> Vec<(usize, usize)> {
        let plugin = plugin(limits, row_time);
        let types = [ColumnType::list(ColumnScalar::Float64)].into_iter();
        let mut inputs = InputsBuilder::new(types, 0.into(), TimeColumn::None, ROWS);
        let items = |row: usize| iter::repeat_n(ValueRef::Float64(0.0), items_of(row));
        inputs.column(|column| (0..ROWS).for_each(|row| column.push_list(items(row))));
        let inputs = inputs.finish();
        let mut batch = Batch::new(&plugin, &inputs, OnFailure::Escalate);
        batch.run().unwrap();
        let (frame, failed) = batch.finish();
        assert_eq!((frame.rows(), failed.len()), (ROWS, 0));
        plugin.calls.into_inner()
    }

    /// Computes this number of rows. Returns the number of failed rows and of calls.
    fn failures(is_slow: bool, is_endless: bool, rows: usize, on_failure: OnFailure) -> Option<(usize, usize)> {
        let plugin = Plugin { is_slow, is_endless, ..plugin(limits(), Duration::ZERO) };
        let inputs = InputsBuilder::new([].into_iter(), 0.into(), TimeColumn::None, rows).finish();
        let mut batch = Batch::new(&plugin, &inputs, on_failure);
        batch.run().ok()?;
        let (frame, failed) = batch.finish();
        assert_eq!(frame.rows(), rows);
        // The costs of endless calls are not recorded, because the batches of other callers would then be taken for slow
        // ones.
        let is_recorded = is_slow && !is_endless;
        assert_eq!(plugin.noted.take(), if is_recorded { vec![rows] } else { vec![] });
        Some((failed.len(), plugin.calls.take().len()))
    }

    #[test]
    fn slow_calls_are_divided_until_they_succeed() {
        // Seven calls are divided.
        assert_eq!(failures(true, false, 8, OnFailure::Escalate), None);
        assert_eq!(failures(true, false, 8, OnFailure::FindRows), Some((0, 15)));
        assert_eq!(failures(true, false, 8, OnFailure::FailCall), Some((0, 15)), "isolation is busy");
    }

    #[test]
    fn endless_calls_end_the_batch() {
        // Three calls are divided, with a fifth of the limit. The single rows have the whole limit.
        assert_eq!(failures(true, true, 8, OnFailure::FailCall), Some((8, 8)));
        assert_eq!(failures(true, true, 1, OnFailure::FailCall), Some((1, 1)));
    }

    fn limits() -> PluginLimits {
        PluginSettings::default().compiled
    }

    #[test]
    fn calls_take_share_of_memory() {
        for memory_bytes in [limits().memory_bytes, 1 << 20, 64 << 10] {
            let calls = calls(PluginLimits { memory_bytes, ..limits() }, Duration::ZERO);
            let share = memory_bytes / MEMORY_SHARE;
            assert!(calls.iter().all(|(_, bytes)| *bytes <= share), "{memory_bytes}: {calls:?}");
            // No call is smaller than needed, except for the last one.
            let (_, full) = calls.split_last().unwrap();
            assert!(full.iter().all(|(_, bytes)| bytes + (ITEMS + 2) * 8 > share), "{memory_bytes}: {calls:?}");
            assert_eq!(calls.iter().map(|(rows, _)| rows).sum::<usize>(), ROWS);
        }
    }

    /// Calls with rows that are larger than the average do not take more memory.
    #[test]
    fn large_rows_are_in_small_calls() {
        let share = limits().memory_bytes / MEMORY_SHARE;
        let calls = calls_of(limits(), Duration::ZERO, |row| if row < 100 { 10_000 } else { 1 });
        assert!(calls.iter().all(|(_, bytes)| *bytes <= share), "{calls:?}");
        let sizes: Vec<usize> = calls.iter().map(|(rows, _)| *rows).collect();
        assert_eq!((&sizes[..4], sizes.len()), (&[26, 26, 26, ROWS - 78][..], 4));
    }

    #[test]
    fn sufficient_memory_needs_one_call() {
        let sufficient = PluginLimits { memory_bytes: MEMORY_SHARE * (ITEMS * 8 + 16) * ROWS, ..limits() };
        let of_sizes = |limits, row_time| calls(limits, row_time).iter().map(|(rows, _)| *rows).collect::<Vec<_>>();
        assert_eq!(of_sizes(sufficient, Duration::ZERO), [ROWS]);
        assert_eq!(
            of_sizes(PluginLimits { rows_per_call: 1_000, ..sufficient }, Duration::ZERO),
            [1_000, 1_000, 1_000, 1_000, 96]
        );
        // A row that is larger than the share is in a call of its own.
        assert_eq!(of_sizes(PluginLimits { memory_bytes: 1 << 10, ..limits() }, Duration::ZERO), [1; ROWS]);
    }

    #[test]
    fn calls_take_share_of_time() {
        let limits = PluginLimits { memory_bytes: 1 << 30, ..limits() };
        let share = limits.time / LIMIT_SHARE;
        for (row_time, rows) in [
            (share / 4_096, 4_096),
            (share / 4_000, 2_048),
            (share / 100, 64),
            (share, 1),
            // A row that takes longer than the share is in a call of its own.
            (10 * share, 1),
        ] {
            let calls = calls(limits, row_time);
            assert!(calls.iter().all(|call| call.0 == rows), "{row_time:?}: {calls:?}");
            assert_eq!(calls.len(), ROWS / rows);
        }
    }
}
