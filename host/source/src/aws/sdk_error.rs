//! Converts the SDK's errors to [`AwsError`].

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::{AwsError, AwsErrorKind};

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
    /// Converts the SDK's error of a failed operation. `what` names the operation and its target.
    #[must_use]
    pub fn of<E>(what: impl Into<String>, error: SdkError<E, HttpResponse>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let what = what.into();
        let status = error.raw_response().map(|response| response.status().as_u16());
        let metadata = error.as_service_error().map(ProvideErrorMetadata::meta);
        let code = metadata.and_then(|metadata| metadata.code()).unwrap_or_default().to_owned();
        let kind = match &error {
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
        Self { what, kind, why }
    }
}

/// Formats an error with its causes. The outermost error does not include its cause, and the SDK's own formatter of
/// causes (`DisplayErrorContext`) appends Rust's debug output.
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
            // Another request is writing the same item.
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
        let message = AwsError::of("s3://b/k: GetObject", error).to_string();
        assert_eq!(message, "s3://b/k: GetObject: dispatch failure: io error: connection refused");
        let error: Error = SdkError::timeout_error("no response within 3 s");
        let converted = AwsError::of("s3://b/k: GetObject", error);
        assert_eq!(
            (converted.kind, converted.why.as_str()),
            (AwsErrorKind::Unreachable, "request has timed out: no response within 3 s")
        );
    }

    #[test]
    fn error_code_takes_precedence_over_status() {
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
