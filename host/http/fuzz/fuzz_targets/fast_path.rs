//! Sends the same bytes to the fast path and to hyper, and compares the responses and the state of the connection.
#![no_main]

use std::sync::LazyLock;

use larder_http::differential::TestServer;
use libfuzzer_sys::fuzz_target;

static SERVER: LazyLock<TestServer> = LazyLock::new(TestServer::start);

fuzz_target!(|input: &[u8]| SERVER.compare_input(input));
