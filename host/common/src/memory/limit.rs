//! The memory limit of the process, and its current use.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The default budget is the memory limit divided by this.
const BUDGET_DIVISOR: u64 = 8;
const BUDGET_MIN: u64 = 64 << 20;
const BUDGET_MAX: u64 = 1 << 30;
/// The default budget if no memory limit is known.
const BUDGET_UNKNOWN: u64 = 256 << 20;

/// Returns the memory that this process may use, in bytes: the smallest of the machine's memory and the limits of the
/// process's control groups (version 1 or 2). Returns `None` if the operating system reports none of them.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    limit_below(Path::new("/"))
}

/// Returns the resident memory of the process in bytes. Returns `None` if the operating system does not report it.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    resident_of(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Returns the budget for requests in flight if the configuration does not set one: an eighth of the memory limit, at
/// least 64 MiB and at most 1 GiB; 256 MiB if the limit is unknown.
#[must_use]
pub fn default_budget(limit: Option<u64>) -> u64 {
    limit.map_or(BUDGET_UNKNOWN, |limit| (limit / BUDGET_DIVISOR).clamp(BUDGET_MIN, BUDGET_MAX))
}

fn resident_of(status: &str) -> Option<u64> {
    kilobytes(status, "VmRSS:")
}

/// Reads the limit from the files below a root directory.
fn limit_below(root: &Path) -> Option<u64> {
    let physical = fs::read_to_string(root.join("proc/meminfo")).ok();
    let physical = physical.and_then(|text| kilobytes(&text, "MemTotal:"));
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| group_limits(root, line));
    limits.chain(physical).min()
}

/// Returns the memory limits of the group in one line of `/proc/self/cgroup`, `ID:CONTROLLERS:PATH`, and of all
/// ancestors of the group.
fn group_limits(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { return Vec::new() };
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return Vec::new(),
    };
    let mount = root.join(mount);
    // In a container, the path can be a path of the host, which does not exist in the container. The mount itself is
    // then the directory of the group.
    let mut group: PathBuf = mount.join(path.trim_start_matches('/'));
    let mut limits = Vec::new();
    loop {
        limits.extend(fs::read_to_string(group.join(file)).ok().and_then(|text| text.trim().parse::<u64>().ok()));
        if group == mount || !group.pop() || !group.starts_with(&mount) {
            return limits;
        }
    }
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the limit on a machine of 16 GiB with these files.
    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n")].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        limit_below(root.path())
    }

    #[test]
    fn lowest_limit_of_all_groups_counts() {
        const GIB: u64 = 1 << 30;
        assert_eq!(limit(&[]), Some(16 * GIB), "no group");
        let v2 = ("proc/self/cgroup", "0::/kubepods/pod1/c\n");
        let at = |path: &'static str, limit: &'static str| (path, limit);
        assert_eq!(limit(&[v2, at("sys/fs/cgroup/kubepods/pod1/c/memory.max", "max\n")]), Some(16 * GIB));
        assert_eq!(
            limit(&[
                v2,
                at("sys/fs/cgroup/kubepods/pod1/c/memory.max", "2147483648\n"),
                at("sys/fs/cgroup/kubepods/pod1/memory.max", "1073741824\n"),
            ]),
            Some(GIB),
            "the pod's limit is lower than the container's limit"
        );
        let own = [("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "536870912\n")];
        assert_eq!(limit(&own), Some(GIB / 2), "a container with a namespace of its own");
        assert_eq!(
            limit(&[
                ("proc/self/cgroup", "5:cpu:/docker/x\n4:memory,hugetlb:/docker/x\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
            ]),
            Some(GIB),
            "version 1, with the path of the host"
        );
        let unlimited = [
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(limit(&unlimited), Some(16 * GIB));
    }

    #[test]
    fn budget_follows_the_limit() {
        assert_eq!(default_budget(Some(2 << 30)), 256 << 20);
        assert_eq!(default_budget(Some(100 << 20)), BUDGET_MIN);
        assert_eq!(default_budget(Some(1 << 40)), BUDGET_MAX);
        assert_eq!(default_budget(None), BUDGET_UNKNOWN);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident_of("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(resident_of("Name:\tx\n"), None);
        assert!(resident_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }
}
