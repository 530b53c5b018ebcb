//! Checks derived views: every input must have a source and a type that plugins support, and no view may depend on
//! itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Incomplete, Known, Names, Rules, View, Views, check_name, features, is_identifier, view_name};
use crate::{
    codec::{is_text_of, set, single},
    model::{
        DerivedInput, DerivedView, Entity, Feature, InputSource, ItemType, NestedType, OnError, ScalarType, Value,
        ValueType,
    },
    registry::{DerivedDefinition, InputDefinition, InputFrom, OnErrorDefinition},
    yaml::{Node, Place, Problems, Tree, nearest},
};

/// Checks the derived views, and adds them to the stored views.
pub(super) fn derived_views(
    definitions: Vec<DerivedDefinition>,
    stored: Known<View>,
    incomplete: BTreeMap<Arc<str>, Incomplete>,
    entities: &Known<Entity>,
    names: &mut Names<'_>,
    rules: &Rules<'_>,
    problems: &Problems,
) -> Views {
    let mut views = Views { known: stored, incomplete };
    // The features of all derived views are registered before their inputs are resolved, so that views can read each
    // other in any order.
    let mut pending = Vec::new();
    for mut definition in definitions {
        let before = problems.error_count();
        let Some(name) = view_name(&definition.name, names, rules, problems) else {
            views.known.unread.note(Some(&definition.name.value));
            continue;
        };
        let features = features(&definition.name, &definition.features, &definition.unread_features, rules, problems);
        for (feature, written) in features.iter().zip(&definition.features) {
            check_feature_type(&feature.name, feature.value_type, &written.name.at, problems);
        }
        let on_error = on_error(std::mem::take(&mut definition.on_error), &features, problems);
        let mut incomplete = Incomplete { features: definition.unread_features.clone(), ..Incomplete::default() };
        if features.is_empty() {
            incomplete.features.note(None);
        }
        let plugin = definition.plugin.as_ref().unwrap_or(&definition.name);
        if !is_identifier(&plugin.value) {
            let help = "set 'plugin' to a letter or '_', followed by letters, digits and '_'".to_owned();
            problems.error_with_help(&plugin.at, format!("'{}' is not a valid plugin name", plugin.value), help);
        }
        let view = DerivedView {
            name: Arc::clone(&name),
            plugin: plugin.value.as_str().into(),
            inputs: Vec::new(),
            features,
            config: std::mem::take(&mut definition.config).into(),
            on_error,
            description: std::mem::take(&mut definition.description),
            tags: std::mem::take(&mut definition.tags),
        };
        incomplete.is_faulty =
            problems.error_count() > before || definition.has_errors || !definition.unread_features.is_empty();
        views.incomplete.insert(Arc::clone(&name), incomplete);
        views.known.items.insert(name, View::Derived(Arc::new(view.clone())));
        pending.push((view, definition));
    }
    let mut places = BTreeMap::new();
    for (mut view, definition) in pending {
        let before = problems.error_count();
        view.inputs = inputs(&definition, &views, entities, problems);
        // An input that refers to a definition that could not be read is missing here without a new error, because that
        // error was already reported.
        if (problems.error_count() > before || view.inputs.len() < definition.inputs.len())
            && let Some(incomplete) = views.incomplete.get_mut(&view.name)
        {
            incomplete.is_faulty = true;
        }
        places.insert(Arc::clone(&view.name), definition.name.at);
        views.known.items.insert(Arc::clone(&view.name), View::Derived(Arc::new(view)));
    }
    check_cycles(&views, &places, problems);
    views
}

fn inputs(
    definition: &DerivedDefinition,
    views: &Views,
    entities: &Known<Entity>,
    problems: &Problems,
) -> Vec<DerivedInput> {
    let mut names = Names::new("input", problems);
    let mut inputs = Vec::with_capacity(definition.inputs.len());
    for input in &definition.inputs {
        let Some(name) = names.add(&input.name) else { continue };
        if !is_identifier(&name) {
            let help = "give it a 'name' of letters, digits and '_'".to_owned();
            problems.error_with_help(&input.name.at, format!("'{name}' is not a valid input name"), help);
            continue;
        }
        let Some((value_type, from)) = origin(input, views, entities, problems) else { continue };
        check_input_type(&name, value_type, &from, &input.name.at, problems);
        inputs.push(DerivedInput { name, value_type, from });
    }
    inputs
}

