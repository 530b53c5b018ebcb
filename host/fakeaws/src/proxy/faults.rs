//! Rules: which requests, when, and which fault.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

/// Which requests a rule matches.
///
/// A text is one: `GET /bucket/` is a method and the beginning of a path, anything else an operation's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// All.
    Any,
    /// Calls whose `X-Amz-Target` has this suffix, in any case.
    Operation(String),
    /// A method, and the beginning of the path with its query.
    Path(String, String),
}

/// When a rule is due, among the requests that it matches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// Always.
    Always,
    /// For the first requests, this many.
    First(u64),
    /// For one request, by its number from 1.
    Nth(u64),
    /// For every n-th request.
    Every(u64),
    /// With a probability from 0 to 1, drawn from this seed.
    Chance(f64, u64),
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is passed on with this delay.
    Delay(Duration),
    /// The connection is reset; the upstream server receives nothing.
    Reset,
    /// There is no response, and no end; the upstream server receives nothing.
    Silence,
    /// The connection ends after this many bytes of the response, including its head.
    Truncate(usize),
    /// The connection ends after this many bytes of the response's body: fewer than its head announces.
    ShortBody(usize),
    /// Another response instead of the server's: a status, headers, a body.
    Answer(u16, Vec<(String, String)>, String),
    /// The server's response with an incorrect `x-amz-crc32`.
    WrongChecksum,
}

#[derive(Debug)]
pub(super) struct Rule {
    what: Match,
    when: When,
    fault: Fault,
    met: u64,
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
    /// Creates an error of DynamoDB.
    #[must_use]
    pub fn error(status: u16, kind: &str) -> Self {
        let body =
            json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"), "message": "by order of a test" });
        Self::Answer(status, vec![json_type()], body.to_string())
    }

    /// Creates a response with this JSON, with the right checksum, whatever its shape.
    #[must_use]
    pub fn json(body: &Value) -> Self {
        let body = body.to_string();
        let checksum = ("x-amz-crc32".to_owned(), crc32fast::hash(body.as_bytes()).to_string());
        Self::Answer(200, vec![json_type(), checksum], body)
    }

    /// Creates an error of S3.
    #[must_use]
    pub fn s3_error(status: u16, code: &str) -> Self {
        let kind = ("content-type".to_owned(), "application/xml".to_owned());
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>by order of a test</Message>\
             <RequestId>FAKE</RequestId></Error>"
        );
        Self::Answer(status, vec![kind], body)
    }

    /// Creates S3's error for too many requests.
    #[must_use]
    pub fn slow_down() -> Self {
        Self::s3_error(503, "SlowDown")
    }

    /// Creates S3's error for a skewed clock.
    #[must_use]
    pub fn skewed() -> Self {
        Self::s3_error(403, "RequestTimeTooSkewed")
    }

    /// Creates a redirect of S3.
    #[must_use]
    pub fn redirect(location: &str) -> Self {
        let mut fault = Self::s3_error(307, "TemporaryRedirect");
        if let Self::Answer(_, headers, _) = &mut fault {
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
        Self { what, when, fault, met: 0 }
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

    /// Returns the fault for a request that the rule matches, if it is due.
    pub(super) fn due(&mut self) -> Option<Fault> {
        self.met += 1;
        let is_due = match self.when {
            When::Always => true,
            When::First(count) => self.met <= count,
            When::Nth(place) => self.met == place,
            When::Every(count) => self.met.is_multiple_of(count),
            When::Chance(chance, seed) => draw(seed, self.met) < chance,
        };
        is_due.then(|| self.fault.clone())
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
