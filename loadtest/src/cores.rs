//! Assigns separate cores to the servers and to the load, so that they do not compete for CPU time.

use std::{fmt, fs, io};

use anyhow::Context;
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// The cores of the servers and of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cores {
    /// One core for the servers, and one for the load.
    Split { server: usize, load: usize },
    /// Two cores for the servers, and one for the load if there is a third; otherwise, the load shares the servers'
    /// cores.
    Pair { servers: [usize; 2], load: Option<usize> },
    /// Only one core is available. A run then only shows whether everything works: its numbers are not meaningful.
    Shared,
}

/// Threads of running processes that were pinned to the servers' cores. Dropping this restores their previous affinity.
#[derive(Debug)]
pub(crate) struct Pinned {
    threads: Vec<(Pid, CpuSet)>,
}

// === impl Cores ===

impl Cores {
    /// Returns the first two cores that this process may use: one for the servers and one for the load.
    pub(crate) fn find() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        Ok(match (cores.next(), cores.next()) {
            (Some(server), Some(load)) => Self::Split { server, load },
            _ => Self::Shared,
        })
    }

    /// Returns the first two cores for the servers, and the third core, if it exists, for the load. Returns `None` if
    /// only one core is available.
    pub(crate) fn find_two_for_servers() -> io::Result<Option<Self>> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let (Some(first), Some(second)) = (cores.next(), cores.next()) else { return Ok(None) };
        Ok(Some(Self::Pair { servers: [first, second], load: cores.next() }))
    }

    /// Pins the calling thread to the load's core. If the load has no core of its own, pins the thread to the servers'
    /// cores.
    pub(crate) fn pin_load(self) -> io::Result<()> {
        match self {
            Self::Split { load, .. } | Self::Pair { load: Some(load), .. } => {
                Ok(sched_setaffinity(None, &only(&[load]))?)
            }
            Self::Pair { servers, load: None } => Ok(sched_setaffinity(None, &only(&servers))?),
            Self::Shared => Ok(()),
        }
    }

    /// Returns the servers' cores, or `None` if servers are not pinned.
    fn of_servers(self) -> Option<CpuSet> {
        match self {
            Self::Split { server, .. } => Some(only(&[server])),
            Self::Pair { servers, .. } => Some(only(&servers)),
            Self::Shared => None,
        }
    }

    /// Starts a process on the servers' cores. The process and its threads inherit the affinity of the thread that
    /// starts the process. Pinning the process later would only affect its main thread.
    pub(crate) fn start_on_server_cores<T>(self, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some(servers) = self.of_servers() else { return start() };
        let before = sched_getaffinity(None)?;
        sched_setaffinity(None, &servers)?;
        let started = start();
        sched_setaffinity(None, &before)?;
        started
    }

    /// Pins every thread of running processes to the servers' cores.
    pub(crate) fn pin_processes(self, pids: &[u32]) -> anyhow::Result<Pinned> {
        let mut pinned = Pinned { threads: Vec::new() };
        let Some(servers) = self.of_servers() else { return Ok(pinned) };
        for pid in pids {
            for thread in threads_of(*pid).with_context(|| format!("cannot list the threads of process {pid}"))? {
                // The thread may have ended.
                let Ok(before) = sched_getaffinity(Some(thread)) else { continue };
                sched_setaffinity(Some(thread), &servers)
                    .with_context(|| format!("cannot pin process {pid} to the servers' cores"))?;
                pinned.threads.push((thread, before));
            }
        }
        Ok(pinned)
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Split { server, load } => write!(f, "servers on core {server}, load on core {load}"),
            Self::Pair { servers: [first, second], load: Some(load) } => {
                write!(f, "servers on cores {first} and {second}, load on core {load}")
            }
            Self::Pair { servers: [first, second], load: None } => {
                write!(f, "servers and load on cores {first} and {second}")
            }
            Self::Shared => write!(f, "ONLY ONE CORE: servers and load share it, so the numbers are not reliable"),
        }
    }
}

// === impl Pinned ===

impl Drop for Pinned {
    fn drop(&mut self) {
        for (thread, before) in &self.threads {
            // The thread may have ended.
            let _ = sched_setaffinity(Some(*thread), before);
        }
    }
}

fn only(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    set
}

fn threads_of(pid: u32) -> io::Result<Vec<Pid>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        threads.extend(entry?.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw));
    }
    Ok(threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test only pins its own thread, which ends with the test.
    #[test]
    fn servers_get_two_cores() {
        let Some(two) = Cores::find_two_for_servers().unwrap() else { return };
        let Cores::Pair { servers, load } = two else { panic!("{two}") };
        let on =
            |set: &CpuSet, cores: &[usize]| (0..CpuSet::MAX_CPU).all(|core| set.is_set(core) == cores.contains(&core));
        let before = sched_getaffinity(None).unwrap();
        let started = two.start_on_server_cores(|| Ok(sched_getaffinity(None)?)).unwrap();
        assert!(servers[0] != servers[1] && on(&started, &servers));
        assert!(sched_getaffinity(None).unwrap() == before, "the starting thread keeps its affinity");
        two.pin_load().unwrap();
        let loaded = sched_getaffinity(None).unwrap();
        assert!(load.map_or_else(|| on(&loaded, &servers), |load| !servers.contains(&load) && on(&loaded, &[load])));
    }
}
