//! Loads a component from a file, and checks its size, structure, code, imports, exports and signature.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use wasmtime::{Engine, component};

use super::{
    BuildInfo, Digest, Interrupt, LimitScope, LoadError, PluginClass, PluginLimits, PluginSettings, Signature,
    cache::{self, Cache, InUse},
    compiler::{Compiled, Compiler},
    engine::Engines,
    guest::{Bounds, Guest, instantiation_halt},
    inputs::TimeColumn,
    logs::PluginLog,
    precheck,
    world::Version,
    world::WorldPre,
};

/// A component that was checked and compiled, with its signature.
pub struct Component {
    pub(super) pre: WorldPre,
    pub(super) limits: PluginLimits,
    /// Keeps the file of its compiled code.
    _code: Option<InUse>,
    signature: Signature,
    digest: Digest,
    build: Option<BuildInfo>,
    bytes: u64,
    compiled: bool,
    load_time: Duration,
}

/// The maximum size of the result of `describe` in bytes.
const SIGNATURE_BYTES_MAX: usize = 1 << 20;
/// The first bytes of a component, and of a core module.
const COMPONENT_PREAMBLE: [u8; 8] = *b"\0asm\x0d\0\x01\0";
const MODULE_PREAMBLE: [u8; 8] = *b"\0asm\x01\0\0\0";

// === impl Component ===

impl Component {
    /// Checks a file and loads its component. Without a compiler, returns `None` for a file whose code is not in the
    /// cache.
    pub(super) fn load(
        engines: &Engines,
        settings: &PluginSettings,
        cache: Option<&Cache>,
        compiler: Option<&Compiler>,
        bytes: &[u8],
    ) -> Result<Option<Self>, LoadError> {
        let started = Instant::now();
        let build = BuildInfo::read(bytes);
        let class = build.as_ref().map_or(PluginClass::Compiled, |build| build.class);
        // The signature has the plugin's name, which determines its limits. Until then, the highest limits apply.
        let highest = settings.highest_limits(class);
        let size = bytes.len() as u64;
        check_size(size, highest.component_bytes, LimitScope::Class(class), build.is_some())?;
        match bytes.first_chunk() {
            Some(&COMPONENT_PREAMBLE) => {}
            Some(&MODULE_PREAMBLE) => return Err(LoadError::CoreModule),
            _ => return Err(LoadError::NotWasm),
        }
        let functions = precheck::check(bytes, highest.functions, class)?;
        let digest = Digest::of(bytes);
        let engine = engines.of(class);
        let cached = cache.and_then(|cache| cache.get(engine, &digest));
        let compiled = cached.is_none();
        let (component, code) = match (cached, compiler) {
            (Some(cached), _) => cached,
            (None, None) => return Ok(None),
            (None, Some(compiler)) => {
                // Plugins with the same interpreter have its functions in common.
                let language = build.as_ref().map_or("", |build| &build.language);
                let is_interpreted = class == PluginClass::Interpreted;
                let known = cache.filter(|_| is_interpreted);
                let known = known.map(|cache| cache.functions(engine, language).unwrap_or_default());
                let Compiled { code, functions } = compiler.compile(bytes, known.as_deref())?;
                let component =
                    cache::load(engine, &code).map_err(|error| LoadError::Instantiate(format!("{error:#}")))?;
                check_names(engine, &component)?;
                let in_use = cache.and_then(|cache| {
                    if let Some(functions) = functions {
                        cache.put_functions(engine, language, &functions);
                    }
                    cache.put(engine, &digest, &code, &component)
                });
                (component, in_use)
            }
        };
        check_names(engine, &component)?;
        let pre = WorldPre::link(engine, &component)?;
        let (signature, limits) = describe(engines, &pre, settings, class)?;
        let scope = || LimitScope::Plugin(signature.name.clone());
        check_size(size, limits.component_bytes, scope(), build.is_some())?;
        if functions > limits.functions {
            return Err(LoadError::Functions { limit: limits.functions, scope: scope() });
        }
        let load_time = started.elapsed();
        Ok(Some(Self { pre, limits, _code: code, signature, digest, build, bytes: size, compiled, load_time }))
    }

