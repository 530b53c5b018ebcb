//! What can go wrong at AWS, in few kinds: what a caller does about it depends on the kind, what a person does on the
//! words.

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// Why AWS did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct AwsError {
    /// What was asked, of what: `s3://bucket/key: GetObject`.
    pub what: String,
    /// Its kind.
    pub trouble: AwsErrorKind,
    /// In AWS's words, or those of the network.
    pub why: String,
}

/// Kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwsErrorKind {
    /// Too many requests; later it may be well.
    Throttled,
    /// AWS failed within.
    Server,
    /// No answer, or none in time.
    Unreachable,
    /// An answer that is none: cut off, of a wrong checksum, or of another shape.
    Garbled,
    /// Who asks may not, or nobody knows who asks.
    Denied,
    /// What was asked for is not there.
    Missing,
    /// What was asked for is not what it was: a precondition failed.
    Changed,
    /// AWS answers somewhere else; nobody is followed there.
    Redirected,
    /// A place in a stream that does not exist any more.
    Trimmed,
    /// An iterator of a stream that was not used for too long.
    Expired,
    /// The request was refused for what it says.
    Refused,
    /// This host has not what it takes to ask.
    Setup,
    /// The server is shutting down and waits for nothing.
    Stopping,
}

const THROTTLING: [&str; 8] = [
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "Throttling",
    "RequestLimitExceeded",
    "LimitExceededException",
    "SlowDown",
    "TooManyRequestsException",
    "ThrottledException",
];
const DENIED: [&str; 13] = [
    "AccessDenied",
    "AccessDeniedException",
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidToken",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "RequestTimeTooSkewed",
    "RequestExpired",
];
const MISSING: [&str; 5] =
    ["ResourceNotFoundException", "NoSuchKey", "NoSuchBucket", "NotFound", "TableNotFoundException"];

// === impl AwsError ===

impl AwsError {
    /// What the SDK says of an operation that failed. `what` names the operation and what it was about.
    #[must_use]
    pub fn of<E>(what: impl Into<String>, error: SdkError<E, HttpResponse>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let what = what.into();
        let status = error.raw_response().map(|response| response.status().as_u16());
        let metadata = error.as_service_error().map(ProvideErrorMetadata::meta);
        let code = metadata.and_then(|metadata| metadata.code()).unwrap_or_default().to_owned();
        let trouble = match &error {
            SdkError::ConstructionFailure(_) => AwsErrorKind::Setup,
            SdkError::TimeoutError(_) => AwsErrorKind::Unreachable,
            SdkError::DispatchFailure(failure) if failure.is_other() => AwsErrorKind::Setup,
            SdkError::DispatchFailure(_) => AwsErrorKind::Unreachable,
            SdkError::ResponseError(_) => AwsErrorKind::Garbled,
            _ => AwsErrorKind::of_code(&code, status),
        };
        let why = match metadata.map(|metadata| (metadata.code(), metadata.message())) {
            Some((Some(code), Some(message))) => format!("{code}: {message}"),
            Some((Some(code), None)) => code.to_owned(),
            _ => match status {
                Some(status) => format!("status {status}: {}", causes(&error)),
                None => causes(&error),
            },
        };
        Self { what, trouble, why }
    }

    /// Something that took longer than it may.
    #[must_use]
    pub fn timed_out(what: impl Into<String>, after: std::time::Duration) -> Self {
        Self { what: what.into(), trouble: AwsErrorKind::Unreachable, why: format!("no end after {after:?}") }
    }

    /// The server is shutting down.
    #[must_use]
    pub fn stopping() -> Self {
        let why = "Larder is stopping and no longer waits for the response".to_owned();
        Self { what: "AWS".to_owned(), trouble: AwsErrorKind::Stopping, why }
    }

    /// An answer that lacks what it has to have.
    #[must_use]
    pub fn garbled(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), trouble: AwsErrorKind::Garbled, why: why.into() }
    }
}

