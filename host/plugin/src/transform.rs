//! Binds a plugin to a derived view, and calls it.

use std::{fmt, sync::Arc, time::Duration};

use larder_common::compute::Owner;
use larder_model::{
    model::{DerivedView, ScalarType, ValueRef, ValueType},
    yaml::nearest,
};

use super::{
    AsOf, BindError, CallError, ColumnType, Component, FailedRow, Field, Frame, Incompatibility, Inputs, InputsBuilder,
    Interrupt, Isolation, ObservedCall, Outputs, PluginClass, PluginLimits, PluginRuntime,
    acceptance::Samples,
    batch::{Batch, Called, Caller, NeedsIsolation, OnFailure},
    call_clock::Cost,
    cost::CostEstimator,
    guest::{Bounds, Guest},
    inline_failures::InlineFailures,
    inputs::TimeColumn,
    logs::{Checks, PluginLog},
    metrics::TransformMetrics,
    pool::Pool,
    view_types::{self, ViewOutputs},
};

/// A component that is configured for a derived view. Any thread may call it.
pub struct Transform {
    runtime: Arc<PluginRuntime>,
    component: Arc<Component>,
    view: Arc<str>,
    config: Arc<str>,
    inputs: Vec<usize>,
    /// For each input of the plugin, whether the view has another type, whose values are cast.
    casts: Vec<bool>,
    /// For each input of the plugin, its type in the view.
    input_types: Vec<ValueType>,
    outputs: Vec<usize>,
    /// The types of the values or list items of each output, in the order of the signature.
    item_types: Vec<ScalarType>,
    view_outputs: ViewOutputs,
    pool: Pool,
    isolation: Isolation,
    inline_failures: InlineFailures,
    owner: Owner,
    samples: Samples,
    costs: CostEstimator,
    log: Arc<PluginLog>,
    metrics: TransformMetrics,
}

/// The number of calls after which an instance is replaced. A plugin may keep state between calls; replacing the
/// instance drops that state.
const CALLS_MAX: u32 = 10_000;
/// The number of calls of an instance that has not computed rows yet: it was configured.
const CALLS_OF_NEW_INSTANCE: u32 = 1;
const CONFIG_CHARS_SHOWN: usize = 200;

// === impl Transform ===

impl Transform {
    /// Binds a component to a view. Checks the types of its inputs and outputs, configures an instance, and calls the
    /// instance for a row of nulls and for a row of zeros.
    ///
    /// # Errors
    /// [`BindError`] with the reason why the plugin cannot compute the view.
    pub fn bind(
        runtime: &Arc<PluginRuntime>,
        component: &Arc<Component>,
        view: &DerivedView,
    ) -> Result<Arc<Self>, BindError> {
        Self::bind_with(runtime, component, view, true)
    }

