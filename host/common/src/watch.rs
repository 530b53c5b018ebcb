//! Watches paths for changes, so that an idle process does not poll them.
//!
//! An event only wakes the subscriber. The subscriber then compares the stamps of its files, as it does after each
//! polling interval. A lost or late event only delays this check, and an unnecessary event only causes an unnecessary
//! check.
//!
//! Directories are watched instead of files, because editors replace a file by a rename, and Kubernetes swaps the
//! `..data` link of a mounted ConfigMap. For each path, the watched directories are those that contain the file itself
//! and the symbolic links in the path. If the path leads to a directory, that directory is watched. If the path does
//! not exist, its deepest existing directory is watched.
//!
//! Polling is the fallback. A [`Subscription`] polls at its own interval if one of its directories cannot be watched,
//! for example because the limit on watches is reached. It also polls if a directory is on a file system where other
//! machines may make changes without an event. Even if events cover all paths, the subscriber wakes every
//! [`RECHECK_EVERY`], or at its own interval if that is longer.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    clock::next_beat,
    files::FileStamp,
    links::{self, Step},
};

/// A watcher of directories. Subscribers share it because operating systems limit the number of watchers of each user.
#[derive(Clone, Debug)]
pub struct FileWatcher(Arc<Shared>);

/// The paths of one subscriber.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    subscriber: Arc<Subscriber>,
}

#[derive(Debug)]
struct Shared {
    /// The thread that handles events must never lock this, because watching a directory waits for that thread while
    /// the lock is held.
    backend: Mutex<Backend>,
    /// Shared with the event handler.
    subscribers: Arc<Subscribers>,
    /// Whether the log already has the warning that a directory cannot be watched.
    has_logged: AtomicBool,
    /// Whether the log already has the message about a directory on a remote file system.
    has_logged_remote: AtomicBool,
    /// Whether this watcher always polls; for tests.
    is_off: bool,
}

#[derive(Debug, Default)]
struct Backend {
    /// `None` until the first directory is watched, and as long as the operating system rejects another watcher.
    watcher: Option<RecommendedWatcher>,
    /// The watched directories. The stamps show whether a directory was replaced by another directory.
    dirs: HashMap<PathBuf, FileStamp>,
}

#[derive(Debug, Default)]
struct Subscribers {
    list: Mutex<Vec<Weak<Subscriber>>>,
    /// Watched directories whose watches are invalid because the directories were removed or renamed.
    stale: Mutex<HashSet<PathBuf>>,
    /// Whether the thread that reads events reported an error.
    is_broken: AtomicBool,
}

#[derive(Debug, Default)]
struct Subscriber {
    wanted: Mutex<Wanted>,
    changed: Notify,
    /// Whether events cover all directories in `wanted`.
    is_covered: AtomicBool,
}

/// The directories of a subscriber, with the names of the entries whose changes wake the subscriber.
type Wanted = HashMap<PathBuf, Names>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    All,
    Some(HashSet<OsString>),
}

/// The interval at which a subscriber wakes even if events cover all of its paths, unless its own interval is longer.
/// The additional checks detect changes that cause no event: a parent directory is renamed, or a file system is mounted
/// over a path.
pub const RECHECK_EVERY: Duration = Duration::from_secs(8);

/// After an event, the subscriber wakes only once there has been no further event for this long, because writing or
/// replacing a file causes several events.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// The maximum time for which [`DEBOUNCE`] delays the subscriber, for files that change continuously.
const DEBOUNCE_MAX: Duration = Duration::from_millis(250);

/// The maximum number of times that [`Subscription::watch`] resolves the paths again because they changed.
const ROUNDS_MAX: usize = 4;

// === impl FileWatcher ===

impl FileWatcher {
    /// Creates a watcher. Nothing is watched before the first [`Subscription::watch`].
    #[must_use]
    pub fn new() -> Self {
        Self::with(false)
    }

    fn with(is_off: bool) -> Self {
        let (backend, subscribers) = (Mutex::default(), Arc::default());
        let [has_logged, has_logged_remote] = [false, false].map(AtomicBool::new);
        Self(Arc::new(Shared { backend, subscribers, has_logged, has_logged_remote, is_off }))
    }

    /// Adds a subscriber, without paths.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let subscriber = Arc::new(Subscriber::default());
        let mut list = lock(&self.0.subscribers.list);
        list.retain(|known| known.strong_count() > 0);
        list.push(Arc::downgrade(&subscriber));
        drop(list);
        Subscription { shared: Arc::clone(&self.0), subscriber }
    }
}

