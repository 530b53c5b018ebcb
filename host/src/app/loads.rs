//! Syncs that a command requests. Views are synced one after the other, but a stalled sync does not delay the next
//! view.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use larder_common::telemetry::panic_message;
use larder_http::{AdminEvent, SyncCommand};
use larder_ingest::{LAST_COMMIT_WITHIN, Progress, SyncReport};
use larder_sync::{SyncEngine, SyncError};

/// A report from the thread of a sync to the thread that runs the command.
enum Step {
    Progress(String, Progress),
    Ended(String, Box<Result<SyncReport, SyncError>>),
}

/// If no running sync of the command reports progress or ends for this long, the running syncs are considered stalled,
/// and the sync of the next view starts.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// The interval between checks for stalls and for a shutdown.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// Syncs the views of a command, each once, and calls `notify` for progress and for each result. Blocks until all syncs
/// have ended, but during a shutdown for at most [`LAST_COMMIT_WITHIN`].
pub(super) fn sync(engine: &Arc<SyncEngine>, command: &SyncCommand, notify: &mut dyn FnMut(AdminEvent)) {
    let mut seen = HashSet::new();
    let all: Vec<&str> = if command.views.is_empty() {
        engine.views().collect()
    } else {
        command.views.iter().map(String::as_str).collect()
    };
    let mut waiting = all.into_iter().filter(|view| seen.insert(*view)).map(str::to_owned);
    let (sender, steps) = mpsc::channel();
    let mut running: Vec<String> = Vec::new();
    let mut last_progress = Instant::now();
    let mut is_stalled = true;
    loop {
        if (running.is_empty() || is_stalled)
            && let Some(view) = waiting.next()
        {
            start_sync(engine, command, &view, &sender);
            running.push(view);
            (last_progress, is_stalled) = (Instant::now(), false);
        }
        if running.is_empty() {
            return;
        }
        match steps.recv_timeout(CHECK_EVERY) {
            Ok(Step::Progress(view, progress)) => {
                (last_progress, is_stalled) = (Instant::now(), false);
                notify(AdminEvent::Progress { view, progress });
            }
            Ok(Step::Ended(view, ended)) => {
                running.retain(|running| *running != view);
                last_progress = Instant::now();
                notify(match *ended {
                    Ok(report) => AdminEvent::Synced { report },
                    Err(error) => AdminEvent::Failed { view, error: error.to_string() },
                });
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                is_stalled = last_progress.elapsed() >= STALLED_AFTER;
                let stopping = engine.stopping_since();
                if stopping.is_some_and(|since| since.elapsed() >= LAST_COMMIT_WITHIN) {
                    for view in running.into_iter().chain(waiting) {
                        let error = SyncError::Stopped { view: view.clone() }.to_string();
                        notify(AdminEvent::Failed { view, error });
                    }
                    return;
                }
            }
        }
    }
}

/// Starts the sync of one view on a separate thread, which can be abandoned if its source hangs.
fn start_sync(engine: &Arc<SyncEngine>, command: &SyncCommand, view: &str, steps: &Sender<Step>) {
    let (engine, request, name, own) = (Arc::clone(engine), command.request(), view.to_owned(), steps.clone());
    let work = move || {
        let sync = AssertUnwindSafe(|| {
            engine.sync(&name, request, &mut |progress| {
                // If the command has ended, there is no receiver, and the sync continues.
                let _ = own.send(Step::Progress(name.clone(), progress));
            })
        });
        let result = catch_unwind(sync).unwrap_or_else(|panic| {
            Err(SyncError::Panicked { view: name.clone(), what: panic_message(&*panic).to_owned() })
        });
        // The caller may open the store again as soon as it receives `Ended`, so the engine must be dropped before.
        drop(engine);
        let _ = own.send(Step::Ended(name, Box::new(result)));
    };
    if let Err(source) = thread::Builder::new().name("sync".to_owned()).spawn(work) {
        let failed = SyncError::NoThread { view: view.to_owned(), source };
        let _ = steps.send(Step::Ended(view.to_owned(), Box::new(Err(failed))));
    }
}