    /// Does the same, but does not call the instance for test rows. For tools that show which rows fail.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind_without_test_calls(
        runtime: &Arc<PluginRuntime>,
        component: &Arc<Component>,
        view: &DerivedView,
    ) -> Result<Arc<Self>, BindError> {
        Self::bind_with(runtime, component, view, false)
    }

    fn bind_with(
        runtime: &Arc<PluginRuntime>,
        component: &Arc<Component>,
        view: &DerivedView,
        has_test_calls: bool,
    ) -> Result<Arc<Self>, BindError> {
        let signature = component.signature();
        let (plugin, version) = (signature.name.clone(), signature.version.clone());
        let incompatible = |why| BindError {
            view: view.name.to_string(),
            plugin: plugin.clone(),
            version: version.clone(),
            why: Box::new(why),
        };
        let inputs = signature.inputs.iter().map(|input| fit_input(input, view)).collect::<Result<_, _>>();
        let outputs = fit_outputs(&signature.outputs, view);
        let (inputs, outputs): (Vec<usize>, _) = (inputs.map_err(incompatible)?, outputs.map_err(incompatible)?);
        let is_cast = |(index, input): (&usize, &Field)| {
            !ColumnType::of(view.inputs[*index].value_type).has_values_of(input.column_type)
        };
        let input_types = inputs.iter().map(|index| view.inputs[*index].value_type).collect();
        let casts = inputs.iter().zip(&signature.inputs).map(is_cast).collect();
        let mut item_types: Vec<ScalarType> =
            signature.outputs.iter().map(|output| output.column_type.scalar.into()).collect();
        let mut view_outputs = ViewOutputs::default();
        for (feature, index) in view.features.iter().zip(&outputs) {
            view_outputs.add(*index, feature.value_type);
            item_types[*index] = match feature.value_type {
                ValueType::Scalar(of) | ValueType::List(of) | ValueType::Set(of) => of,
                ValueType::Nested(_) => item_types[*index],
            };
        }
        let transform = Self {
            runtime: Arc::clone(runtime),
            component: Arc::clone(component),
            view: Arc::clone(&view.name),
            config: Arc::clone(&view.config),
            inputs,
            casts,
            input_types,
            outputs,
            item_types,
            view_outputs,
            pool: Pool::new(runtime.settings().threads + runtime.settings().compute_threads),
            isolation: Isolation::new(),
            inline_failures: InlineFailures::default(),
            owner: Owner::new(),
            samples: Samples::default(),
            costs: CostEstimator::default(),
            log: Arc::new(PluginLog::new(&plugin, &version, &view.name, component.limits())),
            metrics: TransformMetrics::bind(&plugin, &version, &view.name, &component.digest().to_string()),
        };
        let checks = transform.begin_checks();
        let configured = transform.configure_first();
        let tried = if has_test_calls { configured.and_then(|()| transform.try_out()) } else { configured };
        drop(checks);
        tried.map_err(incompatible)?;
        Ok(Arc::new(transform))
    }

    /// Returns the resources that it shares with other plugins.
    #[must_use]
    pub fn runtime(&self) -> &Arc<PluginRuntime> {
        &self.runtime
    }

    /// Returns the component.
    #[must_use]
    pub fn component(&self) -> &Arc<Component> {
        &self.component
    }

    /// Returns, for each input of the plugin, the index of the view's input that it reads.
    #[must_use]
    pub fn inputs(&self) -> &[usize] {
        &self.inputs
    }

    /// Returns whether the view's type of an input of the plugin differs from the plugin's type, so that its values have to
    /// be cast.
    #[must_use]
    pub fn is_cast(&self, input: usize) -> bool {
        self.casts[input]
    }

    /// Returns the view's type of an input of the plugin.
    #[must_use]
    pub fn input_type(&self, input: usize) -> ValueType {
        self.input_types[input]
    }

    /// Returns, for each feature of the view, the index of its column in the result of a call.
    #[must_use]
    pub fn outputs(&self) -> &[usize] {
        &self.outputs
    }

    /// Returns whether a call with this many rows is expected to take longer than a serving thread may spend on it.
    /// Always returns true for a plugin that contains an interpreter, because garbage collection may pause a call at any
    /// time, and for a second after calls on serving threads failed that took long.
    #[must_use]
    pub fn is_long(&self, rows: usize) -> bool {
        self.component.class() == PluginClass::Interpreted
            || self.costs.expect(rows) > self.runtime.settings().inline_max
            || self.inline_failures.are_many()
    }

    /// Returns the CPU time that a call with this many rows is expected to take.
    #[must_use]
    pub fn expected_cost(&self, rows: usize) -> Duration {
        self.costs.expect(rows)
    }

    /// Returns a builder for the inputs of a batch. Its columns are in the order of [`Transform::inputs`].
    #[must_use]
    pub fn input_batch(&self, as_of: impl Into<AsOf>, rows: usize) -> InputsBuilder {
        let types = self.component.signature().inputs.iter().map(|input| input.column_type);
        InputsBuilder::new(types, as_of.into(), self.component.time_column(), rows)
    }

    /// Computes a batch. The outputs are in the order of the plugin's signature. A large batch is divided into several
    /// calls.
    ///
    /// Rows that the plugin cannot compute are in [`Outputs::failed`]. The first one is logged, within the rate limit of
    /// the plugin's log.
    ///
    /// # Errors
    /// [`NeedsIsolation`], with [`OnFailure::Inline`] and [`OnFailure::Escalate`], or if the task of the current thread is
    /// abandoned: see [`larder_common::compute::checkpoint`].
    pub fn try_call(&self, inputs: &Inputs, on_failure: OnFailure) -> Result<Outputs, NeedsIsolation> {
        let rows = inputs.rows();
        let signature = self.component.signature();
        let (plugin, version, view) = (&*signature.name, &*signature.version, &*self.view);
        let _span = tracing::debug_span!("plugin_call", plugin, version, view, rows).entered();
        let mut batch = Batch::new(self, inputs, on_failure);
        let result = batch.run();
        self.metrics.call(rows, batch.elapsed());
        self.isolation.failed(batch.failed_cpu());
        let failed = batch.failed_cpu() + batch.fault_cpu();
        if on_failure == OnFailure::Inline && !failed.is_zero() {
            self.inline_failures.add(failed);
        }
        result?;
        let (frame, mut failed) = batch.finish();
        let encoded = self.encode(&frame, &mut failed);
        let (frame, returned) = match encoded {
            Some(encoded) => (encoded, Some(frame)),
            None => (frame, None),
        };
        let outputs = Outputs::new(frame, &self.item_types, failed).without(inputs.rejected());
        let has_failed = !outputs.failed().is_empty();
        // Rows that the plugin could compute alone may have failed with others of their call.
        let are_failures_of_rows = !has_failed || on_failure != OnFailure::FailCall;
        if are_failures_of_rows && let Some(observer) = self.runtime.observer(has_failed) {
            observer.observe(&ObservedCall {
                component: &self.component,
                view: &self.view,
                config: &self.config,
                inputs,
                outputs: returned.as_ref().unwrap_or(outputs.frame()),
                failed: outputs.failed(),
            });
        }
        // A later version is not rejected because of rows that this version cannot compute within the limits.
        if outputs.failed().iter().all(|failed| !matches!(*failed.error, CallError::Interrupt(_) | CallError::Skipped))
        {
            self.samples.note(inputs);
        }
        if let Some(FailedRow { row, error }) = outputs.failed().first() {
            self.log.failed(error.kind(), *row, outputs.failed().len(), error);
        }
        Ok(outputs)
    }

    /// Counts the failed rows of a batch in metrics. Called when the batch is served.
    pub fn count_failed(&self, outputs: &Outputs) {
        self.metrics.failed_rows(outputs.failed().len());
    }

    /// Computes a batch. If a call fails, finds the rows that fail. Otherwise the same as [`Transform::try_call`]. For tools,
    /// which do not run on compute threads.
    #[must_use]
    pub fn call(&self, inputs: &Inputs) -> Outputs {
        match self.try_call(inputs, OnFailure::FindRows) {
            Ok(outputs) => outputs,
            Err(NeedsIsolation) => unreachable!("no task is abandoned, and no failure is escalated"),
        }
    }

    /// Wraps the result of a batch.
    pub(super) fn outputs_of(&self, frame: Frame, mut failed: Vec<FailedRow>) -> Outputs {
        let frame = self.encode(&frame, &mut failed).unwrap_or(frame);
        Outputs::new(frame, &self.item_types, failed)
    }

    /// Converts the outputs to the view's types; see [`ViewOutputs::encode`].
    fn encode(&self, frame: &Frame, failed: &mut Vec<FailedRow>) -> Option<Frame> {
        self.view_outputs.encode(frame, failed, &self.component.signature().outputs)
    }

    /// Returns samples of the inputs that were computed recently.
    pub(super) fn served_inputs(&self) -> Vec<Inputs> {
        self.samples.get()
    }

    /// Converts inputs of the version `of` to inputs of this version. Inputs that only this version has are null.
    #[must_use]
    pub fn adapt(&self, inputs: &Inputs, of: &Self) -> Inputs {
        let fields = &of.component.signature().inputs;
        let mut adapted = self.input_batch(inputs.as_of().clone(), inputs.rows());
        for wanted in &self.component.signature().inputs {
            let mut columns = fields.iter().zip(inputs.columns());
            let is_same =
                |field: &Field| field.name == wanted.name && field.column_type.has_values_of(wanted.column_type);
            let column = columns.find(|(field, _)| is_same(field)).map(|(_, column)| column);
            adapted.column(|to| {
                if let Some(column) = column {
                    to.append(column, 0..inputs.rows());
                }
            });
        }
        adapted.finish()
    }

    /// Returns whether all inputs of this version can be taken from inputs of the version `of`.
    #[must_use]
    pub fn reads_subset_of(&self, of: &Self) -> bool {
        let fields = &of.component.signature().inputs;
        let is_in = |wanted: &Field| {
            fields.iter().any(|field| field.name == wanted.name && field.column_type.has_values_of(wanted.column_type))
        };
        self.component.signature().inputs.iter().all(is_in)
    }

    /// Returns whether a call can compute rows with different reference times.
    pub(super) fn has_time_per_row(&self) -> bool {
        self.component.time_column() == TimeColumn::First
    }

    /// Turns the plugin's log off, until the returned value is dropped.
    pub(super) fn begin_checks(&self) -> Checks<'_> {
        self.log.begin_checks()
    }

    /// Returns the queue for the isolation threads.
    #[must_use]
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// Returns the owner of this plugin's tasks on the compute threads and the isolation threads.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Records in `larder_plugin_info` whether requests use this transform. Before the first call, none do.
    pub fn set_in_service(&self, is_in_service: bool) {
        self.metrics.in_service(is_in_service);
    }

    /// Calls an instance once. Returns the instance if it can be called again.
    pub(super) fn call_guest(&self, mut guest: Guest, inputs: &Inputs, time: Duration) -> (Called, Option<Guest>) {
        let bounds = Bounds { time, ..self.bounds() };
        let result = guest.call(&self.runtime.engines, bounds, |world, store| world.transform(store, inputs));
        let cost = guest.cost();
        self.metrics.memory(guest.high_water());
        let result = match result {
            Ok(Ok(returned)) => returned.check(&self.component.signature().outputs, inputs.rows()),
            Ok(Err(fault)) => Err(CallError::Fault(fault)),
            Err(interrupt) => Err(CallError::Interrupt(interrupt)),
        };
        // An interpreter turns a lack of memory into an error of a row. The instance has no memory for other rows, too.
        let out_of_memory = guest.memory_exceeded();
        let result = match (result, out_of_memory) {
            (Ok((_, failed)), Some(limit)) if !failed.is_empty() => {
                Err(CallError::Interrupt(Interrupt::Memory { limit }))
            }
            (Err(CallError::Fault(_)), Some(limit)) => Err(CallError::Interrupt(Interrupt::Memory { limit })),
            (result, _) => result,
        };
        // A fault is a regular result.
        let is_usable = out_of_memory.is_none() && matches!(result, Ok(_) | Err(CallError::Fault(_)));
        (Called { result, cost }, is_usable.then_some(guest))
    }

    /// Creates an instance and passes it the view's configuration.
    pub(super) fn configured(&self) -> Result<Guest, CallError> {
        self.configured_at(&mut Cost::default())
    }

    /// Does the same, and adds the cost of the configuration to `cost`.
    fn configured_at(&self, cost: &mut Cost) -> Result<Guest, CallError> {
        let (engines, limits) = (&self.runtime.engines, self.component.limits());
        let mut guest = Guest::new(engines, &self.component.pre, limits, &self.log).map_err(|error| {
            match error.downcast_ref::<wasmtime::Trap>() {
                Some(_) => CallError::Interrupt(super::guest::instantiation_halt(&error, limits)),
                None => CallError::Busy(format!("{error:#}")),
            }
        })?;
        self.metrics.instance();
        let configured = guest.call(engines, self.bounds(), |world, store| world.configure(store, &self.config));
        *cost += guest.cost();
        configured?.map_err(CallError::Fault)?;
        Ok(guest)
    }

    fn put_back(&self, guest: Guest) {
        if guest.calls < CALLS_MAX {
            self.pool.put(guest);
        }
    }

    fn bounds(&self) -> Bounds {
        let limits = self.component.limits();
        Bounds { time: limits.time, output_bytes: limits.output_bytes }
    }

    /// Creates the first instance.
    fn configure_first(&self) -> Result<(), Incompatibility> {
        let guest = self.configured().map_err(|why| match why {
            CallError::Fault(fault) => {
                Incompatibility::Config { config: self.config.chars().take(CONFIG_CHARS_SHOWN).collect(), fault }
            }
            CallError::Interrupt(interrupt) => Incompatibility::Configure(interrupt),
            error => Incompatibility::Instance(error),
        })?;
        self.pool.put(guest);
        Ok(())
    }

    /// Calls the plugin for a row of nulls and a row of zeros.
    fn try_out(&self) -> Result<(), Incompatibility> {
        for (row, zeros) in [("a row of nulls", false), ("a row of zeros", true)] {
            match self.try_on(zeros) {
                // The contract allows a plugin to return an error for such a row.
                Ok(()) | Err(CallError::Fault(_)) => {}
                Err(error) => return Err(Incompatibility::TestCall { row, error }),
            }
        }
        Ok(())
    }

    /// Calls the plugin for a row of zeros or nulls, twice, because the first call of an instance is slower than later
    /// ones.
    fn try_on(&self, zeros: bool) -> Result<(), CallError> {
        let mut inputs = self.input_batch(0, 1);
        for input in 0..inputs.column_count() {
            let examples = view_types::examples(self.input_type(input));
            inputs.column(|column| match examples.first() {
                _ if !zeros => column.push(ValueRef::Null),
                Some(text) => column.push(ValueRef::Bytes(text.as_bytes())),
                None => column.push_default(),
            });
        }
        let inputs = inputs.finish();
        for _ in 0..2 {
            self.call_once(&inputs, self.limits().time).result?;
        }
        Ok(())
    }
}

