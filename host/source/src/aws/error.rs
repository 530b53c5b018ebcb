//! Errors of AWS, in a few kinds: the kind determines what the caller does, and the message tells users what to do.

/// Why a request to AWS failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct AwsError {
    /// The operation and its target: `s3://bucket/key: GetObject`.
    pub what: String,
    /// The kind of error.
    pub trouble: AwsErrorKind,
    /// The message of AWS or of the network.
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
    /// An invalid response: truncated, with a wrong checksum, or of an unexpected form.
    Garbled,
    /// Permission was denied, or the credentials are missing or unknown.
    Denied,
    /// The requested object does not exist.
    Missing,
    /// The requested object changed: a precondition failed.
    Changed,
    /// AWS redirected the request; redirects are not followed.
    Redirected,
    /// A position in a stream that no longer exists.
    Trimmed,
    /// A stream iterator that was not used for too long.
    Expired,
    /// The request was rejected because of its content.
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
        Self { what: what.into(), trouble: AwsErrorKind::Unreachable, why: format!("timeout after {after:?}") }
    }

    /// Creates the error of a wait that a shutdown ended.
    #[must_use]
    pub fn stopping() -> Self {
        let why = "Larder is stopping and no longer waits for the response".to_owned();
        Self { what: "AWS".to_owned(), trouble: AwsErrorKind::Stopping, why }
    }

    /// Creates an error for a response without a required part.
    #[must_use]
    pub fn garbled(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), trouble: AwsErrorKind::Garbled, why: why.into() }
    }
}

// === impl AwsErrorKind ===

impl AwsErrorKind {
    /// Returns the kind, as a metric label.
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

    /// Returns whether the same request may succeed soon.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Throttled | Self::Server | Self::Unreachable | Self::Garbled)
    }
}
