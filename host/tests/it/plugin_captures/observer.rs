//! Which batches an observer of plugin calls sees.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use larder_model::model::ValueRef;
use larder_plugin_host::{CallObserver, ObservedCall, OnFailure, PluginRuntime, PluginSettings, Transform};

use crate::{
    guests::{compiler, guest},
    plugin_limits::view,
};

/// Records the batches that it observes.
#[derive(Debug, Default)]
struct Recorder {
    observes_good_calls: AtomicBool,
    /// The inputs of each batch, and its failed rows.
    calls: Mutex<Vec<(Vec<f64>, Vec<usize>)>>,
}

impl CallObserver for Recorder {
    fn observes_good_calls(&self) -> bool {
        self.observes_good_calls.load(Ordering::Relaxed)
    }

    fn observe(&self, call: &ObservedCall<'_>) {
        assert_eq!((&**call.view, call.outputs.rows()), ("hostile_view", call.inputs.rows()));
        let x = call.inputs.columns().next().unwrap();
        let xs = (0..x.rows()).filter_map(|row| if let ValueRef::Float64(x) = x.value(row) { Some(x) } else { None });
        let failed = call.failed.iter().map(|failed| failed.row).collect();
        self.calls.lock().unwrap().push((xs.collect(), failed));
    }
}

#[test]
fn observer_sees_failed_and_sampled_batches() {
    let runtime = PluginRuntime::new(PluginSettings { compiler: compiler(), ..PluginSettings::default() }).unwrap();
    let recorder = Arc::new(Recorder::default());
    runtime.set_observer(Arc::<Recorder>::clone(&recorder));
    let component = runtime.load(&std::fs::read(guest("hostile")).unwrap()).unwrap();
    let transform = Transform::bind(&runtime, &component, &view(r#"{"mode": "trap", "bad": 1000}"#)).unwrap();
    let seen = || std::mem::take(&mut *recorder.calls.lock().unwrap());
    let compute = |xs: &[f64], on_failure| {
        let mut inputs = transform.input_batch(0, xs.len());
        inputs.column(|column| column.extend(xs.iter().map(|x| ValueRef::Float64(*x))));
        transform.try_call(&inputs.finish(), on_failure)
    };
    transform.accept(None).unwrap();
    compute(&[1.0], OnFailure::FindRows).unwrap();
    assert_eq!(seen(), [], "neither checks nor good batches");
    compute(&[1.0, 2_000.0, 3.0], OnFailure::FindRows).unwrap();
    assert_eq!(seen(), [(vec![1.0, 2_000.0, 3.0], vec![1])]);
    compute(&[1.0, 2_000.0], OnFailure::Inline).unwrap_err();
    assert_eq!(seen(), [], "the batch is computed again");
    assert_eq!(compute(&[1.0, 2_000.0], OnFailure::FailCall).unwrap().failed().len(), 2);
    assert_eq!(seen(), [], "the first row did not fail alone");
    recorder.observes_good_calls.store(true, Ordering::Relaxed);
    compute(&[1.0], OnFailure::FailCall).unwrap();
    assert_eq!(seen(), [(vec![1.0], vec![])]);
}
