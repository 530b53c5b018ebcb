//! S3's use of HTTP: names in paths, times, errors, and chunked bodies.

use std::fmt::Write as _;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{HeaderMap, Request, Response, http::response::Builder};

use super::{S3Call, State};

pub(super) type HttpResponse = Response<Full<Bytes>>;

/// Why a request is rejected: the HTTP status, and S3's error code.
pub(super) struct Rejection(pub(super) u16, pub(super) &'static str);

/// A parsed request.
pub(super) struct Wanted<'r> {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: &'r HeaderMap,
    pub(super) body: &'r Bytes,
}

/// Responds to a request, and records the call.
pub(super) fn respond(state: &mut State, request: &Request<Bytes>) -> HttpResponse {
    let path = request.uri().path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let query = request.uri().query().unwrap_or_default().split('&').filter(|part| !part.is_empty());
    let query = query.map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decode(name), decode(&value.replace('+', " ")))
    });
    let wanted = Wanted {
        bucket: decode(bucket),
        key: decode(key),
        query: query.collect(),
        headers: request.headers(),
        body: request.body(),
    };
    let is_object = !wanted.key.is_empty();
    let operation = match request.method().as_str() {
        "GET" if is_object => "GetObject",
        "GET" => "ListObjectsV2",
        "HEAD" if is_object => "HeadObject",
        "HEAD" => "HeadBucket",
        "PUT" if is_object => "PutObject",
        "PUT" => "CreateBucket",
        "DELETE" if is_object => "DeleteObject",
        _ => "Unknown",
    };
    let result = state.call(operation, &wanted);
    let response = result.unwrap_or_else(|rejection| rejection.response(&wanted, request.method() == "HEAD"));
    let key = if operation == "ListObjectsV2" {
        wanted.query("prefix").unwrap_or_default().to_owned()
    } else {
        wanted.key.clone()
    };
    state.calls.push(S3Call {
        operation,
        bucket: wanted.bucket.clone(),
        key,
        range: wanted.header("range").map(str::to_owned),
        status: response.status().as_u16(),
    });
    response
}

/// Starts a response with the headers that all responses have.
pub(super) fn head(status: u16) -> Builder {
    Response::builder().status(status).header("server", "AmazonS3").header("x-amz-request-id", "FAKE")
}

/// Completes a response with a body.
pub(super) fn complete(head: Builder, body: impl Into<Bytes>) -> HttpResponse {
    head.body(Full::new(body.into())).expect("the head is valid")
}

// === impl Wanted ===

impl Wanted<'_> {
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the decoded body; `None` if it is incomplete. The AWS SDKs may encode a body in chunks of AWS's own
    /// format.
    pub(super) fn content(&self) -> Option<Bytes> {
        let is_chunked = self.header("x-amz-content-sha256").is_some_and(|sum| sum.starts_with("STREAMING-"));
        if !is_chunked {
            return Some(self.body.clone());
        }
        let (mut content, mut rest) = (Vec::new(), &self.body[..]);
        loop {
            let line = rest.windows(2).position(|window| window == b"\r\n")?;
            let size = std::str::from_utf8(&rest[..line]).ok()?.split(';').next()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            rest = &rest[line + 2..];
            if size == 0 {
                return Some(content.into());
            }
            content.extend_from_slice(rest.get(..size)?);
            rest = rest.get(size + 2..)?;
        }
    }
}

// === impl Rejection ===

impl Rejection {
    fn response(&self, wanted: &Wanted<'_>, is_head: bool) -> HttpResponse {
        let Self(status, code) = self;
        // A response to HEAD has no body, and neither does a response with the status 304.
        if is_head || *status == 304 {
            return complete(head(*status), "");
        }
        let resource = escape(&format!("/{}/{}", wanted.bucket, wanted.key));
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{code}</Message>\
             <Resource>{resource}</Resource><RequestId>FAKE</RequestId></Error>"
        );
        complete(head(*status).header("content-type", "application/xml"), body)
    }
}

/// Decodes percent-encoded text.
fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Encodes a key as `encoding-type=url` requires.
pub(super) fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~/*".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// Escapes text for XML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Converts seconds since 1970 to the year, the month, the day, and the time of day as text.
fn civil(seconds: u64) -> (u64, u64, u64, String) {
    // Days are counted from March 1 of the year 0. Each year then starts in March, and a leap day is the last day of
    // its year.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let time = seconds % 86_400;
    (year, month, day, format!("{:02}:{:02}:{:02}", time / 3_600, time / 60 % 60, time % 60))
}

/// Formats a time for HTTP headers.
pub(super) fn http_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day, time) = civil(seconds);
    let at = |index: u64| usize::try_from(index).unwrap_or(0);
    format!("{}, {day:02} {} {year} {time} GMT", DAYS[at(seconds / 86_400 % 7)], MONTHS[at(month - 1)])
}

/// Formats a time for XML.
pub(super) fn iso_date(seconds: u64) -> String {
    let (year, month, day, time) = civil(seconds);
    format!("{year}-{month:02}-{day:02}T{time}.000Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_http_and_xml_forms() {
        for (seconds, http, iso) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00.000Z"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT", "2000-02-29T23:59:59.000Z"),
            (1_767_225_600, "Thu, 01 Jan 2026 00:00:00 GMT", "2026-01-01T00:00:00.000Z"),
        ] {
            assert_eq!((http_date(seconds).as_str(), iso_date(seconds).as_str()), (http, iso));
        }
    }

    #[test]
    fn encoded_names_decode_to_themselves() {
        let name = "a b/ü%&+.parquet";
        assert_eq!(encode(name), "a%20b/%C3%BC%25%26%2B.parquet");
        assert_eq!(decode(&encode(name)), name);
        assert_eq!((decode("%"), decode("%zz")), ("%".to_owned(), "%zz".to_owned()));
    }
}
