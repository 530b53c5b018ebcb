//! Reads process information from the kernel: CPU time, memory, and child processes.

use std::{collections::BTreeMap, ffi::OsString, fs, time::Duration};

use anyhow::Context;
use rustix::param::clock_ticks_per_second;

/// The CPU time of each thread of some processes so far, by thread ID.
#[derive(Clone, Debug)]
pub(crate) struct RunTimes(BTreeMap<OsString, Duration>);

/// The name of the thread that computes shadow runs. It has the lowest priority.
const SHADOW_THREAD: &str = "plugin-shadow";

// === impl RunTimes ===

impl RunTimes {
    /// Reads the times of all threads, except the one that computes shadow runs of plugins.
    pub(crate) fn read(pids: &[u32]) -> anyhow::Result<Self> {
        let mut times = BTreeMap::new();
        for pid in pids {
            let schedules = schedules_of(*pid)
                .with_context(|| format!("cannot read the schedstat of process {pid}; the server may have exited"))?;
            times.extend(schedules.into_iter().map(|(thread, schedule)| (thread, schedule.ran)));
        }
        Ok(Self(times))
    }

    /// Returns the CPU time since `before`. The difference is computed for each thread, so that a thread that ended
    /// meanwhile does not reduce the result.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let spent = |(thread, ran): (&OsString, &Duration)| {
            ran.saturating_sub(before.0.get(thread).copied().unwrap_or_default())
        };
        self.0.iter().map(spent).sum()
    }
}

/// Returns the total CPU time that all threads of these processes have used so far, in user space and in the kernel.
pub(crate) fn cpu_time(pids: &[u32]) -> anyhow::Result<Duration> {
    pids.iter().map(|&pid| cpu_time_of(pid)).sum()
}

/// Returns the total time that the threads of these processes were runnable and waited for a core. Returns `None` if a
/// process has ended, or if the kernel does not record this time.
pub(crate) fn time_without_core(pids: &[u32]) -> Option<Duration> {
    pids.iter()
        .map(|&pid| Some(schedules_of(pid)?.into_values().map(|schedule| schedule.waited).sum::<Duration>()))
        .sum()
}

/// Returns the total resident memory of these processes in bytes. Memory that they share is counted for each process.
pub(crate) fn resident_bytes(pids: &[u32]) -> Option<u64> {
    pids.iter().map(|pid| resident(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)).sum()
}

/// Returns a process and all its descendants.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(process.path().join("stat")).ok()?;
            Some((pid, parent(&stat)?))
        })
        .collect();
    descend(pid, &parents)
}

fn cpu_time_of(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}; the server may have exited"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("cannot parse {path}: {stat:?}"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
}

/// The scheduler's counts for a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Schedule {
    ran: Duration,
    /// The time that the thread was runnable and waited for a core.
    waited: Duration,
}

/// Returns the counts of all threads of a process except [`SHADOW_THREAD`], by thread ID. Returns `None` if the process has ended, or if the
/// kernel does not keep these counts.
fn schedules_of(pid: u32) -> Option<BTreeMap<OsString, Schedule>> {
    let mut schedules = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // A thread that ends meanwhile has no directory entry, no file, or an empty file.
        let Ok(thread) = thread else { continue };
        if fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim_end() == SHADOW_THREAD) {
            continue;
        }
        let counts = fs::read_to_string(thread.path().join("schedstat")).ok().and_then(|text| schedule(&text));
        schedules.extend(counts.map(|counts| (thread.file_name(), counts)));
    }
    (!schedules.is_empty()).then_some(schedules)
}

/// Parses the first two fields of a `schedstat` file, which are nanoseconds.
fn schedule(schedstat: &str) -> Option<Schedule> {
    let mut fields = schedstat.split_ascii_whitespace().map(|field| field.parse().ok().map(Duration::from_nanos));
    Some(Schedule { ran: fields.next()??, waited: fields.next()?? })
}

/// Returns the sum of `utime` and `stime`, the 14th and 15th fields of a `stat` file. The 2nd field is the process name
/// in parentheses, which may contain any characters.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, from_state) = stat.rsplit_once(") ")?;
    let mut fields = from_state.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Returns the ID of the parent process, the 4th field of a `stat` file.
fn parent(stat: &str) -> Option<u32> {
    let (_, from_state) = stat.rsplit_once(") ")?;
    from_state.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Returns the resident memory in bytes, from the line `VmRSS:   1234 kB` of a `status` file.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

fn descend(pid: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(parents.iter().filter(|&&(_, parent)| parent == pid).map(|&(child, _)| child));
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4711 (a ) 1 2 (b) S 17 4711 4711 0 -1 4194304 2310 0 5 0 123 45 6 7 20 0 3 0 89 1 2 3";

    #[test]
    fn process_name_does_not_shift_fields() {
        assert_eq!((cpu_ticks(STAT), parent(STAT)), (Some(123 + 45), Some(17)));
        assert_eq!(cpu_ticks("4711 (short) S 1 2 3"), None);
    }

    #[test]
    fn scheduler_counts_are_nanoseconds() {
        let nanos = Duration::from_nanos;
        assert_eq!(schedule("9000000001 250 77\n"), Some(Schedule { ran: nanos(9_000_000_001), waited: nanos(250) }));
        assert_eq!(schedule("9000000001\n"), None);
    }

    #[test]
    fn ended_thread_does_not_affect_others() {
        let times = |times: &[(&str, u64)]| {
            RunTimes(times.iter().map(|(thread, ran)| (thread.into(), Duration::from_nanos(*ran))).collect())
        };
        let (before, after) = (times(&[("1", 900), ("2", 50)]), times(&[("2", 70), ("3", 5)]));
        assert_eq!(after.since(&before), Duration::from_nanos(25));
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(resident("Name:\tlarder\nVmHWM:\t  2000 kB\nVmRSS:\t  1024 kB\n"), Some(1 << 20));
        assert_eq!(resident("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn own_process_information_is_read() {
        let own = [std::process::id()];
        cpu_time(&own).unwrap();
        assert!(!RunTimes::read(&own).unwrap().0.is_empty());
        assert!(resident_bytes(&own).unwrap() > 1 << 16);
        // If the kernel does not count waiting times, this file does not exist.
        let counts = fs::exists("/proc/self/schedstat").unwrap();
        assert_eq!(time_without_core(&own).is_some(), counts);
    }

    #[test]
    fn family_includes_grandchildren() {
        assert_eq!(descend(1, &[(2, 1), (3, 2), (4, 9), (5, 1)]), [1, 2, 5, 3]);
        assert_eq!(family(std::process::id())[0], std::process::id());
    }
}
