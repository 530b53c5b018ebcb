//! The routes: the methods and paths that each listener serves. The table is used for dispatch, `Allow` headers,
//! redirects, and the names of endpoints in logs. A test compares it with the HTTP reference in `docs`.

use std::borrow::Cow;

use hyper::Method;

/// A method and path that a listener serves. A route for GET also serves HEAD.
#[derive(Debug)]
pub struct Route {
    /// The method, `GET` or `POST`.
    pub method: &'static str,
    /// The path. `{name}` is one path segment.
    pub path: &'static str,
    /// The listeners that serve the route.
    pub listeners: &'static [ListenerKind],
    pub(super) endpoint: Endpoint,
}

/// The kinds of listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// `server: listen` and `server: unix_socket`.
    Data,
    /// `admin: socket`.
    Admin,
    /// `metrics: listen`.
    Metrics,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Needs no token.
    Public(PublicEndpoint),
    /// Needs a token on a data listener that has tokens.
    Authorized(AuthorizedEndpoint),
    /// A command of the admin socket.
    Command(CommandEndpoint),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PublicEndpoint {
    Health,
    Ready,
    Metrics,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthorizedEndpoint {
    OnlineFeatures,
    Catalog,
    Write(WriteEndpoint),
}

/// Feast's endpoints that write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteEndpoint {
    Push,
    WriteToOnlineStore,
    Materialize,
    MaterializeIncremental,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandEndpoint {
    Sync,
    Reload,
    Delete,
    Reset,
    ListPlugins,
    DeployPlugin,
    ListPluginHistory,
    RollBackPlugin,
    PromotePlugin,
    DiffPlugin,
    CapturePlugin,
}

/// The result of [`find_route`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RouteMatch<'p> {
    /// The endpoint, and the path segment that matches `{name}`, if the route has one.
    Endpoint(Endpoint, Option<&'p str>),
    /// The path has routes, but not for this method. The value is for the `Allow` header.
    WrongMethod(String),
    /// No route matches the path, but a route for this method matches the path without its trailing slashes. The value
    /// is the path without these slashes.
    Redirect(&'p str),
    Nothing,
}

const ALL: &[ListenerKind] = &[ListenerKind::Data, ListenerKind::Admin, ListenerKind::Metrics];
const LOOKUPS: &[ListenerKind] = &[ListenerKind::Data, ListenerKind::Admin];
const DATA: &[ListenerKind] = &[ListenerKind::Data];
const ADMIN: &[ListenerKind] = &[ListenerKind::Admin];
const METRICS: &[ListenerKind] = &[ListenerKind::Metrics];

/// The path of lookups.
pub(super) const ONLINE_FEATURES: &str = "/get-online-features";

/// All routes.
pub const ROUTES: &[Route] = &[
    route("POST", ONLINE_FEATURES, LOOKUPS, Endpoint::Authorized(AuthorizedEndpoint::OnlineFeatures)),
    route("POST", "/push", DATA, write(WriteEndpoint::Push)),
    route("POST", "/write-to-online-store", DATA, write(WriteEndpoint::WriteToOnlineStore)),
    route("POST", "/materialize", DATA, write(WriteEndpoint::Materialize)),
    route("POST", "/materialize-incremental", DATA, write(WriteEndpoint::MaterializeIncremental)),
    route("GET", "/health", ALL, Endpoint::Public(PublicEndpoint::Health)),
    route("GET", "/ready", ALL, Endpoint::Public(PublicEndpoint::Ready)),
    route("GET", "/metrics", METRICS, Endpoint::Public(PublicEndpoint::Metrics)),
    route("GET", "/v1/catalog", LOOKUPS, Endpoint::Authorized(AuthorizedEndpoint::Catalog)),
    route("POST", "/v1/sync", ADMIN, Endpoint::Command(CommandEndpoint::Sync)),
    route("POST", "/v1/reload", ADMIN, Endpoint::Command(CommandEndpoint::Reload)),
    route("POST", "/v1/delete", ADMIN, Endpoint::Command(CommandEndpoint::Delete)),
    route("POST", "/v1/reset", ADMIN, Endpoint::Command(CommandEndpoint::Reset)),
    route("GET", "/v1/plugins", ADMIN, Endpoint::Command(CommandEndpoint::ListPlugins)),
    route("POST", "/v1/plugins", ADMIN, Endpoint::Command(CommandEndpoint::DeployPlugin)),
    route("GET", "/v1/plugins/{name}/history", ADMIN, Endpoint::Command(CommandEndpoint::ListPluginHistory)),
    route("POST", "/v1/plugins/{name}/rollback", ADMIN, Endpoint::Command(CommandEndpoint::RollBackPlugin)),
    route("POST", "/v1/plugins/{name}/promote", ADMIN, Endpoint::Command(CommandEndpoint::PromotePlugin)),
    route("GET", "/v1/plugins/{name}/diff", ADMIN, Endpoint::Command(CommandEndpoint::DiffPlugin)),
    route("POST", "/v1/plugins/{name}/capture", ADMIN, Endpoint::Command(CommandEndpoint::CapturePlugin)),
];

const fn route(
    method: &'static str,
    path: &'static str,
    listeners: &'static [ListenerKind],
    endpoint: Endpoint,
) -> Route {
    Route { method, path, listeners, endpoint }
}

const fn write(endpoint: WriteEndpoint) -> Endpoint {
    Endpoint::Authorized(AuthorizedEndpoint::Write(endpoint))
}

/// Finds the route of a request to a listener.
pub(super) fn find_route<'p>(listener: ListenerKind, method: &Method, path: &'p str) -> RouteMatch<'p> {
    let routes = |path: &'p str| {
        let routes = ROUTES.iter().filter(move |route| route.listeners.contains(&listener));
        routes.filter_map(move |route| Some((route, match_path(route.path, path)?)))
    };
    if let Some((route, name)) = routes(path).find(|(route, _)| route.serves(method)) {
        return RouteMatch::Endpoint(route.endpoint, name);
    }
    let allowed: Vec<&str> = routes(path).flat_map(|(route, _)| route.methods()).copied().collect();
    if !allowed.is_empty() {
        return RouteMatch::WrongMethod(allowed.join(", "));
    }
    // As in Feast's server, a trailing slash redirects to the path without it.
    let trimmed = path.trim_end_matches('/');
    if routes(trimmed).any(|(route, _)| route.serves(method)) {
        RouteMatch::Redirect(trimmed)
    } else {
        RouteMatch::Nothing
    }
}

