//! Tests with files as Feast writes them, including a file whose writer was killed.

use std::fs;

use larder_model::{
    codec::{KeyValue, KeyVersion},
    registry::{Definitions, validate},
    yaml::Problems,
};
use tempfile::TempDir;

use super::*;

const TABLE: &str = "shop_customer_stats";
const DEFINITIONS: &str = "
entities: [{name: customer, join_key: customer_id, type: String}]
feature_views:
  - name: customer_stats
    entities: [customer]
    features: [{name: orders, type: Int64}, {name: spent, type: Float64}]
";

struct Shop {
    dir: TempDir,
    feast: Connection,
}

impl Shop {
    /// Creates a file with a table like the one that `feast apply` creates.
    fn open() -> Self {
        let dir = TempDir::new().unwrap();
        let feast = Connection::open(dir.path().join("online.db")).unwrap();
        let shop = Self { dir, feast };
        shop.make_table(TABLE);
        shop
    }

    fn make_table(&self, table: &str) {
        let columns = "entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, vector_value BLOB, event_ts \
                       timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name)";
        self.feast.execute_batch(&format!("CREATE TABLE {table} ({columns})")).unwrap();
    }

    fn put(&self, table: &str, customer: &str, feature: &str, value: &[u8], event: &dyn rusqlite::ToSql) {
        let sql = format!(
            "INSERT OR REPLACE INTO {table} (entity_key, feature_name, value, event_ts) VALUES (?1, ?2, ?3, ?4)"
        );
        self.feast.execute(&sql, params![key(customer), feature, value, event]).unwrap();
    }

    fn source(&self) -> FeastSqlite {
        self.source_at("online.db")
    }

    fn source_at(&self, file: &str) -> FeastSqlite {
        let problems = Problems::default();
        let mut definitions = Definitions::default();
        definitions.read("test", DEFINITIONS, &problems);
        let catalog = validate("shop", KeyVersion::V3, definitions, &problems).unwrap();
        FeastSqlite::new(self.dir.path().join(file), TABLE, &catalog.views()[0])
    }
}

fn key(customer: &str) -> Vec<u8> {
    let encoder = KeyEncoder::new(KeyVersion::V3, ["customer_id"]);
    let mut bytes = Vec::new();
    encoder.begin(&mut bytes);
    KeyEncoder::push(&mut bytes, KeyValue::String(customer));
    bytes
}

/// Returns every item, and the position after them.
fn read(source: &FeastSqlite) -> Result<(Vec<Item>, String), SourceError> {
    let mut reading = source.read(None)?;
    let mut items = Vec::new();
    while let Some(batch) = reading.next_batch()? {
        match batch.rows {
            SourceRows::Items(batch) => items.extend(batch),
            SourceRows::Columns(_) | SourceRows::Changes(_) => panic!("SQLite yields only items"),
        }
    }
    Ok((items, reading.position()))
}

#[test]
fn lines_are_grouped_into_items() {
    let shop = Shop::open();
    shop.put(TABLE, "A", "orders", &[0x20, 7], &100);
    shop.put(TABLE, "A", "spent", &[], &100);
    // Lines of a previous version of the view, which had a feature `gone`, and did not have `spent` yet.
    shop.put(TABLE, "B", "gone", &[1], &200);
    shop.put(TABLE, "B", "orders", &[0x20, 8], &"2026-01-31 12:00:00.25");
    let (mut items, _) = read(&shop.source()).unwrap();
    items.sort_by_key(|item| item.event_time);
    let item = |customer: &str, event_time, values: [Option<&[u8]>; 2]| Item {
        id: KeyEncoder::id(&key(customer)),
        event_time: Some(event_time),
        created: None,
        expires: None,
        values: values.map(|value| value.map(|bytes| ItemValue::Feast(bytes.to_vec()))).to_vec(),
        problem: None,
    };
    let expected = [
        item("A", 100_000_000, [Some(&[0x20, 7]), Some(&[])]),
        item("B", 1_769_860_800_250_000, [Some(&[0x20, 8]), None]),
    ];
    assert_eq!(items, expected);
}

#[test]
fn mistyped_value_is_unreadable_alone() {
    let shop = Shop::open();
    shop.put(TABLE, "A", "orders", &[0x20, 7], &100);
    shop.put(TABLE, "A", "spent", &[], &100);
    shop.feast.execute(&format!("UPDATE {TABLE} SET value = 'text' WHERE feature_name = 'spent'"), []).unwrap();
    let (items, _) = read(&shop.source()).unwrap();
    let unreadable = ItemValue::Unreadable("its value is Text in SQLite, not a blob".to_owned());
    assert_eq!(items[0].values, [Some(ItemValue::Feast(vec![0x20, 7])), Some(unreadable)]);
}

