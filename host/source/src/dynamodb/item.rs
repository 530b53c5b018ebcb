//! Converts items of a table, in three layouts, to rows of a view, and a row's key to the key of its item.
//!
//! ```text
//! feast             entity_id {S: 32 hexadecimal digits}   event_ts {S: "2026-11-23 08:17:22+00:00"}
//!                   values {M: {feature: {B: a serialized feast.types.Value}}}
//! wide              an attribute for each part of the key, for each feature, and for the event time
//! item-per-feature  an item for each feature, with the entity's key, the feature's name and value, and the event time
//! ```
//!
//! `feast` is Feast's own layout (0.67, `infra/online_stores/dynamodb.py`). In the other layouts, a value has the type
//! of its attribute, and is converted by the same rules as the values of all sources. An attribute that cannot be read
//! affects only its feature. An item without a readable key or event time is skipped and reported.

use std::{collections::HashMap, sync::Arc};

use aws_sdk_dynamodb::types::AttributeValue;
use larder_common::clock::parse_time;
use larder_model::{
    codec::{EntityKey, KeyEncoder, KeyVersion},
    model::{EntityId, FeatureView, Micros, ScalarType, TableLayout, TableSource, ValueType},
};

use super::attribute;
use crate::{Item, ItemValue};

/// An item as returned by DynamoDB.
pub(super) type Attributes = HashMap<String, AttributeValue>;

/// Reads a view's rows from the items of its table.
#[derive(Debug)]
pub(super) struct ItemReader {
    layout: Layout,
    features: Vec<FeatureAt>,
    keys: Vec<KeyAt>,
    encoder: KeyEncoder,
    ttl_attribute: Option<String>,
}

#[derive(Debug)]
enum Layout {
    Feast,
    Wide { timestamp: Option<String> },
    ItemPerFeature { feature: String, value: String, timestamp: Option<String> },
}

/// A feature, and its name in the table.
#[derive(Debug)]
struct FeatureAt {
    name: Arc<str>,
    attribute: String,
    value_type: ValueType,
}

/// A part of the key, and its attribute.
#[derive(Debug)]
struct KeyAt {
    attribute: String,
    value_type: ScalarType,
}

/// Names in Feast's layout.
pub(super) const ENTITY_ID: &str = "entity_id";
pub(super) const EVENT_TS: &str = "event_ts";
pub(super) const VALUES: &str = "values";

// === impl ItemReader ===

impl ItemReader {
    pub(super) fn new(view: &FeatureView, table: &TableSource, version: KeyVersion) -> Self {
        let (layout, mapping) = match &table.layout {
            TableLayout::Feast => (Layout::Feast, None),
            TableLayout::Wide { field_mapping, timestamp } => {
                (Layout::Wide { timestamp: timestamp.clone() }, Some(field_mapping))
            }
            TableLayout::ItemPerFeature { feature, value, field_mapping, timestamp, .. } => (
                Layout::ItemPerFeature { feature: feature.clone(), value: value.clone(), timestamp: timestamp.clone() },
                Some(field_mapping),
            ),
        };
        // A field mapping maps attributes to names, so it is applied in reverse.
        let in_table = |name: &str| {
            let mapped = mapping.and_then(|mapping| mapping.iter().find(|(_, target)| *target == name));
            mapped.map_or(name, |(attribute, _)| attribute).to_owned()
        };
        let key_attribute = |name: &str| match &table.layout {
            TableLayout::ItemPerFeature { key, .. } => key.clone(),
            _ => in_table(name),
        };
        let features = view.features.iter().map(|feature| FeatureAt {
            name: Arc::clone(&feature.name),
            attribute: in_table(&feature.name),
            value_type: feature.value_type,
        });
        let keys =
            view.join_keys.iter().map(|key| KeyAt { attribute: key_attribute(&key.name), value_type: key.value_type });
        Self {
            layout,
            features: features.collect(),
            keys: keys.collect(),
            encoder: KeyEncoder::new(version, view.join_keys.iter().map(|key| &*key.name)),
            ttl_attribute: table.ttl_attribute.clone(),
        }
    }

    /// Returns whether several items make one row.
    pub(super) fn is_split(&self) -> bool {
        matches!(self.layout, Layout::ItemPerFeature { .. })
    }

