//! Requests that are encoded before the measurement, and picked at random during it.

use serde_json::{Map, Value, json};

use crate::{
    client::{Request, Wire, post_json},
    random::{Keys, Picker, XorShift},
    resp,
};

/// The customer number of the sample request. CUST_000123 is the customer in the documentation.
pub(crate) const EXAMPLE: u32 = 123;

/// The requests of a load.
#[derive(Debug)]
pub(crate) struct Workload {
    /// The kinds of requests. Never empty.
    parts: Vec<Part>,
    /// The sum of the parts' weights.
    weights: usize,
}

/// Requests of one kind.
#[derive(Debug)]
pub(crate) struct Part {
    /// The weight of this kind among all requests.
    weight: usize,
    /// The encoded requests. Never empty.
    requests: Vec<Request>,
    /// The index of the request whose response the floor sends.
    sample: usize,
    picker: Picker,
}

/// The entities of one kind of request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entities {
    /// The number of entities in each request.
    pub(crate) each: usize,
    /// The number of customers, whose numbers begin at 1.
    pub(crate) customers: u32,
    /// An offset that is added to customer numbers. With a large offset, requests are for customers that do not exist.
    pub(crate) offset: u32,
    /// The number of different requests, if each has several entities.
    pub(crate) pool: usize,
    pub(crate) keys: Keys,
}

/// The views to read, and the fields that are requested from each view. Redis has a hash for each view and entity.
pub(crate) type Hashes = [(String, Vec<String>)];

// === impl Workload ===

impl Workload {
    /// Creates a workload with one customer in each request.
    pub(crate) fn one_customer(service: &str, customers: u32, keys: Keys) -> Self {
        let entities = Entities { each: 1, customers: customers.max(1), offset: 0, pool: 0, keys };
        Self::of(vec![Part::new(1, &entities, |ids| feature_server_request(service, ids, false))])
    }

    pub(crate) fn of(parts: Vec<Part>) -> Self {
        let weights = parts.iter().map(|part| part.weight).sum();
        Self { parts, weights }
    }

    /// Returns the sample request of the first kind.
    pub(crate) fn sample(&self) -> &Request {
        self.parts[0].sample()
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Returns all requests, in order.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &Request> {
        self.parts.iter().flat_map(|part| &part.requests)
    }

    /// Picks a request at random. The probability of a kind depends on its weight, and the probability of a key on the
    /// selection of keys.
    pub(crate) fn pick(&self, random: &mut XorShift) -> &Request {
        let [only] = &self.parts[..] else {
            let mut drawn = random.below(self.weights);
            let chosen = self.parts.iter().find(|part| {
                let found = drawn < part.weight;
                drawn = drawn.wrapping_sub(part.weight);
                found
            });
            return chosen.unwrap_or(&self.parts[0]).pick(random);
        };
        only.pick(random)
    }
}

// === impl Part ===

impl Part {
    pub(crate) fn new(weight: usize, entities: &Entities, write: impl Fn(&[String]) -> Request) -> Self {
        let id = |number: u32| customer_id(number + entities.offset);
        if entities.each == 1 {
            return Self::numbered(weight, entities, |number| write(&[id(number)]));
        }
        // The keys are selected here, when the requests are created. During the run, all of these requests are equally
        // likely.
        let customers = entities.customers as usize;
        let picker = Picker::new(entities.keys, customers, EXAMPLE as usize - 1);
        let mut random = XorShift::new(entities.each as u64, 0);
        let neighbors = (0..entities.each).map(|index| (100 + index) % customers).collect();
        let drawn = (1..entities.pool.max(1))
            .map(|_| (0..entities.each).map(|_| picker.pick(&mut random)).collect::<Vec<_>>())
            .collect::<Vec<_>>();
        let requests: Vec<_> = std::iter::once(neighbors)
            .chain(drawn)
            .map(|picks: Vec<usize>| write(&picks.into_iter().map(|index| id(index as u32 + 1)).collect::<Vec<_>>()))
            .collect();
        let picker = Picker::Uniform { end: requests.len() };
        Self { weight, requests, sample: 0, picker }
    }

    /// Creates requests with one entity each. `write` creates the request for the number of an entity. Numbers begin at
    /// 1.
    pub(crate) fn numbered(weight: usize, entities: &Entities, write: impl Fn(u32) -> Request) -> Self {
        let requests: Vec<_> = (1..=entities.customers).map(write).collect();
        let sample = (EXAMPLE as usize - 1).min(requests.len() - 1);
        let picker = Picker::new(entities.keys, requests.len(), sample);
        Self { weight, requests, sample, picker }
    }

