//! The requests of a benchmark: the workloads by name, and the points of the sweeps.

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
/// The number of customers in Feast's store: Feast's server is hundreds of times slower.
pub(crate) const FEAST_CUSTOMERS: u32 = 200;
/// Customer numbers from here on do not exist.
const BEYOND: u32 = 900_000;
/// The number of generated requests with several entities, for a fast server and for a slow one.
const POOL: usize = 500;
const FEAST_POOL: usize = 10;

/// A workload.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: String,
    /// A description.
    pub(crate) what: String,
    /// The Larder server that answers it.
    pub(crate) host: HostKind,
    /// The kinds of requests; the floor sends the response to the first one's sample.
    pub(crate) asks: Vec<Ask>,
    /// The command that runs next to the load.
    pub(crate) beside: Option<Beside>,
    /// Whether other stores are measured, too.
    pub(crate) redis: bool,
    pub(crate) feast: bool,
}

/// One kind of request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) weight: usize,
    pub(crate) service: String,
    /// The number of entities of a request.
    pub(crate) each: usize,
    /// Whether the customers do not exist.
    pub(crate) unknown: bool,
    /// Whether requests include the churn plugin's request input.
    pub(crate) discount: bool,
}

/// The processes of Larder that a benchmark needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostKind {
    /// Everything, with the Rust plugin if there is one.
    Main,
    /// The same churn views without a hot cache.
    Cold,
    /// The churn views with the Python plugin.
    Python,
}

/// A command that runs repeatedly during the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    Sync,
    Deploy,
}

/// The format of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tongue {
    /// For Larder and the floor.
    Http,
    /// For Feast's server: the same format, for few customers.
    Feast,
    Redis,
}

/// Returns all workloads, in the order of the report.
pub(crate) fn workloads() -> Vec<Spec> {
    let churn = || vec![Ask::of(CHURN, 1)];
    let derived = || vec![Ask { discount: true, ..Ask::of(CHURN_DERIVED, 1) }];
    let spec = |name: &str, what: &str, asks: Vec<Ask>| Spec {
        name: name.to_owned(),
        what: what.to_owned(),
        host: HostKind::Main,
        asks,
        beside: None,
        redis: true,
        feast: true,
    };
    let alone = |spec: Spec| Spec { redis: false, feast: false, ..spec };
    vec![
        spec("churn-1", "8 features of 3 views, 1 entity", churn()),
        Spec { redis: false, ..spec("churn-derived-1", "the same and 4 derived features, Rust plugin", derived()) },
        Spec {
            host: HostKind::Python,
            ..alone(spec("churn-derived-py-1", "the same with the plugin in Python", derived()))
        },
        spec("svc50-1", "50 features of 1 view, 1 entity", vec![Ask::of(SVC50, 1)]),
        spec("svc50-100", "50 features of 1 view, 100 entities", vec![Ask::of(SVC50, 100)]),
        spec("svc200-50", "200 features of 4 views, 50 entities", vec![Ask::of(SVC200, 50)]),
        Spec { host: HostKind::Cold, ..alone(spec("cold-1", "churn-1 without the hot cache", churn())) },
        spec("miss", "churn-1 of unknown keys", vec![Ask { unknown: true, ..Ask::of(CHURN, 1) }]),
        spec(
            "mixed",
            "90 % churn-1, 9 % svc50-1, 1 % svc50-100",
            vec![Ask { weight: 90, ..Ask::of(CHURN, 1) }, Ask { weight: 9, ..Ask::of(SVC50, 1) }, Ask::of(SVC50, 100)],
        ),
        Spec { beside: Some(Beside::Sync), ..alone(spec("during-sync", "churn-1 beside full syncs", churn())) },
        Spec {
            beside: Some(Beside::Deploy),
            ..alone(spec("during-deploy", "churn-1 beside deploys of the plugin", churn()))
        },
    ]
}

/// Returns the workloads with these names, in the order of the report; without names, those that `is_meant` selects.
///
/// # Errors
/// An unknown name, with the valid ones.
pub(crate) fn named(names: &[String], is_meant: impl Fn(&Spec) -> bool) -> anyhow::Result<Vec<Spec>> {
    let all: Vec<Spec> = workloads().into_iter().filter(is_meant).collect();
    for name in names {
        if all.iter().all(|spec| spec.name != *name) {
            let known: Vec<_> = all.iter().map(|spec| spec.name.as_str()).collect();
            bail!("there is no workload {name:?} for this, only {}", known.join(", "));
        }
    }
    Ok(all.into_iter().filter(|spec| names.contains(&spec.name)).collect())
}

