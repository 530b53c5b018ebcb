//! `larder serve`: serves features until a signal stops the server.

use std::{net::SocketAddr, process, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use larder_common::{clock::SystemClock, telemetry};
use larder_ingest::LAST_COMMIT_WITHIN;
use larder_model::model::SourceKind;

use super::ConfigArg;
use crate::{
    app::{App, Serving, ShutdownReason, Signals},
    config::{Config, FEAST_VALUES_FROM, Flag, Origin, process_environment},
};

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The address to listen on; overrides the configuration
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The address to serve gRPC on; overrides the configuration
    #[arg(long, value_name = "ADDR")]
    grpc: Option<SocketAddr>,
    /// An alias of --feast-values, for scripts that use `serve --from`
    #[arg(long, hide = true, value_name = "WHERE", value_parser = FEAST_VALUES_FROM.map(|(word, _)| word), conflicts_with = "feast_values")]
    from: Option<String>,
}

/// If a shutdown exceeds the sum of its documented time limits by this much, the watchdog ends the process.
const STUCK_AFTER: Duration = Duration::from_secs(2);

pub(super) fn run(args: &ServeArgs) -> Result<()> {
    let mut config_arg = args.config.clone();
    config_arg.feast_values = config_arg.feast_values.or_else(|| args.from.clone());
    let mut origin = config_arg.origin()?;
    let grpc = args.grpc.map(|address| address.to_string());
    origin.flags.extend(grpc.map(|value| Flag { name: "--grpc", variable: "LARDER_GRPC_LISTEN", value }));
    let config = load(origin, args.listen)?;
    install_telemetry(&config)?;
    let open = move || {
        let (app, warnings) = App::open(config, Arc::new(SystemClock))?;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(app)
    };
    serve_until_stopped(open, |app, serving| {
        announce(app, serving);
        Ok(())
    })
}

/// Reads a configuration. The address from the command line, if there is one, replaces the configured address. It is
/// checked in the same way: other machines can connect only if the configuration allows it.
pub(super) fn load(mut origin: Origin, listen: Option<SocketAddr>) -> Result<Config> {
    let listen = listen.map(|address| address.to_string());
    origin.flags.extend(listen.map(|value| Flag { name: "--listen", variable: "LARDER_SERVER_LISTEN", value }));
    Ok(Config::load_from(&origin, &process_environment)?)
}

pub(super) fn install_telemetry(config: &Config) -> Result<()> {
    telemetry::install_logs(&config.log.level, config.log.format);
    telemetry::install_metrics().map_err(anyhow::Error::msg).context("cannot install metrics")?;
    Ok(())
}

/// Opens the app and serves until a signal to stop arrives, which may also happen during startup. Calls `announce` when
/// the server listens.
pub(super) fn serve_until_stopped(
    open: impl FnOnce() -> Result<Arc<App>> + Send + 'static,
    announce: impl FnOnce(&Arc<App>, &Serving) -> Result<()>,
) -> Result<()> {
    // This runtime runs everything except requests, which have their own threads.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.context("cannot start a runtime")?;
    let ran = runtime.block_on(async {
        // The handlers are installed before anything that can take long, such as reading a registry, opening a large
        // store, or compiling plugins. The first process of a container ignores signals that have no handler.
        let mut signals = Signals::listen()?;
        let opening = tokio::task::spawn_blocking(open);
        let Some(opened) = signals.unless_stopped(opening).await else { return Ok(None) };
        let app = opened.context("startup failed because of a bug in Larder")??;
        let Some(serving) = signals.unless_stopped(app.serve()).await else { return Ok(None) };
        let serving = serving?;
        announce(&app, &serving)?;
        let limits = &app.config().http.limits;
        let bound = limits.drain_delay + limits.connection.drain_timeout + LAST_COMMIT_WITHIN + STUCK_AFTER;
        let reason = serving.run(signals, move || start_watchdog(bound)).await;
        anyhow::Ok(Some((app, reason)))
    });
    // Without a timeout, the shutdown of the runtime would wait until its threads end, and a thread may be waiting for
    // a source.
    let wait = match &ran {
        Ok(Some((app, ShutdownReason::Drained))) => app.last_commit_within(),
        _ => Duration::ZERO,
    };
    runtime.shutdown_timeout(wait);
    match ran? {
        None => tracing::warn!("stopped during startup, before serving requests"),
        Some((_, ShutdownReason::Hurried)) => {
            tracing::warn!("stopped without waiting for open requests, which get no response");
        }
        Some((_, ShutdownReason::Drained)) => {}
    }
    Ok(())
}

/// Starts a thread that ends the process after this time, in case a disk or a bug blocks the shutdown.
fn start_watchdog(bound: Duration) {
    let end = move || {
        thread::sleep(bound);
        tracing::error!(limit = ?bound, "shutdown exceeded its time limit; exiting");
        process::exit(1);
    };
    if let Err(error) = thread::Builder::new().name("end".to_owned()).spawn(end) {
        tracing::warn!(%error, "cannot start the shutdown watchdog; shutdown has no time limit");
    }
}

fn announce(app: &App, serving: &Serving) {
    let snapshot = app.current();
    let catalog = snapshot.catalog();
    let (views, services) = (catalog.views().len(), catalog.services().len());
    let listen = serving.address().map(|address| address.to_string()).unwrap_or_default();
    let http = &app.config().http;
    let (tls, tokens) = (http.tls.is_some(), http.auth.as_ref().map_or(0, |auth| auth.tokens.len()));
    let or_off = |address: Option<SocketAddr>| address.map_or_else(|| "off".to_owned(), |address| address.to_string());
    let (grpc, metrics) = (or_off(serving.grpc_address()), or_off(serving.metrics_address()));
    tracing::info!(listen, tls, tokens, grpc, metrics, project = catalog.project(), views, services, "serving");
    if let Some(feast) = &app.config().feast {
        let sources = catalog.views().iter().filter_map(|view| view.source.as_ref());
        let (from_online_store, from_files): (Vec<_>, Vec<_>) =
            sources.partition(|source| !matches!(source.from, SourceKind::Files(_)));
        let (from_online_store, from_files) = (from_online_store.len(), from_files.len());
        let repo = feast.dir.display();
        tracing::info!(%repo, from_online_store, from_files, "serving the definitions of a Feast repository");
    }
    for (place, view) in catalog.derived_views().iter().enumerate() {
        if snapshot.transforms().get(place).is_none() {
            let (view, plugin) = (&*view.name, &*view.plugin);
            tracing::warn!(
                view,
                plugin,
                "derived view has no plugin yet; its features are INVALID until one is compiled or deployed"
            );
        }
    }
}
