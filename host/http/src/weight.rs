//! Upper bounds on the memory that a decoded body takes.

/// Returns the maximum memory of the decoded values of a lookup's body, in bytes.
pub(super) fn lookup_bytes(body: &[u8]) -> usize {
    // A value takes 32 bytes. While a list grows, its old buffer and a new one of twice the size exist at the same
    // time, so each item counts for 96 bytes. The 192 bytes for each list include its first buffer, which has four
    // items.
    weigh(body, 96, 192, 96)
}

/// Returns the maximum memory of a body as a tree of JSON values, in bytes.
pub(super) fn tree_bytes(body: &[u8]) -> usize {
    // A mapping with one item allocates a B-tree node with a capacity of eleven items.
    weigh(body, 96, 192, 768)
}

/// Estimates memory from the numbers of separators and opening brackets. Those inside strings are counted too, which
/// makes the estimate too large, but never too small.
fn weigh(body: &[u8], item: usize, list: usize, mapping: usize) -> usize {
    let count = |wanted: u8| body.iter().filter(|byte| **byte == wanted).count();
    body.len() + item * (count(b',') + count(b':')) + list * count(b'[') + mapping * count(b'{')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode_request;

    /// Returns the peak memory of decoding, in addition to the body, in bytes.
    fn peak_bytes(body: &str, decode: impl FnOnce(&[u8])) -> usize {
        let counted = allocation_counter::measure(|| decode(body.as_bytes()));
        usize::try_from(counted.bytes_max).unwrap()
    }

    #[test]
    fn decoded_bodies_stay_within_estimate() {
        let many = |item: &str| vec![item; 20_000].join(",");
        let items = ["1", "\"\"", "[]", "[[]]", "[1,1]", "{}", "{\"\":0}", "{\"a\":{\"b\":[{}]}}", "null", "-1.5e3"];
        for item in items {
            let body = format!(r#"{{"features":["a:b"],"entities":{{"x":[{}]}}}}"#, many(item));
            let decoded = peak_bytes(&body, |body| drop(decode_request(body).unwrap()));
            assert!(decoded <= lookup_bytes(body.as_bytes()), "{item}: {decoded}");
            let tree = peak_bytes(&body, |body| drop(serde_json::from_slice::<serde_json::Value>(body).unwrap()));
            assert!(tree <= tree_bytes(body.as_bytes()), "{item}: {tree} of {}", tree_bytes(body.as_bytes()));
        }
        let features = format!(r#"{{"features":[{}],"entities":{{}}}}"#, many("\"\\n\""));
        assert!(peak_bytes(&features, |body| drop(decode_request(body).unwrap())) <= lookup_bytes(features.as_bytes()));
        let columns: Vec<String> = (0..20_000).map(|n| format!(r#""{n}":[1]"#)).collect();
        let columns = format!(r#"{{"entities":{{{}}}}}"#, columns.join(","));
        assert!(peak_bytes(&columns, |body| drop(decode_request(body).unwrap())) <= lookup_bytes(columns.as_bytes()));
        let tree = peak_bytes(&columns, |body| drop(serde_json::from_slice::<serde_json::Value>(body).unwrap()));
        assert!(tree <= tree_bytes(columns.as_bytes()));
    }
}