impl Caller for Transform {
    fn call_once(&self, inputs: &Inputs, time: Duration) -> Called {
        let mut other_cost = Cost::default();
        let guest = match self.pool.take() {
            Some(guest) => Ok(guest),
            None => match self.configured_at(&mut other_cost) {
                // No further instance can be created, but another thread may have returned one.
                Err(CallError::Busy(why)) => self.pool.take().ok_or(CallError::Busy(why)),
                other => other,
            },
        };
        let guest = match guest {
            Ok(guest) => guest,
            Err(error) => {
                self.metrics.error(error.kind());
                return Called { cost: other_cost, ..Called::failed(error) };
            }
        };
        let is_used = guest.calls > CALLS_OF_NEW_INSTANCE;
        let (mut called, mut guest) = self.call_guest(guest, inputs, time);
        if is_used && matches!(called.result, Err(CallError::Interrupt(Interrupt::Memory { .. }))) {
            // Earlier calls may have filled the memory.
            other_cost += called.cost;
            if let Ok(new) = self.configured_at(&mut other_cost) {
                (called, guest) = self.call_guest(new, inputs, time);
            }
        }
        if let Some(guest) = guest {
            self.put_back(guest);
        }
        if called.result.is_ok() {
            self.note_cost(inputs.rows(), called.cost.cpu);
        }
        if let Err(error) = &called.result {
            self.metrics.error(error.kind());
            called.cost += other_cost;
        }
        called
    }

