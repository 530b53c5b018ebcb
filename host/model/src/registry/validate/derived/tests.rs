use expect_test::expect;

use super::super::tests::{catalog_of, check};
use super::*;

const STORED: &str = "
entities:
  - {name: customer, join_key: customer_id, type: String}
feature_views:
  - name: customer_stats
    entities: [customer]
    features:
      - {name: charges, type: Float64}
      - {name: profile, type: Map}
      - {name: tags, type: Array(String)}
";

const DERIVED: &str = "
derived_views:
  - name: customer_scores
    description: How a customer does.
    inputs:
      - customer_ratios:per_month
      - {name: id, key: customer_id}
      - {name: labels, from: 'customer_stats:tags'}
    features: [{name: score, type: Float64}, {name: labels, type: Array(String)}]
    on_error: fail
  - name: customer_ratios
    plugin: ratios
    inputs:
      - customer_stats:charges
      - {name: months, request: Int64}
    features: [{name: per_month, type: Float64}, {name: rating, type: String}, {name: ranks, type: Array(Int32)}]
    config: {weights: [1, 2.5], label: 'a \"b\"'}
    on_error: {default: {per_month: 0, rating: none, ranks: [1, 2]}}
    tags: {owner: churn-team}
feature_services:
  - name: churn_online
    features: [customer_stats:charges, customer_ratios, 'customer_scores:score', {view: customer_ratios, alias: other}]
";

