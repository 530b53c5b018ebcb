//! Converts errors to gRPC statuses. Messages are the same as over HTTP, except that they are truncated earlier.
//! Details that clients must not see are only logged.
//!
//! Bytes that are not a valid message are not handled here: `lookup.rs` and tonic respond with `INTERNAL` and the parse
//! error, as in gRPC's own list of codes.

use larder_common::memory::OverBudget;
use larder_ingest::WriteError;
use larder_serving::{Denied, LookupError, OffloadError, RequestError};
use larder_store::StoreError;
use tonic::Status;

/// The maximum number of characters of a status message. The message is sent in a header, in which a character can take
/// twelve bytes. Clients limit the size of headers.
const TEXT_CHARS_MAX: usize = 1_000;

/// Logs an internal error and returns its status. The client gets no details.
pub(super) fn internal(error: &str) -> Status {
    tracing::error!(error, "gRPC call failed");
    Status::internal("internal error; see the server's log")
}

/// Returns the status of an error in a lookup's request, or in serving it.
pub(super) fn of_request(error: RequestError) -> Status {
    let text = short(error.to_string());
    match error {
        RequestError::UnknownView { .. }
        | RequestError::UnknownService { .. }
        | RequestError::UnknownFeature { .. } => Status::not_found(text),
        RequestError::NoFeatures
        | RequestError::BadReference(_)
        | RequestError::Versioned(_)
        | RequestError::Collision { .. }
        | RequestError::Ragged
        | RequestError::NoEntities
        | RequestError::MissingKeys { .. }
        | RequestError::MissingRequestData { .. }
        | RequestError::BadRequestData { .. }
        | RequestError::BadKey(_)
        | RequestError::BadEntity { .. } => Status::invalid_argument(text),
        RequestError::TooLarge { .. } => Status::resource_exhausted(text),
        RequestError::NoPlugin { .. } | RequestError::Unservable { .. } => Status::failed_precondition(text),
        // The plugin host already logs every failure, with a rate limit.
        RequestError::Plugin { .. } => Status::internal(text),
        RequestError::AnswerTooLarge { .. } => Status::resource_exhausted(text),
        RequestError::Memory(over) => of_memory(over),
        // `LookupService` retries such a lookup on a compute thread.
        RequestError::TooLong | RequestError::NeedsIsolation(_) => internal(&text),
        RequestError::Store(error) => internal(&format!("lookup failed: {error}")),
    }
}

/// Returns the status of a request that was rejected for lack of memory. `UNAVAILABLE` means that the same call may
/// succeed later.
pub(super) fn of_memory(over: OverBudget) -> Status {
    match over {
        OverBudget::TooLarge { .. } => Status::resource_exhausted(over.to_string()),
        OverBudget::Full | OverBudget::Tight => Status::unavailable(over.to_string()),
    }
}

/// Returns the status of a write's error.
pub(super) fn of_write(error: WriteError) -> Status {
    let text = short(error.to_string());
    match error {
        WriteError::UnknownView { .. } | WriteError::UnknownPushSource { .. } => Status::not_found(text),
        // The view's definition changed. A retry uses the new definition.
        WriteError::Superseded { .. } => Status::aborted(text),
        // A full disk is an operational problem, not a bug: the same write can succeed later.
        WriteError::Store { source: StoreError::DiskFull(_), .. } => {
            tracing::error!(error = %text, "write failed");
            Status::unavailable(text)
        }
        WriteError::Store { .. } => internal(&format!("write failed: {error}")),
        _ => Status::invalid_argument(text),
    }
}

/// Returns the status of any error of a lookup.
pub(super) fn of_lookup(error: LookupError<Status>) -> Status {
    match error {
        LookupError::Request(error) => of_request(error),
        LookupError::Denied(denied) => of_denied(denied),
        LookupError::Offload(error) => of_offload(error),
        LookupError::Protocol(status) => status,
    }
}

/// Returns the status of a call that was denied for lack of authentication or permission.
pub(super) fn of_denied(denied: Denied) -> Status {
    let text = short(denied.to_string());
    match denied {
        Denied::NoToken | Denied::WrongToken => Status::unauthenticated(text),
        Denied::BeyondScope(_) => Status::permission_denied(text),
    }
}

/// Returns the status of a call that the compute threads did not complete.
pub(super) fn of_offload(error: OffloadError) -> Status {
    match error {
        OffloadError::Full => Status::unavailable(error.to_string()),
        OffloadError::Panicked => internal(&error.to_string()),
    }
}

fn short(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_status_text_fits_a_header() {
        assert_eq!(short("é".repeat(1_000)), "é".repeat(1_000));
        let long = of_request(RequestError::BadKey("中".repeat(100_000)));
        assert!(long.message().chars().count() <= TEXT_CHARS_MAX + 1, "{long}");
        assert_eq!(short("中".repeat(100_000)).chars().count(), TEXT_CHARS_MAX + 1);
    }
}