impl Default for FileWatcher {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Subscription ===

impl Subscription {
    /// Replaces the watched paths. Call this before each check of the paths, because a path may lead through other
    /// directories than at the last check. If a path leads to a directory, the entries of the directory are watched,
    /// but not files in its subdirectories. This function blocks on the file system.
    pub fn watch(&self, paths: impl IntoIterator<Item = impl AsRef<Path>>) {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let paths: Vec<PathBuf> = paths.into_iter().map(|path| absolute(path.as_ref())).collect();
        let mut wanted = resolve_all(&paths);
        for _ in 0..ROUNDS_MAX {
            *lock(&self.subscriber.wanted) = wanted.clone();
            let is_covered = self.shared.apply(&wanted);
            self.subscriber.is_covered.store(is_covered, Ordering::Relaxed);
            // A change that happened before the watch began caused no event.
            let again = resolve_all(&paths);
            if again == wanted {
                break;
            }
            wanted = again;
        }
    }

    /// Waits until the paths should be checked: after an event, or after a timeout. The timeout is at most
    /// [`RECHECK_EVERY`], or `poll_every` if that is longer or if events do not cover all paths. If there was an event
    /// since the last call, does not wait for another event.
    pub async fn changed(&self, poll_every: Duration) {
        let rechecks = poll_every <= RECHECK_EVERY && self.is_covered();
        let until = if rechecks { next_beat(RECHECK_EVERY).into() } else { Instant::now() + poll_every };
        if timeout_at(until, self.subscriber.changed.notified()).await.is_err() {
            return;
        }
        let until = Instant::now() + DEBOUNCE_MAX;
        let quiet = async { while timeout(DEBOUNCE, self.subscriber.changed.notified()).await.is_ok() {} };
        let _ = timeout_at(until, quiet).await;
    }

    /// Returns whether events cover all paths.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        self.subscriber.is_covered.load(Ordering::Relaxed) && !self.shared.subscribers.is_broken.load(Ordering::Relaxed)
    }
}

// === impl Shared ===

impl Shared {
    /// Watches the `wanted` directories, and stops watching directories that no subscriber wants. Returns whether
    /// events cover all `wanted` directories.
    fn apply(&self, wanted: &Wanted) -> bool {
        if self.is_off {
            return false;
        }
        // The stamps are taken before the lock is acquired, because a network file system that hangs must not block
        // other subscribers.
        let stamp = |dir: &PathBuf| if is_local(dir) { FileStamp::at(dir).ok() } else { None };
        let local: Vec<_> = wanted.keys().filter_map(|dir| Some((dir, stamp(dir)?))).collect();
        let mut is_covered = EVENTS_COVER_LOCAL && local.len() == wanted.len();
        let is_remote = |dir: &&PathBuf| dir.is_dir() && local.iter().all(|(known, _)| known != dir);
        if let Some(dir) = wanted.keys().find(is_remote)
            && !self.has_logged_remote.swap(true, Ordering::Relaxed)
        {
            let dir = dir.display();
            tracing::info!(%dir, "directory is not on a local file system, which may not report changes; polling for changes");
        }
        let mut backend = lock(&self.backend);
        let Backend { watcher, dirs } = &mut *backend;
        let watcher = match watcher {
            Some(watcher) => watcher,
            None => match self.start() {
                Ok(started) => watcher.insert(started),
                Err(error) => {
                    self.note_polling(&error);
                    return false;
                }
            },
        };
        let stale = std::mem::take(&mut *lock(&self.subscribers.stale));
        let of_all = self.subscribers.dirs();
        dirs.retain(|dir, _| {
            let is_kept = of_all.contains(dir) && !stale.contains(dir);
            if !is_kept {
                // This fails if the directory was removed.
                let _ = watcher.unwatch(dir);
            }
            is_kept
        });
        for (dir, stamp) in local {
            match dirs.get(dir) {
                Some(known) if known.is_same_file(&stamp) => continue,
                Some(_) => _ = watcher.unwatch(dir),
                None => {}
            }
            match watcher.watch(dir, RecursiveMode::NonRecursive) {
                Ok(()) => _ = dirs.insert(dir.clone(), stamp),
                Err(error) => {
                    dirs.remove(dir);
                    self.note_polling(&error);
                    is_covered = false;
                }
            }
        }
        is_covered
    }

