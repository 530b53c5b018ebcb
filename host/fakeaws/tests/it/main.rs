//! Tests of the servers and the proxy with a plain HTTP client.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue panics")]

mod client;
mod dynamo;
mod proxy;
mod s3;
mod streams;
