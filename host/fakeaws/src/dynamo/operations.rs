//! Operations on tables.

use std::ops::Bound;

use serde_json::{Value, json};

use super::{
    Refusal, State,
    table::{Table, hash},
};

type Answer = Result<Value, Refusal>;

fn invalid(message: &str) -> Refusal {
    Refusal("ValidationException", message.to_owned())
}

fn text<'v>(body: &'v Value, name: &str) -> &'v str {
    body.get(name).and_then(Value::as_str).unwrap_or_default()
}

// === impl State ===

impl State {
    pub(super) fn answer(&mut self, operation: &str, body: &Value) -> Answer {
        match operation {
            "CreateTable" => self.create(body),
            "DescribeTable" => {
                let mut described = self.table(body)?.describe();
                if self.creating > 0 {
                    self.creating -= 1;
                    described["TableStatus"] = json!("CREATING");
                }
                Ok(json!({ "Table": described }))
            }
            "DeleteTable" => {
                let description = self.table(body)?.describe();
                self.tables.remove(text(body, "TableName"));
                Ok(json!({ "TableDescription": description }))
            }
            "PutItem" => {
                let (table, counter) = self.table_and_counter(body)?;
                let item = body.get("Item").cloned().unwrap_or_default();
                let place =
                    table.place(&item).ok_or_else(|| invalid("One of the required keys was not given a value"))?;
                if let Some(condition) = body.get("ConditionExpression").and_then(Value::as_str)
                    && !holds(condition, body, table.items.get(&place))
                {
                    return Err(Refusal(
                        "ConditionalCheckFailedException",
                        "The conditional request failed".to_owned(),
                    ));
                }
                table.put(item, counter);
                Ok(json!({}))
            }
            "DeleteItem" => {
                let (table, counter) = self.table_and_counter(body)?;
                table.delete(&body["Key"], counter);
                Ok(json!({}))
            }
            "GetItem" => {
                let table = self.table(body)?;
                let found = table.place(&body["Key"]).and_then(|place| table.items.get(&place));
                Ok(found.map_or_else(|| json!({}), |item| json!({ "Item": item })))
            }
            "BatchGetItem" => self.batch_get(body),
            "BatchWriteItem" => self.batch_write(body),
            "Scan" => self.scan(body),
            "Query" => self.query(body),
            "DescribeTimeToLive" => Ok(json!({ "TimeToLiveDescription": { "TimeToLiveStatus": "DISABLED" } })),
            "DescribeStream" => self.describe_stream(body),
            "GetShardIterator" => self.shard_iterator(body),
            "GetRecords" => self.records(body),
            other => Err(Refusal("UnknownOperationException", other.to_owned())),
        }
    }

    fn table(&self, body: &Value) -> Result<&Table, Refusal> {
        let name = text(body, "TableName");
        self.tables.get(name).ok_or_else(|| {
            Refusal("ResourceNotFoundException", format!("Requested resource not found: Table: {name} not found"))
        })
    }

    fn table_and_counter(&mut self, body: &Value) -> Result<(&mut Table, &mut u64), Refusal> {
        self.table(body)?;
        let Self { tables, counter, .. } = self;
        let table = tables.get_mut(text(body, "TableName"));
        table.map(|table| (table, counter)).ok_or_else(|| invalid("no table"))
    }

    fn create(&mut self, body: &Value) -> Answer {
        let name = text(body, "TableName").to_owned();
        if self.tables.contains_key(&name) {
            return Err(Refusal("ResourceInUseException", format!("Table already exists: {name}")));
        }
        let list = |key: &str| body.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let kind = |name: &str| {
            let attributes = list("AttributeDefinitions");
            let found = attributes.iter().find(|attribute| text(attribute, "AttributeName") == name);
            found.map_or_else(|| "S".to_owned(), |attribute| text(attribute, "AttributeType").to_owned())
        };
        let mut schema = list("KeySchema");
        schema.sort_by_key(|key| text(key, "KeyType") != "HASH");
        let keys =
            schema.iter().map(|key| text(key, "AttributeName").to_owned()).map(|name| (name.clone(), kind(&name)));
        self.counter += 1;
        let mut table = Table::new(&name, keys.collect(), self.counter);
        if body["StreamSpecification"]["StreamEnabled"] == true {
            table.enable_stream(text(&body["StreamSpecification"], "StreamViewType"), &mut self.counter);
        }
        let description = table.describe();
        self.tables.insert(name, table);
        Ok(json!({ "TableDescription": description }))
    }

