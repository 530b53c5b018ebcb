//! Runs materializations that callers request. Limits the number of concurrent loads, the number of requests for one
//! view, and the total number of requests.
//!
//! A load waits for the earlier loads of its view, and then for one of [`MATERIALIZATIONS_MAX`] slots. If a load makes
//! no progress because its source hangs, it releases its slot, and the load of the next view in its request starts. So
//! a load that hangs delays only loads of the same view.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hyper::StatusCode;
use larder_ingest::{MATERIALIZATIONS_MAX, MaterializeError, RowWriter};
use larder_model::model::Window;
use tokio::{
    runtime::Handle,
    sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinError,
    time::sleep,
};

use super::HttpError;

/// The materializations of a server.
#[derive(Debug)]
pub(super) struct Loads {
    /// The runtime on which loads run. It is not the runtime of a serving thread, because a load that hangs must not
    /// prevent the thread from ending.
    runtime: Handle,
    slots: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    queues: Mutex<HashMap<String, Arc<Queue>>>,
}

/// The queue of one view. Each waiting or running request holds a reference, and the map of queues holds one.
type Queue = AsyncMutex<()>;

/// An accepted request. It is in the queue of each of its views.
#[derive(Debug)]
pub(super) struct Request {
    views: Vec<(String, Arc<Queue>)>,
    slots: Arc<Semaphore>,
    runtime: Handle,
    _request: OwnedSemaphorePermit,
}

/// The limit on concurrent requests, including waiting ones. Further requests get 503.
const REQUESTS_MAX: usize = 64;
/// The limit on concurrent requests for one view, including the running one. Further requests get 503, so that other
/// views can use the rest of `REQUESTS_MAX`.
const REQUESTS_OF_VIEW_MAX: usize = 8;
/// A load that makes no progress for this long is considered stalled by its source.
const STALLED_AFTER: Duration = Duration::from_secs(1);

// === impl Loads ===

impl Loads {
    /// Creates the queues. Call it within the runtime on which loads should run.
    pub(super) fn new() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        let (slots, requests) = (semaphore(MATERIALIZATIONS_MAX), semaphore(REQUESTS_MAX));
        Self { runtime: Handle::current(), slots, requests, queues: Mutex::default() }
    }

    /// Accepts a request for views with distinct names, and adds it to their queues.
    ///
    /// # Errors
    /// Status 503 if there are too many requests in total or for one of the views. The request is then in no queue.
    pub(super) fn enqueue(&self, views: Vec<String>) -> Result<Request, HttpError> {
        let busy = |message| HttpError::detail(StatusCode::SERVICE_UNAVAILABLE, "materializations_busy", message);
        let permit = Arc::clone(&self.requests).try_acquire_owned();
        let permit =
            permit.map_err(|_full| busy("too many materializations are queued; try again later".to_owned()))?;
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        // The map itself holds one reference.
        queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        let is_full = |view: &&String| {
            queues.get(view.as_str()).is_some_and(|queue| Arc::strong_count(queue) > REQUESTS_OF_VIEW_MAX)
        };
        if let Some(view) = views.iter().find(is_full) {
            return Err(busy(format!("too many materializations of feature view {view} are queued; try again later")));
        }
        let mut join_queue = |view: String| {
            let queue = Arc::clone(queues.entry(view.clone()).or_default());
            (view, queue)
        };
        let views = views.into_iter().map(&mut join_queue).collect();
        let (slots, runtime) = (Arc::clone(&self.slots), self.runtime.clone());
        Ok(Request { views, slots, runtime, _request: permit })
    }
}

// === impl Request ===

