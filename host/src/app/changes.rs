//! Reacts to changes to files and to a registry in S3: reloads definitions, keys, tokens and plugins, and records which
//! sources changed.

use std::{sync::Arc, time::Duration};

use larder_common::{
    clock::next_beat,
    files::{FileStamps, stamps},
    watch::RECHECK_EVERY,
};
use larder_model::yaml::Problem;
use larder_source::aws::ObjectAt;
use metrics::{describe_gauge, gauge};
use tokio::time::{sleep, sleep_until};

use super::{
    App, AppError, Reloaded,
    plugins::{CHECK_EVERY, Loading, Plugins},
};

/// The poll interval of the plugin directory if file system events do not cover it. It is short, so that a plugin that
/// compiles quickly is used within two seconds of the arrival of its file.
const PLUGINS_EVERY: Duration = Duration::from_millis(300);

/// The minimum time from the end of a reload to the next check of the files, which limits the rate of reloads if files
/// change continuously. If `reload: every` is shorter, that interval applies instead.
const RELOAD_PAUSE: Duration = Duration::from_millis(500);

/// The results of rollouts are written after this many checks.
const ROLLOUTS_SAVED_EVERY: u64 = 15;

/// Reloads definitions, configuration, keys and tokens, and logs the result. If a part cannot be reloaded, its previous
/// state stays in use.
pub(super) async fn reload(app: &Arc<App>, why: &'static str) {
    let reloading = Arc::clone(app);
    let reloaded = tokio::task::spawn_blocking(move || reloading.reload_all()).await;
    let Reloaded { definitions, access } = match reloaded {
        Ok(reloaded) => reloaded,
        Err(error) => {
            tracing::error!(why, %error, "reload failed because of a bug in Larder");
            return;
        }
    };
    note_access(app, why, access);
    match definitions {
        Ok(warnings) => {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            tracing::info!(why, "definitions reloaded");
        }
        Err(error) => {
            let error = error.brief();
            tracing::error!(why, "reload failed; keeping the previous definitions:\n{error}");
        }
    }
}

/// Reloads only keys and tokens. Definitions are not reloaded, because a reload of definitions syncs all views.
async fn renew(app: &Arc<App>, why: &'static str) {
    let renewing = Arc::clone(app);
    match tokio::task::spawn_blocking(move || renewing.renew_access(None)).await {
        Ok(access) => note_access(app, why, access),
        Err(error) => tracing::error!(why, %error, "reload failed because of a bug in Larder"),
    }
}

fn note_access(app: &App, why: &'static str, access: Result<Vec<Problem>, AppError>) {
    describe_gauge!(
        "larder_access_last_reload_success",
        "1 if the last reload of keys and tokens succeeded, 0 if it failed."
    );
    if app.access_files().is_empty() && access.as_ref().is_ok_and(Vec::is_empty) {
        return;
    }
    gauge!("larder_access_last_reload_success").set(if access.is_ok() { 1.0 } else { 0.0 });
    match access {
        Ok(warnings) => {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            tracing::info!(why, "keys and tokens reloaded");
        }
        Err(error) => tracing::error!(why, "reload of keys or tokens failed; keeping the previous ones:\n{error}"),
    }
}

/// Reloads definitions, configuration, keys and tokens when their files change. File system events only wake this task,
/// which compares the stamps of the files to detect changes.
pub(super) async fn watch_files(app: Arc<App>) {
    if app.reload_every().is_zero() {
        return;
    }
    let changes = Arc::new(app.watcher.subscribe());
    let check = || {
        let (app, changes) = (Arc::clone(&app), Arc::clone(&changes));
        // The check runs on another thread, because a file system that hangs must not block the async thread, which
        // receives signals.
        tokio::task::spawn_blocking(move || {
            let (definitions, access) = (app.definition_files(), app.access_files());
            // Watch first, so that no change between the check and the watch is missed.
            changes.watch(definitions.iter().chain(&access));
            (app.seen.differ(definitions), app.access_changed())
        })
    };
    loop {
        // The panic hook has already logged a panic of the task.
        if let Ok((definitions, access)) = check().await {
            if definitions {
                reload(&app, "a file changed").await;
            } else if access {
                renew(&app, "a file changed").await;
            }
            if definitions || access {
                // The new configuration may name other files, which are not watched yet.
                sleep(RELOAD_PAUSE.min(app.reload_every())).await;
                continue;
            }
        }
        let every = app.definitions_every(app.reload_every());
        if every > RECHECK_EVERY {
            // With such a long interval, cached definitions are intended, so file system events do not shorten it.
            sleep(every).await;
        } else {
            changes.changed(every).await;
        }
    }
}

