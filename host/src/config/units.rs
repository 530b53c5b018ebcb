//! Units and bounds that several sections use.

use std::time::Duration;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const TIB: u64 = 1 << 40;

/// The minimum of timeouts. Shorter timeouts would disconnect healthy clients.
pub(super) const TIMEOUT_MIN: Duration = Duration::from_millis(100);
pub(super) const HOUR: Duration = Duration::from_hours(1);

/// The maximum size in bytes of a configuration file or a definition file.
pub(super) const TEXT_BYTES_MAX: u64 = 64 << 20;

/// Converts a size in bytes to `usize`. A size beyond the address space becomes `usize::MAX`.
pub(super) fn memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
