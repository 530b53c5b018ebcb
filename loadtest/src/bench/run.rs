//! Runs a benchmark: starts the servers, and measures one workload after another.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};

use super::{
    RunArgs, agree,
    background::{RepeatedCommand, Runs},
    feast,
    plan::{Plan, TargetKind},
    redis,
    results::{Gathered, Point, Results, WorkloadResult},
    spec::{BackgroundCommand, HostKind, RequestFormat, Spec},
    stage::{Host, Stage},
};
use crate::{
    cores::Cores,
    definitions::{Service, View, churn_service, churn_views, wide_services, wide_views},
    endpoint::SocketKind,
    floor,
    load::Tally,
    measure::{Effort, measure},
    server::Server,
    target::{Captured, Target},
    workload::Workload,
};

/// A running benchmark: its servers, and the results so far.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    args: &'a RunArgs,
    plan: Plan,
    cores: Cores,
    stage: Stage,
    hosts: Vec<Host>,
    redis: Option<Server>,
    feast: Option<Server>,
    services: Vec<Service>,
    versions: Vec<String>,
    results: Results,
}

/// A server on which a workload is measured, with the requests and the effort.
#[derive(Debug)]
struct TargetRun {
    target: Target,
    workload: Arc<Workload>,
    effort: Effort,
    rounds: u64,
}

// === impl Run ===

impl<'a> Run<'a> {
    /// Generates the data, and starts the servers that these workloads and targets need. Records missing programs and
    /// plugins in the results.
    pub(crate) async fn set_up(
        args: &'a RunArgs,
        dir: &Path,
        cores: Cores,
        specs: &[Spec],
        targets: &[TargetKind],
    ) -> anyhow::Result<Self> {
        let mut results = Results::default();
        let mut plugin = |path: &Option<PathBuf>, name: &str, project: &str| {
            let found = path.as_ref().filter(|path| path.is_file());
            if found.is_none() {
                let why = format!("no built plugin. hint: run larder plugin build {project}, then set --{name} FILE");
                results.add_absent(&format!("workloads with {name}"), why);
            }
            found.cloned()
        };
        let plugins = (
            plugin(&args.plugin, "plugin", "plugins/examples/churn"),
            plugin(&args.python_plugin, "python-plugin", "plugins/examples/churn-python"),
        );
        eprintln!("generating data and starting larder");
        let stage = Stage::set_up(dir, &args.larder, plugins, args.socket, cores).await?;
        let services = [vec![churn_service()], wide_services()].concat();
        let versions = version_of(&args.larder, &["--version"]).into_iter().collect();
        let mut run = Self {
            args,
            plan: args.plan(),
            cores,
            stage,
            hosts: Vec::new(),
            redis: None,
            feast: None,
            services,
            versions,
            results,
        };
        for kind in [HostKind::Main, HostKind::Cold, HostKind::Python] {
            let needed = kind == HostKind::Main || specs.iter().any(|spec| spec.host == kind);
            if needed && (kind != HostKind::Python || run.stage.has_plugin(kind)) {
                let host = run.stage.host(kind).await?;
                run.hosts.push(host);
            }
        }
        if targets.contains(&TargetKind::Redis) {
            run.start_redis().await;
        }
        if targets.contains(&TargetKind::Feast) {
            run.start_feast().await;
        }
        Ok(run)
    }

    pub(crate) fn versions(&self) -> Vec<String> {
        self.versions.clone()
    }

    pub(crate) fn results(&self) -> Results {
        self.results.clone()
    }

    /// Measures a workload on every target that supports it, and records the result or the failure.
    pub(crate) async fn workload(&mut self, spec: &Spec) {
        if let Some(why) = self.missing(spec) {
            eprintln!("  not measured: {why}");
            self.results.add_absent(&spec.name, why);
            return;
        }
        let plan = self.plan;
        let effort = |target| (plan.rounds_of(target), plan.workload(spec, target));
        match self.measure(spec, &effort).await {
            Ok(result) => self.results.workloads.push(result),
            Err(error) => self.failed(spec, &error),
        }
    }

    /// Measures a point of the sweep, and records the result or the failure.
    pub(crate) async fn point(&mut self, spec: &Spec) {
        let plan = self.plan;
        match self.measure(spec, &|target| (1, plan.point(target))).await {
            Ok(result) => {
                let (entities, features) = spec.size();
                self.results.sweep.push(Point { entities, features, result });
            }
            Err(error) => self.failed(spec, &error),
        }
    }

