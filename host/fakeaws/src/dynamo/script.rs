//! The methods with which a test changes and inspects tables and streams.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
};

use serde_json::Value;

use super::{
    FakeDynamo, ShardInfo, State,
    stream::{sequence_of, sequence_text},
    table::Table,
};

// === impl FakeDynamo ===

impl FakeDynamo {
    fn state(&self) -> MutexGuard<'_, State> {
        // The lock is poisoned only if a method panicked. In that case, the test has already failed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, table: &str, work: impl FnOnce(&mut Table, &mut u64) -> T) -> T {
        let mut state = self.state();
        let State { tables, counter, .. } = &mut *state;
        work(tables.get_mut(table).unwrap_or_else(|| panic!("no table '{table}'")), counter)
    }

    /// Creates a table with these key attributes and their types (`S`, `N` or `B`). The first attribute is the
    /// partition key. If `stream` is a view type, the table has a stream of that type. Replaces an existing table with
    /// this name.
    pub fn create_table(&self, name: &str, keys: &[(&str, &str)], stream: Option<&str>) {
        assert!(matches!(keys.len(), 1 | 2), "a table must have one or two key attributes");
        let mut state = self.state();
        let keys = keys.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect();
        state.add_table(name, keys, stream);
    }

    /// Puts an item, which is in DynamoDB's JSON format.
    pub fn put(&self, table: &str, item: Value) {
        let put = self.with(table, |table, counter| table.put(&item, counter));
        put.unwrap_or_else(|why| panic!("{item} cannot be put: {why}"));
    }

    /// Deletes the item with this key. Does nothing if there is no such item.
    pub fn delete(&self, table: &str, key: &Value) {
        let delete = self.with(table, |table, counter| table.delete(key, counter));
        delete.unwrap_or_else(|why| panic!("{key} cannot be deleted: {why}"));
    }

    /// Returns a table's items, in the order of a scan.
    #[must_use]
    pub fn items(&self, table: &str) -> Vec<Value> {
        self.with(table, |table, _| table.items.values().cloned().collect())
    }

    /// Returns the shards that a table's stream lists, in the order in which they were opened.
    #[must_use]
    pub fn shards(&self, table: &str) -> Vec<ShardInfo> {
        let infos = |table: &mut Table, _: &mut u64| {
            let listed = table.stream_mut().shards.iter().filter(|shard| shard.is_listed);
            listed.map(|shard| shard.info()).collect()
        };
        self.with(table, infos)
    }

    /// Closes a shard, and opens two children that divide its keys.
    pub fn split(&self, table: &str, shard: &str) {
        self.with(table, |table, counter| table.stream_mut().replace(shard, 2, counter));
    }

    /// Closes every open shard, and opens a child for each.
    pub fn rotate(&self, table: &str) {
        self.with(table, |table, counter| {
            let stream = table.stream_mut();
            stream.open_ids().iter().for_each(|id| stream.replace(id, 1, counter));
        });
    }

    /// Closes a shard without opening a child. The next write to a key of the closed shard opens a child.
    pub fn close(&self, table: &str, shard: &str) {
        self.with(table, |table, counter| table.stream_mut().close(shard, counter));
    }

    /// Removes closed shards. Their children stay, and their parent IDs still name the removed shards.
    pub fn trim_closed(&self, table: &str) {
        self.with(table, |table, _| table.stream_mut().trim_closed());
    }

    /// Returns the sequence numbers of the remaining records, including withheld records, in the order of the writes.
    #[must_use]
    pub fn sequences(&self, table: &str) -> Vec<String> {
        let sequences = self.with(table, |table, _| table.stream_mut().sequences());
        sequences.into_iter().map(sequence_text).collect()
    }

    /// Removes the records before the record with this sequence number.
    pub fn trim_to(&self, table: &str, sequence: &str) {
        let sequence = sequence_of(sequence).unwrap_or_else(|| panic!("'{sequence}' is not a sequence number"));
        self.with(table, |table, _| table.stream_mut().trim_to(sequence));
    }

    /// Removes all existing records, including withheld records.
    pub fn trim_records(&self, table: &str) {
        self.with(table, |table, counter| {
            *counter += 1;
            table.stream_mut().trim_records(*counter);
        });
    }

    /// Withholds the records of later writes until [`FakeDynamo::release`].
    pub fn hold(&self, table: &str) {
        self.with(table, |table, _| table.stream_mut().hold(true));
    }

    /// Makes withheld records visible. The records of later writes are not withheld.
    pub fn release(&self, table: &str) {
        self.with(table, |table, _| table.stream_mut().hold(false));
    }

    /// Turns the stream off. The stream can no longer be read, although the table still reports it as its latest
    /// stream.
    pub fn disable_stream(&self, table: &str) {
        self.with(table, |table, _| table.stream = None);
    }

    /// Turns on a new stream with this view type and another ARN. It replaces the previous stream.
    pub fn enable_stream(&self, table: &str, view: &str) {
        self.with(table, |table, counter| table.enable_stream(view, counter));
    }

    /// Replaces a table with an empty one that has the same name, keys and stream view type.
    pub fn recreate(&self, name: &str) {
        let (keys, view) =
            self.with(name, |table, _| (table.keys.clone(), table.stream.as_ref().map(|stream| stream.view.clone())));
        self.state().add_table(name, keys, view.as_deref());
    }

    /// Adds an INSERT record to the stream for an item that has only its key, and writes no item. Some DynamoDB
    /// emulators do this.
    pub fn phantom_insert(&self, table: &str, key: &Value) {
        self.with(table, |table, counter| {
            assert!(table.position_of_key(key).is_some(), "{key} is not a key of table '{}'", table.name);
            table.record("INSERT", key.clone(), Some(key.clone()), None, counter);
        });
    }

    /// Expires all existing iterators.
    pub fn expire_iterators(&self) {
        self.state().epoch += 1;
    }

    /// Makes the next `n` GetRecords responses of every shard empty, including shards that are opened later.
    pub fn empty_pages(&self, n: u64) {
        let mut state = self.state();
        state.empty_pages = n;
        state.emptied.clear();
    }

    /// Makes one GetRecords call repeat up to `n` records before its position. This is the next call for a shard that
    /// has records before the position of the call.
    pub fn redeliver(&self, n: usize) {
        self.state().redeliver = n;
    }

    /// Sets the maximum number of shards in a DescribeStream page.
    pub fn page_shards(&self, n: usize) {
        self.state().page_shards = n.max(1);
    }

    /// Sets the maximum number of items in a page of a scan or a query.
    pub fn page_items(&self, n: usize) {
        self.state().page_items = n.max(1);
    }

    /// Makes the next `n` DescribeTable responses have the status CREATING.
    pub fn creating(&self, n: u64) {
        self.state().creating = n;
    }

    /// Makes the next `n` scan pages empty. Each of these pages has a key from which to continue, and no item has that
    /// key.
    pub fn empty_scan_pages(&self, n: u64) {
        self.state().empty_scan_pages = n;
    }

    /// Sets whether the response has a key from which to continue if the page is full and ends with the last item.
    pub fn full_page_has_key(&self, has_key: bool) {
        self.state().full_page_has_key = has_key;
    }

    /// Sets the maximum number of keys that a BatchGetItem call processes. The call leaves all other keys unprocessed.
    pub fn batch_get_items(&self, n: usize) {
        self.state().batch_get_items = n.max(1);
    }

    /// Makes the next `n` BatchGetItem calls leave the second half of their keys unprocessed.
    pub fn unprocessed_keys(&self, n: u64) {
        self.state().unprocessed_keys = n;
    }

    /// Makes the next `n` BatchWriteItem calls leave the second half of their writes unprocessed.
    pub fn unprocessed_items(&self, n: u64) {
        self.state().unprocessed_items = n;
    }

    /// Rejects the next `n` calls of an operation with the error for too many requests.
    pub fn throttle(&self, operation: &str, n: u64) {
        self.state().throttled.insert(operation.to_owned(), n);
    }

    /// Sets the maximum number of readers of a shard. Further readers are rejected.
    ///
    /// All iterators that derive from one GetShardIterator call count as one reader. A reader that has not read for a
    /// second is no longer counted.
    pub fn readers_max_per_shard(&self, n: usize) {
        let mut state = self.state();
        state.readers_max = n;
        state.readers.clear();
    }

    /// Returns how often each operation was called, including rejected calls.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.state().calls.clone()
    }
}
