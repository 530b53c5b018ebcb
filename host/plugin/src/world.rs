//! The versions of the contract that plugins are compiled against, behind one interface.
//!
//! A plugin of version 0.2 receives and returns the bytes of a frame; Rust plugins use this version. `v1.rs` converts
//! frames for plugins of version 0.1: Python plugins, and Rust plugins that were built before 0.2.

mod v1;

use wasmtime::{
    Engine, Store,
    component::{Component, HasSelf, Linker},
};

use super::{
    CallError, Field, Frame, LoadError,
    bindings::{self, Level, types, v2},
    frame::{self, FrameFault},
    guest_state::GuestState,
};

/// The exports of an instance, by version of the contract.
pub(super) enum World {
    V1(bindings::v1::DerivedFeatures),
    V2(v2::DerivedFeatures),
}

/// A component that is ready to be instantiated: its imports are resolved, and the types of its exports are checked.
pub(super) enum WorldPre {
    V1(bindings::v1::DerivedFeaturesPre<GuestState>),
    V2(v2::DerivedFeaturesPre<GuestState>),
}

/// The result of `transform`, not validated yet.
pub(super) enum Returned {
    Columns(v1::ReturnedColumns),
    Frame(Vec<u8>),
}

/// The prefixes of the imports that a component may have: the interface with the log function, and the interface with
/// the types of the exports.
pub(super) const IMPORTS: [&str; 4] = [
    "larder:transform/host@0.1.",
    "larder:transform/types@0.1.",
    "larder:transform/host@0.2.",
    "larder:transform/types@0.2.",
];
const VERSION_1: &str = "0.1";
const VERSION_2: &str = "0.2";
/// The prefix of an import that every component of version 0.2 has, because its exports use the types of the interface.
const TYPES_2: &str = "larder:transform/types@0.2.";

// === impl WorldPre ===

impl WorldPre {
    /// Resolves the imports, and checks the types of the exports, once for all instances.
    ///
    /// # Errors
    /// [`LoadError::World`] if an import or export has the wrong type.
    pub(super) fn link(engine: &Engine, component: &Component) -> Result<Self, LoadError> {
        let is_2 = component.component_type().imports(engine).any(|(name, _)| name.starts_with(TYPES_2));
        Self::of_version(is_2, engine, component).map_err(|error| LoadError::World {
            version: if is_2 { VERSION_2 } else { VERSION_1 },
            why: format!("{error:#}"),
        })
    }

    fn of_version(is_2: bool, engine: &Engine, component: &Component) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(engine);
        if is_2 {
            v2::DerivedFeatures::add_to_linker::<_, HasSelf<GuestState>>(&mut linker, |state| state)?;
            Ok(Self::V2(v2::DerivedFeaturesPre::new(linker.instantiate_pre(component)?)?))
        } else {
            bindings::v1::DerivedFeatures::add_to_linker::<_, HasSelf<GuestState>>(&mut linker, |state| state)?;
            Ok(Self::V1(bindings::v1::DerivedFeaturesPre::new(linker.instantiate_pre(component)?)?))
        }
    }

    /// Returns the engine that the component was compiled for.
    pub(super) fn engine(&self) -> &Engine {
        match self {
            Self::V1(pre) => pre.engine(),
            Self::V2(pre) => pre.engine(),
        }
    }

    /// Creates an instance.
    pub(super) fn instantiate(&self, store: &mut Store<GuestState>) -> wasmtime::Result<World> {
        Ok(match self {
            Self::V1(pre) => World::V1(pre.instantiate(store)?),
            Self::V2(pre) => World::V2(pre.instantiate(store)?),
        })
    }

    /// Returns the major and minor version of the contract. Patch versions are compatible.
    pub(super) fn version(&self) -> &'static str {
        match self {
            Self::V1(_) => VERSION_1,
            Self::V2(_) => VERSION_2,
        }
    }
}

// === impl World ===

impl World {
    pub(super) fn describe(&self, store: &mut Store<GuestState>) -> wasmtime::Result<types::Signature> {
        match self {
            Self::V1(world) => world.call_describe(store),
            Self::V2(world) => world.call_describe(store),
        }
    }

    pub(super) fn configure(
        &self,
        store: &mut Store<GuestState>,
        config: &str,
    ) -> wasmtime::Result<Result<(), types::Fault>> {
        match self {
            Self::V1(world) => world.call_configure(store, config),
            Self::V2(world) => world.call_configure(store, config),
        }
    }

    pub(super) fn transform(
        &self,
        store: &mut Store<GuestState>,
        context: types::Context,
        inputs: &Frame,
    ) -> wasmtime::Result<Result<Returned, types::Fault>> {
        let rows = u32::try_from(inputs.rows()).unwrap_or(u32::MAX);
        Ok(match self {
            Self::V1(world) => {
                let columns = world.call_transform(store, context, rows, &v1::columns(inputs))?;
                columns.map(|columns| Returned::Columns(v1::ReturnedColumns(columns)))
            }
            Self::V2(world) => world.call_transform(store, context, rows, inputs.bytes())?.map(Returned::Frame),
        })
    }
}

// === impl Returned ===

impl Returned {
    /// Validates a result against the signature, before any value is read.
    ///
    /// # Errors
    /// The first fault.
    pub(super) fn check(self, declared: &[Field], rows: usize) -> Result<Frame, CallError> {
        match self {
            Self::Columns(columns) => columns.check(declared, rows),
            Self::Frame(bytes) => frame::read(bytes, declared, rows).map_err(|fault| match fault {
                FrameFault::Column(place, fault) => CallError::Column { name: declared[place].name.clone(), fault },
                FrameFault::Surplus(bytes) => CallError::Surplus { bytes },
            }),
        }
    }
}

// === impl GuestState ===

impl types::Host for GuestState {}

impl bindings::v1::larder::transform::host::Host for GuestState {
    fn log(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.write(level, &message);
        Ok(())
    }
}

impl v2::larder::transform::host::Host for GuestState {
    fn log(&mut self, level: v2::larder::transform::host::Level, message: String) -> wasmtime::Result<()> {
        use v2::larder::transform::host::Level as Own;
        let level = match level {
            Own::Debug => Level::Debug,
            Own::Info => Level::Info,
            Own::Warn => Level::Warn,
            Own::Error => Level::Error,
        };
        self.write(level, &message);
        Ok(())
    }
}