/// Returns the type and source of an input. Reports an invalid source as an error.
fn origin(
    input: &InputDefinition,
    views: &Views,
    entities: &Known<Entity>,
    problems: &Problems,
) -> Option<(ValueType, InputSource)> {
    let find = |key: &str| entities.items.values().find(|entity| *entity.join_key == *key);
    match &input.from {
        InputFrom::Feature(view, feature) => {
            let view = views.known.lookup(view, problems)?;
            let feature = views.feature(view, feature, problems)?;
            let source = InputSource::Feature { view: Arc::clone(view.name()), feature: Arc::clone(&feature.name) };
            Some((feature.value_type, source))
        }
        InputFrom::Request(value_type) => {
            check_name("input", &input.name, problems);
            if find(&input.name.value).is_some() {
                let message = format!("input '{}' has the same name as a join key", input.name.value);
                let help = "a request has only one column of each name; use 'key:' to read the join key".to_owned();
                problems.error_with_help(&input.name.at, message, help);
                return None;
            }
            Some((value_type.value, InputSource::Request))
        }
        InputFrom::Key(key) => {
            let Some(entity) = find(&key.value) else {
                if entities.unread.is_empty() {
                    let help = nearest(&key.value, entities.items.values().map(|entity| &*entity.join_key));
                    problems.error_with_help(&key.at, format!("join key '{}' does not exist", key.value), help);
                }
                return None;
            };
            Some((ValueType::Scalar(entity.value_type), InputSource::JoinKey(Arc::clone(&entity.join_key))))
        }
    }
}

/// Checks that an input has a type that plugins can read. Nested values of stored and derived features are passed as JSON
/// text, but a request has no such values.
fn check_input_type(name: &str, value_type: ValueType, from: &InputSource, at: &Place, problems: &Problems) {
    if matches!(value_type, ValueType::Nested(_)) && matches!(from, InputSource::Request | InputSource::JoinKey(_)) {
        let message = format!("input '{name}' is {value_type}, which a request cannot pass to a plugin");
        problems.error_with_help(at, message, "declare it as Json, and send the value as JSON text".to_owned());
    }
}

/// Checks that a feature has a type that plugins can compute. They compute nested values as JSON text.
fn check_feature_type(name: &str, value_type: ValueType, at: &Place, problems: &Problems) {
    if value_type == ValueType::Nested(NestedType::ScalarMap) {
        let message = format!("feature '{name}' is {value_type}, which plugins cannot compute");
        problems.error_with_help(at, message, "declare it as Map".to_owned());
    }
}

fn on_error(definition: OnErrorDefinition, features: &[Feature], problems: &Problems) -> OnError {
    let values = match definition {
        OnErrorDefinition::Null => return OnError::Null,
        OnErrorDefinition::Fail => return OnError::Fail,
        OnErrorDefinition::Default(values) => values,
    };
    let mut defaults = BTreeMap::new();
    for (name, node) in values {
        let Some(feature) = features.iter().find(|feature| *feature.name == name.value) else {
            let help = nearest(&name.value, features.iter().map(|feature| &*feature.name));
            problems.error_with_help(&name.at, format!("on_error: the view has no feature '{}'", name.value), help);
            continue;
        };
        match value(&node, feature.value_type) {
            Some(value) => _ = defaults.insert(Arc::clone(&feature.name), value),
            None => {
                let message =
                    format!("on_error: the default of '{}' is not of type {}", name.value, feature.value_type);
                problems.error_with_help(&node.at, message, default_help(feature.value_type).to_owned());
            }
        }
    }
    OnError::Default(defaults)
}

/// Returns how to write a default of this type.
fn default_help(value_type: ValueType) -> &'static str {
    let scalar = match value_type {
        ValueType::Scalar(of) | ValueType::List(of) | ValueType::Set(of) => of,
        ValueType::Nested(_) => return "a default of this type can only be null",
    };
    match scalar.item() {
        ItemType::Bytes if !scalar.is_text() => "a default of this type can only be null",
        _ if scalar == ScalarType::UnixTimestamp => "a default of this type can only be null",
        _ => "write a value of this type",
    }
}

