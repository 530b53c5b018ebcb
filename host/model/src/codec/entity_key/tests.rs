use super::*;

/// Key bytes and ids as Feast 0.67 computed them.
const VECTORS: &str = include_str!("../testdata/entity_ids.txt");

/// Returns the keys in `entity_ids.txt`, each with the prefix of its lines.
fn keys() -> Vec<(&'static str, Vec<(&'static str, KeyValue<'static>)>)> {
    use KeyValue::{Bytes, Int32, Int64, String, UnixTimestamp};
    vec![
        ("customer_id=CUST_000123 STRING", vec![("customer_id", String("CUST_000123"))]),
        ("customer_id=1001 INT64", vec![("customer_id", Int64(1001))]),
        ("customer_id=1001 INT32", vec![("customer_id", Int32(1001))]),
        ("driver_id=1001 INT64", vec![("driver_id", Int64(1001))]),
        ("customer_id=-1 INT64", vec![("customer_id", Int64(-1))]),
        (r"customer_id=b'\x00\xff' BYTES", vec![("customer_id", Bytes(&[0x00, 0xff]))]),
        ("ts=1700000000 UNIX_TIMESTAMP", vec![("ts", UnixTimestamp(1_700_000_000))]),
        (
            "pair unsorted input (driver_id=1001, customer_id=CUST_000123)",
            vec![("customer_id", String("CUST_000123")), ("driver_id", Int64(1001))],
        ),
        ("dummy", vec![("__dummy_id", String(""))]),
        ("empty string customer_id", vec![("customer_id", String(""))]),
        ("utf8 customer_id=é中", vec![("customer_id", String("é中"))]),
    ]
}

#[test]
fn keys_and_ids_equal_feast() {
    let mut seen = 0;
    for (name, key) in keys() {
        for (number, version) in [(2, KeyVersion::V2), (3, KeyVersion::V3)] {
            let line = VECTORS.lines().find(|line| line.starts_with(&format!("{name} v{number} "))).unwrap();
            let field = |label| line.split(' ').find_map(|word| word.strip_prefix(label)).unwrap();

            let encoder = KeyEncoder::new(version, key.iter().map(|(name, _)| *name));
            let mut buffer = vec![0xaa];
            let id = encoder.encode(key.iter().map(|(_, value)| *value), &mut buffer);

            let hex: String = buffer.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, field("bytes="), "{line}");
            assert_eq!(id.to_string(), field("entity_id="), "{line}");
            seen += 1;
        }
    }
    let lines = VECTORS.lines().filter(|line| line.contains(" entity_id=")).count();
    assert_eq!(seen, lines, "every line of the vectors must be tested");
}

#[test]
fn every_tail_length_hashes_differently() {
    // The vectors cover few lengths modulo 16. This test detects a tail that is dropped or read twice.
    let bytes: Vec<u8> = (1..=64).collect();
    let hashes: std::collections::HashSet<_> = (0..=64).map(|len| murmur3_x64_128(&bytes[..len])).collect();
    assert_eq!(hashes.len(), 65);
}
