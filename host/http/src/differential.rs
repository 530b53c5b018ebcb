//! Compares the fast path with hyper: the same bytes must get the same responses, and leave the connection in the same
//! state. For tests and fuzzing.

use std::{sync::Arc, time::Duration};

use larder_common::{
    clock::{ManualClock, SharedClock},
    compute::Compute,
    memory::MemoryBudget,
};
use larder_model::{
    codec::{KeyEncoder, KeyValue, KeyVersion, RowBuilder, RowSchema},
    model::ValueRef,
    registry::{Definitions, validate},
    yaml::Problems,
};
use larder_serving::{
    Authenticator, ConnectionLimits, CurrentSnapshot, LookupService, RenewDefinitions, Resources, ServingLimits,
    Snapshot, TtlPolicy,
};
use larder_store::{LoadMode, OnlineStore, RowBatch, StoreConfig};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::watch,
    task::{JoinHandle, yield_now},
    time::{sleep, timeout},
};

use super::{
    ListenerRole, Router,
    connection::{ConnectionContext, Phase, serve_connection, serve_with_hyper},
    fast_path::lookup_length,
    limited_io::LingerFlag,
    prefixed_io::PrefixedIo,
    timer,
};

/// A server without a listener.
#[derive(Debug)]
pub struct TestServer {
    router: Arc<Router>,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

/// What a client receives after it has sent some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// The bytes of all responses. The dates are replaced, because they differ between the two paths.
    pub responses: String,
    /// Whether the server closed the connection.
    pub is_closed: bool,
}

/// How a connection is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// By the fast path first.
    Fast,
    /// By hyper only.
    Hyper,
}

/// Definitions that never change.
#[derive(Debug)]
struct FixedDefinitions;

/// A view with one entity, a service, and a second view without rows.
const DEFINITIONS: &str = "
entities: [{name: customer, join_key: customer_id, type: Int64}]
feature_views:
  - name: orders
    entities: [customer]
    features: [{name: total, type: Float64}, {name: note, type: String}]
  - name: empty
    entities: [customer]
    features: [{name: score, type: Int64}]
feature_services: [{name: all, features: [orders, empty]}]
";

const NOW: i64 = 1_760_000_000_000_000;

/// How long the client waits before it reads the responses. This is longer than the fast path waits for the rest of a
/// request, and shorter than the timeout of idle connections.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// The capacity of the connection, in bytes. It is larger than all responses to one input.
const PIPE_BYTES: usize = 4 << 20;

// === impl TestServer ===