/// Returns the path of the matching route, or `unknown`, for logs: the path that a client sent can contain anything.
pub(super) fn known_path(path: &str) -> &'static str {
    ROUTES.iter().find(|route| match_path(route.path, path).is_some()).map_or("unknown", |route| route.path)
}

/// Matches a path against a pattern. Returns `None` if it does not match, and otherwise the segment that matches
/// `{name}`, if the pattern has one.
fn match_path<'p>(pattern: &str, path: &'p str) -> Option<Option<&'p str>> {
    let Some((before, after)) = pattern.split_once("{name}") else { return (pattern == path).then_some(None) };
    let name = path.strip_prefix(before)?.strip_suffix(after)?;
    (!name.is_empty() && !name.contains('/')).then_some(Some(name))
}

// === impl Route ===

impl Route {
    fn methods(&self) -> &'static [&'static str] {
        if self.method == "GET" { &["GET", "HEAD"] } else { &["POST"] }
    }

    fn serves(&self, method: &Method) -> bool {
        self.methods().contains(&method.as_str())
    }

    /// Returns whether a caller needs a token on a data listener with tokens.
    #[must_use]
    pub fn needs_token(&self) -> bool {
        matches!(self.endpoint, Endpoint::Authorized(_))
    }

    /// Returns the title of the route's section in the HTTP reference.
    #[must_use]
    pub fn title(&self) -> Cow<'static, str> {
        Cow::Owned(format!("{} {}", self.method, self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(listener: ListenerKind, method: &str, path: &'static str) -> RouteMatch<'static> {
        find_route(listener, &method.parse().unwrap(), path)
    }

    #[test]
    fn routes_have_unique_method_and_path() {
        for (at, route) in ROUTES.iter().enumerate() {
            for other in &ROUTES[..at] {
                assert!((route.method, route.path) != (other.method, other.path), "{}", route.title());
            }
        }
    }

    #[test]
    fn listener_serves_its_own_routes_only() {
        for listener in [ListenerKind::Data, ListenerKind::Admin, ListenerKind::Metrics] {
            for route in ROUTES {
                let path = route.path.replace("{name}", "x");
                let is_served = matches!(
                    find_route(listener, &route.method.parse().unwrap(), &path),
                    RouteMatch::Endpoint(endpoint, _) if endpoint == route.endpoint
                );
                assert_eq!(is_served, route.listeners.contains(&listener), "{listener:?} {}", route.title());
            }
        }
    }

    #[test]
    fn wrong_method_lists_allowed_methods() {
        let wrong = |methods: &str| RouteMatch::WrongMethod(methods.to_owned());
        assert_eq!(found(ListenerKind::Data, "GET", "/push"), wrong("POST"));
        assert_eq!(found(ListenerKind::Data, "POST", "/health"), wrong("GET, HEAD"));
        assert_eq!(found(ListenerKind::Admin, "DELETE", "/v1/plugins"), wrong("GET, HEAD, POST"));
        assert_eq!(found(ListenerKind::Data, "POST", "/v1/plugins"), RouteMatch::Nothing);
        assert!(matches!(found(ListenerKind::Data, "HEAD", "/ready"), RouteMatch::Endpoint(..)));
    }

    #[test]
    fn trailing_slashes_redirect_allowed_methods() {
        assert_eq!(found(ListenerKind::Data, "POST", "/push//"), RouteMatch::Redirect("/push"));
        assert_eq!(found(ListenerKind::Data, "GET", "/push/"), RouteMatch::Nothing);
        assert_eq!(found(ListenerKind::Data, "GET", "/"), RouteMatch::Nothing);
    }

    #[test]
    fn plugin_name_is_one_path_segment() {
        let roll_back = Endpoint::Command(CommandEndpoint::RollBackPlugin);
        let path = "/v1/plugins/churn/rollback";
        assert_eq!(found(ListenerKind::Admin, "POST", path), RouteMatch::Endpoint(roll_back, Some("churn")));
        for path in ["/v1/plugins//rollback", "/v1/plugins/a/b/rollback", "/v1/plugins/rollback"] {
            assert_eq!(found(ListenerKind::Admin, "POST", path), RouteMatch::Nothing, "{path}");
        }
        assert_eq!(known_path(path), "/v1/plugins/{name}/rollback");
        assert_eq!(known_path("/secret"), "unknown");
    }
}
