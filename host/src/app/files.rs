//! The limit on open files and sockets, and how many of them connections may use.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of open files reserved for everything except client connections: the store, sources, AWS, plugins, the
/// log, runtimes, and the connections to the metrics and admin listeners.
const OTHER_FILES: u64 = 512;

/// The maximum number of connections to the metrics listener, and to the admin socket, which serve probes, scrapes and
/// commands.
pub(super) const CONTROL_CONNECTIONS_MAX: usize = 128;
/// The maximum idle time of a connection to the admin socket.
pub(super) const ADMIN_IDLE_MAX: Duration = Duration::from_secs(10);

/// Raises the soft limit on open files to the hard limit. Returns the limit in effect, or `None` if it is unlimited.
pub(super) fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // If the operating system rejects the change, the soft limit stays in effect.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current
}

/// Returns how many connections each listener can have, up to `wanted`, if [`OTHER_FILES`] files are reserved for
/// everything else. `files` is the limit on open files, or `None` if it is unlimited; then returns `wanted`.
pub(super) fn fit_connections(wanted: usize, listeners: usize, files: Option<u64>) -> usize {
    let Some(files) = files else { return wanted };
    // If the limit is low, only half of it is reserved.
    let for_clients = files.saturating_sub(OTHER_FILES).max(files / 2);
    let each = for_clients / listeners.max(1) as u64;
    wanted.min(usize::try_from(each).unwrap_or(wanted)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_rest() {
        assert_eq!(fit_connections(10_000, 1, None), 10_000);
        assert_eq!(fit_connections(10_000, 3, Some(1 << 20)), 10_000);
        assert_eq!(fit_connections(10_000, 1, Some(1_024)), 512);
        assert_eq!(fit_connections(10_000, 2, Some(4_096)), 1_792);
        assert_eq!(fit_connections(10_000, 2, Some(64)), 16);
        assert_eq!(fit_connections(5, 2, Some(4_096)), 5);
    }

    #[test]
    fn soft_limit_is_raised_to_hard_limit() {
        let raised = raise_file_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!((raised, limit.current), (limit.maximum, limit.maximum));
    }
}
