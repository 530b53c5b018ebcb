//! A blocking client of Larder's HTTP listeners, over TCP, TLS or a Unix socket.
//!
//! A call writes one request and reads one response, with two system calls if the response is small. Connections are
//! kept open and shared by all threads of a process. After a fork, the child uses connections of its own. No thread and
//! no runtime runs in the background, so a process may fork at any time.

mod address;
mod client;
mod error;
mod message;
mod pool;
mod stream;
mod tls;
mod wait;

pub use self::{
    address::Address,
    client::{Client, Settings},
    error::ClientError,
    message::{Request, Response, Route},
    tls::TlsFiles,
    wait::Wait,
};