#[test]
fn oversized_value_is_skipped_alone() {
    let shop = Shop::open();
    let long = |bytes: usize| format!("zeroblob({bytes})");
    shop.put(TABLE, "a", "orders", b"orders", &1_000);
    shop.put(TABLE, "a", "spent", b"spent", &1_000);
    shop.put(TABLE, "b", "orders", b"orders", &2_000);
    let set = |what: &str, value: &str, feature: &str| {
        let sql = format!("UPDATE {TABLE} SET {what} = {value} WHERE entity_key = ?1 AND feature_name = ?2");
        assert_eq!(shop.feast.execute(&sql, params![key("a"), feature]).unwrap(), 1);
    };
    let of = |items: &[Item], customer: &str| {
        items.iter().find(|item| item.id == KeyEncoder::id(&key(customer))).unwrap().clone()
    };
    set("value", &long(VALUE_BYTES_MAX + 1), "spent");
    let (items, before) = read(&shop.source()).unwrap();
    let a = of(&items, "a");
    assert_eq!(a.values[0], Some(ItemValue::Feast(b"orders".to_vec())));
    assert!(matches!(&a.values[1], Some(ItemValue::Unreadable(why)) if why.contains("4194305 bytes")), "{a:?}");
    assert_eq!((of(&items, "b").event_time, a.problem), (Some(2_000 * SECOND), None));
    // A change of an oversized value is detected only if its length changes.
    set("value", &long(900_000_000), "spent");
    assert_ne!(read(&shop.source()).unwrap().1, before);

    // Each value is within the limit, but the row is too long.
    set("value", &long(VALUE_BYTES_MAX - 10), "spent");
    set("value", &long(11), "orders");
    let a = of(&read(&shop.source()).unwrap().0, "a");
    assert!(a.problem.unwrap().contains("4194305 bytes"));
    set("value", &long(10), "orders");
    assert_eq!(of(&read(&shop.source()).unwrap().0, "a").problem, None);

    set("event_ts", "'2026-01-01 00:00:00' || hex(zeroblob(1000))", "orders");
    set("event_ts", &long(100), "spent");
    assert_eq!(of(&read(&shop.source()).unwrap().0, "a").event_time, None);

    shop.put(TABLE, "c", &"x".repeat(KEY_BYTES_MAX), b"", &1_000);
    assert_eq!(read(&shop.source()).unwrap().0.len(), 3);
    shop.put(TABLE, "c", &"x".repeat(KEY_BYTES_MAX + 1), b"", &1_000);
    let error = read(&shop.source()).unwrap_err().to_string();
    assert!(
        error.contains("'shop_customer_stats' with a key or name longer than 64 KiB is 1, but at most 0"),
        "{error}"
    );
}

#[test]
fn batches_of_large_values_stay_small() {
    let shop = Shop::open();
    for n in 0..20 {
        let customer = format!("{n:02}");
        shop.put(TABLE, &customer, "orders", &vec![1; 2 << 20], &1_000);
        shop.put(TABLE, &customer, "spent", b"spent", &1_000);
    }
    let source = shop.source();
    let mut batches = source.read(None).unwrap();
    let (mut items, mut largest) = (0, 0);
    while let Some(batch) = batches.next_batch().unwrap() {
        largest = largest.max(batch.rows.len());
        items += batch.rows.len();
    }
    assert_eq!(items, 20);
    assert!(largest <= 9, "{largest} entities of 2 MiB in a batch of 16 MiB");
}

#[test]
fn entity_across_queries_is_one_item() {
    let shop = Shop::open();
    shop.feast.execute_batch("BEGIN").unwrap();
    // The first entity has one line, and all others have two. So the first query ends between the lines of an entity.
    shop.put(TABLE, "", "spent", &[1], &1);
    let entities = LINES_PER_BATCH / 2 + 10;
    for i in 0..entities {
        let customer = format!("{i:08}");
        shop.put(TABLE, &customer, "orders", &[0x20, 1], &1);
        shop.put(TABLE, &customer, "spent", &[2], &1);
    }
    shop.feast.execute_batch("COMMIT").unwrap();
    let (items, _) = read(&shop.source()).unwrap();
    assert_eq!(items.len(), entities as usize + 1);
    assert_eq!(items.iter().filter(|item| item.values.iter().all(Option::is_some)).count(), entities as usize);
}

