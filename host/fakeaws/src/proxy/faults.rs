//! Rules: which requests they match, when they apply, and which fault they inject.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

/// Which requests a rule matches.
///
/// A string converts to a match. Text such as `GET /bucket/` becomes a method and the start of a path, and a single
/// word becomes an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// All requests.
    Any,
    /// Calls of this operation. The last part of `X-Amz-Target` is the name of the operation, and case is ignored.
    Operation(String),
    /// Requests with this method, and with a path and query that start with this text.
    Path(String, String),
}

/// Selects the matching requests to which a rule applies. Requests to which an earlier rule applies are not counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// All matching requests.
    Always,
    /// The first `n` matching requests.
    First(u64),
    /// The `n`-th matching request, counted from 1.
    Nth(u64),
    /// Every `n`-th matching request.
    Every(u64),
    /// Each matching request with this probability, from 0 to 1. The second value is the seed of the pseudorandom
    /// numbers.
    Chance(f64, u64),
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Forwards the request after this delay.
    Delay(Duration),
    /// Resets the connection. The upstream server receives nothing.
    Reset,
    /// Sends no response, and keeps the connection open. The upstream server receives nothing.
    Silence,
    /// Closes the connection after this many bytes of the response, including its head.
    Truncate(usize),
    /// Closes the connection after this many bytes of the response's body.
    ShortBody(usize),
    /// Responds with this status, these headers and this body. The upstream server receives nothing.
    Respond(u16, Vec<(String, String)>, String),
    /// Returns the upstream server's response with an incorrect `x-amz-crc32`.
    WrongChecksum,
}

#[derive(Debug)]
pub(super) struct Rule {
    what: Match,
    when: When,
    fault: Fault,
    /// The number of matching requests so far, without requests to which an earlier rule applied.
    matched: u64,
}

// === impl Match ===

impl From<&str> for Match {
    fn from(text: &str) -> Self {
        match text.trim().split_once(' ') {
            Some((method, path)) => Self::Path(method.to_owned(), path.trim().to_owned()),
            None => Self::Operation(text.trim().trim_start_matches('.').to_owned()),
        }
    }
}

// === impl Fault ===

impl Fault {
    /// Creates an error response of DynamoDB.
    #[must_use]
    pub fn error(status: u16, kind: &str) -> Self {
        let body =
            json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"), "message": "requested by a test" });
        Self::Respond(status, vec![json_type()], body.to_string())
    }

    /// Creates a response with this JSON and a correct checksum, even if DynamoDB would not return such JSON.
    #[must_use]
    pub fn json(body: &Value) -> Self {
        let body = body.to_string();
        let checksum = ("x-amz-crc32".to_owned(), crc32fast::hash(body.as_bytes()).to_string());
        Self::Respond(200, vec![json_type(), checksum], body)
    }

    /// Creates an error response of S3.
    #[must_use]
    pub fn s3_error(status: u16, code: &str) -> Self {
        let kind = ("content-type".to_owned(), "application/xml".to_owned());
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>requested by a test</Message>\
             <RequestId>FAKE</RequestId></Error>"
        );
        Self::Respond(status, vec![kind], body)
    }

    /// Creates S3's error response for too many requests.
    #[must_use]
    pub fn slow_down() -> Self {
        Self::s3_error(503, "SlowDown")
    }

    /// Creates S3's error response for a skewed clock.
    #[must_use]
    pub fn skewed() -> Self {
        Self::s3_error(403, "RequestTimeTooSkewed")
    }

    /// Creates a redirect response of S3.
    #[must_use]
    pub fn redirect(location: &str) -> Self {
        let mut fault = Self::s3_error(307, "TemporaryRedirect");
        if let Self::Respond(_, headers, _) = &mut fault {
            headers.push(("location".to_owned(), location.to_owned()));
        }
        fault
    }
}

fn json_type() -> (String, String) {
    ("content-type".to_owned(), "application/x-amz-json-1.0".to_owned())
}

// === impl Rule ===

impl Rule {
    pub(super) fn new(what: Match, when: When, fault: Fault) -> Self {
        Self { what, when, fault, matched: 0 }
    }

    pub(super) fn matches(&self, method: &Method, path: &str, target: &str) -> bool {
        match &self.what {
            Match::Any => true,
            Match::Operation(name) => {
                let operation = target.rsplit('.').next().unwrap_or_default();
                !operation.is_empty() && operation.eq_ignore_ascii_case(name.rsplit('.').next().unwrap_or_default())
            }
            Match::Path(wanted, prefix) => {
                method.as_str().eq_ignore_ascii_case(wanted) && path.starts_with(prefix.as_str())
            }
        }
    }

    /// Counts a request that the rule matches. Returns the fault if the rule applies to the request.
    pub(super) fn apply(&mut self) -> Option<Fault> {
        self.matched += 1;
        let applies = match self.when {
            When::Always => true,
            When::First(count) => self.matched <= count,
            When::Nth(number) => self.matched == number,
            When::Every(count) => self.matched.is_multiple_of(count),
            When::Chance(chance, seed) => draw(seed, self.matched) < chance,
        };
        applies.then(|| self.fault.clone())
    }
}

/// Returns the `n`-th pseudorandom number for a seed, from 0 to 1 (SplitMix64).
fn draw(seed: u64, n: u64) -> f64 {
    let mixed = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let upper = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0);
    f64::from(upper) / f64::from(u32::MAX)
}
