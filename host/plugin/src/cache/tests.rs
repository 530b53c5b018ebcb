//! Tests of the cache of compiled code.

use std::os::unix::fs::PermissionsExt as _;

use wasmtime::Config;

use super::*;
use crate::{PluginClass, PluginSettings, engine::Engines};

/// The smallest valid component.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn engine(nan: bool) -> Engine {
    Engine::new(Config::new().wasm_component_model(true).cranelift_nan_canonicalization(nan)).unwrap()
}

/// Opens a cache that is large enough for all files.
fn open(dir: &Path) -> Option<Cache> {
    Cache::open(dir, u64::MAX)
}

/// Compiles the component, and stores its code.
fn put(cache: &Cache, engine: &Engine, digest: &Digest) {
    let code = engine.precompile_component(COMPONENT).unwrap();
    cache.put(engine, digest, &code, &load(engine, &code).unwrap());
}

/// Creates a cache with the component's code, and returns the path of that file.
fn filled(dir: &Path) -> (Cache, Engine, Digest, PathBuf) {
    let (cache, engine, digest) = (open(dir).unwrap(), engine(true), Digest::of(COMPONENT));
    put(&cache, &engine, &digest);
    let path = cache.path(&name(&engine, &digest));
    (cache, engine, digest, path)
}

#[test]
fn stored_code_is_found_after_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, engine, digest, _) = filled(dir.path());
    assert!(cache.get(&engine, &digest).is_some());
    assert!(open(dir.path()).unwrap().get(&engine, &digest).is_some());
    assert!(cache.get(&engine, &Digest::of(b"other")).is_none());
}

#[test]
fn modified_or_renamed_code_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, engine, digest, path) = filled(dir.path());
    let good = fs::read(&path).unwrap();
    for change in [TAG_BYTES - 1, TAG_BYTES, good.len() - 1] {
        let mut bad = good.clone();
        bad[change] ^= 1;
        fs::write(&path, bad).unwrap();
        assert!(cache.get(&engine, &digest).is_none(), "byte {change}");
    }
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    assert!(cache.get(&engine, &digest).is_none());
    fs::write(&path, b"").unwrap();
    assert!(cache.get(&engine, &digest).is_none());
    let other = Digest::of(b"other");
    fs::write(cache.path(&name(&engine, &other)), &good).unwrap();
    assert!(cache.get(&engine, &other).is_none(), "code of another component");
}

#[test]
fn code_of_another_host_is_none() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (cache, engine, digest, path) = filled(ours.path());
    let (_, _, _, foreign) = filled(theirs.path());
    fs::copy(foreign, path).unwrap();
    assert!(cache.get(&engine, &digest).is_none());
}

#[test]
fn other_settings_have_other_names() {
    let digest = Digest::of(COMPONENT);
    assert_ne!(name(&engine(true), &digest), name(&engine(false), &digest));
}

#[test]
fn both_engines_use_the_same_code() {
    let engines = Engines::new(&PluginSettings::default()).unwrap();
    let [compiled, interpreted] = PluginClass::ALL.map(|class| settings(engines.of(class)));
    assert_eq!(compiled, interpreted);
}

#[test]
fn code_beyond_the_limit_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(true);
    let [first, second] = [&b"1"[..], b"2"].map(Digest::of);
    let size = {
        let (_, _, _, path) = filled(dir.path());
        fs::metadata(path).unwrap().len()
    };
    let cache = Cache::open(dir.path(), size).unwrap();
    let code = engine.precompile_component(COMPONENT).unwrap();
    let put = |digest| cache.put(&engine, digest, &code, &load(&engine, &code).unwrap()).unwrap();
    let in_use = put(&first);
    let files = || fs::read_dir(dir.path()).unwrap().count() - 1;
    assert_eq!(files(), 1, "of the first component in use");
    drop(put(&second));
    assert_eq!(files(), 2, "code in use is kept");
    drop(in_use);
    drop(put(&second));
    assert_eq!(files(), 1);
    assert!(cache.get(&engine, &first).is_none() && cache.get(&engine, &second).is_some());
}

#[test]
fn code_that_is_read_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, engine, digest, path) = filled(dir.path());
    let in_use = cache.get(&engine, &digest).unwrap().1.unwrap();
    let small = Cache::open(dir.path(), 0).unwrap();
    put(&small, &engine, &Digest::of(b"other"));
    assert!(path.try_exists().unwrap());
    drop(in_use);
    put(&small, &engine, &Digest::of(b"other"));
    assert!(!path.try_exists().unwrap());
}

