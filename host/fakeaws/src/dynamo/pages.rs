//! Paged operations: scans and queries.

use std::ops::Bound;

use serde_json::{Value, json};

use super::{
    OperationResult, Rejection, State,
    expressions::{check, wanted},
    invalid,
    projection::Projection,
    table::{ItemPosition, Table},
    value::{normal_value, size},
};

/// The maximum size of a page in bytes.
const PAGE_BYTES: usize = 1 << 20;

/// A range of hashes, both ends included.
type HashRange = (u64, u64);

/// Returns the range of hashes of a request's segment. All segments have ranges of the same size.
fn segment_range(body: &Value) -> Result<HashRange, Rejection> {
    let number = |name: &str| body.get(name).and_then(Value::as_u64);
    let (segment, total) = match (number("Segment"), number("TotalSegments")) {
        (None, None) => return Ok((0, u64::MAX)),
        (Some(segment), Some(total @ 1..=1_000_000)) if segment < total => (u128::from(segment), u128::from(total)),
        _ => return Err(invalid("The Segment parameter is zero-based and must be less than parameter TotalSegments")),
    };
    let all = u128::from(u64::MAX) + 1;
    let start = |segment: u128| (all * segment).div_ceil(total);
    let bound = |hash: u128| u64::try_from(hash).unwrap_or(u64::MAX);
    Ok((bound(start(segment)), bound(start(segment + 1) - 1)))
}

/// Returns the position after which the page starts; `None` if the page starts at the beginning.
fn start(body: &Value, table: &Table) -> Result<Option<ItemPosition>, Rejection> {
    match body.get("ExclusiveStartKey") {
        None | Some(Value::Null) => Ok(None),
        Some(key) => table.start(key).ok_or_else(|| invalid("The provided starting key is invalid")),
    }
}

// === impl State ===

impl State {
    pub(super) fn scan(&mut self, body: &Value) -> OperationResult {
        check(body)?;
        let range = segment_range(body)?;
        let table = self.table(body)?;
        let start = start(body, table)?;
        if self.empty_scan_pages > 0 {
            self.empty_scan_pages -= 1;
            self.counter += 1;
            let number = self.counter;
            let (table, _) = self.table_to_write(super::text(body, "TableName"))?;
            let mut response = json!({ "Items": [], "Count": 0, "ScannedCount": 0 });
            response["LastEvaluatedKey"] = table.generate_key(start, number);
            add_capacity(&mut response, body, 0);
            return Ok(response);
        }
        self.page(body, table, start, range, &|_| true)
    }

    pub(super) fn query(&mut self, body: &Value) -> OperationResult {
        check(body)?;
        let table = self.table(body)?;
        let name = table.partition();
        let value = normal_value(wanted(body, name)?).map_err(|why| invalid(&why))?;
        let typed = table.keys.first().and_then(|(_, kind)| value.get(kind));
        if typed.is_none() {
            return Err(invalid("Condition parameter type does not match schema type"));
        }
        let hash = super::value::ordered(&value).map(|bytes| crate::serve::hash(&bytes)).unwrap_or_default();
        self.page(body, table, start(body, table)?, (hash, hash), &|item| item.get(name) == Some(&value))
    }

    fn page(
        &self,
        body: &Value,
        table: &Table,
        start: Option<ItemPosition>,
        range: HashRange,
        is_wanted: &dyn Fn(&Value) -> bool,
    ) -> OperationResult {
        let limit = match body.get("Limit").and_then(Value::as_u64) {
            Some(0) => return Err(invalid("Limit must be at least 1")),
            Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        let limit = limit.min(self.page_items);
        let parts = Projection::parse(body)?;
        let from = start.map_or(Bound::Unbounded, Bound::Excluded);
        let found = table.items.range((from, Bound::Unbounded));
        let mut found = found
            .skip_while(|(position, _)| position.hash < range.0)
            .take_while(|(position, _)| position.hash <= range.1)
            .filter(|(_, item)| is_wanted(item))
            .map(|(_, item)| item)
            .peekable();
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < limit && bytes < PAGE_BYTES {
            let Some(item) = found.next_if(|item| items.is_empty() || bytes + size(item) <= PAGE_BYTES) else { break };
            bytes += size(item);
            items.push(item);
        }
        let has_key = found.peek().is_some() || (items.len() == limit && self.full_page_has_key);
        let projected: Vec<Value> = items.iter().map(|item| parts.of(item)).collect();
        let mut response = json!({ "Items": projected, "Count": items.len(), "ScannedCount": items.len() });
        if let Some(last) = items.last().filter(|_| has_key) {
            response["LastEvaluatedKey"] = table.key_of(last);
        }
        add_capacity(&mut response, body, bytes);
        if let Some(capacity) = response.get_mut("ConsumedCapacity") {
            capacity["TableName"] = json!(table.name);
        }
        Ok(response)
    }
}

/// Adds the consumed capacity to the response, if the request asks for it. A read costs half a unit for each 4 KiB,
/// rounded up, and at least half a unit. A consistent read costs twice as much.
fn add_capacity(response: &mut Value, body: &Value, bytes: usize) {
    if !matches!(super::text(body, "ReturnConsumedCapacity"), "TOTAL" | "INDEXES") {
        return;
    }
    let blocks = u32::try_from(bytes.div_ceil(4 << 10).max(1)).unwrap_or(u32::MAX);
    let unit = if body["ConsistentRead"] == true { 1.0 } else { 0.5 };
    response["ConsumedCapacity"] =
        json!({ "TableName": super::text(body, "TableName"), "CapacityUnits": f64::from(blocks) * unit });
}