    /// Returns the reason why a table with this primary key is incompatible with the view; `None` if it is compatible.
    /// The primary key must consist of the view's key and, if each feature has its own item, the feature's name, so
    /// that requests can find the items of a row.
    pub(super) fn mismatch(&self, table_keys: &[String]) -> Option<String> {
        let own: Vec<&str> = match &self.layout {
            Layout::Feast => vec![ENTITY_ID],
            Layout::Wide { .. } => self.keys.iter().map(|key| &*key.attribute).collect(),
            Layout::ItemPerFeature { feature, .. } => {
                self.keys.iter().map(|key| &*key.attribute).chain([feature.as_str()]).collect()
            }
        };
        let is_same = own.len() == table_keys.len() && own.iter().all(|name| table_keys.iter().any(|key| key == name));
        (!is_same).then(|| {
            let list = |names: &[&str]| names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" and ");
            let found: Vec<&str> = table_keys.iter().map(String::as_str).collect();
            format!("its key is {}, but the view's rows are stored under {}", list(&found), list(&own))
        })
    }

    /// Returns the ID of the row that an item belongs to. `item` can be the whole item or only its key.
    pub(super) fn id(&self, item: &Attributes) -> Result<EntityId, String> {
        if let Layout::Feast = self.layout {
            let text = text(item, ENTITY_ID)?;
            return text.parse().map_err(|_| format!("'{ENTITY_ID}' is '{text}', which is not a Feast entity id"));
        }
        let mut bytes = Vec::new();
        self.encoder.begin(&mut bytes);
        for key in &self.keys {
            let value = item.get(&key.attribute).ok_or_else(|| format!("it has no '{}'", key.attribute))?;
            let part =
                attribute::key_part(value, key.value_type).map_err(|why| format!("'{}': {why}", key.attribute))?;
            KeyEncoder::push(&mut bytes, part.as_key(key.value_type));
        }
        Ok(KeyEncoder::id(&bytes))
    }

    /// Returns the row of an item in a layout with one item per row. `now` is the event time if items have none.
    pub(super) fn row(&self, item: &Attributes, now: Micros) -> Item {
        let id = match self.id(item) {
            Ok(id) => id,
            Err(why) => return Item::unreadable(EntityId([0; 16]), why),
        };
        let read = match &self.layout {
            Layout::Feast => self.feast_row(id, item, now),
            Layout::Wide { timestamp } => self.wide_row(id, item, timestamp.as_deref(), now),
            Layout::ItemPerFeature { .. } => return self.entity_row(std::slice::from_ref(item), now),
        };
        read.unwrap_or_else(|why| Item::unreadable(id, why))
    }

    fn feast_row(&self, id: EntityId, item: &Attributes, now: Micros) -> Result<Item, String> {
        let event_time = match item.get(EVENT_TS) {
            None => None,
            Some(AttributeValue::S(text)) => {
                Some(parse_time(text).ok_or_else(|| format!("'{EVENT_TS}' is '{text}', which is not a time"))?)
            }
            Some(other) => return Err(format!("'{EVENT_TS}' is {}", attribute::kind_of(other))),
        };
        let empty = HashMap::new();
        let values = match item.get(VALUES) {
            None => &empty,
            Some(AttributeValue::M(values)) => values,
            Some(other) => return Err(format!("'{VALUES}' is {}", attribute::kind_of(other))),
        };
        let value = |feature: &FeatureAt| {
            Some(match values.get(&*feature.name)? {
                AttributeValue::B(bytes) => ItemValue::Feast(bytes.as_ref().to_vec()),
                other => ItemValue::Unreadable(format!("it is {}, not binary", attribute::kind_of(other))),
            })
        };
        let values = self.features.iter().map(value).collect();
        Ok(Item { id, event_time, created: None, expires: self.expiry(item, now), values, problem: None })
    }

    fn wide_row(&self, id: EntityId, item: &Attributes, timestamp: Option<&str>, now: Micros) -> Result<Item, String> {
        let event_time = match timestamp {
            None => Some(now),
            Some(name) => item.get(name).map(attribute::instant).transpose()?,
        };
        let value = |feature: &FeatureAt| Some(attribute::value(item.get(&feature.attribute)?, feature.value_type));
        let values = self.features.iter().map(value).collect();
        Ok(Item { id, event_time, created: None, expires: self.expiry(item, now), values, problem: None })
    }

    /// Returns the row of an entity that has one item for each feature. The row has the event time of the newest item,
    /// and expires when the first of the items expires.
    pub(super) fn entity_row(&self, items: &[Attributes], now: Micros) -> Item {
        let Some(first) = items.first() else { return Item::unreadable(EntityId([0; 16]), "it has no items".into()) };
        let id = match self.id(first) {
            Ok(id) => id,
            Err(why) => return Item::unreadable(EntityId([0; 16]), why),
        };
        self.joined_row(id, items, now).unwrap_or_else(|why| Item::unreadable(id, why))
    }

    fn joined_row(&self, id: EntityId, items: &[Attributes], now: Micros) -> Result<Item, String> {
        let Layout::ItemPerFeature { feature: name_at, value: value_at, timestamp } = &self.layout else {
            return Err("in this layout, one item is one row".to_owned());
        };
        let mut row = Item {
            id,
            event_time: None,
            created: None,
            expires: None,
            values: vec![None; self.features.len()],
            problem: None,
        };
        for item in items {
            // An item without a readable name does not belong to a feature of the view.
            let Ok(name) = text(item, name_at) else { continue };
            // A table may have features that the view does not have.
            let Some(place) = self.features.iter().position(|feature| feature.attribute == name) else { continue };
            let event_time = match timestamp {
                None => Ok(Some(now)),
                Some(attribute) => item.get(attribute).map(attribute::instant).transpose(),
            };
            match event_time {
                Ok(event_time) => row.event_time = row.event_time.max(event_time),
                // The age of the value is unknown, so the value is not used.
                Err(why) => {
                    row.values[place] = Some(ItemValue::Unreadable(why));
                    continue;
                }
            }
            row.expires = match (row.expires, self.expiry(item, now)) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            row.values[place] =
                item.get(value_at).map(|value| attribute::value(value, self.features[place].value_type));
        }
        let unreadable = |value: &ItemValue| {
            if let ItemValue::Unreadable(why) = value { Some(why.clone()) } else { None }
        };
        if row.event_time.is_none() {
            row.problem = row.values.iter().flatten().find_map(unreadable);
        }
        Ok(row)
    }

    /// Returns whether two items belong to one entity.
    pub(super) fn is_same_entity(&self, one: &Attributes, other: &Attributes) -> bool {
        self.keys.iter().all(|key| one.get(&key.attribute) == other.get(&key.attribute))
    }

    /// Returns the key of an entity's item, or of the partition of its items.
    pub(super) fn key_of(&self, key: &EntityKey) -> Attributes {
        if let Layout::Feast = self.layout {
            return HashMap::from([(ENTITY_ID.to_owned(), AttributeValue::S(key.id.to_string()))]);
        }
        let parts = self.keys.iter().zip(&key.parts);
        parts.map(|(at, part)| (at.attribute.clone(), attribute::of_key_part(part))).collect()
    }

    /// Returns the attributes of an item that are its entity's key.
    pub(super) fn partition_of(&self, item: &Attributes) -> Attributes {
        let own = self.keys.iter().filter_map(|key| Some((key.attribute.clone(), item.get(&key.attribute)?.clone())));
        own.collect()
    }

    /// Returns when an item expires, by DynamoDB's own rule: the attribute must be a positive number of seconds, and an
    /// item whose time is more than five years ago does not expire.
    fn expiry(&self, item: &Attributes, now: Micros) -> Option<Micros> {
        const FIVE_YEARS: Micros = 5 * 365 * 86_400 * 1_000_000;
        let Some(AttributeValue::N(seconds)) = item.get(self.ttl_attribute.as_ref()?) else { return None };
        let seconds: f64 = seconds.parse().ok()?;
        #[expect(clippy::cast_possible_truncation, reason = "times beyond it never expire; the cast saturates")]
        let expires = (seconds * 1e6) as Micros;
        (seconds > 0.0 && expires >= now.saturating_sub(FIVE_YEARS)).then_some(expires)
    }
}

fn text<'i>(item: &'i Attributes, name: &str) -> Result<&'i str, String> {
    match item.get(name) {
        Some(AttributeValue::S(text)) => Ok(text),
        Some(other) => Err(format!("'{name}' is {}", attribute::kind_of(other))),
        None => Err(format!("it has no '{name}'")),
    }
}
