//! The versions of the contract that plugins are compiled against, behind one interface.
//!
//! A plugin of version 0.2 or 0.3 receives and returns the bytes of a frame. `v1.rs` converts frames for plugins of
//! version 0.1. `signature.rs` converts the signatures of all versions.

mod signature;
mod v1;

use wasmtime::{
    Engine, Store,
    component::{Component, HasSelf, Linker},
};

use super::{
    CallError, Field, Frame, Inputs, LoadError, Signature,
    bindings::{self, Level, types, v2, v3},
    frame::{self, FrameFault},
    guest_state::GuestState,
};

/// The exports of an instance, by version of the contract.
pub(super) enum World {
    V1(bindings::v1::DerivedFeatures),
    V2(v2::DerivedFeatures),
    V3(v3::DerivedFeatures),
}

/// A component that is ready to be instantiated: its imports are resolved, and the types of its exports are checked.
pub(super) enum WorldPre {
    V1(bindings::v1::DerivedFeaturesPre<GuestState>),
    V2(v2::DerivedFeaturesPre<GuestState>),
    V3(v3::DerivedFeaturesPre<GuestState>),
}

/// A version of the contract. Patch versions are compatible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
    V3,
}

/// The result of `transform`, not validated yet.
pub(super) enum Returned {
    Columns(v1::ReturnedColumns),
    Frame(Vec<u8>),
    Batch(v3::Batch),
}

/// The maximum size of the message of a failed row. Longer messages are truncated.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// A result that was validated: the outputs, and the rows that failed, in ascending order, with their messages.
pub(super) type Validated = (Frame, Vec<(usize, String)>);

/// The prefixes of the imports that a component may have: the interface with the log function, and the interface with
/// the types of the exports.
pub(super) const IMPORTS: [&str; 6] = [
    "larder:transform/host@0.1.",
    "larder:transform/types@0.1.",
    "larder:transform/host@0.2.",
    "larder:transform/types@0.2.",
    "larder:transform/host@0.3.",
    "larder:transform/types@0.3.",
];
/// The prefixes of imports that every component of a version has, because its exports use the types of the interface.
const TYPES: [(&str, Version); 2] =
    [("larder:transform/types@0.2.", Version::V2), ("larder:transform/types@0.3.", Version::V3)];

// === impl WorldPre ===

impl WorldPre {
    /// Resolves the imports, and checks the types of the exports, once for all instances.
    ///
    /// # Errors
    /// [`LoadError::World`] if an import or export has the wrong type.
    pub(super) fn link(engine: &Engine, component: &Component) -> Result<Self, LoadError> {
        let has_import =
            |prefix: &str| component.component_type().imports(engine).any(|(name, _)| name.starts_with(prefix));
        let version = TYPES.iter().find(|(prefix, _)| has_import(prefix)).map_or(Version::V1, |(_, version)| *version);
        Self::of_version(version, engine, component)
            .map_err(|error| LoadError::World { version: version.name(), why: format!("{error:#}") })
    }

    fn of_version(version: Version, engine: &Engine, component: &Component) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(engine);
        Ok(match version {
            Version::V1 => {
                bindings::v1::DerivedFeatures::add_to_linker::<_, HasSelf<GuestState>>(&mut linker, |state| state)?;
                Self::V1(bindings::v1::DerivedFeaturesPre::new(linker.instantiate_pre(component)?)?)
            }
            Version::V2 => {
                v2::DerivedFeatures::add_to_linker::<_, HasSelf<GuestState>>(&mut linker, |state| state)?;
                Self::V2(v2::DerivedFeaturesPre::new(linker.instantiate_pre(component)?)?)
            }
            Version::V3 => {
                v3::DerivedFeatures::add_to_linker::<_, HasSelf<GuestState>>(&mut linker, |state| state)?;
                Self::V3(v3::DerivedFeaturesPre::new(linker.instantiate_pre(component)?)?)
            }
        })
    }

    /// Returns the engine that the component was compiled for.
    pub(super) fn engine(&self) -> &Engine {
        match self {
            Self::V1(pre) => pre.engine(),
            Self::V2(pre) => pre.engine(),
            Self::V3(pre) => pre.engine(),
        }
    }

    /// Creates an instance.
    pub(super) fn instantiate(&self, store: &mut Store<GuestState>) -> wasmtime::Result<World> {
        Ok(match self {
            Self::V1(pre) => World::V1(pre.instantiate(store)?),
            Self::V2(pre) => World::V2(pre.instantiate(store)?),
            Self::V3(pre) => World::V3(pre.instantiate(store)?),
        })
    }

    /// Returns the version of the contract.
    pub(super) fn version(&self) -> Version {
        match self {
            Self::V1(_) => Version::V1,
            Self::V2(_) => Version::V2,
            Self::V3(_) => Version::V3,
        }
    }
}

