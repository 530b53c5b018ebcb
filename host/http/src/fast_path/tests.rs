//! Tests which requests the fast path serves, waits for, and hands to hyper.

use super::{
    request::{FastRequest, HEADERS_MAX},
    response::date,
    *,
};

/// Parses with limits that no test reaches.
fn parse(bytes: &[u8]) -> Parsed<'_> {
    super::parse(bytes, 1 << 20)
}

/// Returns a request with this head, and a `Host` header unless the head has one.
fn request(head: &str, body: &str) -> Vec<u8> {
    let host = if head.to_lowercase().contains("host:") { "" } else { "host: x\r\n" };
    format!("POST /get-online-features HTTP/1.1\r\n{host}{head}\r\n{body}").into_bytes()
}

fn other(bytes: &[u8]) {
    assert_eq!(parse(bytes), Parsed::Other, "{}", String::from_utf8_lossy(bytes));
}

#[test]
fn request_is_partial_until_last_byte() {
    let whole = request("host: x\r\nAccept: */*\r\ncontent-type: x/y\r\nContent-Length: 4\r\nx-id: 7\r\n", "body");
    for end in 0..whole.len() {
        assert_eq!(parse(&whole[..end]), Parsed::Partial, "{end} bytes");
    }
    let plain = Parsed::Lookup(FastRequest { authorization: None, body: b"body", len: whole.len() });
    assert_eq!(parse(&whole), plain);
    assert_eq!(parse(&[&whole[..], b"POST /x"].concat()), plain, "bytes after the body belong to the next request");
}

#[test]
fn one_host_is_needed() {
    let head = "POST /get-online-features HTTP/1.1\r\ncontent-length: 4\r\n";
    for hosts in ["", "host: x\r\nhost: x\r\n", "Host: x\r\nhost: y\r\n"] {
        other(format!("{head}{hosts}\r\nbody").as_bytes());
    }
}

#[test]
fn other_requests_go_to_hyper() {
    other(b"GET /get-online-features HTTP/1.1\r\n");
    other(b"POST /get-online-features HTTP/1.0\r\n");
    other(b"POST /get-online-features?x=1 HTTP/1.1\r\n");
    other(b"POST /push HTTP/1.1\r\n");
    other(b"\r\nPOST /get-online-features HTTP/1.1\r\n");
    let length = "content-length: 4\r\n";
    for header in [
        "content-length: 4\r\n",
        "content-length: 5\r\n",
        "connection: close\r\n",
        "connection: keep-alive, upgrade\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Expect: 100-continue\r\n",
        "upgrade: h2c\r\n",
        "accept: application/vnd.apache.arrow.stream\r\n",
        "accept: application/json;q=0.5\r\n",
        "no header\r\n",
        "bad name: x\r\n",
        " folded: x\r\n",
    ] {
        other(&request(&format!("{length}{header}"), "body"));
    }
    other(&request("authorization: a\r\nauthorization: b\r\ncontent-length: 4\r\n", "body"));
    for length in ["", "+4", "-1", "0x4", "4 4", "4,4", "99999999999999999999", "65536"] {
        other(&request(&format!("content-length: {length}\r\n"), "body"));
    }
    let five = request("content-length: 5\r\n", "12345");
    assert!(matches!(super::parse(&five, 5), Parsed::Lookup(_)));
    assert_eq!(super::parse(&five, 4), Parsed::Other);
    other(&request("host: x\r\n", ""));
    let many: String = (0..=HEADERS_MAX).map(|n| format!("x-{n}: 1\r\n")).collect();
    other(&request(&format!("{many}{length}"), "body"));
}

#[test]
fn common_headers_stay_on_fast_path() {
    for header in
        ["Connection: Keep-Alive\r\n", "accept: application/json\r\n", "te: trailers\r\n", "user-agent: a\r\n"]
    {
        let whole = request(&format!("content-length: 0\r\n{header}"), "");
        assert!(matches!(parse(&whole), Parsed::Lookup(_)), "{header}");
    }
    let whole = request("authorization: Bearer x\r\ncontent-length: 0\r\n", "");
    let Parsed::Lookup(request) = parse(&whole) else { panic!("not plain") };
    assert_eq!(request.authorization, Some(&b"Bearer x"[..]));
}

#[test]
fn date_has_http_format() {
    let text = |now| String::from_utf8(date(now).to_vec()).unwrap();
    for _ in 0..2 {
        assert_eq!(text(784_111_777_999_999), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
    assert_eq!(text(784_111_778_000_000), "Sun, 06 Nov 1994 08:49:38 GMT");
    assert_eq!((text(0), text(-1)), ("Thu, 01 Jan 1970 00:00:00 GMT".into(), "Thu, 01 Jan 1970 00:00:00 GMT".into()));
    assert_eq!(text(i64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
}

#[test]
fn departure_is_noticed_and_bytes_kept() {
    let (client, mut server) = tokio::io::duplex(2 * REQUEST_BYTES_MAX);
    let mut client = Some(client);
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let mut send = |bytes: &[u8], cx: &mut Context<'_>| {
        let sent = Pin::new(client.as_mut().unwrap()).poll_write(cx, bytes);
        assert!(matches!(sent, Poll::Ready(Ok(sent)) if sent == bytes.len()));
    };
    let mut bytes = b"a request".to_vec();
    assert!(poll_departure(&mut server, &mut bytes, cx).is_pending());
    send(b", and the next", cx);
    assert!(poll_departure(&mut server, &mut bytes, cx).is_pending());
    assert_eq!(bytes, b"a request, and the next");

    // Bytes beyond the limit are not read, so the client waits.
    send(&vec![b'x'; REQUEST_BYTES_MAX], cx);
    assert!(poll_departure(&mut server, &mut bytes, cx).is_pending());
    assert_eq!(bytes.len(), REQUEST_BYTES_MAX);

    bytes.truncate(9);
    client = None;
    assert!(poll_departure(&mut server, &mut bytes, cx).is_ready());
    assert!(client.is_none() && bytes.starts_with(b"a requestx"));
}

#[test]
fn longest_head_fits() {
    for status in (100..600).filter_map(|code| StatusCode::from_u16(code).ok()) {
        let header = Some((READ_THROUGH_HEADER, &b"unavailable"[..]));
        let head = Head::new(status, header, usize::MAX, i64::MAX, true);
        assert!(head.bytes().ends_with(b"\r\nconnection: close\r\n\r\n"), "{status}");
    }
}
