//! The servers and the proxy, as a client sees them that knows HTTP and nothing else.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod client;
mod dynamo;
mod proxy;
mod s3;
mod streams;
