//! The raw form of a derived view.

use std::collections::BTreeMap;

use super::{FeatureDefinition, Unread, description_and_tags, feature, items, name_of, short_reference, value_type};
use crate::{
    model::ValueType,
    yaml::{Located, Node, Problems, Table, Tree},
};

/// An item of `derived_views:`.
#[derive(Clone, Debug)]
pub struct DerivedDefinition {
    /// `name:`.
    pub name: Located<String>,
    /// `plugin:`; the view's name if absent.
    pub plugin: Option<Located<String>>,
    /// `inputs:`.
    pub inputs: Vec<InputDefinition>,
    /// `features:`.
    pub features: Vec<FeatureDefinition>,
    /// Items of `features:` that could not be read.
    pub unread_features: Unread,
    /// Whether a part of the view could not be read.
    pub has_errors: bool,
    /// `config:`, as JSON.
    pub config: String,
    /// `on_error:`.
    pub on_error: OnErrorDefinition,
    /// `description:`.
    pub description: String,
    /// `tags:`.
    pub tags: BTreeMap<String, String>,
}

/// An item of a derived view's `inputs:`.
#[derive(Clone, Debug)]
pub struct InputDefinition {
    /// `name:`; if absent, the name of the feature or of the join key.
    pub name: Located<String>,
    /// The source of the input.
    pub from: InputFrom,
}

/// The source of an input.
#[derive(Clone, Debug)]
pub enum InputFrom {
    /// `from: view:feature`: the view and the feature.
    Feature(Located<String>, Located<String>),
    /// `request: type`.
    Request(Located<ValueType>),
    /// `key: join key`.
    Key(Located<String>),
}

/// `on_error:`.
#[derive(Clone, Debug, Default)]
pub enum OnErrorDefinition {
    /// `null`, or absent.
    #[default]
    Null,
    /// `fail`.
    Fail,
    /// `default: {feature: value}`.
    Default(Vec<(Located<String>, Node)>),
}

pub(super) fn derived_view(node: &Node, problems: &Problems) -> Option<DerivedDefinition> {
    let errors_before = problems.error_count();
    let mut table = Table::new("derived view", node, problems)?;
    let name = table.required_text("name");
    let plugin = table.text("plugin");
    // No definition refers to an input, so the names of unread inputs are not needed.
    let inputs = items(&mut table, "inputs", &mut Unread::default(), |node| input(node, problems));
    let mut unread_features = Unread::default();
    let features = items(&mut table, "features", &mut unread_features, |node| {
        feature(Table::new("feature", node, problems)?, problems)
    });
    let config = table.get("config").map_or_else(|| "null".to_owned(), Node::to_json);
    let on_error = table.get("on_error").and_then(|node| on_error(node, problems)).unwrap_or_default();
    let (description, tags) = description_and_tags(&mut table);
    let (listed, before) = (table.get("features").is_some(), problems.error_count());
    table.finish();
    if !listed && problems.error_count() > before {
        // The features may be under a mistyped key.
        unread_features.note(None);
    }
    let has_errors = problems.error_count() > errors_before;
    Some(DerivedDefinition {
        name: name?,
        plugin,
        inputs,
        features,
        unread_features,
        has_errors,
        config,
        on_error,
        description,
        tags,
    })
}

fn input(node: &Node, problems: &Problems) -> Option<InputDefinition> {
    // `- view:feature` is the short form of an input that has the feature's name.
    if let Tree::Text(text) = &node.tree {
        let (view, feature) = reference(text, node, problems)?;
        return Some(InputDefinition { name: feature.clone(), from: InputFrom::Feature(view, feature) });
    }
    let mut table = Table::new("input", node, problems)?;
    let name = table.text("name");
    let from = table.text("from");
    let key = table.text("key");
    let request = table.get("request").is_some();
    let request_type = if request { value_type(&mut table, "request", problems) } else { None };
    table.finish();
    let wrong = |message: &str| {
        let help = "an input has one of 'from: view:feature', 'request: type' or 'key: join key'".to_owned();
        problems.error_with_help(&node.at, format!("input{}: {message}", quoted_name(node)), help);
    };
    match (from, request, key) {
        (Some(from), false, None) => {
            let (view, feature) = reference(&from.value, node, problems)?;
            Some(InputDefinition {
                name: name.unwrap_or_else(|| feature.clone()),
                from: InputFrom::Feature(view, feature),
            })
        }
        (None, true, None) => {
            let Some(name) = name else {
                wrong("'name' is missing");
                return None;
            };
            Some(InputDefinition { name, from: InputFrom::Request(request_type?) })
        }
        (None, false, Some(key)) => {
            Some(InputDefinition { name: name.unwrap_or_else(|| key.clone()), from: InputFrom::Key(key) })
        }
        (None, false, None) => {
            wrong("the source is missing");
            None
        }
        _ => {
            wrong("more than one source is set");
            None
        }
    }
}

fn quoted_name(node: &Node) -> String {
    name_of(node).map(|name| format!(" '{name}'")).unwrap_or_default()
}

/// Parses `view:feature`. A missing feature is an error. Both names get the position of the whole text.
fn reference(text: &str, node: &Node, problems: &Problems) -> Option<(Located<String>, Located<String>)> {
    let (view, feature) = short_reference(text, &node.at);
    if feature.is_none() {
        let help = format!("add a feature of the view, as in '{text}:some_feature'");
        problems.error_with_help(&node.at, format!("input '{text}' names no feature"), help);
    }
    Some((view, feature?))
}

fn on_error(node: &Node, problems: &Problems) -> Option<OnErrorDefinition> {
    match &node.tree {
        Tree::Null => return Some(OnErrorDefinition::Null),
        Tree::Text(word) if word == "null" => return Some(OnErrorDefinition::Null),
        Tree::Text(word) if word == "fail" => return Some(OnErrorDefinition::Fail),
        Tree::Map(entries) => {
            if let [(key, values)] = entries.as_slice()
                && key.value == "default"
                && let Tree::Map(values) = &values.tree
            {
                return Some(OnErrorDefinition::Default(values.clone()));
            }
        }
        _ => {}
    }
    let help = "use 'null', 'fail' or 'default: {feature: value}'".to_owned();
    problems.error_with_help(&node.at, "derived view: 'on_error' is not valid", help);
    None
}