impl TestServer {
    /// Starts a server with one row: customer 7 in `orders`.
    ///
    /// # Panics
    /// If the machine does not have the memory, disk space or threads for it.
    #[must_use]
    #[expect(clippy::unwrap_used, reason = "for tests only")]
    pub fn start() -> Self {
        let problems = Problems::default();
        let mut read = Definitions::default();
        read.read("differential.yaml", DEFINITIONS, &problems);
        let catalog = Arc::new(validate("test", KeyVersion::V3, read, &problems).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let clock: SharedClock = ManualClock::at(NOW);
        let store = OnlineStore::open(&StoreConfig::new(dir.path()), Arc::clone(&clock)).unwrap();
        let orders = catalog.views().iter().position(|view| &*view.name == "orders").unwrap();
        let view = store.declare(catalog.views(), KeyVersion::V3).unwrap()[orders];
        let schema = RowSchema::of_view(&catalog.views()[orders]);
        let mut row = RowBuilder::new(&schema);
        row.begin(NOW, None);
        row.push(ValueRef::Float64(1.5)).unwrap();
        row.push(ValueRef::Bytes(b"a \"note\"")).unwrap();
        let id = KeyEncoder::new(KeyVersion::V3, ["customer_id"]).encode([KeyValue::Int64(7)], &mut Vec::new());
        let mut batch = RowBatch::default();
        batch.push(id, row.finish().unwrap());
        let mut load = store.begin_load(view, LoadMode::Upsert).unwrap();
        load.apply(&batch, None).unwrap();
        load.finish(None).unwrap();

        let limits = ServingLimits { rows_max: 20, features_max: 20, values_max: 100 };
        let snapshot = Snapshot::new(catalog, Arc::new(store), Arc::clone(&clock), TtlPolicy::Mark, limits).unwrap();
        let compute = Arc::new(Compute::start("test", 1, 8).unwrap());
        let resources = Resources::new(MemoryBudget::new(64 << 20), compute, 1 << 20);
        let current = Arc::new(CurrentSnapshot::new(snapshot));
        let lookups = Arc::new(LookupService::new(current, resources, Arc::new(FixedDefinitions), Arc::clone(&clock)));
        let authenticator = Arc::new(Authenticator::open());
        let role = ListenerRole::Data { authenticator, encrypted: false, writes: None };
        let limits = ConnectionLimits { body_bytes_max: 8 << 10, ..ConnectionLimits::default() };
        let router = Arc::new(Router::new(lookups, clock, limits, role));
        // With a paused clock, time advances only while no task can run, so the waits take no real time.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        Self { router, runtime, _dir: dir }
    }

    /// Sends pieces of bytes on a new connection, one after the other, and returns what the client receives.
    #[must_use]
    pub fn send(&self, pieces: &[&[u8]], path: Path) -> Seen {
        self.runtime.block_on(async {
            let clock = tokio::spawn(timer::run(timer::tick_for(self.router.limits().header_timeout)));
            let (mut client, server) = tokio::io::duplex(PIPE_BYTES);
            let serving = self.serve(server, path);
            for piece in pieces {
                // The server may have closed the connection.
                let _ = client.write_all(piece).await;
                for _ in 0..8 {
                    yield_now().await;
                }
            }
            sleep(SETTLED_AFTER).await;
            let (mut bytes, mut is_closed) = (Vec::new(), false);
            let mut piece = vec![0; 64 << 10];
            while let Ok(read) = timeout(Duration::from_millis(1), client.read(&mut piece)).await {
                let read = read.unwrap_or(0);
                bytes.extend_from_slice(&piece[..read]);
                is_closed = read == 0;
                if is_closed {
                    break;
                }
            }
            serving.abort();
            clock.abort();
            Seen { responses: without_dates(&String::from_utf8_lossy(&bytes)), is_closed }
        })
    }

    fn serve(&self, stream: DuplexStream, path: Path) -> JoinHandle<()> {
        let router = Arc::clone(&self.router);
        tokio::spawn(async move {
            // Keeps the sender, because dropping it would be treated as a change of the phase.
            let (_phase, phases) = watch::channel(Phase::Serving);
            let context = ConnectionContext { router, phases, linger: LingerFlag::default() };
            let _ = match path {
                Path::Fast => serve_connection(stream, None, context).await,
                Path::Hyper => serve_with_hyper(PrefixedIo::new(Vec::new(), stream), None, &context).await,
            };
        })
    }

    /// Compares both paths for the input of a fuzzer. The first byte modulo four is the number of lengths, followed by
    /// two bytes for each length, in big-endian order. The rest are the bytes to send.
    ///
    /// # Panics
    /// As [`TestServer::compare`].
    pub fn compare_input(&self, input: &[u8]) {
        let Some((count, rest)) = input.split_first() else { return };
        let count = usize::from(count % 4);
        let Some((lengths, bytes)) = rest.split_at_checked(2 * count) else { return };
        let lengths: Vec<usize> =
            lengths.chunks_exact(2).map(|length| usize::from(u16::from_be_bytes([length[0], length[1]]))).collect();
        self.compare(bytes, &lengths);
    }

    /// Sends bytes to both paths, in pieces of these lengths and a last piece with the rest. Returns what the client of
    /// the fast path receives.
    ///
    /// # Panics
    /// If the client of hyper receives something else in all three cases: when the bytes are sent in the same pieces,
    /// when they are sent at once, and when each request is sent separately.
    pub fn compare(&self, bytes: &[u8], lengths: &[usize]) -> Seen {
        let (mut pieces, mut rest) = (Vec::new(), bytes);
        for length in lengths {
            let (piece, after) = rest.split_at((*length).min(rest.len()));
            if !piece.is_empty() {
                pieces.push(piece);
            }
            rest = after;
        }
        pieces.push(rest);
        let fast = self.send(&pieces, Path::Fast);
        // hyper's responses depend on how the bytes arrive. hyper parses an incomplete head again only after the last
        // line of the head has arrived. It also drops unsent responses if a later request is invalid and ends the
        // connection.
        let (mut requests, mut rest) = (Vec::new(), bytes);
        while let Some(length) = lookup_length(rest, self.router.limits().body_bytes_max) {
            let (request, after) = rest.split_at(length);
            requests.push(request);
            rest = after;
        }
        requests.push(rest);
        let is_equal = [&pieces[..], &[bytes], &requests].iter().any(|way| fast == self.send(way, Path::Hyper));
        assert!(is_equal, "the fast path differs from hyper for {:?}: {fast:?}", String::from_utf8_lossy(bytes));
        fast
    }
}

impl RenewDefinitions for FixedDefinitions {
    fn renew(&self, _caller_allows_cache: bool) -> bool {
        false
    }