    fn limits(&self) -> &PluginLimits {
        self.component.limits()
    }

    fn expected(&self, rows: usize) -> Duration {
        self.costs.expect(rows)
    }

    fn note_cost(&self, rows: usize, cpu: Duration) {
        self.costs.note(rows, cpu);
    }

    fn output_types(&self) -> Vec<ColumnType> {
        self.component.signature().outputs.iter().map(|output| output.column_type).collect()
    }
}

impl fmt::Debug for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transform")
            .field("component", &self.component)
            .field("warm", &self.pool.len())
            .finish_non_exhaustive()
    }
}

fn fit_input(input: &Field, view: &DerivedView) -> Result<usize, Incompatibility> {
    let Some(index) = view.input_index(&input.name) else {
        let suggestion = nearest(&input.name, view.inputs.iter().map(|input| &*input.name));
        return Err(Incompatibility::NoInput { name: input.name.clone(), suggestion });
    };
    let found = view.inputs[index].value_type;
    let casts = |found: ColumnType| {
        found.is_list == input.column_type.is_list && found.scalar.casts_to(input.column_type.scalar)
    };
    if !casts(ColumnType::of(found)) {
        let (name, plugin) = (input.name.clone(), input.column_type);
        return Err(Incompatibility::InputType { name, view: found.to_string(), plugin });
    }
    Ok(index)
}

fn fit_outputs(outputs: &[Field], view: &DerivedView) -> Result<Vec<usize>, Incompatibility> {
    let fit = |feature: &larder_model::model::Feature| {
        let Some(index) = outputs.iter().position(|output| *output.name == *feature.name) else {
            let suggestion = nearest(&feature.name, outputs.iter().map(|output| output.name.as_str()));
            return Err(Incompatibility::NoOutput { name: feature.name.to_string(), suggestion });
        };
        let plugin = outputs[index].column_type;
        if !ColumnType::of(feature.value_type).has_values_of(plugin) {
            let (name, view) = (feature.name.to_string(), feature.value_type.to_string());
            return Err(Incompatibility::OutputType { name, view, plugin });
        }
        Ok(index)
    };
    view.features.iter().map(fit).collect()
}
