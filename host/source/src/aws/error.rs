//! Errors of AWS, in a few kinds. Callers decide by the kind; the message is for users.

/// Why a request to AWS failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct AwsError {
    /// The target and the operation: `s3://bucket/key: GetObject`.
    pub what: String,
    /// The kind of error.
    pub kind: AwsErrorKind,
    /// The reason: usually the message of AWS or of the network.
    pub why: String,
}

/// Kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwsErrorKind {
    /// Too many requests; a later attempt may succeed.
    Throttled,
    /// An internal error of AWS.
    Server,
    /// No response, or a timeout.
    Unreachable,
    /// The response is invalid: truncated, with a wrong checksum, or without a required part.
    Garbled,
    /// Permission was denied, or the credentials are missing or unknown.
    Denied,
    /// The requested object, bucket, table or stream does not exist.
    Missing,
    /// The requested object changed: a precondition failed.
    Changed,
    /// AWS redirected the request; redirects are not followed.
    Redirected,
    /// The requested position in a stream no longer exists.
    Trimmed,
    /// The stream iterator was not used for too long.
    Expired,
    /// AWS rejected the request because of its content, or the object is too large.
    Refused,
    /// The local setup is incomplete, for example no thread or no region.
    Setup,
    /// The server is shutting down, and waits have ended.
    Stopping,
}

// === impl AwsError ===

impl AwsError {
    /// Creates an error for an operation that took too long.
    #[must_use]
    pub fn timed_out(what: impl Into<String>, after: std::time::Duration) -> Self {
        Self { what: what.into(), kind: AwsErrorKind::Unreachable, why: format!("timed out after {after:?}") }
    }

    /// Creates the error of a wait that a shutdown ended.
    #[must_use]
    pub fn stopping() -> Self {
        let why = "Larder is stopping and no longer waits for the response".to_owned();
        Self { what: "AWS".to_owned(), kind: AwsErrorKind::Stopping, why }
    }

    /// Creates an error for an invalid response.
    #[must_use]
    pub fn garbled(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), kind: AwsErrorKind::Garbled, why: why.into() }
    }
}

// === impl AwsErrorKind ===

impl AwsErrorKind {
    /// Returns the kind, as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
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

    /// Returns whether the error is temporary: the same request may succeed soon.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Throttled | Self::Server | Self::Unreachable | Self::Garbled)
    }
}