    fn batch_get(&mut self, body: &Value) -> Answer {
        let leaves = std::mem::take(&mut self.left_over);
        let (mut responses, mut unprocessed) = (json!({}), json!({}));
        for (name, wanted) in body["RequestItems"].as_object().into_iter().flatten() {
            let table = self.table(&json!({ "TableName": name }))?;
            let keys = wanted["Keys"].as_array().cloned().unwrap_or_default();
            if keys.len() > 100 {
                return Err(invalid("Too many items requested for the BatchGetItem call"));
            }
            if keys.iter().enumerate().any(|(i, key)| keys[..i].contains(key)) {
                return Err(invalid("Provided list of item keys contains duplicates"));
            }
            let now = if leaves > 0 { keys.len().div_ceil(2).min(keys.len().saturating_sub(1)) } else { keys.len() };
            let items: Vec<&Value> = keys[..now].iter().filter_map(|key| table.items.get(&table.place(key)?)).collect();
            responses[name] = json!(items);
            if now < keys.len() {
                unprocessed[name] = json!({ "Keys": &keys[now..] });
            }
        }
        self.left_over = leaves.saturating_sub(1);
        Ok(json!({ "Responses": responses, "UnprocessedKeys": unprocessed }))
    }

    fn batch_write(&mut self, body: &Value) -> Answer {
        let leaves = std::mem::take(&mut self.left_over);
        let mut unprocessed = json!({});
        for (name, requests) in body["RequestItems"].as_object().into_iter().flatten() {
            let requests = requests.as_array().cloned().unwrap_or_default();
            if requests.len() > 25 {
                return Err(invalid("Too many items requested for the BatchWriteItem call"));
            }
            let now = if leaves > 0 { requests.len() / 2 } else { requests.len() };
            let (table, counter) = self.table_and_counter(&json!({ "TableName": name }))?;
            for request in &requests[..now] {
                match (request.get("PutRequest"), request.get("DeleteRequest")) {
                    (Some(put), _) => table.put(put["Item"].clone(), counter),
                    (_, Some(delete)) => table.delete(&delete["Key"], counter),
                    _ => return Err(invalid("a request is neither")),
                }
            }
            if now < requests.len() {
                unprocessed[name] = json!(&requests[now..]);
            }
        }
        self.left_over = leaves.saturating_sub(1);
        Ok(json!({ "UnprocessedItems": unprocessed }))
    }

    fn scan(&mut self, body: &Value) -> Answer {
        const PAGE_BYTES: usize = 1_000_000;
        let empty = std::mem::take(&mut self.empty_scan_pages);
        let table = self.table(body)?;
        let total = body["TotalSegments"].as_u64().unwrap_or(1);
        let segment = body["Segment"].as_u64().unwrap_or(0);
        if segment >= total {
            return Err(invalid("The Segment parameter is zero-based and must be less than parameter TotalSegments"));
        }
        let limit = body["Limit"].as_u64().map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let limit = limit.min(self.page_items);
        let start = match body.get("ExclusiveStartKey") {
            None | Some(Value::Null) => Bound::Unbounded,
            Some(key) => {
                Bound::Excluded(table.place(key).ok_or_else(|| invalid("The provided starting key is invalid"))?)
            }
        };
        let mut items = Vec::new();
        let (mut last, mut bytes, mut is_full) = (None, 0, false);
        for (place, item) in table.items.range((start, Bound::Unbounded)) {
            if place.0 % total != segment {
                continue;
            }
            if empty > 0 {
                // A page of items that all were filtered out ends at some key.
                last = Some(place);
                is_full = true;
                break;
            }
            if items.len() >= limit || bytes >= PAGE_BYTES {
                is_full = true;
                break;
            }
            bytes += item.to_string().len();
            items.push(item.clone());
            last = Some(place);
        }
        // DynamoDB does not know that a full page was the last one.
        is_full |= items.len() == limit;
        let mut answer = json!({ "Count": items.len(), "ScannedCount": items.len() });
        #[expect(clippy::cast_precision_loss, reason = "a page is small")]
        let units = (bytes as f64 / 8_192.0).max(0.5);
        answer["ConsumedCapacity"] = json!({ "TableName": table.name, "CapacityUnits": units });
        if empty > 0 && last.is_some() {
            // It begins where the page before it ended: nothing is lost.
            let first = table
                .items
                .range((
                    match body.get("ExclusiveStartKey") {
                        None | Some(Value::Null) => Bound::Unbounded,
                        Some(key) => Bound::Excluded(table.place(key).ok_or_else(|| invalid("key"))?),
                    },
                    Bound::Unbounded,
                ))
                .next();
            // A key just before the next item: that of the next item with less behind it would do; the fake repeats the
            // page's own start, or says nothing was read of the first page.
            let key = body.get("ExclusiveStartKey").filter(|key| !key.is_null()).cloned();
            let key = key.or_else(|| first.map(|(_, item)| before(table, item)));
            answer["Items"] = json!([]);
            answer["LastEvaluatedKey"] = key.unwrap_or_default();
            self.empty_scan_pages = empty - 1;
            return Ok(answer);
        }
        if is_full && let Some(place) = last {
            answer["LastEvaluatedKey"] = table.key_of(&table.items[place]);
        }
        answer["Items"] = json!(items);
        Ok(answer)
    }