    fn forbids_cached(&self) -> bool {
        false
    }
}

/// Replaces the value of each `date` header, because hyper uses the machine's clock.
fn without_dates(text: &str) -> String {
    let is_date = |line: &str| line.starts_with("date: ") && line.trim_end().ends_with(" GMT");
    text.split_inclusive("\r\n").map(|line| if is_date(line) { "date: DATE\r\n" } else { line }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOKUP: &str = r#"{"feature_service":"all","entities":{"customer_id":[7]}}"#;

    fn request(body: &str) -> String {
        format!("POST /get-online-features HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[test]
    fn both_paths_respond_alike() {
        let server = TestServer::start();
        let bodies = [
            LOOKUP,
            r#"{"features":["orders:note"],"entities":{"customer_id":[7,8,null]}}"#,
            r#"{"features":["orders:note"],"entities":{"customer_id":["x"]}}"#,
            r#"{"feature_service":"none","entities":{"customer_id":[7]}}"#,
            r#"{"features":["none:x"],"entities":{"customer_id":[7]}}"#,
            r#"{"features":["orders:none"],"entities":{"customer_id":[7]}}"#,
            r#"{"features":["orders:note"],"entities":{}}"#,
            r#"{"features":["orders:note"],"entities":{"other":[1]}}"#,
            r#"{"features":["orders:note"],"entities":{"customer_id":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21]}}"#,
            r#"{"features":["orders"],"entities":{"customer_id":[7]}}"#,
            r#"{"entities":{"customer_id":[7],"b":[1,2]},"feature_service":"all"}"#,
            "{}",
            "",
            "[]",
            "{",
            "nul",
            "\u{fffd}",
        ];
        for body in bodies {
            let one = server.compare(request(body).as_bytes(), &[]);
            assert!(one.responses.starts_with("HTTP/1.1 ") && !one.is_closed, "{body}: {one:?}");
            let pipelined = format!("{}{}{}", request(LOOKUP), request(body), request(LOOKUP));
            let three = server.compare(pipelined.as_bytes(), &[5, 90, 200]);
            assert_eq!(three.responses.matches("HTTP/1.1 ").count(), 3, "{body}: {three:?}");
        }
    }

    #[test]
    fn seeds_get_equal_responses() {
        let server = TestServer::start();
        let mut count = 0;
        for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/fast_path")).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            server.compare_input(&bytes);
            count += 1;
        }
        assert!(count > 10, "{count} seeds");
    }
}
