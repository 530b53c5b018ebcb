//! `/ready`: whether a load balancer may send requests to this server.

use hyper::StatusCode;
use larder_serving::{Awaited, LISTED_MAX, LookupService};
use serde_json::{Value, json};

use super::response::{HttpResponse, json_response};

/// Returns the response to `/ready`: 200 if all views with a source were loaded once, the plugins that were present at
/// startup are compiled, the store works, no view lost rows to damage, and the server is not stopping. A server that
/// was ready stays ready while its sources are unavailable and while new views are loaded. With `hides_names`, the
/// response does not name views, because the caller may have no token that permits them.
pub(super) fn readiness(lookups: &LookupService, is_stopping: bool, hides_names: bool) -> HttpResponse {
    let unready = |body: Value| json_response(StatusCode::SERVICE_UNAVAILABLE, &body);
    if is_stopping {
        return unready(json!({ "status": "stopping" }));
    }
    let snapshot = lookups.snapshot();
    if lookups.readiness().is_ready(&snapshot) {
        return json_response(StatusCode::OK, &json!({ "status": "ready" }));
    }
    if snapshot.store().failure().is_some() {
        return unready(json!({ "status": "failing", "why": "the store failed; see the server's log" }));
    }
    let awaited = match snapshot.awaited() {
        Awaited::Nothing => None,
        Awaited::Registry => Some("the Feast registry has not been written yet. hint: run 'feast apply'"),
        Awaited::Views => Some("the Feast registry has no feature views yet. hint: run 'feast apply'"),
    };
    if let Some(why) = awaited {
        return unready(json!({ "status": "waiting", "why": why }));
    }
    let damaged: Vec<&str> = snapshot.damaged().take(LISTED_MAX).collect();
    let status = if damaged.is_empty() { "loading" } else { "healing" };
    if hides_names {
        return unready(json!({ "status": status }));
    }
    if !damaged.is_empty() {
        let why = "rows were lost to damage and are being loaded again";
        return unready(json!({ "status": status, "why": why, "feature_views": damaged }));
    }
    let missing: Vec<&str> = snapshot.not_loaded().take(LISTED_MAX).collect();
    if missing.is_empty() && lookups.readiness().awaits_plugins() {
        return unready(json!({ "status": "loading", "why": "plugins are being compiled" }));
    }
    unready(json!({ "status": status, "feature_views": missing }))
}
