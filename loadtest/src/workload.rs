//! What is asked: requests written once, before the clock runs, and picked at random.

/// Requests to put on a server.
#[derive(Debug)]
pub(crate) struct Workload {
    /// What it is, for the report.
    pub(crate) name: String,
    /// Whole HTTP/1.1 requests; never empty.
    requests: Vec<Vec<u8>>,
    /// The one whose answer the floor sends.
    sample: usize,
}

/// Random numbers that are cheap, good enough to pick a key, and the same in every run.
#[derive(Clone, Debug)]
pub(crate) struct XorShift {
    state: u64,
}

// === impl Workload ===

impl Workload {
    /// One customer of the demo in each request, and everything that its model wants to know.
    pub(crate) fn one_customer(customers: u32) -> Self {
        let requests: Vec<_> = (1..=customers.max(1)).map(one_customer_request).collect();
        // CUST_000123 is the customer that the documentation shows.
        let sample = 122.min(requests.len() - 1);
        Self { name: format!("1 entity, uniform over {customers} customers"), requests, sample }
    }

    /// The request whose answer the floor sends.
    pub(crate) fn sample(&self) -> &[u8] {
        &self.requests[self.sample]
    }

    /// All of them, in order.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &[u8]> {
        self.requests.iter().map(Vec::as_slice)
    }

    /// Any one of them, each as likely as the other.
    pub(crate) fn pick(&self, random: &mut XorShift) -> &[u8] {
        &self.requests[random.below(self.requests.len())]
    }
}

fn one_customer_request(customer: u32) -> Vec<u8> {
    let body = format!(
        r#"{{"feature_service":"churn_prediction_online","entities":{{"customer_id":["CUST_{customer:06}"]}}}}"#
    );
    post_json("/get-online-features", &body)
}

fn post_json(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

// === impl XorShift ===

impl XorShift {
    /// The numbers of one connection: connections of the same run pick different keys.
    pub(crate) fn new(seed: u64, connection: usize) -> Self {
        // Spread by the golden ratio; zero would stay zero forever.
        let state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31)
            ^ (connection as u64 + 1).wrapping_mul(0xD134_2543_DE82_EF95);
        Self { state: state | 1 }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below this one.
    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_whole() {
        let workload = Workload::one_customer(10_000);
        let sample = std::str::from_utf8(workload.sample()).unwrap();
        let (head, body) = sample.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        assert_eq!(body, r#"{"feature_service":"churn_prediction_online","entities":{"customer_id":["CUST_000123"]}}"#);
        assert!(workload.requests().last().unwrap().ends_with(br#"["CUST_010000"]}}"#));
    }

    #[test]
    fn picks_are_even_and_differ_by_connection() {
        let mut counts = [0_u32; 10];
        let mut random = XorShift::new(0, 0);
        for _ in 0..10_000 {
            counts[random.below(counts.len())] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_ne!(XorShift::new(0, 0).next(), XorShift::new(0, 1).next());
        assert_ne!(XorShift::new(0, 0).next(), XorShift::new(1, 0).next());
    }
}