/// Compiles the plugins that were present at startup. Then checks the plugin directory when it changes, and
/// periodically.
pub(super) async fn watch_plugins(app: Arc<App>) {
    let compiling = Arc::clone(&app);
    // The panic hook has already logged a panic of the task.
    let _ = tokio::task::spawn_blocking(move || compiling.compile_plugins()).await;
    app.current.readiness().set_awaits_plugins(false);
    if app.reload_every().is_zero() || app.plugins.get().is_none() {
        return;
    }
    let changes = Arc::new(app.watcher.subscribe());
    loop {
        let (checking, watching) = (Arc::clone(&app), Arc::clone(&changes));
        let check = move || {
            watching.watch(checking.plugins.get().map(Plugins::watched_paths).unwrap_or_default());
            checking.check_plugin_dir(Loading::Compiled);
        };
        let _ = tokio::task::spawn_blocking(check).await;
        changes.changed(PLUGINS_EVERY.min(app.reload_every())).await;
    }
}

/// Checks rollouts every second while one is running, and writes their results from time to time.
pub(super) async fn watch_rollouts(app: Arc<App>) {
    let mut checks: u64 = 0;
    loop {
        let checking = Arc::clone(&app);
        let is_saved = checks % ROLLOUTS_SAVED_EVERY == ROLLOUTS_SAVED_EVERY - 1;
        let check = move || {
            let is_running = checking.check_rollouts();
            if is_saved {
                checking.plugins.get().iter().for_each(|plugins| plugins.save_rollouts());
            }
            is_running
        };
        checks += 1;
        // The panic hook has already logged a panic of the task.
        if tokio::task::spawn_blocking(check).await.unwrap_or(true) {
            sleep(CHECK_EVERY).await;
        } else {
            app.rollouts_changed.notified().await;
        }
    }
}

/// Watches the files of sources, so that the scheduler does not have to sync their views to detect changes.
pub(super) async fn watch_sources(app: Arc<App>) {
    let changes = Arc::new(app.watcher.subscribe());
    let mut before = FileStamps::new();
    loop {
        let files = app.engine.load().watched_files();
        if files.is_empty() {
            // A reload may add sources with files.
            sleep_until(next_beat(RECHECK_EVERY).into()).await;
            continue;
        }
        let (watching, watched) = (Arc::clone(&changes), files.clone());
        let check = move || {
            watching.watch(&watched);
            (watching.is_covered(), stamps(watched))
        };
        // The panic hook has already logged a panic of the task.
        let (is_covered, now) = tokio::task::spawn_blocking(check).await.unwrap_or_default();
        app.scheduler.set_watched_files(if is_covered { files } else { Vec::new() });
        if now != before {
            app.scheduler.note_changed_files();
        }
        before = now;
        changes.changed(RECHECK_EVERY).await;
    }
}

/// Polls the version of a registry in S3, and reloads definitions if it changed.
pub(super) async fn watch_registry(app: Arc<App>) {
    if app.reload_every().is_zero() {
        return;
    }
    // The last version for which a reload was tried. It prevents reading a rejected version again at every poll.
    let mut tried: Option<(ObjectAt, String)> = None;
    loop {
        sleep(app.definitions_every(app.config.sync.registry_every)).await;
        let Some(registry) = app.registry.load_full() else { continue };
        let object = registry.at.clone();
        let aws = Arc::clone(&app.aws);
        // The async thread must not wait for S3.
        let version = match tokio::task::spawn_blocking(move || object.version(&aws)).await {
            Ok(Ok(version)) => version,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot read the registry; keeping the previous definitions");
                continue;
            }
            Err(_) => continue,
        };
        if registry.version.as_ref() == Some(&version) {
            continue;
        }
        let now = Some((registry.at.clone(), version));
        // If there is no version, the definitions are from the local copy, because the registry could not be read.
        if registry.version.is_none() || tried != now {
            reload(&app, "the registry changed").await;
            tried = now;
        }
    }
}