/// An error with its causes, as messages. The outermost error only reports that something failed, and the SDK's own
/// formatting appends Rust's debug output.
fn causes(error: &dyn std::error::Error) -> String {
    let mut messages: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        // Many errors repeat their cause.
        if messages.last().is_none_or(|before| !before.contains(&message)) {
            messages.push(message);
        }
        next = error.source();
    }
    messages.join(": ")
}

// === impl AwsErrorKind ===

impl AwsErrorKind {
    /// The kind, as a metric label.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Server => "aws_server",
            Self::Unreachable => "unreachable",
            Self::Garbled => "garbled",
            Self::Denied => "denied",
            Self::Missing => "missing",
            Self::Changed => "changed",
            Self::Redirected => "redirected",
            Self::Trimmed => "trimmed",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Setup => "setup",
            Self::Stopping => "stopping",
        }
    }

    /// Whether the same request may do better soon.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Throttled | Self::Server | Self::Unreachable | Self::Garbled)
    }

    fn of_code(code: &str, status: Option<u16>) -> Self {
        match code {
            code if THROTTLING.contains(&code) => Self::Throttled,
            code if DENIED.contains(&code) => Self::Denied,
            code if MISSING.contains(&code) => Self::Missing,
            "TrimmedDataAccessException" => Self::Trimmed,
            "ExpiredIteratorException" => Self::Expired,
            "PreconditionFailed" => Self::Changed,
            "PermanentRedirect" | "TemporaryRedirect" | "Redirect" => Self::Redirected,
            "SerializationException" => Self::Garbled,
            "InternalServerError" | "InternalError" | "InternalFailure" | "ServiceUnavailable" => Self::Server,
            // Somebody else writes the same item at this moment.
            "TransactionConflictException" | "ReplicatedWriteConflictException" => Self::Throttled,
            _ => match status {
                Some(301 | 302 | 307 | 308) => Self::Redirected,
                Some(401 | 403) => Self::Denied,
                Some(404) => Self::Missing,
                Some(412) => Self::Changed,
                Some(429) => Self::Throttled,
                Some(500..=599) => Self::Server,
                Some(200..=299) => Self::Garbled,
                _ => Self::Refused,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_messages_without_debug_output() {
        use aws_smithy_runtime_api::client::result::ConnectorError;
        type Error = SdkError<aws_smithy_types::error::ErrorMetadata, HttpResponse>;
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let error: Error = SdkError::dispatch_failure(ConnectorError::io(refused.into()));
        let told = AwsError::of("s3://b/k: GetObject", error).to_string();
        assert_eq!(told, "s3://b/k: GetObject: dispatch failure: io error: connection refused");
        let error: Error = SdkError::timeout_error("no answer within 3 s");
        let told = AwsError::of("s3://b/k: GetObject", error);
        assert_eq!(
            (told.trouble, told.why.as_str()),
            (AwsErrorKind::Unreachable, "request has timed out: no answer within 3 s")
        );
    }

    #[test]
    fn a_code_says_what_to_do_and_else_the_status_does() {
        let cases = [
            ("ProvisionedThroughputExceededException", Some(400), AwsErrorKind::Throttled),
            ("SlowDown", Some(503), AwsErrorKind::Throttled),
            ("RequestTimeTooSkewed", Some(403), AwsErrorKind::Denied),
            ("ResourceNotFoundException", Some(400), AwsErrorKind::Missing),
            ("TrimmedDataAccessException", Some(400), AwsErrorKind::Trimmed),
            ("ExpiredIteratorException", Some(400), AwsErrorKind::Expired),
            ("", Some(412), AwsErrorKind::Changed),
            ("", Some(307), AwsErrorKind::Redirected),
            ("", Some(500), AwsErrorKind::Server),
            ("", Some(200), AwsErrorKind::Garbled),
            ("ValidationException", Some(400), AwsErrorKind::Refused),
        ];
        for (code, status, expected) in cases {
            assert_eq!(AwsErrorKind::of_code(code, status), expected, "{code} {status:?}");
        }
    }
}
