//! The workloads of a benchmark, and the points of its sweep.

use anyhow::bail;

use crate::{
    client::Request,
    definitions::{CHURN, CHURN_DERIVED, SVC50, SVC200, SWEEP, Service, WIDE_FEATURES, wide_service_name},
    random::Keys,
    target::Captured,
    workload::{Entities, Part, Workload, feature_server_request, redis_request},
};

/// The number of customers.
pub(crate) const CUSTOMERS: u32 = 10_000;
/// The number of customers in Feast's store. It is small, because Feast takes hundreds of times as long to load and
/// serve them.
pub(crate) const FEAST_CUSTOMERS: u32 = 200;
/// The offset that turns the number of a customer into one that does not exist.
const UNKNOWN_OFFSET: u32 = 900_000;
/// The numbers of different requests if each has several entities, for fast servers and for Feast's server.
const POOL: usize = 500;
const FEAST_POOL: usize = 10;

/// A workload.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: String,
    /// A description of the workload, for the report.
    pub(crate) what: String,
    /// The Larder server that is measured.
    pub(crate) host: HostKind,
    /// The kinds of requests.
    pub(crate) kinds: Vec<RequestKind>,
    /// The command that runs repeatedly during the load on Larder.
    pub(crate) background: Option<BackgroundCommand>,
    /// Whether the workload is also measured on Redis.
    pub(crate) redis: bool,
    /// Whether the workload is also measured on Feast.
    pub(crate) feast: bool,
}

/// One kind of request.
#[derive(Clone, Debug)]
pub(crate) struct RequestKind {
    pub(crate) weight: usize,
    pub(crate) service: String,
    /// The number of entities in each request.
    pub(crate) each: usize,
    /// Whether the requests are for customers that do not exist.
    pub(crate) unknown: bool,
    /// Whether requests include the churn plugin's request input.
    pub(crate) discount: bool,
}

/// A Larder server of a benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostKind {
    /// All views, and the Rust plugin if it is available.
    Main,
    /// The churn views, without a hot cache.
    Cold,
    /// The churn views, with the Python plugin.
    Python,
}

/// A command that runs repeatedly during the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackgroundCommand {
    Sync,
    Deploy,
}

/// The format of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestFormat {
    /// The format of Feast's feature server, which Larder and the floor use.
    Http,
    /// The same format. Requests only name customers that are in the store of Feast's server.
    Feast,
    Redis,
}

/// Returns all workloads, in the order of the report.
pub(crate) fn workloads() -> Vec<Spec> {
    let churn = || vec![RequestKind::of(CHURN, 1)];
    let derived = || vec![RequestKind { discount: true, ..RequestKind::of(CHURN_DERIVED, 1) }];
    let spec = |name: &str, what: &str, kinds: Vec<RequestKind>| Spec {
        name: name.to_owned(),
        what: what.to_owned(),
        host: HostKind::Main,
        kinds,
        background: None,
        redis: true,
        feast: true,
    };
    let alone = |spec: Spec| Spec { redis: false, feast: false, ..spec };
    vec![
        spec("churn-1", "8 features of 3 views, 1 entity", churn()),
        Spec { redis: false, ..spec("churn-derived-1", "churn-1 and 4 derived features, Rust plugin", derived()) },
        Spec {
            host: HostKind::Python,
            ..alone(spec("churn-derived-py-1", "churn-derived-1 with the plugin in Python", derived()))
        },
        spec("svc50-1", "50 features of 1 view, 1 entity", vec![RequestKind::of(SVC50, 1)]),
        spec("svc50-100", "50 features of 1 view, 100 entities", vec![RequestKind::of(SVC50, 100)]),
        spec("svc200-50", "200 features of 4 views, 50 entities", vec![RequestKind::of(SVC200, 50)]),
        Spec { host: HostKind::Cold, ..alone(spec("cold-1", "churn-1 without the hot cache", churn())) },
        spec("miss", "churn-1 with unknown keys", vec![RequestKind { unknown: true, ..RequestKind::of(CHURN, 1) }]),
        spec(
            "mixed",
            "90 % churn-1, 9 % svc50-1, 1 % svc50-100",
            vec![
                RequestKind { weight: 90, ..RequestKind::of(CHURN, 1) },
                RequestKind { weight: 9, ..RequestKind::of(SVC50, 1) },
                RequestKind::of(SVC50, 100),
            ],
        ),
        Spec {
            background: Some(BackgroundCommand::Sync),
            ..alone(spec("during-sync", "churn-1 during full syncs", churn()))
        },
        Spec {
            background: Some(BackgroundCommand::Deploy),
            ..alone(spec("during-deploy", "churn-1 during deployments of the plugin", churn()))
        },
    ]
}

/// Returns the workloads with these names, in the order of the report.
///
/// # Errors
/// If there is no workload with one of the names among those that `is_allowed` selects.
pub(crate) fn named(names: &[String], is_allowed: impl Fn(&Spec) -> bool) -> anyhow::Result<Vec<Spec>> {
    let all: Vec<Spec> = workloads().into_iter().filter(is_allowed).collect();
    for name in names {
        if all.iter().all(|spec| spec.name != *name) {
            let known: Vec<_> = all.iter().map(|spec| spec.name.as_str()).collect();
            bail!("workload {name:?} cannot be used here; the workloads are {}", known.join(", "));
        }
    }
    Ok(all.into_iter().filter(|spec| names.contains(&spec.name)).collect())
}

