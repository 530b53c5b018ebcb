//! Tests of watches: files that are replaced, linked, removed and created again, and the fallback to polling.

use std::{fs, os::unix::fs::symlink};

use super::*;

/// Much longer than an event takes, and shorter than [`RECHECK_EVERY`].
const SOON: Duration = Duration::from_secs(5);
const NEVER: Duration = Duration::from_secs(3_600);

fn on_one_thread<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
}

/// Watches a path, and checks that events cover it.
fn watched(path: &Path) -> Subscription {
    let subscription = FileWatcher::new().subscribe();
    subscription.watch([path]);
    assert!(subscription.is_covered());
    subscription
}

#[track_caller]
fn assert_wakes(subscription: &Subscription) {
    on_one_thread(async { timeout(SOON, subscription.changed(NEVER)).await }).expect("no event");
}

#[track_caller]
fn assert_quiet(subscription: &Subscription) {
    on_one_thread(async { timeout(Duration::from_millis(300), subscription.changed(NEVER)).await })
        .expect_err("an event");
}

#[test]
fn overwritten_file_wakes_subscriber() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "1").unwrap();
    let subscription = watched(&path);
    fs::write(dir.path().join("other"), "1").unwrap();
    fs::read(&path).unwrap();
    assert_quiet(&subscription);
    fs::write(&path, "2").unwrap();
    assert_wakes(&subscription);
    fs::remove_file(&path).unwrap();
    assert_wakes(&subscription);
}

#[test]
fn file_replaced_by_rename_wakes_subscriber() {
    let dir = tempfile::tempdir().unwrap();
    let (path, new) = (dir.path().join("file"), dir.path().join("new"));
    fs::write(&path, "1").unwrap();
    let subscription = watched(&path);
    for _ in 0..2 {
        fs::write(&new, "2").unwrap();
        fs::rename(&new, &path).unwrap();
        assert_wakes(&subscription);
    }
}

#[test]
fn swapped_config_map_wakes_subscriber() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    // The layout of a ConfigMap that Kubernetes mounts.
    for version in ["..1", "..2", "..3"] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("file"), version).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/file", at("file")).unwrap();
    let subscription = watched(&at("file"));
    for version in ["..2", "..3"] {
        symlink(version, at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        assert_wakes(&subscription);
        subscription.watch([at("file")]);
        fs::write(at(version).join("file"), "new").unwrap();
        assert_wakes(&subscription);
    }
}

#[test]
fn linked_directory_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    fs::create_dir_all(at("real/deep")).unwrap();
    fs::create_dir(at("links")).unwrap();
    symlink("../real", at("links/dir")).unwrap();
    let subscription = watched(&at("links/dir/deep"));
    fs::write(at("real/deep/new"), "1").unwrap();
    assert_wakes(&subscription);
}

#[test]
fn created_directory_wakes_subscriber() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = dir.path().join("a/plugins");
    let subscription = watched(&plugins);
    fs::create_dir(dir.path().join("a")).unwrap();
    assert_wakes(&subscription);
    subscription.watch([&plugins]);
    fs::create_dir(&plugins).unwrap();
    assert_wakes(&subscription);
    subscription.watch([&plugins]);
    fs::write(plugins.join("file"), "1").unwrap();
    assert_wakes(&subscription);
}

#[test]
fn recreated_directory_is_watched_again() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = dir.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    let subscription = watched(&plugins);
    for round in 0..4 {
        if round % 2 == 0 {
            // The new directory may have the same inode as the old one.
            fs::remove_dir_all(&plugins).unwrap();
        } else {
            fs::rename(&plugins, dir.path().join(format!("old{round}"))).unwrap();
        }
        fs::create_dir(&plugins).unwrap();
        assert_wakes(&subscription);
        subscription.watch([&plugins]);
        fs::write(plugins.join("file"), "1").unwrap();
        assert_wakes(&subscription);
    }
}

#[test]
fn subscribers_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let watcher = FileWatcher::new();
    let [one, other] = ["one", "other"].map(|name| {
        let subscription = watcher.subscribe();
        subscription.watch([dir.path().join(name)]);
        subscription
    });
    fs::write(dir.path().join("one"), "1").unwrap();
    assert_wakes(&one);
    assert_quiet(&other);
    drop(one);
    other.watch([dir.path().join("other")]);
    fs::write(dir.path().join("other"), "1").unwrap();
    assert_wakes(&other);
    assert_eq!(lock(&watcher.0.backend).dirs.len(), 1);
    other.watch([] as [&Path; 0]);
    assert_eq!(lock(&watcher.0.backend).dirs.len(), 0);
}

#[test]
fn failed_watch_falls_back_to_polling() {
    let dir = tempfile::tempdir().unwrap();
    let poll = Duration::from_millis(20);
    let wakes_after_poll =
        |subscription: &Subscription| on_one_thread(async { timeout(SOON, subscription.changed(poll)).await }).is_ok();
    let off = FileWatcher::with(true).subscribe();
    off.watch([dir.path()]);
    assert!(!off.is_covered() && wakes_after_poll(&off));
    // `/proc` is a file system whose changes cause no events.
    let proc = FileWatcher::new().subscribe();
    proc.watch([Path::new("/proc/self/status"), dir.path()]);
    assert!(!proc.is_covered() && wakes_after_poll(&proc));
    // The watcher reported an error.
    let broken = watched(dir.path());
    broken.shared.subscribers.is_broken.store(true, Ordering::Relaxed);
    assert!(!broken.is_covered() && wakes_after_poll(&broken));
}

#[test]
fn lost_events_wake_all_subscribers() {
    let dir = tempfile::tempdir().unwrap();
    let subscription = watched(dir.path());
    let overflow = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
    subscription.shared.subscribers.note(&overflow);
    assert_wakes(&subscription);
}