#[test]
fn only_table_changes_are_detected() {
    let shop = Shop::open();
    shop.make_table("shop_other");
    shop.put(TABLE, "A", "orders", &[0x20, 7], &100);
    let source = shop.source();
    let (_, position) = read(&source).unwrap();
    assert!(!source.has_changes(&position).unwrap());
    shop.put("shop_other", "A", "orders", &[0x20, 7], &100);
    assert!(!source.has_changes(&position).unwrap(), "another table");
    shop.put(TABLE, "A", "orders", &[0x20, 9], &100);
    assert!(source.has_changes(&position).unwrap(), "a value");
    // A second check without a read in between.
    assert!(source.has_changes(&position).unwrap());
    let (_, position) = read(&source).unwrap();
    assert!(!source.has_changes(&position).unwrap());
    // A restarted server has no state except the position in its store.
    assert!(!shop.source().has_changes(&position).unwrap());
    shop.feast.execute(&format!("DELETE FROM {TABLE}"), []).unwrap();
    assert!(source.has_changes(&position).unwrap(), "a deleted line");
    assert_eq!(read(&source).unwrap().0, []);
}

#[test]
fn locked_file_is_busy() {
    let shop = Shop::open();
    shop.put(TABLE, "A", "orders", &[0x20, 7], &100);
    shop.feast.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = read(&shop.source()).unwrap_err();
    assert!(matches!(error, SourceError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("online.db is locked by another process"), "{error}");
    shop.feast.execute_batch("COMMIT").unwrap();
    assert_eq!(read(&shop.source()).unwrap().0.len(), 1);
}

#[test]
fn unfinished_transaction_is_not_read() {
    let shop = Shop::open();
    for i in 0..200 {
        shop.put(TABLE, &format!("{i}"), "orders", &[0x20, 1], &1);
    }
    // A cache of a few pages makes SQLite write into the file before the transaction ends.
    shop.feast.execute_batch("PRAGMA cache_size = 2; BEGIN").unwrap();
    for i in 0..2_000 {
        shop.put(TABLE, &format!("{i}"), "orders", &[0x20, 2], &2);
    }
    let file = |name: &str| shop.dir.path().join(name);
    assert!(file("online.db-journal").try_exists().unwrap());
    fs::copy(file("online.db"), file("killed.db")).unwrap();
    fs::copy(file("online.db-journal"), file("killed.db-journal")).unwrap();
    assert_ne!(fs::metadata(file("killed.db")).unwrap().len(), 0);
    let (items, _) = read(&shop.source_at("killed.db")).unwrap();
    assert_eq!(items.len(), 200);
    assert!(items.iter().all(|item| item.values[0] == Some(ItemValue::Feast(vec![0x20, 1]))));
}

#[test]
fn invalid_feast_store_is_reported() {
    let shop = Shop::open();
    let error = |file: &str| read(&shop.source_at(file)).unwrap_err().to_string();
    assert!(error("none.db").contains("none.db"), "{}", error("none.db"));
    assert!(!shop.dir.path().join("none.db").try_exists().unwrap(), "the read created no file");
    fs::write(shop.dir.path().join("text.db"), "not a database, but longer than SQLite's header: ".repeat(50)).unwrap();
    assert!(error("text.db").contains("is not a readable SQLite file"), "{}", error("text.db"));
    fs::write(shop.dir.path().join("empty.db"), "").unwrap();
    assert!(error("empty.db").contains("has no table 'shop_customer_stats'"), "{}", error("empty.db"));
    let whole = fs::read(shop.dir.path().join("online.db")).unwrap();
    for i in 0..500 {
        shop.put(TABLE, &format!("{i}"), "orders", &[0x20, 1], &1);
    }
    let grown = fs::read(shop.dir.path().join("online.db")).unwrap();
    assert!(grown.len() > whole.len());
    fs::write(shop.dir.path().join("cut.db"), &grown[..grown.len() / 2]).unwrap();
    assert!(error("cut.db").contains("is not a readable SQLite file"), "{}", error("cut.db"));
}

#[test]
fn pipe_as_file_or_log_fails() {
    let shop = Shop::open();
    let make_pipe = |name: &str| {
        let path = shop.dir.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    make_pipe("pipe.db");
    make_pipe("online.db-wal");
    for (file, named) in [("pipe.db", "pipe.db"), ("online.db", "online.db-wal")] {
        let error = read(&shop.source_at(file)).unwrap_err().to_string();
        assert!(error.ends_with(&format!("{named}: it is a named pipe, not a regular file")), "{error}");
        assert!(file == "online.db" || shop.source_at(file).has_changes("").is_err());
    }
}