/// Returns the numbers of entities and features for each point of the sweep. One part of the points has 50 features and
/// different numbers of entities. The other part has one entity and different numbers of features.
pub(crate) fn sweep() -> Vec<(usize, usize)> {
    let entities = [1, 10, 100].map(|entities| (entities, WIDE_FEATURES));
    let features = SWEEP.map(|features| (1, features));
    let mut points = [&entities[..], &features[..]].concat();
    points.sort_unstable();
    points.dedup();
    points
}

/// Returns the workload of a point of the sweep.
pub(crate) fn point(entities: usize, features: usize) -> Spec {
    Spec {
        name: format!("{entities}x{features}"),
        what: format!("{features} features, {entities} entities"),
        host: HostKind::Main,
        kinds: vec![RequestKind::of(&wide_service_name(features), entities)],
        background: None,
        redis: true,
        feast: true,
    }
}

// === impl RequestKind ===

impl RequestKind {
    fn of(service: &str, each: usize) -> Self {
        Self { weight: 1, service: service.to_owned(), each, unknown: false, discount: false }
    }

    fn request(&self, format: RequestFormat, services: &[Service], ids: &[String]) -> Request {
        match format {
            RequestFormat::Http | RequestFormat::Feast => feature_server_request(&self.service, ids, self.discount),
            RequestFormat::Redis => {
                let found = services.iter().find(|service| service.name == self.service);
                redis_request(found.map_or(&[], |service| &service.parts), ids)
            }
        }
    }
}

// === impl Spec ===

impl Spec {
    /// Returns the encoded requests.
    pub(crate) fn requests(&self, format: RequestFormat, services: &[Service], keys: Keys) -> Workload {
        let (customers, pool) = match format {
            RequestFormat::Http | RequestFormat::Redis => (CUSTOMERS, POOL),
            RequestFormat::Feast => (FEAST_CUSTOMERS, FEAST_POOL),
        };
        let part = |kind: &RequestKind| {
            let offset = if kind.unknown { UNKNOWN_OFFSET } else { 0 };
            let entities = Entities { each: kind.each, customers, offset, pool, keys };
            Part::new(kind.weight, &entities, |ids| kind.request(format, services, ids))
        };
        Workload::of(self.kinds.iter().map(part).collect())
    }

    /// Returns the numbers of entities and features of a point of the sweep.
    pub(crate) fn size(&self) -> (usize, usize) {
        let (entities, features) = self.name.split_once('x').unwrap_or_default();
        (entities.parse().unwrap_or(0), features.parse().unwrap_or(0))
    }

    /// Checks that the sample response has a value for every feature if a plugin is needed, no values if the customers
    /// are unknown, and at least one value otherwise. Errors and nulls are cheap to serve, so they would distort the
    /// results.
    pub(crate) fn check(&self, captured: &Captured) -> anyhow::Result<()> {
        let features = captured.features;
        let excerpt = || String::from_utf8_lossy(&captured.body[..captured.body.len().min(500)]).into_owned();
        if self.expects_no_values() {
            if features.with_value > 0 {
                bail!("unknown customers have values: {}", excerpt());
            }
            return Ok(());
        }
        if features.with_value == 0 || (self.needs_plugin() && features.with_value < features.total) {
            bail!("only {} of {} features have a value: {}", features.with_value, features.total, excerpt());
        }
        Ok(())
    }

    /// Returns whether the requests need the churn plugin.
    pub(crate) fn needs_plugin(&self) -> bool {
        self.kinds.iter().any(|kind| kind.discount)
    }

    /// Returns whether the sample response must have no values.
    pub(crate) fn expects_no_values(&self) -> bool {
        self.kinds.iter().any(|kind| kind.unknown)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::definitions::{churn_service, wide_services};

    #[test]
    fn names_are_unique_and_services_exist() {
        let services = [vec![churn_service()], wide_services()].concat();
        let specs = workloads();
        assert_eq!(specs.iter().map(|spec| &spec.name).collect::<BTreeSet<_>>().len(), specs.len());
        let points = sweep().into_iter().map(|(entities, features)| point(entities, features));
        for spec in specs.into_iter().chain(points).filter(|spec| spec.redis) {
            for kind in &spec.kinds {
                assert!(services.iter().any(|service| service.name == kind.service), "{}", spec.name);
            }
        }
    }

    #[test]
    fn feast_gets_only_known_customers() {
        for spec in workloads().iter().filter(|spec| spec.feast && !spec.expects_no_values()) {
            let workload = spec.requests(RequestFormat::Feast, &[], Keys::Uniform);
            for request in workload.requests() {
                let text = std::str::from_utf8(&request.bytes).unwrap();
                assert!(text.split("CUST_").skip(1).all(|rest| rest[..6].parse::<u32>().unwrap() <= FEAST_CUSTOMERS));
            }
        }
    }

    #[test]
    fn sweep_has_each_point_once() {
        let points = sweep();
        assert_eq!(points.iter().filter(|&&point| point == (1, 50)).count(), 1);
        assert_eq!(points.len(), 7);
        assert!(points.iter().all(|&(entities, features)| point(entities, features).size() == (entities, features)));
    }
}