    fn query(&mut self, body: &Value) -> Answer {
        let table = self.table(body)?;
        let name = &table.keys[0].0;
        let value = body["ExpressionAttributeValues"].as_object().and_then(|values| values.values().next());
        let value = value.ok_or_else(|| invalid("no value for the key"))?;
        let named = body["ExpressionAttributeNames"].as_object().and_then(|names| names.values().next());
        if named.and_then(Value::as_str).is_some_and(|named| named != name) {
            return Err(invalid("Query condition missed key schema element"));
        }
        let wanted = hash(value);
        let items: Vec<&Value> = table
            .items
            .range((Bound::Included((wanted, String::new())), Bound::Unbounded))
            .take_while(|((hash, _), _)| *hash == wanted)
            .map(|(_, item)| item)
            .filter(|item| item.get(name) == Some(value))
            .collect();
        Ok(json!({ "Count": items.len(), "Items": items }))
    }
}

/// A key that lies before an item's.
fn before(table: &Table, item: &Value) -> Value {
    // Scans go by hash and then by text: any key whose hash is below will do, and a made up one is as good.
    let place = table.place(item);
    let smaller = (0..u64::MAX).map(|n| {
        let mut key = table.key_of(item);
        let (name, kind) = &table.keys[0];
        key[name] = json!({ kind: n.to_string() });
        key
    });
    smaller.into_iter().find(|key| table.place(key) < place).unwrap_or_default()
}

/// `attribute_not_exists(x)`, and `attribute_not_exists(x) OR y < :v`.
fn holds(condition: &str, body: &Value, item: Option<&Value>) -> bool {
    let Some(item) = item else { return condition.contains("attribute_not_exists") };
    let name = |text: &str| {
        let known = body["ExpressionAttributeNames"].get(text).and_then(Value::as_str);
        known.unwrap_or(text).to_owned()
    };
    condition.split(" OR ").any(|part| {
        let part = part.trim();
        if let Some(inner) = part.strip_prefix("attribute_not_exists(") {
            return item.get(name(inner.trim_end_matches(')').trim())).is_none();
        }
        let words: Vec<&str> = part.split_whitespace().collect();
        let [left, operator, right] = words.as_slice() else { return false };
        let value = |value: Option<&Value>| value.and_then(|value| value.get("S")?.as_str().map(str::to_owned));
        let (left, right) = (value(item.get(name(left))), value(body["ExpressionAttributeValues"].get(*right)));
        match *operator {
            "<" => left < right,
            "<=" => left <= right,
            _ => false,
        }
    })
}

// === impl Table ===

impl Table {
    fn describe(&self) -> Value {
        let kind = |place: usize| if place == 0 { "HASH" } else { "RANGE" };
        let keys = self.keys.iter().enumerate();
        let mut described = json!({
            "TableName": self.name,
            "TableStatus": "ACTIVE",
            "TableId": format!("00000000-0000-0000-0000-{:012}", self.id),
            "TableArn": format!("arn:aws:dynamodb:eu-west-1:123456789012:table/{}", self.name),
            "CreationDateTime": 1_700_000_000.0 + self.id as f64,
            "ItemCount": self.items.len(),
            "KeySchema": keys
                .map(|(place, (name, _))| json!({ "AttributeName": name, "KeyType": kind(place) }))
                .collect::<Vec<_>>(),
            "AttributeDefinitions": self.keys.iter()
                .map(|(name, kind)| json!({ "AttributeName": name, "AttributeType": kind }))
                .collect::<Vec<_>>(),
        });
        if let Some(stream) = &self.stream {
            described["StreamSpecification"] = json!({ "StreamEnabled": true, "StreamViewType": stream.view });
            described["LatestStreamArn"] = json!(stream.arn);
            described["LatestStreamLabel"] = json!(stream.label);
        }
        described
    }
}
