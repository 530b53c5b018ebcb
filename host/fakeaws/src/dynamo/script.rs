//! The script: what a test does to tables and streams, and what it asks of the server.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
};

use serde_json::Value;

use super::{FakeDynamo, ShardInfo, State, table::Table};

// === impl FakeDynamo ===

impl FakeDynamo {
    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked in a script method has failed already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, table: &str, work: impl FnOnce(&mut Table, &mut u64) -> T) -> T {
        let mut state = self.state();
        let State { tables, counter, .. } = &mut *state;
        work(tables.get_mut(table).unwrap_or_else(|| panic!("no table '{table}'")), counter)
    }

    /// Makes a table with these key attributes and types (`S`, `N` or `B`), the partition key first; with a stream of this
    /// view type, if one is named. What had the name before is gone.
    pub fn create_table(&self, name: &str, keys: &[(&str, &str)], stream: Option<&str>) {
        assert!(matches!(keys.len(), 1 | 2), "a key has one part or two");
        let mut state = self.state();
        let keys = keys.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect();
        state.add_table(name, keys, stream);
    }

    /// Puts an item, in DynamoDB's JSON.
    pub fn put(&self, table: &str, item: Value) {
        let put = self.with(table, |table, counter| table.put(&item, counter));
        put.unwrap_or_else(|why| panic!("{item} cannot be put: {why}"));
    }

    /// Deletes the item of a key, if there is one.
    pub fn delete(&self, table: &str, key: &Value) {
        let delete = self.with(table, |table, counter| table.delete(key, counter));
        delete.unwrap_or_else(|why| panic!("{key} cannot be deleted: {why}"));
    }

    /// Its items, in the order of a scan.
    #[must_use]
    pub fn items(&self, table: &str) -> Vec<Value> {
        self.with(table, |table, _| table.items.values().cloned().collect())
    }

    /// The shards that its stream lists, in the order in which they were opened.
    #[must_use]
    pub fn shards(&self, table: &str) -> Vec<ShardInfo> {
        let infos = |table: &mut Table, _: &mut u64| {
            let listed = table.stream_now().shards.iter().filter(|shard| shard.is_listed);
            listed.map(|shard| shard.info()).collect()
        };
        self.with(table, infos)
    }

    /// Closes a shard, and opens two that share its keys.
    pub fn split(&self, table: &str, shard: &str) {
        self.with(table, |table, counter| table.stream_now().replace(shard, 2, counter));
    }

    /// Closes every open shard, and opens one in the place of each.
    pub fn rotate(&self, table: &str) {
        self.with(table, |table, counter| {
            let stream = table.stream_now();
            stream.open_ids().iter().for_each(|id| stream.replace(id, 1, counter));
        });
    }

    /// Forgets closed shards: children stay, and name parents that are gone.
    pub fn trim_closed(&self, table: &str) {
        self.with(table, |table, _| table.stream_now().trim_closed());
    }

    /// Forgets all records so far, seen or withheld.
    pub fn trim_records(&self, table: &str) {
        self.with(table, |table, counter| {
            *counter += 1;
            table.stream_now().trim_records(*counter);
        });
    }

    /// Withholds records of writes from now on.
    pub fn hold(&self, table: &str) {
        self.with(table, |table, _| table.stream_now().hold(true));
    }

    /// Shows what was withheld.
    pub fn release(&self, table: &str) {
        self.with(table, |table, _| table.stream_now().hold(false));
    }

    /// Turns the stream off. It cannot be read any more, though the table goes on to name it as its latest.
    pub fn disable_stream(&self, table: &str) {
        self.with(table, |table, _| table.stream = None);
    }

    /// Turns on a new one, of another ARN; one that was on is gone.
    pub fn enable_stream(&self, table: &str, view: &str) {
        self.with(table, |table, counter| table.enable_stream(view, counter));
    }

    /// Another table in the place of this one: of the same name, keys and kind of stream, without items.
    pub fn recreate(&self, name: &str) {
        let (keys, view) =
            self.with(name, |table, _| (table.keys.clone(), table.stream.as_ref().map(|stream| stream.view.clone())));
        self.state().add_table(name, keys, view.as_deref());
    }

    /// An INSERT of an item that has its key and nothing else, as some imitations send it; no item is written.
    pub fn phantom_insert(&self, table: &str, key: &Value) {
        self.with(table, |table, counter| {
            assert!(table.place_of_key(key).is_some(), "{key} is no key of '{}'", table.name);
            table.record("INSERT", key.clone(), Some(key.clone()), None, counter);
        });
    }

    /// Lets all iterators expire that were handed out.
    pub fn expire_iterators(&self) {
        self.state().epoch += 1;
    }

    /// The next `n` answers of GetRecords have no records, whatever there is; for every shard, those to come too.
    pub fn empty_pages(&self, n: u64) {
        let mut state = self.state();
        state.empty_pages = n;
        state.emptied.clear();
    }

    /// The next GetRecords that can begins with the `n` records of its shard that came before its place.
    pub fn redeliver(&self, n: usize) {
        self.state().redeliver = n;
    }

    /// How many shards a page of DescribeStream has at most.
    pub fn page_shards(&self, n: usize) {
        self.state().page_shards = n.max(1);
    }

    /// How many items a page of a scan or a query has at most.
    pub fn page_items(&self, n: usize) {
        self.state().page_items = n.max(1);
    }

    /// The next `n` answers of DescribeTable say that the table is being made.
    pub fn creating(&self, n: u64) {
        self.state().creating = n;
    }

    /// The next `n` pages of scans have no items, and a key to go on from, which no item has.
    pub fn empty_scan_pages(&self, n: u64) {
        self.state().empty_scan_pages = n;
    }

    /// Whether a full page that ends with the last item says that there may be more.
    pub fn full_page_goes_on(&self, does: bool) {
        self.state().full_page_goes_on = does;
    }

    /// The next `n` calls of BatchGetItem leave the second half of their keys over.
    pub fn unprocessed_keys(&self, n: u64) {
        self.state().unprocessed_keys = n;
    }

    /// The next `n` calls of BatchWriteItem leave the second half of their writes over.
    pub fn unprocessed_items(&self, n: u64) {
        self.state().unprocessed_items = n;
    }

    /// The next `n` calls of an operation are refused for too many requests.
    pub fn throttle(&self, operation: &str, n: u64) {
        self.state().throttled.insert(operation.to_owned(), n);
    }

    /// How often each operation was called, refused calls too.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.state().calls.clone()
    }
}
