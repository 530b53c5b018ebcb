//! Loads that callers ask for, with bounds: views that are loaded at once, requests that wait for a view, and requests.
//!
//! A view waits for others of its own name only. A load that makes no progress, because its source hangs, gives its slot
//! to the next one and holds up neither the other views of its request nor those of other requests.

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
use tokio::{
    runtime::Handle,
    sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, oneshot},
    time::sleep,
};

use super::HttpError;
use crate::{
    source::Window,
    sync::{ASKED_AT_ONCE_MAX, SyncEngine, SyncError},
};

/// The loads of a host.
#[derive(Debug)]
pub(super) struct Loads {
    /// Where loads run: one that hangs must not keep the threads that answer from ending.
    runtime: Handle,
    slots: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    queues: Mutex<HashMap<String, Arc<Queue>>>,
}

/// Who waits for one view. Each holds the queue, so the count of its owners is their number.
type Queue = AsyncMutex<()>;

/// A request that was taken: it has a place in the queue of each of its views.
#[derive(Debug)]
pub(super) struct Request {
    views: Vec<(String, Arc<Queue>)>,
    slots: Arc<Semaphore>,
    runtime: Handle,
    _request: OwnedSemaphorePermit,
}

/// Requests at once, with those that wait; beyond: 503.
const REQUESTS_MAX: usize = 64;
/// Requests that one view has at once, with the one that is loaded; beyond: 503. The others leave room for other views.
const REQUESTS_OF_VIEW_MAX: usize = 8;
/// A load that commits nothing for so long is held up by its source.
const STALLED_AFTER: Duration = Duration::from_secs(1);

// === impl Loads ===

impl Loads {
    /// No loads yet. To be called within the runtime where they are to run.
    pub(super) fn new() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        let (slots, requests) = (semaphore(ASKED_AT_ONCE_MAX), semaphore(REQUESTS_MAX));
        Self { runtime: Handle::current(), slots, requests, queues: Mutex::default() }
    }

    /// Takes a request for views, whose names differ.
    ///
    /// # Errors
    /// 503 when too many requests wait already, or too many for one of the views. Nothing was done then.
    pub(super) fn take(&self, views: Vec<String>) -> Result<Request, HttpError> {
        let busy = |message| HttpError::detail(StatusCode::SERVICE_UNAVAILABLE, "materializations_busy", message);
        let permit = Arc::clone(&self.requests).try_acquire_owned();
        let permit =
            permit.map_err(|_full| busy("too many materializations wait already; try again later".to_owned()))?;
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        // One owner is the map itself.
        queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        let is_full = |view: &&String| {
            queues.get(view.as_str()).is_some_and(|queue| Arc::strong_count(queue) > REQUESTS_OF_VIEW_MAX)
        };
        if let Some(view) = views.iter().find(is_full) {
            return Err(busy(format!(
                "too many materializations of feature view {view} wait already; try again later"
            )));
        }
        let mut place = |view: String| {
            let queue = Arc::clone(queues.entry(view.clone()).or_default());
            (view, queue)
        };
        let views = views.into_iter().map(&mut place).collect();
        let (slots, runtime) = (Arc::clone(&self.slots), self.runtime.clone());
        Ok(Request { views, slots, runtime, _request: permit })
    }
}

// === impl Request ===

impl Request {
    /// Loads the views, one after the other; one that stalls does not hold up the next. Goes on when nobody waits for it
    /// any more. The errors come in the order of the views.
    pub(super) async fn run(self, engine: Arc<SyncEngine>, window: Window) -> Result<(), Vec<SyncError>> {
        let runtime = self.runtime.clone();
        let work = runtime.spawn(async move {
            let Self { views, slots, runtime, _request } = self;
            let (mut loads, mut failed) = (FuturesUnordered::new(), Vec::new());
            for (place, (view, queue)) in views.into_iter().enumerate() {
                let (stalled, next) = oneshot::channel();
                let load = load(runtime.clone(), Arc::clone(&slots), queue, Arc::clone(&engine), view, window, stalled);
                let load = runtime.spawn(load);
                loads.push(async move { (place, load.await) });
                // The sender goes when the load has ended, too.
                let _ = next.await;
            }
            while let Some((place, ended)) = loads.next().await {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => failed.push((place, error)),
                    Err(error) => {
                        let what = error.to_string();
                        failed.push((place, SyncError::Panicked { view: String::new(), what }));
                    }
                }
            }
            failed.sort_by_key(|(place, _)| *place);
            if failed.is_empty() { Ok(()) } else { Err(failed.into_iter().map(|(_, error)| error).collect()) }
        });
        work.await
            .unwrap_or_else(|error| Err(vec![SyncError::Panicked { view: String::new(), what: error.to_string() }]))
    }
}

/// Loads one view when it is its turn. `stalled` is dropped when the load has ended or makes no progress.
async fn load(
    runtime: Handle,
    slots: Arc<Semaphore>,
    queue: Arc<Queue>,
    engine: Arc<SyncEngine>,
    view: String,
    window: Window,
    stalled: oneshot::Sender<()>,
) -> Result<(), SyncError> {
    let mut stalled = Some(stalled);
    let _turn = unless_stalled(queue.lock(), || drop(stalled.take())).await;
    // Nobody closes the semaphore.
    let mut slot = unless_stalled(slots.acquire_owned(), || drop(stalled.take())).await.ok();
    let beats = Arc::new(AtomicU64::new(0));
    let mut seen = 0;
    let work = {
        let beats = Arc::clone(&beats);
        runtime.spawn_blocking(move || {
            let done = engine.materialize(&view, window, &mut |_| _ = beats.fetch_add(1, Ordering::Relaxed));
            done.map(|_report| ())
        })
    };
    let done = unless_stalled(work, || {
        let now = beats.load(Ordering::Relaxed);
        if now == seen {
            drop((slot.take(), stalled.take()));
        }
        seen = now;
    });
    done.await.unwrap_or_else(|error| Err(SyncError::Panicked { view: String::new(), what: error.to_string() }))
}

/// Waits for something, and calls `late` each time that [`STALLED_AFTER`] has passed meanwhile.
async fn unless_stalled<T>(work: impl Future<Output = T>, mut late: impl FnMut()) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = work.as_mut() => return done,
            () = sleep(STALLED_AFTER) => late(),
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
    async fn requests_of_a_view_leave_room_for_others() {
        let loads = Loads::new();
        let of_one: Vec<Request> = (0..REQUESTS_OF_VIEW_MAX).map(|_| loads.take(views(&["a"])).unwrap()).collect();
        let refused = loads.take(views(&["b", "a"])).unwrap_err();
        assert_eq!((refused.status, refused.kind), (StatusCode::SERVICE_UNAVAILABLE, "materializations_busy"));
        let others: Vec<Request> =
            (REQUESTS_OF_VIEW_MAX..REQUESTS_MAX).map(|n| loads.take(views(&[&format!("view {n}")])).unwrap()).collect();
        assert!(loads.take(views(&["z"])).is_err(), "all of them together are bounded too");
        drop(of_one);
        drop(loads.take(views(&["a", "b"])).unwrap());
        drop(others);
        loads.take(views(&["a"])).unwrap();
        assert_eq!(loads.queues.lock().unwrap().len(), 1, "queues without requests go");
    }
}
