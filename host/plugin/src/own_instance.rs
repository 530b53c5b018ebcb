//! Calls a plugin in an instance of its own, without an effect on requests: for checks, comparisons and tools.

use std::{
    cell::{Cell, RefCell},
    ops::Deref,
    time::Duration,
};

use super::{
    CallError, ColumnType, Inputs, Interrupt, OnFailure, Outputs, PluginLimits, RunCost, Transform,
    batch::{Batch, Called, Caller},
    guest::Guest,
};

/// Computes batches in an instance of its own. Neither counts the calls in metrics nor logs rows that fail. `T` is a
/// reference to the plugin.
pub struct OwnInstance<T> {
    transform: T,
    guest: RefCell<Option<Guest>>,
    cost: Cell<RunCost>,
    /// The number of rows and the error of the first failed call with several rows of the last batch, if it was not a limit.
    failed_together: RefCell<Option<(usize, CallError)>>,
    /// Whether the plugin's estimate of the cost of calls includes these calls.
    has_recorded_costs: bool,
}

/// The number of calls after which the instance is replaced, as for instances that serve requests.
const CALLS_MAX: u32 = 10_000;

// === impl OwnInstance ===

impl<T: Deref<Target = Transform>> OwnInstance<T> {
    /// Creates the instance at the first call. Its costs do not affect where requests are computed.
    pub fn new(transform: T) -> Self {
        Self {
            transform,
            guest: RefCell::default(),
            cost: Cell::default(),
            failed_together: RefCell::default(),
            has_recorded_costs: false,
        }
    }

    /// Does the same, but the estimate of the cost of later requests includes the costs of its calls.
    pub(super) fn recording(transform: T) -> Self {
        Self { has_recorded_costs: true, ..Self::new(transform) }
    }

    /// Computes a batch. If a call fails, finds the rows that fail. An instance whose call did not end is replaced.
    #[must_use]
    pub fn compute(&self, inputs: &Inputs) -> Outputs {
        self.failed_together.take();
        let mut batch = Batch::new(self, inputs, OnFailure::FindRows);
        // `FindRows` returns an error only if the task of this thread is abandoned. Then the other rows failed.
        let _ = batch.run();
        let (frame, failed) = batch.finish();
        let mut cost = self.cost.get();
        cost.rows += inputs.rows() as u64;
        self.cost.set(cost);
        self.transform.outputs_of(frame, failed).without(inputs.rejected())
    }

    /// Returns the number of rows and the error of the first call with several rows of the last batch that failed, except
    /// because of a limit on time or memory.
    pub(super) fn failed_together(&self) -> Option<(usize, CallError)> {
        self.failed_together.borrow().clone()
    }

    /// Returns the cost of all calls so far.
    #[must_use]
    pub fn cost(&self) -> RunCost {
        self.cost.get()
    }
}

impl<T: Deref<Target = Transform>> Caller for OwnInstance<T> {
    fn call_once(&self, inputs: &Inputs, time: Duration) -> Called {
        let guest = match self.guest.take().filter(|guest| guest.calls < CALLS_MAX) {
            Some(guest) => Ok(guest),
            None => self.transform.configured(),
        };
        let guest = match guest {
            Ok(guest) => guest,
            Err(error) => return Called::failed(error),
        };
        let (called, guest) = self.transform.call_guest(guest, inputs, time);
        let mut cost = self.cost.get();
        cost.add(called.cost.cpu, guest.as_ref().map_or(0, Guest::high_water));
        self.cost.set(cost);
        self.guest.replace(guest);
        if let (Err(error), 2..) = (&called.result, inputs.rows())
            && !matches!(
                error,
                CallError::Interrupt(Interrupt::Timeout(_) | Interrupt::Elapsed(_) | Interrupt::Memory { .. })
            )
        {
            self.failed_together.borrow_mut().get_or_insert_with(|| (inputs.rows(), error.clone()));
        }
        called
    }

    fn limits(&self) -> &PluginLimits {
        self.transform.limits()
    }

    fn expected(&self, rows: usize) -> Duration {
        self.transform.expected(rows)
    }

    fn note_cost(&self, rows: usize, cpu: Duration) {
        if self.has_recorded_costs {
            self.transform.note_cost(rows, cpu);
        }
    }

    fn output_types(&self) -> Vec<ColumnType> {
        self.transform.output_types()
    }
}

impl<T> std::fmt::Debug for OwnInstance<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnInstance").field("cost", &self.cost).finish_non_exhaustive()
    }
}
