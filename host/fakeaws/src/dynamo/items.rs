//! Operations on tables, and on items by their keys.

use serde_json::{Map, Value, json};

use super::{
    OperationResult, Rejection, State,
    expressions::{check, holds},
    invalid,
    projection::Projection,
    table::Table,
    text,
    value::size,
};

/// The maximum size of a BatchGetItem response in bytes.
const RESPONSE_BYTES_MAX: usize = 16 << 20;

/// Returns the response to a write, with the old item if the request asks for it.
fn with_old(body: &Value, old: Option<Value>) -> Value {
    match old.filter(|_| text(body, "ReturnValues") == "ALL_OLD") {
        Some(old) => json!({ "Attributes": old }),
        None => json!({}),
    }
}

fn list(body: &Value, name: &str) -> Vec<Value> {
    body.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Returns the number of entries that a call processes if it is to leave some entries unprocessed. This is half of the
/// entries, rounded up, but 0 for a single entry.
fn half(len: usize) -> usize {
    len.div_ceil(2).min(len.saturating_sub(1))
}

fn no_key() -> Rejection {
    invalid("The provided key element does not match the schema")
}

// === impl State ===

impl State {
    pub(super) fn add_table(&mut self, name: &str, keys: Vec<(String, String)>, stream: Option<&str>) {
        self.counter += 1;
        let mut table = Table::new(name, keys, self.counter);
        if let Some(view) = stream {
            table.enable_stream(view, &mut self.counter);
        }
        self.tables.insert(name.to_owned(), table);
    }

    pub(super) fn create_table_from(&mut self, body: &Value) -> OperationResult {
        let name = text(body, "TableName");
        if self.tables.contains_key(name) {
            return Err(Rejection("ResourceInUseException", format!("Table already exists: {name}")));
        }
        let attributes = list(body, "AttributeDefinitions");
        let mut schema = list(body, "KeySchema");
        schema.sort_by_key(|key| text(key, "KeyType") != "HASH");
        let mut keys = Vec::new();
        for key in schema.iter().map(|key| text(key, "AttributeName")) {
            let attribute = attributes.iter().find(|attribute| text(attribute, "AttributeName") == key);
            let kind = attribute.map(|attribute| text(attribute, "AttributeType")).filter(|kind| "SNB".contains(*kind));
            let kind =
                kind.ok_or_else(|| invalid("Some index key attributes are not defined in AttributeDefinitions"))?;
            keys.push((key.to_owned(), kind.to_owned()));
        }
        if name.len() < 3 || !matches!(keys.len(), 1 | 2) {
            return Err(invalid("a table must have a name of at least 3 letters, and one or two key attributes"));
        }
        let stream = body.get("StreamSpecification").filter(|stream| stream["StreamEnabled"] == true);
        let view = stream.map(|stream| text(stream, "StreamViewType").to_owned());
        if view
            .as_deref()
            .is_some_and(|view| !matches!(view, "KEYS_ONLY" | "NEW_IMAGE" | "OLD_IMAGE" | "NEW_AND_OLD_IMAGES"))
        {
            return Err(invalid("StreamViewType is invalid"));
        }
        self.add_table(name, keys, view.as_deref());
        Ok(json!({ "TableDescription": self.table(body)?.describe() }))
    }

    pub(super) fn delete_table(&mut self, body: &Value) -> OperationResult {
        let description = self.table(body)?.describe();
        self.tables.remove(text(body, "TableName"));
        Ok(json!({ "TableDescription": description }))
    }

    pub(super) fn describe_ttl(&self, body: &Value) -> OperationResult {
        let description = match &self.table(body)?.ttl {
            Some(name) => json!({ "TimeToLiveStatus": "ENABLED", "AttributeName": name }),
            None => json!({ "TimeToLiveStatus": "DISABLED" }),
        };
        Ok(json!({ "TimeToLiveDescription": description }))
    }

    pub(super) fn update_ttl(&mut self, body: &Value) -> OperationResult {
        let wanted = &body["TimeToLiveSpecification"];
        let (name, is_on) = (text(wanted, "AttributeName"), wanted["Enabled"] == true);
        let (table, _) = self.table_to_write(text(body, "TableName"))?;
        if name.is_empty() {
            return Err(invalid("AttributeName is missing"));
        }
        if is_on == table.ttl.is_some() {
            return Err(invalid(&format!("TimeToLive is already {}", if is_on { "enabled" } else { "disabled" })));
        }
        table.ttl = is_on.then(|| name.to_owned());
        Ok(json!({ "TimeToLiveSpecification": wanted }))
    }

    pub(super) fn put_item(&mut self, body: &Value) -> OperationResult {
        check(body)?;
        let (table, counter) = self.table_to_write(text(body, "TableName"))?;
        let item = &body["Item"];
        let position = table.position(item).ok_or_else(|| invalid("One of the required keys was not given a value"))?;
        if !holds(body, table.items.get(&position))? {
            return Err(Rejection("ConditionalCheckFailedException", "The conditional request failed".to_owned()));
        }
        let old = table.put(item, counter).map_err(|why| invalid(&why))?;
        Ok(with_old(body, old))
    }

    pub(super) fn delete_item(&mut self, body: &Value) -> OperationResult {
        check(body)?;
        let (table, counter) = self.table_to_write(text(body, "TableName"))?;
        let position = table.position_of_key(&body["Key"]).ok_or_else(no_key)?;
        if !holds(body, table.items.get(&position))? {
            return Err(Rejection("ConditionalCheckFailedException", "The conditional request failed".to_owned()));
        }
        let old = table.delete(&body["Key"], counter).map_err(|why| invalid(&why))?;
        Ok(with_old(body, old))
    }

    pub(super) fn get_item(&self, body: &Value) -> OperationResult {
        check(body)?;
        let table = self.table(body)?;
        let position = table.position_of_key(&body["Key"]).ok_or_else(no_key)?;
        let parts = Projection::parse(body)?;
        Ok(table.items.get(&position).map_or_else(|| json!({}), |item| json!({ "Item": parts.of(item) })))
    }

    pub(super) fn batch_get(&mut self, body: &Value) -> OperationResult {
        let wanted = body["RequestItems"].as_object().cloned().unwrap_or_default();
        let count: usize = wanted.values().map(|wanted| list(wanted, "Keys").len()).sum();
        if count == 0 {
            return Err(invalid("The batch get request list cannot be empty"));
        }
        if count > 100 {
            return Err(invalid("Too many items requested for the BatchGetItem call"));
        }
        let (mut responses, mut unprocessed, mut bytes) = (Map::new(), Map::new(), 0);
        let mut remaining = self.batch_get_items;
        for (name, wanted) in &wanted {
            check(wanted)?;
            let parts = Projection::parse(wanted)?;
            let table = self.table(&json!({ "TableName": name }))?;
            let keys = list(wanted, "Keys");
            let positions: Vec<_> =
                keys.iter().map(|key| table.position_of_key(key).ok_or_else(no_key)).collect::<Result<_, _>>()?;
            let mut sorted: Vec<_> = positions.iter().collect();
            sorted.sort();
            if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(invalid("Provided list of item keys contains duplicates"));
            }
            let processed = if self.unprocessed_keys > 0 { half(keys.len()) } else { keys.len() }.min(remaining);
            remaining -= processed;
            let (mut items, mut left) = (Vec::new(), keys[processed..].to_vec());
            for (position, key) in positions.iter().zip(&keys).take(processed) {
                let Some(item) = table.items.get(position) else { continue };
                bytes += size(item);
                if bytes > RESPONSE_BYTES_MAX {
                    left.push(key.clone());
                } else {
                    items.push(parts.of(item));
                }
            }
            // DynamoDB does not return items in the order of the requested keys.
            items.reverse();
            responses.insert(name.clone(), json!(items));
            if !left.is_empty() {
                let mut rest = wanted.clone();
                rest["Keys"] = json!(left);
                unprocessed.insert(name.clone(), rest);
            }
        }
        self.unprocessed_keys = self.unprocessed_keys.saturating_sub(1);
        Ok(json!({ "Responses": responses, "UnprocessedKeys": unprocessed }))
    }

    pub(super) fn batch_write(&mut self, body: &Value) -> OperationResult {
        let requests = body["RequestItems"].as_object().cloned().unwrap_or_default();
        let count: usize = requests.values().map(|requests| requests.as_array().map_or(0, Vec::len)).sum();
        if count == 0 {
            return Err(invalid("The batch write request list cannot be empty"));
        }
        if count > 25 {
            return Err(invalid("Too many items requested for the BatchWriteItem call"));
        }
        // All requests are checked before any item is written, because a rejected call writes nothing.
        for (name, requests) in &requests {
            let table = self.table(&json!({ "TableName": name }))?;
            let mut positions = Vec::new();
            for request in requests.as_array().into_iter().flatten() {
                let position = match (request.get("PutRequest"), request.get("DeleteRequest")) {
                    (Some(put), None) => {
                        super::value::normal_item(&put["Item"]).map_err(|why| invalid(&why))?;
                        table.position(&put["Item"])
                    }
                    (None, Some(delete)) => table.position_of_key(&delete["Key"]),
                    _ => return Err(invalid("a write must be a PutRequest or a DeleteRequest")),
                };
                positions.push(position.ok_or_else(no_key)?);
            }
            positions.sort();
            if positions.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(invalid("Provided list of item keys contains duplicates"));
            }
        }
        let leaves = self.unprocessed_items > 0;
        let mut unprocessed = Map::new();
        for (name, requests) in &requests {
            let (table, counter) = self.table_to_write(name)?;
            let all = requests.as_array().map(Vec::as_slice).unwrap_or_default();
            let (now, left) = all.split_at(if leaves { half(all.len()) } else { all.len() });
            for request in now {
                let written = match request.get("PutRequest") {
                    Some(put) => table.put(&put["Item"], counter),
                    None => table.delete(&request["DeleteRequest"]["Key"], counter),
                };
                written.map_err(|why| invalid(&why))?;
            }
            if !left.is_empty() {
                unprocessed.insert(name.clone(), json!(left));
            }
        }
        self.unprocessed_items = self.unprocessed_items.saturating_sub(1);
        Ok(json!({ "UnprocessedItems": unprocessed }))
    }
}
