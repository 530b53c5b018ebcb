//! Tests of the client with responses that are complete, arrive in pieces, or are invalid.

use tokio::net::TcpListener;

use super::*;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Content-Length: 9\r\ncontent-length:  4 \r\n\r\nbody";

/// Starts a server that responds to any request with these pieces, and then closes the connection.
async fn server_of<const N: usize>(pieces: [&'static [u8]; N]) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().into();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        for piece in pieces {
            stream.write_all(piece).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    });
    endpoint
}

async fn error_of<const N: usize>(pieces: [&'static [u8]; N]) -> ClientError {
    let mut connection = Connection::open(&server_of(pieces).await).await.unwrap();
    connection.exchange(&get("/")).await.unwrap_err()
}

#[test]
fn head_is_parsed_when_complete() {
    let head_bytes = ANSWER.len() - 4;
    for end in 0..ANSWER.len() {
        let expected = (end >= head_bytes).then_some(Head { status: 200, head_bytes, body_bytes: 4 });
        assert_eq!(parse_head(&ANSWER[..end]).unwrap(), expected, "{end} bytes");
    }
}

#[test]
fn error_statuses_are_parsed() {
    let parsed = |head: &[u8]| parse_head(head).unwrap().unwrap().status;
    assert_eq!(parsed(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"), 503);
    assert_eq!(parsed(b"HTTP/1.1 404\r\nCONTENT-LENGTH: 0\r\n\r\n"), 404);
}

#[test]
fn invalid_response_is_rejected() {
    for (head, expected) in [
        (&b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n"[..], "a status line"),
        (b"HTTP/1.1 +20 OK\r\ncontent-length: 0\r\n\r\n", "a status line"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", "a status line"),
        (b"\r\n\r\n", "a status line"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "a content-length within bounds"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "a content-length within bounds"),
        (b"HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n", "a content-length within bounds"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "a content-length within bounds"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "a content-length within bounds"),
        (&[b'x'; HEAD_BYTES_MAX], "the end of the head"),
    ] {
        let error = parse_head(head).unwrap_err();
        assert!(matches!(error, ClientError::Malformed { expected: got, .. } if got == expected), "{error}");
    }
}

#[tokio::test]
async fn response_in_pieces_is_joined() {
    let pieces = [&ANSWER[..10], &ANSWER[10..60], &ANSWER[60..ANSWER.len() - 2], &ANSWER[ANSWER.len() - 2..]];
    let mut connection = Connection::open(&server_of(pieces).await).await.unwrap();
    let answer = connection.exchange(&get("/")).await.unwrap();
    assert_eq!((answer.status, answer.body, answer.wire_bytes()), (200, &b"body"[..], ANSWER.len()));
    assert!(matches!(connection.exchange(&get("/")).await, Err(ClientError::Closed | ClientError::Io(_))));
}

#[tokio::test]
async fn early_close_is_an_error() {
    assert!(matches!(error_of([]).await, ClientError::Closed));
    assert!(matches!(error_of([&ANSWER[..20]]).await, ClientError::Closed));
    assert!(matches!(error_of([&ANSWER[..ANSWER.len() - 1]]).await, ClientError::Closed));
}

#[tokio::test]
async fn surplus_bytes_are_an_error() {
    const SURPLUS: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody and more";
    let error = error_of([SURPLUS]).await;
    assert!(matches!(error, ClientError::Malformed { expected: "nothing after the body", .. }), "{error}");
}

#[tokio::test]
async fn replies_in_pieces_are_joined() {
    let request = Request { bytes: b"*1\r\n$4\r\nPING\r\n".to_vec(), wire: Wire::Resp { commands: 2 } };
    let mut connection = Connection::open(&server_of([b"$3\r\na", b"bc\r\n-ERR", b" no\r\n"]).await).await.unwrap();
    let answer = connection.exchange(&request).await.unwrap();
    assert_eq!((answer.status, answer.body), (500, &b"$3\r\nabc\r\n-ERR no\r\n"[..]));
}

#[tokio::test]
async fn unix_socket_returns_response() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(ANSWER).await.unwrap();
    });
    let mut connection = Connection::open(&Endpoint::from(path.as_path())).await.unwrap();
    assert_eq!(connection.exchange(&get("/")).await.unwrap().body, b"body");
}

#[test]
fn post_request_has_head_and_body() {
    let request = post_json("/path", "{\"ä\":1}");
    let text = String::from_utf8(request.bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /path HTTP/1.1\r\n"), "{head}");
    assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
}