    pub(crate) fn sample(&self) -> &Request {
        &self.requests[self.sample]
    }

    fn pick(&self, random: &mut XorShift) -> &Request {
        &self.requests[self.picker.pick(random)]
    }
}

pub(crate) fn customer_id(number: u32) -> String {
    format!("CUST_{number:06}")
}

/// Creates a request in the format of Feast's feature server. `discount` adds the churn plugin's request input.
pub(crate) fn feature_server_request(service: &str, ids: &[String], discount: bool) -> Request {
    let mut entities = Map::from_iter([("customer_id".to_owned(), json!(ids))]);
    if discount {
        entities.insert("discount_percent".to_owned(), json!(vec![10.0; ids.len()]));
    }
    let body = json!({ "feature_service": service, "entities": Value::Object(entities) });
    post_json("/get-online-features", &body.to_string())
}

/// Creates a pipeline that reads the hashes of all entities.
pub(crate) fn redis_request(hashes: &Hashes, ids: &[String]) -> Request {
    let mut bytes = Vec::new();
    for id in ids {
        for (view, fields) in hashes {
            let key = redis_key(view, id);
            let args: Vec<_> = ["HMGET", &key].into_iter().chain(fields.iter().map(String::as_str)).collect();
            resp::write_command(args.into_iter(), &mut bytes);
        }
    }
    Request { bytes, wire: Wire::Resp { commands: ids.len() * hashes.len() } }
}

pub(crate) fn redis_key(view: &str, id: &str) -> String {
    format!("{view}:{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(request: &Request) -> Value {
        let text = std::str::from_utf8(&request.bytes).unwrap();
        serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn entities(each: usize, offset: u32) -> Entities {
        Entities { each, customers: 200, offset, pool: 5, keys: Keys::Uniform }
    }

    #[test]
    fn each_request_has_one_customer() {
        let workload = Workload::one_customer("some", 10_000, Keys::Uniform);
        let expected = json!({ "feature_service": "some", "entities": { "customer_id": ["CUST_000123"] } });
        assert_eq!(body(workload.sample()), expected);
        assert_eq!(body(workload.requests().last().unwrap())["entities"]["customer_id"][0], "CUST_010000");
        assert_eq!(workload.requests().count(), 10_000);
    }

    #[test]
    fn sample_has_neighboring_customers() {
        let part = Part::new(1, &entities(50, 0), |ids| feature_server_request("wide", ids, true));
        assert_eq!(part.requests.len(), 5);
        let sample = body(part.sample());
        let ids = sample["entities"]["customer_id"].as_array().unwrap();
        assert_eq!((ids.len(), &ids[0], &ids[49]), (50, &json!("CUST_000101"), &json!("CUST_000150")));
        assert_eq!(sample["entities"]["discount_percent"].as_array().unwrap().len(), 50);
        assert_ne!(body(&part.requests[1]), body(&part.requests[2]));
    }

    #[test]
    fn offset_requests_unknown_customers() {
        let part = Part::new(1, &entities(1, 900_000), |ids| feature_server_request("some", ids, false));
        assert_eq!(body(part.sample())["entities"]["customer_id"][0], "CUST_900123");
    }

    #[test]
    fn kinds_are_picked_by_weight() {
        let part = |weight, each| Part::new(weight, &entities(each, 0), |ids| feature_server_request("s", ids, false));
        let workload = Workload::of(vec![part(90, 1), part(9, 2), part(1, 100)]);
        let (mut random, mut counts) = (XorShift::new(3, 0), [0_u32; 3]);
        for _ in 0..10_000 {
            let each = body(workload.pick(&mut random))["entities"]["customer_id"].as_array().unwrap().len();
            counts[[1, 2, 100].iter().position(|&known| known == each).unwrap()] += 1;
        }
        let [most, some, few] = counts;
        assert!(
            (8_850..9_150).contains(&most) && (800..1_000).contains(&some) && (60..140).contains(&few),
            "{counts:?}"
        );
    }

    #[test]
    fn redis_request_reads_every_view_and_entity() {
        let hashes = [("a".to_owned(), vec!["x".to_owned()]), ("b".to_owned(), vec!["y".to_owned(), "z".to_owned()])];
        let request = redis_request(&hashes, &["1".to_owned(), "2".to_owned()]);
        assert_eq!(request.wire, Wire::Resp { commands: 4 });
        let text = String::from_utf8(request.bytes).unwrap();
        assert!(text.ends_with("*4\r\n$5\r\nHMGET\r\n$3\r\nb:2\r\n$1\r\ny\r\n$1\r\nz\r\n"), "{text}");
    }
}