    fn start(&self) -> notify::Result<RecommendedWatcher> {
        let subscribers = Arc::clone(&self.subscribers);
        notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) => subscribers.note(&event),
            Err(error) => {
                if !subscribers.is_broken.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "watching files for changes failed; polling them instead");
                }
                subscribers.wake_all();
            }
        })
    }

    /// Logs once that files are polled.
    fn note_polling(&self, error: &notify::Error) {
        if !self.has_logged.swap(true, Ordering::Relaxed) {
            let hint = "raise fs.inotify.max_user_watches or fs.inotify.max_user_instances if that limit is reached";
            tracing::warn!(%error, hint, "cannot watch a directory for changes; polling it instead");
        }
    }
}

// === impl Subscribers ===

impl Subscribers {
    fn all(&self) -> Vec<Arc<Subscriber>> {
        lock(&self.list).iter().filter_map(Weak::upgrade).collect()
    }

    fn dirs(&self) -> HashSet<PathBuf> {
        self.all().iter().flat_map(|subscriber| lock(&subscriber.wanted).keys().cloned().collect::<Vec<_>>()).collect()
    }

    /// Wakes the subscribers that an event concerns.
    fn note(&self, event: &Event) {
        let is_change = match event.kind {
            // Checking files and directories causes access events, so these are ignored, except for the close of a
            // written file.
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        };
        if event.need_rescan() || (is_change && event.paths.is_empty()) {
            return self.wake_all();
        }
        if !is_change {
            return;
        }
        for subscriber in self.all() {
            let wanted = lock(&subscriber.wanted);
            let concerns = |path: &PathBuf| {
                let names = path.parent().and_then(|dir| wanted.get(dir));
                wanted.contains_key(path) || names.zip(path.file_name()).is_some_and(|(names, name)| names.has(name))
            };
            let is_concerned = event.paths.iter().any(concerns);
            let invalidates_watch =
                matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(notify::event::ModifyKind::Name(_)));
            if invalidates_watch {
                lock(&self.stale).extend(event.paths.iter().filter(|path| wanted.contains_key(*path)).cloned());
            }
            drop(wanted);
            if is_concerned {
                subscriber.changed.notify_one();
            }
        }
    }

    fn wake_all(&self) {
        self.all().iter().for_each(|subscriber| subscriber.changed.notify_one());
    }
}

// === impl Names ===

impl Names {
    fn has(&self, name: &OsStr) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.contains(name),
        }
    }
}

fn lock<T>(locked: &Mutex<T>) -> MutexGuard<'_, T> {
    locked.lock().unwrap_or_else(PoisonError::into_inner)
}

fn resolve_all(paths: &[PathBuf]) -> Wanted {
    let mut wanted = Wanted::new();
    paths.iter().for_each(|path| resolve(path, &mut wanted));
    wanted
}

/// Adds the directories to watch for an absolute path.
fn resolve(path: &Path, wanted: &mut Wanted) {
    links::resolve(path, |step| match step {
        Step::Link { dir, name, .. } | Step::File { dir, name } => add(wanted, dir, name),
        Step::Dir(dir) => _ = wanted.insert(dir, Names::All),
    });
}

fn add(wanted: &mut Wanted, dir: PathBuf, name: OsString) {
    if let Names::Some(names) = wanted.entry(dir).or_insert_with(|| Names::Some(HashSet::new())) {
        names.insert(name);
    }
}

/// Whether events report every change on a local file system. This is tested only on Linux. On other operating systems,
/// files are polled in addition.
const EVENTS_COVER_LOCAL: bool = cfg!(target_os = "linux");

/// Returns whether a directory is on a known file system that only this machine can change. File systems such as NFS,
/// SMB, FUSE and 9P report only the changes that this machine makes, and may hang. An unknown file system is treated
/// like these.
#[cfg(target_os = "linux")]
fn is_local(dir: &Path) -> bool {
    /// `f_type` of file systems, from `linux/magic.h`.
    const LOCAL: [u32; 8] = [
        0xEF53,      // ext2, ext3, ext4
        0x5846_5342, // XFS
        0x9123_683E, // Btrfs
        0x0102_1994, // tmpfs: Secrets and ConfigMaps of Kubernetes
        0x794C_7630, // overlayfs: container images
        0x8584_58F6, // ramfs
        0xF2F5_2010, // F2FS
        0x2FC1_2FC1, // ZFS
    ];
    // The type of `f_type` differs between architectures; its value has 32 bits.
    rustix::fs::statfs(dir).is_ok_and(|stat| LOCAL.contains(&(stat.f_type as u32)))
}

#[cfg(not(target_os = "linux"))]
fn is_local(_dir: &Path) -> bool {
    true
}