impl Request {
    /// Loads the views one after the other. If the load of a view stalls, the next view starts. The loads continue even
    /// if the future is dropped. Returns the errors in the order of the views.
    pub(super) async fn run(self, engine: Arc<dyn RowWriter>, window: Window) -> Result<(), Vec<MaterializeError>> {
        let runtime = self.runtime.clone();
        let names: Vec<&str> = self.views.iter().map(|(view, _)| view.as_str()).collect();
        let names = names.join(", ");
        let work = runtime.spawn(async move {
            let Self { views, slots, runtime, _request } = self;
            let (mut loads, mut failed) = (FuturesUnordered::new(), Vec::new());
            for (index, (view, queue)) in views.into_iter().enumerate() {
                let (stalled, next) = oneshot::channel();
                let name = view.clone();
                let load = load(runtime.clone(), Arc::clone(&slots), queue, Arc::clone(&engine), view, window, stalled);
                let load = runtime.spawn(load);
                loads.push(async move { (index, name, load.await) });
                // Waits until the load drops the sender, because it has stalled or ended.
                let _ = next.await;
            }
            while let Some((index, name, ended)) = loads.next().await {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => failed.push((index, error)),
                    Err(error) => {
                        failed.push((index, panicked(name, &error)));
                    }
                }
            }
            failed.sort_by_key(|(index, _)| *index);
            if failed.is_empty() { Ok(()) } else { Err(failed.into_iter().map(|(_, error)| error).collect()) }
        });
        work.await.unwrap_or_else(|error| Err(vec![panicked(names, &error)]))
    }
}

/// Loads one view when it reaches the head of the queue. Drops `stalled` when the load has ended. Also drops it if the
/// load has waited for [`STALLED_AFTER`], or has made no progress for that long.
async fn load(
    runtime: Handle,
    slots: Arc<Semaphore>,
    queue: Arc<Queue>,
    engine: Arc<dyn RowWriter>,
    view: String,
    window: Window,
    stalled: oneshot::Sender<()>,
) -> Result<(), MaterializeError> {
    let mut stalled = Some(stalled);
    let _queue_lock = report_stalls(queue.lock(), || drop(stalled.take())).await;
    // The semaphore is never closed.
    let mut slot = report_stalls(slots.acquire_owned(), || drop(stalled.take())).await.ok();
    let beats = Arc::new(AtomicU64::new(0));
    let mut seen = 0;
    let name = view.clone();
    let work = {
        let beats = Arc::clone(&beats);
        runtime.spawn_blocking(move || {
            engine.materialize(&view, window, &mut |_| _ = beats.fetch_add(1, Ordering::Relaxed))
        })
    };
    let done = report_stalls(work, || {
        let now = beats.load(Ordering::Relaxed);
        if now == seen {
            drop((slot.take(), stalled.take()));
        }
        seen = now;
    });
    done.await.unwrap_or_else(|error| Err(panicked(name, &error)))
}

/// Logs that a task of a materialization panicked, which is a bug in Larder, and returns its error.
fn panicked(view: String, error: &JoinError) -> MaterializeError {
    tracing::error!(view, %error, "a materialization failed because of a bug in Larder");
    MaterializeError { view, is_busy: false }
}

/// Waits for `work`. Calls `on_stall` each time that [`STALLED_AFTER`] has passed and `work` has not ended.
async fn report_stalls<T>(work: impl Future<Output = T>, mut on_stall: impl FnMut()) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = work.as_mut() => return done,
            () = sleep(STALLED_AFTER) => on_stall(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn views(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test]
    async fn busy_view_does_not_block_others() {
        let loads = Loads::new();
        let of_one: Vec<Request> = (0..REQUESTS_OF_VIEW_MAX).map(|_| loads.enqueue(views(&["a"])).unwrap()).collect();
        let refused = loads.enqueue(views(&["b", "a"])).unwrap_err();
        assert_eq!((refused.status, refused.kind), (StatusCode::SERVICE_UNAVAILABLE, "materializations_busy"));
        let others: Vec<Request> = (REQUESTS_OF_VIEW_MAX..REQUESTS_MAX)
            .map(|n| loads.enqueue(views(&[&format!("view {n}")])).unwrap())
            .collect();
        assert!(loads.enqueue(views(&["z"])).is_err(), "the limit on all requests is reached");
        drop(of_one);
        drop(loads.enqueue(views(&["a", "b"])).unwrap());
        drop(others);
        loads.enqueue(views(&["a"])).unwrap();
        assert_eq!(loads.queues.lock().unwrap().len(), 1, "queues without requests are removed");
    }
}