#[test]
fn unstored_code_stays_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, engine, digest, path) = filled(dir.path());
    fs::remove_dir_all(dir.path()).unwrap();
    assert!(cache.get(&engine, &digest).is_none(), "the file is gone");
    put(&cache, &engine, &digest);
    assert!(cache.get(&engine, &digest).is_some());
    assert!(cache.get(&engine, &Digest::of(b"other")).is_none());
    fs::create_dir(dir.path()).unwrap();
    put(&cache, &engine, &digest);
    fs::remove_file(path).unwrap();
    assert!(cache.get(&engine, &digest).is_none(), "stored code is not kept in memory");
}

#[test]
fn stored_functions_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, engine, _, code) = filled(dir.path());
    let functions = || cache.functions(&engine, "python");
    assert_eq!(functions(), None);
    cache.put_functions(&engine, "python", b"functions");
    assert_eq!(functions().as_deref(), Some(&b"functions"[..]));
    assert_eq!(cache.functions(&self::engine(false), "python"), None, "another compiler");
    assert_eq!(cache.functions(&engine, "javascript"), None, "another language");
    let path = dir.path().join(functions_name(&engine, "python"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut bad = fs::read(&path).unwrap();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&path, bad).unwrap();
    assert_eq!(functions(), None, "modified");
    fs::copy(code, path).unwrap();
    assert_eq!(functions(), None, "the code of a component");
}

#[test]
fn directory_and_key_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("compiled");
    open(&own).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&own), mode(&own.join("key"))), (0o700, 0o600));
    assert_eq!(fs::read_dir(&own).unwrap().count(), 1, "no temporary file is left");
}

/// Threads of one process, as in the Python package, open the directory at the same time.
#[test]
fn concurrent_opens_share_the_key() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let open = || open(&dir.path().join("compiled"));
        let opened: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let tags: Vec<_> =
            opened.iter().map(|cache| cache.as_ref().unwrap().tag("a", b"b").as_ref().to_vec()).collect();
        assert!(tags.iter().all(|tag| *tag == tags[0]));
        assert_eq!(fs::read_dir(dir.path().join("compiled")).unwrap().count(), 1, "no temporary file is left");
    }
}

#[test]
fn unusable_directory_is_no_cache() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(open(&file.join("compiled")).is_none());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(open(dir.path()).is_none(), "other users share the directory");
}

#[test]
fn unusable_key_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (_, engine, digest, code) = filled(dir.path());
    let path = dir.path().join("key");
    let good = fs::read(&path).unwrap();
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    type Change<'c> = &'c dyn Fn();
    let changes: [(&str, Change<'_>); 5] = [
        ("empty", &|| fs::write(&path, "").unwrap()),
        ("short", &|| fs::write(&path, &good[1..]).unwrap()),
        ("long", &|| fs::write(&path, [&good[..], b"0"].concat()).unwrap()),
        ("readable by others", &|| set_mode(&path, 0o644)),
        ("a link", &|| {
            fs::rename(&path, path.with_extension("target")).unwrap();
            std::os::unix::fs::symlink(path.with_extension("target"), &path).unwrap();
        }),
    ];
    for (what, change) in changes {
        change();
        let cache = open(dir.path()).unwrap();
        let meta = fs::symlink_metadata(&path).unwrap();
        assert!(meta.is_file() && meta.permissions().mode() & 0o777 == 0o600 && meta.len() == 32, "{what}");
        assert_ne!(fs::read(&path).unwrap(), good, "{what}");
        assert!(cache.get(&engine, &digest).is_none(), "{what}: code signed with the old key");
        put(&cache, &engine, &digest);
        assert!(cache.get(&engine, &digest).is_some(), "{what}");
    }
    assert!(code.try_exists().unwrap());
}

#[test]
fn writable_directory_loses_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let (_, engine, digest, _) = filled(dir.path());
    let before = fs::read(dir.path().join("key")).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let cache = open(dir.path()).unwrap();
    assert_ne!(fs::read(dir.path().join("key")).unwrap(), before);
    assert!(cache.get(&engine, &digest).is_none());
}