    async fn start_redis(&mut self) {
        const INSTALL: &str = "hint: run apt-get install redis-server, then set --redis PATH";
        let Some(program) = &self.args.redis else {
            return self.results.add_absent("redis", format!("no redis-server program. {INSTALL}"));
        };
        eprintln!("starting redis and writing rows");
        let filled = async {
            let server = redis::start(program, self.stage.dir(), self.args.socket, self.cores).await?;
            redis::fill(server.endpoint(), &self.stage.data(), &all_views()).await?;
            anyhow::Ok(server)
        };
        match filled.await {
            Ok(server) => {
                self.versions.extend(version_of(program, &["--version"]));
                self.redis = Some(server);
            }
            Err(error) => self.results.add_absent("redis", format!("{error:#}. {INSTALL}")),
        }
    }

    async fn start_feast(&mut self) {
        const INSTALL: &str = "hint: run pip install -r host/tests/feast/requirements.txt in a virtual environment, \
                               then set --feast PATH";
        let Some(program) = &self.args.feast else {
            return self.results.add_absent("feast", format!("no feast program. {INSTALL}"));
        };
        eprintln!("creating a Feast repository and starting feast serve");
        let started = async {
            let program = feast::absolute(program)?;
            let repo = self.stage.dir().join("feast");
            feast::make_repo(&program, &repo, &self.stage.data(), &all_views(), &self.services)?;
            let server = feast::serve(&program, &repo, self.cores).await?;
            anyhow::Ok((server, feast::version(&program)))
        };
        match started.await {
            Ok((server, version)) => {
                self.versions.push(format!("feast {}", version.as_deref().unwrap_or("(unknown version)")));
                if self.args.socket == SocketKind::Unix {
                    let why = "its server does not support it, so it was measured over TCP";
                    self.results.add_absent("feast over a Unix socket", why);
                }
                self.feast = Some(server);
            }
            Err(error) => self.results.add_absent("feast", format!("{error:#}. {INSTALL}")),
        }
    }

    /// Returns the reason why a workload cannot be measured on any target, or `None` if it can be measured.
    fn missing(&self, spec: &Spec) -> Option<String> {
        let plugin =
            spec.host == HostKind::Python || spec.background == Some(BackgroundCommand::Deploy) || spec.needs_plugin();
        (plugin && !self.stage.has_plugin(spec.host)).then(|| "the option with its plugin is not set".to_owned())
    }

    fn failed(&mut self, spec: &Spec, error: &anyhow::Error) {
        eprintln!("  FAILED: {error:#}");
        self.results.add_absent(&spec.name, format!("it failed: {error:#}"));
        let first_failure = Some(format!("{}: {error:#}", spec.name));
        self.results.add_failures(&Tally { failures: 1, first_failure, ..Tally::default() });
    }

    /// Compares the servers' responses to the sample request, and then measures the servers. `effort_for` returns the
    /// number of rounds and the effort for a target.
    async fn measure(
        &mut self,
        spec: &Spec,
        effort_for: &dyn Fn(TargetKind) -> (u64, Effort),
    ) -> anyhow::Result<WorkloadResult> {
        let host = self.hosts.iter().find(|host| host.kind == spec.host).context("its Larder server is not running")?;
        let larder = Target::of_server("larder", &host.server);
        let http = Arc::new(spec.requests(RequestFormat::Http, &self.services, self.args.keys));
        let mut bodies = Vec::new();
        for part in http.parts() {
            bodies.push(larder.body_of(part.sample()).await?);
        }
        let captured = larder.capture(http.sample()).await?;
        spec.check(&captured).map_err(|error| anyhow!("{error:#}; {}", host.server.output_tail()))?;
        let answers: Vec<_> =
            http.parts().iter().map(|part| part.sample()).zip(bodies.iter().map(Vec::as_slice)).collect();
        let floor = floor::start(&answers, self.stage.dir(), self.args.socket, self.cores).await?;
        let target_run = |target: Target, kind, workload: &Arc<Workload>| {
            let (rounds, effort) = effort_for(kind);
            (kind, TargetRun { target, workload: Arc::clone(workload), effort, rounds })
        };
        let mut target_runs = vec![
            target_run(Target::of_server("floor", &floor), TargetKind::Floor, &http),
            target_run(larder, TargetKind::Larder, &http),
        ];
        let mut result = WorkloadResult {
            name: spec.name.clone(),
            what: spec.what.clone(),
            sample_body_bytes: captured.body.len(),
            sample_values: captured.features.total,
            sample_values_present: captured.features.with_value,
            ..WorkloadResult::default()
        };
        if let Some(server) = self.redis.as_ref().filter(|_| spec.redis) {
            let workload = Arc::new(spec.requests(RequestFormat::Redis, &self.services, self.args.keys));
            let target = Target::of_server("redis", server);
            result.agreement.push(agree_with_redis(&target, &workload, &captured).await);
            target_runs.push(target_run(target, TargetKind::Redis, &workload));
        }
        if let Some(server) = self.feast.as_ref().filter(|_| spec.feast) {
            let workload = Arc::new(spec.requests(RequestFormat::Feast, &self.services, self.args.keys));
            let target = Target::of_server("feast", server);
            result.agreement.push(agree_with_feast(&target, &http, &captured).await);
            target_runs.push(target_run(target, TargetKind::Feast, &workload));
        }
        let (gathered, tally, runs) = self.rounds(spec, host, &target_runs).await?;
        result.set_targets(gathered);
        result.background = spec.background.map(|background| runs.describe(background)).transpose()?;
        self.results.add_failures(&tally);
        Ok(result)
    }

