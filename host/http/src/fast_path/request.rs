//! Parses the requests of the fast path: finds a complete lookup at the beginning of the bytes from a connection.

/// The result of [`parse`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'b> {
    Lookup(FastRequest<'b>),
    /// The beginning of a request that may turn out to be a fast-path request.
    Partial,
    Other,
}

/// A complete `POST /get-online-features` request that accepts JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FastRequest<'b> {
    /// The value of the `Authorization` header, if there is one.
    pub(super) authorization: Option<&'b [u8]>,
    /// The body.
    pub(super) body: &'b [u8],
    /// The length of the complete request in bytes.
    pub(super) len: usize,
}

/// The beginning of a lookup request.
const START: &[u8] = b"POST /get-online-features HTTP/1.1\r\n";
/// The maximum size of a request, in bytes. The fast path hands a longer request to hyper.
pub(super) const REQUEST_BYTES_MAX: usize = 64 << 10;
/// The maximum number of headers; clients usually send fewer. The fast path hands a request with more headers to hyper.
pub(super) const HEADERS_MAX: usize = 32;

/// Returns whether the bytes begin with the request line of a lookup.
pub(crate) fn is_lookup(bytes: &[u8]) -> bool {
    bytes.starts_with(START)
}

/// Returns the length of the lookup that the bytes begin with, if the fast path can serve it.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn lookup_length(bytes: &[u8], body_bytes_max: usize) -> Option<usize> {
    match parse(bytes, body_bytes_max) {
        Parsed::Lookup(request) => Some(request.len),
        Parsed::Partial | Parsed::Other => None,
    }
}

/// Parses the request at the beginning of the bytes.
pub(super) fn parse(bytes: &[u8], body_bytes_max: usize) -> Parsed<'_> {
    let Some(rest) = bytes.strip_prefix(START) else {
        return if START.starts_with(bytes) { Parsed::Partial } else { Parsed::Other };
    };
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let (head, headers) = match httparse::parse_headers(rest, &mut headers) {
        Ok(httparse::Status::Complete((len, headers))) => (START.len() + len, headers),
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Other,
    };
    let (mut length, mut authorization, mut has_host) = (None, None, false);
    for header in headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        // Compares the first letter before the name, because most headers have none of these names.
        match header.name.as_bytes().first().map(u8::to_ascii_lowercase) {
            Some(b'c') if is("content-length") => match (length, decimal(header.value)) {
                (None, Some(bytes)) => length = Some(bytes),
                _ => return Parsed::Other,
            },
            Some(b'c') if is("connection") && !header.value.eq_ignore_ascii_case(b"keep-alive") => {
                return Parsed::Other;
            }
            Some(b'a') if is("accept") && !matches!(header.value, b"*/*" | b"application/json") => {
                return Parsed::Other;
            }
            Some(b'a') if is("authorization") && authorization.replace(header.value).is_some() => return Parsed::Other,
            Some(b'h') if is("host") && std::mem::replace(&mut has_host, true) => return Parsed::Other,
            Some(b't' | b'e' | b'u') if is("transfer-encoding") || is("expect") || is("upgrade") => {
                return Parsed::Other;
            }
            _ => {}
        }
    }
    let is_small = |length: &usize| *length < REQUEST_BYTES_MAX && *length <= body_bytes_max;
    let Some(length) = length.filter(is_small).filter(|_| has_host) else { return Parsed::Other };
    match bytes.get(head..head + length) {
        Some(body) => Parsed::Lookup(FastRequest { authorization, body, len: head + length }),
        None => Parsed::Partial,
    }
}

/// Parses a number of 1 to 9 decimal digits, which cannot overflow.
fn decimal(digits: &[u8]) -> Option<usize> {
    let is_number = matches!(digits.len(), 1..=9) && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}