/// Converts a value in a definition. Returns `None` if the value does not have the type. Bytes and instants cannot be
/// written in a definition.
fn value(node: &Node, value_type: ValueType) -> Option<Value> {
    match (value_type, &node.tree) {
        (_, Tree::Null) => Some(Value::Null),
        (ValueType::Scalar(scalar), tree) => scalar_value(tree, scalar),
        (ValueType::List(scalar) | ValueType::Set(scalar), Tree::List(items)) => {
            let items = items.iter().map(|item| scalar_value(&item.tree, scalar)).collect::<Option<_>>()?;
            Some(Value::List(if let ValueType::Set(_) = value_type { set(items) } else { items }))
        }
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a default is rounded to the nearest float")]
fn scalar_value(tree: &Tree, scalar: ScalarType) -> Option<Value> {
    match (scalar, tree) {
        (ScalarType::Bool, Tree::Bool(value)) => Some(Value::Bool(*value)),
        (ScalarType::Int32, Tree::Int(value)) => i32::try_from(*value).ok().map(Value::Int32),
        (ScalarType::Int64, Tree::Int(value)) => Some(Value::Int64(*value)),
        (ScalarType::Float32, Tree::Int(value)) => single(*value as f64).map(Value::Float32),
        (ScalarType::Float32, Tree::Float(value)) => single(*value).map(Value::Float32),
        (ScalarType::Float64, Tree::Int(value)) => Some(Value::Float64(*value as f64)),
        (ScalarType::Float64, Tree::Float(value)) => Some(Value::Float64(*value)),
        (scalar, Tree::Text(text)) if is_text_of(text, scalar) => Some(Value::Bytes(text.clone().into_bytes())),
        _ => None,
    }
}

/// Reports each cycle of derived views that depend on each other. Reports each cycle only once.
fn check_cycles(views: &Views, places: &BTreeMap<Arc<str>, Place>, problems: &Problems) {
    let reads = |name: &Arc<str>| -> BTreeSet<Arc<str>> {
        let Some(View::Derived(view)) = views.known.items.get(name) else { return BTreeSet::new() };
        let view_of = |input: &DerivedInput| match &input.from {
            InputSource::Feature { view, .. } => Some(Arc::clone(view)),
            InputSource::Request | InputSource::JoinKey(_) => None,
        };
        view.inputs.iter().filter_map(view_of).filter(|read| places.contains_key(read)).collect()
    };
    // Repeatedly removes the views that depend on no remaining view. Each view that remains is in a cycle, or depends
    // on a view in a cycle.
    let mut remaining: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> =
        places.keys().map(|name| (Arc::clone(name), reads(name))).collect();
    loop {
        let free: Vec<_> =
            remaining.iter().filter(|(_, reads)| reads.is_empty()).map(|(name, _)| Arc::clone(name)).collect();
        if free.is_empty() {
            break;
        }
        for name in free {
            remaining.remove(&name);
            remaining.values_mut().for_each(|reads| _ = reads.remove(&name));
        }
    }
    let mut reported = BTreeSet::new();
    for start in remaining.keys() {
        let mut path = vec![start];
        // Every remaining view reads at least one remaining view, possibly itself, so following the inputs finds a
        // cycle.
        while let Some(next) = path.last().and_then(|last| remaining.get(*last)).and_then(|reads| reads.first()) {
            if let Some(start) = path.iter().position(|name| *name == next) {
                let cycle = &path[start..];
                if cycle.iter().all(|name| reported.insert(Arc::clone(name))) {
                    let names: Vec<&str> = cycle.iter().chain([&next]).map(|name| &***name).collect();
                    let message = format!("derived views depend on each other in a cycle: {}", names.join(" reads "));
                    problems.error_with_help(&places[next], message, "remove one of these inputs".to_owned());
                }
                break;
            }
            path.push(remaining.get_key_value(next).map_or(start, |(name, _)| name));
        }
    }
}

#[cfg(test)]
mod tests;