    /// Measures the servers in all rounds.
    async fn rounds(
        &self,
        spec: &Spec,
        host: &Host,
        target_runs: &[(TargetKind, TargetRun)],
    ) -> anyhow::Result<(Vec<Gathered>, Tally, Runs)> {
        let mut gathered: Vec<_> = target_runs.iter().map(|(kind, _)| Gathered::of(*kind)).collect();
        let (mut tallies, mut runs) = (Vec::new(), Runs::default());
        for round in 0..target_runs.iter().map(|(_, run)| run.rounds).max().unwrap_or(0) {
            // The order alternates, so that a machine that gets slower or faster does not favor any target.
            let mut order: Vec<_> =
                (0..target_runs.len()).filter(|&index| round < target_runs[index].1.rounds).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let (kind, run) = &target_runs[index];
                let background = spec.background.filter(|_| *kind == TargetKind::Larder);
                let repeated = background
                    .map(|background| RepeatedCommand::start(self.stage.background(host, background), self.cores));
                let measured = measure(&run.target, &run.workload, &run.effort, round).await;
                if let Some(repeated) = repeated {
                    runs = runs.and(repeated.end());
                }
                let measured = measured.with_context(|| format!("{} in round {}", kind.name(), round + 1))?;
                tallies.push(measured.tally.clone());
                eprintln!(
                    "  round {} {:<7}{:>9.0} req/s {:>9.2} us cpu {:>9.1} us p99",
                    round + 1,
                    kind.name(),
                    measured.figures.requests_per_s,
                    measured.figures.cpu_us_per_request,
                    measured.figures.p99_us
                );
                gathered[index].add(measured)?;
            }
        }
        Ok((gathered, tallies.into_iter().collect(), runs))
    }
}

// === impl Runs ===

impl Runs {
    fn and(self, more: Self) -> Self {
        Self { done: self.done + more.done, failed: self.failed.or(more.failed) }
    }

    fn describe(&self, background: BackgroundCommand) -> anyhow::Result<String> {
        let what = match background {
            BackgroundCommand::Sync => "full syncs of the three churn views",
            BackgroundCommand::Deploy => "deployments of the churn plugin",
        };
        match &self.failed {
            Some(failed) => bail!("{what}: a run failed: {failed}"),
            None => Ok(format!("{} {what}", self.done)),
        }
    }
}

async fn agree_with_feast(feast: &Target, http: &Workload, captured: &Captured) -> String {
    let compared = async {
        let theirs = feast.body_of(http.sample()).await?;
        agree::compare(&captured.body, &theirs)
    };
    match compared.await {
        Ok(same) => format!("Feast returns the same {} values", same.values),
        Err(error) => format!("FEAST DIFFERS: {error:#}"),
    }
}

async fn agree_with_redis(server: &Target, workload: &Workload, captured: &Captured) -> String {
    let body = match server.body_of(workload.sample()).await {
        Ok(body) => body,
        Err(error) => return format!("REDIS DIFFERS: no response: {error:#}"),
    };
    match redis::count(&body, workload.sample()) {
        Some((values, _)) if values == captured.features.with_value => {
            format!("Redis returns the same number of values: {values}")
        }
        Some((values, _)) => format!("REDIS DIFFERS: {values} values instead of {}", captured.features.with_value),
        None => "REDIS DIFFERS: the response is invalid or incomplete".to_owned(),
    }
}

fn all_views() -> Vec<View> {
    [churn_views(), wide_views()].concat()
}

/// Returns the first line of a program's version output.
fn version_of(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(|line| line.trim().to_owned())
}

/// Returns the processor's model and the kernel.
pub(crate) fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{}, Linux {}", model.unwrap_or("unknown processor"), kernel.trim())
}