#[test]
fn derived_views_resolve_in_any_order() {
    let (catalog, problems) = catalog_of(&[DERIVED, STORED]);
    assert_eq!(problems, "");
    let catalog = catalog.unwrap();
    assert_eq!(catalog.views().len(), 1, "derived views are not stored views");
    let ratios = catalog.derived_view("customer_ratios").unwrap();
    assert_eq!(&*ratios.plugin, "ratios");
    assert_eq!(&*ratios.config, r#"{"weights":[1,2.5],"label":"a \"b\""}"#);
    let text = |text: &str| Value::Bytes(text.into());
    let defaults = [
        ("per_month".into(), Value::Float64(0.0)),
        ("ranks".into(), Value::List(vec![Value::Int32(1), Value::Int32(2)])),
        ("rating".into(), text("none")),
    ];
    assert_eq!(ratios.on_error, OnError::Default(defaults.into()));
    assert_eq!(ratios.request_inputs().map(|input| &*input.name).collect::<Vec<_>>(), ["months"]);

    let scores = catalog.derived_view("customer_scores").unwrap();
    assert_eq!(&*scores.plugin, "customer_scores", "the plugin has the view's name by default");
    assert_eq!((&*scores.config, &scores.on_error), ("null", &OnError::Fail));
    let inputs: Vec<_> = scores.inputs.iter().map(|input| (&*input.name, input.value_type.to_string())).collect();
    assert_eq!(
        inputs,
        [("per_month", "Float64".into()), ("id", "String".into()), ("labels", "Array(String)".to_owned())]
    );
    assert_eq!(scores.inputs[1].from, InputSource::JoinKey("customer_id".into()));

    let service = catalog.service("churn_online").unwrap();
    let selected: Vec<_> = service.projections.iter().map(|projection| projection.features.len()).collect();
    assert_eq!(selected, [1, 3, 1, 3]);
}

#[test]
fn every_derived_view_error_is_reported() {
    let wrong = "
derived_views:
  - name: customer_stats
    features: [{name: a, type: Int64}]
  - name: bad_inputs
    plugin: bad-name
    inputs:
      - customer_stats
      - customer_stat:charges
      - customer_stats:charge
      - {name: profile, request: Map}
      - {name: x-y, request: Int64}
      - {request: Int64}
      - {name: z}
      - {name: both, request: Int64, key: customer_id}
      - {name: customer_id, request: String}
      - {name: key, key: customer}
      - {name: odd, request: Int46}
      - {name: twice, request: Int64}
      - {name: twice, request: Int64}
    features: [{name: m, type: ScalarMap}, {name: n, type: Map}]
  - name: bad_errors
    inputs: []
    features: [{name: a, type: Int64}]
    on_error: {default: {b: 1, a: text}}
  - name: bad_word
    features: [{name: a, type: Int64}]
    on_error: ignore
  - name: no_features
    inputs: []
feature_services:
  - name: churn_online
    features: [{view: bad_word, features: [a, b], join_key_map: {customer_id: other}}]
";
    check(
        &[STORED, wrong],
        expect![[r#"
            1.yaml:3:11: error: feature view 'customer_stats' is defined twice (first defined at 0.yaml:5:11)
            1.yaml:6:13: error: 'bad-name' is not a valid plugin name (set 'plugin' to a letter or '_', followed by letters, digits and '_')
            1.yaml:8:9: error: input 'customer_stats' names no feature (add a feature of the view, as in 'customer_stats:some_feature')
            1.yaml:9:9: error: feature view 'customer_stat' does not exist (did you mean 'customer_stats'?)
            1.yaml:10:9: error: feature view 'customer_stats' has no feature 'charge' (did you mean 'charges'?)
            1.yaml:11:16: error: input 'profile' is Map, which a request cannot pass to a plugin (declare it as Json, and send the value as JSON text)
            1.yaml:12:16: error: 'x-y' is not a valid input name (give it a 'name' of letters, digits and '_')
            1.yaml:13:9: error: input: 'name' is missing (an input has one of 'from: view:feature', 'request: type' or 'key: join key')
            1.yaml:14:9: error: input 'z': the source is missing (an input has one of 'from: view:feature', 'request: type' or 'key: join key')
            1.yaml:15:9: error: input 'both': more than one source is set (an input has one of 'from: view:feature', 'request: type' or 'key: join key')
            1.yaml:16:16: error: input 'customer_id' has the same name as a join key (a request has only one column of each name; use 'key:' to read the join key)
            1.yaml:17:26: error: join key 'customer' does not exist (did you mean 'customer_id'?)
            1.yaml:18:30: error: unknown type 'Int46' (did you mean 'Int64'?)
            1.yaml:20:16: error: input 'twice' is defined twice (first defined at 1.yaml:19:16)
            1.yaml:21:23: error: feature 'm' is ScalarMap, which plugins cannot compute (declare it as Map)
            1.yaml:25:26: error: on_error: the view has no feature 'b'
            1.yaml:25:35: error: on_error: the default of 'a' is not of type Int64 (write a value of this type)
            1.yaml:28:15: error: derived view: 'on_error' is not valid (use 'null', 'fail' or 'default: {feature: value}')
            1.yaml:29:11: error: feature view 'no_features' has no features
            1.yaml:33:47: error: feature view 'bad_word' has no feature 'b'
            1.yaml:33:79: error: derived view 'bad_word' has no join keys, so 'join_key_map' is not allowed"#]],
    );
}

#[test]
fn default_values_are_checked() {
    let wrong = "
derived_views:
  - name: bad_texts
    inputs: [{name: x, request: Int64}]
    features: [{name: u, type: Uuid}, {name: d, type: Decimal}, {name: j, type: Json}, {name: l, type: Array(Uuid)}]
    on_error: {default: {u: '1', d: '1,5', j: '{a}', l: ['1']}}
  - name: bad_numbers
    inputs: [{name: x, request: Int64}]
    features: [{name: f, type: Float32}, {name: g, type: Set(Float32)}, {name: t, type: UnixTimestamp}, {name: m, type: Map}]
    on_error: {default: {f: 1e39, g: [1.0, -1e39], t: 1767225600, m: {}}}
";
    check(
        &[STORED, wrong],
        expect![[r#"
            1.yaml:6:29: error: on_error: the default of 'u' is not of type Uuid (write a value of this type)
            1.yaml:6:37: error: on_error: the default of 'd' is not of type Decimal (write a value of this type)
            1.yaml:6:47: error: on_error: the default of 'j' is not of type Json (write a value of this type)
            1.yaml:6:57: error: on_error: the default of 'l' is not of type Array(Uuid) (write a value of this type)
            1.yaml:10:29: error: on_error: the default of 'f' is not of type Float32 (write a value of this type)
            1.yaml:10:38: error: on_error: the default of 'g' is not of type Set(Float32) (write a value of this type)
            1.yaml:10:55: error: on_error: the default of 't' is not of type UnixTimestamp (a default of this type can only be null)
            1.yaml:10:70: error: on_error: the default of 'm' is not of type Map (a default of this type can only be null)"#]],
    );
}

#[test]
fn cycle_is_reported_once() {
    let circle = "
derived_views:
  - {name: a_a, inputs: ['b_b:f'], features: [{name: f, type: Int64}]}
  - {name: b_b, inputs: ['c_c:f', {name: g, from: 'free_view:f'}], features: [{name: f, type: Int64}]}
  - {name: c_c, inputs: ['a_a:f'], features: [{name: f, type: Int64}]}
  - {name: own_tail, inputs: ['own_tail:f'], features: [{name: f, type: Int64}]}
  - {name: hangs_on, inputs: ['a_a:f'], features: [{name: f, type: Int64}]}
  - {name: free_view, inputs: [], features: [{name: f, type: Int64}]}
";
    check(
        &[STORED, circle],
        expect![[r#"
            1.yaml:3:12: error: derived views depend on each other in a cycle: a_a reads b_b reads c_c reads a_a (remove one of these inputs)
            1.yaml:6:12: error: derived views depend on each other in a cycle: own_tail reads own_tail (remove one of these inputs)"#]],
    );
}
