//! Tests of the schedule's arithmetic, and of a stall that must affect latencies.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::random::Keys;

fn ten_customers() -> Workload {
    Workload::one_customer("churn_prediction_online", 10, Keys::Uniform)
}

/// Starts a server for one connection. The server stalls before its first response, and then responds immediately.
async fn stalling_server(stall: Duration, answer: &'static [u8]) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().into();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let mut stall = Some(stall);
        // Requests are small and sent one at a time, so each arrives in one piece.
        while stream.read(&mut request).await.unwrap() > 0 {
            if let Some(stall) = stall.take() {
                tokio::time::sleep(stall).await;
            }
            stream.write_all(answer).await.unwrap();
        }
    });
    endpoint
}

#[test]
fn arrivals_do_not_drift() {
    let schedule = Schedule::new(3.9, Duration::from_secs(2));
    assert_eq!(schedule, Schedule { rate_per_s: 3, arrivals: 6 });
    let offsets_ns: Vec<_> = (0..4).map(|arrival| schedule.offset(arrival).as_nanos()).collect();
    assert_eq!(offsets_ns, [0, 333_333_333, 666_666_666, 1_000_000_000]);
    assert_eq!(schedule.length(), Duration::from_secs(2));
    // After a day at 70,000 requests per second, the schedule is still exact.
    assert_eq!(Schedule::new(70_000.0, Duration::from_secs(1)).offset(70_000 * 86_400), Duration::from_secs(86_400));
}

#[test]
fn rate_is_at_least_one() {
    assert_eq!(Schedule::new(0.2, Duration::from_secs(3)), Schedule { rate_per_s: 1, arrivals: 3 });
}

#[test]
fn every_arrival_is_claimed_once() {
    let schedule = Schedule::new(10.0, Duration::from_millis(250));
    let next = AtomicU64::new(0);
    let taken: Vec<_> = std::iter::from_fn(|| schedule.claim(&next)).collect();
    assert_eq!(taken, [0, 1, 2]);
    assert_eq!(schedule.claim(&next), None);
}

#[test]
fn latency_counts_from_due_time() {
    let schedule = Schedule::new(1000.0, Duration::from_secs(1));
    let (ms, at) = (Duration::from_millis, Duration::from_millis(50));
    assert_eq!(schedule.latency(0, at), ms(50));
    assert_eq!(schedule.latency(20, at), ms(30), "it was due at 20 ms, whenever it was sent");
    assert_eq!(schedule.latency(60, at), ms(0));
}

#[tokio::test]
async fn stall_delays_all_its_requests() {
    let endpoint = stalling_server(Duration::from_millis(100), b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let mut load = Load::open(&endpoint, 1, Arc::new(ten_customers())).await.unwrap();
    // There are 200 requests, 1 ms apart. The stall delays the first request by 100 ms, and each further request by 1
    // ms less.
    let paced = load.pace(Schedule::new(1000.0, Duration::from_millis(200)), 0).await.unwrap();
    assert_eq!((paced.tally.succeeded, paced.tally.failures, paced.latencies_ns.len()), (200, 0, 200));
    assert!(paced.latencies_ns.value_at_quantile(0.9) > 50_000_000, "{:?}", paced.latencies_ns);
}

#[tokio::test]
async fn error_statuses_count_as_failures() {
    let refusal = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy";
    let mut load =
        Load::open(&stalling_server(Duration::ZERO, refusal).await, 1, Arc::new(ten_customers())).await.unwrap();
    let tally = load.warm_up().await.unwrap();
    assert_eq!((tally.succeeded, tally.failures), (0, 10));
    assert_eq!(tally.first_failure.as_deref(), Some("status 503: busy"));
}