/// Returns the number of entities and features of each point of the sweeps: 50 features of increasing numbers of
/// entities, and increasing numbers of features of one entity.
pub(crate) fn sweep() -> Vec<(usize, usize)> {
    let entities = [1, 10, 100].map(|entities| (entities, WIDE_FEATURES));
    let features = SWEEP.map(|features| (1, features));
    let mut points = [&entities[..], &features[..]].concat();
    points.sort_unstable();
    points.dedup();
    points
}

/// Returns a point of a sweep.
pub(crate) fn point(entities: usize, features: usize) -> Spec {
    Spec {
        name: format!("{entities}x{features}"),
        what: format!("{features} features, {entities} entities"),
        host: HostKind::Main,
        asks: vec![Ask::of(&wide_service_name(features), entities)],
        beside: None,
        redis: true,
        feast: true,
    }
}

// === impl Ask ===

impl Ask {
    fn of(service: &str, each: usize) -> Self {
        Self { weight: 1, service: service.to_owned(), each, unknown: false, discount: false }
    }

    fn request(&self, tongue: Tongue, services: &[Service], ids: &[String]) -> Request {
        match tongue {
            Tongue::Http | Tongue::Feast => feature_server_request(&self.service, ids, self.discount),
            Tongue::Redis => {
                let found = services.iter().find(|service| service.name == self.service);
                redis_request(found.map_or(&[], |service| &service.parts), ids)
            }
        }
    }
}

// === impl Spec ===

impl Spec {
    /// Returns its requests, encoded.
    pub(crate) fn requests(&self, tongue: Tongue, services: &[Service], keys: Keys) -> Workload {
        let (customers, pool) = match tongue {
            Tongue::Http | Tongue::Redis => (CUSTOMERS, POOL),
            Tongue::Feast => (FEAST_CUSTOMERS, FEAST_POOL),
        };
        let part = |ask: &Ask| {
            let offset = if ask.unknown { BEYOND } else { 0 };
            let entities = Entities { each: ask.each, customers, offset, pool, keys };
            Part::new(ask.weight, &entities, |ids| ask.request(tongue, services, ids))
        };
        Workload::of(self.asks.iter().map(part).collect())
    }

    /// Returns the number of entities and features of a point of a sweep.
    pub(crate) fn size(&self) -> (usize, usize) {
        let (entities, features) = self.name.split_once('x').unwrap_or_default();
        (entities.parse().unwrap_or(0), features.parse().unwrap_or(0))
    }

    /// Checks that the response to its sample is worth measuring: errors and nulls are cheap to serve.
    pub(crate) fn check(&self, captured: &Captured) -> anyhow::Result<()> {
        let features = captured.features;
        let excerpt = || String::from_utf8_lossy(&captured.body[..captured.body.len().min(500)]).into_owned();
        if self.knows_nobody() {
            if features.with_value > 0 {
                bail!("somebody is known who should not be: {}", excerpt());
            }
            return Ok(());
        }
        if features.with_value == 0 || (self.needs_plugin() && features.with_value < features.total) {
            bail!("{} of {} values are there: {}", features.with_value, features.total, excerpt());
        }
        Ok(())
    }

    /// Returns whether it needs the churn plugin.
    pub(crate) fn needs_plugin(&self) -> bool {
        self.asks.iter().any(|ask| ask.discount)
    }

    /// Returns whether the sample should have no values.
    pub(crate) fn knows_nobody(&self) -> bool {
        self.asks.iter().any(|ask| ask.unknown)
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
            for ask in &spec.asks {
                assert!(services.iter().any(|service| service.name == ask.service), "{}", spec.name);
            }
        }
    }

    #[test]
    fn feast_gets_only_known_customers() {
        for spec in workloads().iter().filter(|spec| spec.feast && !spec.knows_nobody()) {
            let workload = spec.requests(Tongue::Feast, &[], Keys::Uniform);
            for request in workload.requests() {
                let text = std::str::from_utf8(&request.bytes).unwrap();
                assert!(text.split("CUST_").skip(1).all(|rest| rest[..6].parse::<u32>().unwrap() <= FEAST_CUSTOMERS));
            }
        }
    }

    #[test]
    fn the_sweep_has_each_point_once() {
        let points = sweep();
        assert_eq!(points.iter().filter(|&&point| point == (1, 50)).count(), 1);
        assert_eq!(points.len(), 7);
        assert!(points.iter().all(|&(entities, features)| point(entities, features).size() == (entities, features)));
    }
}
