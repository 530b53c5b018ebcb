//! The server's interfaces for its listeners: renewing definitions for a request, and the commands of the admin socket.

use std::time::Duration;

use larder_captures::SampleRequest;
use larder_http::{
    AdminEvent, CaptureCommand, CaptureReport, Control, DeleteCommand, DeployReport, EraseReport, PastVersion,
    PluginStatus, PromoteCommand, ResetCommand, RolloutReport, RolloutStatus, SyncCommand,
};
use larder_model::model::Rfc3339;
use larder_serving::RenewDefinitions;

use super::{App, Reloaded, loads, plugins::Plugins};

/// The error message for plugin commands if the server runs no plugins.
const NO_PLUGINS: &str =
    "this server runs no plugins: 'plugins: dir' is off, or plugins cannot run here; see the server's log";

/// The maximum duration of a capture that a command starts.
const CAPTURE_MAX: Duration = Duration::from_hours(24);

// === impl App ===

impl RenewDefinitions for App {
    fn renew(&self, caller_allows_cache: bool) -> bool {
        let always = self.forbids_cached();
        // If automatic reloads are off, a request causes no reload, even if its caller does not allow cached
        // definitions. A repository that forbids caching takes precedence.
        if !always && (caller_allows_cache || self.reload_every().is_zero()) {
            return false;
        }
        let _renewing = self.renewing();
        if !self.seen.differ(self.definition_files()) && !self.remote_registry_changed() {
            return false;
        }
        match self.read_definitions() {
            Ok(warnings) => {
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                tracing::info!(why = "a request needs the current definitions", "definitions reloaded");
                true
            }
            Err(error) => {
                let error = error.brief();
                tracing::error!("reload failed; keeping the previous definitions:\n{error}");
                false
            }
        }
    }

    fn forbids_cached(&self) -> bool {
        self.cache.load().as_ref().is_some_and(|cache| !cache.allowed)
    }
}

impl Control for App {
    fn sync(&self, command: &SyncCommand, notify: &mut dyn FnMut(AdminEvent)) {
        loads::sync(&self.engine.load_full(), command, notify);
    }

    fn reload(&self) -> Result<String, String> {
        let Reloaded { definitions, access } = self.reload_all();
        match (definitions, access) {
            (Ok(definitions), Ok(access)) if definitions.is_empty() && access.is_empty() => Ok("reloaded".to_owned()),
            (Ok(definitions), Ok(access)) => {
                let lines: Vec<String> = definitions.iter().chain(&access).map(ToString::to_string).collect();
                Ok(format!("reloaded, with warnings:\n{}", lines.join("\n")))
            }
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error.brief()),
            (Err(definitions), Err(access)) => Err(format!("{}\n{}", definitions.brief(), access.brief())),
        }
    }

    fn delete(&self, command: &DeleteCommand) -> Result<EraseReport, String> {
        let was_there = self.engine.load().delete(&command.view, &command.key).map_err(|error| error.to_string())?;
        Ok(EraseReport { rows: u64::from(was_there) })
    }

    fn reset(&self, command: &ResetCommand) -> Result<EraseReport, String> {
        let rows = self.engine.load().reset(&command.view, command.confirmed).map_err(|error| error.to_string())?;
        Ok(EraseReport { rows })
    }

    fn deploy(&self, file: &[u8], force: bool) -> Result<DeployReport, String> {
        let plugins = self.plugins.get().ok_or(NO_PLUGINS)?;
        let deployed = self.deploy_file(plugins, file, None, force);
        plugins.note(None, &deployed);
        deployed.map_err(|error| error.to_string())
    }

    fn deploy_shadow(&self, file: &[u8], ratio: f64, force: bool) -> Result<RolloutStatus, String> {
        let plugins = self.plugins.get().ok_or(NO_PLUGINS)?;
        self.deploy_shadow_file(plugins, file, ratio, force).map_err(|error| error.to_string())
    }

    fn promote(&self, plugin: &str, command: &PromoteCommand) -> Result<RolloutStatus, String> {
        let plugins = self.plugins.get().ok_or(NO_PLUGINS)?;
        let _changing = self.changing();
        let promoted = plugins.promote(plugin, command, self.current.load().catalog());
        // A candidate may be live although a later step failed.
        self.swap_plugins(plugins);
        promoted.map_err(|error| error.to_string())
    }

    fn plugin_diff(&self, plugin: &str) -> Result<RolloutReport, String> {
        let plugins = self.plugins.get().ok_or(NO_PLUGINS)?;
        plugins.diff(plugin).map_err(|error| error.to_string())
    }

    fn roll_back(&self, plugin: &str, version: Option<&str>) -> Result<DeployReport, String> {
        let plugins = self.plugins.get().ok_or(NO_PLUGINS)?;
        // Compilation can take minutes, so the lock is taken after it.
        let chosen = version.map(|version| plugins.choose(plugin, version)).transpose();
        let chosen = chosen.map_err(|error| error.to_string())?;
        let _changing = self.changing();
        let rolled_back = plugins.roll_back(plugin, chosen, self.current.load().catalog());
        let (report, restored) = rolled_back.map_err(|error| error.to_string())?;
        self.swap_plugins(plugins);
        // Files are written last, so that a rollback from a bad version takes effect even if the disk is full or slow.
        let listed = plugins.write_ended(plugin);
        let written = restored.map_or(Ok(()), |restored| plugins.write_restored(restored));
        written.and(listed).map_err(|error| error.to_string())?;
        Ok(report)
    }

    fn plugins(&self) -> Vec<PluginStatus> {
        self.plugins.get().map(Plugins::list).unwrap_or_default()
    }

    fn plugin_history(&self, plugin: &str) -> Result<Vec<PastVersion>, String> {
        let plugins = self.plugins.get().ok_or(NO_PLUGINS)?;
        plugins.history(plugin).map_err(|error| error.to_string())
    }

    fn capture(&self, plugin: &str, command: &CaptureCommand) -> Result<CaptureReport, String> {
        let plugins = self.plugins.get().ok_or(NO_PLUGINS)?;
        let CaptureCommand { sample, seconds, rows } = *command;
        if !(0.0..=1.0).contains(&sample) {
            return Err(format!(
                "'sample' is {sample}, but must be from 0 to 1. hint: 0.01 is a hundredth of the calls"
            ));
        }
        let duration = Duration::from_secs(seconds);
        if duration > CAPTURE_MAX {
            let max = CAPTURE_MAX.as_secs();
            return Err(format!(
                "'seconds' is {seconds}, but must be at most {max}. hint: set 'plugins: captures: sample' for a permanent \
                 sample"
            ));
        }
        let until = plugins.capture(plugin, &SampleRequest { sample, duration, rows });
        let until = until
            .ok_or_else(|| format!("plugin '{plugin}' is not live. hint: `larder plugin list` prints the plugins"))?;
        let directory = self.config.plugins.captures_dir.join(plugin);
        Ok(CaptureReport {
            plugin: plugin.to_owned(),
            directory: directory.display().to_string(),
            until: Rfc3339::of(until).as_str().to_owned(),
        })
    }

    fn plugin_bytes_max(&self) -> usize {
        let max = self.plugins.get().map_or(0, Plugins::file_bytes_max);
        usize::try_from(max).unwrap_or(usize::MAX)
    }
}