    /// Returns its signature.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Returns the digest of its file.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Returns the build information that `larder plugin build` wrote into the file; `None` if another tool built it.
    #[must_use]
    pub fn build(&self) -> Option<&BuildInfo> {
        self.build.as_ref()
    }

    /// Returns the plugin's language according to the build information, or `unknown`.
    #[must_use]
    pub fn language(&self) -> &str {
        self.build.as_ref().map_or("unknown", |build| &build.language)
    }

    /// Returns its class according to the build information. A component without build information is compiled.
    #[must_use]
    pub fn class(&self) -> PluginClass {
        self.build.as_ref().map_or(PluginClass::Compiled, |build| build.class)
    }

    /// Returns the version of the contract that it was compiled against: 0.1, 0.2 or 0.3.
    #[must_use]
    pub fn contract(&self) -> &'static str {
        self.pre.version().name()
    }

    /// Returns how it gets the time.
    pub(super) fn time_column(&self) -> TimeColumn {
        match (self.pre.version(), self.signature.reads_time) {
            (Version::V1 | Version::V2, _) => TimeColumn::Context,
            (Version::V3, true) => TimeColumn::First,
            (Version::V3, false) => TimeColumn::None,
        }
    }

    /// Returns its limits.
    #[must_use]
    pub fn limits(&self) -> &PluginLimits {
        &self.limits
    }

    /// Returns the size of its file in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns whether its code was compiled during the load; if not, the code came from the cache.
    #[must_use]
    pub fn was_compiled(&self) -> bool {
        self.compiled
    }

    /// Returns how long it took to load.
    #[must_use]
    pub fn load_time(&self) -> Duration {
        self.load_time
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Signature { name, version, .. } = &self.signature;
        f.debug_struct("Component").field("name", name).field("version", version).finish_non_exhaustive()
    }
}

fn check_names(engine: &Engine, component: &component::Component) -> Result<(), LoadError> {
    let component_type = component.component_type();
    let imports = component_type.imports(engine).map(|(name, _)| name);
    precheck::check_names(imports, |name| component_type.get_export(engine, name).is_some())
}

fn check_size(size: u64, limit: u64, scope: LimitScope, marked: bool) -> Result<(), LoadError> {
    if size > limit { Err(LoadError::TooLarge { limit, scope, marked }) } else { Ok(()) }
}

/// Returns the component's signature, and the limits of the plugin that it names. Calls `describe` twice on one instance and
/// once on another, and fails if the results differ. The first instance and its first call have the highest limits of the
/// class, and the others have the plugin's own limits.
fn describe(
    engines: &Engines,
    pre: &WorldPre,
    settings: &PluginSettings,
    class: PluginClass,
) -> Result<(Signature, PluginLimits), LoadError> {
    let highest = settings.highest_limits(class);
    let log = Arc::new(PluginLog::new("?", "?", "?", &highest));
    let instance = |limits: &PluginLimits| {
        Guest::new(engines, pre, limits, &log).map_err(|error| match error.downcast_ref::<wasmtime::Trap>() {
            Some(_) => LoadError::Describe(instantiation_halt(&error, limits)),
            None => LoadError::Instantiate(format!("{error:#}")),
        })
    };
    let ask = |guest: &mut Guest, limits: &PluginLimits| -> Result<Signature, LoadError> {
        let bounds = Bounds { time: limits.time, output_bytes: SIGNATURE_BYTES_MAX };
        let said: Result<_, Interrupt> = guest.call(engines, bounds, |world, store| world.describe(store));
        said.map_err(LoadError::Describe)
    };
    let mut first = instance(&highest)?;
    let signature = ask(&mut first, &highest)?;
    let limits = settings.limits_for(class, &signature.name);
    if ask(&mut first, &limits)? != signature || ask(&mut instance(&limits)?, &limits)? != signature {
        return Err(LoadError::Unsteady);
    }
    Ok((signature.check().map_err(LoadError::Signature)?, limits))
}
