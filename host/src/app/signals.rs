//! The signals that the program handles: stop and reload.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::AppError;

/// The signals of the process. They are handled after [`Signals::listen`] is called. Before that, SIGTERM ends the
/// process immediately, so call it before clients can see the server.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// The action of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalAction {
    Reload,
    Stop,
}

// === impl Signals ===

impl Signals {
    /// Starts handling signals.
    ///
    /// # Errors
    /// [`AppError::Setup`] if the operating system refuses.
    pub fn listen() -> Result<Self, AppError> {
        let of = |kind| signal(kind).map_err(|error| AppError::Setup(format!("cannot listen for signals: {error}")));
        // With a handler for SIGXFSZ, a write beyond the limit on file sizes fails instead of ending the process. The
        // handler stays installed after the drop.
        drop(of(SignalKind::from_raw(libc::SIGXFSZ))?);
        let (terminate, interrupt) = (of(SignalKind::terminate())?, of(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, hangup: of(SignalKind::hangup())? })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Stop,
            _ = self.interrupt.recv() => SignalAction::Stop,
            _ = self.hangup.recv() => SignalAction::Reload,
        }
    }

    /// Waits for a signal to stop.
    pub(super) async fn stop(&mut self) {
        while self.next().await != SignalAction::Stop {}
    }

    /// Waits for `work` to end and returns its result. Returns `None` if a signal to stop arrives first.
    pub async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.stop() => None,
        }
    }
}
