//! The formats of lookups over HTTP: Feast's JSON and Arrow IPC. The request's `Accept` header selects one.

use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use larder_serving::{Answer, LookupError, OnlineRequest, Protocol, ResponseBudget};

use super::{HttpError, arrow::encode_arrow, decode::decode_request, encode::write_answer, weight::lookup_bytes};

/// The format of a lookup's response. Requests are JSON in both cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookupFormat {
    /// Feast's JSON.
    Json,
    /// An Arrow IPC stream.
    Arrow,
}

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const ARROW: HeaderValue = HeaderValue::from_static(ARROW_TYPE);
const ARROW_TYPE: &str = "application/vnd.apache.arrow.stream";

// === impl LookupFormat ===

impl LookupFormat {
    /// Selects the format: Arrow if `Accept` names it and does not prefer JSON, otherwise JSON.
    pub(super) fn negotiate(headers: &HeaderMap) -> Self {
        let (mut arrow, mut json) = (0.0, 0.0);
        for value in headers.get_all(ACCEPT) {
            let Ok(value) = value.to_str() else { continue };
            for range in value.split(',') {
                let mut parts = range.split(';');
                let name = parts.next().unwrap_or_default().trim();
                if name.eq_ignore_ascii_case(ARROW_TYPE) {
                    arrow = quality(parts);
                } else if name.eq_ignore_ascii_case("application/json") {
                    json = quality(parts);
                }
            }
        }
        if arrow > 0.0 && arrow >= json { Self::Arrow } else { Self::Json }
    }

    /// Returns the response's `Content-Type`.
    pub(super) fn content_type(self) -> HeaderValue {
        match self {
            Self::Json => JSON,
            Self::Arrow => ARROW,
        }
    }
}

impl Protocol for LookupFormat {
    type Error = HttpError;

    fn decoded_bytes(&self, body: &[u8]) -> usize {
        lookup_bytes(body)
    }

    fn decode<T>(
        &self,
        body: &[u8],
        then: impl FnOnce(&OnlineRequest<'_>) -> Result<T, LookupError<HttpError>>,
    ) -> Result<T, LookupError<HttpError>> {
        then(&decode_request(body).map_err(LookupError::Protocol)?)
    }

    fn encode(
        &self,
        answer: &Answer<'_>,
        out: &mut Vec<u8>,
        budget: &mut ResponseBudget,
    ) -> Result<(), LookupError<HttpError>> {
        match self {
            Self::Json => write_answer(answer, out, budget)?,
            Self::Arrow => {
                let mut encoded = encode_arrow(answer, budget)?;
                // Checks the limit on the response's size, whose exact value was not known before.
                budget.reserve(&mut encoded, 0, 0)?;
                // For Arrow, `out` is always empty, because the fast path serves only JSON. So this does not copy.
                if out.is_empty() { *out = encoded } else { out.append(&mut encoded) }
            }
        }
        Ok(())
    }
}

/// Returns the quality value (`q`) of a media type: 1 if there is none, and 0 if it is not a number.
fn quality<'a>(mut parameters: impl Iterator<Item = &'a str>) -> f32 {
    let parameter_value = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then_some(value.trim())
    });
    parameter_value.map_or(1.0, |value| value.parse().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(accept: &[&'static str]) -> LookupFormat {
        let accept = accept.iter().map(|value| (ACCEPT, HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        accept.for_each(|(name, value)| {
            headers.append(name, value);
        });
        LookupFormat::negotiate(&headers)
    }

    #[test]
    fn arrow_must_be_named_and_preferred() {
        for accept in [
            &["application/vnd.apache.arrow.stream"][..],
            &["Application/VND.Apache.Arrow.Stream ; x=y"],
            &["application/vnd.apache.arrow.stream, */*"],
            &["application/json;q=0.5, application/vnd.apache.arrow.stream;Q=0.5"],
            &["application/json;q=0.8", "application/vnd.apache.arrow.stream"],
        ] {
            assert_eq!(negotiated(accept), LookupFormat::Arrow, "{accept:?}");
        }
        for accept in [
            &[][..],
            &[""],
            &["*/*"],
            &["application/*"],
            &["application/json"],
            &["text/html"],
            &["application/vnd.apache.arrow.file"],
            &["application/vnd.apache.arrow.stream;q=0"],
            &["application/vnd.apache.arrow.stream;q=much"],
            &["application/vnd.apache.arrow.stream;q=NaN"],
            &["application/vnd.apache.arrow.stream;q=0.5, application/json"],
        ] {
            assert_eq!(negotiated(accept), LookupFormat::Json, "{accept:?}");
        }
    }
}