// === impl Version ===

impl Version {
    /// Returns the major and minor version.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V1 => "0.1",
            Self::V2 => "0.2",
            Self::V3 => "0.3",
        }
    }
}

// === impl World ===

impl World {
    /// Returns the plugin's signature, not validated yet.
    pub(super) fn describe(&self, store: &mut Store<GuestState>) -> wasmtime::Result<Signature> {
        Ok(match self {
            Self::V1(world) => world.call_describe(store)?.into(),
            Self::V2(world) => world.call_describe(store)?.into(),
            Self::V3(world) => world.call_describe(store)?.into(),
        })
    }

    /// Passes the configuration. The inner error is the plugin's message.
    pub(super) fn configure(
        &self,
        store: &mut Store<GuestState>,
        config: &str,
    ) -> wasmtime::Result<Result<(), String>> {
        Ok(match self {
            Self::V1(world) => world.call_configure(store, config)?.map_err(fault_text),
            Self::V2(world) => world.call_configure(store, config)?.map_err(fault_text),
            Self::V3(world) => world.call_configure(store, config)?,
        })
    }

    /// Computes a batch. The inner error is the plugin's message. Versions 0.1 and 0.2 get one time for all rows: the
    /// time of the first row.
    pub(super) fn transform(
        &self,
        store: &mut Store<GuestState>,
        inputs: &Inputs,
    ) -> wasmtime::Result<Result<Returned, String>> {
        let (rows, frame) = (u32::try_from(inputs.rows()).unwrap_or(u32::MAX), inputs.frame());
        let context = || types::Context { as_of: inputs.first_time() };
        Ok(match self {
            Self::V1(world) => {
                let columns = world.call_transform(store, context(), rows, &v1::columns(frame))?;
                columns.map(|columns| Returned::Columns(v1::ReturnedColumns(columns))).map_err(fault_text)
            }
            Self::V2(world) => {
                world.call_transform(store, context(), rows, frame.bytes())?.map(Returned::Frame).map_err(fault_text)
            }
            Self::V3(world) => world.call_transform(store, rows, frame.bytes())?.map(Returned::Batch),
        })
    }
}

fn fault_text(fault: types::Fault) -> String {
    match fault {
        types::Fault::BadConfig(text) | types::Fault::BadInput(text) | types::Fault::Internal(text) => text,
    }
}

// === impl Returned ===

impl Returned {
    /// Validates a result against the signature, before any value is read.
    ///
    /// # Errors
    /// The first fault.
    pub(super) fn check(self, declared: &[Field], rows: usize) -> Result<Validated, CallError> {
        let (bytes, failed) = match self {
            Self::Columns(columns) => return Ok((columns.check(declared, rows)?, Vec::new())),
            Self::Frame(bytes) => (bytes, Vec::new()),
            Self::Batch(batch) => (batch.outputs, check_failed(batch.failed, rows)?),
        };
        let failed_rows: Vec<usize> = failed.iter().map(|(row, _)| *row).collect();
        let frame = frame::read(bytes, declared, rows, &failed_rows).map_err(|fault| match fault {
            FrameFault::Column(index, fault) => CallError::Column { name: declared[index].name.clone(), fault },
            FrameFault::Surplus(bytes) => CallError::Surplus { bytes },
        })?;
        Ok((frame, failed))
    }
}

/// Checks that failed rows are rows of the batch, in ascending order.
fn check_failed(
    failed: Vec<v3::larder::transform::types::FailedRow>,
    rows: usize,
) -> Result<Vec<(usize, String)>, CallError> {
    let failed: Vec<(usize, String)> =
        failed.into_iter().map(|failed| (failed.row as usize, shortened(failed.message))).collect();
    if let Some(pair) = failed.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
        return Err(CallError::FailedOrder { row: pair[1].0, previous: pair[0].0 });
    }
    match failed.last() {
        Some((row, _)) if *row >= rows => Err(CallError::FailedRow { row: *row, rows }),
        _ => Ok(failed),
    }
}

/// Returns a message of at most [`MESSAGE_BYTES_MAX`] bytes.
fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message.push('…');
        message.shrink_to_fit();
    }
    message
}

// === impl GuestState ===

impl types::Host for GuestState {}

impl bindings::v1::larder::transform::host::Host for GuestState {
    fn log(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.write(level, &message);
        Ok(())
    }
}

/// Implements the log function of a later version, whose level is a type of its own.
macro_rules! host_of {
    ($version:ident) => {
        impl $version::larder::transform::host::Host for GuestState {
            fn log(
                &mut self,
                level: $version::larder::transform::host::Level,
                message: String,
            ) -> wasmtime::Result<()> {
                use $version::larder::transform::host::Level as Own;
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
    };
}

host_of!(v2);
host_of!(v3);

impl v3::larder::transform::types::Host for GuestState {}
