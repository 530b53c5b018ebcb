//! The script: methods with which a test changes and inspects tables and streams.

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
        // The lock is poisoned only if a script method panicked, and then the test has failed already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, table: &str, work: impl FnOnce(&mut Table, &mut u64) -> T) -> T {
        let mut state = self.state();
        let State { tables, counter, .. } = &mut *state;
        work(tables.get_mut(table).unwrap_or_else(|| panic!("no table '{table}'")), counter)
    }

    /// Creates a table with these key attributes and types (`S`, `N` or `B`), the partition key first; with a stream of
    /// this view type, if one is given. Replaces any table of this name.
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

    /// Returns its items, in the order of a scan.
    #[must_use]
    pub fn items(&self, table: &str) -> Vec<Value> {
        self.with(table, |table, _| table.items.values().cloned().collect())
    }

    /// Returns the shards in its stream, in the order in which they were opened.
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

    /// Closes every open shard, and opens a new one for each.
    pub fn rotate(&self, table: &str) {
        self.with(table, |table, counter| {
            let stream = table.stream_now();
            stream.open_ids().iter().for_each(|id| stream.replace(id, 1, counter));
        });
    }

    /// Closes a shard without a child. A new shard is opened with the next write to a key of the closed one.
    pub fn close(&self, table: &str, shard: &str) {
        self.with(table, |table, counter| table.stream_now().close(shard, counter));
    }

    /// Removes closed shards: children stay, and name removed parents.
    pub fn trim_closed(&self, table: &str) {
        self.with(table, |table, _| table.stream_now().trim_closed());
    }

    /// Returns the sequence numbers of the remaining records, in the order of writes, including withheld ones.
    #[must_use]
    pub fn sequences(&self, table: &str) -> Vec<String> {
        let sequences = self.with(table, |table, _| table.stream_now().sequences());
        sequences.into_iter().map(sequence_text).collect()
    }

    /// Removes records before the one with this sequence number; that one stays.
    pub fn trim_to(&self, table: &str, sequence: &str) {
        let sequence = sequence_of(sequence).unwrap_or_else(|| panic!("'{sequence}' is no sequence number"));
        self.with(table, |table, _| table.stream_now().trim_to(sequence));
    }

    /// Removes all records so far, visible or withheld.
    pub fn trim_records(&self, table: &str) {
        self.with(table, |table, counter| {
            *counter += 1;
            table.stream_now().trim_records(*counter);
        });
    }

    /// Withholds records of later writes.
    pub fn hold(&self, table: &str) {
        self.with(table, |table, _| table.stream_now().hold(true));
    }

    /// Shows the withheld records.
    pub fn release(&self, table: &str) {
        self.with(table, |table, _| table.stream_now().hold(false));
    }

    /// Turns the stream off. It cannot be read any more, although the table still names it as its latest.
    pub fn disable_stream(&self, table: &str) {
        self.with(table, |table, _| table.stream = None);
    }

    /// Turns on a new stream with another ARN, and removes the previous one.
    pub fn enable_stream(&self, table: &str, view: &str) {
        self.with(table, |table, counter| table.enable_stream(view, counter));
    }

    /// Replaces a table by a new one with the same name, keys and kind of stream, without items.
    pub fn recreate(&self, name: &str) {
        let (keys, view) =
            self.with(name, |table, _| (table.keys.clone(), table.stream.as_ref().map(|stream| stream.view.clone())));
        self.state().add_table(name, keys, view.as_deref());
    }

    /// Adds an INSERT record of an item that has only its key, as some DynamoDB imitations send it; no item is written.
    pub fn phantom_insert(&self, table: &str, key: &Value) {
        self.with(table, |table, counter| {
            assert!(table.place_of_key(key).is_some(), "{key} is no key of '{}'", table.name);
            table.record("INSERT", key.clone(), Some(key.clone()), None, counter);
        });
    }

    /// Expires all existing iterators.
    pub fn expire_iterators(&self) {
        self.state().epoch += 1;
    }

    /// Makes the next `n` GetRecords responses of every shard, including new shards, empty.
    pub fn empty_pages(&self, n: u64) {
        let mut state = self.state();
        state.empty_pages = n;
        state.emptied.clear();
    }

    /// Makes the next possible GetRecords repeat the `n` records of its shard before its position.
    pub fn redeliver(&self, n: usize) {
        self.state().redeliver = n;
    }

    /// Sets the maximum number of shards of a DescribeStream page.
    pub fn page_shards(&self, n: usize) {
        self.state().page_shards = n.max(1);
    }

    /// Sets the maximum number of items of a page of a scan or a query.
    pub fn page_items(&self, n: usize) {
        self.state().page_items = n.max(1);
    }

    /// Makes the next `n` DescribeTable responses have the status CREATING.
    pub fn creating(&self, n: u64) {
        self.state().creating = n;
    }

    /// Makes the next `n` scan pages empty, with a key to continue from that no item has.
    pub fn empty_scan_pages(&self, n: u64) {
        self.state().empty_scan_pages = n;
    }

    /// Sets whether a full page that ends with the last item still has a key to continue from.
    pub fn full_page_goes_on(&self, does: bool) {
        self.state().full_page_goes_on = does;
    }

    /// Sets the maximum number of keys that a BatchGetItem call processes; the rest stays unprocessed.
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

    /// Rejects the next `n` calls of an operation for too many requests.
    pub fn throttle(&self, operation: &str, n: u64) {
        self.state().throttled.insert(operation.to_owned(), n);
    }

    /// Sets the maximum number of readers of a shard; further ones are rejected.
    ///
    /// All iterators that derive from one GetShardIterator call are one reader, until it has not read for a second.
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
